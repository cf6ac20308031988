//! Approvals with stores that fail, calls that are overtaken, and callers that go away.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use toolgate::approval::{
    Approval, ApprovalError, ApprovalId, ApprovalState, ApprovalStore, Ask, AsyncApprovalStore, Claim, DecideError,
    MemoryApprovals, Redemption, Verdict,
};
use toolgate::charge::{CounterId, Subject};
use toolgate::store::{
    CounterStore, InProcess, MemoryStore, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError,
    StoreFuture,
};
use toolgate::{Code, Decision, Gate, ManualClock, Timestamp};

use super::{START, allowed, asked, builder, call, policy};
use crate::polling::{poll_once, ready};

/// A store whose claims can fail or lose a race, and which can fail to restore an approval.
#[derive(Default)]
struct Failing {
    approvals: MemoryApprovals,
    claims_fail: AtomicBool,
    claims_lose: AtomicBool,
    restores_fail: AtomicBool,
}

impl ApprovalStore for Failing {
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError> {
        self.approvals.request(ask, now)
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError> {
        self.approvals.decide(id, verdict, by, now)
    }

    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        if self.claims_fail.load(Ordering::Relaxed) {
            return Err(ApprovalError::unavailable("down"));
        }
        if self.claims_lose.load(Ordering::Relaxed) { Ok(None) } else { self.approvals.claim(id, now) }
    }

    fn refusal(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Option<Approval>, ApprovalError> {
        self.approvals.refusal(ask, now)
    }

    fn redeem(
        &self,
        id: &ApprovalId,
        uses: u32,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Redemption, ApprovalError> {
        self.approvals.redeem(id, uses, until, now)
    }

    fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        if self.restores_fail.load(Ordering::Relaxed) {
            return Err(ApprovalError::unavailable("down"));
        }
        self.approvals.restore(claim, now)
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        self.approvals.pending(now)
    }
}

#[test]
fn a_failed_claim_allows_no_call_and_counts_nothing() {
    let approvals = Arc::new(Failing::default());
    let limits = json!([
        { "counter": "n", "window": "day", "max": 1, "scope": "grant" },
        { "counter": "runs", "window": "in_flight", "max": 1, "scope": "grant" },
    ]);
    let gate = builder(&json!({ "limits": limits })).0.approvals(Arc::clone(&approvals)).build();
    let arguments = json!({});
    gate.approve(asked(gate.check(&call(&arguments))).id(), "ann").unwrap();
    approvals.claims_fail.store(true, Ordering::Relaxed);
    assert_eq!(gate.check(&call(&arguments)).code(), Some(Code::StoreUnavailable));
    approvals.claims_fail.store(false, Ordering::Relaxed);
    approvals.claims_lose.store(true, Ordering::Relaxed);
    assert_eq!(asked(gate.check(&call(&arguments))).state(), ApprovalState::Approved);
    approvals.claims_lose.store(false, Ordering::Relaxed);
    for state in gate.usage(call(&arguments)).unwrap() {
        assert_eq!(state.used().to_string(), "0", "{}", state.counter());
    }
    allowed(gate.check(&call(&arguments))).end();
}

/// The release reports the error. The charge is released all the same, and the approval stays used.
#[test]
fn an_approval_that_cannot_be_restored_stays_used() {
    let limits = json!([{ "counter": "n", "window": "day", "max": 1, "scope": "grant" }]);
    let approvals = Arc::new(Failing::default());
    let gate = builder(&json!({ "limits": limits })).0.approvals(Arc::clone(&approvals));
    let gate = gate.store_async(InProcess(MemoryStore::new())).build();
    let arguments = json!({});
    let check = || ready(gate.check(&call(&arguments)));
    let pass = || {
        let Decision::RequireApproval(request) = check() else { panic!("the call needs approval") };
        ready(gate.approve(request.approval().unwrap().id(), "ann")).unwrap();
        match check() {
            Decision::Allow(permit) => permit,
            other => panic!("{other:?}"),
        }
    };
    let permit = pass();
    approvals.restores_fail.store(true, Ordering::Relaxed);
    assert!(matches!(ready(permit.release()), Err(StoreError::Unavailable { .. })));
    approvals.restores_fail.store(false, Ordering::Relaxed);
    let permit = pass();
    assert_eq!(permit.limits()[0].used().to_string(), "1", "the unit of the first call was released");
    ready(permit.release()).unwrap();
    assert!(check().is_allowed(), "the approval was restored");
}

#[tokio::test]
async fn approvals_work_with_an_async_counter_store() {
    let limits = json!([{ "counter": "n", "window": "day", "max": 1, "scope": "grant" }]);
    let clock = ManualClock::new(START);
    let builder = Gate::builder().policy(policy(&json!({ "limits": limits }))).clock(clock.clone());
    let gate = builder.store_async(InProcess(MemoryStore::new())).build();
    let arguments = json!({});
    fn spawnable<F: Future + Send>(future: F) -> F {
        future
    }
    let Decision::RequireApproval(request) = spawnable(gate.check(&call(&arguments))).await else {
        panic!("the call needs approval")
    };
    let id = *request.approval().unwrap().id();
    gate.approve(&id, "ann").await.unwrap();
    let Decision::Allow(permit) = gate.check(&call(&arguments)).await else { panic!("the call is approved") };
    permit.release().await.unwrap();
    let Decision::Allow(permit) = gate.check(&call(&arguments).approval(&id)).await else {
        panic!("the approval was restored")
    };
    permit.end().await.unwrap();
    assert_eq!(gate.check(&call(&arguments)).await.as_str(), "rate_limited");
}

/// A store in which another call takes the last unit between the preview and the first charge.
#[derive(Default)]
struct Overtaken {
    store: MemoryStore,
    is_taken: AtomicBool,
}

impl CounterStore for Overtaken {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        if !self.is_taken.swap(true, Ordering::Relaxed) {
            self.store.reserve(&ReserveRequest::new(ReservationId::new(1), request.now, request.charges))?;
        }
        self.store.reserve(request)
    }
    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.store.peek(request)
    }
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        self.store.settle(request)
    }
    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        self.store.reset(counter, subject)
    }
}

#[tokio::test]
async fn an_approved_call_that_is_overtaken_keeps_its_approval() {
    let limits = json!([{ "counter": "n", "window": "day", "max": 1, "scope": "grant" }]);
    let arguments = json!({});
    let call = call(&arguments);
    let gate = builder(&json!({ "limits": limits })).0.store(Overtaken::default()).build();
    gate.approve(asked(gate.check(&call)).id(), "ann").unwrap();
    assert_eq!(gate.check(&call).as_str(), "rate_limited");
    assert!(gate.reset_counter("n", call, "ops").unwrap());
    assert!(gate.check(&call).is_allowed());

    let gate = builder(&json!({ "limits": limits })).0.store_async(InProcess(Overtaken::default())).build();
    let Decision::RequireApproval(request) = gate.check(&call).await else { panic!("the call needs approval") };
    gate.approve(request.approval().unwrap().id(), "ann").await.unwrap();
    assert_eq!(gate.check(&call).await.as_str(), "rate_limited");
    assert!(gate.reset_counter("n", &call, "ops").await.unwrap());
    assert!(gate.check(&call).await.is_allowed());
}

/// A store that never answers a claim.
#[derive(Default)]
struct Silent(InProcess<MemoryApprovals>);

impl AsyncApprovalStore for Silent {
    fn request<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> StoreFuture<'a, Approval, ApprovalError> {
        self.0.request(ask, now)
    }
    fn decide<'a>(
        &'a self,
        id: &'a ApprovalId,
        verdict: Verdict,
        by: &'a str,
        now: Timestamp,
    ) -> StoreFuture<'a, Approval, DecideError> {
        self.0.decide(id, verdict, by, now)
    }
    fn claim<'a>(&'a self, _: &'a ApprovalId, _: Timestamp) -> StoreFuture<'a, Option<Claim>, ApprovalError> {
        Box::pin(pending())
    }
    fn refusal<'a>(&'a self, _: &'a Ask<'a>, _: Timestamp) -> StoreFuture<'a, Option<Approval>, ApprovalError> {
        Box::pin(pending())
    }

    fn redeem<'a>(
        &'a self,
        _: &'a ApprovalId,
        _: u32,
        _: Timestamp,
        _: Timestamp,
    ) -> StoreFuture<'a, Redemption, ApprovalError> {
        Box::pin(pending())
    }
    fn restore<'a>(&'a self, claim: &'a Claim, now: Timestamp) -> StoreFuture<'a, bool, ApprovalError> {
        self.0.restore(claim, now)
    }
    fn pending(&self, now: Timestamp) -> StoreFuture<'_, Vec<Approval>, ApprovalError> {
        self.0.pending(now)
    }
}

/// A caller that goes away while its approval is claimed makes no call and holds no unit in flight.
#[tokio::test]
async fn an_abandoned_decision_leaves_nothing_in_flight() {
    let limits = json!([
        { "counter": "flight", "window": "in_flight", "max": 1, "scope": "grant" },
        { "counter": "day", "window": "day", "max": 9, "scope": "grant" },
    ]);
    let builder = builder(&json!({ "limits": limits })).0.store_async(InProcess(MemoryStore::new()));
    let gate = builder.approvals(Silent::default()).build();
    let arguments = json!({});
    let call = call(&arguments);
    let Decision::RequireApproval(request) = gate.check(&call).await else { panic!("the call needs approval") };
    gate.approve(request.approval().unwrap().id(), "ann").await.unwrap();
    assert!(poll_once(gate.check(&call)).is_none());
    let used: Vec<_> = gate.usage(&call).await.unwrap().iter().map(|limit| limit.used().to_string()).collect();
    assert_eq!(used, ["0", "1"]);
}
