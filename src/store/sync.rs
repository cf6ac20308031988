//! The locks and atomics of the memory store. Under `--cfg shuttle` they belong to a scheduler that
//! tries many orders in which threads can run.

#[cfg(not(all(test, shuttle)))]
pub(super) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(all(test, shuttle)))]
pub(super) use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(all(test, shuttle))]
pub(super) use scheduled::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// Those of shuttle, with the names and signatures of the real ones.
#[cfg(all(test, shuttle))]
mod scheduled {
    pub(in crate::store) use shuttle::sync::MutexGuard;
    pub(in crate::store) use shuttle::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug, Default)]
    pub(in crate::store) struct Mutex<T>(shuttle::sync::Mutex<T>);

    #[allow(dead_code, reason = "the same methods as the real lock, used or not")]
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
