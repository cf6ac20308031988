//! The memory of policies and counters: `cargo bench --bench memory`. A number after `--` sets the
//! number of callers, which is a million by default.
//!
//! This is a separate binary, because the counting allocator slows every allocation down. A buffer
//! that moves while it grows counts twice for a moment, so a peak is the worst case of a process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot start should stop"
)]

#[allow(dead_code, reason = "the other benchmarks use the rest")]
mod counters;
#[allow(dead_code, reason = "the other benchmarks use the rest")]
mod workload;

use std::hint::black_box;
use std::time::{Duration, Instant};

use allocation_counter::{AllocationInfo, measure};
use toolgate::store::MemoryStore;
use toolgate::{Gate, ManualClock, Policy, Timestamp};
use workload::{ENTRIES, Limits};

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let measures = arguments.iter().any(|argument| argument == "--bench") && arguments.iter().all(|a| a != "--test");
    let requested = arguments.iter().find_map(|argument| argument.parse().ok());
    let callers = requested.unwrap_or(if measures { 1_000_000 } else { 1_000 });
    policies();
    live_counters(callers);
    churn(if measures { 200_000 } else { 200 });
}

/// Measures compiled policies. The target: a policy, and the peak while it is read, stay below five
/// times the size of its text.
fn policies() {
    println!("{:<34}{:>12}{:>20}{:>20}{:>14}", "policy", "text", "retained", "peak while loading", "allocations");
    for (name, text) in [
        ("359 bare entries", workload::w1(ENTRIES)),
        ("359 bare entries and a regex", workload::w2()),
        ("359 entries with rules", workload::mixed(ENTRIES)),
        ("10,000 entries with rules", workload::mixed(10_000)),
        ("10,000 bare entries", workload::w1(10_000)),
        ("100,000 bare entries", workload::w1(100_000)),
    ] {
        // The first policy also allocates what the whole process shares.
        drop(Policy::from_json(&text));
        let (used, policy) = measured(|| Policy::from_json(&text).unwrap());
        let times = |bytes: f64| format!("{:.0} KB {:6.2} ×", bytes / 1e3, bytes / text.len() as f64);
        println!(
            "{name:<34}{:>12}{:>20}{:>20}{:>14}",
            format!("{:.0} KB", text.len() as f64 / 1e3),
            times(used.bytes_current as f64),
            times(used.bytes_max as f64),
            used.count_total
        );
        drop(policy);
    }
}

/// Measures the bytes of a live counter, including its key and the empty slots of the table.
fn live_counters(callers: usize) {
    println!("\n{:<34}{:>12}{:>20}{:>20}", "live counters", "counters", "bytes per counter", "peak per counter");
    for limits in [Limits::One, Limits::ThreeOfOneScope, Limits::ThreeOfThreeScopes] {
        let gate = gate(limits, callers * limits.counters() + 1, ManualClock::new(START));
        let arguments = workload::arguments();
        let tool = workload::tool_name(0);
        let (used, ()) = measured(|| {
            for index in 0..callers {
                let caller = workload::Caller::new(index);
                assert!(gate.check(&caller.call(&tool, &arguments)).is_allowed());
            }
        });
        let counters = gate.store().len();
        let each = |bytes: f64| format!("{:.1}", bytes / counters as f64);
        let (now, peak) = (each(used.bytes_current as f64), each(used.bytes_max as f64));
        println!("{:<34}{counters:>12}{now:>20}{peak:>20}", limits.name());
    }
}

/// Measures the memory and the slowest call while expired counters make room for new ones, a few at
/// a time: a hundred windows, each with callers that no other window has.
fn churn(live: usize) {
    let window = Duration::from_secs(60);
    let policy = r#"{"version":"1","default":"allow","all_tools":{"limits":[
        {"counter":"calls","window":"minute","max":10,"scope":"grant"}]}}"#;
    let clock = ManualClock::new(START);
    let gate = Gate::builder().policy(Policy::from_json(policy).unwrap()).clock(clock.clone()).build();
    let (tool, arguments) = (workload::tool_name(0), workload::arguments());
    let (mut held, mut slow, mut slowest) = (0, 0, Duration::ZERO);
    let (used, ()) = measured(|| {
        for index in 0..100 * live {
            clock.advance(window / u32::try_from(live).unwrap());
            let caller = workload::Caller::new(index);
            let call = caller.call(&tool, &arguments);
            let began = Instant::now();
            let decision = black_box(gate.check(&call));
            let took = began.elapsed();
            assert!(decision.is_allowed());
            slowest = slowest.max(took);
            slow += usize::from(took > Duration::from_micros(50));
            held = held.max(gate.store().len());
        }
    });
    println!("\nchurn: {} callers, {live} of them live at a time", 100 * live);
    println!(
        "  at most {held} held, {:.2} × live, in {:.0} KB at most",
        held as f64 / live as f64,
        used.bytes_max as f64 / 1e3
    );
    println!(
        "  slowest call {slowest:?}; {slow} calls took more than 50 µs, including those that the machine interrupted"
    );
}

const START: Timestamp = Timestamp::from_unix_seconds(1_768_435_200);

fn gate(limits: Limits, capacity: usize, clock: ManualClock) -> Gate {
    let policy = Policy::from_json(&limits.document()).unwrap();
    Gate::builder().policy(policy).store(MemoryStore::with_capacity(capacity)).clock(clock).build()
}

/// Returns the allocations of `make`, and its result.
fn measured<T>(make: impl FnOnce() -> T) -> (AllocationInfo, T) {
    let mut made = None;
    let used = measure(|| made = Some(make()));
    (used, made.unwrap())
}
