//! One integration binary: a module for each capability.

mod generate;
mod model;
mod properties;
mod samples;
mod vectors;

#[path = "../../examples/trace/mod.rs"]
mod trace;
