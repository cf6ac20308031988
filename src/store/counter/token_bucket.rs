//! Token buckets.

use serde::{Deserialize, Serialize};

use super::super::{ChargedAt, Tally};
use super::serde_formats::digits;
use crate::amount::{Amount, Total};
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// A token bucket: what is missing from it, which comes back at a constant rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenBucket {
    /// The time in which the meter's `refill` comes back. Never zero.
    seconds: u32,
    /// The missing amount at `at`, in parts: `seconds` times a million parts are a millionth. So
    /// every microsecond brings back a whole number of parts, whatever the rate.
    #[serde(with = "digits")]
    level: u128,
    /// The instant of the latest charge.
    at: i64,
    /// When it is full again, as of the latest charge.
    full_at: i64,
}

impl TokenBucket {
    pub(super) fn new(seconds: u32) -> Self {
        Self { seconds: seconds.max(1), level: 0, at: i64::MIN, full_at: i64::MIN }
    }

    #[cfg(feature = "redis")]
    pub(super) fn of_parts(seconds: u32, refill: Amount, level: u128, at: i64) -> Self {
        Self { seconds, level, at, full_at: drained_at(level, at, refill).unix_micros() }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.seconds > 0 && self.level <= self.highest()
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        Timestamp::from_unix_micros(self.full_at)
    }

    fn parts_per_micro(&self) -> u128 {
        u128::from(self.seconds) * u128::from(MICROS_PER_SECOND.unsigned_abs())
    }

    /// The highest level; levels saturate there.
    fn highest(&self) -> u128 {
        u128::from(u64::MAX) * self.parts_per_micro()
    }

    fn present(&self, now: Timestamp) -> i64 {
        now.unix_micros().max(self.at)
    }

    fn level_at(&self, present: i64, refill: Amount) -> u128 {
        let passed = u128::from(present.abs_diff(self.at));
        self.level.saturating_sub(u128::from(refill.micros()).saturating_mul(passed))
    }

    pub(super) fn tally(&self, now: Timestamp, refill: Amount) -> Tally {
        let present = self.present(now);
        let level = self.level_at(present, refill);
        let used = Total::from_micros(u64::try_from(level.div_ceil(self.parts_per_micro())).unwrap_or(u64::MAX));
        // A full bucket is full now, even if the clock has stepped back.
        let resets_at = if level == 0 { now } else { drained_at(level, present, refill) };
        let charged_at = ChargedAt::new(Timestamp::from_unix_micros(present));
        Tally { used, resets_at, retry_at: None, charged_at }
    }

    /// Returns when no more than `room` is missing, or `None` if that is never.
    pub(super) fn falls_to(&self, room: u64, now: Timestamp, refill: Amount) -> Option<Timestamp> {
        let present = self.present(now);
        let above = self.level_at(present, refill).checked_sub(u128::from(room) * self.parts_per_micro())?;
        Some(drained_at(above, present, refill)).filter(|instant| *instant < Timestamp::MAX)
    }

    pub(super) fn charge(&mut self, now: Timestamp, refill: Amount, amount: Amount) -> Tally {
        let present = self.present(now);
        self.put(present, self.level_at(present, refill), amount, refill);
        self.tally(now, refill)
    }

    pub(super) fn settle(&mut self, now: Timestamp, refill: Amount, from: Amount, to: Amount) {
        let present = self.present(now);
        let less = u128::from(from.micros().saturating_sub(to.micros())) * self.parts_per_micro();
        let more = Total::ZERO.plus(to).minus(from);
        let level = self.level_at(present, refill).saturating_sub(less);
        self.put(present, level, Amount::from_micros(more.micros()).unwrap_or(Amount::MAX), refill);
    }

    fn put(&mut self, present: i64, level: u128, amount: Amount, refill: Amount) {
        let level = level.saturating_add(u128::from(amount.micros()) * self.parts_per_micro());
        self.level = level.min(self.highest());
        self.at = present;
        self.full_at = drained_at(self.level, present, refill).unix_micros();
    }
}

/// Returns when a level has come back: [`Timestamp::MAX`] at a rate of zero.
fn drained_at(level: u128, present: i64, refill: Amount) -> Timestamp {
    let micros = match refill.micros() {
        _ if level == 0 => Some(0),
        0 => None,
        rate => i64::try_from(level.div_ceil(rate.into())).ok(),
    };
    Timestamp::from_unix_micros(micros.map_or(i64::MAX, |micros| present.saturating_add(micros)))
}
