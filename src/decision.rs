//! What a gate answers, and what each answer carries.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::amount::{Amount, Total};
use crate::policy::{Code, Digest, LimitRef, Plan, Policy};
use crate::store::{Reservation, ReservationId, StoreError, Tallies};
use crate::time::Timestamp;

/// What becomes of a call.
///
/// Exhaustive on purpose: match on all four, without a `_` arm that could let something through.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, clippy::large_enum_variant, reason = "no arm may be forgotten, nothing allocated")]
#[must_use = "a decision that is not enforced stops nothing"]
pub enum Decision {
    /// It may be made. Its quota is spent; keep the permit until the call has ended.
    Allow(Permit),
    /// It may not be made.
    Deny(Denial),
    /// It may be made later.
    RateLimit(RateLimited),
    /// A person must approve it first.
    RequireApproval(ApprovalRequest),
}

impl Decision {
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

    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Allow(_) => None,
            Self::Deny(Denial(refusal)) => Some(refusal),
            Self::RateLimit(limited) => Some(&limited.refusal),
            Self::RequireApproval(request) => Some(&request.refusal),
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
pub struct Denial(pub(crate) Refusal);

impl Denial {
    refusal_accessors!(0);
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
}

impl ApprovalRequest {
    refusal_accessors!(refusal);

    /// How the limits that apply to the call stand, in document order. Nothing was charged.
    pub fn limits(&self) -> &[LimitState] {
        &self.limits
    }
}

/// How one limit stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitState {
    counter: Box<str>,
    used: Total,
    remaining: Amount,
    max: Amount,
    resets_at: Timestamp,
}

impl LimitState {
    /// The name of its counter.
    pub fn counter(&self) -> &str {
        &self.counter
    }

    /// What the counter holds.
    pub fn used(&self) -> Total {
        self.used
    }

    /// What is left up to `max`.
    pub fn remaining(&self) -> Amount {
        self.remaining
    }

    /// The most that the counter may hold.
    pub fn max(&self) -> Amount {
        self.max
    }

    /// When the counter's window ends.
    pub fn resets_at(&self) -> Timestamp {
        self.resets_at
    }

    pub(crate) fn all(policy: &Policy, limits: &[LimitRef], tallies: &Tallies) -> Vec<Self> {
        let state = |found: &LimitRef| {
            let (limit, tally) = (policy.limit(*found)?, tallies.get(found.charge())?);
            Some(Self {
                counter: limit.counter.clone(),
                used: tally.used,
                remaining: tally.used.remaining(limit.max),
                max: limit.max,
                resets_at: tally.window.end,
            })
        };
        limits.iter().filter_map(state).collect()
    }
}

/// Leave to make one call, whose quota is already spent.
///
/// Keep it until the call has ended. Dropping it leaves the quota spent, which errs on the safe side: a call that failed
/// half-way may have done its work. [`release`](Self::release) it when it certainly did not.
#[must_use = "keep the permit until the call has ended; dropping it leaves its quota spent"]
pub struct Permit(pub(crate) Option<Held>);

/// What a permit has charged.
pub(crate) struct Held {
    pub(crate) granter: Arc<dyn Granter>,
    pub(crate) id: ReservationId,
    pub(crate) plan: Plan,
    pub(crate) tallies: Tallies,
}

/// What granted a permit, as far as the permit knows it: the policy that was in force, and the store.
pub(crate) trait Granter: Send + Sync {
    fn policy(&self) -> Option<&Policy>;
    fn release(&self, reservation: Reservation) -> Result<(), StoreError>;
}

impl Permit {
    /// Gives the quota back, because the call was certainly not made: in the very windows that were charged, and once. If the
    /// store cannot be reached the quota stays spent; [`try_release`](Self::try_release) says so.
    pub fn release(self) {
        // Spent is the safe side.
        let _ = self.try_release();
    }

    /// Gives the quota back, and says whether the store could do it.
    ///
    /// # Errors
    /// The store failed; the quota stays spent until its windows end.
    pub fn try_release(self) -> Result<(), StoreError> {
        match self.0 {
            Some(Held { granter, id, plan, tallies }) => granter.release(Reservation::new(id, plan.charges, &tallies)),
            None => Ok(()),
        }
    }

    /// How the limits that apply to the call stood after it was charged, in document order. Allocates.
    pub fn limits(&self) -> Vec<LimitState> {
        let held = self.0.as_ref().and_then(|held| Some((held.granter.policy()?, held)));
        held.map_or_else(Vec::new, |(policy, held)| LimitState::all(policy, &held.plan.limits, &held.tallies))
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("limits", &self.limits()).finish_non_exhaustive()
    }
}

/// What the agent is told where the policy's author has said nothing.
pub(crate) fn default_message(code: Code, tool: &str) -> String {
    let tool: String = tool.chars().take(128).collect();
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
    }
}
