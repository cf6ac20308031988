//! Threads that share a gate, and policies that are replaced while calls run.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolgate::{Code, Decision, Gate, ManualClock, Policy, ToolCall};

pub(super) fn policy(text: &str) -> Policy {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn limited(limits: &Value) -> Policy {
    policy(&json!({ "version": "1", "default": "deny", "tools": { "t": { "limits": limits } } }).to_string())
}

pub(super) fn clock() -> ManualClock {
    ManualClock::new("2026-01-15T10:30:00Z".parse().unwrap())
}

pub(super) fn call() -> ToolCall<'static> {
    ToolCall::new("t", None::<&Value>).grant("g").user("u")
}

/// Makes calls from four threads at once, and returns how often two threads were inside the gate.
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
    let (admitted, overlaps) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (start, inside) = (Barrier::new(THREADS), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for _ in 0..1000 {
                    overlaps.fetch_add(usize::from(inside.fetch_add(1, Ordering::SeqCst) > 0), Ordering::SeqCst);
                    let decision = gate.check(&call());
                    inside.fetch_sub(1, Ordering::SeqCst);
                    admitted.fetch_add(usize::from(decision.is_allowed()), Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), 1000);
    // Calls refused by `a` have charged neither of the other counters.
    let used: Vec<_> = gate.check(&call()).limits().iter().map(|state| state.used().micros() / 1_000_000).collect();
    assert_eq!(used, [1000, 1000, 1000]);
    overlaps.into_inner()
}

#[test]
fn racing_threads_are_allowed_exactly_max_calls() {
    let overlaps: usize = (0..20).map(|_| hammer()).sum();
    assert!(overlaps > 0, "the threads never raced: the test shows nothing");
}

#[test]
fn calls_with_scopes_in_different_orders_do_not_deadlock() {
    let swapped = |tool: &str, scopes: [&str; 3]| {
        let limits: Vec<_> = scopes
            .iter()
            .map(|scope| {
                json!({ "counter": format!("{tool}{scope}"), "window": "day", "max": 9_000_000,
                "scope": scope })
            })
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

/// Every decision is by one policy as a whole, and the counter continues.
#[test]
fn a_policy_can_be_replaced_while_calls_run() {
    let by = |text: &str| {
        let require = json!({ "conditions": [{ "path": "args.v", "op": "eq", "value": text }], "on_deny": text });
        let limit = json!({ "counter": "c", "window": "day", "max": 1_000_000, "scope": "grant" });
        let rules = json!({ "require": [require], "limits": [limit] });
        policy(&json!({ "version": "1", "default": "deny", "tools": { "t": rules } }).to_string())
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
