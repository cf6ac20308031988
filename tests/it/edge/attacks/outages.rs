//! Class `store_outages`: whatever fails, and at whichever step, nothing passes that should not,
//! and nothing is spent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use toolgate::approval::{ApprovalError, Ask, Claim, Verdict};
use toolgate::{
    Approval, ApprovalId, ApprovalStore, AuditError, AuditRecord, AuditSink, Code, DecideError, Decision, Gate,
    ManualClock, MemoryApprovals, Policy, Timestamp, ToolCall,
};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

fn policy() -> Policy {
    let limits = json!([{ "counter": "n", "window": "day", "max": 1, "scope": "grant" }]);
    let tools = json!({
        "t": { "limits": limits },
        "pay": { "action": "require_approval", "limits": [{ "counter": "p", "window": "day", "max": 1, "scope": "grant" }] },
        "free": {},
    });
    Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).unwrap()
}

fn call<'a>(tool: &'a str, arguments: &'a Value) -> ToolCall<'a> {
    ToolCall::new(tool, arguments).grant("g")
}

/// Approvals of which the steps from the `fails_from`th on fail, for as many as are told.
struct Failing {
    approvals: MemoryApprovals,
    step: AtomicUsize,
    fails: std::ops::Range<usize>,
}

impl Failing {
    fn step(&self) -> Result<(), ApprovalError> {
        let step = self.step.fetch_add(1, Ordering::Relaxed);
        if self.fails.contains(&step) { Err(ApprovalError::Unavailable(None)) } else { Ok(()) }
    }
}

impl ApprovalStore for Failing {
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError> {
        self.step()?;
        self.approvals.request(ask, now)
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError> {
        self.step()?;
        self.approvals.decide(id, verdict, by, now)
    }

    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        self.step()?;
        self.approvals.claim(id, now)
    }

    fn redeem(&self, id: &ApprovalId, until: Timestamp, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        self.step()?;
        self.approvals.redeem(id, until, now)
    }

    fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        self.step()?;
        self.approvals.restore(claim, now)
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        self.approvals.pending(now)
    }
}

/// Why: a store of approvals that fails between two steps must not leave a call approved that
/// nobody approved, nor let one approval be used twice. Each step of the story fails once, in its
/// turn, and for a while.
#[test]
fn approvals_that_fail_at_any_step_let_nothing_pass_twice() {
    let arguments = json!({ "to": "ann" });
    for (from, length) in (0..12).flat_map(|from| [(from, 1), (from, 2), (from, 100)]) {
        let approvals =
            Failing { approvals: MemoryApprovals::new(), step: AtomicUsize::new(0), fails: from..from + length };
        let gate = Gate::builder().policy(policy()).approvals(Arc::new(approvals)).clock(ManualClock::new(NOW)).build();
        let (mut approved, mut passed) = (0, 0);
        for _ in 0..6 {
            match gate.check(&call("pay", &arguments)) {
                Decision::Allow(permit) => {
                    passed += 1;
                    drop(permit);
                }
                Decision::RequireApproval(request) => {
                    let id = *request.approval().unwrap().id();
                    // Only the first request is answered with yes.
                    if approved == 0 && gate.approve(&id, "ann").is_ok() {
                        approved += 1;
                    }
                }
                Decision::Deny(denial) => assert_eq!(denial.code(), Code::StoreUnavailable),
                Decision::RateLimit(_) => assert!(passed > 0, "its limit is spent by a call that passed"),
            }
            assert!(passed <= approved, "from {from}, {length} steps: {passed} of {approved}");
        }
    }
}

/// A log that is full after so many records.
struct Full(AtomicUsize);

impl AuditSink for Full {
    fn record(&self, _: &AuditRecord) -> Result<(), AuditError> {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| AuditError::Io(std::io::ErrorKind::StorageFull.into()))
    }
}

/// Why: who fills the log acts unseen. Where records are required a call that cannot be recorded is
/// denied, spends nothing, and leaves its approval for a time when it can be.
#[test]
fn a_log_that_is_full_lets_nothing_pass_unseen() {
    let arguments = json!({});
    for room in 0..6 {
        let gate = Gate::builder()
            .audit(Full(AtomicUsize::new(room)))
            .require_audit()
            .policy(policy())
            .clock(ManualClock::new(NOW))
            .build();
        let passed = (0..8).filter(|_| gate.check(&call("free", &arguments)).is_allowed()).count();
        assert!(passed <= room, "{passed} calls passed, and the log had room for {room} records");
        let decision = gate.check(&call("t", &arguments));
        assert_eq!(decision.code(), Some(Code::AuditUnavailable));
        assert_eq!(gate.usage(&call("t", &arguments)).unwrap()[0].used().to_string(), "0", "it spent nothing");
    }
}
