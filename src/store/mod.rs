//! Where counters are kept.
//!
//! A [`CounterStore`] counts; it knows no rules. [`MemoryStore`] keeps the counters in the process; an [`AsyncCounterStore`]
//! keeps them across a network.

#[cfg(feature = "conformance")]
pub mod conformance;
mod counter;
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
pub use in_process::InProcess;
#[cfg(feature = "leased")]
pub use leased::LeasedStore;
pub use memory::{MemoryStore, RestoreError, Snapshot};
pub use request::{ChargeChange, Outcome, ReservationId, ReserveRequest, SettleRequest, Tallies, Tally};

/// A store of counters in the process.
///
/// # Contract
/// * **All or none.** [`reserve`](Self::reserve) is one atomic step over all charges of the call: no other request comes
///   between its checks and its charges. A refused reservation changes no counter.
/// * **Data.** Everything a decision needs is in the request: the store reads no clock and knows no calendar.
/// * **Never more.** A charge is made only if the counter then holds no more than [`Charge::max`]. A charge without a
///   `max` is made whatever the counter holds, if all the others of the call have room.
/// * **Time.** `now` may be earlier than what the store has seen. A window that was spent is never opened again: a charge
///   for a window earlier than the latest that this counter was charged in goes to that latest one.
/// * **Amounts are exact**, and never wrap.
/// * **A live counter is never forgotten** to make room for another; a store that is full refuses.
/// * **Once.** The gate gives each reservation an id of its own, and each of its settlements a number; it asks each of them once. A
///   store that sends a request again, because a reply was lost, knows by them what it has done already.
///
/// What a wrong answer costs: a false refusal costs a retry. A false reservation is somebody's money. When in doubt, fail.
///
/// The arithmetic of every way to count is [`Counter`]: a store need only keep one for each counter and subject, under a lock.
///
/// [`Charge::max`]: crate::charge::Charge::max
pub trait CounterStore: Send + Sync {
    /// Charges all counters, or none.
    ///
    /// # Errors
    /// The store cannot tell. Nothing was charged, as far as it knows; the call must not go ahead.
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError>;

    /// Whether [`reserve`](Self::reserve) would grant the charges, with the tallies as they stand; nothing is charged.
    ///
    /// # Errors
    /// As for `reserve`.
    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError>;

    /// Changes what was charged, in the windows that were charged: to less, to nothing (a release, or the end of what was in
    /// flight), or to more, which is recorded whatever the maximum. What has passed since is not changed; but a bucket has no window
    /// that could: what a call has taken out of it beyond its charge is missing from now on, also if the bucket was full again and
    /// is forgotten.
    ///
    /// # Errors
    /// The store cannot tell; as far as it knows nothing has changed.
    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError>;

    /// Forgets what `subject` has used of `counter`, after a clock that ran years ahead, say.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError>;
}

/// The future of a store's answer. Stores of approvals answer by it too, with errors of their own.
pub type StoreFuture<'a, T, E = StoreError> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// A store of counters across a network. The contract is that of [`CounterStore`]; one in the process serves here too, as
/// [`InProcess`].
///
/// It names no runtime; what its futures need is the store's own affair. A future that is dropped before it has
/// answered leaves open whether the request was carried out: what it charged stays spent, which is the safe side.
pub trait AsyncCounterStore: Send + Sync {
    /// Charges all counters, or none.
    ///
    /// # Errors
    /// As for [`CounterStore::reserve`].
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome>;

    /// Whether [`reserve`](Self::reserve) would grant the charges; nothing is charged.
    ///
    /// # Errors
    /// As for [`CounterStore::peek`].
    fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome>;

    /// Changes what was charged, in the windows that were charged.
    ///
    /// # Errors
    /// As for [`CounterStore::settle`].
    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()>;

    /// Forgets what `subject` has used of `counter`.
    ///
    /// # Errors
    /// As for [`CounterStore::reset`].
    fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> StoreFuture<'a, ()>;

    /// A permit was dropped, and nobody has said that its call has ended: a store in the process gives free what was in flight.
    /// Called from `drop`: one across a network does nothing (the default), its leases run out.
    fn abandon(&self, request: &SettleRequest<'_>) {
        let _ = request;
    }
}

/// A store cannot tell how a counter stands.
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
        /// How many counters it holds at most.
        capacity: usize,
    },
    /// The clock has stepped back to a window whose counters were reclaimed: what was used then is not known any more.
    #[error("the clock stepped back before {horizon}, where expired counters have been reclaimed")]
    ClockSteppedBack {
        /// The instant up to which counters are gone.
        horizon: Timestamp,
    },
    /// What it holds of the counter is nothing that could have been charged: the state of another kind of counter, say.
    #[error("the counter store holds something else under the counter's name")]
    Corrupt,
    /// The host's clock and the server's are further apart than the store was told to bear.
    #[error(
        "the host's clock is {skew_millis} ms away from the store's, more than the {bound_millis} ms that are allowed"
    )]
    ClockSkew {
        /// How far the host's clock is ahead; negative if it is behind.
        skew_millis: i64,
        /// How far it may be away.
        bound_millis: u64,
    },
}

impl StoreError {
    /// Makes an [`Unavailable`](Self::Unavailable) error. The cause is an error or a text, for the host's log.
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { source: cause.into() }
    }

    /// The error for an answer that cannot be believed, because charges lack a tally.
    #[cold]
    pub(crate) fn incomplete() -> Self {
        Self::unavailable("the store did not return one tally for each charge")
    }
}
