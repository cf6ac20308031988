//! The time to evaluate a call under a policy, without counters.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use serde_json::{Value, json};
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

/// Compares the elements of a list with the values of another. The target: at most twice the time
/// to parse the message.
pub(crate) fn long_lists(c: &mut Criterion) {
    let listed: Vec<u32> = (10..1_010).collect();
    let condition = json!({ "path": "args.ids[*]", "op": "in", "value": listed });
    let all_tools = json!({ "deny_if": [{ "conditions": [condition] }] });
    let policy = json!({ "version": "1", "default": "allow", "all_tools": all_tools });
    let policy = Policy::try_from(&policy).unwrap();
    let mut group = c.benchmark_group("evaluate long lists");
    // Past 1,000 elements, there are too many pairs to decide.
    for elements in [1_000, 500_000] {
        let text = json!({ "ids": vec![1; elements] }).to_string();
        let arguments: Value = serde_json::from_str(&text).unwrap();
        group.bench_function(BenchmarkId::new("floor: parse the message", elements), |b| {
            b.iter(|| serde_json::from_str::<Value>(black_box(&text)).unwrap());
        });
        group.bench_function(BenchmarkId::new("toolgate", elements), |b| {
            b.iter(|| {
                let call = ToolCall::new("t", &arguments);
                assert_eq!(policy.evaluate(black_box(&call), NOW).is_allowed(), elements == 1_000);
            });
        });
    }
    group.finish();
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
