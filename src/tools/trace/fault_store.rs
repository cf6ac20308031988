//! Counters in memory that can be made to fail.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::charge::{CounterId, Subject};
use crate::store::{CounterStore, MemoryStore, Outcome, Reserve, Settle, StoreError};

/// Counters in memory that can be made to fail.
#[derive(Default)]
pub struct SwitchStore {
    counters: MemoryStore,
    down: AtomicBool,
}

impl SwitchStore {
    /// Makes it fail from here on, or answer again. What was counted stays.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    fn reach(&self) -> Result<&MemoryStore, StoreError> {
        if self.down.load(Ordering::Relaxed) { Err(StoreError::Unavailable(None)) } else { Ok(&self.counters) }
    }
}

impl CounterStore for SwitchStore {
    fn reserve(&self, request: &Reserve<'_>) -> Result<Outcome, StoreError> {
        self.reach()?.reserve(request)
    }

    fn peek(&self, request: &Reserve<'_>) -> Result<Outcome, StoreError> {
        self.reach()?.peek(request)
    }

    fn settle(&self, request: &Settle<'_>) -> Result<(), StoreError> {
        self.reach()?.settle(request)
    }

    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        self.reach()?.reset(counter, subject)
    }
}
