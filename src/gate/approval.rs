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
#[cfg(feature = "signed")]
use crate::approval::signed::VerifiedApproval;
use crate::approval::signed::{ApprovalKeys, SignedError, SignedText};
use crate::approval::{
    Approval, ApprovalError, ApprovalId, ApprovalState, ApprovalStore, Ask, AsyncApprovalStore, DecideError, Verdict,
};
use crate::call::{PresentedApproval, ToolCall};
use crate::decision::permit::{AnyPermit, AsyncPermit};
use crate::decision::reservation::Reservation;
use crate::decision::{Decision, Denial, Refusal, Refused, default_message, no_approvals_message};
use crate::policy::{Code, Plan, Terms};
use crate::store::{AsyncCounterStore, CounterStore, InProcess, Outcome, ReservationId, StoreError, Tallies};

/// An approval that the call can use unless another call uses it first.
enum Usable {
    Stored(ApprovalId),
    #[cfg(feature = "signed")]
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
        let stores = Stores { counters, approvals, keys: parts.keys.as_ref(), unseen: parts.approve_unseen };
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
        let (counters, approvals, keys) = (&parts.store, &*parts.approvals, parts.keys.as_ref());
        let stores = Stores { counters, approvals, keys, unseen: parts.approve_unseen };
        stores.decide(Arc::clone(in_force) as _, evaluation, plan).await
    }
}

/// The stores that decide a call that needs an approval.
struct Stores<'a, C> {
    counters: &'a C,
    approvals: &'a dyn AsyncApprovalStore,
    #[cfg_attr(not(feature = "signed"), expect(dead_code, reason = "keys verify signed texts alone"))]
    keys: Option<&'a ApprovalKeys>,
    /// People may approve what they are not shown in full.
    unseen: bool,
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
        let Self { counters, approvals, unseen, .. } = *self;
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
        let ask = asking.ask(named).approvable_unseen(unseen);
        let usable = match signed {
            #[cfg(feature = "signed")]
            Some(signed) => self.usable_text(&asking, &ask, signed).await,
            #[cfg(not(feature = "signed"))]
            Some(none) => match none {},
            None => asking.usable(&ask, approvals.request(&ask, now).await).map(Usable::Stored),
        };
        let usable = match usable {
            Ok(usable) => usable,
            Err(refused) => return refused.into(),
        };
        let id = request.id;
        let outcome = if counts { counters.reserve(&request).await } else { nothing_to_count() };
        let (plan, tallies) = match evaluation.charged(plan, outcome) {
            Ok(charged) => charged,
            Err(refused) => return refused.into(),
        };
        // A permit from here on: if the future is dropped, nothing stays in flight.
        let mut permit = P::counted(Reservation::new(backend, id, plan, tallies));
        let claimed = match &usable {
            Usable::Stored(id) => approvals.claim(id, now).await.map(|claim| claim.ok_or(None)),
            #[cfg(feature = "signed")]
            Usable::Signed(verified) => verified.redeem(approvals, now).await.map(|redeemed| redeemed.map_err(Some)),
        };
        let refused = match claimed {
            Ok(Ok(claim)) => {
                permit.set_claim(claim);
                return Decision::Allow(permit);
            }
            Ok(Err(why)) => asking.refuse(approvals.request(&ask, now).await, why),
            Err(error) => evaluation.without_approvals(error),
        };
        permit.give_back().await;
        refused.into()
    }

    /// Returns the approval in the text that the call presents. A refusal of the call goes before
    /// it.
    #[cfg(feature = "signed")]
    async fn usable_text(&self, asking: &Asking<'_>, ask: &Ask<'_>, text: SignedText<'_>) -> Result<Usable, Refused> {
        let now = asking.evaluation.now;
        let verified = match text.verify(self.keys, ask, now) {
            Ok(verified) => verified,
            Err(error) => return Err(asking.refuse(self.approvals.request(ask, now).await, Some(error))),
        };
        match self.approvals.refusal(ask, now).await {
            Ok(None) => Ok(Usable::Signed(verified)),
            Ok(Some(refusal)) => Err(asking.require(refusal, None)),
            Err(error) => Err(asking.evaluation.without_approvals(error)),
        }
    }
}

impl<S> Gate<S> {
    /// Approves a request in the name of `by`, and returns it as it is then. If the policy requires
    /// several approvers, it may still be pending.
    ///
    /// The host must know who `by` is: the gate only compares names. It knows who asked by the
    /// call's user alone.
    ///
    /// # Errors
    /// The request is not pending; or `by` is blank, is not among the policy's `approvers`, is the
    /// call's user, or has approved it already; or the request is not
    /// [shown](Approval::is_shown); or the store of approvals failed.
    pub fn approve(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.answer(id, Verdict::Approve, by)
    }

    /// Refuses a request in the name of `by`, for all calls that wait for it. Until the policy's
    /// `ttl` has passed, the same call is denied, `approval_refused`, and makes no new request. The
    /// call's user may refuse too, to withdraw the request.
    ///
    /// # Errors
    /// The request is not pending; or `by` is neither among the policy's `approvers` nor the call's
    /// user; or the store of approvals failed.
    pub fn refuse(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.answer(id, Verdict::Refuse, by)
    }

    /// Lifts the refusal of a request, so that the same call can ask again, and returns the
    /// request, which has ended. The id is that of the request, or [of the
    /// denial](crate::Denial::refused_request). `by` is for the audit log.
    ///
    /// # Errors
    /// The request is not refused; or `by` is blank or the call's user; or the store of approvals
    /// failed.
    pub fn lift_refusal(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.answer(id, Verdict::Lift, by)
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

    /// Lifts the refusal of a request, as [`Gate::lift_refusal`] does.
    ///
    /// # Errors
    /// As for `Gate::lift_refusal`.
    pub async fn lift_refusal(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.answer(id, Verdict::Lift, by).await
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
        if approval.state() == ApprovalState::Denied {
            return self.evaluation.refused_by_person(Some(*approval.id()));
        }
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
        Refused::Deny(Denial { cause: Some(Arc::new(cause)), ..refusal.into() })
    }

    /// Denies the call because a person has refused it. The rule's own text asks for a person, so
    /// it is not the message.
    pub(super) fn refused_by_person(&self, request: Option<ApprovalId>) -> Refused {
        let message = default_message(Code::ApprovalRefused, self.call.tool()).into();
        let refusal = Refusal { message, ..self.rule_refusal(Code::ApprovalRefused) };
        Refused::Deny(Denial { refused: request.map(Box::new), ..refusal.into() })
    }
}
