//! Tools over policies alone: they know no gate and no counters.

pub mod lint;
