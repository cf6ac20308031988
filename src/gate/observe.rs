//! Decisions that somebody watches: they are recorded, with what becomes of them, and a candidate judges them too.

use std::error::Error;
use std::sync::Arc;

use super::approval::PresentedApproval;
use super::{Gate, InForce, Parts};
use crate::approval::{Approval, ApprovalId, DecideError, Verdict};
use crate::audit::{AuditRecord, DecisionId, Event, is_traced};
use crate::call::ToolCall;
use crate::decision::permit::{AsyncPermit, Completion, Leave, PermitObserver, PermitObservers};
use crate::decision::{Decision, Denial, Refusal, default_message};
use crate::policy::{Code, Policy};
use crate::store::{AsyncCounterStore, CounterStore, ReservationId};
use crate::time::Timestamp;

impl<S> InForce<S> {
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.is_watched || is_traced()
    }

    /// Records a decision, and has the candidate judge it. Gives back who follows a call that is allowed, or why it may not be
    /// made after all.
    fn note<P: Leave>(
        &self,
        call: &ToolCall<'_>,
        now: Timestamp,
        decision: &Decision<P>,
    ) -> Result<PermitObservers, Denial>
    where
        S: Send + Sync + 'static,
    {
        let recorder = &self.parts.recorder;
        let (id, policy) = (next_id(), self.policy.as_ref());
        let record = AuditRecord::of_decision(call, id, now, recorder.with_arguments, policy, decision);
        let recorded = recorder.record(&record);
        let mut shadow = self.trial.as_ref().and_then(|trial| trial.follow(call, &record, decision));
        if !decision.is_allowed() {
            return Ok(PermitObservers(Vec::new()));
        }
        if recorded.is_err() {
            // Under the candidate it would not have been made either.
            if let Some(shadow) = &mut shadow {
                shadow.begin(Completion::Release);
                shadow.done(None);
            }
            let (code, rule) = (Code::AuditUnavailable, Some("(audit unavailable)".into()));
            let message = default_message(code, call.tool()).into();
            return Err(Refusal { code, rule, message, policy: policy.map(Policy::digest) }.into());
        }
        let mut watch: Vec<_> = shadow.into_iter().collect();
        if recorder.is_on() {
            let record = record.afterwards(Event::End, now);
            watch.push(Box::new(AuditObserver { parts: Arc::clone(&self.parts), record, begun: None, is_over: false }));
        }
        Ok(PermitObservers(watch))
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
        in_force: &Arc<InForce<S>>,
        call: &ToolCall<'_>,
        presented: PresentedApproval<'_>,
    ) -> Decision {
        let now = self.now();
        let decision = self.decide_at(Some(now), in_force, call, presented);
        match (in_force.note(call, now, &decision), decision) {
            (Ok(watch), Decision::Allow(mut permit)) => {
                permit.watch(watch);
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

impl<S: AsyncCounterStore + 'static> Gate<S> {
    pub(super) async fn decide_watched_async(
        &self,
        in_force: Arc<InForce<S>>,
        call: &ToolCall<'_>,
        presented: PresentedApproval<'_>,
    ) -> Decision<AsyncPermit> {
        let now = self.now();
        let decision = self.decide_at_async(Some(now), Arc::clone(&in_force), call, presented).await;
        match (in_force.note(call, now, &decision), decision) {
            (Ok(watch), Decision::Allow(mut permit)) => {
                permit.watch(watch);
                Decision::Allow(permit)
            }
            (Err(denial), Decision::Allow(permit)) => {
                // If it can't be given back it stays spent, which is the safe side.
                let _ = permit.release().await;
                Decision::Deny(denial)
            }
            (_, stopped) => stopped,
        }
    }
}

impl<S> Gate<S> {
    /// Records a denial that the host has made itself, where no gate was asked: of a message that could not be read, of a tool
    /// that has [changed](crate::mcp::ToolPins::denial). Of a message of which nothing is known, the call is
    /// one of the tool `""`, by the caller whom the host knows.
    ///
    /// ```
    /// use toolgate::mcp::Message;
    /// use toolgate::{Gate, ToolCall};
    ///
    /// # let gate = Gate::builder().build();
    /// if let Err(error) = Message::read("[1") {
    ///     let nothing = None::<&serde_json::Value>;
    ///     gate.record_denial(&ToolCall::new("", nothing).session("s-7"), &error.into());
    /// }
    /// ```
    pub fn record_denial(&self, call: &ToolCall<'_>, denial: &Denial) {
        self.note_denial(call, denial, None);
    }

    pub(crate) fn note_denial(&self, call: &ToolCall<'_>, denial: &Denial, now: Option<Timestamp>) {
        let recorder = &self.0.parts.recorder;
        if recorder.is_on() {
            let now = now.unwrap_or_else(|| self.now());
            let record = AuditRecord::of_denial(call, next_id(), now, recorder.with_arguments, denial);
            // It is denied already.
            let _ = recorder.record(&record);
        }
    }
}

impl<S> Parts<S> {
    /// Records what a person has said.
    pub(super) fn note_verdict(
        &self,
        id: &ApprovalId,
        verdict: Verdict,
        by: &str,
        now: Timestamp,
        decided: Result<&Approval, &DecideError>,
    ) {
        if self.recorder.is_on() {
            // The host hears of a failure; what was said was said.
            let _ = self.recorder.record(&AuditRecord::of_verdict(id, verdict, by, now, decided));
        }
    }

    /// Records that a policy was put in force, or taken away.
    pub(super) fn note_policy(&self, policy: Option<&Policy>, former: Option<&Policy>) {
        if self.recorder.is_on() {
            let _ = self.recorder.record(&AuditRecord::of_policy(policy, former, self.clock.now()));
        }
    }
}

/// Records what becomes of an allowed call.
struct AuditObserver<S: Send + Sync> {
    parts: Arc<Parts<S>>,
    /// What is the same in all records of the call.
    record: AuditRecord,
    /// What the store was asked, and has not answered.
    begun: Option<Completion>,
    /// Whether a release or an end was recorded.
    is_over: bool,
}

impl<S: Send + Sync> AuditObserver<S> {
    fn note(&mut self, fate: Completion, failure: Option<&(dyn Error + 'static)>) {
        let (event, amount) = match fate {
            Completion::Release => (Event::Release, None),
            Completion::Settle(amount) => (Event::Settle, Some(amount)),
            Completion::End => (Event::End, None),
        };
        self.is_over |= amount.is_none();
        let record = self.record.afterwards(event, self.parts.clock.now());
        let record = record.with_amount(amount).with_failure(failure);
        // The call was allowed long since: the host hears of it, and nothing else can be done.
        let _ = self.parts.recorder.record(&record);
    }
}

impl<S: Send + Sync> PermitObserver for AuditObserver<S> {
    fn begin(&mut self, fate: Completion) {
        self.begun = Some(fate);
    }

    fn done(&mut self, failure: Option<&(dyn Error + 'static)>) {
        if let Some(fate) = self.begun.take() {
            self.note(fate, failure);
        }
    }
}

/// Nobody waited for the store's answer.
#[derive(Debug, thiserror::Error)]
#[error("the store's answer was not waited for")]
struct Unanswered;

impl<S: Send + Sync> Drop for AuditObserver<S> {
    fn drop(&mut self) {
        if let Some(fate) = self.begun.take() {
            self.note(fate, Some(&Unanswered));
        }
        if !self.is_over {
            self.note(Completion::End, None);
        }
    }
}
