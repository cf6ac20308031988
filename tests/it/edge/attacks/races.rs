//! Classes `reloads`, `windows` and `replayed_approvals` with racing threads.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolgate::{Decision, Gate, ManualClock, Policy, Timestamp, ToolCall};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

fn policy(document: &Value) -> Policy {
    Policy::try_from(document).unwrap()
}

fn tools(tools: &Value) -> Policy {
    policy(&json!({ "version": "1", "default": "deny", "tools": tools }))
}

fn call<'a>(tool: &'a str, arguments: &'a Value) -> ToolCall<'a> {
    ToolCall::new(tool, arguments).grant("g")
}

/// Why: a policy that is replaced piece by piece can mix two policies for a moment, such as the new
/// `default: allow` with the old denials. Each of these policies denies `secret` in another way.
#[test]
fn a_reload_never_mixes_two_policies() {
    let ways = [
        policy(&json!({ "version": "1", "default": "deny", "tools": { "open": {} } })),
        policy(&json!({ "version": "1", "default": "allow", "hide": ["sec*"] })),
        policy(&json!({ "version": "1", "default": "allow", "tools": { "secret": { "action": "deny" } } })),
        policy(&json!({ "version": "1", "default": "allow", "all_tools": { "require": [{ "conditions": [
            { "path": "call.tool", "op": "neq", "value": "secret" }] }] } })),
    ];
    let gate = Gate::new(ways[0].clone());
    let (stop, asked, passed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let arguments = json!({});
                while !stop.load(Ordering::Relaxed) {
                    assert!(!gate.check(&call("secret", &arguments)).is_allowed());
                    passed
                        .fetch_add(usize::from(gate.check(&call("open", &arguments)).is_allowed()), Ordering::Relaxed);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..400 {
            match round % 5 {
                4 => gate.replace_policy(None),
                way => gate.replace_policy(ways[way].clone()),
            };
            thread::sleep(Duration::from_micros(50));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(
        asked.into_inner() > 400 && passed.into_inner() > 0,
        "calls and reloads never raced: the test shows nothing"
    );
}

/// Why: counters that are reset with the policy give a new budget at each reload.
#[test]
fn reloads_while_calls_run_give_no_second_budget() {
    const MAX: usize = 500;
    let by = |reason: &str| {
        tools(&json!({ "t": { "reason": reason, "limits": [{ "counter": "n", "window": "day", "max": MAX,
                "scope": "grant" }] } }))
    };
    let gate = Gate::builder().policy(by("a")).clock(ManualClock::new(NOW)).build();
    let passed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let arguments = json!({});
                for _ in 0..MAX {
                    passed.fetch_add(usize::from(gate.check(&call("t", &arguments)).is_allowed()), Ordering::Relaxed);
                }
            });
        }
        for round in 0..200 {
            gate.replace_policy(by(if round % 2 == 0 { "b" } else { "a" }));
        }
    });
    assert_eq!(passed.into_inner(), MAX);
}

/// Why: a clock that jumps while calls are counted can reopen spent windows, or refill a bucket
/// twice for the same time.
#[test]
fn a_jumping_clock_gives_the_budget_of_each_window_once() {
    const MINUTES: u32 = 5;
    const MAX: usize = 20;
    for (algorithm, bound) in [
        (json!({ "algorithm": "fixed" }), MAX * MINUTES as usize),
        (json!({ "algorithm": "sliding" }), MAX * MINUTES as usize),
        // The bucket starts full, and refills once a minute.
        (json!({ "algorithm": "token_bucket" }), MAX * (1 + MINUTES as usize)),
    ] {
        let mut limit = json!({ "counter": "n", "window": "minute", "max": MAX, "scope": "grant" });
        limit["algorithm"] = algorithm["algorithm"].clone();
        let clock = ManualClock::new(NOW);
        let gate = Gate::builder().policy(tools(&json!({ "t": { "limits": [limit] } }))).clock(clock.clone()).build();
        let (stop, passed) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let arguments = json!({});
                    while !stop.load(Ordering::Relaxed) {
                        passed
                            .fetch_add(usize::from(gate.check(&call("t", &arguments)).is_allowed()), Ordering::Relaxed);
                    }
                });
            }
            for step in 0u32..300 {
                // Forwards and backwards, within the five minutes.
                let second = i64::from(step * 7919 % (MINUTES * 60));
                clock.set(Timestamp::from_unix_seconds(NOW.unix_micros() / 1_000_000 + second));
                thread::sleep(Duration::from_micros(30));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let passed = passed.into_inner();
        assert!((MAX..=bound).contains(&passed), "{algorithm}: {passed} of at most {bound}");
    }
}

/// Why: units that are freed twice let too many calls run at once.
#[test]
fn at_most_max_calls_run_at_once() {
    const MAX: usize = 3;
    let limits = json!([{ "counter": "n", "window": "in_flight", "max": MAX, "scope": "grant" }]);
    let gate =
        Gate::builder().policy(tools(&json!({ "t": { "limits": limits } }))).clock(ManualClock::new(NOW)).build();
    let (inside, bound, passed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..6 {
            let (gate, inside, bound, passed) = (gate.clone(), &inside, &bound, &passed);
            scope.spawn(move || {
                let arguments = json!({});
                for round in 0..2_000 {
                    let Decision::Allow(permit) = gate.check(&call("t", &arguments)) else { continue };
                    bound.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    passed.fetch_add(1, Ordering::Relaxed);
                    if round % 16 == 0 {
                        thread::yield_now();
                    }
                    inside.fetch_sub(1, Ordering::SeqCst);
                    match (thread + round) % 3 {
                        0 => permit.release(),
                        1 => permit.end(),
                        _ => drop(permit),
                    }
                }
            });
        }
    });
    assert!(bound.into_inner() <= MAX && passed.into_inner() > MAX);
    let arguments = json!({});
    assert_eq!(gate.usage(call("t", &arguments)).unwrap()[0].used().to_string(), "0", "no unit is held");
}

/// Why: another call can come between the check of an approval and its use.
#[test]
fn of_racing_calls_only_the_approved_one_passes_once() {
    for round in 0..50 {
        let gate = Gate::builder()
            .policy(tools(&json!({ "pay": { "action": "require_approval" } })))
            .clock(ManualClock::new(NOW))
            .build();
        let (good, evil) = (json!({ "to": "ann", "n": round }), json!({ "to": "eve", "n": round }));
        let Decision::RequireApproval(request) = gate.check(&call("pay", &good)) else {
            panic!("the call needs approval")
        };
        let id = *request.approval().unwrap().id();
        let (start, passed) = (Barrier::new(5), AtomicUsize::new(0));
        thread::scope(|scope| {
            for thread in 0..4 {
                let (gate, start, passed, good, evil) = (&gate, &start, &passed, &good, &evil);
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..20 {
                        if thread == 0 {
                            assert!(!gate.check(&call("pay", evil).approval(&id)).is_allowed());
                        }
                        passed.fetch_add(usize::from(gate.check(&call("pay", good)).is_allowed()), Ordering::Relaxed);
                    }
                });
            }
            start.wait();
            gate.approve(&id, "ann").unwrap();
        });
        passed.fetch_add(usize::from(gate.check(&call("pay", &good)).is_allowed()), Ordering::Relaxed);
        assert_eq!(passed.into_inner(), 1);
    }
}

/// Why: if one person approves and another refuses at the same time, only one verdict must count.
#[test]
fn one_of_two_simultaneous_verdicts_counts() {
    let (mut approvals, mut refusals) = (0, 0);
    for round in 0..100 {
        let gate = Gate::builder()
            .policy(tools(&json!({ "pay": { "action": "require_approval" } })))
            .clock(ManualClock::new(NOW))
            .build();
        let arguments = json!({ "n": round });
        let Decision::RequireApproval(request) = gate.check(&call("pay", &arguments)) else {
            panic!("the call needs approval")
        };
        let id = *request.approval().unwrap().id();
        let start = Barrier::new(2);
        let (approved, refused) = thread::scope(|scope| {
            let approve = scope.spawn(|| {
                start.wait();
                gate.approve(&id, "ann").is_ok()
            });
            start.wait();
            let refused = gate.refuse(&id, "bob").is_ok();
            (approve.join().unwrap(), refused)
        });
        assert!(approved != refused, "one verdict counts");
        assert_eq!(gate.check(&call("pay", &arguments)).is_allowed(), approved);
        approvals += usize::from(approved);
        refusals += usize::from(refused);
    }
    assert_eq!(approvals + refusals, 100);
}
