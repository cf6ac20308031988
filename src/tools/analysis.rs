//! Tools over policies alone: no gate, no store, no clock.

pub use super::{diff, lint};
