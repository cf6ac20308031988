//! Audit records.

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
use crate::json::hex::{Hex, decode_hex};
use crate::policy::{Code, Digest};
use crate::time::Timestamp;

/// The event that a record describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A call was decided by a gate, by grants or by the host.
    Decision,
    /// The quota of an allowed call was given back.
    Release,
    /// An allowed call was settled at its real amount.
    Settle,
    /// An allowed call has ended, and its quota stays spent.
    End,
    /// A person approved a request, or tried to.
    Approve,
    /// A person refused a request, or tried to.
    Refuse,
    /// A refusal was lifted, or somebody tried to.
    Lift,
    /// A policy was put in force or removed.
    Policy,
    /// Somebody resets what a caller has used of a counter. Recorded before it happens; once more,
    /// with its failure, if the store fails.
    Reset,
    /// A grant is given access.
    Give,
    /// A grant was revoked.
    Revoke,
    /// A grant was forgotten, or lost access to a policy because it was not listed any more.
    Forget,
}

/// The kind of a [`Decision`](crate::Decision).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "one for each kind of decision")]
pub enum Outcome {
    /// The call was allowed.
    Allow,
    /// The call was denied.
    Deny,
    /// The call had to wait for a limit.
    RateLimited,
    /// The call needed a person's approval.
    ApprovalRequired,
}

macro_rules! as_text {
    ($($name:ident { $($variant:ident: $text:literal,)* })*) => {$(
        impl $name {
            /// Returns the text that records use.
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
        Lift: "lift",
        Policy: "policy",
        Reset: "reset",
        Give: "give",
        Revoke: "revoke",
        Forget: "forget",
    }
    Outcome {
        Allow: "allow",
        Deny: "deny",
        RateLimited: "rate_limited",
        ApprovalRequired: "approval_required",
    }
}

/// The id of a decision, shared by the later events of its call. Its text is 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId(pub(crate) u128);

impl DecisionId {
    /// Returns the id as a number.
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
        Some(Self(u128::from_be_bytes(decode_hex(text)?.try_into().ok()?)))
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The record of one event at a gate. A member that does not apply is absent.
///
/// It reads back from JSON as it was written; unknown members are refused. Texts that an agent can
/// make long are bounded: a name of more than 512 bytes is cut, and ends in `…#` and the SHA-256 of
/// the whole name.
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
/// assert_eq!(records[1].arguments(), None, "values are recorded only if the host asks for it");
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
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) further_round: bool,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) input: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) task: bool,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty", with = "text_format::limits")]
    pub(super) limits: Vec<LimitState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) counter: Option<Box<str>>,
    #[serde(default, with = "text_format::option", skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
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

/// The SHA-256 of the canonical JSON of a call's arguments. Its text is 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArgumentsDigest(pub(super) [u8; 32]);

impl ArgumentsDigest {
    /// Returns the 32 bytes.
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
        crate::json::hex::parse_digest(text).map(Self)
    }
}

impl AuditRecord {
    /// Returns the time by the gate's clock: for a decision, the instant for which it was made.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Returns the event.
    pub fn event(&self) -> Event {
        self.event
    }

    /// Returns the id of the decision. The release, settlement and end of its call have the same
    /// id. `None` for what people do, and for policies.
    pub fn id(&self) -> Option<DecisionId> {
        self.id
    }

    /// Returns the kind of the decision.
    pub fn decision(&self) -> Option<Outcome> {
        self.decision
    }

    /// Returns the code of a call that was stopped.
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    /// Returns the rule that stopped the call.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    /// Returns the message for the agent.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns the digest of the policy that decided or was put in force. `None` if there was none,
    /// or if the policy was removed.
    pub fn policy(&self) -> Option<Digest> {
        self.policy
    }

    /// Returns the [namespace](crate::Policy::namespace) of the policy that was put in force or
    /// removed, or that a grant is given or has lost: its name in [`Grants`](crate::Grants).
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Returns `true` for a decision on a further round of an allowed call, which the client has
    /// repeated because the server asked for input. It charges nothing.
    pub fn is_further_round(&self) -> bool {
        self.further_round
    }

    /// Returns the name of the tool.
    pub fn tool(&self) -> Option<&str> {
        self.tool.as_deref()
    }

    /// Returns an identity of the caller, or the server.
    pub fn identity(&self, identity: Identity) -> Option<&str> {
        match identity {
            Identity::Grant => self.grant.as_deref(),
            Identity::Session => self.session.as_deref(),
            Identity::Agent => self.agent.as_deref(),
            Identity::User => self.user.as_deref(),
            Identity::Server => self.server.as_deref(),
        }
    }

    /// Returns the first 64 names of the arguments, in order.
    pub fn argument_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.argument_names.iter().map(|name| &**name)
    }

    /// Returns the number of further arguments.
    pub fn more_arguments(&self) -> u64 {
        self.more_arguments
    }

    /// Returns the digest of the arguments. `None` if they could not be read or are deeper than 100
    /// levels.
    pub fn arguments_digest(&self) -> Option<ArgumentsDigest> {
        self.arguments_digest
    }

    /// Returns the arguments, if the host [asks for them](crate::GateBuilder::audit_arguments) and
    /// they are at most 256 KiB.
    pub fn arguments(&self) -> Option<&Map<String, Value>> {
        self.arguments.as_ref()
    }

    /// Returns the context of the call, if the host asks for arguments.
    pub fn context(&self) -> Option<&Map<String, Value>> {
        self.context.as_ref()
    }

    /// Returns the agent's answers to what the server has asked for, if the host asks for
    /// arguments.
    pub fn input(&self) -> Option<&Map<String, Value>> {
        self.input.as_ref()
    }

    /// Returns `true` if the call asks to run as a task.
    pub fn is_task(&self) -> bool {
        self.task
    }

    /// Returns the states of the limits after the decision, in document order.
    pub fn limits(&self) -> &[LimitState] {
        &self.limits
    }

    /// Returns how long the call had to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_ms.map(Duration::from_millis)
    }

    /// Returns the approval that the call used or asked for, or that was decided.
    pub fn approval(&self) -> Option<ApprovalId> {
        self.approval
    }

    /// Returns the counter that is reset.
    pub fn counter(&self) -> Option<&str> {
        self.counter.as_deref()
    }

    /// Returns the end of the access that a grant is given.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Returns the name of the person who decided the approval or tried to, who resets the counter,
    /// or who gives or takes the access.
    pub fn by(&self) -> Option<&str> {
        self.by.as_deref()
    }

    /// Returns `true` if the approval can be used now, `false` if others must approve it too.
    pub fn approved(&self) -> Option<bool> {
        self.approved
    }

    /// Returns the real amount of a settlement.
    pub fn amount(&self) -> Option<Amount> {
        self.amount
    }

    /// Returns the error: of the store for a denial or a reset, or of a release, a settlement, an
    /// end, an answer to a request, or access that was not given.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Returns the call, to decide it again, or the caller of a reset. `None` if the record lacks a
    /// part of it: arguments were not asked for, were too long or could not be read, or a name was
    /// cut.
    pub fn call(&self) -> Option<ToolCall<'_>> {
        let arguments = self.arguments.as_ref().filter(|_| matches!(self.event, Event::Decision | Event::Reset))?;
        let mut call = ToolCall::new(self.tool().unwrap_or_default(), arguments)
            .context(self.context.as_ref())
            .input(self.input.as_ref())
            .task(self.task);
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
    fn serde_and_display_write_the_same_words() {
        use Event::{Approve, Decision, End, Forget, Give, Lift, Policy, Refuse, Release, Reset, Revoke, Settle};
        for event in [Decision, Release, Settle, End, Approve, Refuse, Lift, Policy, Reset, Give, Revoke, Forget] {
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
            UnknownState,
            GrantExpired,
            GrantRevoked,
            ToolChanged,
            AuditUnavailable,
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
