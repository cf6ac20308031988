//! Benchmarks of the crate. `cargo bench --bench main` measures all of them, a word after `--` only
//! those with the word in their names, and `-- --test` runs each once. Compare a figure with the
//! others of its group, on a machine that is otherwise idle. `peers/` compares the crate with other
//! crates, and `memory.rs` measures memory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot start should stop"
)]

mod audit;
mod compile;
mod counters;
mod decide;
mod evaluate;
mod floor;
mod leased;
mod store;
mod workload;

use criterion::{criterion_group, criterion_main};

/// Returns the number of callers: `many`, or at most a thousand if nothing is measured (`--test`,
/// `cargo test`).
fn callers(many: usize) -> usize {
    let measures = std::env::args().any(|argument| argument == "--bench");
    if measures && std::env::args().all(|argument| argument != "--test") { many } else { many.min(1_000) }
}

fn callers_name(many: usize) -> String {
    format!("{many} callers")
}

criterion_group!(
    benches,
    evaluate::names_alone,
    evaluate::conditions,
    evaluate::long_lists,
    evaluate::many_entries,
    store::reserve,
    store::reserve_and_settle,
    leased::reserve,
    decide::one_thread,
    decide::released,
    decide::two_threads,
    compile::one_policy,
    compile::many_entries,
    audit::verify_a_log,
);
criterion_main!(benches);
