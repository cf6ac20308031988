//! Calls that a person has to approve: asking, and using what was approved.
//!
//! Room is looked for first, so that nobody is asked for a call that a limit stops anyway. Then the approvals are asked. If one
//! can be used, the limits are charged, and only then is the approval claimed; the claim is what allows the call.
//!
//! In this order nothing can go wrong twice. Between the charge and the claim a crash leaves quota spent for a call that was not
//! made, and the approval as it was. Of two calls that race for one approval both are charged and one claims it; the other gives its
//! charge back, and asks. Were the approval claimed first, a crash, or a store that fails when the approval is to be handed back, would
//! lose what a person has said; and a claim that is handed back because a limit is full would for a moment be missing.

use std::sync::Arc;

use super::question::Question;
use super::{Gate, InForce};
use crate::approval::{
    Approval, ApprovalError, ApprovalId, ApprovalState, ApprovalStore, Ask, Claim, DecideError, Verdict,
};
use crate::call::ToolCall;
use crate::decision::{Decision, Denial, Refusal, Refused, no_approvals_message};
use crate::permit::{AsyncPermit, Held, Permit};
use crate::policy::{Code, Plan};
use crate::store::{AsyncCounterStore, CounterStore, Outcome, ReservationId, StoreError, Tallies};

/// What the answer of a store that need not be asked would be.
fn nothing_to_count() -> Result<Outcome, StoreError> {
    Ok(Outcome::Granted(Tallies::new()))
}

impl<S: CounterStore + 'static> Gate<S> {
    /// Decides a call that comes with an approval: no other lets it pass, if it needs one.
    ///
    /// [`check`](Self::check) finds an approval by itself. Name it where a call must not use what was approved for its
    /// like.
    pub fn check_approved(&self, call: &ToolCall<'_>, approval: &ApprovalId) -> Decision {
        self.decide(call, Some(approval))
    }

    /// Decides a call that needs an approval, and that no rule stops. (The plan is copied here, where it is rare, so that it need
    /// not be moved where it is not.)
    #[cold]
    #[inline(never)]
    pub(super) fn decide_asking(
        &self,
        in_force: &Arc<InForce<S>>,
        question: &Question<'_>,
        plan: &Plan,
        named: Option<&ApprovalId>,
    ) -> Decision {
        let store = &self.0.parts.store;
        let counts = !plan.charges.is_empty();
        let request = question.request(ReservationId::next(), plan);
        let looked = if counts { store.peek(&request) } else { nothing_to_count() };
        let usable = question.answered(plan, looked).and_then(|seen| in_force.usable(question, plan, seen, named));
        let usable = match usable {
            Ok(usable) => usable,
            Err(refused) => return refused.into(),
        };
        let id = request.id;
        let outcome = if counts { store.reserve(&request) } else { nothing_to_count() };
        let (charged, tallies) = match question.charged(plan, outcome) {
            Ok(charged) => charged,
            Err(refused) => return refused.into(),
        };
        let mut held = Held { granter: in_force.clone() as _, id, plan: charged, tallies, claim: None };
        match in_force.claim(question, plan, &usable, named) {
            Ok(claim) => {
                held.claim = Some(claim);
                Decision::Allow(Permit::counted(held))
            }
            Err(refused) => {
                // If it can't be given back it stays spent, which is the safe side.
                Permit::counted(held).release();
                refused.into()
            }
        }
    }
}

impl<S: AsyncCounterStore + 'static> Gate<S> {
    /// Decides a call that comes with an approval, as [`Gate::check_approved`] does.
    pub async fn check_approved_async(&self, call: &ToolCall<'_>, approval: &ApprovalId) -> Decision<AsyncPermit> {
        self.decide_async(call, Some(approval)).await
    }

    /// Decides a call that needs an approval, and that no rule stops.
    pub(super) async fn decide_asking_async(
        &self,
        in_force: Arc<InForce<S>>,
        question: &Question<'_>,
        plan: &Plan,
        named: Option<&ApprovalId>,
    ) -> Decision<AsyncPermit> {
        let store = &self.0.parts.store;
        let counts = !plan.charges.is_empty();
        let request = question.request(ReservationId::next(), plan);
        let looked = if counts { store.peek(&request).await } else { nothing_to_count() };
        let usable = question.answered(plan, looked).and_then(|seen| in_force.usable(question, plan, seen, named));
        let usable = match usable {
            Ok(usable) => usable,
            Err(refused) => return refused.into(),
        };
        let id = request.id;
        let outcome = if counts { store.reserve(&request).await } else { nothing_to_count() };
        let (charged, tallies) = match question.charged(plan, outcome) {
            Ok(charged) => charged,
            Err(refused) => return refused.into(),
        };
        let mut held = Held { granter: Arc::clone(&in_force) as _, id, plan: charged, tallies, claim: None };
        match in_force.claim(question, plan, &usable, named) {
            Ok(claim) => {
                held.claim = Some(claim);
                Decision::Allow(AsyncPermit::counted(held))
            }
            Err(refused) => {
                // If it can't be given back it stays spent, which is the safe side.
                let _ = AsyncPermit::counted(held).release().await;
                refused.into()
            }
        }
    }
}

impl<S> Gate<S> {
    /// Approves a request, in the name of `by`, and gives it as it is then: where the policy wants several people, it may wait
    /// for others.
    ///
    /// Who `by` is, the host has to know: the gate compares names alone.
    ///
    /// # Errors
    /// It is not pending; or `by` is not among the policy's `approvers`, has asked for it (as the call's agent, user, grant
    /// or session), or has approved it already; or the store of approvals cannot tell.
    pub fn approve(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.answer(id, Verdict::Approve, by)
    }

    /// Refuses a request, in the name of `by`: for all calls that wait for it. A call that asks again makes a new request.
    ///
    /// # Errors
    /// It is not pending; or `by` is not among the policy's `approvers`; or the store of approvals cannot tell.
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

    /// What waits for a person, the oldest first.
    ///
    /// # Errors
    /// The store of approvals cannot tell.
    pub fn pending(&self) -> Result<Vec<Approval>, ApprovalError> {
        let parts = &self.0.parts;
        parts.approvals.pending(parts.clock.now())
    }

    /// The approvals.
    pub fn approvals(&self) -> &dyn ApprovalStore {
        &*self.0.parts.approvals
    }
}

/// An approval that can be claimed, and how the limits stood when it was found.
struct Usable {
    id: ApprovalId,
    tallies: Option<Tallies>,
}

impl<S> InForce<S> {
    /// The approval that the call can use. Without one, what the call asks for is on record.
    fn usable(
        &self,
        question: &Question<'_>,
        plan: &Plan,
        tallies: Option<Tallies>,
        named: Option<&ApprovalId>,
    ) -> Result<Usable, Refused> {
        let approval = self.request(question, named)?;
        let is_usable = approval.state() == ApprovalState::Approved && named.is_none_or(|id| id == approval.id());
        if is_usable {
            return Ok(Usable { id: *approval.id(), tallies });
        }
        let states = tallies.map_or_else(Vec::new, |tallies| question.states(plan, &tallies));
        Err(question.require_approval(states, Some(Box::new(approval))))
    }

    /// Claims it; asks again, if another call was first.
    fn claim(
        &self,
        question: &Question<'_>,
        plan: &Plan,
        usable: &Usable,
        named: Option<&ApprovalId>,
    ) -> Result<Box<Claim>, Refused> {
        match self.parts.approvals.claim(&usable.id, question.now) {
            Ok(Some(claim)) => Ok(Box::new(claim)),
            Ok(None) => {
                let approval = self.request(question, named)?;
                let states = |tallies| question.states(plan, tallies);
                let states = usable.tallies.as_ref().map_or_else(Vec::new, states);
                Err(question.require_approval(states, Some(Box::new(approval))))
            }
            Err(error) => Err(question.without_approvals(error)),
        }
    }

    fn request(&self, question: &Question<'_>, named: Option<&ApprovalId>) -> Result<Approval, Refused> {
        let Question { policy, call, .. } = question;
        let terms = question.evaluation.terms(call);
        let reason = question.rule_refusal(Code::Approval).message;
        let ask = Ask::new(call, policy.digest(), &terms, &reason, named);
        self.parts.approvals.request(&ask, question.now).map_err(|error| question.without_approvals(error))
    }
}

impl Question<'_> {
    /// What was charged, and how it stands; nothing where the store failed and the call may pass uncounted.
    fn charged(&self, plan: &Plan, outcome: Result<Outcome, StoreError>) -> Result<(Plan, Tallies), Refused> {
        Ok(self.answered(plan, outcome)?.map_or_else(Default::default, |tallies| (plan.clone(), tallies)))
    }

    /// The approvals cannot be asked.
    fn without_approvals(&self, error: ApprovalError) -> Refused {
        let message = no_approvals_message(self.call.tool()).into();
        let refusal = Refusal { message, ..self.rule_refusal(Code::StoreUnavailable) };
        let cause = StoreError::Unavailable(Some(Box::new(error)));
        Refused::Deny(Denial { refusal, cause: Some(Arc::new(cause)) })
    }
}
