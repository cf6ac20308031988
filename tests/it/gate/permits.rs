//! Permits: dropped, ended, released and settled.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use toolgate::charge::{CounterId, Subject};
use toolgate::store::{CounterStore, InProcess, MemoryStore, Outcome, ReserveRequest, SettleRequest, StoreError};
use toolgate::{
    Amount, AsyncGate, AsyncPermit, Code, Decision, Gate, LimitState, ManualClock, Permit, Policy, RenewError,
    SettleError, ToolCall,
};

use toolgate::trace::FaultStore;

use crate::polling::ready;

pub(super) fn policy(tools: &Value) -> Policy {
    let document = json!({ "version": "1", "default": "deny", "tools": tools });
    Policy::try_from(&document).unwrap_or_else(|error| panic!("{error}"))
}

fn limited(limits: &Value) -> Policy {
    policy(&json!({ "t": { "limits": limits } }))
}

pub(super) fn clock() -> ManualClock {
    ManualClock::new("2026-01-15T10:30:00Z".parse().unwrap())
}

pub(super) fn gate(limits: &Value) -> (Gate<Arc<FaultStore>>, Arc<FaultStore>, ManualClock) {
    let (store, clock) = (Arc::new(FaultStore::default()), clock());
    let builder = Gate::builder().policy(limited(limits)).store(Arc::clone(&store));
    (builder.clock(clock.clone()).build(), store, clock)
}

pub(super) fn call() -> ToolCall<'static> {
    ToolCall::new("t", None::<&Value>).grant("g")
}

pub(super) fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

pub(super) fn permit<P: std::fmt::Debug>(decision: Decision<P>) -> P {
    match decision {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    }
}

/// Returns the used amounts as whole numbers.
fn used(states: &[LimitState]) -> Vec<u64> {
    states.iter().map(|state| state.used().micros() / 1_000_000).collect()
}

fn flight_and_spend() -> Value {
    json!([
        { "counter": "flight", "window": "in_flight", "max": 1, "scope": "grant" },
        { "counter": "spend", "window": "day", "max": 100, "scope": "grant", "amount_from": "args.amount" },
    ])
}

#[test]
fn every_end_of_a_permit_frees_its_units_in_flight() {
    let arguments = json!({ "amount": 10 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let ways: [(fn(Permit), u64); 5] = [
        (drop, 10),
        (Permit::end, 10),
        (Permit::release, 0),
        (|permit| permit.try_release().unwrap(), 0),
        (|mut permit| permit.settle(Amount::ONE).unwrap(), 1),
    ];
    for (way, spent) in ways {
        let (gate, ..) = gate(&flight_and_spend());
        let held = permit(gate.check(&call));
        assert_eq!(gate.check(&call).code(), Some(Code::Limit));
        way(held);
        assert_eq!(used(&gate.usage(call).unwrap()), [0, spent]);
    }
    // A forgotten permit is freed by its lease.
    let (gate, _, clock) = gate(&flight_and_spend());
    std::mem::forget(gate.check(&call));
    let Decision::RateLimit(limited) = gate.check(&call) else { panic!("it is still held") };
    assert_eq!((limited.retry_after(), limited.waits_for_calls()), (None, true));
    clock.advance(Duration::from_secs(300));
    assert!(gate.check(&call).is_allowed());
}

#[test]
fn a_settled_call_stays_in_flight_and_keeps_its_amount() {
    let arguments = json!({ "amount": 10 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let (gate, ..) = gate(&flight_and_spend());
    let mut held = permit(gate.check(&call));
    held.settle(amount("3")).unwrap();
    assert!(held.is_settled());
    assert_eq!(used(&gate.usage(call).unwrap()), [1, 3]);
    assert!(matches!(held.settle(amount("2")), Err(SettleError::AlreadySettled)));
    assert_eq!(used(&held.limits()), [1, 10], "the limits at the time of the charge");
    held.try_release().unwrap();
    assert_eq!(used(&gate.usage(call).unwrap()), [0, 3]);
}

/// A permit without charges has one real amount too.
#[test]
fn a_permit_without_limits_is_settled_once() {
    let (gate, store, _) = gate(&json!([]));
    let mut held = permit(gate.check(&call()));
    assert!(!held.is_settled());
    store.set_down(true);
    held.settle(Amount::ONE).unwrap();
    assert!(held.is_settled());
    assert!(matches!(held.settle(Amount::ONE), Err(SettleError::AlreadySettled)));
    held.try_release().unwrap();
}

#[test]
fn a_failed_settlement_leaves_the_permit_unchanged() {
    let arguments = json!({ "amount": 10 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let (gate, store, _) = gate(&flight_and_spend());
    let mut held = permit(gate.check(&call));
    store.set_down(true);
    let error = held.settle(amount("3")).unwrap_err();
    let SettleError::Store(StoreError::Unavailable { source, .. }) = error else { panic!("{error}") };
    assert_eq!(source.to_string(), "switched off");
    assert!(!held.is_settled());
    store.set_down(false);
    assert_eq!(used(&gate.usage(call).unwrap()), [1, 10]);
    held.settle(amount("4")).unwrap();
    assert_eq!(used(&gate.usage(call).unwrap()), [1, 4]);
    // A release that fails leaves the amount spent, and the unit in flight until its lease ends.
    store.set_down(true);
    assert!(held.try_release().is_err());
    store.set_down(false);
    assert_eq!(used(&gate.usage(call).unwrap()), [1, 4]);
}

/// A store that records settlements and fails them.
#[derive(Default)]
struct FailsSettlements {
    counters: MemoryStore,
    asked: Mutex<Vec<(u128, u32, usize)>>,
}

impl CounterStore for FailsSettlements {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.counters.reserve(request)
    }
    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.counters.peek(request)
    }
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        self.asked.lock().push((request.id.get(), request.step, request.charges.len()));
        Err(StoreError::unavailable("down"))
    }
    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        self.counters.reset(counter, subject)
    }
}

/// A store whose replies can be lost carries out each step once, by its number. The end of a call
/// needs another number than its settlement; a release after a settlement of unknown outcome needs
/// the same one.
#[test]
fn settlement_and_end_have_different_step_numbers() {
    let arguments = json!({ "amount": 10 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let store = Arc::new(FailsSettlements::default());
    let asked = |what: fn(Permit)| {
        let policy = limited(&flight_and_spend());
        let gate = Gate::builder().policy(policy).store(Arc::clone(&store)).clock(clock()).build();
        let held = permit(gate.check(&call));
        gate.reset_counter("flight", call, "ops").unwrap();
        what(held);
        let asked = std::mem::take(&mut *store.asked.lock());
        assert!(asked.iter().all(|(id, ..)| *id == asked[0].0), "all steps are of one reservation");
        asked.into_iter().map(|(_, step, charges)| (step, charges)).collect::<Vec<_>>()
    };
    assert_eq!(asked(drop), [(2, 1)]);
    assert_eq!(asked(Permit::release), [(1, 2)]);
    let settle_and_drop = asked(|mut permit| {
        permit.settle(Amount::ONE).unwrap_err();
        permit.settle(Amount::ONE).unwrap_err();
    });
    assert_eq!(settle_and_drop, [(1, 1), (1, 1), (2, 1)]);
    let settle_and_release = asked(|mut permit| {
        permit.settle(Amount::ONE).unwrap_err();
        permit.release();
    });
    assert_eq!(settle_and_release, [(1, 1), (1, 2)]);
}

/// A unit whose amount is read from the call can be 0 at first.
#[test]
fn a_unit_in_flight_can_grow_from_zero() {
    let limits = json!([{ "counter": "rows", "window": "in_flight", "max": 5, "scope": "grant",
                          "amount_from": "args.rows", "lease": "1m" }]);
    let (gate, _, clock) = gate(&limits);
    let (nothing, one) = (json!({ "rows": 0 }), json!({ "rows": 1 }));
    let [nothing, one] = [&nothing, &one].map(|arguments| ToolCall::new("t", arguments).grant("g"));
    let mut held = permit(gate.check(&nothing));
    held.settle(amount("5")).unwrap();
    assert_eq!(used(&gate.usage(one).unwrap()), [5]);
    assert_eq!(gate.check(&one).as_str(), "rate_limited");
    held.end();
    let mut held = permit(gate.check(&nothing));
    clock.advance(Duration::from_secs(60));
    held.settle(amount("5")).unwrap();
    assert!(gate.check(&one).is_allowed(), "an expired lease holds nothing");
}

type RemoteGate = AsyncGate<InProcess<MemoryStore>>;

fn async_gate(limits: &Value) -> (RemoteGate, ManualClock) {
    let clock = clock();
    let builder = Gate::builder().policy(limited(limits)).store_async(InProcess(MemoryStore::new()));
    (builder.clock(clock.clone()).build(), clock)
}

fn finished(what: impl Future<Output = Result<(), StoreError>>) {
    ready(what).unwrap();
}

#[test]
fn an_async_permit_releases_settles_and_ends() {
    let arguments = json!({ "amount": 10 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let settled = |mut permit: AsyncPermit| {
        assert!(!permit.is_settled());
        ready(permit.settle(amount("3"))).unwrap();
        assert!(permit.is_settled());
        assert!(matches!(ready(permit.settle(amount("3"))), Err(SettleError::AlreadySettled)));
        permit
    };
    let ways: [(&dyn Fn(AsyncPermit), u64); 6] = [
        (&drop, 10),
        (&|permit| finished(permit.end()), 10),
        (&|permit| finished(permit.release()), 0),
        (&|permit| drop(permit.release()), 10),
        (&|permit| drop(settled(permit)), 3),
        (&|permit| finished(settled(permit).release()), 3),
    ];
    for (number, (way, spent)) in ways.into_iter().enumerate() {
        let (gate, _) = async_gate(&flight_and_spend());
        let held = permit(ready(gate.check(&call)));
        assert_eq!(used(&held.limits()), [1, 10]);
        let refused = ready(gate.check(&call));
        assert_eq!((refused.as_str(), refused.retry_after()), ("rate_limited", None));
        assert_eq!(ready(gate.would_allow(&[call])).unwrap_err().index(), 0);
        way(held);
        assert_eq!(used(&ready(gate.usage(&call)).unwrap()), [0, spent], "way {number}");
        assert!(ready(gate.would_allow(&[call])).is_ok());
        assert!(ready(gate.reset_counter("spend", &call, "ops")).unwrap());
        assert_eq!(used(&ready(gate.usage(&call)).unwrap()), [0, 0]);
    }
}

/// A failed end leaves the call in flight until its lease ends, so the host gets the error.
#[test]
fn a_failed_end_is_reported() {
    let store = Arc::new(FaultStore::default());
    let policy = limited(&flight_and_spend());
    let gate = Gate::builder().policy(policy).store_async(InProcess(Arc::clone(&store))).clock(clock()).build();
    let arguments = json!({ "amount": 10 });
    let mut held = permit(ready(gate.check(&ToolCall::new("t", &arguments).grant("g"))));
    store.set_down(true);
    assert!(matches!(ready(held.settle(Amount::ONE)), Err(SettleError::Store(_))));
    assert!(ready(held.end()).is_err());
}

#[test]
fn an_async_gate_decides_calls_without_limits() {
    let (gate, _) = async_gate(&json!([]));
    let mut held = permit(ready(gate.check(&call())));
    assert!(held.limits().is_empty());
    ready(held.settle(Amount::ONE)).unwrap();
    assert!(matches!(ready(held.settle(Amount::ONE)), Err(SettleError::AlreadySettled)));
    finished(held.end());
    assert!(ready(permit(ready(gate.check(&call()))).release()).is_ok());
    let denied = ready(gate.check(&ToolCall::new("other", None::<&Value>)));
    assert_eq!(denied.code(), Some(Code::DefaultDeny));
    assert!(ready(gate.would_allow(&[call(), call()])).is_ok());
    gate.replace_policy(None);
    assert_eq!(ready(gate.check(&call())).code(), Some(Code::NoPolicy));
    assert!(ready(gate.explain(&call())).unwrap().to_string().contains("no_policy"));
    assert!(ready(gate.usage(&call())).unwrap().is_empty());
    assert!(!ready(gate.reset_counter("spend", &call(), "ops")).unwrap());
}

/// Only limits of the named counters let calls pass while the store fails.
#[test]
fn calls_pass_uncounted_where_the_host_allows_it() {
    let limit = |counter: &str| json!({ "counter": counter, "window": "day", "max": 1, "scope": "grant" });
    let tools = json!({
        "cheap": { "limits": [limit("cheap")] },
        "dear": { "limits": [limit("cheap"), limit("dear")] },
        "asks": { "limits": [limit("cheap")], "action": "require_approval" },
        "rated": { "rate_limit": { "max": 1, "window": 60, "scope": "grant" } },
    });
    let store = Arc::new(FaultStore::default());
    let builder = Gate::builder().policy(policy(&tools)).store(Arc::clone(&store)).clock(clock());
    let gate = builder.pass_uncounted("cheap").pass_uncounted("rated_rate").build();
    let call = |tool| ToolCall::new(tool, None::<&Value>).grant("g");
    store.set_down(true);
    for _ in 0..3 {
        let mut held = permit(gate.check(&call("cheap")));
        assert!(held.limits().is_empty());
        held.settle(Amount::ONE).unwrap();
        assert!(gate.check(&call("rated")).is_allowed());
    }
    let denied = gate.check(&call("dear"));
    assert_eq!((denied.code(), denied.rule()), (Some(Code::StoreUnavailable), Some("/tools/dear/limits/1")));
    assert_eq!(gate.check(&call("asks")).as_str(), "approval_required");
    let unnamed = ToolCall::new("cheap", None::<&Value>);
    assert_eq!(gate.check(&unnamed).code(), Some(Code::ScopeMissing), "the store was never asked");
    assert!(gate.would_allow(&[call("cheap"), call("cheap")]).is_ok());
    assert_eq!(gate.would_allow(&[call("cheap"), call("dear")]).unwrap_err().index(), 1);
    assert_eq!(gate.would_allow(&[call("cheap"), call("asks")]).unwrap_err().decision().code(), Some(Code::Approval));
    let remote = Gate::builder().policy(policy(&tools)).store_async(InProcess(Arc::clone(&store))).clock(clock());
    let remote = remote.pass_uncounted("cheap").build();
    assert!(permit(ready(remote.check(&call("cheap")))).limits().is_empty());
    assert_eq!(ready(remote.check(&call("dear"))).code(), Some(Code::StoreUnavailable));
    store.set_down(false);
    assert!(gate.check(&call("cheap")).is_allowed(), "the uncounted calls were not counted");
    assert_eq!(gate.check(&call("cheap")).code(), Some(Code::Limit));
}

#[test]
fn a_renewed_lease_holds_until_its_new_end() {
    let limits = json!([{ "counter": "flight", "window": "in_flight", "max": 1, "scope": "grant" }]);
    let ((gate, _, clock), call) = (gate(&limits), call());
    let mut held = permit(gate.check(&call));
    for _ in 0..3 {
        clock.advance(Duration::from_secs(200));
        let end = held.renew().unwrap().unwrap();
        assert_eq!(end, toolgate::Clock::now(&clock).saturating_add(Duration::from_secs(300)));
        assert_eq!(gate.check(&call).as_str(), "rate_limited");
    }
    held.end();
    let mut held = permit(gate.check(&call));
    clock.advance(Duration::from_secs(300));
    assert!(matches!(held.renew(), Err(RenewError::LeaseEnded)));
    let other = permit(gate.check(&call));
    assert!(matches!(held.renew(), Err(RenewError::LeaseEnded)), "another call has its room");
    drop(held);
    assert_eq!(gate.check(&call).as_str(), "rate_limited");
    drop(other);
}

#[test]
fn a_stream_raises_its_charge_and_settles_once() {
    let limits = json!([{ "counter": "spend", "window": "day", "max": 100, "scope": "grant",
                          "amount_from": "args.estimate" }]);
    let (gate, _, _) = gate(&limits);
    let arguments = json!({ "estimate": 10 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let mut held = permit(gate.check(&call));
    for (so_far, charged) in [("5", 10), ("30", 30), ("20", 30), ("150", 150)] {
        held.settle_so_far(amount(so_far)).unwrap();
        assert_eq!(used(&gate.usage(call).unwrap()), [charged], "{so_far}");
    }
    assert_eq!(gate.check(&call).as_str(), "rate_limited");
    held.settle(amount("70")).unwrap();
    assert!(matches!(held.settle_so_far(amount("90")), Err(SettleError::AlreadySettled)));
    assert_eq!(used(&gate.usage(call).unwrap()), [70]);
    held.release();
    assert_eq!(used(&gate.usage(call).unwrap()), [70]);
    // A call that was not made in the end gives all of it back.
    let mut held = permit(gate.check(&call));
    held.settle_so_far(amount("20")).unwrap();
    held.release();
    assert_eq!(used(&gate.usage(call).unwrap()), [70]);
}

/// Does each step of a reservation once, as a store that answers repeated requests by its records.
#[derive(Default)]
struct OnceEach {
    store: FaultStore,
    done: Mutex<Vec<u32>>,
}

impl CounterStore for OnceEach {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.store.reserve(request)
    }
    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.store.peek(request)
    }
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        let mut done = self.done.lock();
        if !done.contains(&request.step) {
            self.store.settle(request)?;
            done.push(request.step);
        }
        Ok(())
    }
    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        self.store.reset(counter, subject)
    }
}

/// The request that is repeated keeps its number, whatever was settled in between.
#[test]
fn a_renewal_that_was_lost_is_repeated_as_itself() {
    let limits = json!([{ "counter": "flight", "window": "in_flight", "max": 1, "scope": "grant" },
                        { "counter": "spend", "window": "day", "max": 100, "scope": "grant",
                          "amount_from": "args.estimate" }]);
    let (store, clock, arguments) = (Arc::new(OnceEach::default()), clock(), json!({ "estimate": 1 }));
    let gate = Gate::builder().policy(limited(&limits)).store(Arc::clone(&store)).clock(clock.clone()).build();
    let call = ToolCall::new("t", &arguments).grant("g");
    let mut held = permit(gate.check(&call));
    clock.advance(Duration::from_secs(200));
    store.store.set_down(true);
    assert!(matches!(held.renew(), Err(RenewError::Store(_))));
    store.store.set_down(false);
    held.settle_so_far(amount("5")).unwrap();
    let end = held.renew().unwrap().unwrap();
    assert_eq!(end, toolgate::Clock::now(&clock).saturating_add(Duration::from_secs(300)));
    clock.advance(Duration::from_secs(299));
    assert_eq!(gate.check(&call).as_str(), "rate_limited");
    held.end();
    assert!(gate.check(&call).is_allowed());
}
