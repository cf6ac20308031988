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
mod approvals;
mod audit;
mod audit_log;
#[cfg(feature = "conformance")]
mod counting;
mod decide;
mod diff;
#[cfg(feature = "conformance")]
mod faults;
mod gate;
mod generate;
mod grants;
mod leased;
mod mcp;
mod model;
#[cfg(feature = "conformance")]
mod naive;
mod permits;
mod properties;
mod recorder;
#[cfg(feature = "redis")]
mod redis;
mod samples;
mod schema;
mod session;
mod shadow;
mod signed;
#[cfg(feature = "conformance")]
mod stores;
#[cfg(feature = "tracing")]
mod tracing;
mod vectors;
mod walls;

#[path = "../../examples/trace/mod.rs"]
mod trace;
