//! The time to load a policy.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use toolgate::Policy;

use crate::floor;
use crate::workload::{self, DESCRIPTION};

/// Loads a document of each kind, with the positions of issues and everything that decisions need.
/// The target: at most three times what `serde` takes to deserialize it into structs.
pub(crate) fn one_policy(c: &mut Criterion) {
    let documents = [
        ("bare entries", workload::w1(workload::ENTRIES), None),
        ("bare entries and a regex", workload::w2(), Some(DESCRIPTION)),
        ("entries with rules", workload::mixed(workload::ENTRIES), None),
    ];
    for (name, text, regex) in documents {
        let mut group = c.benchmark_group(format!("load 359 {name}"));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function("floor: serde into structs", |b| {
            b.iter(|| floor::load(black_box(&text), black_box(regex)))
        });
        group.bench_function("toolgate", |b| b.iter(|| Policy::from_json(black_box(&text)).unwrap()));
        group.finish();
    }
}

/// Loads documents of different sizes. The target: linear in the number of entries.
pub(crate) fn many_entries(c: &mut Criterion) {
    let mut group = c.benchmark_group("load bare entries");
    group.sample_size(20);
    for entries in [100, 1_000, 10_000, 100_000] {
        let text = workload::w1(entries);
        group.throughput(Throughput::Elements(entries as u64));
        group.bench_with_input(BenchmarkId::new("floor: serde into structs", entries), &text, |b, text| {
            b.iter(|| floor::load(black_box(text), None));
        });
        group.bench_with_input(BenchmarkId::new("toolgate", entries), &text, |b, text| {
            b.iter(|| Policy::from_json(black_box(text)).unwrap());
        });
    }
    group.finish();
}
