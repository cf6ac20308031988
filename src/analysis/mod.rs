//! Tools over policies alone: no gate, no store, no clock.

pub mod diff;
pub mod lint;
