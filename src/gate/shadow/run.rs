//! A candidate beside the policy in force: it judges what the gate has decided.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Difference, DifferenceKind, Hear, Ledger, Report, Shadow};
use crate::approval::MemoryApprovals;
use crate::audit::{AuditRecord, Recorder};
use crate::call::ToolCall;
use crate::decision::permit::{Completion, Leave, Permit, PermitObserver};
use crate::decision::{Decision, Denial, Refusal, default_message};
use crate::gate::approval::Approvals;
use crate::gate::known_approval::{Checked, KnownApproval};
use crate::gate::{Gate, InForce, Parts};
use crate::policy::Code;
use crate::store::{CounterStore, StoreError};
use crate::time::{Clock, Timestamp};

/// A candidate that is being tried out.
pub(in crate::gate) struct ShadowRun {
    candidate: Arc<InForce<Arc<dyn CounterStore>>>,
    hear: Option<Box<Hear>>,
    ledger: Ledger,
}

impl ShadowRun {
    fn new(candidate: Shadow, clock: Arc<dyn Clock>) -> Self {
        let Shadow { policy, store, hear } = candidate;
        let ledger = Ledger::new(policy.digest());
        let parts = Arc::new(Parts {
            store,
            // Never asked.
            approvals: Approvals::here_in(MemoryApprovals::with_capacity(0)),
            keys: None,
            clock,
            pass_uncounted: Box::default(),
            recorder: Recorder::default(),
        });
        Self { candidate: Arc::new(InForce::new(Some(&policy), None, &parts)), hear, ledger }
    }

    /// Has the candidate judge a call that was decided, and compares. Gives back what has to hear of the call's further fate, if the
    /// candidate lets it pass; to drop that ends what the candidate has in flight.
    pub(in crate::gate) fn follow<P: Leave>(
        &self,
        call: &ToolCall<'_>,
        decided: &AuditRecord,
        decision: &Decision<P>,
    ) -> Option<Box<dyn PermitObserver>> {
        let now = decided.time();
        let is_approved = decision.is_allowed() && decision.approval_id().is_some();
        // Whatever a store of the host's own does, the call was decided.
        let judged = quietly(|| self.judge(call, now, is_approved))
            .unwrap_or_else(|| Checked { decision: Decision::Deny(panicked(call)), has_failed: true });
        let Checked { decision: judgement, has_failed } = judged;
        let is_same = (decision.as_str(), decision.code(), decision.rule())
            == (judgement.as_str(), judgement.code(), judgement.rule());
        let kind = match (has_failed, is_same, decision.is_allowed(), judgement.is_allowed()) {
            (true, ..) => Some(DifferenceKind::Errored),
            (false, true, ..) => None,
            (false, false, _, true) => Some(DifferenceKind::Loosened),
            (false, false, true, false) => Some(DifferenceKind::Tightened),
            (false, false, false, false) => Some(DifferenceKind::Changed),
        };
        match (kind, decided.id()) {
            (Some(kind), Some(id)) => {
                let policy = self.candidate.policy.as_ref();
                let judged = AuditRecord::of_decision(call, id, now, false, policy, &judgement);
                let difference = Difference::new(kind, decided.clone(), judged);
                self.ledger.differ(&difference);
                if let Some(hear) = &self.hear {
                    quietly(|| hear(&difference));
                }
            }
            _ => self.ledger.agree(),
        }
        match judgement {
            Decision::Allow(permit) => Some(Box::new(CandidatePermit { permit: Some(permit), begun: None })),
            Decision::Deny(_) | Decision::RateLimit(_) | Decision::RequireApproval(_) => None,
        }
    }

    fn judge(&self, call: &ToolCall<'_>, now: Timestamp, is_approved: bool) -> Checked {
        self.candidate.decide_given(call, now, if is_approved { KnownApproval::Yes } else { KnownApproval::No })
    }
}

#[cold]
fn panicked(call: &ToolCall<'_>) -> Denial {
    let code = Code::StoreUnavailable;
    let refusal = Refusal { code, rule: None, message: default_message(code, call.tool()).into(), policy: None };
    Denial { refusal, cause: Some(Arc::new(StoreError::Unavailable(Some("the candidate's store panicked".into())))) }
}

/// Does what code of the host's may panic in, without harm to the call that was decided.
fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Lets the candidate's counters go the way of the call.
struct CandidatePermit {
    permit: Option<Permit>,
    begun: Option<Completion>,
}

impl PermitObserver for CandidatePermit {
    fn begin(&mut self, fate: Completion) {
        self.begun = Some(fate);
    }

    fn done(&mut self, failure: Option<&(dyn Error + 'static)>) {
        quietly(|| match self.begun.take() {
            // Certainly not made, whether the real quota could be given back or not.
            Some(Completion::Release) => self.permit.take().map_or((), Permit::release),
            // What has failed may be settled again.
            Some(Completion::Settle(real)) if failure.is_none() => {
                // The counters are the candidate's alone: what they miss is no call's loss.
                let _ = self.permit.as_mut().map(|permit| permit.settle(real));
            }
            Some(Completion::Settle(_)) | None => {}
            Some(Completion::End) => drop(self.permit.take()),
        });
    }
}

impl Drop for CandidatePermit {
    fn drop(&mut self) {
        quietly(|| drop(self.permit.take()));
    }
}

impl<S> Gate<S> {
    /// Tries a candidate out beside the policy in force, from now on: see [`shadow`](crate::shadow). It takes the place of the one
    /// that was tried out before, whose report it gives back. A policy that is put in force meanwhile is compared with from
    /// then on.
    pub fn start_shadow(&self, candidate: Shadow) -> Option<Report> {
        let trial = ShadowRun::new(candidate, Arc::clone(&self.0.parts.clock));
        self.replace_trial(Some(Arc::new(trial)))
    }

    /// Ends the trial, and says how it stands. Calls that are being decided go on with it.
    pub fn stop_shadow(&self) -> Option<Report> {
        self.replace_trial(None)
    }

    /// How the trial stands; none if nothing is tried out.
    pub fn shadow_report(&self) -> Option<Report> {
        self.0.in_force.load().own().trial.as_ref().map(|trial| trial.ledger.report())
    }

    fn replace_trial(&self, trial: Option<Arc<ShadowRun>>) -> Option<Report> {
        let former = self.replace(|policy, _| (policy, trial));
        former.own().trial.as_ref().map(|trial| trial.ledger.report())
    }
}
