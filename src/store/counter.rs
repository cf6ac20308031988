//! One counter: its state, and the arithmetic of every way to count. Pure: no lock, no clock.

mod fixed;
mod in_flight;
mod sliding;
mod token_bucket;
mod written;

use serde::{Deserialize, Serialize};

use super::{StoreError, Tally};
use crate::amount::{Amount, Total};
use crate::charge::{Charge, Meter};
use crate::time::Timestamp;
use in_flight::InFlight;
use sliding::Sliding;
use token_bucket::TokenBucket;

pub(super) use fixed::Fixed;

/// What one counter holds for one subject: the state machine that every in-process store shares, without its lock.
///
/// A store keeps one for each counter and subject that was ever charged, looks at those of a call with
/// [`tally`](Self::tally), and if all have room, [charges](Self::charge) them. It may forget one whose
/// [`expires_at`](Self::expires_at) has passed.
///
/// Every state is made of integers: times in microseconds, amounts in millionths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "State")]
pub struct Counter(State);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum State {
    Fixed(Fixed),
    Sliding(Sliding),
    TokenBucket(TokenBucket),
    InFlight(InFlight),
}

/// A state from elsewhere may be anything.
impl TryFrom<State> for Counter {
    type Error = &'static str;

    fn try_from(state: State) -> Result<Self, Self::Error> {
        if state.is_sound() { Ok(Self(state)) } else { Err("no charges lead to this state of a counter") }
    }
}

impl Counter {
    /// A counter that nothing was charged to.
    pub fn new(meter: &Meter) -> Self {
        Self(match *meter {
            Meter::Fixed(window) => State::Fixed(Fixed::new(window)),
            Meter::Sliding { seconds } => State::Sliding(Sliding::new(seconds)),
            Meter::TokenBucket { seconds, .. } => State::TokenBucket(TokenBucket::new(seconds)),
            Meter::InFlight { .. } => State::InFlight(InFlight::default()),
        })
    }

    /// How the counter stands at `now`, for a charge that has not been made. O(1), but O(slots) for a sliding window, which
    /// has at most 65, and for calls in flight O(those whose lease has run out, and, if there is no room, those in flight).
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]: the counter counts in another way than the charge.
    pub fn tally(&self, charge: &Charge, now: Timestamp) -> Result<Tally, StoreError> {
        let mut tally = match (&self.0, charge.meter) {
            (State::Fixed(fixed), Meter::Fixed(asked)) => return Ok(fixed.tally_for(charge, asked)),
            (State::Sliding(sliding), Meter::Sliding { .. }) => sliding.tally(now),
            (State::TokenBucket(bucket), Meter::TokenBucket { refill, .. }) => bucket.tally(now, refill),
            (State::InFlight(units), Meter::InFlight { .. }) => units.tally(now),
            _ => return Err(StoreError::Corrupt),
        };
        if tally.has_room(charge) {
            return Ok(tally);
        }
        tally.retry_at = charge.max.filter(|max| Total::ZERO.has_room(charge.amount, *max)).and_then(|max| {
            // What it may hold at most before the charge.
            let room = max.micros() - charge.amount.micros();
            match (&self.0, charge.meter) {
                (State::Sliding(sliding), _) => sliding.falls_to(room, now),
                (State::TokenBucket(bucket), Meter::TokenBucket { refill, .. }) => bucket.falls_to(room, now, refill),
                (State::InFlight(units), _) => units.falls_to(room, now),
                _ => None,
            }
        });
        Ok(tally)
    }

    /// Makes a charge, whether it has room or not, and says how the counter stands then.
    ///
    /// # Errors
    /// As for [`tally`](Self::tally).
    pub fn charge(&mut self, charge: &Charge, now: Timestamp) -> Result<Tally, StoreError> {
        match (&mut self.0, charge.meter) {
            (State::Fixed(fixed), Meter::Fixed(asked)) => Ok(fixed.charge(asked, charge.amount)),
            (State::Sliding(sliding), Meter::Sliding { .. }) => Ok(sliding.charge(now, charge.amount)),
            (State::TokenBucket(bucket), Meter::TokenBucket { refill, .. }) => {
                Ok(bucket.charge(now, refill, charge.amount))
            }
            (State::InFlight(units), Meter::InFlight { lease }) => Ok(units.charge(now, lease, charge.amount)),
            _ => Err(StoreError::Corrupt),
        }
    }

    /// Makes the charge that was made at `at` ([`Tally::charged_at`]) one of `to`: zero gives it back. What has passed since
    /// is not changed: a window that has ended gets nothing back.
    ///
    /// # Errors
    /// As for [`tally`](Self::tally).
    pub fn settle(&mut self, charge: &Charge, at: Timestamp, to: Amount, now: Timestamp) -> Result<(), StoreError> {
        let from = charge.amount;
        match (&mut self.0, charge.meter) {
            (State::Fixed(fixed), Meter::Fixed(_)) => fixed.settle(at, from, to),
            (State::Sliding(sliding), Meter::Sliding { .. }) => sliding.settle(at, from, to),
            (State::TokenBucket(bucket), Meter::TokenBucket { refill, .. }) => bucket.settle(now, refill, from, to),
            (State::InFlight(units), Meter::InFlight { .. }) => units.settle(at, from, to, now),
            _ => return Err(StoreError::Corrupt),
        }
        Ok(())
    }

    /// The state of a fixed window, which some stores keep in less space; or the counter itself.
    pub(in crate::store) fn into_fixed(self) -> Result<Fixed, Self> {
        if let State::Fixed(fixed) = self.0 { Ok(fixed) } else { Err(self) }
    }

    /// When it holds nothing any more, if nothing else is charged.
    pub fn expires_at(&self) -> Timestamp {
        match &self.0 {
            State::Fixed(fixed) => fixed.window().end,
            State::Sliding(sliding) => sliding.expires_at(),
            State::TokenBucket(bucket) => bucket.expires_at(),
            State::InFlight(units) => units.expires_at(),
        }
    }
}

impl From<Fixed> for Counter {
    fn from(fixed: Fixed) -> Self {
        Self(State::Fixed(fixed))
    }
}

/// States that a store across a network has kept in a form of its own. None for one that no charges lead to.
#[cfg(feature = "redis")]
impl Counter {
    pub(super) fn of_fixed(start: i64, seconds: u32, used: Total) -> Option<Self> {
        Some(Self(State::Fixed(Fixed::of_parts(start, seconds, used)?)))
    }

    /// `slots` are the last instant and the sum of each, the oldest first.
    pub(super) fn of_sliding(seconds: u32, slots: impl Iterator<Item = (i64, Total)>) -> Option<Self> {
        Self::try_from(State::Sliding(Sliding::of_parts(seconds, slots))).ok()
    }

    /// `level` is what was missing at `at`, in millionths times `seconds` times a million.
    pub(super) fn of_bucket(seconds: u32, refill: Amount, level: u128, at: i64) -> Option<Self> {
        Self::try_from(State::TokenBucket(TokenBucket::of_parts(seconds, refill, level, at))).ok()
    }

    /// `units` are the end of the lease and the sum of each, the first to end first.
    pub(super) fn of_in_flight(held: Total, units: impl Iterator<Item = (i64, Total)>) -> Option<Self> {
        Self::try_from(State::InFlight(InFlight::of_parts(held, units))).ok()
    }
}

impl State {
    /// Whether the state is one that charges can lead to.
    fn is_sound(&self) -> bool {
        match self {
            Self::Fixed(_) => true,
            Self::Sliding(sliding) => sliding.is_sound(),
            Self::TokenBucket(bucket) => bucket.is_sound(),
            Self::InFlight(units) => units.is_sound(),
        }
    }
}
