//! The time to count in memory, without a policy and a clock.

use criterion::Criterion;

use crate::counters::StoreWorkload;
use crate::workload::Limits;
use crate::{callers, callers_name};

/// Reserves on one counter, on three of one subject, and on three of three subjects, each in one
/// atomic step. The counters of a million callers do not fit into the caches.
pub(crate) fn reserve(c: &mut Criterion) {
    for many in [1_000, 1_000_000] {
        let mut group = c.benchmark_group(format!("reserve {}", callers_name(many)));
        for limits in [Limits::One, Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes] {
            let mut workload = None;
            group.bench_function(limits.name(), |b| {
                let workload = workload.get_or_insert_with(|| StoreWorkload::new(limits, callers(many)));
                b.iter(|| workload.reserve());
            });
        }
        group.finish();
    }
}

/// Reserves, and settles.
pub(crate) fn reserve_and_settle(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("reserve and settle {}", callers_name(1_000)));
    for limits in [Limits::One, Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes] {
        let mut workload = None;
        group.bench_function(limits.name(), |b| {
            let workload = workload.get_or_insert_with(|| StoreWorkload::new(limits, callers(1_000)));
            b.iter(|| workload.reserve_and_settle());
        });
    }
    group.finish();
}
