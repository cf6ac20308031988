//! Decisions with a known answer to the request for approval: those of a candidate and of a replay.

use std::sync::Arc;

use super::evaluation::{CallEvaluation, deny_without_policy};
use super::in_force::InForce;
use crate::approval::{ApprovalError, ApprovalStore};
use crate::call::ToolCall;
use crate::decision::permit::{AnyPermit, Permit};
use crate::decision::reservation::Reservation;
use crate::decision::{Decision, Refused};
use crate::policy::Plan;
use crate::store::{CounterStore, Outcome, ReservationId, StoreError, Tallies};
use crate::time::Timestamp;

/// The known answer to the request for approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KnownApproval {
    /// The call was approved.
    Yes,
    /// The call was not approved.
    No,
    /// A person had refused the call.
    Refused,
    /// The store of approvals failed.
    #[cfg_attr(not(feature = "replay"), expect(dead_code, reason = "only a log says so"))]
    Unknown,
}

/// A decision, and the state of the store.
pub(super) struct Checked {
    pub(super) decision: Decision,
    /// `true` if the store of counters failed.
    pub(super) has_failed: bool,
}

impl<S: CounterStore + 'static> InForce<S, dyn ApprovalStore> {
    /// Decides a call at an instant, without asking a store of approvals.
    pub(super) fn decide_known(
        self: &Arc<Self>,
        call: &ToolCall<'_>,
        now: Timestamp,
        approval: KnownApproval,
    ) -> Checked {
        let certain = |decision| Checked { decision, has_failed: false };
        let Some(policy) = &self.policy else { return certain(deny_without_policy(call).into()) };
        let mut evaluation = self.evaluation(policy, call);
        evaluation.judge(Some(now));
        let mut plan = Plan::default();
        if let Err(refused) = evaluation.cost(&mut plan) {
            return certain(refused.into());
        }
        let asks = evaluation.needs_approval() && approval != KnownApproval::Yes;
        if plan.charges.is_empty() {
            return certain(match asks {
                true => require(&evaluation, &plan, None, approval).into(),
                false => Decision::Allow(Permit::uncounted()),
            });
        }
        let request = evaluation.request(ReservationId::next(), &plan);
        let store = &self.parts.store;
        let outcome = if asks { store.peek(&request) } else { store.reserve(&request) };
        let is_whole = |outcome: &Outcome| outcome.tallies().len() == plan.charges.len();
        let outcome =
            outcome.and_then(|outcome| if is_whole(&outcome) { Ok(outcome) } else { Err(StoreError::Corrupt) });
        let has_failed = outcome.is_err();
        let id = request.id;
        let decision = match evaluation.answered(&plan, outcome) {
            Ok(tallies) if asks => require(&evaluation, &plan, tallies, approval).into(),
            Ok(Some(tallies)) => {
                let backend = Arc::clone(self) as _;
                Decision::Allow(Permit::counted(Reservation::new(backend, id, plan, tallies)))
            }
            Ok(None) => Decision::Allow(Permit::uncounted()),
            Err(refused) => refused.into(),
        };
        Checked { decision, has_failed }
    }

    /// Charges a call that is known to have been allowed, ignoring its rules. Returns `None` if it
    /// cannot be counted or there is no room.
    #[cfg(feature = "replay")]
    fn charge(self: &Arc<Self>, call: &ToolCall<'_>, now: Timestamp) -> Option<Permit> {
        let policy = self.policy.as_ref()?;
        let mut plan = Plan::default();
        policy.evaluate(call, now).plan(call, now, &mut plan).ok()?;
        let id = ReservationId::next();
        let request = crate::store::ReserveRequest::new(id, now, &plan.charges);
        match self.parts.store.reserve(&request).ok()? {
            Outcome::Granted(tallies) if tallies.len() == plan.charges.len() => {
                let backend = Arc::clone(self) as _;
                Some(Permit::counted(Reservation::new(backend, id, plan, tallies)))
            }
            Outcome::Granted(_) | Outcome::Refused(_) => None,
        }
    }
}

fn require(evaluation: &CallEvaluation<'_>, plan: &Plan, tallies: Option<Tallies>, approval: KnownApproval) -> Refused {
    match approval {
        KnownApproval::Unknown => {
            let cause = ApprovalError::unavailable("it is not known whether the call was approved");
            return evaluation.without_approvals(cause);
        }
        KnownApproval::Refused => return evaluation.refused_by_person(None),
        KnownApproval::Yes | KnownApproval::No => {}
    }
    evaluation.require_approval(tallies.map_or_else(Vec::new, |tallies| evaluation.states(plan, &tallies)), None, None)
}

#[cfg(feature = "replay")]
impl<S: CounterStore + 'static> super::Gate<S> {
    /// Decides a call now, with the known answer to its request for approval.
    pub(crate) fn check_known(&self, call: &ToolCall<'_>, approval: KnownApproval) -> Decision {
        self.in_force().decide_known(call, self.now(), approval).decision
    }

    /// Charges a call that is known to have been allowed.
    pub(crate) fn charge(&self, call: &ToolCall<'_>) -> Option<Permit> {
        self.in_force().charge(call, self.now())
    }
}

#[cfg(feature = "replay")]
#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Gate;
    use super::*;
    use crate::charge::{CounterId, Subject};
    use crate::policy::{Code, Policy};
    use crate::store::{MemoryStore, ReserveRequest, SettleRequest, StoreError};

    /// A store whose answers leave out every counter.
    struct Silent;

    impl CounterStore for Silent {
        fn reserve(&self, _: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
            Ok(Outcome::Granted(Tallies::new()))
        }
        fn peek(&self, _: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
            Ok(Outcome::Granted(Tallies::new()))
        }
        fn settle(&self, _: &SettleRequest<'_>) -> Result<(), StoreError> {
            Ok(())
        }
        fn reset(&self, _: CounterId, _: &Subject) -> Result<(), StoreError> {
            Ok(())
        }
    }

    fn policy() -> Policy {
        let limit = json!({ "counter": "c", "window": "day", "max": 2, "scope": "global" });
        let entry = json!({ "action": "deny", "limits": [limit] });
        Policy::from_json(&json!({ "version": "1", "default": "deny", "tools": { "t": entry } }).to_string()).unwrap()
    }

    #[test]
    fn charges_allowed_calls_while_there_is_room_ignoring_rules() {
        let call = ToolCall::new("t", None::<&Value>);
        let gate = Gate::builder().policy(policy()).store(MemoryStore::new()).build();
        let charged = [(); 3].map(|()| gate.charge(&call));
        assert_eq!(charged.each_ref().map(Option::is_some), [true, true, false]);
        assert_eq!(charged[1].as_ref().unwrap().limits()[0].used().micros(), 2_000_000);
        assert!(Gate::builder().policy(policy()).store(Silent).build().charge(&call).is_none());
        gate.replace_policy(None);
        assert!(gate.charge(&call).is_none());
    }

    #[test]
    fn nothing_passes_without_a_policy_or_a_complete_answer() {
        let call = ToolCall::new("t", None::<&Value>);
        let code = |gate: &Gate<Silent>, approval| gate.check_known(&call, approval).code();
        let limit = json!({ "counter": "c", "window": "day", "max": 2, "scope": "global" });
        let asking = |entry: Value| {
            let document = json!({ "version": "1", "default": "deny", "tools": { "t": entry } });
            Gate::builder().policy(Policy::try_from(&document).unwrap()).store(Silent).build()
        };
        let counted = asking(json!({ "limits": [limit], "action": "require_approval" }));
        for approval in [KnownApproval::Yes, KnownApproval::No, KnownApproval::Refused, KnownApproval::Unknown] {
            assert_eq!(code(&counted, approval), Some(Code::StoreUnavailable), "{approval:?}");
        }
        let free = asking(json!({ "action": "require_approval" }));
        for (approval, want) in [
            (KnownApproval::Yes, None),
            (KnownApproval::No, Some(Code::Approval)),
            (KnownApproval::Refused, Some(Code::ApprovalRefused)),
            (KnownApproval::Unknown, Some(Code::StoreUnavailable)),
        ] {
            assert_eq!(code(&free, approval), want, "{approval:?}");
        }
        free.replace_policy(None);
        assert_eq!(code(&free, KnownApproval::Yes), Some(Code::NoPolicy));
    }
}
