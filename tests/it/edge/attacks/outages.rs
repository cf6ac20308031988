//! Class `store_outages`: a failure at any step allows no call that it should not, and spends
//! nothing twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use toolgate::approval::{
    Approval, ApprovalError, ApprovalId, ApprovalStore, Ask, Claim, DecideError, MemoryApprovals, Redemption, Verdict,
};
use toolgate::audit::{AuditError, AuditRecord, AuditSink};
use toolgate::{Code, Decision, Gate, ManualClock, Policy, Timestamp, ToolCall};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

fn policy() -> Policy {
    let limits = json!([{ "counter": "n", "window": "day", "max": 1, "scope": "grant" }]);
    let tools = json!({
        "t": { "limits": limits },
        "pay": { "action": "require_approval", "limits": [{ "counter": "p", "window": "day", "max": 1,
            "scope": "grant" }] },
        "free": {},
    });
    Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).unwrap()
}

fn call<'a>(tool: &'a str, arguments: &'a Value) -> ToolCall<'a> {
    ToolCall::new(tool, arguments).grant("g")
}

/// A store of approvals that fails in a range of steps.
struct Failing {
    approvals: MemoryApprovals,
    step: AtomicUsize,
    fails: std::ops::Range<usize>,
}

impl Failing {
    fn step(&self) -> Result<(), ApprovalError> {
        let step = self.step.fetch_add(1, Ordering::Relaxed);
        if self.fails.contains(&step) { Err(ApprovalError::unavailable("down")) } else { Ok(()) }
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

    fn refusal(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Option<Approval>, ApprovalError> {
        self.step()?;
        self.approvals.refusal(ask, now)
    }

    fn redeem(
        &self,
        id: &ApprovalId,
        uses: u32,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Redemption, ApprovalError> {
        self.step()?;
        self.approvals.redeem(id, uses, until, now)
    }

    fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        self.step()?;
        self.approvals.restore(claim, now)
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        self.approvals.pending(now)
    }
}

/// Why: a store that fails between two steps must neither approve a call that nobody approved, nor
/// let an approval be used twice. Each step fails in its turn, once and for longer.
#[test]
fn an_approval_is_used_once_whichever_step_fails() {
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
                    // Only the first request is approved.
                    if approved == 0 && gate.approve(&id, "ann").is_ok() {
                        approved += 1;
                    }
                }
                Decision::Deny(denial) => assert_eq!(denial.code(), Code::StoreUnavailable),
                Decision::RateLimit(_) => assert!(passed > 0, "an allowed call has spent the limit"),
            }
            assert!(passed <= approved, "from {from}, {length} steps: {passed} of {approved}");
        }
    }
}

/// A log that is full after this number of records.
struct Full(AtomicUsize);

impl AuditSink for Full {
    fn record(&self, _: &AuditRecord) -> Result<(), AuditError> {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| AuditError::Io(std::io::ErrorKind::StorageFull.into()))
    }
}

/// Why: an agent that fills the log acts unrecorded. Where records are required, a call that cannot
/// be recorded is denied, spends nothing, and leaves its approval for later.
#[test]
fn a_full_log_allows_no_unrecorded_call() {
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
        assert_eq!(gate.usage(call("t", &arguments)).unwrap()[0].used().to_string(), "0", "the call has spent nothing");
    }
}
