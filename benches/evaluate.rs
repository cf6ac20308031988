//! The time to evaluate a call under a policy, without counters.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use toolgate::{Policy, Timestamp, ToolCall};

use crate::floor::{Conditions, Names};
use crate::workload::{self, CHARGE, ENTRIES};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

/// Evaluates a policy that lists names only. The target: at most twice one hash and look-up.
pub(crate) fn names_alone(c: &mut Criterion) {
    let policy = Policy::from_json(&workload::w1(ENTRIES)).unwrap();
    let floor = Names::new(ENTRIES);
    let arguments = workload::arguments();
    for (name, allowed) in [("evaluate W1 allowed", true), ("evaluate W1 denied", false)] {
        let mut names = workload::names(ENTRIES, if allowed { workload::tool_name } else { workload::unknown_name });
        let mut group = c.benchmark_group(name);
        group.bench_function("floor: one look-up", |b| {
            b.iter(|| assert_eq!(floor.allows(black_box(names.next())), allowed));
        });
        group.bench_function("toolgate", |b| {
            b.iter(|| {
                let call = ToolCall::new(names.next(), &arguments);
                assert_eq!(policy.evaluate(black_box(&call), NOW).is_allowed(), allowed);
            });
        });
        group.finish();
    }
}

/// Evaluates four conditions on arguments. The target: at most 1.3 times four look-ups and the
/// regular expression.
pub(crate) fn conditions(c: &mut Criterion) {
    let policy = Policy::from_json(&workload::w2()).unwrap();
    let floor = Conditions::new();
    for (name, allowed) in [("evaluate W2 allowed", true), ("evaluate W2 denied", false)] {
        let arguments = workload::charge_arguments(allowed);
        let mut group = c.benchmark_group(name);
        group.bench_function("floor: look-ups and regex", |b| {
            b.iter(|| assert_eq!(floor.allows(black_box(CHARGE), black_box(&arguments)), allowed));
        });
        group.bench_function("toolgate", |b| {
            b.iter(|| {
                let call = ToolCall::new(CHARGE, &arguments);
                assert_eq!(policy.evaluate(black_box(&call), NOW).is_allowed(), allowed);
            });
        });
        group.finish();
    }
}

/// Evaluates policies of different sizes. The target: a larger policy costs only cache misses.
pub(crate) fn many_entries(c: &mut Criterion) {
    let mut group = c.benchmark_group("evaluate W1 by entries");
    let arguments = workload::arguments();
    for entries in [10, ENTRIES, 100_000] {
        let policy = Policy::from_json(&workload::w1(entries)).unwrap();
        let floor = Names::new(entries);
        let mut names = workload::names(entries, workload::tool_name);
        group.bench_function(BenchmarkId::new("floor: one look-up", entries), |b| {
            b.iter(|| assert!(floor.allows(black_box(names.next()))));
        });
        group.bench_function(BenchmarkId::new("toolgate", entries), |b| {
            b.iter(|| {
                let call = ToolCall::new(names.next(), &arguments);
                assert!(policy.evaluate(black_box(&call), NOW).is_allowed());
            });
        });
    }
    group.finish();
}
