//! A running candidate: it decides each call that the gate has decided.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Difference, DifferenceKind, Ledger, Report, Shadow};
use crate::approval::{ApprovalStore, MemoryApprovals};
use crate::audit::{AuditRecord, Recorder};
use crate::call::ToolCall;
use crate::decision::Decision;
use crate::decision::permit::{AnyPermit, Completion, Permit, PermitObserver};
use crate::gate::Gate;
use crate::gate::evaluation::deny_without_store;
use crate::gate::in_force::{InForce, Parts, ShadowRun};
use crate::gate::known_approval::{Checked, KnownApproval};
use crate::policy::Code;
use crate::time::Clock;

impl ShadowRun {
    fn new(candidate: Shadow, clock: Arc<dyn Clock>) -> Self {
        let Shadow { policy, store, on_difference } = candidate;
        let ledger = Ledger::new(policy.digest());
        let parts = Arc::new(Parts {
            store,
            // Never asked.
            approvals: Box::new(MemoryApprovals::with_capacity(0)) as Box<dyn ApprovalStore>,
            keys: None,
            approve_unseen: false,
            clock,
            pass_uncounted: Box::default(),
            recorder: Recorder::default(),
        });
        Self { candidate: Arc::new(InForce::new(Some(&policy), None, &parts)), on_difference, ledger }
    }

    /// Decides a call under the candidate, and compares the result with the gate's decision. If the
    /// candidate allows the call, returns an observer that mirrors how the call ends onto the
    /// candidate's counters; dropping it frees the candidate's units in flight.
    pub(in crate::gate) fn compare<P: AnyPermit>(
        &self,
        call: &ToolCall<'_>,
        recorded: &AuditRecord,
        decision: &Decision<P>,
    ) -> Option<Box<dyn PermitObserver>> {
        let now = recorded.time();
        let is_approved = decision.is_allowed() && decision.approval_id().is_some();
        let approval = match decision.code() {
            _ if is_approved => KnownApproval::Yes,
            Some(Code::ApprovalRefused) => KnownApproval::Refused,
            _ => KnownApproval::No,
        };
        // The call is decided: a store of the host that panics must not change that.
        let checked = catch_panic(|| self.candidate.decide_known(call, now, approval));
        let Checked { decision: candidate, has_failed } = checked.unwrap_or_else(|| {
            let denial = deny_without_store(call, "the candidate's store panicked".into());
            Checked { decision: Decision::Deny(denial), has_failed: true }
        });
        let is_same = (decision.as_str(), decision.code(), decision.rule())
            == (candidate.as_str(), candidate.code(), candidate.rule());
        let kind = match (has_failed, is_same, decision.is_allowed(), candidate.is_allowed()) {
            (true, ..) => Some(DifferenceKind::Errored),
            (false, true, ..) => None,
            (false, false, _, true) => Some(DifferenceKind::Loosened),
            (false, false, true, false) => Some(DifferenceKind::Tightened),
            (false, false, false, false) => Some(DifferenceKind::Changed),
        };
        match (kind, recorded.id()) {
            (Some(kind), Some(id)) => {
                let policy = self.candidate.policy.as_ref();
                let shadow = AuditRecord::of_decision(call, id, now, false, policy, &candidate);
                let difference = Difference::new(kind, recorded.clone(), shadow);
                self.ledger.differ(&difference);
                if let Some(on_difference) = &self.on_difference {
                    catch_panic(|| on_difference(&difference));
                }
            }
            _ => self.ledger.agree(),
        }
        match candidate {
            Decision::Allow(permit) => Some(Box::new(CandidatePermit { permit: Some(permit), begun: None })),
            Decision::Deny(_) | Decision::RateLimit(_) | Decision::RequireApproval(_) => None,
        }
    }
}

/// Runs code of the host that may panic. The call is decided and must not be affected.
fn catch_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Mirrors how a call ends onto the candidate's counters.
struct CandidatePermit {
    permit: Option<Permit>,
    begun: Option<Completion>,
}

impl PermitObserver for CandidatePermit {
    fn begin(&mut self, completion: Completion) {
        self.begun = Some(completion);
    }

    fn done(&mut self, failure: Option<&(dyn Error + 'static)>) {
        catch_panic(|| match self.begun.take() {
            // The call was not made, even if the real quota could not be given back.
            Some(Completion::Release) => self.permit.take().map_or((), Permit::release),
            // After a failure the permit may be settled again.
            Some(Completion::Settle(real)) if failure.is_none() => {
                // Only the candidate uses these counters: a failure harms no call.
                let _ = self.permit.as_mut().map(|permit| permit.settle(real));
            }
            Some(Completion::Settle(_)) | None => {}
            Some(Completion::End) => drop(self.permit.take()),
        });
    }
}

impl Drop for CandidatePermit {
    fn drop(&mut self) {
        catch_panic(|| drop(self.permit.take()));
    }
}

impl<S, A: ?Sized> Gate<S, A> {
    /// Starts a candidate in the [shadow](crate::shadow) of the policy in force. It replaces the
    /// one that ran before, and returns that one's report. If another policy is put in force, the
    /// candidate is compared with that one from then on.
    pub fn start_shadow(&self, candidate: Shadow) -> Option<Report> {
        let shadow = ShadowRun::new(candidate, Arc::clone(&self.0.parts.clock));
        self.replace_shadow(Some(Arc::new(shadow)))
    }

    /// Stops the candidate and returns its report. Calls that are being decided are still compared
    /// with it.
    pub fn stop_shadow(&self) -> Option<Report> {
        self.replace_shadow(None)
    }

    /// Returns the candidate's report so far, or `None` if no candidate runs.
    pub fn shadow_report(&self) -> Option<Report> {
        self.0.in_force.load().own().shadow.as_ref().map(|shadow| shadow.ledger.report())
    }

    fn replace_shadow(&self, shadow: Option<Arc<ShadowRun>>) -> Option<Report> {
        let former = self.replace(|policy, _| (policy, shadow));
        former.own().shadow.as_ref().map(|shadow| shadow.ledger.report())
    }
}
