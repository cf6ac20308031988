//! The time of a `reserve` that a slice serves, and of a `reserve` of the memory store.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use criterion::Criterion;
use toolgate::store::{AsyncCounterStore, InProcess, LeasedStore, MemoryStore, Outcome, ReserveRequest};

use crate::counters::{Request, RequestRecorder};
use crate::workload::{self, Limits, Ring};
use crate::{callers, callers_name};

/// Sends the same requests to the memory store, to slices without a future, and to slices through
/// the future that a gate awaits. This includes requests for new slices; the inner store answers
/// them at once.
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
                let request = requests.next().borrow();
                let outcome = leased.try_reserve(&request).or_else(|| poll_reserve(&leased, &request));
                assert!(matches!(outcome, Some(Outcome::Granted(_))));
            });
        });
        group.bench_function("from a slice, awaited", |b| {
            b.iter(|| {
                let outcome = poll_reserve(&leased, &requests.next().borrow());
                assert!(matches!(outcome, Some(Outcome::Granted(_))));
            });
        });
        group.finish();
    }
}

/// Polls the future of `reserve` once.
fn poll_reserve<S: AsyncCounterStore>(store: &S, request: &ReserveRequest<'_>) -> Option<Outcome> {
    match pin!(store.reserve(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome.ok(),
        Poll::Pending => None,
    }
}

/// Returns the requests of a thousand callers.
fn requests(limits: Limits) -> Ring<Request> {
    let recorder = RequestRecorder::new(limits);
    Ring::new(workload::callers(callers(1_000)).items().iter().map(|caller| recorder.request_of(caller)).collect())
}
