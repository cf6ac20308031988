//! Counters: each counting algorithm, and the naive store that the real stores are compared with.

mod algorithms;
pub(crate) mod naive_store;
