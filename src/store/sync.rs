//! The locks and atomics of the stores: the real ones, or under `--cfg shuttle` those of a scheduler that tries how threads may
//! meet.

#[cfg(not(all(test, shuttle)))]
pub(super) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(all(test, shuttle)))]
pub(super) use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(all(test, shuttle))]
pub(super) use scheduled::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// Shuttle's, under the names and with the signatures of the real ones.
#[cfg(all(test, shuttle))]
mod scheduled {
    pub(in crate::store) use shuttle::sync::MutexGuard;
    pub(in crate::store) use shuttle::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug, Default)]
    pub(in crate::store) struct Mutex<T>(shuttle::sync::Mutex<T>);

    #[allow(dead_code, reason = "what a store needs of it may change")]
    impl<T> Mutex<T> {
        pub(in crate::store) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(in crate::store) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub(in crate::store) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}
