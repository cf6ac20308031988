//! Fixed, aligned windows.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::super::{ChargedAt, Tally};
use super::serde_formats::millionths;
use crate::amount::{Amount, Total};
use crate::charge::{Charge, Span};
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// The latest window that was charged, and what was used in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::store) struct Fixed {
    start: i64,
    /// The largest number is for a window without end.
    seconds: NonZeroU32,
    #[serde(with = "millionths")]
    used: Total,
}

impl Fixed {
    /// Returns `None` if the window has no length.
    #[cfg(feature = "redis")]
    pub(super) fn of_parts(start: i64, seconds: u32, used: Total) -> Option<Self> {
        Some(Self { start, seconds: NonZeroU32::new(seconds)?, used })
    }

    pub(in crate::store) fn new(window: Span) -> Self {
        let micros = window.end.unix_micros().saturating_sub(window.start.unix_micros());
        let seconds = micros.max(1).unsigned_abs().div_ceil(MICROS_PER_SECOND.unsigned_abs());
        let seconds = u32::try_from(seconds).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
        Self { start: window.start.unix_micros(), seconds, used: Total::ZERO }
    }

    #[inline]
    pub(in crate::store) fn window(&self) -> Span {
        let end = match self.seconds {
            NonZeroU32::MAX => i64::MAX,
            seconds => self.start.saturating_add(i64::from(seconds.get()).saturating_mul(MICROS_PER_SECOND)),
        };
        Span { start: Timestamp::from_unix_micros(self.start), end: Timestamp::from_unix_micros(end) }
    }

    /// Returns the state that a charge for the window `asked` meets: this one if its window is as
    /// late or later, as it is after a clock has stepped back.
    #[inline]
    fn at(self, asked: Span) -> Self {
        if self.start >= asked.start.unix_micros() { self } else { Self::new(asked) }
    }

    /// Returns its tally, with the end of the window as `retry_at`, if it ends.
    #[inline]
    pub(in crate::store) fn tally(self, asked: Span) -> Tally {
        let found = self.at(asked);
        let window = found.window();
        let retry_at = (window.end < Timestamp::MAX).then_some(window.end);
        Tally { used: found.used, resets_at: window.end, retry_at, charged_at: ChargedAt::new(window.start) }
    }

    /// Returns its tally for one charge. `retry_at` is `None` if no window has room for the charge.
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
