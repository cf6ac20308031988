//! One counter: its state, and the arithmetic of every way to count. Pure: no lock, no clock.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{StoreError, Tally};
use crate::amount::{Amount, Total};
use crate::charge::{Charge, Meter, Span};
use crate::time::{MICROS_PER_SECOND, Timestamp};

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
            Meter::Sliding { seconds } => State::Sliding(Sliding { seconds: seconds.max(1), slots: VecDeque::new() }),
            Meter::TokenBucket { seconds, .. } => {
                let at = i64::MIN;
                State::TokenBucket(TokenBucket { seconds: seconds.max(1), level: 0, at, full_at: at })
            }
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
            State::Sliding(sliding) => sliding.slots.back().map_or(Timestamp::MIN, |slot| sliding.leaves(slot)),
            State::TokenBucket(bucket) => Timestamp::from_unix_micros(bucket.full_at),
            State::InFlight(units) => units.last().unwrap_or(Timestamp::MIN),
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
        Some(Self(State::Fixed(Fixed { start, seconds: NonZeroU32::new(seconds)?, used })))
    }

    /// `slots` are the last instant and the sum of each, the oldest first.
    pub(super) fn of_sliding(seconds: u32, slots: impl Iterator<Item = (i64, Total)>) -> Option<Self> {
        let slots = slots.map(|(last, used)| Slot { last, used }).collect();
        // The width of the grid's steps must not be zero, whatever is asked of the slots.
        Self::try_from(State::Sliding(Sliding { seconds: Some(seconds).filter(|seconds| *seconds > 0)?, slots })).ok()
    }

    /// `level` is what was missing at `at`, in millionths times `seconds` times a million.
    pub(super) fn of_bucket(seconds: u32, refill: Amount, level: u128, at: i64) -> Option<Self> {
        let full_at = drained_at(level, at, refill).unix_micros();
        Self::try_from(State::TokenBucket(TokenBucket { seconds, level, at, full_at })).ok()
    }

    /// `units` are the end of the lease and the sum of each, the first to end first.
    pub(super) fn of_in_flight(held: Total, units: impl Iterator<Item = (i64, Total)>) -> Option<Self> {
        let units: VecDeque<_> =
            units.map(|(until, amount)| Unit { until: Timestamp::from_unix_micros(until), amount }).collect();
        let ordered = units.iter().zip(units.iter().skip(1)).all(|(a, b)| a.until < b.until);
        ordered.then_some(Self(State::InFlight(InFlight { held, units })))
    }
}

impl State {
    /// Whether the state is one that charges can lead to.
    fn is_sound(&self) -> bool {
        match self {
            State::Fixed(_) => true,
            State::Sliding(Sliding { seconds: 0, .. }) | State::TokenBucket(TokenBucket { seconds: 0, .. }) => false,
            State::Sliding(sliding) => {
                let grid = |slot: &Slot| sliding.cell(slot.last);
                let ordered = sliding.slots.iter().zip(sliding.slots.iter().skip(1)).all(|(a, b)| grid(a) < grid(b));
                ordered && sliding.slots.len() <= SLOTS + 1
            }
            State::TokenBucket(bucket) => bucket.level <= bucket.brim(),
            State::InFlight(InFlight { held, units }) => {
                let ordered = units.iter().zip(units.iter().skip(1)).all(|(a, b)| a.until < b.until);
                let sum = units.iter().fold(Total::ZERO, |sum, unit| sum.plus_micros(unit.amount.micros()));
                // A sum that has reached its end stays there.
                ordered && (sum == *held || held.micros() == u64::MAX)
            }
        }
    }
}

/// The aligned window that was charged last, and what it has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::store) struct Fixed {
    start: i64,
    seconds: NonZeroU32,
    #[serde(with = "millionths")]
    used: Total,
}

impl Fixed {
    pub(in crate::store) fn new(window: Span) -> Self {
        let micros = window.end.unix_micros().saturating_sub(window.start.unix_micros());
        let seconds = micros.max(1).unsigned_abs().div_ceil(MICROS_PER_SECOND.unsigned_abs());
        let seconds = u32::try_from(seconds).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
        Self { start: window.start.unix_micros(), seconds, used: Total::ZERO }
    }

    #[inline]
    pub(in crate::store) fn window(&self) -> Span {
        let end = self.start.saturating_add(i64::from(self.seconds.get()).saturating_mul(MICROS_PER_SECOND));
        Span { start: Timestamp::from_unix_micros(self.start), end: Timestamp::from_unix_micros(end) }
    }

    /// The state that a charge for the window `asked` finds: a later one stays where the clock has stepped back.
    #[inline]
    fn at(self, asked: Span) -> Self {
        if self.start >= asked.start.unix_micros() { self } else { Self::new(asked) }
    }

    /// How it stands, with the window's end as the instant of a retry.
    #[inline]
    pub(in crate::store) fn tally(self, asked: Span) -> Tally {
        let found = self.at(asked);
        let window = found.window();
        Tally { used: found.used, resets_at: window.end, retry_at: Some(window.end), charged_at: window.start }
    }

    /// As [`tally`](Self::tally), for one charge: no window has room for some.
    #[inline]
    pub(in crate::store) fn tally_for(self, charge: &Charge, asked: Span) -> Tally {
        let mut tally = self.tally(asked);
        if charge.max.is_some_and(|max| !Total::ZERO.has_room(charge.amount, max)) {
            tally.retry_at = None;
        }
        tally
    }

    #[inline]
    pub(in crate::store) fn charge(&mut self, asked: Span, amount: Amount) -> Tally {
        *self = self.at(asked);
        self.used = self.used.plus(amount);
        self.tally(asked)
    }

    #[inline]
    pub(in crate::store) fn settle(&mut self, at: Timestamp, from: Amount, to: Amount) {
        if self.start == at.unix_micros() {
            self.used = self.used.replace(from, to);
        }
    }
}

/// A sliding window is looked at in steps of a 64th of its length: charges of one step are one slot, and leave together when
/// the last of them leaves. So none is counted for more than a 64th too long, and none too short.
const SLOTS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sliding {
    /// Never zero.
    seconds: u32,
    /// In the order of time, one for each step of the grid in which something was charged.
    slots: VecDeque<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    /// When it was charged last.
    last: i64,
    #[serde(with = "millionths")]
    used: Total,
}

impl Sliding {
    /// The step of the grid that an instant lies in. A 64th of a second is a whole number of microseconds.
    fn cell(&self, micros: i64) -> i64 {
        micros.div_euclid(i64::from(self.seconds) * (MICROS_PER_SECOND / SLOTS as i64))
    }

    /// When a slot is not counted any more.
    fn leaves(&self, slot: &Slot) -> Timestamp {
        Timestamp::from_unix_micros(slot.last.saturating_add(i64::from(self.seconds) * MICROS_PER_SECOND))
    }

    /// The present, or the latest charge where the clock has stepped back.
    fn present(&self, now: Timestamp) -> Timestamp {
        self.slots.back().map_or(now, |newest| now.max(Timestamp::from_unix_micros(newest.last)))
    }

    /// The slots that are counted, the newest first.
    fn live(&self, present: Timestamp) -> impl Iterator<Item = &Slot> {
        self.slots.iter().rev().take_while(move |slot| self.leaves(slot) > present)
    }

    fn tally(&self, now: Timestamp) -> Tally {
        let present = self.present(now);
        let used = self.live(present).fold(Total::ZERO, |sum, slot| sum.plus_micros(slot.used.micros()));
        // A slot that was given back, or charged nothing, holds nothing that could leave.
        let newest = self.live(present).find(|slot| slot.used > Total::ZERO);
        let resets_at = newest.map_or(now, |newest| self.leaves(newest));
        Tally { used, resets_at, retry_at: None, charged_at: present }
    }

    /// When it holds no more than `room`.
    fn falls_to(&self, room: u64, now: Timestamp) -> Option<Timestamp> {
        let present = self.present(now);
        // From the newest back: the first slot that does not fit any more has to leave.
        let mut held = Total::ZERO;
        let leaves = self.live(present).find(|slot| {
            held = held.plus_micros(slot.used.micros());
            held.micros() > room
        });
        leaves.map(|slot| self.leaves(slot))
    }

    fn charge(&mut self, now: Timestamp, amount: Amount) -> Tally {
        let present = self.present(now);
        while self.slots.front().is_some_and(|oldest| self.leaves(oldest) <= present) {
            self.slots.pop_front();
        }
        let micros = present.unix_micros();
        let cell = self.cell(micros);
        match self.slots.back().map(|newest| self.cell(newest.last)) {
            Some(newest) if newest == cell => {
                if let Some(newest) = self.slots.back_mut() {
                    newest.last = micros;
                    newest.used = newest.used.plus(amount);
                }
            }
            _ => self.slots.push_back(Slot { last: micros, used: Total::ZERO.plus(amount) }),
        }
        self.tally(now)
    }

    fn settle(&mut self, at: Timestamp, from: Amount, to: Amount) {
        let cell = self.cell(at.unix_micros());
        let found = self.slots.binary_search_by_key(&cell, |slot| self.cell(slot.last));
        if let Some(slot) = found.ok().and_then(|index| self.slots.get_mut(index)) {
            slot.used = slot.used.replace(from, to);
        }
    }
}

/// A bucket by what is missing from it, which comes back at a steady rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBucket {
    /// The time in which the meter's `refill` comes back. Never zero.
    seconds: u32,
    /// What was missing at `at`, in millionths times `seconds` times a million: whatever the rate, every microsecond brings
    /// back a whole number of these.
    #[serde(with = "digits")]
    level: u128,
    /// The latest instant that was charged.
    at: i64,
    /// When it was last seen to be full again.
    full_at: i64,
}

impl TokenBucket {
    fn parts_per_micro(&self) -> u128 {
        u128::from(self.seconds) * u128::from(MICROS_PER_SECOND.unsigned_abs())
    }

    /// The highest level that is told apart.
    fn brim(&self) -> u128 {
        u128::from(u64::MAX) * self.parts_per_micro()
    }

    fn present(&self, now: Timestamp) -> i64 {
        now.unix_micros().max(self.at)
    }

    fn level_at(&self, present: i64, refill: Amount) -> u128 {
        let passed = u128::from(present.abs_diff(self.at));
        self.level.saturating_sub(u128::from(refill.micros()).saturating_mul(passed))
    }

    fn tally(&self, now: Timestamp, refill: Amount) -> Tally {
        let present = self.present(now);
        let level = self.level_at(present, refill);
        let used = Total::from_micros(u64::try_from(level.div_ceil(self.parts_per_micro())).unwrap_or(u64::MAX));
        // A bucket that is full is so now, whatever it has seen.
        let resets_at = if level == 0 { now } else { drained_at(level, present, refill) };
        Tally { used, resets_at, retry_at: None, charged_at: Timestamp::from_unix_micros(present) }
    }

    /// When no more than `room` is missing; never, if that is past the end of time.
    fn falls_to(&self, room: u64, now: Timestamp, refill: Amount) -> Option<Timestamp> {
        let present = self.present(now);
        let above = self.level_at(present, refill).checked_sub(u128::from(room) * self.parts_per_micro())?;
        Some(drained_at(above, present, refill)).filter(|instant| *instant < Timestamp::MAX)
    }

    fn charge(&mut self, now: Timestamp, refill: Amount, amount: Amount) -> Tally {
        let present = self.present(now);
        self.put(present, self.level_at(present, refill), amount, refill);
        self.tally(now, refill)
    }

    fn settle(&mut self, now: Timestamp, refill: Amount, from: Amount, to: Amount) {
        let present = self.present(now);
        let less = u128::from(from.micros().saturating_sub(to.micros())) * self.parts_per_micro();
        let more = Total::ZERO.plus(to).minus(from);
        let level = self.level_at(present, refill).saturating_sub(less);
        self.put(present, level, Amount::from_micros(more.micros()).unwrap_or(Amount::MAX), refill);
    }

    fn put(&mut self, present: i64, level: u128, amount: Amount, refill: Amount) {
        let level = level.saturating_add(u128::from(amount.micros()) * self.parts_per_micro());
        self.level = level.min(self.brim());
        self.at = present;
        self.full_at = drained_at(self.level, present, refill).unix_micros();
    }
}

/// When a level has come back; never, at a rate of nothing.
fn drained_at(level: u128, present: i64, refill: Amount) -> Timestamp {
    let micros = match refill.micros() {
        _ if level == 0 => Some(0),
        0 => None,
        rate => i64::try_from(level.div_ceil(rate.into())).ok(),
    };
    Timestamp::from_unix_micros(micros.map_or(i64::MAX, |micros| present.saturating_add(micros)))
}

/// What is held, until when at most.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InFlight {
    /// The sum of all units.
    #[serde(with = "millionths")]
    held: Total,
    /// In the order of `until`. Those that run out at one instant are one.
    units: VecDeque<Unit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unit {
    #[serde(with = "micros")]
    until: Timestamp,
    #[serde(with = "millionths")]
    amount: Total,
}

impl InFlight {
    fn last(&self) -> Option<Timestamp> {
        self.units.back().map(|unit| unit.until)
    }

    /// The units whose lease has not run out, and their sum.
    fn live(&self, now: Timestamp) -> (impl Iterator<Item = &Unit>, Total) {
        let gone = self.units.iter().take_while(|unit| unit.until <= now);
        let (count, sum) =
            gone.fold((0, 0u64), |(count, sum), unit| (count + 1, unit.amount.micros().saturating_add(sum)));
        // A sum that has reached its end is counted anew.
        let used = match self.held.micros() {
            u64::MAX => {
                self.units.iter().skip(count).fold(Total::ZERO, |sum, unit| sum.plus_micros(unit.amount.micros()))
            }
            held => Total::from_micros(held.saturating_sub(sum)),
        };
        (self.units.iter().skip(count), used)
    }

    fn tally(&self, now: Timestamp) -> Tally {
        let (_, used) = self.live(now);
        Tally { used, resets_at: self.last().map_or(now, |last| last.max(now)), retry_at: None, charged_at: now }
    }

    /// When it holds no more than `room`, if nobody reports an end.
    fn falls_to(&self, room: u64, now: Timestamp) -> Option<Timestamp> {
        let (mut live, used) = self.live(now);
        let mut over = used.micros().saturating_sub(room);
        live.find_map(|unit| {
            over = over.saturating_sub(unit.amount.micros());
            (over == 0).then_some(unit.until)
        })
    }

    fn charge(&mut self, now: Timestamp, lease: u32, amount: Amount) -> Tally {
        let (live, used) = self.live(now);
        let live = live.count();
        self.units.drain(..self.units.len() - live);
        self.held = used;
        let until = now.saturating_add(std::time::Duration::from_secs(lease.into()));
        if amount > Amount::ZERO {
            match self.units.binary_search_by_key(&until, |unit| unit.until) {
                Ok(index) => {
                    if let Some(unit) = self.units.get_mut(index) {
                        unit.amount = unit.amount.plus(amount);
                    }
                }
                Err(index) => self.units.insert(index, Unit { until, amount: Total::ZERO.plus(amount) }),
            }
            self.held = self.held.plus(amount);
        }
        Tally { charged_at: until, ..self.tally(now) }
    }

    fn settle(&mut self, at: Timestamp, from: Amount, to: Amount, now: Timestamp) {
        let (before, after) = match self.units.binary_search_by_key(&at, |unit| unit.until) {
            Ok(index) => {
                let Some(unit) = self.units.get_mut(index) else { return };
                let before = unit.amount.micros();
                unit.amount = unit.amount.replace(from, to);
                let after = unit.amount.micros();
                if after == 0 {
                    self.units.remove(index);
                }
                (before, after)
            }
            // A unit of nothing is not kept: it is one from now on. Any other that is not there has run out.
            Err(index) if from == Amount::ZERO && to > Amount::ZERO && at > now => {
                self.units.insert(index, Unit { until: at, amount: Total::ZERO.plus(to) });
                (0, to.micros())
            }
            Err(_) => return,
        };
        // By what the unit has changed, which may be less than was asked: the sum is that of the units, always.
        self.held = match self.held.micros() {
            u64::MAX => self.units.iter().fold(Total::ZERO, |sum, unit| sum.plus_micros(unit.amount.micros())),
            held => Total::from_micros(held.saturating_sub(before).saturating_add(after)),
        };
    }
}

/// A sum as a whole number of millionths.
mod millionths {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::amount::Total;

    pub(in crate::store) fn serialize<S: Serializer>(total: &Total, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(total.micros())
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Total, D::Error> {
        u64::deserialize(deserializer).map(Total::from_micros)
    }
}

/// An instant as microseconds since the Unix epoch.
mod micros {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::time::Timestamp;

    pub(in crate::store) fn serialize<S: Serializer>(instant: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(instant.unix_micros())
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_unix_micros)
    }
}

/// A number that few formats hold, as the text of its digits.
mod digits {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::store) fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| de::Error::custom("not a whole number"))
    }
}
