//! Watched decisions: they are recorded, with how the calls end, and compared with those of a
//! candidate.

use std::error::Error;
use std::sync::Arc;

use super::in_force::{InForce, Parts};
use super::{AsyncGate, Gate};
use crate::approval::{Approval, ApprovalId, ApprovalStore, AsyncApprovalStore, DecideError, Verdict};
use crate::audit::{AuditRecord, DecisionId, Event, Unrecorded, is_traced};
use crate::call::ToolCall;
use crate::decision::permit::{AnyPermit, AsyncPermit, Completion, PermitObserver, PermitObservers};
use crate::decision::{Decision, Denial, Refusal, default_message};
use crate::policy::{Code, Policy};
use crate::store::{AsyncCounterStore, CounterStore, ReservationId};
use crate::time::Timestamp;

impl<S, A: ?Sized> InForce<S, A> {
    pub(super) fn is_watched(&self) -> bool {
        self.is_watched || is_traced()
    }

    /// Records a decision, and compares it with that of the candidate. Returns the observers of an
    /// allowed call, or the denial if the call must not be made because it could not be recorded.
    fn note<P: AnyPermit>(
        &self,
        call: &ToolCall<'_>,
        now: Timestamp,
        decision: &Decision<P>,
    ) -> Result<PermitObservers, Denial>
    where
        S: Send + Sync + 'static,
        A: Send + Sync + 'static,
    {
        let recorder = &self.parts.recorder;
        let (id, policy) = (next_id(), self.policy.as_ref());
        let record = AuditRecord::of_decision(call, id, now, recorder.with_arguments, policy, decision);
        let recorded = recorder.record(&record);
        let mut candidate = self.shadow.as_ref().and_then(|shadow| shadow.compare(call, &record, decision));
        if !decision.is_allowed() {
            return Ok(PermitObservers(Vec::new()));
        }
        if recorded.is_err() {
            // The call is not made under the candidate either.
            if let Some(candidate) = &mut candidate {
                candidate.begin(Completion::Release);
                candidate.done(None);
            }
            let (code, rule) = (Code::AuditUnavailable, Some("(audit unavailable)".into()));
            let message = default_message(code, call.tool()).into();
            return Err(Refusal { code, rule, message, policy: policy.map(Policy::digest) }.into());
        }
        let mut observers: Vec<_> = candidate.into_iter().collect();
        if recorder.is_on() {
            let record = record.afterwards(Event::End, now);
            observers.push(Box::new(AuditObserver {
                parts: Arc::clone(&self.parts),
                record,
                begun: None,
                is_over: false,
            }));
        }
        Ok(PermitObservers(observers))
    }
}

fn next_id() -> DecisionId {
    DecisionId(ReservationId::next().get())
}

impl<S: CounterStore + 'static> Gate<S> {
    #[cold]
    #[inline(never)]
    pub(super) fn decide_watched(
        &self,
        in_force: &Arc<InForce<S, dyn ApprovalStore>>,
        call: &ToolCall<'_>,
    ) -> Decision {
        let now = self.now();
        let decision = self.decide_at(Some(now), in_force, call);
        match (in_force.note(call, now, &decision), decision) {
            (Ok(observers), Decision::Allow(mut permit)) => {
                permit.observe(observers);
                Decision::Allow(permit)
            }
            (Err(denial), Decision::Allow(permit)) => {
                permit.release();
                Decision::Deny(denial)
            }
            (_, stopped) => stopped,
        }
    }
}

impl<S: AsyncCounterStore + 'static> AsyncGate<S> {
    pub(super) async fn decide_watched_async(
        &self,
        in_force: Arc<InForce<S, dyn AsyncApprovalStore>>,
        call: &ToolCall<'_>,
    ) -> Decision<AsyncPermit> {
        let now = self.now();
        let decision = self.decide_at_async(Some(now), Arc::clone(&in_force), call).await;
        match (in_force.note(call, now, &decision), decision) {
            (Ok(observers), Decision::Allow(mut permit)) => {
                permit.observe(observers);
                Decision::Allow(permit)
            }
            (Err(denial), Decision::Allow(permit)) => {
                permit.give_back().await;
                Decision::Deny(denial)
            }
            (_, stopped) => stopped,
        }
    }
}

impl<S, A: ?Sized> Gate<S, A> {
    /// Records a denial that the host made itself without asking a gate, for example of a call of a
    /// tool that has [changed](crate::mcp::ToolPins::denial), or of a message that could not be
    /// read: pass the [`Caller`](crate::Caller) if nothing else is known.
    ///
    /// ```
    /// use toolgate::mcp::Message;
    /// use toolgate::{Caller, Gate};
    ///
    /// # let gate = Gate::builder().build();
    /// if let Err(error) = Message::read("[1") {
    ///     gate.record_denial(&Caller::new().session("s-7"), &error.into());
    /// }
    /// ```
    pub fn record_denial<'c>(&self, call: impl Into<ToolCall<'c>>, denial: &Denial) {
        self.note_denial(&call.into(), denial, None);
    }

    pub(crate) fn note_denial(&self, call: &ToolCall<'_>, denial: &Denial, now: Option<Timestamp>) {
        let recorder = &self.0.parts.recorder;
        if recorder.is_on() {
            let now = now.unwrap_or_else(|| self.now());
            let record = AuditRecord::of_denial(call, next_id(), now, recorder.with_arguments, denial);
            // The call is denied in any case.
            let _ = recorder.record(&record);
        }
    }

    /// Records that a counter is reset, or that this failed.
    pub(super) fn note_reset(
        &self,
        counter: &str,
        caller: &ToolCall<'_>,
        by: &str,
        failure: Option<&(dyn Error + 'static)>,
    ) -> Result<(), Unrecorded> {
        let recorder = &self.0.parts.recorder;
        if !recorder.is_on() {
            return Ok(());
        }
        let (now, policy) = (self.now(), self.policy());
        let record = AuditRecord::of_reset(counter, caller, by, now, recorder.with_arguments, policy.as_ref());
        recorder.record(&record.with_failure(failure))
    }

    /// Returns `true` if records are kept, or reported as events.
    pub(crate) fn is_recorded(&self) -> bool {
        self.0.parts.recorder.is_on()
    }

    /// Records a change of a grant, if anything is recorded.
    pub(crate) fn note_grant(&self, record: impl FnOnce(Timestamp) -> AuditRecord) -> Result<(), Unrecorded> {
        let recorder = &self.0.parts.recorder;
        if recorder.is_on() { recorder.record(&record(self.now())) } else { Ok(()) }
    }
}

impl<S, A: ?Sized> Parts<S, A> {
    /// Records a person's answer to a request.
    pub(super) fn note_verdict(
        &self,
        id: &ApprovalId,
        verdict: Verdict,
        by: &str,
        now: Timestamp,
        decided: Result<&Approval, &DecideError>,
    ) {
        if self.recorder.is_on() {
            // A failure is reported to the host; the answer counts.
            let _ = self.recorder.record(&AuditRecord::of_verdict(id, verdict, by, now, decided));
        }
    }

    /// Records that a policy was put in force or removed.
    pub(super) fn note_policy(&self, policy: Option<&Policy>, former: Option<&Policy>) {
        if self.recorder.is_on() {
            let _ = self.recorder.record(&AuditRecord::of_policy(policy, former, self.clock.now()));
        }
    }
}

/// Records how an allowed call ends.
struct AuditObserver<S: Send + Sync, A: Send + Sync + ?Sized> {
    parts: Arc<Parts<S, A>>,
    /// The part that all records of the call share.
    record: AuditRecord,
    /// The request that the store has not answered yet.
    begun: Option<Completion>,
    /// `true` if a release or an end was recorded.
    is_over: bool,
}

impl<S: Send + Sync, A: Send + Sync + ?Sized> AuditObserver<S, A> {
    fn note(&mut self, completion: Completion, failure: Option<&(dyn Error + 'static)>) {
        let (event, amount) = match completion {
            Completion::Release => (Event::Release, None),
            Completion::Settle(amount) => (Event::Settle, Some(amount)),
            Completion::End => (Event::End, None),
        };
        self.is_over |= amount.is_none();
        let record = self.record.afterwards(event, self.parts.clock.now());
        let record = record.with_amount(amount).with_failure(failure);
        // A failure is reported to the host. The call is allowed already, so nothing else can be
        // done.
        let _ = self.parts.recorder.record(&record);
    }
}

impl<S: Send + Sync, A: Send + Sync + ?Sized> PermitObserver for AuditObserver<S, A> {
    fn begin(&mut self, completion: Completion) {
        self.begun = Some(completion);
    }

    fn done(&mut self, failure: Option<&(dyn Error + 'static)>) {
        if let Some(completion) = self.begun.take() {
            self.note(completion, failure);
        }
    }
}

/// The future of a release, settlement or end was dropped.
#[derive(Debug, thiserror::Error)]
#[error("dropped before the store answered")]
struct Unanswered;

impl<S: Send + Sync, A: Send + Sync + ?Sized> Drop for AuditObserver<S, A> {
    fn drop(&mut self) {
        if let Some(completion) = self.begun.take() {
            self.note(completion, Some(&Unanswered));
        }
        if !self.is_over {
            self.note(Completion::End, None);
        }
    }
}
