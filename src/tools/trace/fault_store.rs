//! An in-memory counter store that can be made to fail.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::charge::{CounterId, Subject};
use crate::store::{CounterStore, MemoryStore, Outcome, ReserveRequest, SettleRequest, StoreError};

/// An in-memory counter store that can be made to fail.
#[derive(Debug, Default)]
pub struct FaultStore {
    counters: MemoryStore,
    down: AtomicBool,
}

impl FaultStore {
    /// Makes the store fail from here on, or answer again. It keeps its counts.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    fn reach(&self) -> Result<&MemoryStore, StoreError> {
        if self.down.load(Ordering::Relaxed) {
            Err(StoreError::unavailable("switched off"))
        } else {
            Ok(&self.counters)
        }
    }
}

impl CounterStore for FaultStore {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.reach()?.reserve(request)
    }

    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.reach()?.peek(request)
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        self.reach()?.settle(request)
    }

    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        self.reach()?.reset(counter, subject)
    }
}
