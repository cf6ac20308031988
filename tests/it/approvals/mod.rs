//! Approvals: requests, stores of approvals, and approvals that are signed elsewhere.

mod failures;
mod serialized;
mod signed;
pub(crate) mod suite;

use std::sync::Arc;

use serde_json::{Value, json};
use toolgate::approval::{Approval, ApprovalStore, MemoryApprovals};
use toolgate::{Decision, Gate, GateBuilder, ManualClock, Permit, Policy, Timestamp, ToolCall};

/// A Thursday morning.
const START: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

fn policy(rules: &Value) -> Policy {
    let mut rules = rules.clone();
    rules["action"] = json!("require_approval");
    Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": { "pay": rules } })).unwrap()
}

fn builder(rules: &Value) -> (GateBuilder, ManualClock) {
    let clock = ManualClock::new(START);
    (Gate::builder().policy(policy(rules)).clock(clock.clone()), clock)
}

/// The bounds of a store of approvals.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) capacity: usize,
    pub(crate) pending: usize,
    pub(crate) details: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { capacity: 10_000, pending: 100, details: 16_384 }
    }
}

/// Makes an empty store.
pub(crate) type MakeStore<'m> = &'m dyn Fn(Bounds) -> Arc<dyn ApprovalStore>;

pub(crate) fn in_memory(bounds: Bounds) -> Arc<dyn ApprovalStore> {
    let store = MemoryApprovals::with_capacity(bounds.capacity);
    Arc::new(store.pending_per_asker(bounds.pending).details_up_to(bounds.details))
}

fn gate(make: MakeStore<'_>, rules: &Value) -> (Gate, ManualClock) {
    let (builder, clock) = builder(rules);
    (builder.approvals(make(Bounds::default())).build(), clock)
}

fn call(arguments: &Value) -> ToolCall<'_> {
    ToolCall::new("pay", arguments).grant("g").agent("robot").user("ben").session("s").server("bank")
}

/// Returns the request for approval that a decision carries.
fn asked(decision: Decision) -> Approval {
    match decision {
        Decision::RequireApproval(request) => request.approval().expect("a request").clone(),
        other => panic!("{other:?}"),
    }
}

fn allowed(decision: Decision) -> Permit {
    match decision {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    }
}
