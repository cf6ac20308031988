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
mod sync;

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::error::Error;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::pin::Pin;

use smallvec::SmallVec;

use crate::amount::{Amount, Total};
use crate::charge::{Charge, CounterId, Meter, Subject};
use crate::time::Timestamp;

pub use counter::Counter;
pub use in_process::InProcess;
#[cfg(feature = "leased")]
pub use leased::LeasedStore;
pub use memory::{MemoryStore, RestoreError, Snapshot};

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

/// Names a reservation, over all processes that share a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId(u128);

impl ReservationId {
    /// The reservation of this number.
    pub const fn new(id: u128) -> Self {
        Self(id)
    }

    /// A reservation that no other has: half of its number counts those of the thread, the other half is the thread's own,
    /// drawn at random. (A count that threads share costs as much as a look into a table.)
    #[inline]
    pub(crate) fn next() -> Self {
        thread_local!(static LAST: Cell<(u64, u64)> = const { Cell::new((0, u64::MAX)) });
        let (origin, last) = LAST.get();
        let (origin, number) = match last.checked_add(1) {
            Some(number) => (origin, number),
            None => (RandomState::new().build_hasher().finish(), 0),
        };
        LAST.set((origin, number));
        Self(u128::from(origin) << 64 | u128::from(number))
    }

    /// The number.
    pub const fn get(self) -> u128 {
        self.0
    }
}

/// A request to charge a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReserveRequest<'c> {
    /// Which reservation it is to be.
    pub id: ReservationId,
    /// The present, as the host's clock has it.
    pub now: Timestamp,
    /// The charges. No two of them have the same counter and subject.
    pub charges: &'c [Charge],
}

impl<'c> ReserveRequest<'c> {
    /// Asks for `charges` at `now`.
    pub fn new(id: ReservationId, now: Timestamp, charges: &'c [Charge]) -> Self {
        Self { id, now, charges }
    }
}

/// A request to change what a reservation has charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettleRequest<'c> {
    /// Which reservation it was.
    pub id: ReservationId,
    /// Which of its settlements this is, from 1.
    pub step: u32,
    /// The present, as the host's clock has it.
    pub now: Timestamp,
    /// The charges that change; not necessarily all that were made. No two of them have the same counter.
    pub charges: &'c [ChargeChange<'c>],
}

impl<'c> SettleRequest<'c> {
    /// Settles `charges` of a reservation.
    pub fn new(id: ReservationId, step: u32, now: Timestamp, charges: &'c [ChargeChange<'c>]) -> Self {
        Self { id, step, now, charges }
    }
}

/// One charge that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChargeChange<'c> {
    /// The charge as it stands, with the amount of an earlier settlement if there was one.
    pub charge: &'c Charge,
    /// Where it was made: [`Tally::charged_at`].
    pub at: Timestamp,
    /// What it is to be.
    pub to: Amount,
}

impl<'c> ChargeChange<'c> {
    /// Makes the charge that was made at `at` one of `to`.
    pub fn new(charge: &'c Charge, at: Timestamp, to: Amount) -> Self {
        Self { charge, at, to }
    }

    /// Whether a [counter](Counter::new) that is not there begins with it; else there is nothing to change. It may put the first unit
    /// in flight, where one that was charged nothing need not have been kept; or take more out of a bucket, which need not have been
    /// kept since it was full again.
    pub fn begins(&self, now: Timestamp) -> bool {
        match self.charge.meter {
            Meter::InFlight { .. } => self.charge.amount == Amount::ZERO && self.to > Amount::ZERO && self.at > now,
            Meter::TokenBucket { .. } => self.to > self.charge.amount,
            Meter::Fixed(_) | Meter::Sliding { .. } => false,
        }
    }
}

/// What a store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a host's safety hangs on it: no arm may be forgotten")]
pub enum Outcome {
    /// Every charge is made (or would be, for `peek`). One tally for each charge, in order, as it stands now.
    Granted(Tallies),
    /// No charge is made. One tally for each charge, in order, as it stands.
    Refused(Tallies),
}

impl Outcome {
    /// The tallies, one for each charge.
    pub fn tallies(&self) -> &Tallies {
        match self {
            Self::Granted(tallies) | Self::Refused(tallies) => tallies,
        }
    }
}

/// How the counters of a call stand.
pub type Tallies = SmallVec<[Tally; 4]>;

/// How one counter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// What it holds.
    pub used: Total,
    /// When it holds nothing any more, if nothing else is charged and no call in flight ends: the end of a fixed window,
    /// the present for a counter of another kind that holds nothing.
    pub resets_at: Timestamp,
    /// Of a charge that has no room: the first instant at which it has, if nothing else is charged meanwhile and no call in flight
    /// ends. None if it can never have room. Of a charge that has room it means nothing.
    pub retry_at: Option<Timestamp>,
    /// Of a charge that was made: where, for [`ChargeChange::at`]. The start of a fixed window, the instant in a sliding one, the
    /// end of a lease.
    pub charged_at: Timestamp,
}

impl Tally {
    /// Of a counter that nothing was charged to.
    pub fn unused(meter: &Meter, now: Timestamp) -> Self {
        match *meter {
            // A charge that finds no room here never will.
            Meter::Fixed(window) => Self { retry_at: None, ..counter::Fixed::new(window).tally(window) },
            _ => Self { used: Total::ZERO, resets_at: now, retry_at: None, charged_at: now },
        }
    }

    /// Whether the counter has room for the charge.
    #[inline]
    pub fn has_room(&self, charge: &Charge) -> bool {
        charge.max.is_none_or(|max| self.used.has_room(charge.amount, max))
    }
}

/// A store cannot tell how a counter stands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time.
    #[error("the counter store is unavailable")]
    Unavailable(#[source] Option<Box<dyn Error + Send + Sync>>),
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
