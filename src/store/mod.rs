//! Where counters are kept.
//!
//! A [`CounterStore`] counts; it knows no rules. [`MemoryStore`] keeps the counters in the process.

mod memory;

use std::error::Error;

use smallvec::SmallVec;

use crate::amount::Total;
use crate::charge::{Charge, Charges, CounterId, Meter, Span, Subject};
use crate::time::Timestamp;

pub use memory::MemoryStore;

/// A store of counters.
///
/// # Contract
/// * **All or none.** [`reserve`](Self::reserve) is one atomic step over all charges of the call: no other reservation,
///   release or reset comes between its checks and its charges. A refused reservation changes no counter.
/// * **Data.** Everything a decision needs is in the request: the store reads no clock and knows no calendar.
/// * **Never more.** A charge is made only if the counter then holds no more than [`Charge::max`]. A charge without a
///   `max` is made whatever the counter holds, if all the others of the call have room.
/// * **Time.** `now` may be earlier than what the store has seen. A window that was spent is never opened again: a charge
///   for a window earlier than the latest that this counter was charged in goes to that latest one.
/// * **Amounts are exact**, and never wrap.
/// * **A live counter is never forgotten** to make room for another; a store that is full refuses.
/// * **Once.** A [`Reservation`] is released at most once, in the very windows that were charged, and never takes a
///   counter below zero. A store that hears of a reservation twice, because a reply was lost, knows it by its id.
///
/// What a wrong answer costs: a false refusal costs a retry. A false reservation is somebody's money. When in doubt, fail.
///
/// [`Charge::max`]: crate::charge::Charge::max
pub trait CounterStore: Send + Sync {
    /// Charges all counters, or none.
    ///
    /// # Errors
    /// The store cannot tell. Nothing was charged, as far as it knows; the call must not go ahead.
    fn reserve(&self, request: &Reserve<'_>) -> Result<Outcome, StoreError>;

    /// Whether [`reserve`](Self::reserve) would grant the charges, with the tallies as they stand; nothing is charged.
    ///
    /// # Errors
    /// As for `reserve`.
    fn peek(&self, request: &Reserve<'_>) -> Result<Outcome, StoreError>;

    /// Gives a reservation back, in the windows that were charged. What has passed since is not changed.
    ///
    /// # Errors
    /// The store cannot tell; the units stay spent until their windows end.
    fn release(&self, reservation: Reservation) -> Result<(), StoreError>;

    /// Forgets what `subject` has used of `counter`, after a clock that ran years ahead, say.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError>;
}

impl<S: CounterStore + ?Sized, P: std::ops::Deref<Target = S> + Send + Sync> CounterStore for P {
    fn reserve(&self, request: &Reserve<'_>) -> Result<Outcome, StoreError> {
        (**self).reserve(request)
    }

    fn peek(&self, request: &Reserve<'_>) -> Result<Outcome, StoreError> {
        (**self).peek(request)
    }

    fn release(&self, reservation: Reservation) -> Result<(), StoreError> {
        (**self).release(reservation)
    }

    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        (**self).reset(counter, subject)
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

    /// The number.
    pub const fn get(self) -> u128 {
        self.0
    }
}

/// A request to charge a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reserve<'c> {
    /// Which reservation it is to be.
    pub id: ReservationId,
    /// The present, as the host's clock has it.
    pub now: Timestamp,
    /// The charges. No two of them have the same counter.
    pub charges: &'c [Charge],
}

impl<'c> Reserve<'c> {
    /// Asks for `charges` at `now`.
    pub fn new(id: ReservationId, now: Timestamp, charges: &'c [Charge]) -> Self {
        Self { id, now, charges }
    }
}

/// What is held since a [`Reserve`] was granted.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reservation {
    /// Which reservation it is.
    pub id: ReservationId,
    /// What was charged, in the windows that were charged.
    pub charges: Charges,
}

impl Reservation {
    /// What is held after the store granted `charges` with `tallies`.
    pub fn new(id: ReservationId, mut charges: Charges, tallies: &Tallies) -> Self {
        for (charge, tally) in charges.iter_mut().zip(tallies) {
            if let Meter::Fixed(span) = &mut charge.meter {
                *span = tally.window;
            }
        }
        Self { id, charges }
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
    /// The window it counts in, which is a later one than the charge asked for where the clock has stepped back.
    pub window: Span,
}

impl Tally {
    /// A counter that holds `used` in `window`.
    pub fn new(used: Total, window: Span) -> Self {
        Self { used, window }
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
    /// It does not count in this way.
    #[error("the counter store does not implement the limit's algorithm")]
    Unsupported,
}
