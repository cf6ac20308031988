//! Leased counters: nodes take slices of remote counters, never admit more than the maximum
//! together, and refuse only what the remote store refuses.

mod histories;
mod slices;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use toolgate::charge::{Charge, CounterId, Meter, Span, Subject};
use toolgate::store::{
    AsyncCounterStore, ChargeChange, CounterStore, LeasedStore, MemoryStore, Outcome, ReservationId, ReserveRequest,
    SettleRequest, StoreError, StoreFuture, Tallies, Tally,
};
use toolgate::{Amount, Policy, Timestamp, ToolCall};

use crate::polling::{poll_once, ready};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;

/// The fault of the next request to the remote store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The request never arrives.
    Lost,
    /// The request is carried out, and its answer is lost.
    AnswerLost,
    /// The request is carried out, and its answer never comes: the caller goes away.
    Hangs,
}

/// A store as if across a network. It counts requests, and fails on demand.
#[derive(Default)]
struct Remote {
    store: MemoryStore,
    requests: AtomicU64,
    down: AtomicBool,
    fault: Mutex<Option<Fault>>,
}

impl Remote {
    fn answer<'a, T: Send + 'a>(&self, ask: impl FnOnce() -> Result<T, StoreError>) -> StoreFuture<'a, T> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let fault = self.fault.lock().unwrap().take();
        let fault = if self.down.load(Ordering::Relaxed) { Some(Fault::Lost) } else { fault };
        if fault == Some(Fault::Lost) {
            return Box::pin(std::future::ready(Err(StoreError::unavailable("lost"))));
        }
        let answer = ask();
        match fault {
            None => Box::pin(std::future::ready(answer)),
            Some(Fault::Hangs) => Box::pin(std::future::pending()),
            Some(_) => Box::pin(std::future::ready(Err(StoreError::unavailable("lost")))),
        }
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn fail_next(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// Returns the state of a counter without a counted request.
    fn tally(&self, charge: &Charge, now: i64) -> Tally {
        let request = [charge.clone()];
        let outcome = self.store.peek(&ReserveRequest::new(ReservationId::new(0), at(now), &request)).unwrap();
        outcome.tallies()[0]
    }
}

impl AsyncCounterStore for Remote {
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        self.answer(|| self.store.reserve(request))
    }

    fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        self.answer(|| {
            let outcome = self.store.peek(request)?;
            // The retry time of a charge that has room has no meaning, so it is left out.
            let silent = |(tally, charge): (&Tally, &Charge)| {
                let mut tally = *tally;
                tally.retry_at = tally.retry_at.filter(|_| !tally.has_room(charge));
                tally
            };
            let tallies = outcome.tallies().iter().zip(request.charges).map(silent).collect();
            Ok(if matches!(outcome, Outcome::Granted(_)) {
                Outcome::Granted(tallies)
            } else {
                Outcome::Refused(tallies)
            })
        })
    }

    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()> {
        self.answer(|| self.store.settle(request))
    }

    fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> StoreFuture<'a, ()> {
        self.answer(|| self.store.reset(counter, subject))
    }

    fn abandon(&self, request: &SettleRequest<'_>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.store.settle(request).unwrap();
    }
}

/// Returns charges of three fixed windows and a sliding one, for a caller.
fn templates(caller: &str) -> Vec<Charge> {
    let limit = |name: &str, more: serde_json::Value| {
        let mut limit = json!({ "counter": name, "window": "minute", "max": 1, "scope": "session" });
        limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        limit
    };
    let limits = [
        limit("a", json!({})),
        limit("b", json!({})),
        limit("c", json!({ "scope": "global" })),
        limit("s", json!({ "algorithm": "sliding" })),
    ];
    let document = json!({ "version": "1", "default": "deny", "tools": { "t": { "limits": limits } } });
    let policy = Policy::from_json(&document.to_string()).unwrap();
    crate::gate::recorded_charges::charges(policy, &ToolCall::new("t", &json!({})).session(caller))
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros)
}

fn units(units: u64) -> Amount {
    Amount::from_micros(units * 1_000_000).unwrap()
}

/// Returns a charge like the template, with this amount and in the minute of `now`.
fn charge(template: &Charge, amount: u64, max: Option<u64>, now: i64) -> Charge {
    let start = now.div_euclid(MINUTE) * MINUTE;
    let meter = match template.meter {
        Meter::Fixed(_) => Meter::Fixed(Span { start: at(start), end: at(start + MINUTE) }),
        other => other,
    };
    let mut charge = template.clone();
    (charge.amount, charge.max, charge.meter) = (units(amount), max.map(units), meter);
    charge
}

fn next_id() -> ReservationId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    ReservationId::new(NEXT.fetch_add(1, Ordering::Relaxed).into())
}

type Node = LeasedStore<Arc<Remote>>;

/// A node that takes slices as soon as it can.
fn node(remote: &Arc<Remote>) -> Node {
    LeasedStore::new(Arc::clone(remote)).with_share(4)
}

fn reserve<S: AsyncCounterStore>(store: &S, now: i64, charges: &[Charge]) -> Result<Outcome, StoreError> {
    ready(store.reserve(&ReserveRequest::new(next_id(), at(now), charges)))
}

fn granted<S: AsyncCounterStore>(store: &S, now: i64, charges: &[Charge]) -> bool {
    matches!(reserve(store, now, charges), Ok(Outcome::Granted(_)))
}

fn settle<S: AsyncCounterStore>(
    store: &S,
    now: i64,
    charges: &[Charge],
    tallies: &Tallies,
    to: u64,
) -> Option<Result<(), StoreError>> {
    let changes: Vec<_> = charges
        .iter()
        .zip(tallies)
        .map(|(charge, tally)| ChargeChange::new(charge, tally.charged_at, units(to)))
        .collect();
    poll_once(store.settle(&SettleRequest::new(next_id(), 1, at(now), &changes)))
}

/// Returns the start of the window that was charged.
fn window(tally: &Tally) -> i64 {
    tally.charged_at.instant.unix_micros().div_euclid(SECOND) * SECOND
}
