//! What does a reserve cost that a slice serves, beside one of the store in memory?

use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use criterion::Criterion;
use toolgate::charge::{Charges, CounterId, Subject};
use toolgate::store::{
    AsyncCounterStore, CounterStore, InProcess, LeasedStore, MemoryStore, Outcome, ReservationId, Reserve, Settle,
    StoreError, Tally,
};
use toolgate::{Gate, Policy, Timestamp};

use crate::workload::{self, Limits, Ring};
use crate::{callers, callers_name};

/// The same requests to the store in memory, to slices without a future, and to slices by the future that a gate awaits. Slices are
/// asked for in between, as they run out: the inner store answers at once.
pub(crate) fn reserve(c: &mut Criterion) {
    for limits in [Limits::One, Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes] {
        let mut group = c.benchmark_group(format!("leased, {}, {}", limits.name(), callers_name(1_000)));
        let mut requests = requests(limits);
        let memory = MemoryStore::new();
        group.bench_function("in memory", |b| {
            b.iter(|| {
                let (now, charges) = requests.next();
                let outcome = memory.reserve(&Reserve::new(ReservationId::new(1), *now, charges));
                assert!(matches!(outcome, Ok(Outcome::Granted(_))));
            });
        });
        let leased = LeasedStore::new(InProcess(MemoryStore::new())).with_calls(u32::MAX);
        group.bench_function("from a slice", |b| {
            b.iter(|| {
                let (now, charges) = requests.next();
                let request = Reserve::new(ReservationId::new(1), *now, charges);
                let outcome = leased.try_reserve(&request).or_else(|| ask(&leased, &request));
                assert!(matches!(outcome, Some(Outcome::Granted(_))));
            });
        });
        group.bench_function("from a slice, awaited", |b| {
            b.iter(|| {
                let (now, charges) = requests.next();
                let outcome = ask(&leased, &Reserve::new(ReservationId::new(1), *now, charges));
                assert!(matches!(outcome, Some(Outcome::Granted(_))));
            });
        });
        group.finish();
    }
}

fn ask<S: AsyncCounterStore>(store: &S, request: &Reserve<'_>) -> Option<Outcome> {
    match pin!(store.reserve(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome.ok(),
        Poll::Pending => None,
    }
}

/// The requests that a gate would make. Charges come from policies alone, so a gate writes them down.
fn requests(limits: Limits) -> Ring<(Timestamp, Charges)> {
    let policy = Policy::from_json(&limits.document()).unwrap();
    let gate = Gate::builder().policy(policy).store(Recorder::default()).build();
    let arguments = workload::arguments();
    let request = |caller: &workload::Caller| {
        assert!(gate.check(&caller.call(&workload::tool_name(0), &arguments)).is_allowed());
        gate.store().0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap()
    };
    Ring::new(workload::callers(callers(1_000)).items().iter().map(request).collect())
}

/// A store that counts nothing and keeps the last request.
#[derive(Default)]
struct Recorder(Mutex<Option<(Timestamp, Charges)>>);

impl CounterStore for Recorder {
    fn reserve(&self, request: &Reserve<'_>) -> Result<Outcome, StoreError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((request.now, request.charges.into()));
        Ok(Outcome::Granted(request.charges.iter().map(|c| Tally::unused(&c.meter, request.now)).collect()))
    }

    fn peek(&self, request: &Reserve<'_>) -> Result<Outcome, StoreError> {
        self.reserve(request)
    }

    fn settle(&self, _: &Settle<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn reset(&self, _: CounterId, _: &Subject) -> Result<(), StoreError> {
        Ok(())
    }
}
