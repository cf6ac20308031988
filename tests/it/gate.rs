//! Gates among threads, stores of a host's own, policies that are replaced.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolgate::charge::{CounterId, Subject};
use toolgate::store::{CounterStore, MemoryStore, Outcome, Reserve, Settle, StoreError, Tallies};
use toolgate::{Code, Decision, Gate, ManualClock, Policy, Timestamp, ToolCall};

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

/// A policy swapped while calls run: every decision is by one policy whole, and the counter goes on.
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
    fn reserve(&self, _: &Reserve<'_>) -> Result<Outcome, StoreError> {
        Ok(self.0.clone())
    }
    fn peek(&self, _: &Reserve<'_>) -> Result<Outcome, StoreError> {
        Ok(self.0.clone())
    }
    fn settle(&self, _: &Settle<'_>) -> Result<(), StoreError> {
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
    let meter = toolgate::charge::Meter::Sliding { seconds: 1 };
    let tally = toolgate::store::Tally::unused(&meter, Timestamp::UNIX_EPOCH);
    let refused = Outcome::Refused([tally].into_iter().collect());
    let gate = Gate::builder().policy(policy).store(Odd(refused)).build();
    let decision = gate.check(&call());
    assert_eq!((decision.as_str(), decision.rule()), ("rate_limited", Some("/tools/t/limits/0")));
    assert_eq!(decision.retry_after(), None);
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
    // A minute and the grace later, what has expired makes room in those shards that new callers come to.
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

/// While there are not very many, nothing is forgotten, and the same history has the same answers whatever the hash.
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
