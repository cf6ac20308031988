//! What the crate costs. `cargo bench --bench main` measures everything, a word after `--` what has it in its name, and
//! `-- --test` runs each once. A figure counts beside its neighbour of the same group, on a machine that is otherwise
//! idle; the comparison with other crates is in `peers/`, memory in `memory.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that cannot start should stop"
)]

mod compile;
mod counters;
mod decide;
mod evaluate;
mod floor;
mod leased;
mod store;
mod workload;

use criterion::{criterion_group, criterion_main};

/// So many callers, or a few where nothing is measured (`--test`, `cargo test`).
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
    evaluate::many_entries,
    store::reserve,
    store::reserve_and_settle,
    leased::reserve,
    decide::one_thread,
    decide::released,
    decide::two_threads,
    compile::one_policy,
    compile::many_entries,
);
criterion_main!(benches);
