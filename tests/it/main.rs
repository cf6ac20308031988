//! One integration binary: a module for each capability.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that finds what it does not expect should stop"
)]

mod allocations;
mod decide;
mod gate;
mod generate;
mod model;
mod properties;
#[cfg(feature = "redis")]
mod redis;
mod samples;
mod schema;
mod vectors;
mod walls;

#[path = "../../examples/trace/mod.rs"]
mod trace;
