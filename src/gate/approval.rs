//! Calls that a person has to approve: requesting approvals, and using them.
//!
//! The order is: look for room in the limits, so that nobody is asked about a call that a limit
//! stops anyway; ask the store of approvals; if an approval can be used, charge the limits; then
//! claim the approval. The claim is what allows the call.
//!
//! In this order a failure never costs more than it must. A crash between the charge and the claim
//! leaves quota spent for a call that was not made, and the approval untouched. If two calls race
//! for one approval, both are charged and one claims it; the other gives its charge back, and
//! requests an approval of its own. If the claim came first, a crash, or a store that fails when
//! the approval is to be restored, would lose a person's answer; and an approval that is claimed
//! and restored because a limit is full would be missing for a moment.

use std::sync::Arc;

use super::evaluation::CallEvaluation;
use super::in_force::InForce;
use super::ready::at_once;
use super::{AsyncGate, Gate};
use crate::approval::signed::{ApprovalKeys, SignedError, SignedText, VerifiedApproval};
use crate::approval::{
    Approval, ApprovalError, ApprovalId, ApprovalState, ApprovalStore, Ask, AsyncApprovalStore, DecideError, Verdict,
};
use crate::call::{PresentedApproval, ToolCall};
use crate::decision::permit::{AnyPermit, AsyncPermit, Reservation};
use crate::decision::{Decision, Denial, Refusal, Refused, no_approvals_message};
use crate::policy::{Code, Plan, Terms};
use crate::store::{AsyncCounterStore, CounterStore, InProcess, Outcome, ReservationId, StoreError, Tallies};

/// An approval that the call can use unless another call uses it first.
enum Usable {
    Stored(ApprovalId),
    Signed(VerifiedApproval),
}

impl<S: CounterStore + 'static> Gate<S> {
    /// Decides a call that needs an approval and that no rule stops. (The plan is copied in here,
    /// where it is rare, so that the common path need not move it.)
    #[cold]
    #[inline(never)]
    pub(super) fn decide_asking(
        &self,
        in_force: &Arc<InForce<S, dyn ApprovalStore>>,
        evaluation: &CallEvaluation<'_>,
        plan: &Plan,
    ) -> Decision {
        let parts = &in_force.parts;
        let (counters, approvals) = (&InProcess(&parts.store), &InProcess(&*parts.approvals));
        let stores = Stores { counters, approvals, keys: parts.keys.as_ref() };
        at_once(stores.decide(Arc::clone(in_force) as _, evaluation, plan))
            .unwrap_or_else(|error| evaluation.without_approvals(ApprovalError::unavailable(error)).into())
    }
}

impl<S: AsyncCounterStore + 'static> AsyncGate<S> {
    pub(super) async fn decide_asking_async(
        &self,
        in_force: &Arc<InForce<S, dyn AsyncApprovalStore>>,
        evaluation: &CallEvaluation<'_>,
        plan: &Plan,
    ) -> Decision<AsyncPermit> {
        let parts = &in_force.parts;
        let stores = Stores { counters: &parts.store, approvals: &*parts.approvals, keys: parts.keys.as_ref() };
        stores.decide(Arc::clone(in_force) as _, evaluation, plan).await
    }
}

/// The stores that decide a call that needs an approval.
struct Stores<'a, C> {
    counters: &'a C,
    approvals: &'a dyn AsyncApprovalStore,
    keys: Option<&'a ApprovalKeys>,
}

/// Returns the approval that the call names, or the signed text that it presents.
fn presented_by<'a>(call: &ToolCall<'a>) -> (Option<&'a ApprovalId>, Option<SignedText<'a>>) {
    match call.presented() {
        PresentedApproval::Any => (None, None),
        PresentedApproval::Stored(id) => (Some(id), None),
        #[cfg(feature = "signed")]
        PresentedApproval::Signed(text) => (None, Some(SignedText(text))),
    }
}

/// The answer of a store of counters for a call that charges none.
fn nothing_to_count() -> Result<Outcome, StoreError> {
    Ok(Outcome::Granted(Tallies::new()))
}

impl<C: AsyncCounterStore> Stores<'_, C> {
    /// Decides a call that needs an approval and that no rule stops.
    async fn decide<P: AnyPermit>(
        &self,
        backend: Arc<P::Backend>,
        evaluation: &CallEvaluation<'_>,
        plan: &Plan,
    ) -> Decision<P> {
        let Self { counters, approvals, keys } = *self;
        let now = evaluation.now;
        let counts = !plan.charges.is_empty();
        let request = evaluation.request(ReservationId::next(), plan);
        let peeked = if counts { counters.peek(&request).await } else { nothing_to_count() };
        let seen = match evaluation.answered(plan, peeked) {
            Ok(seen) => seen,
            Err(refused) => return refused.into(),
        };
        let asking = Asking::new(evaluation, plan, seen);
        let (named, signed) = presented_by(evaluation.call);
        let ask = asking.ask(named);
        let usable = match signed.map(|signed| signed.verify(keys, &ask, now)) {
            Some(Ok(verified)) => Usable::Signed(verified),
            Some(Err(error)) => return asking.refuse(approvals.request(&ask, now).await, Some(error)).into(),
            None => match asking.usable(&ask, approvals.request(&ask, now).await) {
                Ok(id) => Usable::Stored(id),
                Err(refused) => return refused.into(),
            },
        };
        let id = request.id;
        let outcome = if counts { counters.reserve(&request).await } else { nothing_to_count() };
        let (plan, tallies) = match evaluation.charged(plan, outcome) {
            Ok(charged) => charged,
            Err(refused) => return refused.into(),
        };
        // A permit from here on: if the future is dropped, nothing stays in flight.
        let mut permit = P::counted(Reservation { backend, id, plan, tallies, claim: None });
        let claimed = match &usable {
            Usable::Stored(id) => approvals.claim(id, now).await,
            Usable::Signed(verified) => verified.redeem(approvals, now).await,
        };
        let refused = match claimed {
            Ok(Some(claim)) => {
                permit.set_claim(claim);
                return Decision::Allow(permit);
            }
            Ok(None) => {
                let why = match &usable {
                    Usable::Stored(_) => None,
                    Usable::Signed(verified) => Some(verified.spent()),
                };
                asking.refuse(approvals.request(&ask, now).await, why)
            }
            Err(error) => evaluation.without_approvals(error),
        };
        permit.give_back().await;
        refused.into()
    }
}

impl<S> Gate<S> {
    /// Approves a request in the name of `by`, and returns it as it is then. If the policy requires
    /// several approvers, it may still be pending.
    ///
    /// The host must know who `by` is: the gate only compares names.
    ///
    /// # Errors
    /// The request is not pending; or `by` is not among the policy's `approvers`, has made the
    /// request (as the call's agent, user, grant or session), or has approved it already; or the
    /// store of approvals failed.
    pub fn approve(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.answer(id, Verdict::Approve, by)
    }

    /// Refuses a request in the name of `by`, for all calls that wait for it. A call that asks
    /// again makes a new request.
    ///
    /// # Errors
    /// The request is not pending; or `by` is not among the policy's `approvers`; or the store of
    /// approvals failed.
    pub fn refuse(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.answer(id, Verdict::Refuse, by)
    }

    fn answer(&self, id: &ApprovalId, verdict: Verdict, by: &str) -> Result<Approval, DecideError> {
        let parts = &self.0.parts;
        let now = parts.clock.now();
        let decided = parts.approvals.decide(id, verdict, by, now);
        parts.note_verdict(id, verdict, by, now, decided.as_ref());
        decided
    }

    /// Returns the pending requests, the oldest first.
    ///
    /// # Errors
    /// The store of approvals failed.
    pub fn pending(&self) -> Result<Vec<Approval>, ApprovalError> {
        let parts = &self.0.parts;
        parts.approvals.pending(parts.clock.now())
    }
}

impl<S> AsyncGate<S> {
    /// Approves a request, as [`Gate::approve`] does.
    ///
    /// # Errors
    /// As for `Gate::approve`.
    pub async fn approve(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.answer(id, Verdict::Approve, by).await
    }

    /// Refuses a request, as [`Gate::refuse`] does.
    ///
    /// # Errors
    /// As for `Gate::refuse`.
    pub async fn refuse(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.answer(id, Verdict::Refuse, by).await
    }

    async fn answer(&self, id: &ApprovalId, verdict: Verdict, by: &str) -> Result<Approval, DecideError> {
        let parts = &self.0.parts;
        let now = parts.clock.now();
        let decided = parts.approvals.decide(id, verdict, by, now).await;
        parts.note_verdict(id, verdict, by, now, decided.as_ref());
        decided
    }

    /// Returns the pending requests, the oldest first. A store across a network may return only the
    /// first thousand.
    ///
    /// # Errors
    /// As for [`Gate::pending`].
    pub async fn pending(&self) -> Result<Vec<Approval>, ApprovalError> {
        let parts = &self.0.parts;
        parts.approvals.pending(parts.clock.now()).await
    }
}

/// A call that asks for an approval, with the terms and the state of its limits when it asked.
struct Asking<'e> {
    evaluation: &'e CallEvaluation<'e>,
    plan: &'e Plan,
    seen: Option<Tallies>,
    terms: Terms<'e>,
    reason: Box<str>,
}

impl<'e> Asking<'e> {
    fn new(evaluation: &'e CallEvaluation<'e>, plan: &'e Plan, seen: Option<Tallies>) -> Self {
        let reason = evaluation.rule_refusal(Code::Approval).message;
        Self { evaluation, plan, seen, terms: evaluation.terms(), reason }
    }

    fn ask<'a>(&'a self, named: Option<&'a ApprovalId>) -> Ask<'a> {
        Ask::new(self.evaluation.call, self.evaluation.policy.digest(), &self.terms, &self.reason, named)
    }

    /// Returns the approval that the call can use, given what the store found or requested.
    fn usable(&self, ask: &Ask<'_>, found: Result<Approval, ApprovalError>) -> Result<ApprovalId, Refused> {
        let approval = found.map_err(|error| self.evaluation.without_approvals(error))?;
        let is_named = ask.named().is_none_or(|id| id == approval.id());
        match approval.state() == ApprovalState::Approved && is_named {
            true => Ok(*approval.id()),
            false => Err(self.require(approval, None)),
        }
    }

    /// Refuses a call whose approval cannot be used, or was used by another call first. It has
    /// asked again.
    fn refuse(&self, found: Result<Approval, ApprovalError>, why: Option<SignedError>) -> Refused {
        match found {
            Ok(approval) => self.require(approval, why),
            Err(error) => self.evaluation.without_approvals(error),
        }
    }

    fn require(&self, approval: Approval, why: Option<SignedError>) -> Refused {
        let states = |tallies| self.evaluation.states(self.plan, tallies);
        let states = self.seen.as_ref().map_or_else(Vec::new, states);
        self.evaluation.require_approval(states, Some(Box::new(approval)), why)
    }
}

impl CallEvaluation<'_> {
    /// Returns what was charged, with the tallies; empty if the store failed and the call may pass
    /// uncounted.
    fn charged(&self, plan: &Plan, outcome: Result<Outcome, StoreError>) -> Result<(Plan, Tallies), Refused> {
        Ok(self.answered(plan, outcome)?.map_or_else(Default::default, |tallies| (plan.clone(), tallies)))
    }

    /// Denies the call because the store of approvals failed.
    pub(super) fn without_approvals(&self, error: ApprovalError) -> Refused {
        let message = no_approvals_message(self.call.tool()).into();
        let refusal = Refusal { message, ..self.rule_refusal(Code::StoreUnavailable) };
        let cause = StoreError::unavailable(error);
        Refused::Deny(Denial { refusal, cause: Some(Arc::new(cause)), missing: None })
    }
}
