//! Stores around other stores: pointers, and wrappers that also deref.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use toolgate::approval::{
    Approval, ApprovalError, ApprovalId, ApprovalStore, Ask, AsyncApprovalStore, Claim, DecideError, MemoryApprovals,
    Redemption, Verdict,
};
use toolgate::charge::{CounterId, Subject};
use toolgate::store::{
    AsyncCounterStore, CounterStore, InProcess, MemoryStore, Outcome, ReserveRequest, SettleRequest, StoreError,
    StoreFuture,
};
use toolgate::{Gate, Policy, Timestamp, ToolCall};

use crate::polling::ready;

/// Counts the requests to a store. It derefs to the store, so that its other methods can be called.
#[derive(Default)]
struct Metered<S> {
    inner: S,
    requests: AtomicUsize,
}

impl<S> Metered<S> {
    fn count(&self) -> &S {
        self.requests.fetch_add(1, Ordering::Relaxed);
        &self.inner
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl<S> Deref for Metered<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.inner
    }
}

impl<S: CounterStore> CounterStore for Metered<S> {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.count().reserve(request)
    }

    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.count().peek(request)
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        self.count().settle(request)
    }

    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        self.count().reset(counter, subject)
    }
}

impl<S: AsyncCounterStore> AsyncCounterStore for Metered<S> {
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        self.count().reserve(request)
    }

    fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        self.count().peek(request)
    }

    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()> {
        self.count().settle(request)
    }

    fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> StoreFuture<'a, ()> {
        self.count().reset(counter, subject)
    }

    fn abandon(&self, request: &SettleRequest<'_>) {
        self.count().abandon(request);
    }
}

impl<S: ApprovalStore> ApprovalStore for Metered<S> {
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError> {
        self.count().request(ask, now)
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError> {
        self.count().decide(id, verdict, by, now)
    }

    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        self.count().claim(id, now)
    }

    fn refusal(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Option<Approval>, ApprovalError> {
        self.count().refusal(ask, now)
    }

    fn redeem(
        &self,
        id: &ApprovalId,
        uses: u32,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Redemption, ApprovalError> {
        self.count().redeem(id, uses, until, now)
    }

    fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        self.count().restore(claim, now)
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        self.count().pending(now)
    }
}

impl<S: AsyncApprovalStore> AsyncApprovalStore for Metered<S> {
    fn request<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> StoreFuture<'a, Approval, ApprovalError> {
        self.count().request(ask, now)
    }

    fn decide<'a>(
        &'a self,
        id: &'a ApprovalId,
        verdict: Verdict,
        by: &'a str,
        now: Timestamp,
    ) -> StoreFuture<'a, Approval, DecideError> {
        self.count().decide(id, verdict, by, now)
    }

    fn claim<'a>(&'a self, id: &'a ApprovalId, now: Timestamp) -> StoreFuture<'a, Option<Claim>, ApprovalError> {
        self.count().claim(id, now)
    }

    fn refusal<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> StoreFuture<'a, Option<Approval>, ApprovalError> {
        self.count().refusal(ask, now)
    }

    fn redeem<'a>(
        &'a self,
        id: &'a ApprovalId,
        uses: u32,
        until: Timestamp,
        now: Timestamp,
    ) -> StoreFuture<'a, Redemption, ApprovalError> {
        self.count().redeem(id, uses, until, now)
    }

    fn restore<'a>(&'a self, claim: &'a Claim, now: Timestamp) -> StoreFuture<'a, bool, ApprovalError> {
        self.count().restore(claim, now)
    }

    fn pending(&self, now: Timestamp) -> StoreFuture<'_, Vec<Approval>, ApprovalError> {
        self.count().pending(now)
    }
}

fn policy() -> Policy {
    let limits = json!([{ "counter": "calls", "window": "minute", "max": 2, "scope": "grant" }]);
    let tools = json!({ "limited": { "limits": limits }, "asked": { "action": "require_approval" } });
    let document = json!({ "version": "1", "default": "deny", "tools": tools });
    Policy::try_from(&document).unwrap_or_else(|error| panic!("{error}"))
}

fn call(tool: &str) -> ToolCall<'_> {
    ToolCall::new(tool, None::<&Value>).grant("g")
}

#[test]
fn a_wrapper_that_derefs_is_not_bypassed() {
    let counters = Arc::new(Metered::<MemoryStore>::default());
    let approvals = Arc::new(Metered::<MemoryApprovals>::default());
    let gate = Gate::builder().policy(policy()).store(Arc::clone(&counters)).approvals(Arc::clone(&approvals)).build();
    assert!(gate.check(&call("limited")).is_allowed() && !gate.check(&call("asked")).is_allowed());
    assert_eq!((counters.requests(), approvals.requests()), (1, 1));
    // What it derefs to can still be called.
    assert_eq!(counters.len(), 1);
}

#[test]
fn an_asynchronous_wrapper_that_derefs_is_not_bypassed() {
    let counters = Arc::new(Metered { inner: InProcess(MemoryStore::new()), requests: AtomicUsize::new(0) });
    let approvals = Arc::new(Metered { inner: InProcess(MemoryApprovals::new()), requests: AtomicUsize::new(0) });
    let gate =
        Gate::builder().policy(policy()).store_async(Arc::clone(&counters)).approvals(Arc::clone(&approvals)).build();
    assert!(ready(gate.check(&call("limited"))).is_allowed());
    assert!(!ready(gate.check(&call("asked"))).is_allowed());
    assert_eq!((counters.requests(), approvals.requests()), (1, 1));
}

#[test]
fn references_boxes_and_arcs_of_stores_are_stores() {
    fn counts(store: impl CounterStore) -> bool {
        let request = ReserveRequest::new(toolgate::store::ReservationId::new(1), Timestamp::UNIX_EPOCH, &[]);
        matches!(store.reserve(&request), Ok(Outcome::Granted(_)))
    }
    fn counts_async(store: impl AsyncCounterStore) -> bool {
        let request = ReserveRequest::new(toolgate::store::ReservationId::new(1), Timestamp::UNIX_EPOCH, &[]);
        matches!(ready(store.reserve(&request)), Ok(Outcome::Granted(_)))
    }
    fn keeps(store: impl ApprovalStore) -> bool {
        store.pending(Timestamp::UNIX_EPOCH).is_ok_and(|pending| pending.is_empty())
    }
    fn keeps_async(store: impl AsyncApprovalStore) -> bool {
        ready(store.pending(Timestamp::UNIX_EPOCH)).is_ok_and(|pending| pending.is_empty())
    }
    let (counters, approvals) = (MemoryStore::new(), MemoryApprovals::new());
    assert!(counts(&counters) && counts(&counters as &dyn CounterStore));
    assert!(counts_async(InProcess(&counters)) && counts_async(&InProcess(&counters) as &dyn AsyncCounterStore));
    assert!(keeps(&approvals) && keeps(&approvals as &dyn ApprovalStore));
    assert!(keeps_async(InProcess(&approvals)) && keeps_async(&InProcess(&approvals) as &dyn AsyncApprovalStore));
    assert!(counts(Box::new(MemoryStore::new()) as Box<dyn CounterStore>));
    assert!(counts(Arc::new(MemoryStore::new()) as Arc<dyn CounterStore>));
    assert!(counts_async(Box::new(InProcess(MemoryStore::new())) as Box<dyn AsyncCounterStore>));
    assert!(counts_async(Arc::new(InProcess(MemoryStore::new())) as Arc<dyn AsyncCounterStore>));
    assert!(keeps(Box::new(MemoryApprovals::new()) as Box<dyn ApprovalStore>));
    assert!(keeps(Arc::new(MemoryApprovals::new()) as Arc<dyn ApprovalStore>));
    assert!(keeps_async(Box::new(InProcess(MemoryApprovals::new())) as Box<dyn AsyncApprovalStore>));
    assert!(keeps_async(Arc::new(InProcess(MemoryApprovals::new())) as Arc<dyn AsyncApprovalStore>));
}
