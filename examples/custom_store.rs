//! A counter store of your own: a map under a lock, with the crate's arithmetic. It passes the
//! conformance suite, and a gate uses it.
//!
//! `cargo run --example custom_store --features conformance`

use std::collections::BTreeMap;
use std::sync::Mutex;

use toolgate::charge::{CounterId, Subject};
use toolgate::store::{
    Counter, CounterStore, Generations, Outcome, ReserveRequest, SettleRequest, StoreError, Tallies,
};
use toolgate::{Gate, Policy, ToolCall};

/// Keeps every counter for ever. A store for production forgets those whose `expires_at` has
/// passed, and refuses when it is full.
#[derive(Default)]
struct MapStore(Mutex<State>);

#[derive(Default)]
struct State {
    counters: BTreeMap<(CounterId, Subject), Counter>,
    /// A charge that was made before a reset gives no room back after it.
    generations: Generations,
}

impl MapStore {
    /// Charges all counters or none, in one step: nobody else has the lock.
    fn run(&self, request: &ReserveRequest<'_>, commit: bool) -> Result<Outcome, StoreError> {
        let mut state = self.0.lock().map_err(|_| StoreError::unavailable("poisoned"))?;
        let State { counters, generations } = &mut *state;
        let (mut tallies, mut room) = (Tallies::new(), true);
        for charge in request.charges {
            let fresh = Counter::new(&charge.meter);
            let counter = counters.get(&(charge.counter, charge.subject.clone())).unwrap_or(&fresh);
            tallies.push(counter.tally(charge, request.now)?);
            room &= tallies.last().is_some_and(|tally| tally.has_room(charge));
        }
        for (charge, tally) in request.charges.iter().zip(&mut tallies).filter(|_| room && commit) {
            let counter = counters.entry((charge.counter, charge.subject.clone()));
            *tally = counter.or_insert_with(|| Counter::new(&charge.meter)).charge(charge, request.now)?;
            tally.charged_at.generation = generations.of(charge.counter, &charge.subject);
        }
        Ok(if room { Outcome::Granted(tallies) } else { Outcome::Refused(tallies) })
    }
}

impl CounterStore for MapStore {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.run(request, true)
    }
    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.run(request, false)
    }
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        let mut state = self.0.lock().map_err(|_| StoreError::unavailable("poisoned"))?;
        let State { counters, generations } = &mut *state;
        for settled in request.charges.iter().filter(|settled| generations.may_change(settled)) {
            let key = (settled.charge.counter, settled.charge.subject.clone());
            if settled.begins(request.now) {
                counters.entry(key.clone()).or_insert_with(|| Counter::new(&settled.charge.meter));
            }
            if let Some(counter) = counters.get_mut(&key) {
                counter.settle(settled, request.now)?;
            }
        }
        Ok(())
    }
    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        let mut state = self.0.lock().map_err(|_| StoreError::unavailable("poisoned"))?;
        state.generations.reset(counter, subject);
        state.counters.remove(&(counter, subject.clone()));
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    toolgate::store::conformance::check(MapStore::default())?.iter().for_each(|case| println!("passed: {case}"));
    let policy: Policy = r#"{ "version": "1", "default": "allow", "all_tools": { "limits": [
        { "counter": "calls", "window": "hour", "max": 1, "scope": "global" }] } }"#
        .parse()?;
    let gate = Gate::builder().policy(policy).store(MapStore::default()).build();
    let call = ToolCall::new("search", None::<&serde_json::Value>);
    println!("{}, {}", gate.check(&call).as_str(), gate.check(&call).as_str());
    Ok(())
}
