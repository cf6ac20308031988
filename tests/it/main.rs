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
mod attacks;
mod audit;
mod audit_log;
mod callers;
#[cfg(feature = "conformance")]
mod counting;
mod decide;
mod diff;
mod explain;
#[cfg(feature = "conformance")]
mod faults;
mod gate;
#[cfg(target_os = "linux")]
mod gateway;
mod generate;
mod grants;
#[cfg(unix)]
mod http_gateway;
mod intercept;
mod intercept_engine;
mod issues;
mod leased;
mod lint;
mod mcp;
mod model;
#[cfg(feature = "conformance")]
mod naive;
mod permits;
mod properties;
mod reach;
mod recommend;
mod recorder;
#[cfg(feature = "redis")]
mod redis;
mod replay;
mod samples;
mod schema;
mod session;
mod shadow;
mod shown;
mod signed;
mod slips;
#[cfg(feature = "conformance")]
mod stores;
mod testing;
#[cfg(feature = "tracing")]
mod tracing;
mod vectors;
mod walls;

#[path = "../../examples/yaml/mod.rs"]
mod yaml;
