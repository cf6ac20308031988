//! The single-file examples: those that are programs are run, the others serve in this process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that finds what it does not expect should stop"
)]

mod axum_service;
mod layer;
mod lengths;
mod programs;
mod proxy;
mod server;

#[expect(dead_code, reason = "`main` is for the program")]
#[path = "../../examples/axum.rs"]
mod example_axum;
#[expect(dead_code, reason = "`main` is for the program")]
#[path = "../../examples/rmcp_proxy.rs"]
mod example_rmcp_proxy;
#[expect(dead_code, reason = "`main` is for the program")]
#[path = "../../examples/tower_layer.rs"]
mod example_tower_layer;
