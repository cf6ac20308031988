//! What a record holds.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::text_format::{self, CanonicalText};
use crate::amount::Amount;
use crate::approval::ApprovalId;
use crate::call::ToolCall;
use crate::call::identity::Identity;
use crate::decision::limit_state::LimitState;
use crate::json::hex::{Hex, unhex};
use crate::policy::{Code, Digest};
use crate::time::Timestamp;

/// What a record tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A call was decided, by a gate, by grants, or by the host.
    Decision,
    /// The quota of an allowed call was given back.
    Release,
    /// An allowed call was settled at its real amount.
    Settle,
    /// An allowed call has ended, and its quota stays spent.
    End,
    /// A person has approved a request, or tried to.
    Approve,
    /// A person has refused a request, or tried to.
    Refuse,
    /// A policy was put in force, or taken away.
    Policy,
}

/// What became of a call: the kind of its [`Decision`](crate::Decision).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "one for each decision that there is")]
pub enum Outcome {
    /// It could be made.
    Allow,
    /// It could not.
    Deny,
    /// It could be made later.
    RateLimited,
    /// A person had to approve it first.
    ApprovalRequired,
}

macro_rules! as_text {
    ($($name:ident { $($variant:ident: $text:literal,)* })*) => {$(
        impl $name {
            /// As text, as records and the language write it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}

as_text! {
    Event {
        Decision: "decision",
        Release: "release",
        Settle: "settle",
        End: "end",
        Approve: "approve",
        Refuse: "refuse",
        Policy: "policy",
    }
    Outcome {
        Allow: "allow",
        Deny: "deny",
        RateLimited: "rate_limited",
        ApprovalRequired: "approval_required",
    }
}

/// Which decision it is: what became of an allowed call later has the same. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId(pub(crate) u128);

impl DecisionId {
    /// The number.
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0.to_be_bytes()).fmt(f)
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecisionId({self})")
    }
}

impl CanonicalText for DecisionId {
    fn read(text: &str) -> Option<Self> {
        Some(Self(u128::from_be_bytes(unhex(text)?.try_into().ok()?)))
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// One thing that a gate did. What does not apply is absent.
///
/// It reads back from JSON as it was written; unknown members are refused. What an agent can make long is bounded:
/// a name of more than 512 bytes is cut, and ends in `…#` and the SHA-256 of the whole.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use serde_json::json;
/// use toolgate::audit::{AuditError, AuditRecord, AuditSink, Event};
/// use toolgate::{Gate, Policy, ToolCall};
///
/// #[derive(Clone, Default)]
/// struct Kept(Arc<Mutex<Vec<AuditRecord>>>);
///
/// impl AuditSink for Kept {
///     fn record(&self, record: &AuditRecord) -> Result<(), AuditError> {
///         self.0.lock().unwrap().push(record.clone());
///         Ok(())
///     }
/// }
///
/// let policy: Policy = r#"{ "version": "1", "default": "deny", "tools": { "search": {} } }"#.parse()?;
/// let kept = Kept::default();
/// let gate = Gate::builder().audit(kept.clone()).policy(policy).build();
/// let arguments = json!({ "query": "secret" });
/// drop(gate.check(&ToolCall::new("search", &arguments).user("ann")));
///
/// let records = kept.0.lock().unwrap();
/// let events: Vec<_> = records.iter().map(AuditRecord::event).collect();
/// assert_eq!(events, [Event::Policy, Event::Decision, Event::End]);
/// assert_eq!(records[1].tool(), Some("search"));
/// assert_eq!(records[1].argument_names().collect::<Vec<_>>(), ["query"]);
/// assert_eq!(records[1].arguments(), None, "values are kept only where the host asks for them");
/// # Ok::<(), toolgate::PolicyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRecord {
    #[serde(with = "text_format::one")]
    pub(super) time: Timestamp,
    pub(super) event: Event,
    #[serde(default, with = "text_format::option", skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<DecisionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) decision: Option<Outcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<Code>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<Box<str>>,
    #[serde(default, with = "text_format::option", skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tool: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) grant: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) agent: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub(super) argument_names: Box<[Box<str>]>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) more_arguments: u64,
    #[serde(default, with = "text_format::option", skip_serializing_if = "Option::is_none")]
    pub(super) arguments_digest: Option<ArgumentsDigest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) arguments: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) context: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty", with = "text_format::limits")]
    pub(super) limits: Vec<LimitState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_ms: Option<u64>,
    #[serde(default, with = "text_format::option", skip_serializing_if = "Option::is_none")]
    pub(super) approval: Option<ApprovalId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) approved: Option<bool>,
    #[serde(default, with = "text_format::option", skip_serializing_if = "Option::is_none")]
    pub(super) amount: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<Box<str>>,
}

/// A SHA-256 over the canonical JSON of a call's arguments, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArgumentsDigest(pub(super) [u8; 32]);

impl ArgumentsDigest {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ArgumentsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for ArgumentsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArgumentsDigest({self})")
    }
}

impl CanonicalText for ArgumentsDigest {
    fn read(text: &str) -> Option<Self> {
        crate::json::hex::undigest(text).map(Self)
    }
}

impl AuditRecord {
    /// When it was, by the gate's clock: for a decision the very instant that it was made for.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// What happened.
    pub fn event(&self) -> Event {
        self.event
    }

    /// Which decision it tells of: its release, settlement and end have the same. None for what people and hosts do.
    pub fn id(&self) -> Option<DecisionId> {
        self.id
    }

    /// How the call was decided.
    pub fn decision(&self) -> Option<Outcome> {
        self.decision
    }

    /// Why it was stopped.
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    /// The rule that stopped it.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    /// What the agent was told.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// The policy that decided, or that was put in force; none where there was none, or where it was taken away.
    pub fn policy(&self) -> Option<Digest> {
        self.policy
    }

    /// The [namespace](crate::Policy::namespace) of the policy that was put in force or taken away: its name in
    /// [`Grants`](crate::Grants).
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The tool.
    pub fn tool(&self) -> Option<&str> {
        self.tool.as_deref()
    }

    /// Who called, and where.
    pub fn identity(&self, identity: Identity) -> Option<&str> {
        match identity {
            Identity::Grant => self.grant.as_deref(),
            Identity::Session => self.session.as_deref(),
            Identity::Agent => self.agent.as_deref(),
            Identity::User => self.user.as_deref(),
            Identity::Server => self.server.as_deref(),
        }
    }

    /// The names of the arguments in order: the first 64 of them.
    pub fn argument_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.argument_names.iter().map(|name| &**name)
    }

    /// How many arguments there were besides.
    pub fn more_arguments(&self) -> u64 {
        self.more_arguments
    }

    /// What identifies the arguments; none where they could not be read, or were nested past 100.
    pub fn arguments_digest(&self) -> Option<ArgumentsDigest> {
        self.arguments_digest
    }

    /// The arguments, where the host [asks for them](crate::GateBuilder::audit_arguments) and they are no longer than 256 KiB.
    pub fn arguments(&self) -> Option<&Map<String, Value>> {
        self.arguments.as_ref()
    }

    /// What else the host knew of the call, where it asks for arguments.
    pub fn context(&self) -> Option<&Map<String, Value>> {
        self.context.as_ref()
    }

    /// How the limits stood after the decision, in document order.
    pub fn limits(&self) -> &[LimitState] {
        &self.limits
    }

    /// How long the call had to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_ms.map(Duration::from_millis)
    }

    /// The approval that the call has used or asked for, or that was decided.
    pub fn approval(&self) -> Option<ApprovalId> {
        self.approval
    }

    /// Who decided the approval, or tried to.
    pub fn by(&self) -> Option<&str> {
        self.by.as_deref()
    }

    /// Whether the approval could be used after this: not while others have to approve it too.
    pub fn approved(&self) -> Option<bool> {
        self.approved
    }

    /// The real amount of a settlement.
    pub fn amount(&self) -> Option<Amount> {
        self.amount
    }

    /// What went wrong: with the store of a denial, with a release, a settlement or an end, or with an answer to a request.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The call as it was decided, to decide it again; none where the record holds less than all of it: arguments were not asked for,
    /// or were too long, or could not be read, or a name was cut.
    pub fn call(&self) -> Option<ToolCall<'_>> {
        let arguments = self.arguments.as_ref().filter(|_| self.event == Event::Decision)?;
        let mut call = ToolCall::new(self.tool().unwrap_or_default(), arguments).context(self.context.as_ref());
        for identity in Identity::ALL {
            let name = self.identity(identity);
            call = match identity {
                Identity::Grant => call.grant(name),
                Identity::Session => call.session(name),
                Identity::Agent => call.agent(name),
                Identity::User => call.user(name),
                Identity::Server => call.server(name),
            };
        }
        Some(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_in_serde_and_in_text() {
        use Event::{Approve, Decision, End, Policy, Refuse, Release, Settle};
        for event in [Decision, Release, Settle, End, Approve, Refuse, Policy] {
            assert_eq!(serde_json::to_value(event).unwrap(), event.as_str());
        }
        for outcome in [Outcome::Allow, Outcome::Deny, Outcome::RateLimited, Outcome::ApprovalRequired] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
        use Code::*;
        for code in [
            NoPolicy,
            Hidden,
            DefaultDeny,
            ActionDeny,
            Require,
            DenyIf,
            Limit,
            Approval,
            ScopeMissing,
            AmountInvalid,
            StoreUnavailable,
            MalformedCall,
            GrantExpired,
            GrantRevoked,
            ToolChanged,
            AuditUnavailable,
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
