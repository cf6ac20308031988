//! Stores and clocks of a host.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use toolgate::charge::{CounterId, Subject};
use toolgate::store::{
    CounterStore, InProcess, MemoryStore, Outcome, ReserveRequest, SettleRequest, StoreError, Tallies,
};
use toolgate::{Code, Decision, Gate, Policy, Timestamp};

use super::concurrency::{call, clock, limited, policy};
use crate::polling::ready;

/// A host can pass a store by value, boxed, shared, or as a trait object.
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

/// A store with a fixed answer.
struct Fixed(Outcome);

impl CounterStore for Fixed {
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
fn an_invalid_answer_of_a_store_denies() {
    let policy = limited(&json!([{ "counter": "c", "window": "day", "max": 1, "scope": "grant" }]));
    for outcome in [Outcome::Granted(Tallies::new()), Outcome::Refused(Tallies::new())] {
        let gate = Gate::builder().policy(policy.clone()).store(Fixed(outcome)).build();
        assert_eq!(gate.check(&call()).code(), Some(Code::StoreUnavailable));
    }
    for outcome in [Outcome::Granted(Tallies::new()), Outcome::Refused(Tallies::new())] {
        let gate = Gate::builder().policy(policy.clone()).store(Fixed(outcome.clone())).build();
        assert!(gate.explain(&call()).is_err() && gate.usage(call()).is_err());
        let found = gate.would_allow(&[call()]).unwrap_err();
        assert_eq!((found.index(), found.decision().code()), (0, Some(Code::StoreUnavailable)));
        let gate = Gate::builder().policy(policy.clone()).store_async(InProcess(Fixed(outcome))).build();
        assert!(ready(gate.explain(&call())).is_err() && ready(gate.usage(&call())).is_err());
        let found = ready(gate.would_allow(&[call()])).unwrap_err();
        assert_eq!((found.index(), found.decision().code()), (0, Some(Code::StoreUnavailable)));
    }
    let meter = toolgate::charge::Meter::Sliding { seconds: 1 };
    let tally = toolgate::store::Tally::unused(&meter, Timestamp::UNIX_EPOCH);
    let refused = Outcome::Refused([tally].into_iter().collect());
    let gate = Gate::builder().policy(policy).store(Fixed(refused)).build();
    let decision = gate.check(&call());
    assert_eq!((decision.as_str(), decision.rule()), ("rate_limited", Some("/tools/t/limits/0")));
    assert_eq!(decision.retry_after(), None);
}

/// The retry time of a store is ignored for a call that can never pass.
#[test]
fn a_call_that_can_never_pass_has_no_retry_time() {
    let meter = toolgate::charge::Meter::Sliding { seconds: 1 };
    let present = toolgate::Clock::now(&clock());
    let tally = |used: u64| {
        let mut tally = toolgate::store::Tally::unused(&meter, present);
        tally.used = toolgate::Total::from_micros(used);
        tally.retry_at = Some(present.saturating_add(Duration::from_millis(250)));
        tally
    };
    for (max, amount, wait) in [(3, 3, Some(Duration::from_millis(250))), (3, 4, None), (0, 0, None), (0, 1, None)] {
        let limit = json!({ "counter": "c", "window": "second", "algorithm": "sliding", "max": max, "amount": amount,
            "scope": "grant" });
        let refused = Outcome::Refused([tally(3_000_000)].into_iter().collect());
        let gate = Gate::builder().policy(limited(&json!([limit]))).store(Fixed(refused)).clock(clock()).build();
        let decision = gate.check(&call());
        assert_eq!((decision.code(), decision.retry_after()), (Some(Code::Limit), wait), "{amount} of {max}");
        let explained = gate.explain(&call()).unwrap();
        let waits = explained.limits().iter().flat_map(|limit| limit.changes()).find_map(|change| change.wait());
        assert_eq!(waits, wait, "{amount} of {max}");
    }
}

/// A store that counts settlements.
#[derive(Default)]
struct CountsSettlements(MemoryStore, AtomicUsize);

impl CounterStore for CountsSettlements {
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
fn dropping_a_permit_settles_only_units_in_flight() {
    for (window, asked) in [("day", 0), ("in_flight", 1)] {
        let policy = limited(&json!([{ "counter": "c", "window": window, "max": 5, "scope": "grant" }]));
        for end in [drop, |permit: toolgate::Permit| permit.end()] {
            let gate = Gate::builder().policy(policy.clone()).store(CountsSettlements::default()).build();
            let Decision::Allow(permit) = gate.check(&call()) else { panic!("there is room") };
            end(permit);
            assert_eq!(gate.store().1.load(Ordering::SeqCst), asked, "{window}");
        }
    }
}

/// A clock that counts how often it is read.
#[derive(Clone, Default)]
struct CountingClock(Arc<AtomicUsize>);

impl toolgate::Clock for CountingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(1_768_473_000 + i64::try_from(self.0.fetch_add(1, Ordering::SeqCst)).unwrap())
    }
}

/// Two readings could fall into two windows.
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
        let clock = CountingClock::default();
        let document = json!({ "version": "1", "default": "deny", "tools": { "t": rules } });
        let gate = Gate::builder().policy(policy(&document.to_string())).clock(clock.clone()).build();
        let before = clock.0.load(Ordering::SeqCst);
        let decision = gate.check(&call());
        assert_eq!(clock.0.load(Ordering::SeqCst) - before, reads, "{document}");
        drop(decision);
    }
}
