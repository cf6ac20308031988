//! A counter: its state, and the arithmetic of every counting algorithm. Pure: no lock, no clock.

mod fixed;
mod in_flight;
mod serde_formats;
mod sliding;
mod token_bucket;

use serde::{Deserialize, Serialize};

use super::{ChargeChange, ChargedAt, StoreError, Tally};
use crate::amount::Total;
use crate::charge::{Charge, Meter};
use crate::time::Timestamp;
use in_flight::InFlight;
use sliding::Sliding;
use token_bucket::TokenBucket;

pub(super) use fixed::Fixed;

/// The state of one counter for one subject, without a lock: the state machine that every
/// in-process store needs.
///
/// A store keeps one for each counter and subject that was charged. It reads those of a call by
/// [`tally`](Self::tally), and [charges](Self::charge) them if all have room. It may forget a
/// counter after its [`expires_at`](Self::expires_at); if a token bucket is settled to more after
/// that, it begins [anew](Self::new).
///
/// All states consist of integers: times in microseconds, amounts in millionths.
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

/// Checks a state that was read, which may have any values.
impl TryFrom<State> for Counter {
    type Error = &'static str;

    fn try_from(state: State) -> Result<Self, Self::Error> {
        if state.is_sound() { Ok(Self(state)) } else { Err("no charges can produce this state of a counter") }
    }
}

impl Counter {
    /// Makes a counter that nothing was charged to.
    pub fn new(meter: &Meter) -> Self {
        Self(match *meter {
            Meter::Fixed(window) => State::Fixed(Fixed::new(window)),
            Meter::Sliding { seconds } => State::Sliding(Sliding::new(seconds)),
            Meter::TokenBucket { seconds, .. } => State::TokenBucket(TokenBucket::new(seconds)),
            Meter::InFlight { .. } => State::InFlight(InFlight::default()),
        })
    }

    /// Returns the tally at `now`, for a charge that has not been made.
    ///
    /// O(1) for fixed windows and token buckets; O(slots) for sliding windows, which have at most
    /// 65; for calls in flight O(units whose leases have ended), and O(units) if there is no room.
    ///
    /// # Errors
    /// Fails with [`StoreError::Corrupt`] if the counter and the charge have different algorithms.
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
            // The most that it may hold before the charge.
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

    /// Makes a charge, even if it has no room, and returns the tally after it.
    ///
    /// # Errors
    /// Fails as [`tally`](Self::tally) does.
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

    /// Changes a charge; zero releases it. A window that has ended does not change.
    ///
    /// A counter does not know its generation: the store checks it first, for example by its
    /// [`Generations`](super::Generations).
    ///
    /// # Errors
    /// Fails as [`tally`](Self::tally) does.
    pub fn settle(&mut self, change: &ChargeChange<'_>, now: Timestamp) -> Result<(), StoreError> {
        let ChargeChange { charge, at: ChargedAt { instant: at, .. }, to, lease_end } = *change;
        let from = charge.amount;
        match (&mut self.0, charge.meter) {
            (State::Fixed(fixed), Meter::Fixed(_)) => fixed.settle(at, from, to),
            (State::Sliding(sliding), Meter::Sliding { .. }) => sliding.settle(at, from, to),
            (State::TokenBucket(bucket), Meter::TokenBucket { refill, .. }) => bucket.settle(now, refill, from, to),
            (State::InFlight(units), Meter::InFlight { .. }) => match lease_end {
                Some(until) => units.prolong(at, from, until, now),
                None => units.settle(at, from, to, now),
            },
            _ => return Err(StoreError::Corrupt),
        }
        Ok(())
    }

    /// Returns the state of a fixed window, which the memory store keeps in less space.
    pub(in crate::store) fn into_fixed(self) -> Result<Fixed, Self> {
        if let State::Fixed(fixed) = self.0 { Ok(fixed) } else { Err(self) }
    }

    /// Returns when it holds nothing any more, if nothing else is charged.
    pub fn expires_at(&self) -> Timestamp {
        match &self.0 {
            State::Fixed(fixed) => fixed.window().end,
            State::Sliding(sliding) => sliding.expires_at(),
            State::TokenBucket(bucket) => bucket.expires_at(),
            State::InFlight(units) => units.expires_at(),
        }
    }
}

impl Tally {
    /// Makes the tally of a counter that nothing was charged to.
    pub fn unused(meter: &Meter, now: Timestamp) -> Self {
        match *meter {
            // A charge without room in an empty window never has room.
            Meter::Fixed(window) => Self { retry_at: None, ..Fixed::new(window).tally(window) },
            _ => Self { used: Total::ZERO, resets_at: now, retry_at: None, charged_at: ChargedAt::new(now) },
        }
    }
}

impl From<Fixed> for Counter {
    fn from(fixed: Fixed) -> Self {
        Self(State::Fixed(fixed))
    }
}

/// States that a store across a network keeps in a form of its own. Each is `None` if charges
/// cannot produce it.
#[cfg(feature = "redis")]
impl Counter {
    pub(super) fn of_fixed(start: i64, seconds: u32, used: Total) -> Option<Self> {
        Some(Self(State::Fixed(Fixed::of_parts(start, seconds, used)?)))
    }

    /// `slots` has the instant of the latest charge and the sum of each, the oldest first.
    pub(super) fn of_sliding(seconds: u32, slots: impl Iterator<Item = (i64, Total)>) -> Option<Self> {
        Self::try_from(State::Sliding(Sliding::of_parts(seconds, slots))).ok()
    }

    /// `level` is the missing amount at `at`: `seconds` times a million of its parts are a
    /// millionth.
    pub(super) fn of_bucket(seconds: u32, refill: crate::amount::Amount, level: u128, at: i64) -> Option<Self> {
        Self::try_from(State::TokenBucket(TokenBucket::of_parts(seconds, refill, level, at))).ok()
    }

    /// `units` has the end of the lease and the amount of each, ordered by the end.
    pub(super) fn of_in_flight(held: Total, units: impl Iterator<Item = (i64, Total)>) -> Option<Self> {
        Self::try_from(State::InFlight(InFlight::of_parts(held, units))).ok()
    }
}

impl State {
    /// Returns whether charges can produce the state.
    fn is_sound(&self) -> bool {
        match self {
            Self::Fixed(_) => true,
            Self::Sliding(sliding) => sliding.is_sound(),
            Self::TokenBucket(bucket) => bucket.is_sound(),
            Self::InFlight(units) => units.is_sound(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Amount;
    use crate::charge::{CounterId, Span, Subject};
    use serde_json::{Value, json};

    #[test]
    fn rejects_states_that_charges_cannot_produce() {
        let sliding = |seconds: u32, lasts: &[i64]| {
            let slots: Vec<Value> = lasts.iter().map(|last| json!({ "last": last, "used": 1 })).collect();
            json!({ "sliding": { "seconds": seconds, "slots": slots } })
        };
        let steps = |count: i64| (0..count).map(|step| step * 1_000_000).collect::<Vec<_>>();
        let bucket = |seconds: u32, level: &str| {
            let state = json!({ "seconds": seconds, "level": level, "at": 5, "full_at": 7 });
            json!({ "token_bucket": state })
        };
        let in_flight = |held: u64, units: &[(i64, u64)]| {
            let units: Vec<Value> =
                units.iter().map(|(until, amount)| json!({ "until": until, "amount": amount })).collect();
            json!({ "in_flight": { "held": held, "units": units } })
        };
        let highest = (u128::from(u64::MAX) * 60_000_000).to_string();
        let above = (u128::from(u64::MAX) * 60_000_000 + 1).to_string();
        for (state, is_sound) in [
            (json!({ "fixed": { "start": -60_000_000, "seconds": 60, "used": 7 } }), true),
            (json!({ "fixed": { "start": 0, "seconds": 0, "used": 7 } }), false),
            (json!({ "fixed": { "start": 0, "seconds": 60, "used": -1 } }), false),
            (sliding(64, &[]), true),
            (sliding(64, &steps(65)), true),
            (sliding(64, &steps(66)), false),
            (sliding(0, &[0]), false),
            (sliding(64, &[0, 999_999]), false),
            (sliding(64, &[0, 0]), false),
            (sliding(64, &[0, 1_000_000]), true),
            (sliding(64, &[1_000_000, 0]), false),
            (bucket(60, "0"), true),
            (bucket(60, &highest), true),
            (bucket(60, &above), false),
            (bucket(0, "0"), false),
            (in_flight(0, &[]), true),
            (in_flight(3, &[(5, 1), (6, 2)]), true),
            (in_flight(4, &[(5, 1), (6, 2)]), false),
            (in_flight(3, &[(5, 1), (5, 2)]), false),
            (in_flight(3, &[(6, 1), (5, 2)]), false),
            (in_flight(u64::MAX, &[(5, 1), (6, 2)]), true),
            (in_flight(u64::MAX, &[(6, 1), (5, 2)]), false),
        ] {
            let read = serde_json::from_value::<Counter>(state.clone());
            assert_eq!(read.is_ok(), is_sound, "{state}");
            // The state is written as it was read.
            assert!(read.is_ok_and(|read| serde_json::to_value(read).unwrap() == state) || !is_sound, "{state}");
        }
    }

    fn charge(meter: Meter, amount: u64) -> Charge {
        let amount = Amount::from_micros(amount).unwrap();
        Charge { counter: CounterId::of(["c"]), subject: Subject::default(), amount, max: None, meter }
    }

    #[test]
    fn each_kind_of_counter_expires() {
        let now = Timestamp::from_unix_seconds(100);
        let span = Span { start: Timestamp::from_unix_seconds(60), end: Timestamp::from_unix_seconds(120) };
        let refill = Amount::from_micros(2).unwrap();
        for (meter, amount, seconds) in [
            (Meter::Fixed(span), 1, 120),
            (Meter::Sliding { seconds: 7 }, 1, 107),
            (Meter::TokenBucket { refill, seconds: 10 }, 1, 105),
            (Meter::TokenBucket { refill: Amount::ZERO, seconds: 10 }, 0, 100),
            (Meter::InFlight { lease: 9 }, 1, 109),
        ] {
            let mut counter = Counter::new(&meter);
            counter.charge(&charge(meter, amount), now).unwrap();
            assert_eq!(counter.expires_at(), Timestamp::from_unix_seconds(seconds), "{meter:?}");
        }
        let never = Meter::TokenBucket { refill: Amount::ZERO, seconds: 10 };
        let mut counter = Counter::new(&never);
        counter.charge(&charge(never, 1), now).unwrap();
        assert_eq!(counter.expires_at(), Timestamp::MAX);
    }

    #[test]
    fn rejects_charges_of_another_algorithm() {
        let now = Timestamp::UNIX_EPOCH;
        let meters = [
            Meter::Fixed(Span { start: now, end: Timestamp::from_unix_seconds(1) }),
            Meter::Sliding { seconds: 1 },
            Meter::TokenBucket { refill: Amount::ONE, seconds: 1 },
            Meter::InFlight { lease: 1 },
        ];
        for (index, meter) in meters.into_iter().enumerate() {
            for (other, asked) in meters.into_iter().enumerate() {
                let (mut counter, charge) = (Counter::new(&meter), charge(asked, 1));
                let answers = [
                    counter.tally(&charge, now).is_ok(),
                    counter.settle(&ChargeChange::new(&charge, ChargedAt::new(now), Amount::ZERO), now).is_ok(),
                    counter.charge(&charge, now).is_ok(),
                ];
                assert_eq!(answers, [index == other; 3], "{meter:?} {asked:?}");
            }
        }
    }
}
