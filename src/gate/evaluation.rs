//! The evaluation of a call: everything about a decision except the store round trip.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use super::in_force::{InForce, Parts};
use crate::amount::Amount;
use crate::approval::Approval;
use crate::approval::signed::SignedError;
use crate::call::{Round, ToolCall};
use crate::charge::{Asker, Meter};
use crate::decision::limit_state::LimitState;
use crate::decision::{
    ApprovalRequest, Denial, RateLimited, Refusal, Refused, amount_invalid_message, default_message,
    scope_missing_message,
};
use crate::policy::limit::Limit;
use crate::policy::plan::{InvalidAmount, invalid_amount, missing_part};
use crate::policy::{Code, Effect, Evaluation, LimitRef, Plan, Policy, Terms, Uncountable};
use crate::store::{Outcome, ReservationId, ReserveRequest, StoreError, Tallies};
use crate::time::{Clock, Timestamp, wait_millis};

/// A call under a policy, and what follows from the answers of the stores.
pub(super) struct CallEvaluation<'p> {
    pub(super) policy: &'p Policy,
    pass_uncounted: &'p [Box<str>],
    clock: &'p dyn Clock,
    evaluation: Evaluation<'p>,
    pub(super) call: &'p ToolCall<'p>,
    pub(super) now: Timestamp,
}

impl<S, A: ?Sized> InForce<S, A> {
    /// Returns the evaluation of a call. The call is denied until it is
    /// [judged](CallEvaluation::judge).
    #[inline(always)]
    pub(super) fn evaluation<'p>(&'p self, policy: &'p Policy, call: &'p ToolCall<'p>) -> CallEvaluation<'p> {
        let (evaluation, now) = (Evaluation::of(policy), Timestamp::UNIX_EPOCH);
        let Parts { pass_uncounted, clock, .. } = &*self.parts;
        CallEvaluation { policy, pass_uncounted, clock: &**clock, evaluation, call, now }
    }
}

impl<'p> CallEvaluation<'p> {
    /// Evaluates the policy. Without `now`, the clock is read only if the decision depends on it.
    pub(super) fn judge(&mut self, now: Option<Timestamp>) {
        let Self { policy, clock, evaluation, call, .. } = self;
        let known = now.or_else(|| policy.reads_time().then(|| clock.now()));
        evaluation.judge(call, known.unwrap_or(Timestamp::UNIX_EPOCH));
        let asks = evaluation.effect() == Effect::RequireApproval;
        self.now = known.unwrap_or_else(|| if asks { clock.now() } else { Timestamp::UNIX_EPOCH });
    }

    /// Adds the charges of the call to an empty plan.
    ///
    /// # Errors
    /// A rule denies the call, or it cannot be counted.
    #[inline(always)]
    pub(super) fn cost(&self, plan: &mut Plan) -> Result<(), Refused> {
        if let Effect::Deny(code) = self.evaluation.effect() {
            return Err(Refused::Deny(self.denied_by_rule(code)));
        }
        // All rounds of a call are one charge.
        if self.call.is_further_round() {
            return Ok(());
        }
        self.evaluation
            .plan(self.call, self.now, plan)
            .map_err(|Uncountable { limit, code }| Refused::Deny(self.uncountable(limit, code)))
    }

    /// Returns `true` if a store must be asked. If not, the call is allowed.
    pub(super) fn needs_store(&self, plan: &Plan) -> bool {
        !plan.charges.is_empty() || self.needs_approval()
    }

    /// Returns the terms on which the call can be approved.
    pub(super) fn terms(&self) -> Terms<'p> {
        self.evaluation.terms(self.call)
    }

    pub(super) fn request<'c>(&self, id: ReservationId, plan: &'c Plan) -> ReserveRequest<'c>
    where
        'p: 'c,
    {
        ReserveRequest::new(id, self.now, &plan.charges).by(Asker::of(self.call))
    }

    /// Returns `true` if the call needs an approval: nothing may be charged before it has one.
    pub(super) fn needs_approval(&self) -> bool {
        self.evaluation.effect() == Effect::RequireApproval && !self.is_approved()
    }

    /// Returns `true` for a further round of a call that a person has approved under this policy,
    /// unless a rule asks because of what this round adds.
    #[cold]
    fn is_approved(&self) -> bool {
        let Round::Further { approved_under: Some(digest) } = self.call.round() else { return false };
        digest == self.policy.digest().as_bytes() && !self.evaluation.asks_about_input(self.call, self.now)
    }

    /// Decides the call by the store's answer: it is allowed with its tallies, or with `None` if
    /// the store failed and the call may pass uncounted.
    #[inline(always)]
    pub(super) fn answered(
        &self,
        plan: &Plan,
        outcome: Result<Outcome, StoreError>,
    ) -> Result<Option<Tallies>, Refused> {
        match outcome {
            // A store that leaves a counter out cannot be trusted.
            Ok(outcome) if outcome.tallies().len() != plan.charges.len() => {
                self.without_store(&plan.limits, Arc::new(StoreError::Corrupt)).map(|()| None)
            }
            Ok(Outcome::Granted(tallies)) => Ok(Some(tallies)),
            Ok(Outcome::Refused(tallies)) => Err(self.rate_limit(plan, &tallies)),
            Err(error) => self.without_store(&plan.limits, Arc::new(error)).map(|()| None),
        }
    }

    /// Decides the call if the store failed. If any limit could stop the call, it is denied, unless
    /// the host chose otherwise for each such limit. Shadow limits stop nothing: a call that only
    /// they count passes uncounted.
    pub(super) fn without_store(&self, limits: &[LimitRef], error: Arc<StoreError>) -> Result<(), Refused> {
        let refuses = |found: &&LimitRef| {
            // A caller that has used up its share must not be able to choose to pass uncounted.
            let has_failed = !matches!(*error, StoreError::ShareFull { .. });
            let passes = |limit: &Limit| limit.shadow || has_failed && self.pass_uncounted.contains(&limit.counter);
            self.policy.limit(**found).is_some_and(|limit| !passes(limit))
        };
        match limits.iter().find(refuses) {
            Some(limit) => {
                let refusal = self.limit_refusal(*limit, Code::StoreUnavailable);
                Err(Refused::Deny(Denial { cause: Some(error), ..refusal.into() }))
            }
            None => Ok(()),
        }
    }

    /// Refuses the call in the name of the first limit without room. The wait is the longest among
    /// all limits without room, except of those that wait for calls in flight: when one ends is not
    /// known.
    pub(super) fn rate_limit(&self, plan: &Plan, tallies: &Tallies) -> Refused {
        let mut first = None;
        let mut wait = Some(0);
        let mut waits_for_calls = false;
        for (index, found) in plan.limits.iter().enumerate() {
            let (Some(limit), Some(charge), Some(tally)) =
                (self.policy.limit(*found), plan.charges.get(found.charge()), tallies.get(found.charge()))
            else {
                continue;
            };
            let (_, room) = plan.max_and_room(index, limit);
            if limit.shadow || tally.used.has_room(charge.amount, room) {
                continue;
            }
            first = first.or(Some(*found));
            let ever = room > Amount::ZERO && charge.amount <= room;
            if ever && matches!(charge.meter, Meter::InFlight { .. }) {
                waits_for_calls = true;
                continue;
            }
            let until = tally.retry_at.filter(|_| ever).map(|at| wait_millis(self.now, at));
            wait = wait.zip(until).map(|(longest, until)| longest.max(until));
        }
        // If the store refuses although every counter has room, the call is stopped: the safe side.
        let Some(named) = first.or_else(|| plan.limits.first().copied()) else { return deny_without_policy(self.call) };
        Refused::RateLimit(RateLimited {
            refusal: self.limit_refusal(named, Code::Limit),
            retry_after: wait.filter(|wait| *wait > 0).map(Duration::from_millis),
            waits_for_calls: waits_for_calls && wait.is_some(),
            limits: self.states(plan, tallies).into(),
        })
    }

    /// Returns the states of the call's limits.
    pub(super) fn states(&self, plan: &Plan, tallies: &Tallies) -> Vec<LimitState> {
        LimitState::all(self.policy, plan, tallies)
    }

    pub(super) fn require_approval(
        &self,
        limits: Vec<LimitState>,
        approval: Option<Box<Approval>>,
        signed_error: Option<SignedError>,
    ) -> Refused {
        let refusal = self.rule_refusal(Code::Approval);
        Refused::RequireApproval(ApprovalRequest { refusal, limits, approval, signed_error })
    }

    #[cold]
    fn denied_by_rule(&self, code: Code) -> Denial {
        let deciding = self.evaluation.deciding(self.call, self.now).map(Box::new);
        Denial { deciding, ..Denial::from(self.rule_refusal(code)) }
    }

    /// Returns the refusal by the rule that decided.
    pub(super) fn rule_refusal(&self, code: Code) -> Refusal {
        let own = self.evaluation.message().map(Into::into);
        let message = own.unwrap_or_else(|| default_message(code, self.call.tool()).into());
        Refusal { code, rule: self.evaluation.rule(), message, policy: Some(self.policy.digest()) }
    }

    /// Returns the refusal by a limit. The limit's own text is only for a call that it has no room
    /// for.
    /// Denies a call that a limit cannot count.
    #[cold]
    fn uncountable(&self, limit: LimitRef, code: Code) -> Denial {
        let mut denial = Denial::from(self.limit_refusal(limit, code));
        let Some(limit) = self.policy.limit(limit) else { return denial };
        let (call, now) = (self.call, self.now);
        let (fact, message) = match code {
            Code::ScopeMissing => {
                let Some(part) = missing_part(limit, call, now) else { return denial };
                let message = scope_missing_message(call.tool(), &part);
                (part, message)
            }
            _ => {
                let Some(InvalidAmount { path, problem, is_max }) = invalid_amount(limit, call, now) else {
                    return denial;
                };
                let fact = format!("`{path}` {problem}");
                let message = amount_invalid_message(call.tool(), &fact, is_max);
                (fact, message)
            }
        };
        denial.uncountable = Some(fact.into());
        denial.refusal.message = message.into();
        denial
    }

    fn limit_refusal(&self, limit: LimitRef, code: Code) -> Refusal {
        let own = self.policy.limit(limit).and_then(|limit| limit.on_exceed.clone()).filter(|_| code == Code::Limit);
        let message = own.unwrap_or_else(|| default_message(code, self.call.tool()).into());
        let rule = Some(self.policy.limit_pointer(limit).into());
        Refusal { code, rule, message, policy: Some(self.policy.digest()) }
    }
}

#[cold]
pub(super) fn deny_without_policy(call: &ToolCall<'_>) -> Refused {
    // A malformed call is reported as such with a policy and without.
    let (code, rule) = match call.is_malformed() {
        true => (Code::MalformedCall, None),
        false => (Code::NoPolicy, Some("(no policy)".into())),
    };
    let message = default_message(code, call.tool()).into();
    Refused::Deny(Refusal { code, rule, message, policy: None }.into())
}

/// Denies a call that no limit could be checked for, for example because a store panicked.
#[cold]
pub(super) fn deny_without_store(call: &ToolCall<'_>, cause: Box<dyn Error + Send + Sync>) -> Denial {
    let code = Code::StoreUnavailable;
    let refusal = Refusal { code, rule: None, message: default_message(code, call.tool()).into(), policy: None };
    Denial { cause: Some(Arc::new(StoreError::unavailable(cause))), ..refusal.into() }
}
