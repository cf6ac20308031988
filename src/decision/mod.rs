//! Decisions of a gate, and what each carries.

pub(crate) mod limit_state;
pub(crate) mod permit;
pub(crate) mod reservation;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::approval::signed::SignedError;
use crate::approval::{Approval, ApprovalId};
use crate::policy::{Code, DecidingCondition, Digest};
use crate::store::StoreError;

pub use limit_state::LimitState;
pub use permit::{AsyncPermit, Permit, RenewError, SettleError};

use permit::AnyPermit;

/// The decision on a call.
///
/// Exhaustive on purpose: match on all four variants, without a `_` arm that could let a call pass.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a host must handle every variant")]
#[must_use = "a decision that is not enforced stops nothing"]
pub enum Decision<P = Permit> {
    /// The call may be made. Its quota is spent; keep the permit until the call has ended.
    Allow(P),
    /// The call must not be made.
    Deny(Denial),
    /// The call may be made later.
    RateLimit(RateLimited),
    /// A person must approve the call first.
    RequireApproval(ApprovalRequest),
}

impl<P> Decision<P> {
    /// Separates the permit from the refusals, for `?` and for handlers that treat all refusals
    /// alike.
    ///
    /// ```
    /// use serde_json::json;
    /// use toolgate::mcp::{Refusal, RefusalFormat};
    /// use toolgate::{Gate, Policy, ToolCall};
    ///
    /// let policy: Policy = r#"{ "version": "1", "default": "deny" }"#.parse()?;
    /// let gate = Gate::new(policy);
    /// let arguments = json!({});
    /// let answer = match gate.check(&ToolCall::new("search", &arguments)).into_result() {
    ///     Ok(permit) => {
    ///         // Make the call here.
    ///         permit.end();
    ///         json!({ "content": [] })
    ///     }
    ///     Err(refused) => Refusal::from(&refused).to_result(RefusalFormat::Text),
    /// };
    /// assert_eq!(answer["isError"], true);
    /// # Ok::<(), toolgate::PolicyError>(())
    /// ```
    ///
    /// # Errors
    /// The call is not allowed.
    pub fn into_result(self) -> Result<P, Refused> {
        match self {
            Self::Allow(permit) => Ok(permit),
            Self::Deny(denial) => Err(Refused::Deny(denial)),
            Self::RateLimit(limited) => Err(Refused::RateLimit(limited)),
            Self::RequireApproval(request) => Err(Refused::RequireApproval(request)),
        }
    }

    /// Returns `allow`, `deny`, `rate_limited` or `approval_required`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow(_) => "allow",
            Self::Deny(_) => "deny",
            Self::RateLimit(_) => "rate_limited",
            Self::RequireApproval(_) => "approval_required",
        }
    }

    /// Returns `true` if the call may be made.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// Returns the reason why the call is stopped, or `None` if it is allowed.
    pub fn code(&self) -> Option<Code> {
        self.refusal().map(|refusal| refusal.code)
    }

    /// Returns the rule that stopped the call: its JSON Pointer in the document, or `(no policy)`,
    /// `(hidden)`, `(default deny)`. `None` for a call that is allowed or could not be read.
    pub fn rule(&self) -> Option<&str> {
        self.refusal().and_then(|refusal| refusal.rule.as_deref())
    }

    /// Returns the message for the agent, or `None` if the call is allowed.
    pub fn message(&self) -> Option<&str> {
        self.refusal().map(|refusal| &*refusal.message)
    }

    /// Returns the shortest wait, in whole milliseconds, after which the call could pass all limits
    /// if nothing else were counted in the meantime. `None` if it can never pass, only waits for
    /// calls in flight, or was not stopped by a limit.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimit(limited) => limited.retry_after,
            Self::Allow(_) | Self::Deny(_) | Self::RequireApproval(_) => None,
        }
    }

    /// Returns [`retry_after`](Self::retry_after) in whole seconds, rounded up: for the header
    /// `Retry-After`.
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after().map(whole_secs)
    }

    /// Returns the states of the limits that apply to the call, after the decision.
    pub(crate) fn limit_states(&self) -> Vec<LimitState>
    where
        P: AnyPermit,
    {
        match self {
            Self::Allow(permit) => permit.limit_states(),
            Self::Deny(_) => Vec::new(),
            Self::RateLimit(limited) => limited.limits.to_vec(),
            Self::RequireApproval(request) => request.limits.clone(),
        }
    }

    /// Returns the approval that the call has used or asks for, or that a person has refused.
    pub(crate) fn approval_id(&self) -> Option<ApprovalId>
    where
        P: AnyPermit,
    {
        match self {
            Self::Allow(permit) => permit.approval_id(),
            Self::Deny(denial) => denial.refused_request().copied(),
            Self::RateLimit(_) => None,
            Self::RequireApproval(request) => request.approval.as_ref().map(|approval| *approval.id()),
        }
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Allow(_) => None,
            Self::Deny(denial) => Some(&denial.refusal),
            Self::RateLimit(limited) => Some(&limited.refusal),
            Self::RequireApproval(request) => Some(&request.refusal),
        }
    }
}

macro_rules! limits_of_decision {
    ($permit:ident) => {
        impl Decision<$permit> {
            /// Returns the states of the limits that apply to the call, after the decision, in
            /// document order. Empty for a denial. Allocates.
            pub fn limits(&self) -> Vec<LimitState> {
                self.limit_states()
            }
        }
    };
}

limits_of_decision!(Permit);
limits_of_decision!(AsyncPermit);

/// Returns a wait in whole seconds, rounded up.
pub(crate) fn whole_secs(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

/// Every outcome of a [`Decision`] except `Allow`. [`Decision::into_result`] returns it, and
/// `Decision::from` turns it back.
// It is smaller than `Decision`, so this is what moves between functions.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_enums, reason = "a host must handle every variant")]
pub enum Refused {
    /// The call must not be made.
    Deny(Denial),
    /// The call may be made later.
    RateLimit(RateLimited),
    /// A person must approve the call first.
    RequireApproval(ApprovalRequest),
}

impl Refused {
    /// Returns the reason.
    pub fn code(&self) -> Code {
        self.refusal().code
    }

    /// Returns the rule, as [`Decision::rule`] does.
    pub fn rule(&self) -> Option<&str> {
        self.refusal().rule.as_deref()
    }

    /// Returns the message for the agent.
    pub fn message(&self) -> &str {
        &self.refusal().message
    }

    /// Returns the wait after which the call could pass, as [`Decision::retry_after`] does.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimit(limited) => limited.retry_after,
            Self::Deny(_) | Self::RequireApproval(_) => None,
        }
    }

    /// Returns [`retry_after`](Self::retry_after) in whole seconds, rounded up: for the header
    /// `Retry-After`.
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after().map(whole_secs)
    }

    fn refusal(&self) -> &Refusal {
        match self {
            Self::Deny(denial) => &denial.refusal,
            Self::RateLimit(limited) => &limited.refusal,
            Self::RequireApproval(request) => &request.refusal,
        }
    }
}

impl<P> From<Refused> for Decision<P> {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Deny(denial) => Self::Deny(denial),
            Refused::RateLimit(limited) => Self::RateLimit(limited),
            Refused::RequireApproval(request) => Self::RequireApproval(request),
        }
    }
}

/// The parts that every refusal has.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) rule: Option<Cow<'static, str>>,
    pub(crate) message: Box<str>,
    pub(crate) policy: Option<Digest>,
}

macro_rules! refusal_accessors {
    ($($path:tt)*) => {
        /// Returns the reason.
        pub fn code(&self) -> Code {
            self.$($path)*.code
        }

        /// Returns the rule: its JSON Pointer in the document, or `(no policy)`, `(hidden)`,
        /// `(default deny)`. `None` for a call that could not be read.
        pub fn rule(&self) -> Option<&str> {
            self.$($path)*.rule.as_deref()
        }

        /// Returns the message for the agent: the policy's own text, or a default that names the
        /// tool.
        pub fn message(&self) -> &str {
            &self.$($path)*.message
        }

        /// Returns the digest of the policy that decided, or `None` if there was no policy.
        pub fn policy(&self) -> Option<Digest> {
            self.$($path)*.policy
        }
    };
}

/// A denied call.
#[derive(Debug, Clone)]
pub struct Denial {
    pub(crate) refusal: Refusal,
    /// The failure of the store.
    pub(crate) cause: Option<Arc<StoreError>>,
    /// The part of a limit's scope that the call lacks, or the amount that is not valid.
    pub(crate) uncountable: Option<Box<str>>,
    /// The request that a person has refused. Boxed to keep decisions small.
    pub(crate) refused: Option<Box<ApprovalId>>,
    /// Boxed to keep decisions small.
    pub(crate) deciding: Option<Box<DecidingCondition>>,
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, cause: None, uncountable: None, refused: None, deciding: None }
    }
}

impl Denial {
    refusal_accessors!(refusal);

    /// Returns the failure of the store if the code is [`Code::StoreUnavailable`]: for the host's
    /// log, not for the agent. Log its [sources](std::error::Error::source) too: they say how the
    /// server failed, or that it was the store of approvals.
    pub fn store_error(&self) -> Option<&StoreError> {
        self.cause.as_deref()
    }

    /// Returns the JSON Pointer of the condition that decided, if the code is [`Code::Require`] or
    /// [`Code::DenyIf`]: of the conditions of the rule, the first that is false in `require`, and
    /// else the first that is undecidable, or else the first. `None` for a rule without conditions.
    pub fn condition(&self) -> Option<&str> {
        self.deciding.as_ref().map(|deciding| &*deciding.pointer)
    }

    /// Returns the reason why [that condition](Self::condition) is undecidable, such as `a string,
    /// not a number`. It never has a value of the call. `None` if the condition is decidable.
    pub fn undecidable(&self) -> Option<&str> {
        self.deciding.as_ref()?.undecidable.as_deref()
    }

    /// Returns the part of a limit's scope that the call lacks, such as `session` or
    /// `args.account`, if the code is [`Code::ScopeMissing`].
    pub fn missing(&self) -> Option<&str> {
        self.uncountable.as_deref().filter(|_| self.code() == Code::ScopeMissing)
    }

    /// Returns the amount that a limit does not find in the call and the reason, such as
    /// `` `args.amount` has more than six decimals ``, if the code is [`Code::AmountInvalid`]. It
    /// never has a value of the call.
    pub fn invalid_amount(&self) -> Option<&str> {
        self.uncountable.as_deref().filter(|_| self.code() == Code::AmountInvalid)
    }

    /// Returns the request that a person has refused if the code is [`Code::ApprovalRefused`]. The
    /// host can [lift](crate::Gate::lift_refusal) the refusal.
    pub fn refused_request(&self) -> Option<&ApprovalId> {
        self.refused.as_deref()
    }
}

/// A call for which a limit has no room.
#[derive(Debug, Clone)]
pub struct RateLimited {
    pub(crate) refusal: Refusal,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) waits_for_calls: bool,
    pub(crate) limits: Box<[LimitState]>,
}

impl RateLimited {
    refusal_accessors!(refusal);

    /// Returns the shortest wait, in whole milliseconds (rounded up), after which the same call
    /// could pass all limits if nothing else were counted in the meantime. `None` if it can never
    /// pass because its amount is above the `max` of a limit, or if it only [waits for
    /// calls](Self::waits_for_calls) in flight.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns whether calls in flight have to end before the call can pass, which may be soon: at
    /// the latest their leases end.
    pub fn waits_for_calls(&self) -> bool {
        self.waits_for_calls
    }

    /// Returns [`retry_after`](Self::retry_after) in whole seconds, rounded up: for the header
    /// `Retry-After`.
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after.map(whole_secs)
    }

    /// Returns the states of the limits that apply to the call, in document order. Nothing was
    /// charged.
    pub fn limits(&self) -> &[LimitState] {
        &self.limits
    }
}

/// A call that needs a person's approval. All its limits have room, and nothing was charged.
#[derive(Debug, Clone)]
pub struct ApprovalRequest {
    pub(crate) refusal: Refusal,
    pub(crate) limits: Vec<LimitState>,
    /// Boxed to keep decisions small.
    pub(crate) approval: Option<Box<Approval>>,
    #[cfg_attr(not(feature = "signed"), expect(dead_code, reason = "only its accessor reads it"))]
    pub(crate) signed_error: Option<SignedError>,
}

impl ApprovalRequest {
    refusal_accessors!(refusal);

    /// Returns the request for a person to decide: pass its [id](Approval::id) to
    /// [`Gate::approve`](crate::Gate::approve) or [`Gate::refuse`](crate::Gate::refuse). `None` if
    /// no request was made: [`Gate::would_allow`](crate::Gate::would_allow) makes none.
    ///
    /// It is pending, or it is already approved but the call named another approval or lost a race
    /// for this one.
    pub fn approval(&self) -> Option<&Approval> {
        self.approval.as_deref()
    }

    /// Returns the reason why the call's signed approval was not accepted: for the host's log. The
    /// agent gets the same answer as without a signed approval, so that it cannot probe for a valid
    /// one.
    #[cfg(feature = "signed")]
    pub fn signed_error(&self) -> Option<SignedError> {
        self.signed_error
    }

    /// Returns the states of the limits that apply to the call, in document order. Nothing was
    /// charged.
    pub fn limits(&self) -> &[LimitState] {
        &self.limits
    }
}

/// Returns the message for the agent if the store of approvals fails.
pub(crate) fn no_approvals_message(tool: &str) -> String {
    format!("The approvals of `{}` cannot be checked right now.", shown(tool))
}

/// Returns the message for the agent if its call lacks this part of a limit's scope.
pub(crate) fn scope_missing_message(tool: &str, part: &str) -> String {
    format!("This call of `{}` has no `{part}`, by which a limit counts.", shown(tool))
}

/// Returns the message for the agent if a limit does not find a valid amount in its call. `fact`
/// says which amount and why; `is_max` that it is the host's maximum for the caller.
pub(crate) fn amount_invalid_message(tool: &str, fact: &str, is_max: bool) -> String {
    let tool = shown(tool);
    match is_max {
        true => format!("A limit of `{tool}` has no valid maximum for this caller: {fact}."),
        false => format!("This call of `{tool}` names no valid amount: {fact}."),
    }
}

/// Returns as much of the tool's name as a message shows.
fn shown(tool: &str) -> String {
    tool.chars().take(128).collect()
}

/// Returns the message for the agent if the policy has no text of its own.
pub(crate) fn default_message(code: Code, tool: &str) -> String {
    let tool = shown(tool);
    match code {
        Code::NoPolicy => format!("No policy lets you call `{tool}`."),
        Code::Hidden | Code::DefaultDeny => format!("The tool `{tool}` is not available."),
        Code::ActionDeny => format!("Calls of `{tool}` are denied."),
        Code::Require => format!("This call of `{tool}` does not meet a requirement of the policy."),
        Code::DenyIf => format!("This call of `{tool}` is denied by a rule of the policy."),
        Code::Limit => format!("A limit for `{tool}` has no room for this call."),
        Code::Approval => format!("This call of `{tool}` needs a person's approval."),
        Code::ApprovalRefused => format!("A person has refused this call of `{tool}`."),
        Code::ScopeMissing => format!("This call of `{tool}` lacks what a limit counts by."),
        Code::AmountInvalid => format!("This call of `{tool}` names no valid amount."),
        Code::StoreUnavailable => format!("The limits of `{tool}` cannot be checked right now."),
        Code::MalformedCall => format!("This call of `{tool}` could not be read: its arguments are not a JSON object."),
        Code::UnknownState => format!(
            "This call of `{tool}` continues no call that waits for input. Make it again from the beginning, \
             without `requestState` and `inputResponses`."
        ),
        Code::GrantExpired => format!("The grant for this call of `{tool}` has expired."),
        Code::GrantRevoked => format!("The grant for this call of `{tool}` has been revoked."),
        Code::ToolChanged => format!("The tool `{tool}` is not available: its definition has changed."),
        Code::AuditUnavailable => format!("Calls of `{tool}` cannot be recorded right now."),
    }
}
