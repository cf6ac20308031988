//! What a gate answers, and what each answer carries.

pub(crate) mod limit_state;
pub(crate) mod permit;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::approval::signed::SignedError;
use crate::approval::{Approval, ApprovalId};
use crate::policy::{Code, Digest};
use crate::store::StoreError;

pub use limit_state::LimitState;
pub use permit::{AsyncPermit, Leave, Permit, SettleError};

/// What becomes of a call.
///
/// Exhaustive on purpose: match on all four, without a `_` arm that could let something through.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "no arm may be forgotten")]
#[must_use = "a decision that is not enforced stops nothing"]
pub enum Decision<P = Permit> {
    /// It may be made. Its quota is spent; keep the permit until the call has ended.
    Allow(P),
    /// It may not be made.
    Deny(Denial),
    /// It may be made later.
    RateLimit(RateLimited),
    /// A person must approve it first.
    RequireApproval(ApprovalRequest),
}

impl<P: Leave> Decision<P> {
    /// `allow`, `deny`, `rate_limited` or `approval_required`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow(_) => "allow",
            Self::Deny(_) => "deny",
            Self::RateLimit(_) => "rate_limited",
            Self::RequireApproval(_) => "approval_required",
        }
    }

    /// Whether the call may be made.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// Why the call is stopped; none for one that is allowed.
    pub fn code(&self) -> Option<Code> {
        self.refusal().map(|refusal| refusal.code)
    }

    /// The rule that stopped the call: its JSON Pointer in the document, or `(no policy)`, `(hidden)`, `(default deny)`.
    /// None for a call that is allowed or could not be read.
    pub fn rule(&self) -> Option<&str> {
        self.refusal().and_then(|refusal| refusal.rule.as_deref())
    }

    /// What the agent is told; none for a call that is allowed.
    pub fn message(&self) -> Option<&str> {
        self.refusal().map(|refusal| &*refusal.message)
    }

    /// The shortest wait after which the call could pass all limits if nothing else were counted meanwhile, in whole
    /// milliseconds; none where it can never pass, or was not stopped by a limit.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimit(limited) => limited.retry_after,
            Self::Allow(_) | Self::Deny(_) | Self::RequireApproval(_) => None,
        }
    }

    /// How the limits that apply to the call stand after the decision, in document order; empty for a denial.
    pub fn limits(&self) -> Vec<LimitState> {
        match self {
            Self::Allow(permit) => permit.limits(),
            Self::Deny(_) => Vec::new(),
            Self::RateLimit(limited) => limited.limits.clone(),
            Self::RequireApproval(request) => request.limits.clone(),
        }
    }

    /// The approval that the call has used or asks for.
    pub(crate) fn approval_id(&self) -> Option<ApprovalId> {
        match self {
            Self::Allow(permit) => permit.approval_id(),
            Self::Deny(_) | Self::RateLimit(_) => None,
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

/// Every decision but leave. (A [`Decision`] is as large as a permit: this is what is handed around.)
#[derive(Debug, Clone)]
pub(crate) enum Refused {
    Deny(Denial),
    RateLimit(RateLimited),
    RequireApproval(ApprovalRequest),
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

/// What every refusal says.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) rule: Option<Cow<'static, str>>,
    pub(crate) message: Box<str>,
    pub(crate) policy: Option<Digest>,
}

macro_rules! refusal_accessors {
    ($($path:tt)*) => {
        /// Why.
        pub fn code(&self) -> Code {
            self.$($path)*.code
        }

        /// The rule: its JSON Pointer in the document, or `(no policy)`, `(hidden)`, `(default deny)`; none for a call that
        /// could not be read.
        pub fn rule(&self) -> Option<&str> {
            self.$($path)*.rule.as_deref()
        }

        /// What the agent is told: the policy's own text, or a plain one that names the tool.
        pub fn message(&self) -> &str {
            &self.$($path)*.message
        }

        /// The policy that decided; none where there was none.
        pub fn policy(&self) -> Option<Digest> {
            self.$($path)*.policy
        }
    };
}

/// A call is denied.
#[derive(Debug, Clone)]
pub struct Denial {
    pub(crate) refusal: Refusal,
    /// What the store failed with.
    pub(crate) cause: Option<Arc<StoreError>>,
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, cause: None }
    }
}

impl Denial {
    refusal_accessors!(refusal);

    /// What the store failed with, where the code is [`Code::StoreUnavailable`]: for the host's log, not for the agent. Log the
    /// [sources](std::error::Error::source) below it too: they say what the server did, or that it was the store of approvals.
    pub fn store_error(&self) -> Option<&StoreError> {
        self.cause.as_deref()
    }
}

/// A call finds no room in a limit.
#[derive(Debug, Clone)]
pub struct RateLimited {
    pub(crate) refusal: Refusal,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) limits: Vec<LimitState>,
}

impl RateLimited {
    refusal_accessors!(refusal);

    /// The shortest wait after which the same call could pass all limits if nothing else were counted meanwhile, in whole
    /// milliseconds, rounded up. None where it can never pass: its amount is above a limit's `max`.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// How the limits that apply to the call stand, in document order. Nothing was charged.
    pub fn limits(&self) -> &[LimitState] {
        &self.limits
    }
}

/// A call needs a person's approval. All its limits have room; nothing was charged.
#[derive(Debug, Clone)]
pub struct ApprovalRequest {
    pub(crate) refusal: Refusal,
    pub(crate) limits: Vec<LimitState>,
    /// Boxed, for the size of a decision.
    pub(crate) approval: Option<Box<Approval>>,
    pub(crate) signed_error: Option<SignedError>,
}

impl ApprovalRequest {
    refusal_accessors!(refusal);

    /// What a person has to decide: hand its [id](Approval::id) to [`Gate::approve`](crate::Gate::approve) or
    /// [`Gate::refuse`](crate::Gate::refuse). None where nothing was asked for: [`Gate::would_allow`](crate::Gate::would_allow)
    /// makes no request.
    ///
    /// It is pending; or it has been approved already, but the call named another one, or lost a race for it.
    pub fn approval(&self) -> Option<&Approval> {
        self.approval.as_deref()
    }

    /// Why the signed approval that the call came with does not let it pass: for the host's log. The agent is told the same as without
    /// one, so that it cannot try until one passes.
    pub fn signed_error(&self) -> Option<SignedError> {
        self.signed_error
    }

    /// How the limits that apply to the call stand, in document order. Nothing was charged.
    pub fn limits(&self) -> &[LimitState] {
        &self.limits
    }
}

/// What the agent is told where the store of approvals cannot tell.
pub(crate) fn no_approvals_message(tool: &str) -> String {
    format!("The approvals of `{}` cannot be checked right now.", shown(tool))
}

/// As much of a tool's name as is told.
fn shown(tool: &str) -> String {
    tool.chars().take(128).collect()
}

/// What the agent is told where the policy's author has said nothing.
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
        Code::ScopeMissing => format!("This call of `{tool}` lacks what a limit counts by."),
        Code::AmountInvalid => format!("This call of `{tool}` names no valid amount."),
        Code::StoreUnavailable => format!("The limits of `{tool}` cannot be checked right now."),
        Code::MalformedCall => format!("This call of `{tool}` could not be read: its arguments are not a JSON object."),
        Code::GrantExpired => format!("The grant for this call of `{tool}` has expired."),
        Code::GrantRevoked => format!("The grant for this call of `{tool}` has been revoked."),
        Code::ToolChanged => format!("The tool `{tool}` is not available: its definition has changed."),
        Code::AuditUnavailable => format!("Calls of `{tool}` cannot be recorded right now."),
    }
}
