//! What does a reserve cost that a slice serves, beside one of the store in memory?

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use criterion::Criterion;
use toolgate::store::{AsyncCounterStore, InProcess, LeasedStore, MemoryStore, Outcome, ReserveRequest};

use crate::counters::{Request, Requests};
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
                assert!(requests.next().reserve(&memory));
            });
        });
        let leased = LeasedStore::new(InProcess(MemoryStore::new())).with_calls(u32::MAX);
        group.bench_function("from a slice", |b| {
            b.iter(|| {
                let request = requests.next().ask();
                let outcome = leased.try_reserve(&request).or_else(|| ask(&leased, &request));
                assert!(matches!(outcome, Some(Outcome::Granted(_))));
            });
        });
        group.bench_function("from a slice, awaited", |b| {
            b.iter(|| {
                let outcome = ask(&leased, &requests.next().ask());
                assert!(matches!(outcome, Some(Outcome::Granted(_))));
            });
        });
        group.finish();
    }
}

fn ask<S: AsyncCounterStore>(store: &S, request: &ReserveRequest<'_>) -> Option<Outcome> {
    match pin!(store.reserve(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome.ok(),
        Poll::Pending => None,
    }
}

/// The requests of a thousand callers, or of a few where nothing is measured.
fn requests(limits: Limits) -> Ring<Request> {
    let requests = Requests::new(limits);
    Ring::new(workload::callers(callers(1_000)).items().iter().map(|caller| requests.of(caller)).collect())
}
