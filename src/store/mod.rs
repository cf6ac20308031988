//! Counter stores: where the counters of limits are kept.
//!
//! A [`CounterStore`] counts and knows no rules. [`MemoryStore`] keeps counters in the process; an
//! [`AsyncCounterStore`] keeps them across a network.

#[cfg(feature = "conformance")]
pub mod conformance;
mod counter;
mod generations;
mod in_process;
#[cfg(feature = "leased")]
mod leased;
mod memory;
mod pointers;
#[cfg(feature = "redis")]
pub mod redis;
mod request;
mod sync;

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use crate::charge::{CounterId, Subject};
use crate::time::Timestamp;

pub use counter::Counter;
pub use generations::Generations;
pub use in_process::InProcess;
#[cfg(feature = "leased")]
pub use leased::LeasedStore;
pub use memory::{MemoryStore, RestoreError, Snapshot};
pub use request::{
    ChargeChange, ChargedAt, Generation, Outcome, ReservationId, ReserveRequest, SettleRequest, Tallies, Tally,
};

/// A store of counters in the process.
///
/// # Contract
/// * **All or none.** [`reserve`](Self::reserve) is one atomic step over all charges of the call:
///   no other request comes between its checks and its charges. A refused reservation changes no
///   counter.
/// * **Data.** Everything that a decision needs is in the request. The store reads no clock and
///   knows no calendar.
/// * **Never more.** A charge is made only if the counter then holds no more than [`Charge::max`].
///   A charge without a `max` is made whatever the counter holds, if all other charges of the call
///   have room.
/// * **Time.** `now` may be earlier than in a previous request. A window that has passed is never
///   opened again: a charge for a window earlier than the latest in which this counter was charged
///   goes to that latest one.
/// * **Generations.** A counter that was reset, or that the store has lost and begins again, is a
///   new [generation](Generation) of it. A charge of an earlier one never changes: what it gave
///   back would be room that others have charged since.
/// * **Amounts are exact** and never wrap.
/// * **A live counter is never evicted** to make room for another. A full store refuses new
///   counters.
/// * **One asker cannot fill it.** A store that many callers share bounds the live counters of each
///   [asker](ReserveRequest::asker), and refuses only that asker's new counters past it.
/// * **Once.** The gate gives each reservation an id of its own, and numbers the settlements of
///   each; it sends each request once. A store that sends a request again after a lost reply uses
///   them to recognise what it has already done.
///
/// What a wrong answer costs: a false refusal costs a retry; a false grant lets a call spend more
/// than its limit allows. When in doubt, return an error.
///
/// [`Counter`] has the arithmetic of every algorithm. A store need only keep one for each counter
/// and subject, under a lock.
///
/// `&T`, `Box<T>` and `Arc<T>` of a store are stores. Other wrappers implement the trait
/// themselves.
///
/// [`Charge::max`]: crate::charge::Charge::max
pub trait CounterStore: Send + Sync {
    /// Charges all counters, or none.
    ///
    /// # Errors
    /// Fails if the outcome is unknown. As far as the store knows, nothing was charged. The call
    /// must not go ahead.
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError>;

    /// Returns what [`reserve`](Self::reserve) would answer, with the present tallies. Charges
    /// nothing.
    ///
    /// # Errors
    /// Fails as `reserve` does.
    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError>;

    /// Changes charges in the windows in which they were made: to less, to zero (a release, or the
    /// end of a call in flight), or to more, which is recorded even above the maximum; or prolongs
    /// the lease of a unit in flight.
    ///
    /// Windows that have ended do not change, nor do counters of another generation. A token bucket
    /// has no window, so what a call took beyond its charge is missing from now on, even if the
    /// bucket was full again and has been forgotten.
    ///
    /// # Errors
    /// Fails if the outcome is unknown. As far as the store knows, nothing was changed.
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError>;

    /// Forgets what `subject` has used of `counter`, for example after a clock ran years ahead.
    ///
    /// # Errors
    /// Fails if the store is unavailable.
    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError>;
}

/// The future of a store's answer. Stores of approvals use it too, with errors of their own.
pub type StoreFuture<'a, T, E = StoreError> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// A store of counters across a network, with the contract of [`CounterStore`]. A store in the
/// process becomes one by [`InProcess`].
///
/// The trait names no runtime; a store documents the one that its futures need. If a future is
/// dropped before it is ready, it is unknown whether the request was carried out. What it charged
/// stays charged, which errs on the safe side, unless the store takes it back.
pub trait AsyncCounterStore: Send + Sync {
    /// Charges all counters, or none.
    ///
    /// # Errors
    /// Fails as [`CounterStore::reserve`] does.
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome>;

    /// Returns what [`reserve`](Self::reserve) would answer. Charges nothing.
    ///
    /// # Errors
    /// Fails as [`CounterStore::peek`] does.
    fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome>;

    /// Changes charges in the windows in which they were made.
    ///
    /// # Errors
    /// Fails as [`CounterStore::settle`] does.
    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()>;

    /// Forgets what `subject` has used of `counter`.
    ///
    /// # Errors
    /// Fails as [`CounterStore::reset`] does.
    fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> StoreFuture<'a, ()>;

    /// Handles a permit that was dropped before the end of its call was reported, as when a client
    /// has gone and its handler was cancelled. It is called from `drop`, so it must not wait. A
    /// store in the process frees the units in flight. A store across a network may send the
    /// request in the background, or do nothing (the default): the leases of the units end.
    fn abandon(&self, request: &SettleRequest<'_>) {
        let _ = request;
    }
}

/// A store cannot give an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It could not be reached, did not answer in time, or gave an answer that no store gives.
    #[error("the counter store is unavailable")]
    #[non_exhaustive]
    Unavailable {
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It is full of live counters, none of which may be evicted.
    #[error("the counter store is full: {capacity} counters are live")]
    Full {
        /// The largest number of counters.
        capacity: usize,
    },
    /// The asker of the call has as many live counters as one asker can have. Others are served.
    #[error("this caller has too many counters: one caller can have {share} at once")]
    ShareFull {
        /// The largest number of counters of one asker.
        share: usize,
    },
    /// The clock has stepped back to a window whose counters were reclaimed. What was used then is
    /// no longer known.
    #[error("the clock stepped back before {horizon}, where expired counters have been reclaimed")]
    ClockSteppedBack {
        /// The instant up to which counters have been reclaimed.
        horizon: Timestamp,
    },
    /// It holds a state that no charges of the counter can produce, such as the state of another
    /// kind of counter.
    #[error("the state that the counter store holds is not one of this counter")]
    Corrupt,
    /// The host's clock and the server's are further apart than the store allows.
    #[error(
        "the host's clock is {skew_millis} ms away from the store's, more than the {bound_millis} ms that are allowed"
    )]
    ClockSkew {
        /// How far the host's clock is ahead; negative if it is behind.
        skew_millis: i64,
        /// The largest skew that the store allows.
        bound_millis: u64,
    },
}

impl StoreError {
    /// Makes an [`Unavailable`](Self::Unavailable) error. The cause is an error or a text, for the
    /// host's log.
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { source: cause.into() }
    }

    /// Makes the error for an answer without one tally for each charge, which cannot be trusted.
    #[cold]
    pub(crate) fn incomplete() -> Self {
        Self::unavailable("the store did not return one tally for each charge")
    }
}
