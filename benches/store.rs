//! What does it cost to count in memory, without a policy and a clock?

use criterion::Criterion;

use crate::counters::Stored;
use crate::workload::Limits;
use crate::{callers, callers_name};

/// What does one atomic step over one counter, over three of one subject and over three of three subjects cost, with
/// counters that the caches hold and with such that they do not?
pub(crate) fn reserve(c: &mut Criterion) {
    for many in [1_000, 1_000_000] {
        let mut group = c.benchmark_group(format!("reserve {}", callers_name(many)));
        for limits in [Limits::One, Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes] {
            let mut stored = None;
            group.bench_function(limits.name(), |b| {
                let stored = stored.get_or_insert_with(|| Stored::new(limits, callers(many)));
                b.iter(|| stored.reserve());
            });
        }
        group.finish();
    }
}

/// What does it cost to reserve and then to settle?
pub(crate) fn reserve_and_settle(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("reserve and settle {}", callers_name(1_000)));
    for limits in [Limits::One, Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes] {
        let mut stored = None;
        group.bench_function(limits.name(), |b| {
            let stored = stored.get_or_insert_with(|| Stored::new(limits, callers(1_000)));
            b.iter(|| stored.reserve_and_settle());
        });
    }
    group.finish();
}
