//! Counters of a gate: what they are shared by, and how the memory store reclaims them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use toolgate::audit::{AuditRecord, Event};
use toolgate::charge::{CounterId, Subject};
use toolgate::store::{
    ChargeChange, CounterStore, MemoryStore, ReservationId, ReserveRequest, SettleRequest, StoreError,
};
use toolgate::trace::FaultStore;
use toolgate::{Caller, Code, Gate, Identity, Policy, ToolCall};

use super::concurrency::{call, clock, limited, policy};
use crate::model::recording_sink::RecordingSink;

#[test]
fn only_policies_of_one_namespace_share_counters() {
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

/// A counter with another scope is another counter, even where the values of the scope are equal.
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
    assert!(!passes(), "the same path, written differently, is the same counter");
}

#[test]
fn a_full_store_refuses_and_evicts_nothing() {
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
    // After the window and the grace period, expired counters make room in the shards of new
    // callers.
    clock.advance(Duration::from_secs(70));
    let passed = (0..200).filter(|number| check(&format!("new{number}")).is_none()).count();
    assert!((1..=3).contains(&passed), "{passed} passed");
    assert!(gate.store().len() <= 3);
}

#[test]
fn expired_counters_are_reclaimed_as_new_ones_are_added() {
    let clock = clock();
    let policy = limited(&json!([{ "counter": "c", "window": "second", "max": 1, "scope": "grant" }]));
    // Up to half of the capacity is kept, expired or not.
    let store = MemoryStore::with_capacity(10_000);
    let gate = Gate::builder().policy(policy).store(store).clock(clock.clone()).build();
    for number in 0..60_000 {
        let grant = format!("g{number}");
        assert!(gate.check(&ToolCall::new("t", None::<&Value>).grant(&*grant)).is_allowed());
        if number % 100 == 0 {
            clock.advance(Duration::from_millis(100));
        }
    }
    // A thousand counters a second, and those of the last 3 s are live or within the grace period.
    assert!(gate.store().len() < 9000, "{} counters are held", gate.store().len());
}

#[test]
fn a_window_with_reclaimed_counters_is_not_reopened() {
    let clock = clock();
    let policy = limited(&json!([{ "counter": "c", "window": "second", "max": 1, "scope": "grant" }]));
    let store = MemoryStore::with_capacity(100_000);
    let gate = Gate::builder().policy(policy).store(store).clock(clock.clone()).build();
    let check = |grant: &str| gate.check(&ToolCall::new("t", None::<&Value>).grant(grant)).code();
    assert_eq!(check("g"), None);
    let spent = toolgate::Clock::now(&clock);
    clock.advance(Duration::from_secs(100));
    // Enough new callers to reclaim every expired counter.
    for number in 0..90_000 {
        assert_eq!(check(&format!("x{number}")), None);
    }
    clock.set(spent);
    assert_eq!(check("g"), Some(Code::StoreUnavailable), "the used amount of that time is no longer known");
}

/// A counter of every algorithm is reclaimed once it is empty, not before, and the store remembers
/// that it has forgotten it.
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
        let store = MemoryStore::with_capacity(3).counters_per_asker(3);
        let gate = Gate::builder().policy(policy(&document.to_string())).store(store).clock(clock.clone()).build();
        // The call stays in flight until its lease ends.
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
        assert_eq!(check("d"), Some(Code::StoreUnavailable), "within the grace period: {limit}");
        clock.advance(Duration::from_millis(1));
        assert_eq!((check("d"), gate.store().len()), (None, 1), "{limit}");
        clock.set(start);
        assert_eq!(check("a"), Some(Code::StoreUnavailable), "forgotten: {limit}");
        clock.set(start.saturating_add(Duration::from_secs(60)));
        assert_eq!(check("a"), None, "{limit}");
    }
}

#[test]
fn a_refused_call_adds_no_counter() {
    let limit = |counter: &str, scope: &str| json!({ "counter": counter, "window": "day", "max": 1, "scope": scope });
    let policy = limited(&json!([limit("a", "grant"), limit("b", "user")]));
    let store = MemoryStore::with_capacity(3).counters_per_asker(3);
    let gate = Gate::builder().policy(policy).store(store).clock(clock()).build();
    let check =
        |user: u32| gate.check(&ToolCall::new("t", None::<&Value>).grant("g").user(&*format!("u{user}"))).code();
    assert_eq!(check(0), None);
    assert!((1..20).all(|user| check(user) == Some(Code::Limit)));
    assert_eq!(gate.store().len(), 2);
}

/// The whole shard is searched for expired counters before a call is refused.
#[test]
fn a_full_store_searches_the_shard_for_expired_counters() {
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
        assert!(check("minute", 2000), "about twenty counters of its shard have expired");
    }
}

#[test]
fn a_counter_of_another_algorithm_is_corrupt() {
    use toolgate::charge::{Charge, Meter, Span};
    let now = toolgate::Clock::now(&clock());
    let span = Span { start: now, end: now.saturating_add(Duration::from_secs(60)) };
    let meters = [Meter::Fixed(span), Meter::Sliding { seconds: 60 }];
    let counter: CounterId = serde_json::from_value(json!("0".repeat(32))).unwrap();
    let charge = |meter| Charge::new(counter, Subject::default(), toolgate::Amount::ONE, None, meter);
    for (kept, other) in [(meters[0], meters[1]), (meters[1], meters[0])] {
        let store = MemoryStore::new();
        let made = [charge(kept)];
        let granted = store.reserve(&ReserveRequest::new(ReservationId::new(1), now, &made)).unwrap();
        let at = granted.tallies()[0].charged_at;
        let asked = [charge(other)];
        let request = ReserveRequest::new(ReservationId::new(2), now, &asked);
        assert!(matches!(store.peek(&request), Err(StoreError::Corrupt)));
        assert!(matches!(store.reserve(&request), Err(StoreError::Corrupt)));
        let settled = [ChargeChange::new(&asked[0], at, toolgate::Amount::ZERO)];
        let settle = SettleRequest::new(ReservationId::new(2), 1, now, &settled);
        assert!(matches!(store.settle(&settle), Err(StoreError::Corrupt)));
    }
}

/// With few counters nothing is forgotten, so the answers do not depend on the hash.
#[test]
fn a_clock_that_steps_back_finds_the_spent_budget() {
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
    assert!(!gate.check(&call()).is_allowed(), "the call was charged to the window that the clock ran ahead to");
    assert!(gate.reset_counter("c", call(), "ops").unwrap());
    assert!(gate.check(&call()).is_allowed());
    assert!(!gate.reset_counter("no such", call(), "ops").unwrap());
    assert!(!gate.reset_counter("c", ToolCall::new("t", None::<&Value>), "ops").unwrap(), "the call names no grant");
}

#[test]
fn a_reset_is_recorded_before_it_happens() {
    let kept = RecordingSink::default();
    let store = Arc::new(FaultStore::default());
    let limit = json!({ "counter": "c", "max": 1, "window": "day", "scope": "grant" });
    let document = json!({ "version": "1", "default": "deny", "tools": { "t": { "limits": [limit] } } });
    let policy = Policy::try_from(&document).unwrap();
    let builder = Gate::builder().audit(kept.clone()).require_audit().store(Arc::clone(&store));
    let gate = builder.policy(policy.clone()).build();
    let call = ToolCall::new("t", None::<&Value>).grant("g").user("ben");
    assert!(gate.check(&call).is_allowed() && !gate.check(&call).is_allowed());
    kept.take();
    assert!(!gate.reset_counter("no such", call, "ann").unwrap());
    assert!(kept.take().is_empty(), "nothing was reset");

    kept.set_down(true);
    let refused = gate.reset_counter("c", call, "ann").unwrap_err();
    assert!(format!("{refused:?}").contains("Unrecorded"), "{refused:?}");
    kept.set_down(false);
    assert!(!gate.check(&call).is_allowed(), "nothing was reset");
    kept.take();

    store.set_down(true);
    assert!(gate.reset_counter("c", call, "ann").is_err());
    store.set_down(false);
    assert!(gate.reset_counter("c", &Caller::new().grant("g"), "ann").unwrap());
    assert!(gate.check(&call).is_allowed());
    let records = kept.take();
    for record in &records[..3] {
        assert_eq!((record.event(), record.counter(), record.by()), (Event::Reset, Some("c"), Some("ann")));
        assert_eq!((record.identity(Identity::Grant), record.policy()), (Some("g"), Some(policy.digest())));
        let text = serde_json::to_string(record).unwrap();
        assert_eq!(&serde_json::from_str::<AuditRecord>(&text).unwrap(), record, "{text}");
    }
    let failures: Vec<_> = records.iter().map(|record| record.failure().is_some()).collect();
    assert_eq!(failures[..3], [false, true, false]);
}
