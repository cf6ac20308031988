//! What does a whole decision cost: policy, clock and counters?

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use toolgate::{Clock, Decision, Gate, SystemClock};

use crate::counters::{Counted, Ready};
use crate::workload::{Caller, Limits};
use crate::{callers, callers_name};

/// What does a decision cost with no limit, with one and with three, and how much of it is the clock? And with more
/// counters than the caches hold?
pub(crate) fn one_thread(c: &mut Criterion) {
    for many in [1_000, 1_000_000] {
        let mut group = c.benchmark_group(format!("decide {}", callers_name(many)));
        group.bench_function("floor: the clock", |b| b.iter(|| SystemClock.now()));
        for limits in [Limits::None, Limits::One, Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes] {
            let mut counted = None;
            group.bench_function(limits.name(), |b| {
                let counted = counted.get_or_insert_with(|| Counted::new(limits, callers(many)));
                b.iter(|| counted.decide());
            });
            let mut ready = None;
            group.bench_function(format!("{}, ready callers", limits.name()), |b| {
                let ready = ready.get_or_insert_with(|| Ready::new(limits, callers(many)));
                b.iter(|| ready.decide());
            });
        }
        group.finish();
    }
}

/// What does it cost to give back what a decision has spent?
pub(crate) fn released(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("decide and release {}", callers_name(1_000)));
    for limits in [Limits::One, Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes] {
        let mut counted = Counted::new(limits, callers(1_000));
        group.bench_function(limits.name(), |b| {
            b.iter(|| {
                let call = counted.callers.next().call(counted.tools.next(), &counted.arguments);
                let Decision::Allow(permit) = counted.gate.check(&call) else { panic!("there is room") };
                permit.release();
            });
        });
    }
    group.finish();
}

/// How much do two threads decide together: with callers of their own, and with one caller for both?
pub(crate) fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide on threads");
    for limits in [Limits::One, Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes] {
        for (keys, shared) in [("own callers", false), ("one caller", true)] {
            for threads in [1, 2] {
                let counted = Counted::new(limits, callers(1_000));
                group.throughput(Throughput::Elements(threads as u64));
                let id = BenchmarkId::new(format!("{}, {keys}", limits.name()), format!("{threads} threads"));
                group.bench_function(id, |b| {
                    b.iter_custom(|calls| on_threads(&counted, threads, shared, calls));
                });
            }
        }
    }
    group.finish();
}

/// Lets each thread decide so many calls, and tells how long it took until the last was done.
fn on_threads(counted: &Counted, threads: usize, shared: bool, calls: u64) -> Duration {
    let Counted { gate, tools, callers, arguments } = counted;
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
