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

use super::evaluation::CallEvaluation;
use super::{Gate, InForce};
use crate::approval::signed::{ApprovalKeys, Believed, SignedError};
use crate::approval::{
    Approval, ApprovalError, ApprovalId, ApprovalState, ApprovalStore, Ask, AsyncApprovalStore, DecideError, InProcess,
    Verdict,
};
use crate::call::ToolCall;
use crate::decision::permit::{AsyncPermit, Permit, Reservation};
use crate::decision::{Decision, Denial, Refusal, Refused, no_approvals_message};
use crate::policy::{Code, Plan, Terms};
use crate::store::{AsyncCounterStore, CounterStore, Outcome, ReservationId, StoreError, Tallies};

/// Where the approvals are.
pub(super) enum Approvals {
    Here(InProcess<Box<dyn ApprovalStore>>),
    Remote(Box<dyn AsyncApprovalStore>),
}

impl Approvals {
    pub(super) fn here_in(store: impl ApprovalStore + 'static) -> Self {
        Self::Here(InProcess(Box::new(store)))
    }

    /// For a verb that does not wait.
    pub(super) fn here(&self) -> Result<&dyn ApprovalStore, ApprovalError> {
        match self {
            Self::Here(InProcess(store)) => Ok(store),
            Self::Remote(_) => Err(ApprovalError::AsyncOnly),
        }
    }

    /// For one that does.
    pub(super) fn anywhere(&self) -> &dyn AsyncApprovalStore {
        match self {
            Self::Here(store) => store,
            Self::Remote(store) => store,
        }
    }
}

/// What a call brings with it to be approved by.
#[derive(Clone, Copy)]
pub(super) enum PresentedApproval<'a> {
    /// Nothing: whatever the store has will do.
    Any,
    /// The name of the only approval that will do.
    Named(&'a ApprovalId),
    /// A signed approval, and no other will do.
    Signed(&'a str),
}

impl<'a> PresentedApproval<'a> {
    fn name(self) -> Option<&'a ApprovalId> {
        match self {
            Self::Named(id) => Some(id),
            Self::Any | Self::Signed(_) => None,
        }
    }
}

/// An approval that the call can use, if nobody else does before.
enum Usable {
    Kept(ApprovalId),
    Signed(Believed),
}

impl Usable {
    /// Why the call does not pass, if somebody else was first.
    fn lost(&self) -> Option<SignedError> {
        match self {
            Self::Kept(_) => None,
            Self::Signed(_) => Some(SignedError::Spent),
        }
    }
}

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
        self.decide(call, PresentedApproval::Named(approval))
    }

    /// Decides a call that comes with an approval that was [signed](crate::approval::signed) elsewhere: no other lets it pass, if it
    /// needs one. A call that needs none does not look at it.
    ///
    /// One that does not hold is no reason to deny: the answer is the same as without any, a request for an approval, and
    /// [`signed_error`](crate::ApprovalRequest::signed_error) tells the host why.
    pub fn check_signed(&self, call: &ToolCall<'_>, signed: &str) -> Decision {
        self.decide(call, PresentedApproval::Signed(signed))
    }

    /// Decides a call that needs an approval, and that no rule stops. (The plan is copied here, where it is rare, so that it need
    /// not be moved where it is not.)
    #[cold]
    #[inline(never)]
    pub(super) fn decide_asking(
        &self,
        in_force: &Arc<InForce<S>>,
        evaluation: &CallEvaluation<'_>,
        plan: &Plan,
        presented: PresentedApproval<'_>,
    ) -> Decision {
        let parts = &self.0.parts;
        let approvals = match parts.approvals.here() {
            Ok(approvals) => approvals,
            Err(error) => return evaluation.without_approvals(error).into(),
        };
        let counts = !plan.charges.is_empty();
        let request = evaluation.request(ReservationId::next(), plan);
        let looked = if counts { parts.store.peek(&request) } else { nothing_to_count() };
        let seen = match evaluation.answered(plan, looked) {
            Ok(seen) => seen,
            Err(refused) => return refused.into(),
        };
        let asking = Asking::new(evaluation, plan, seen);
        let ask = asking.ask(presented.name());
        let usable = match asking.believed(&ask, presented, parts.keys.as_ref()) {
            Some(Ok(believed)) => Usable::Signed(believed),
            Some(Err(error)) => return asking.again(approvals.request(&ask, evaluation.now), Some(error)).into(),
            None => match asking.usable(&ask, approvals.request(&ask, evaluation.now)) {
                Ok(id) => Usable::Kept(id),
                Err(refused) => return refused.into(),
            },
        };
        let id = request.id;
        let outcome = if counts { parts.store.reserve(&request) } else { nothing_to_count() };
        let (charged, tallies) = match evaluation.charged(plan, outcome) {
            Ok(charged) => charged,
            Err(refused) => return refused.into(),
        };
        // A permit, so that whatever happens from here on leaves nothing in flight.
        let held = Reservation { backend: in_force.clone() as _, id, plan: charged, tallies, claim: None };
        let mut permit = Permit::counted(held);
        let claimed = match &usable {
            Usable::Kept(id) => approvals.claim(id, evaluation.now),
            Usable::Signed(believed) => approvals.redeem(&believed.id, believed.until, evaluation.now),
        };
        let refused = match claimed {
            Ok(Some(claim)) => {
                permit.claim(claim);
                return Decision::Allow(permit);
            }
            Ok(None) => asking.again(approvals.request(&ask, evaluation.now), usable.lost()),
            Err(error) => evaluation.without_approvals(error),
        };
        // If it can't be given back it stays spent, which is the safe side.
        permit.release();
        refused.into()
    }
}

impl<S: AsyncCounterStore + 'static> Gate<S> {
    /// Decides a call that comes with an approval, as [`Gate::check_approved`] does.
    pub async fn check_approved_async(&self, call: &ToolCall<'_>, approval: &ApprovalId) -> Decision<AsyncPermit> {
        self.decide_async(call, PresentedApproval::Named(approval)).await
    }

    /// Decides a call that comes with a signed approval, as [`Gate::check_signed`] does.
    pub async fn check_signed_async(&self, call: &ToolCall<'_>, signed: &str) -> Decision<AsyncPermit> {
        self.decide_async(call, PresentedApproval::Signed(signed)).await
    }

    /// Decides a call that needs an approval, and that no rule stops.
    pub(super) async fn decide_asking_async(
        &self,
        in_force: Arc<InForce<S>>,
        evaluation: &CallEvaluation<'_>,
        plan: &Plan,
        presented: PresentedApproval<'_>,
    ) -> Decision<AsyncPermit> {
        let parts = &self.0.parts;
        let approvals = parts.approvals.anywhere();
        let counts = !plan.charges.is_empty();
        let request = evaluation.request(ReservationId::next(), plan);
        let looked = if counts { parts.store.peek(&request).await } else { nothing_to_count() };
        let seen = match evaluation.answered(plan, looked) {
            Ok(seen) => seen,
            Err(refused) => return refused.into(),
        };
        let asking = Asking::new(evaluation, plan, seen);
        let ask = asking.ask(presented.name());
        let usable = match asking.believed(&ask, presented, parts.keys.as_ref()) {
            Some(Ok(believed)) => Usable::Signed(believed),
            Some(Err(error)) => return asking.again(approvals.request(&ask, evaluation.now).await, Some(error)).into(),
            None => match asking.usable(&ask, approvals.request(&ask, evaluation.now).await) {
                Ok(id) => Usable::Kept(id),
                Err(refused) => return refused.into(),
            },
        };
        let id = request.id;
        let outcome = if counts { parts.store.reserve(&request).await } else { nothing_to_count() };
        let (charged, tallies) = match evaluation.charged(plan, outcome) {
            Ok(charged) => charged,
            Err(refused) => return refused.into(),
        };
        // A permit, so that who does not wait for the answer leaves nothing in flight.
        let held = Reservation { backend: Arc::clone(&in_force) as _, id, plan: charged, tallies, claim: None };
        let mut permit = AsyncPermit::counted(held);
        let claimed = match &usable {
            Usable::Kept(id) => approvals.claim(id, evaluation.now).await,
            Usable::Signed(believed) => approvals.redeem(&believed.id, believed.until, evaluation.now).await,
        };
        let refused = match claimed {
            Ok(Some(claim)) => {
                permit.claim(claim);
                return Decision::Allow(permit);
            }
            Ok(None) => asking.again(approvals.request(&ask, evaluation.now).await, usable.lost()),
            Err(error) => evaluation.without_approvals(error),
        };
        // If it can't be given back it stays spent, which is the safe side.
        let _ = permit.release().await;
        refused.into()
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
        let decided = match parts.approvals.here() {
            Ok(store) => store.decide(id, verdict, by, now),
            Err(error) => Err(error.into()),
        };
        parts.note_verdict(id, verdict, by, now, decided.as_ref());
        decided
    }

    /// What waits for a person, the oldest first.
    ///
    /// # Errors
    /// The store of approvals cannot tell.
    pub fn pending(&self) -> Result<Vec<Approval>, ApprovalError> {
        let parts = &self.0.parts;
        parts.approvals.here()?.pending(parts.clock.now())
    }

    /// Approves a request, as [`approve`](Self::approve) does, wherever the approvals are.
    ///
    /// # Errors
    /// As for `approve`.
    pub async fn approve_async(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.answer_async(id, Verdict::Approve, by).await
    }

    /// Refuses a request, as [`refuse`](Self::refuse) does, wherever the approvals are.
    ///
    /// # Errors
    /// As for `refuse`.
    pub async fn refuse_async(&self, id: &ApprovalId, by: &str) -> Result<Approval, DecideError> {
        self.answer_async(id, Verdict::Refuse, by).await
    }

    async fn answer_async(&self, id: &ApprovalId, verdict: Verdict, by: &str) -> Result<Approval, DecideError> {
        let parts = &self.0.parts;
        let now = parts.clock.now();
        let decided = parts.approvals.anywhere().decide(id, verdict, by, now).await;
        parts.note_verdict(id, verdict, by, now, decided.as_ref());
        decided
    }

    /// What waits for a person, the oldest first, wherever the approvals are. A store across a network may leave out what comes
    /// after a thousand.
    ///
    /// # Errors
    /// As for [`pending`](Self::pending).
    pub async fn pending_async(&self) -> Result<Vec<Approval>, ApprovalError> {
        let parts = &self.0.parts;
        parts.approvals.anywhere().pending(parts.clock.now()).await
    }

    /// The approvals, if they are in the process.
    pub fn approvals(&self) -> Option<&dyn ApprovalStore> {
        self.0.parts.approvals.here().ok()
    }
}

/// A call that asks, on what terms, and how the limits stood when it did.
struct Asking<'q> {
    evaluation: &'q CallEvaluation<'q>,
    plan: &'q Plan,
    seen: Option<Tallies>,
    terms: Terms<'q>,
    reason: Box<str>,
}

impl<'q> Asking<'q> {
    fn new(evaluation: &'q CallEvaluation<'q>, plan: &'q Plan, seen: Option<Tallies>) -> Self {
        let terms = evaluation.evaluation.terms(evaluation.call);
        Self { evaluation, plan, seen, terms, reason: evaluation.rule_refusal(Code::Approval).message }
    }

    fn ask<'a>(&'a self, named: Option<&'a ApprovalId>) -> Ask<'a> {
        Ask::new(self.evaluation.call, self.evaluation.policy.digest(), &self.terms, &self.reason, named)
    }

    /// What a signed approval says, if the call brings one.
    fn believed(
        &self,
        ask: &Ask<'_>,
        presented: PresentedApproval<'_>,
        keys: Option<&ApprovalKeys>,
    ) -> Option<Result<Believed, SignedError>> {
        match presented {
            PresentedApproval::Any | PresentedApproval::Named(_) => None,
            PresentedApproval::Signed(text) => {
                let keys = keys.ok_or(SignedError::UnknownKey);
                Some(keys.and_then(|keys| keys.believe(text, ask, self.evaluation.now)))
            }
        }
    }

    /// The approval that the call can use. Without one, what the call asks for is on record.
    fn usable(&self, ask: &Ask<'_>, found: Result<Approval, ApprovalError>) -> Result<ApprovalId, Refused> {
        let approval = found.map_err(|error| self.evaluation.without_approvals(error))?;
        let is_named = ask.named().is_none_or(|id| id == approval.id());
        match approval.state() == ApprovalState::Approved && is_named {
            true => Ok(*approval.id()),
            false => Err(self.asks(approval, None)),
        }
    }

    /// What the call presented does not let it pass, or another call was first, so it has asked again.
    fn again(&self, found: Result<Approval, ApprovalError>, why: Option<SignedError>) -> Refused {
        match found {
            Ok(approval) => self.asks(approval, why),
            Err(error) => self.evaluation.without_approvals(error),
        }
    }

    fn asks(&self, approval: Approval, why: Option<SignedError>) -> Refused {
        let states = |tallies| self.evaluation.states(self.plan, tallies);
        let states = self.seen.as_ref().map_or_else(Vec::new, states);
        self.evaluation.require_approval(states, Some(Box::new(approval)), why)
    }
}

impl CallEvaluation<'_> {
    /// What was charged, and how it stands; nothing where the store failed and the call may pass uncounted.
    fn charged(&self, plan: &Plan, outcome: Result<Outcome, StoreError>) -> Result<(Plan, Tallies), Refused> {
        Ok(self.answered(plan, outcome)?.map_or_else(Default::default, |tallies| (plan.clone(), tallies)))
    }

    /// The approvals cannot be asked.
    pub(super) fn without_approvals(&self, error: ApprovalError) -> Refused {
        let message = no_approvals_message(self.call.tool()).into();
        let refusal = Refusal { message, ..self.rule_refusal(Code::StoreUnavailable) };
        let cause = StoreError::Unavailable(Some(Box::new(error)));
        Refused::Deny(Denial { refusal, cause: Some(Arc::new(cause)) })
    }
}
