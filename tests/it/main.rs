//! One integration test binary, with a module for each part of the crate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that finds what it does not expect should stop"
)]

mod approvals;
mod command;
mod counting;
mod docs;
mod edge;
mod gate;
mod language;
mod model;
mod polling;
mod stores;
mod tools;

#[path = "../../src/bin/toolgate/yaml.rs"]
mod yaml;
