//! What becomes of a permit, what a gate foresees, and how a caller's counters stand.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use toolgate::charge::{CounterId, Subject};
use toolgate::store::{CounterStore, InProcess, MemoryStore, Outcome, ReserveRequest, SettleRequest, StoreError};
use toolgate::{
    Amount, AsyncPermit, Code, Decision, Gate, LimitState, ManualClock, Permit, Policy, SettleError, ToolCall,
};

use toolgate::trace::FaultStore;

fn policy(tools: &Value) -> Policy {
    let document = json!({ "version": "1", "default": "deny", "tools": tools });
    Policy::try_from(&document).unwrap_or_else(|error| panic!("{error}"))
}

fn limited(limits: &Value) -> Policy {
    policy(&json!({ "t": { "limits": limits } }))
}

fn clock() -> ManualClock {
    ManualClock::new("2026-01-15T10:30:00Z".parse().unwrap())
}

fn gate(limits: &Value) -> (Gate<Arc<FaultStore>>, Arc<FaultStore>, ManualClock) {
    let (store, clock) = (Arc::new(FaultStore::default()), clock());
    let builder = Gate::builder().policy(limited(limits)).store(Arc::clone(&store));
    (builder.clock(clock.clone()).build(), store, clock)
}

fn call() -> ToolCall<'static> {
    ToolCall::new("t", None::<&Value>).grant("g")
}

fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

fn permit<P: std::fmt::Debug>(decision: Decision<P>) -> P {
    match decision {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    }
}

/// What the counters hold, as whole numbers.
fn used(states: &[LimitState]) -> Vec<u64> {
    states.iter().map(|state| state.used().micros() / 1_000_000).collect()
}

/// A future whose every step is there at once.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a store in the process answers at once"),
    }
}

fn flight_and_spend() -> Value {
    json!([
        { "counter": "flight", "window": "in_flight", "max": 1, "scope": "grant" },
        { "counter": "spend", "window": "day", "max": 100, "scope": "grant", "amount_from": "args.amount" },
    ])
}

#[test]
fn whatever_becomes_of_a_permit_what_is_in_flight_is_free() {
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
        assert_eq!(used(&gate.usage(&call).unwrap()), [0, spent]);
    }
    // Nobody lets go of it: the lease does.
    let (gate, _, clock) = gate(&flight_and_spend());
    std::mem::forget(gate.check(&call));
    assert_eq!(gate.check(&call).retry_after(), Some(Duration::from_secs(300)));
    clock.advance(Duration::from_secs(300));
    assert!(gate.check(&call).is_allowed());
}

#[test]
fn settling_ends_no_call_and_a_release_after_it_gives_back_no_amount() {
    let arguments = json!({ "amount": 10 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let (gate, ..) = gate(&flight_and_spend());
    let mut held = permit(gate.check(&call));
    held.settle(amount("3")).unwrap();
    assert!(held.is_settled());
    assert_eq!(used(&gate.usage(&call).unwrap()), [1, 3]);
    assert!(matches!(held.settle(amount("2")), Err(SettleError::AlreadySettled)));
    assert_eq!(used(&held.limits()), [1, 10], "the limits as they stood when the call was charged");
    held.try_release().unwrap();
    assert_eq!(used(&gate.usage(&call).unwrap()), [0, 3]);
}

/// Also a permit that nothing counts has one real amount.
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
fn a_settlement_that_fails_leaves_the_permit_as_it_is() {
    let arguments = json!({ "amount": 10 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let (gate, store, _) = gate(&flight_and_spend());
    let mut held = permit(gate.check(&call));
    store.set_down(true);
    let error = held.settle(amount("3")).unwrap_err();
    assert!(matches!(error, SettleError::Store(StoreError::Unavailable(None))), "{error}");
    assert!(!held.is_settled());
    store.set_down(false);
    assert_eq!(used(&gate.usage(&call).unwrap()), [1, 10]);
    held.settle(amount("4")).unwrap();
    assert_eq!(used(&gate.usage(&call).unwrap()), [1, 4]);
    // What the store does not hear of stays spent, and in flight until the lease ends.
    store.set_down(true);
    assert!(held.try_release().is_err());
    store.set_down(false);
    assert_eq!(used(&gate.usage(&call).unwrap()), [1, 4]);
}

/// Writes down which settlements it was asked for, and says that it could not make them.
#[derive(Default)]
struct Deaf {
    counters: MemoryStore,
    asked: Mutex<Vec<(u128, u32, usize)>>,
}

impl CounterStore for Deaf {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.counters.reserve(request)
    }
    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.counters.peek(request)
    }
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        self.asked.lock().push((request.id.get(), request.step, request.charges.len()));
        Err(StoreError::Unavailable(None))
    }
    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        self.counters.reset(counter, subject)
    }
}

/// A store whose replies are lost does each step once, by its number: the end of a call must not
/// look like its settlement asked for again, and a release after a settlement that may have been
/// made must.
#[test]
fn the_steps_of_a_reservation_have_numbers_of_their_own() {
    let arguments = json!({ "amount": 10 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let store = Arc::new(Deaf::default());
    let asked = |what: fn(Permit)| {
        let policy = limited(&flight_and_spend());
        let gate = Gate::builder().policy(policy).store(Arc::clone(&store)).clock(clock()).build();
        let held = permit(gate.check(&call));
        gate.reset_counter("flight", &call).unwrap();
        what(held);
        let asked = std::mem::take(&mut *store.asked.lock());
        assert!(asked.iter().all(|(id, ..)| *id == asked[0].0), "one reservation");
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

/// A unit whose amount is read from the call may begin as nothing.
#[test]
fn what_is_in_flight_grows_from_nothing() {
    let limits = json!([{ "counter": "rows", "window": "in_flight", "max": 5, "scope": "grant",
                          "amount_from": "args.rows", "lease": "1m" }]);
    let (gate, _, clock) = gate(&limits);
    let (nothing, one) = (json!({ "rows": 0 }), json!({ "rows": 1 }));
    let [nothing, one] = [&nothing, &one].map(|arguments| ToolCall::new("t", arguments).grant("g"));
    let mut held = permit(gate.check(&nothing));
    held.settle(amount("5")).unwrap();
    assert_eq!(used(&gate.usage(&one).unwrap()), [5]);
    assert_eq!(gate.check(&one).retry_after(), Some(Duration::from_secs(60)));
    held.end();
    let mut held = permit(gate.check(&nothing));
    clock.advance(Duration::from_secs(60));
    held.settle(amount("5")).unwrap();
    assert!(gate.check(&one).is_allowed(), "a lease that has run out holds nothing");
}

type AsyncGate = Gate<InProcess<MemoryStore>>;

fn async_gate(limits: &Value) -> (AsyncGate, ManualClock) {
    let clock = clock();
    let builder = Gate::builder().policy(limited(limits)).store(InProcess(MemoryStore::new()));
    (builder.clock(clock.clone()).build(), clock)
}

fn finished(what: impl Future<Output = Result<(), StoreError>>) {
    now(what).unwrap();
}

#[test]
fn an_async_permit_gives_back_settles_and_ends() {
    let arguments = json!({ "amount": 10 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let settled = |mut permit: AsyncPermit| {
        assert!(!permit.is_settled());
        now(permit.settle(amount("3"))).unwrap();
        assert!(permit.is_settled());
        assert!(matches!(now(permit.settle(amount("3"))), Err(SettleError::AlreadySettled)));
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
        let held = permit(now(gate.check_async(&call)));
        assert_eq!(used(&held.limits()), [1, 10]);
        let refused = now(gate.check_async(&call));
        assert_eq!((refused.as_str(), refused.retry_after()), ("rate_limited", Some(Duration::from_secs(300))));
        assert_eq!(now(gate.would_allow_async(&[call])).unwrap_err().index(), 0);
        way(held);
        assert_eq!(used(&now(gate.usage_async(&call)).unwrap()), [0, spent], "way {number}");
        assert!(now(gate.would_allow_async(&[call])).is_ok());
        assert!(now(gate.reset_counter_async("spend", &call)).unwrap());
        assert_eq!(used(&now(gate.usage_async(&call)).unwrap()), [0, 0]);
    }
}

/// Until a lease ends, nobody knows that the call has: a store that fails is told.
#[test]
fn an_end_that_the_store_does_not_hear_is_told() {
    let store = Arc::new(FaultStore::default());
    let policy = limited(&flight_and_spend());
    let gate = Gate::builder().policy(policy).store(InProcess(Arc::clone(&store))).clock(clock()).build();
    let arguments = json!({ "amount": 10 });
    let mut held = permit(now(gate.check_async(&ToolCall::new("t", &arguments).grant("g"))));
    store.set_down(true);
    assert!(matches!(now(held.settle(Amount::ONE)), Err(SettleError::Store(_))));
    assert!(now(held.end()).is_err());
}

#[test]
fn an_async_gate_answers_calls_that_nothing_counts() {
    let (gate, _) = async_gate(&json!([]));
    let mut held = permit(now(gate.check_async(&call())));
    assert!(held.limits().is_empty());
    now(held.settle(Amount::ONE)).unwrap();
    assert!(matches!(now(held.settle(Amount::ONE)), Err(SettleError::AlreadySettled)));
    finished(held.end());
    assert!(now(permit(now(gate.check_async(&call()))).release()).is_ok());
    let denied = now(gate.check_async(&ToolCall::new("other", None::<&Value>)));
    assert_eq!(denied.code(), Some(Code::DefaultDeny));
    assert!(now(gate.would_allow_async(&[call(), call()])).is_ok());
    gate.replace_policy(None);
    assert_eq!(now(gate.check_async(&call())).code(), Some(Code::NoPolicy));
    assert!(now(gate.explain_async(&call())).unwrap().to_string().contains("no_policy"));
    assert!(now(gate.usage_async(&call())).unwrap().is_empty());
    assert!(!now(gate.reset_counter_async("spend", &call())).unwrap());
}

/// The limits of one counter let calls pass when the store fails; no other limit does.
#[test]
fn calls_pass_uncounted_where_the_host_says_so() {
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
    let remote = Gate::builder().policy(policy(&tools)).store(InProcess(Arc::clone(&store))).clock(clock());
    let remote = remote.pass_uncounted("cheap").build();
    assert!(permit(now(remote.check_async(&call("cheap")))).limits().is_empty());
    assert_eq!(now(remote.check_async(&call("dear"))).code(), Some(Code::StoreUnavailable));
    store.set_down(false);
    assert!(gate.check(&call("cheap")).is_allowed(), "what passed uncounted was not counted");
    assert_eq!(gate.check(&call("cheap")).code(), Some(Code::Limit));
}

fn found(found: &Result<(), Box<toolgate::FirstRefusal>>) -> (usize, &str, Option<&str>) {
    let found = found.as_ref().unwrap_err();
    (found.index(), found.decision().as_str(), found.decision().rule())
}

#[test]
fn foresight_at_its_edges() {
    let limit = |max: u32, scope: &str| json!({ "counter": format!("by {scope}"), "window": "minute", "max": max, "scope": scope });
    let tools = json!({
        "t": { "limits": [limit(2, "grant")] },
        "all": { "limits": [limit(3, "global"), limit(2, "grant")] },
        "ask": { "action": "require_approval", "limits": [limit(2, "grant")] },
        "free": {},
    });
    let store = Arc::new(FaultStore::default());
    let gate = Gate::builder().policy(policy(&tools)).store(Arc::clone(&store)).clock(clock()).build();
    let by = |tool, grant: &'static str| ToolCall::new(tool, None::<&Value>).grant(grant);
    let (t, free) = (by("t", "g"), by("free", "g"));
    assert!(gate.would_allow(&[]).is_ok());
    assert!(gate.would_allow(&[t, by("t", "h"), t, by("t", "h"), free]).is_ok(), "each has a budget of its own");
    let third = gate.would_allow(&[t, free, by("t", "h"), t, free, t]);
    assert_eq!(found(&third), (5, "rate_limited", Some("/tools/t/limits/0")));
    let shared = ["g", "g", "h", "h"].map(|grant| by("all", grant));
    assert_eq!(found(&gate.would_allow(&shared)), (3, "rate_limited", Some("/tools/all/limits/0")));
    assert_eq!(found(&gate.would_allow(&[t, by("ask", "g"), t])), (1, "approval_required", Some("/tools/ask/action")));
    let no_room = gate.would_allow(&[t, t, by("ask", "g")]);
    assert_eq!(found(&no_room), (2, "rate_limited", Some("/tools/ask/limits/0")), "nobody is asked in vain");
    let denied = gate.would_allow(&[t, by("other", "g"), by("ask", "g")]);
    assert_eq!(found(&denied), (1, "deny", Some("(default deny)")));
    let nobody = ToolCall::new("t", None::<&Value>);
    assert_eq!(found(&gate.would_allow(&[free, nobody])), (1, "deny", Some("/tools/t/limits/0")));
    // The room comes first that runs out first, also before a call that no rule lets pass.
    assert_eq!(found(&gate.would_allow(&[t, t, t, by("other", "g")])).0, 2);

    store.set_down(true);
    assert!(gate.would_allow(&[free, free]).is_ok(), "nothing has to be counted");
    assert_eq!(found(&gate.would_allow(&[free, t])), (1, "deny", Some("/tools/t/limits/0")));
    store.set_down(false);

    gate.replace_policy(None);
    assert!(gate.would_allow(&[]).is_ok());
    assert_eq!(found(&gate.would_allow(&[t])), (0, "deny", Some("(no policy)")));
}

/// The wait of the first obstacle is for all calls up to it, together.
#[test]
fn foresight_waits_for_all_calls_together() {
    // So many calls ten seconds ago and so many now, and then so many more.
    let waits = |limit: Value, [before, now, more]: [usize; 3]| {
        let mut limit = limit;
        (limit["counter"], limit["scope"], limit["max"]) = (json!("c"), json!("grant"), json!(3));
        let (gate, _, clock) = gate(&json!([limit]));
        (0..before).for_each(|_| drop(gate.check(&call())));
        clock.advance(Duration::from_secs(10));
        (0..now).for_each(|_| drop(gate.check(&call())));
        let found = gate.would_allow(&vec![call(); more]).unwrap_err();
        (found.index(), found.decision().retry_after().map(|wait| wait.as_secs()))
    };
    let minute = |algorithm: &str| json!({ "window": "minute", "algorithm": algorithm });
    assert_eq!(waits(minute("fixed"), [1, 1, 2]), (1, Some(50)));
    assert_eq!(waits(minute("sliding"), [1, 1, 2]), (1, Some(50)));
    assert_eq!(waits(minute("sliding"), [0, 1, 3]), (2, Some(60)));
    assert_eq!(waits(minute("sliding"), [1, 1, 4]), (1, Some(50)), "the first that does not pass is named");
    assert_eq!(waits(json!({ "window": 30, "algorithm": "token_bucket" }), [1, 1, 3]), (2, Some(10)));
    for algorithm in ["fixed", "sliding", "token_bucket"] {
        assert_eq!(waits(minute(algorithm), [0, 0, 4]), (3, None), "{algorithm}: four never fit");
    }
}

#[test]
fn usage_has_each_counter_of_the_caller() {
    let limit = |counter: &str, max: u32, scope: Value| json!({ "counter": counter, "window": "day", "max": max, "scope": scope });
    let tools = json!({
        "0 bare": {},
        "a": { "limits": [limit("calls", 5, json!("grant")), limit("mine", 9, json!(["grant", "args.customer"]))] },
        "b bare": {},
        "b": { "limits": [limit("calls", 5, json!("grant")), limit("calls", 3, json!("grant")), limit("user", 4, json!("user"))],
               "rate_limit": { "max": 2, "window": 60 } },
        "c": { "action": "deny", "limits": [{ "counter": "bucket", "window": 60, "max": 6, "burst": 2, "scope": "global",
                                              "algorithm": "token_bucket", "shadow": true }] },
    });
    let store = Arc::new(FaultStore::default());
    let gate = Gate::builder().policy(policy(&tools)).store(Arc::clone(&store)).clock(clock()).build();
    let lines = |caller: &ToolCall<'_>| -> Vec<(String, u64, u64, u64)> {
        let whole = |micros: u64| micros / 1_000_000;
        let line = |state: &LimitState| {
            let (used, left, max) = (state.used().micros(), state.remaining().micros(), state.max().micros());
            (state.counter().to_owned(), whole(used), whole(left), whole(max))
        };
        gate.usage(caller).unwrap().iter().map(line).collect()
    };
    let line = |counter: &str, used, left, max| (counter.to_owned(), used, left, max);
    let arguments = json!({ "customer": 7 });
    let caller = ToolCall::new("a", &arguments).grant("g");
    permit(gate.check(&caller)).limits();
    let global = line("bucket", 0, 2, 6);
    assert_eq!(lines(&caller), [line("calls", 1, 4, 5), line("mine", 1, 8, 9), line("calls", 1, 2, 3), global.clone()]);
    let user = ToolCall::new("whatever", None::<&Value>).user("u").session("s");
    assert_eq!(lines(&user), [line("user", 0, 4, 4), line("b_rate", 0, 2, 2), global.clone()]);
    assert_eq!(lines(&ToolCall::new("", None::<&Value>)), [global]);
    store.set_down(true);
    assert!(gate.usage(&caller).is_err());
    gate.replace_policy(policy(&json!({ "bare": {} })));
    assert!(gate.usage(&caller).unwrap().is_empty(), "nothing is counted, so nobody is asked");
    gate.replace_policy(None);
    assert!(gate.usage(&caller).unwrap().is_empty());
}

#[test]
fn usage_of_a_large_policy() {
    const ENTRIES: usize = 20_000;
    let limits = |number: usize| {
        let own = json!({ "counter": format!("c{number}"), "window": "day", "max": 2, "scope": "grant" });
        json!({ "limits": [own, { "counter": "all", "window": "day", "max": 1 + number % 7, "scope": "grant" }] })
    };
    let tools: Map<String, Value> = (0..ENTRIES).map(|number| (format!("t{number}"), limits(number))).collect();
    let gate = Gate::builder().policy(policy(&tools.into())).clock(clock()).build();
    assert!(gate.check(&ToolCall::new("t6", None::<&Value>).grant("g")).is_allowed());
    let usage = gate.usage(&call()).unwrap();
    assert_eq!(usage.len(), ENTRIES + 7);
    let counted = usage.iter().filter(|state| state.used().micros() > 0).map(LimitState::counter).collect::<Vec<_>>();
    assert_eq!(counted.iter().filter(|counter| **counter == "all").count(), 7);
    assert_eq!(counted.iter().filter(|counter| **counter == "c6").count(), 1);
    assert_eq!(counted.len(), 8);
}

/// Buckets of one name that differ in `max` are charged, given back and reset together.
#[test]
fn token_buckets_of_one_name() {
    let bucket = |max: u32| json!({ "limits": [{ "counter": "b", "window": "minute", "max": max, "scope": "grant", "algorithm": "token_bucket" }] });
    let clock = clock();
    let gate = Gate::builder().policy(policy(&json!({ "2": bucket(2), "6": bucket(6) }))).clock(clock.clone()).build();
    let [two, six] = ["2", "6"].map(|tool| ToolCall::new(tool, None::<&Value>).grant("g"));
    let left = || gate.usage(&two).unwrap().iter().map(LimitState::remaining).collect::<Vec<_>>();
    let first = permit(gate.check(&two));
    drop(gate.check(&six));
    assert_eq!(left(), [Amount::ZERO, amount("4")]);
    // Two come back to the one in a minute, six to the other.
    assert_eq!(gate.check(&two).retry_after(), Some(Duration::from_secs(30)));
    first.release();
    assert_eq!(left(), [Amount::ONE, amount("5")]);
    clock.advance(Duration::from_secs(10));
    assert_eq!(left(), [amount("1.333333"), amount("6")]);
    drop((gate.check(&two), gate.check(&six)));
    assert!(gate.reset_counter("b", &six).unwrap());
    assert_eq!(left(), [amount("2"), amount("6")]);
}
