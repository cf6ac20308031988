//! The time of a whole decision: policy, clock and counters.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use toolgate::{Clock, Decision, Gate, SystemClock};

use crate::counters::{GateWorkload, PreparedCallers};
use crate::workload::{Caller, Limits};
use crate::{callers, callers_name};

/// Decides with no limit, one limit and three limits, and reads the clock alone. The counters of a
/// million callers do not fit into the caches.
pub(crate) fn one_thread(c: &mut Criterion) {
    for many in [1_000, 1_000_000] {
        let mut group = c.benchmark_group(format!("decide {}", callers_name(many)));
        group.bench_function("floor: the clock", |b| b.iter(|| SystemClock.now()));
        for limits in [Limits::None, Limits::One, Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes] {
            let mut workload = None;
            group.bench_function(limits.name(), |b| {
                let workload = workload.get_or_insert_with(|| GateWorkload::new(limits, callers(many)));
                b.iter(|| workload.decide());
            });
            let mut prepared = None;
            group.bench_function(format!("{}, prepared callers", limits.name()), |b| {
                let prepared = prepared.get_or_insert_with(|| PreparedCallers::new(limits, callers(many)));
                b.iter(|| prepared.decide());
            });
        }
        group.finish();
    }
}

/// Decides a call, and releases its charges.
pub(crate) fn released(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("decide and release {}", callers_name(1_000)));
    for limits in [Limits::One, Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes] {
        let mut workload = GateWorkload::new(limits, callers(1_000));
        group.bench_function(limits.name(), |b| {
            b.iter(|| {
                let call = workload.callers.next().call(workload.tools.next(), &workload.arguments);
                let Decision::Allow(permit) = workload.gate.check(&call) else { panic!("there is room") };
                permit.release();
            });
        });
    }
    group.finish();
}

/// Decides on one thread and on two, with separate callers and with one shared caller.
pub(crate) fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide on threads");
    for limits in [Limits::One, Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes] {
        for (keys, shared) in [("own callers", false), ("one caller", true)] {
            for threads in [1, 2] {
                let workload = GateWorkload::new(limits, callers(1_000));
                group.throughput(Throughput::Elements(threads as u64));
                let id = BenchmarkId::new(format!("{}, {keys}", limits.name()), format!("{threads} threads"));
                group.bench_function(id, |b| {
                    b.iter_custom(|calls| on_threads(&workload, threads, shared, calls));
                });
            }
        }
    }
    group.finish();
}

/// Decides `calls` calls on each thread, and returns the time from the first start to the last end.
fn on_threads(workload: &GateWorkload, threads: usize, shared: bool, calls: u64) -> Duration {
    let GateWorkload { gate, tools, callers, arguments } = workload;
    let start = Barrier::new(threads);
    let work = |callers: &[Caller]| {
        let mut callers = callers.iter().cycle();
        let mut tools = tools.items().iter().cycle();
        start.wait();
        let began = Instant::now();
        for _ in 0..calls {
            let (Some(caller), Some(tool)) = (callers.next(), tools.next()) else { break };
            decide(gate, caller, tool, arguments);
        }
        (began, Instant::now())
    };
    let share = callers.items().len() / threads;
    let spans: Vec<_> = thread::scope(|scope| {
        let parts = callers.items().chunks(share).take(threads);
        let parts = parts.map(|part| if shared { &callers.items()[..1] } else { part });
        let handles: Vec<_> = parts.map(|part| scope.spawn(|| work(part))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    let (began, ended) = (spans.iter().map(|span| span.0).min(), spans.iter().map(|span| span.1).max());
    began.zip(ended).map_or(Duration::ZERO, |(began, ended)| ended - began)
}

fn decide(gate: &Gate, caller: &Caller, tool: &str, arguments: &serde_json::Value) {
    assert!(gate.check(black_box(&caller.call(tool, arguments))).is_allowed());
}
