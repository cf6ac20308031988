//! Gates among threads, stores of a host's own, policies that are replaced.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolgate::charge::{CounterId, Subject};
use toolgate::store::{
    ChargeChange, CounterStore, InProcess, MemoryStore, Outcome, ReservationId, ReserveRequest, SettleRequest,
    StoreError, Tallies,
};
use toolgate::{Code, Decision, Gate, ManualClock, Policy, Timestamp, ToolCall};

use crate::gate::permits::now;

fn policy(text: &str) -> Policy {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn limited(limits: &Value) -> Policy {
    policy(&json!({ "version": "1", "default": "deny", "tools": { "t": { "limits": limits } } }).to_string())
}

fn clock() -> ManualClock {
    ManualClock::new("2026-01-15T10:30:00Z".parse().unwrap())
}

fn call() -> ToolCall<'static> {
    ToolCall::new("t", None::<&Value>).grant("g").user("u")
}

/// Hammers one gate from four threads; how often a thread was inside while another came.
fn hammer() -> usize {
    const THREADS: usize = 4;
    let gate = Gate::builder()
        .policy(limited(&json!([
            { "counter": "a", "window": "day", "max": 1000, "scope": "grant" },
            { "counter": "b", "window": "day", "max": 5000, "scope": "user" },
            { "counter": "c", "window": "day", "max": 9000, "scope": "global" },
        ])))
        .clock(clock())
        .build();
    let (admitted, met) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (start, inside) = (Barrier::new(THREADS), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for _ in 0..1000 {
                    met.fetch_add(usize::from(inside.fetch_add(1, Ordering::SeqCst) > 0), Ordering::SeqCst);
                    let decision = gate.check(&call());
                    inside.fetch_sub(1, Ordering::SeqCst);
                    admitted.fetch_add(usize::from(decision.is_allowed()), Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), 1000);
    // What was refused for `a` has charged neither of the others.
    let used: Vec<_> = gate.check(&call()).limits().iter().map(|state| state.used().micros() / 1_000_000).collect();
    assert_eq!(used, [1000, 1000, 1000]);
    met.into_inner()
}

#[test]
fn many_threads_are_admitted_exactly_max_times() {
    let met: usize = (0..20).map(|_| hammer()).sum();
    assert!(met > 0, "the threads never met: the test shows nothing");
}

#[test]
fn threads_that_lock_in_different_orders_do_not_wait_for_each_other() {
    let swapped = |tool: &str, scopes: [&str; 3]| {
        let limits: Vec<_> = scopes
            .iter()
            .map(|scope| json!({ "counter": format!("{tool}{scope}"), "window": "day", "max": 9_000_000, "scope": scope }))
            .collect();
        json!({ "limits": limits })
    };
    let tools =
        json!({ "a": swapped("a", ["grant", "user", "global"]), "b": swapped("b", ["global", "user", "grant"]) });
    let gate = Gate::new(policy(&json!({ "version": "1", "default": "deny", "tools": tools }).to_string()));
    thread::scope(|scope| {
        for thread in 0..4 {
            let gate = gate.clone();
            scope.spawn(move || {
                for number in 0..2000 {
                    let (grant, user) = (format!("g{}", number % 97), format!("u{}", number % 89));
                    let tool = if (number + thread) % 2 == 0 { "a" } else { "b" };
                    let call = ToolCall::new(tool, None::<&Value>).grant(&*grant).user(&*user);
                    assert!(gate.check(&call).is_allowed());
                }
            });
        }
    });
}

/// A policy swapped while calls run: every decision is by one policy whole, and the counter goes
/// on.
#[test]
fn a_policy_is_replaced_while_calls_run() {
    let by = |text: &str| {
        policy(&format!(
            r#"{{"version":"1","default":"deny","tools":{{"t":{{"require":[{{"conditions":[{{"path":"args.v","op":"eq","value":"{text}"}}],"on_deny":"{text}"}}],
            "limits":[{{"counter":"c","window":"day","max":1000000,"scope":"grant"}}]}}}}}}"#
        ))
    };
    let (one, two) = (by("one"), by("two"));
    let gate = Gate::builder().policy(one.clone()).clock(clock()).build();
    let (stop, allowed) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let arguments = json!({ "v": "one" });
                let call = ToolCall::new("t", &arguments).grant("g");
                while !stop.load(Ordering::Relaxed) {
                    match gate.check(&call) {
                        Decision::Allow(_) => allowed.fetch_add(1, Ordering::Relaxed),
                        Decision::Deny(denial) => {
                            assert_eq!((denial.message(), denial.policy()), ("two", Some(two.digest())));
                            0
                        }
                        other => panic!("{other:?}"),
                    };
                }
            });
        }
        for round in 0..200 {
            let next = if round % 2 == 0 { &two } else { &one };
            assert!(gate.replace_policy(next.clone()).is_some());
            thread::sleep(Duration::from_micros(50));
        }
        stop.store(true, Ordering::Relaxed);
    });
    gate.replace_policy(one);
    let arguments = json!({ "v": "one" });
    let used = gate.check(&ToolCall::new("t", &arguments).grant("g")).limits()[0].used().micros() / 1_000_000;
    assert_eq!(used, allowed.into_inner() as u64 + 1);
}

#[test]
fn a_gate_without_a_policy_denies() {
    let gate = Gate::builder().build();
    let decision = gate.check(&call());
    assert_eq!((decision.code(), decision.rule()), (Some(Code::NoPolicy), Some("(no policy)")));
    let odd = json!([1]);
    assert_eq!(gate.check(&ToolCall::new("t", &odd)).code(), Some(Code::MalformedCall));
}

#[test]
fn policies_of_one_namespace_share_counters_and_others_do_not() {
    let store = Arc::new(MemoryStore::new());
    let gate = |namespace: &str| {
        let policy = limited(&json!([{ "counter": "c", "window": "day", "max": 1, "scope": "grant" }]));
        Gate::builder().policy(policy.with_namespace(namespace)).store(Arc::clone(&store)).clock(clock()).build()
    };
    assert!(gate("one").check(&call()).is_allowed());
    assert!(!gate("one").check(&call()).is_allowed(), "the same namespace is the same counter");
    assert!(gate("two").check(&call()).is_allowed());
    assert!(gate("").check(&call()).is_allowed());
}

/// Under a new document a counter of another scope is another counter, though both count the same
/// value.
#[test]
fn a_counter_of_another_scope_is_another_counter() {
    let by = |scope: Value| limited(&json!([{ "counter": "c", "window": "day", "max": 1, "scope": scope }]));
    let gate = Gate::builder().policy(by(json!(["args.x"]))).clock(clock()).build();
    let arguments = json!({ "x": "same", "y": "same" });
    let passes = || gate.check(&ToolCall::new("t", &arguments)).is_allowed();
    assert!(passes() && !passes());
    for scope in [json!(["args.y"]), json!(["context.x", "args.x"]), json!(["args[\"x\"]", "args.y"])] {
        gate.replace_policy(by(scope.clone()));
        let context = arguments.as_object();
        assert!(gate.check(&ToolCall::new("t", &arguments).context(context)).is_allowed(), "{scope}");
    }
    gate.replace_policy(by(json!(["args[\"x\"]"])));
    assert!(!passes(), "the same path in another spelling");
}

/// The stores that a host may hand over: itself, shared, or as a trait object.
#[test]
fn a_store_works_through_pointers() {
    let policy = limited(&json!([{ "counter": "c", "window": "day", "max": 1, "scope": "grant" }]));
    fn one_passes<S: CounterStore + 'static>(policy: Policy, store: S) {
        let gate = Gate::builder().policy(policy).store(store).clock(clock()).build();
        let Decision::Allow(permit) = gate.check(&call()) else { panic!("the first call passes") };
        assert!(!gate.check(&call()).is_allowed());
        permit.try_release().unwrap();
        assert!(gate.check(&call()).is_allowed());
    }
    one_passes(policy.clone(), MemoryStore::new());
    one_passes(policy.clone(), Box::new(MemoryStore::new()));
    one_passes(policy.clone(), Arc::new(MemoryStore::new()));
    one_passes(policy.clone(), Box::new(MemoryStore::new()) as Box<dyn CounterStore>);
    one_passes(policy, Arc::new(MemoryStore::new()) as Arc<dyn CounterStore>);
}

/// A store that answers with one tally too few, and one that says no without a reason.
struct Odd(Outcome);

impl CounterStore for Odd {
    fn reserve(&self, _: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        Ok(self.0.clone())
    }
    fn peek(&self, _: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        Ok(self.0.clone())
    }
    fn settle(&self, _: &SettleRequest<'_>) -> Result<(), StoreError> {
        Ok(())
    }
    fn reset(&self, _: CounterId, _: &Subject) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn an_odd_answer_of_a_store_denies() {
    let policy = limited(&json!([{ "counter": "c", "window": "day", "max": 1, "scope": "grant" }]));
    for outcome in [Outcome::Granted(Tallies::new()), Outcome::Refused(Tallies::new())] {
        let gate = Gate::builder().policy(policy.clone()).store(Odd(outcome)).build();
        assert_eq!(gate.check(&call()).code(), Some(Code::StoreUnavailable));
    }
    for outcome in [Outcome::Granted(Tallies::new()), Outcome::Refused(Tallies::new())] {
        let gate = Gate::builder().policy(policy.clone()).store(Odd(outcome.clone())).build();
        assert!(gate.explain(&call()).is_err() && gate.usage(&call()).is_err());
        let found = gate.would_allow(&[call()]).unwrap_err();
        assert_eq!((found.index(), found.decision().code()), (0, Some(Code::StoreUnavailable)));
        let gate = Gate::builder().policy(policy.clone()).store(InProcess(Odd(outcome))).build();
        assert!(now(gate.explain_async(&call())).is_err() && now(gate.usage_async(&call())).is_err());
        let found = now(gate.would_allow_async(&[call()])).unwrap_err();
        assert_eq!((found.index(), found.decision().code()), (0, Some(Code::StoreUnavailable)));
    }
    let meter = toolgate::charge::Meter::Sliding { seconds: 1 };
    let tally = toolgate::store::Tally::unused(&meter, Timestamp::UNIX_EPOCH);
    let refused = Outcome::Refused([tally].into_iter().collect());
    let gate = Gate::builder().policy(policy).store(Odd(refused)).build();
    let decision = gate.check(&call());
    assert_eq!((decision.as_str(), decision.rule()), ("rate_limited", Some("/tools/t/limits/0")));
    assert_eq!(decision.retry_after(), None);
}

/// A store that promises an instant to a call that can never pass is not believed in that.
#[test]
fn no_wait_is_told_to_a_call_that_can_never_pass() {
    let meter = toolgate::charge::Meter::Sliding { seconds: 1 };
    let present = toolgate::Clock::now(&clock());
    let tally = |used: u64| {
        let mut tally = toolgate::store::Tally::unused(&meter, present);
        tally.used = toolgate::Total::from_micros(used);
        tally.retry_at = Some(present.saturating_add(Duration::from_millis(250)));
        tally
    };
    for (max, amount, wait) in [(3, 3, Some(Duration::from_millis(250))), (3, 4, None), (0, 0, None), (0, 1, None)] {
        let limit = json!({ "counter": "c", "window": "second", "algorithm": "sliding", "max": max, "amount": amount, "scope": "grant" });
        let refused = Outcome::Refused([tally(3_000_000)].into_iter().collect());
        let gate = Gate::builder().policy(limited(&json!([limit]))).store(Odd(refused)).clock(clock()).build();
        let decision = gate.check(&call());
        assert_eq!((decision.code(), decision.retry_after()), (Some(Code::Limit), wait), "{amount} of {max}");
        let explained = gate.explain(&call()).unwrap();
        let waits = explained.limits().iter().flat_map(|limit| limit.changes()).find_map(|change| change.wait());
        assert_eq!(waits, wait, "{amount} of {max}");
    }
}

/// A store that counts how often it is asked to settle.
#[derive(Default)]
struct Settles(MemoryStore, AtomicUsize);

impl CounterStore for Settles {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.0.reserve(request)
    }
    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.0.peek(request)
    }
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.settle(request)
    }
    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        self.0.reset(counter, subject)
    }
}

#[test]
fn only_what_is_in_flight_is_given_free_by_dropping_a_permit() {
    for (window, asked) in [("day", 0), ("in_flight", 1)] {
        let policy = limited(&json!([{ "counter": "c", "window": window, "max": 5, "scope": "grant" }]));
        for end in [drop, |permit: toolgate::Permit| permit.end()] {
            let gate = Gate::builder().policy(policy.clone()).store(Settles::default()).build();
            let Decision::Allow(permit) = gate.check(&call()) else { panic!("it has room") };
            end(permit);
            assert_eq!(gate.store().1.load(Ordering::SeqCst), asked, "{window}");
        }
    }
}

/// A clock that counts how often it is read.
#[derive(Clone, Default)]
struct Read(Arc<AtomicUsize>);

impl toolgate::Clock for Read {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(1_768_473_000 + i64::try_from(self.0.fetch_add(1, Ordering::SeqCst)).unwrap())
    }
}

/// Two readings could lie in two windows.
#[test]
fn a_decision_reads_the_clock_at_most_once() {
    let limit = json!({ "counter": "c", "window": "day", "max": 9, "scope": "grant" });
    let hour = json!({ "conditions": [{ "path": "time.hour", "op": "gte", "value": 0 }] });
    for (rules, reads) in [
        (json!({}), 0),
        (json!({ "action": "deny" }), 0),
        (json!({ "deny_if": [{ "conditions": [{ "path": "args.x", "op": "eq", "value": 1 }] }] }), 0),
        (json!({ "limits": [limit] }), 1),
        (json!({ "require": [hour], "limits": [limit] }), 1),
        (json!({ "action": "require_approval" }), 1),
        (json!({ "action": "require_approval", "limits": [limit] }), 1),
        (json!({ "action": "require_approval", "require": [hour], "limits": [limit] }), 1),
    ] {
        let clock = Read::default();
        let document = json!({ "version": "1", "default": "deny", "tools": { "t": rules } });
        let gate = Gate::builder().policy(policy(&document.to_string())).clock(clock.clone()).build();
        let before = clock.0.load(Ordering::SeqCst);
        let decision = gate.check(&call());
        assert_eq!(clock.0.load(Ordering::SeqCst) - before, reads, "{document}");
        drop(decision);
    }
}

#[test]
fn a_full_store_refuses_and_evicts_nobody() {
    let clock = clock();
    let policy = limited(&json!([{ "counter": "c", "window": "minute", "max": 1, "scope": "grant" }]));
    let store = MemoryStore::with_capacity(3);
    let gate = Gate::builder().policy(policy).store(store).clock(clock.clone()).build();
    let check = |grant: &str| gate.check(&ToolCall::new("t", None::<&Value>).grant(grant)).code();
    for grant in ["a", "b", "c"] {
        assert_eq!(check(grant), None);
    }
    assert_eq!(check("d"), Some(Code::StoreUnavailable));
    for grant in ["a", "b", "c"] {
        assert_eq!(check(grant), Some(Code::Limit), "a live counter stays");
    }
    // A minute and the grace later, what has expired makes room in those shards that new callers
    // come to.
    clock.advance(Duration::from_secs(70));
    let passed = (0..200).filter(|number| check(&format!("new{number}")).is_none()).count();
    assert!((1..=3).contains(&passed), "{passed} passed");
    assert!(gate.store().len() <= 3);
}

#[test]
fn expired_counters_are_reclaimed_as_new_ones_come() {
    let clock = clock();
    let policy = limited(&json!([{ "counter": "c", "window": "second", "max": 1, "scope": "grant" }]));
    // Half of the capacity is kept, expired or not.
    let store = MemoryStore::with_capacity(10_000);
    let gate = Gate::builder().policy(policy).store(store).clock(clock.clone()).build();
    for number in 0..60_000 {
        let grant = format!("g{number}");
        assert!(gate.check(&ToolCall::new("t", None::<&Value>).grant(&*grant)).is_allowed());
        if number % 100 == 0 {
            clock.advance(Duration::from_millis(100));
        }
    }
    // A thousand a second, of which those of the last three seconds are live or within the grace.
    assert!(gate.store().len() < 9000, "{} counters are held", gate.store().len());
}

#[test]
fn a_window_whose_counters_are_gone_is_not_opened_again() {
    let clock = clock();
    let policy = limited(&json!([{ "counter": "c", "window": "second", "max": 1, "scope": "grant" }]));
    let store = MemoryStore::with_capacity(100_000);
    let gate = Gate::builder().policy(policy).store(store).clock(clock.clone()).build();
    let check = |grant: &str| gate.check(&ToolCall::new("t", None::<&Value>).grant(grant)).code();
    assert_eq!(check("g"), None);
    let spent = toolgate::Clock::now(&clock);
    clock.advance(Duration::from_secs(100));
    // Enough new callers that every expired counter is reclaimed.
    for number in 0..90_000 {
        assert_eq!(check(&format!("x{number}")), None);
    }
    clock.set(spent);
    assert_eq!(check("g"), Some(Code::StoreUnavailable), "what was used then is not known any more");
}

/// What every way to count leaves when it holds nothing any more is reclaimed, not before, and
/// remembered as forgotten.
#[test]
fn counters_of_every_kind_are_reclaimed() {
    for limit in [
        json!({ "window": "minute" }),
        json!({ "window": 60, "algorithm": "sliding" }),
        json!({ "window": 60, "algorithm": "token_bucket" }),
        json!({ "window": "in_flight", "lease": 60 }),
    ] {
        let limits = ["a", "b", "c", "d"].map(|counter| {
            let mut limit = limit.clone();
            limit["counter"] = json!(counter);
            limit["max"] = json!(1);
            limit["scope"] = json!("grant");
            json!({ "limits": [limit] })
        });
        let [a, b, c, d] = limits;
        let document = json!({ "version": "1", "default": "deny", "tools": { "a": a, "b": b, "c": c, "d": d } });
        let clock = clock();
        let store = MemoryStore::with_capacity(3);
        let gate = Gate::builder().policy(policy(&document.to_string())).store(store).clock(clock.clone()).build();
        // In flight until its lease ends.
        let check = |tool: &str| {
            let decision = gate.check(&ToolCall::new(tool, None::<&Value>).grant("g"));
            let code = decision.code();
            std::mem::forget(decision);
            code
        };
        let start = toolgate::Clock::now(&clock);
        assert_eq!(
            ["a", "b", "c", "a", "d"].map(check),
            [None, None, None, Some(Code::Limit), Some(Code::StoreUnavailable)]
        );
        clock.advance(Duration::from_millis(61_999));
        assert_eq!(check("d"), Some(Code::StoreUnavailable), "within the grace: {limit}");
        clock.advance(Duration::from_millis(1));
        assert_eq!((check("d"), gate.store().len()), (None, 1), "{limit}");
        clock.set(start);
        assert_eq!(check("a"), Some(Code::StoreUnavailable), "forgotten: {limit}");
        clock.set(start.saturating_add(Duration::from_secs(60)));
        assert_eq!(check("a"), None, "{limit}");
    }
}

#[test]
fn a_refused_call_takes_no_place_in_the_store() {
    let limit = |counter: &str, scope: &str| json!({ "counter": counter, "window": "day", "max": 1, "scope": scope });
    let policy = limited(&json!([limit("a", "grant"), limit("b", "user")]));
    let gate = Gate::builder().policy(policy).store(MemoryStore::with_capacity(3)).clock(clock()).build();
    let check =
        |user: u32| gate.check(&ToolCall::new("t", None::<&Value>).grant("g").user(&*format!("u{user}"))).code();
    assert_eq!(check(0), None);
    assert!((1..20).all(|user| check(user) == Some(Code::Limit)));
    assert_eq!(gate.store().len(), 2);
}

/// Room is looked for in all of a shard before a call is refused for want of it.
#[test]
fn a_full_store_looks_for_all_that_has_expired() {
    let limit =
        |window: &str| json!({ "limits": [{ "counter": window, "window": window, "max": 1, "scope": "grant" }] });
    let tools = json!({ "day": limit("day"), "minute": limit("minute") });
    let policy = policy(&json!({ "version": "1", "default": "deny", "tools": tools }).to_string());
    for _ in 0..12 {
        let clock = clock();
        let store = MemoryStore::with_capacity(5120);
        let gate = Gate::builder().policy(policy.clone()).store(store).clock(clock.clone()).build();
        let check = |tool: &str, number: u32| {
            gate.check(&ToolCall::new(tool, None::<&Value>).grant(&*format!("{tool}{number}"))).is_allowed()
        };
        assert!((0..3840).all(|number| check("day", number)) && (0..1280).all(|number| check("minute", number)));
        assert!(!check("day", 3840));
        clock.advance(Duration::from_secs(70));
        assert!(check("minute", 2000), "some twenty of its shard have expired");
    }
}

#[test]
fn a_counter_that_counts_in_another_way_is_corrupt() {
    use toolgate::charge::{Charge, Meter, Span};
    let now = toolgate::Clock::now(&clock());
    let span = Span { start: now, end: now.saturating_add(Duration::from_secs(60)) };
    let meters = [Meter::Fixed(span), Meter::Sliding { seconds: 60 }];
    let counter: CounterId = serde_json::from_value(json!("0".repeat(32))).unwrap();
    let charge = |meter| Charge::new(counter, Subject::default(), toolgate::Amount::ONE, None, meter);
    for (kept, other) in [(meters[0], meters[1]), (meters[1], meters[0])] {
        let store = MemoryStore::new();
        let made = [charge(kept)];
        store.reserve(&ReserveRequest::new(ReservationId::new(1), now, &made)).unwrap();
        let asked = [charge(other)];
        let request = ReserveRequest::new(ReservationId::new(2), now, &asked);
        assert!(matches!(store.peek(&request), Err(StoreError::Corrupt)));
        assert!(matches!(store.reserve(&request), Err(StoreError::Corrupt)));
        let settled = [ChargeChange::new(&asked[0], now, toolgate::Amount::ZERO)];
        let settle = SettleRequest::new(ReservationId::new(2), 1, now, &settled);
        assert!(matches!(store.settle(&settle), Err(StoreError::Corrupt)));
    }
}

/// While there are not very many, nothing is forgotten, and the same history has the same answers
/// whatever the hash.
#[test]
fn a_clock_that_steps_back_finds_what_was_spent() {
    for _ in 0..20 {
        let clock = clock();
        let policy = limited(&json!([{ "counter": "c", "window": "minute", "max": 1, "scope": "grant" }]));
        let gate = Gate::builder().policy(policy).clock(clock.clone()).build();
        let check = |grant: &str| gate.check(&ToolCall::new("t", None::<&Value>).grant(grant)).code();
        let start = toolgate::Clock::now(&clock);
        assert!((0..100).all(|number| check(&format!("old{number}")).is_none()));
        clock.advance(Duration::from_secs(600));
        assert!((0..1000).all(|number| check(&format!("new{number}")).is_none()));
        clock.set(start);
        assert!((0..100).all(|number| check(&format!("old{number}")) == Some(Code::Limit)));
        assert!((0..100).all(|number| check(&format!("other{number}")).is_none()));
    }
}

#[test]
fn a_host_can_reset_a_counter() {
    let clock = clock();
    let policy = limited(&json!([{ "counter": "c", "window": "day", "max": 1, "scope": "grant" }]));
    let gate = Gate::builder().policy(policy).clock(clock.clone()).build();
    let now = toolgate::Clock::now(&clock);
    clock.advance(Duration::from_secs(300 * 86_400));
    assert!(gate.check(&call()).is_allowed());
    clock.set(now);
    assert!(!gate.check(&call()).is_allowed(), "charged to the window that the clock ran ahead to");
    assert!(gate.reset_counter("c", &call()).unwrap());
    assert!(gate.check(&call()).is_allowed());
    assert!(!gate.reset_counter("no such", &call()).unwrap());
    assert!(!gate.reset_counter("c", &ToolCall::new("t", None::<&Value>)).unwrap(), "the call names no grant");
}
