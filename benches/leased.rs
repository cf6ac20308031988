//! What does a reserve cost that a slice serves, beside one of the store in memory?

use std::sync::Arc;

use criterion::Criterion;
use toolgate::store::{InProcess, LeasedStore, MemoryStore};

use crate::counters::{Requests, poll_leased, try_leased};
use crate::workload::{self, Limits, Ring};

/// The same requests, of 1,000 callers: to the store in memory, to a slice without a future, and to a slice by the future that a
/// gate awaits.
pub(crate) fn reserve(c: &mut Criterion) {
}
