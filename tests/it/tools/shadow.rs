//! Shadow policies beside the policy in force.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolgate::charge::{CounterId, Subject};
use toolgate::shadow::{Difference, DifferenceKind, Shadow};
use toolgate::store::{CounterStore, InProcess, MemoryStore, Outcome, ReserveRequest, SettleRequest, StoreError};
use toolgate::{Access, AsyncPermit, Decision, Gate, Grants, ManualClock, Permit, Policy, Timestamp, ToolCall};

use crate::model::recording_sink::RecordingSink;
use crate::polling::ready;
use toolgate::trace::FaultStore;

/// A Thursday morning.
const START: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

fn policy(tools: &Value) -> Policy {
    Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).unwrap()
}

/// A policy with a daily budget and a bound on calls in flight, both of `max`.
fn limited(max: u32) -> Policy {
    policy(&json!({ "t": { "limits": [
        { "counter": "spend", "window": "day", "max": max, "scope": "grant", "amount_from": "args.amount" },
        { "counter": "flight", "window": "in_flight", "max": max, "scope": "grant" },
    ] } }))
}

fn gate(policy: Policy) -> Gate {
    Gate::builder().policy(policy).clock(ManualClock::new(START)).build()
}

/// Returns a shadow policy whose differences are kept.
fn candidate(policy: Policy) -> (Shadow, Arc<Mutex<Vec<Difference>>>) {
    let differences = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&differences);
    let candidate = Shadow::new(policy).on_difference(move |difference| keep.lock().unwrap().push(difference.clone()));
    (candidate, differences)
}

/// Returns the used amounts of the counters of a policy, as texts.
fn used(policy: &Policy, store: &Arc<FaultStore>, call: &ToolCall<'_>) -> Vec<String> {
    let gate = Gate::builder().policy(policy.clone()).store(Arc::clone(store)).clock(ManualClock::new(START)).build();
    gate.usage(call).unwrap().iter().map(|state| state.used().to_string()).collect()
}

#[test]
fn differences_are_reported_by_kind_and_rule() {
    let in_force = policy(&json!({
        "same": {}, "stricter": {}, "asked": {},
        "laxer": { "action": "deny", "reason": "No." },
        "moved": { "action": "deny" },
        "full": { "limits": [{ "counter": "c", "window": "day", "max": 0, "scope": "global" }] },
    }));
    let next = policy(&json!({
        "same": {}, "laxer": {}, "full": {},
        "stricter": { "action": "deny", "reason": "Not any more." },
        "asked": { "action": "require_approval" },
        "moved": { "require": [{ "conditions": [{ "path": "args.x", "op": "exists", "value": true }] }] },
    }));
    let gate = gate(in_force.clone());
    assert!(gate.shadow_report().is_none() && gate.stop_shadow().is_none());
    let (candidate, differences) = candidate(next.clone());
    assert!(gate.start_shadow(candidate).is_none());
    let arguments = json!({ "secret": 1 });
    for tool in ["same", "laxer", "stricter", "asked", "moved", "full", "full", "unknown"] {
        drop(gate.check(&ToolCall::new(tool, &arguments).user("ann")));
    }
    let found: Vec<_> = differences.lock().unwrap().iter().map(|it| format!("{} {}", it.kind(), it.rule())).collect();
    let want = [
        "loosened /tools/laxer/action",
        "tightened /tools/stricter/action",
        "tightened /tools/asked/action",
        "changed /tools/moved/require/0",
        "loosened /tools/full/limits/0",
        "loosened /tools/full/limits/0",
    ];
    assert_eq!(found, want);
    let report = gate.shadow_report().unwrap();
    assert_eq!((report.agreed(), report.differed(), report.policy()), (2, 6, next.digest()));
    let rules: Vec<_> = report.rules().map(|(kind, rule, count)| format!("{kind} {rule} {count}")).collect();
    let counted = [
        "loosened /tools/full/limits/0 2",
        "loosened /tools/laxer/action 1",
        "tightened /tools/asked/action 1",
        "tightened /tools/stricter/action 1",
        "changed /tools/moved/require/0 1",
    ];
    assert_eq!(rules, counted);
    let shown = report.to_string();
    assert!(shown.starts_with("2 calls decided alike, 6 differently, by candidate "), "{shown}");
    assert!(shown.ends_with("\n        1  changed    /tools/moved/require/0\n"), "{shown}");
    let written = serde_json::to_value(&report).unwrap();
    assert_eq!(written["rules"][0], json!({ "kind": "loosened", "rule": "/tools/full/limits/0", "count": 2 }));
    assert_eq!((&written["policy"], &written["differed"]), (&json!(next.digest().to_string()), &json!(6)));
    assert_eq!(gate.stop_shadow(), Some(report));
    assert!(gate.shadow_report().is_none());

    let differences = differences.lock().unwrap();
    let (ours, theirs) = (differences[1].in_force(), differences[1].candidate());
    assert_eq!((ours.policy(), theirs.policy()), (Some(in_force.digest()), Some(next.digest())));
    assert_eq!(
        (ours.tool(), theirs.tool(), ours.id(), ours.time()),
        (Some("stricter"), Some("stricter"), theirs.id(), START)
    );
    assert_eq!((ours.message(), theirs.message()), (None, Some("Not any more.")));
    assert_eq!((ours.arguments(), theirs.arguments()), (None, None), "no values of arguments are recorded");
    for difference in differences.iter() {
        let text = serde_json::to_string(difference).unwrap();
        assert_eq!(serde_json::from_str::<Difference>(&text).unwrap(), *difference, "{text}");
    }
    assert!(gate.pending().unwrap().is_empty(), "a shadow policy asks for no approval");
}

#[test]
fn a_shadow_has_its_own_counters_and_follows_each_call() {
    let (in_force, next) = (limited(100), limited(5));
    let store = Arc::new(FaultStore::default());
    let gate = gate(in_force);
    gate.start_shadow(Shadow::new(next.clone()).store(Arc::clone(&store)));
    let arguments = json!({ "amount": 2 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let permit = || match gate.check(&call) {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    };
    let used = || used(&next, &store, &call);
    let (released, mut settled, ended) = (permit(), permit(), permit());
    assert_eq!(used(), ["4", "2"], "the third call has no room in the shadow");
    ended.end();
    assert_eq!(used(), ["4", "2"]);
    settled.settle("3".parse().unwrap()).unwrap();
    assert_eq!(used(), ["5", "2"]);
    released.release();
    assert_eq!(used(), ["3", "1"]);
    drop(settled);
    assert_eq!(used(), ["3", "0"]);
    let real: Vec<_> = gate.usage(call).unwrap().iter().map(|state| state.used().to_string()).collect();
    assert_eq!(real, ["5", "0"]);
    let report = gate.shadow_report().unwrap();
    assert_eq!((report.agreed(), report.differed()), (2, 1));
    // A call from before the end of the shadow is still followed.
    let late = permit();
    assert_eq!(used(), ["5", "1"]);
    gate.stop_shadow();
    late.release();
    assert_eq!(used(), ["3", "0"]);
    drop(permit());
    assert_eq!(used(), ["3", "0"], "later calls are not followed");
}

/// A call that the gate stops stays spent in the shadow, and is not in flight there.
#[test]
fn a_call_allowed_only_by_the_shadow_stays_spent() {
    let (store, next) = (Arc::new(FaultStore::default()), limited(5));
    let gate = gate(limited(1));
    gate.start_shadow(Shadow::new(next.clone()).store(Arc::clone(&store)));
    let arguments = json!({ "amount": 2 });
    let call = ToolCall::new("t", &arguments).grant("g");
    assert!(!gate.check(&call).is_allowed());
    assert_eq!(used(&next, &store, &call), ["2", "0"]);
}

#[test]
fn an_approval_counts_for_the_shadow_too() {
    let asks = json!({ "t": { "action": "require_approval", "limits": [
        { "counter": "c", "window": "day", "max": 1, "scope": "grant" }] } });
    let gate = gate(policy(&asks));
    let (same, differences) = candidate(policy(&asks));
    gate.start_shadow(same);
    let arguments = json!({});
    let call = ToolCall::new("t", &arguments).grant("g");
    let Decision::RequireApproval(request) = gate.check(&call) else { panic!("the call needs approval") };
    assert_eq!(gate.pending().unwrap().len(), 1, "only the gate makes a request");
    gate.approve(request.approval().unwrap().id(), "ann").unwrap();
    let Decision::Allow(permit) = gate.check(&call) else { panic!("the call is approved") };
    permit.release();
    assert!(gate.check(&call).is_allowed(), "the approval and the charge were restored");
    // Both counters are full now.
    assert_eq!(gate.check(&call).as_str(), "rate_limited");
    assert!(differences.lock().unwrap().is_empty(), "{differences:?}");
    assert_eq!(gate.shadow_report().unwrap().agreed(), 4);
}

/// A store that fails or panics.
#[derive(Default)]
struct Broken {
    panics: AtomicBool,
}

impl Broken {
    fn fail<T>(&self) -> Result<T, StoreError> {
        assert!(!self.panics.load(Ordering::Relaxed), "on purpose");
        Err(StoreError::unavailable("down"))
    }
}

impl CounterStore for Broken {
    fn reserve(&self, _: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.fail()
    }

    fn peek(&self, _: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.fail()
    }

    fn settle(&self, _: &SettleRequest<'_>) -> Result<(), StoreError> {
        self.fail()
    }

    fn reset(&self, _: CounterId, _: &Subject) -> Result<(), StoreError> {
        self.fail()
    }
}

#[test]
fn a_failing_shadow_changes_nothing() {
    let store = Arc::new(Broken::default());
    let gate = gate(limited(100));
    let (failing, differences) = candidate(limited(100));
    gate.start_shadow(failing.store(Arc::clone(&store)));
    let arguments = json!({ "amount": 1 });
    let call = ToolCall::new("t", &arguments).grant("g");
    for panics in [false, true] {
        store.panics.store(panics, Ordering::Relaxed);
        let Decision::Allow(permit) = gate.check(&call) else { panic!("there is room") };
        permit.release();
    }
    let differences = differences.lock().unwrap();
    let found: Vec<_> =
        differences.iter().map(|it| (it.kind(), it.rule(), it.candidate().failure().unwrap())).collect();
    let unavailable = "the counter store is unavailable: down";
    assert_eq!(found[0], (DifferenceKind::Errored, "/tools/t/limits/0", unavailable));
    assert_eq!(found[1].0, DifferenceKind::Errored);
    assert!(found[1].2.contains("panicked"), "{found:?}");
    assert_eq!(gate.usage(call).unwrap()[0].used().micros(), 0);

    // Nor does a callback that panics, or that stops the shadow.
    let ended = Arc::new(gate.clone());
    let ender = Arc::clone(&ended);
    let stopping = Shadow::new(policy(&json!({}))).on_difference(move |_| drop(ender.stop_shadow()));
    gate.start_shadow(stopping);
    assert!(gate.check(&call).is_allowed() && gate.shadow_report().is_none());
    gate.start_shadow(Shadow::new(policy(&json!({}))).on_difference(|_| panic!("on purpose")));
    assert!(gate.check(&call).is_allowed());
    assert_eq!(gate.stop_shadow().unwrap().differed(), 1);
}

#[test]
fn a_shadow_works_with_an_async_store_and_replaced_policies() {
    let (store, next) = (Arc::new(FaultStore::default()), limited(5));
    let builder = Gate::builder().policy(limited(100)).clock(ManualClock::new(START));
    let gate = builder.store_async(InProcess(MemoryStore::new())).build();
    gate.start_shadow(Shadow::new(next.clone()).store(Arc::clone(&store)));
    let arguments = json!({ "amount": 2 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let permit = || -> AsyncPermit {
        match ready(gate.check(&call)) {
            Decision::Allow(permit) => permit,
            other => panic!("{other:?}"),
        }
    };
    let (one, mut two) = (permit(), permit());
    assert_eq!(used(&next, &store, &call), ["4", "2"]);
    ready(one.release()).unwrap();
    ready(two.settle("5".parse().unwrap())).unwrap();
    ready(two.end()).unwrap();
    assert_eq!(used(&next, &store, &call), ["5", "0"]);
    drop(permit());
    gate.replace_policy(None);
    assert!(!ready(gate.check(&call)).is_allowed());
    let report = gate.stop_shadow().unwrap();
    let rules: Vec<_> = report.rules().map(|(kind, rule, count)| format!("{kind} {rule} {count}")).collect();
    assert_eq!(
        (report.agreed(), rules),
        (2, vec!["tightened /tools/t/limits/0 1".into(), "changed /tools/t/limits/0 1".into()])
    );
}

#[test]
fn grants_have_shadows_for_each_policy() {
    let grants = Grants::new();
    assert!(!grants.start_shadow("reader", Shadow::new(policy(&json!({})))), "the policy does not exist");
    for name in ["reader", "writer"] {
        grants.replace_policy(name, policy(&json!({ "t": {} })));
        grants.give(name, Access::to(name).on_any_server(), "ops").unwrap();
    }
    assert!(grants.start_shadow("reader", Shadow::new(policy(&json!({})))));
    let none = json!({});
    for grant in ["reader", "writer", "reader", "nobody"] {
        drop(grants.check(&ToolCall::new("t", &none).grant(grant)));
    }
    let report = grants.shadow_report("reader").unwrap();
    assert_eq!((report.agreed(), report.differed()), (0, 2));
    assert!(grants.shadow_report("writer").is_none() && grants.stop_shadow("none").is_none());
    assert_eq!(grants.stop_shadow("reader"), Some(report));
    assert!(grants.start_shadow("reader", Shadow::new(policy(&json!({})))));
    grants.remove_policy("reader");
    assert!(grants.shadow_report("reader").is_none(), "a shadow ends with its policy");
}

/// The call would not have been made under the shadow policy either.
#[test]
fn an_unrecorded_call_is_released_in_the_shadow() {
    let (store, kept) = (Arc::new(FaultStore::default()), RecordingSink::default());
    let builder = Gate::builder().policy(limited(100)).clock(ManualClock::new(START));
    let gate = builder.audit(kept.clone()).require_audit().build();
    gate.start_shadow(Shadow::new(limited(100)).store(Arc::clone(&store)));
    let arguments = json!({ "amount": 2 });
    let call = ToolCall::new("t", &arguments).grant("g");
    kept.set_down(true);
    assert!(!gate.check(&call).is_allowed());
    assert_eq!(used(&limited(100), &store, &call), ["0", "0"]);
    assert_eq!(gate.shadow_report().unwrap().agreed(), 1);
}

#[test]
fn shadows_can_be_replaced_while_calls_run() {
    let gate = gate(limited(1_000_000));
    let stop = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        let calls: Vec<_> = (0..3)
            .map(|thread| {
                let (gate, stop) = (gate.clone(), &stop);
                scope.spawn(move || {
                    let (arguments, grant) = (json!({ "amount": 1 }), format!("g{thread}"));
                    let call = ToolCall::new("t", &arguments).grant(&*grant);
                    let mut made = 0u64;
                    while !stop.load(Ordering::Relaxed) || made < 100 {
                        let decision: Decision<Permit> = gate.check(&call);
                        assert!(decision.is_allowed());
                        made += 1;
                    }
                    made
                })
            })
            .collect();
        let mut compared = 0;
        for round in 0..100 {
            let max = if round % 2 == 0 { 1 } else { 1_000_000 };
            if let Some(report) = gate.start_shadow(Shadow::new(limited(max))) {
                compared += report.agreed() + report.differed();
            }
            gate.replace_policy(limited(1_000_000 + round));
            thread::sleep(Duration::from_micros(200));
        }
        assert!(gate.stop_shadow().is_some());
        stop.store(true, Ordering::Relaxed);
        let made: u64 = calls.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!(compared <= made);
        made
    });
    let used: u64 = (0..3)
        .map(|thread| {
            let (arguments, grant) = (json!({ "amount": 1 }), format!("g{thread}"));
            let states = gate.usage(ToolCall::new("t", &arguments).grant(&*grant)).unwrap();
            assert_eq!(states[1].used().micros(), 0, "nothing is in flight");
            states[0].used().micros() / 1_000_000
        })
        .sum();
    assert_eq!(used, made, "every call was counted once");
}

#[test]
fn a_report_has_a_bounded_number_of_rules() {
    let tools: serde_json::Map<String, Value> =
        (0..1100).map(|index| (format!("t{index}"), json!({ "action": "deny" }))).collect();
    let gate = gate("{\"version\":\"1\",\"default\":\"allow\"}".parse().unwrap());
    gate.start_shadow(Shadow::new(policy(&Value::Object(tools))));
    let none = json!({});
    for index in 0..1100 {
        drop(gate.check(&ToolCall::new(&format!("t{index}"), &none)));
    }
    let report = gate.stop_shadow().unwrap();
    assert_eq!((report.differed(), report.rules().len()), (1100, 1024));
}

/// A failed settlement is repeated, and the shadow counts the final one.
#[test]
fn a_failed_settlement_is_not_followed_by_the_shadow() {
    let policy = limited(50);
    let (store, apart) = (Arc::new(FaultStore::default()), Arc::new(FaultStore::default()));
    let builder = Gate::builder().policy(policy.clone()).store(Arc::clone(&store));
    let gate = builder.clock(ManualClock::new(START)).build();
    gate.start_shadow(Shadow::new(policy.clone()).store(Arc::clone(&apart)));
    let arguments = json!({ "amount": 10 });
    let call = ToolCall::new("t", &arguments).grant("g");
    let Decision::Allow(mut permit) = gate.check(&call) else { panic!("there is room") };
    store.set_down(true);
    assert!(permit.settle("5".parse().unwrap()).is_err());
    store.set_down(false);
    assert_eq!(used(&policy, &apart, &call)[0], "10");
    permit.settle("7".parse().unwrap()).unwrap();
    assert_eq!([&store, &apart].map(|store| used(&policy, store, &call)[0].clone()), ["7", "7"]);
}
