//! Sliding windows.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::{ChargedAt, Tally};
use super::serde_formats::millionths;
use crate::amount::{Amount, Total};
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// The number of steps in a window. Charges of one step share a slot and leave together, when the
/// last of them leaves. So a charge is counted for at most a 64th of the window too long, and never
/// too short.
const SLOTS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sliding {
    /// Never zero.
    seconds: u32,
    /// In the order of time, one for each step in which something was charged.
    slots: VecDeque<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    /// The instant of its latest charge.
    last: i64,
    #[serde(with = "millionths")]
    used: Total,
}

impl Sliding {
    pub(super) fn new(seconds: u32) -> Self {
        Self { seconds: seconds.max(1), slots: VecDeque::new() }
    }

    /// `slots` has the instant of the latest charge and the sum of each.
    #[cfg(feature = "redis")]
    pub(super) fn of_parts(seconds: u32, slots: impl Iterator<Item = (i64, Total)>) -> Self {
        Self { seconds, slots: slots.map(|(last, used)| Slot { last, used }).collect() }
    }

    pub(super) fn is_sound(&self) -> bool {
        if self.seconds == 0 || self.slots.len() > SLOTS + 1 {
            return false;
        }
        let step = |slot: &Slot| self.step(slot.last);
        self.slots.iter().zip(self.slots.iter().skip(1)).all(|(a, b)| step(a) < step(b))
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        self.slots.back().map_or(Timestamp::MIN, |slot| self.leaves(slot))
    }

    /// Returns the number of the step of an instant. A 64th of a second is a whole number of
    /// microseconds.
    fn step(&self, micros: i64) -> i64 {
        micros.div_euclid(i64::from(self.seconds) * (MICROS_PER_SECOND / SLOTS as i64))
    }

    /// Returns when a slot leaves the window.
    fn leaves(&self, slot: &Slot) -> Timestamp {
        Timestamp::from_unix_micros(slot.last.saturating_add(i64::from(self.seconds) * MICROS_PER_SECOND))
    }

    /// Returns the present, or the instant of the latest charge if the clock has stepped back.
    fn present(&self, now: Timestamp) -> Timestamp {
        self.slots.back().map_or(now, |newest| now.max(Timestamp::from_unix_micros(newest.last)))
    }

    /// Returns the slots in the window, the newest first.
    fn live(&self, present: Timestamp) -> impl Iterator<Item = &Slot> {
        self.slots.iter().rev().take_while(move |slot| self.leaves(slot) > present)
    }

    pub(super) fn tally(&self, now: Timestamp) -> Tally {
        let present = self.present(now);
        let used = self.live(present).fold(Total::ZERO, |sum, slot| sum.plus_micros(slot.used.micros()));
        // A slot of zero has nothing that could leave.
        let newest = self.live(present).find(|slot| slot.used > Total::ZERO);
        let resets_at = newest.map_or(now, |newest| self.leaves(newest));
        Tally { used, resets_at, retry_at: None, charged_at: ChargedAt::new(present) }
    }

    /// Returns when it holds no more than `room`.
    pub(super) fn falls_to(&self, room: u64, now: Timestamp) -> Option<Timestamp> {
        let present = self.present(now);
        // From the newest backwards, the first slot that does not fit has to leave.
        let mut held = Total::ZERO;
        let leaves = self.live(present).find(|slot| {
            held = held.plus_micros(slot.used.micros());
            held.micros() > room
        });
        leaves.map(|slot| self.leaves(slot))
    }

    pub(super) fn charge(&mut self, now: Timestamp, amount: Amount) -> Tally {
        let present = self.present(now);
        while self.slots.front().is_some_and(|oldest| self.leaves(oldest) <= present) {
            self.slots.pop_front();
        }
        let micros = present.unix_micros();
        let step = self.step(micros);
        match self.slots.back().map(|newest| self.step(newest.last)) {
            Some(newest) if newest == step => {
                if let Some(newest) = self.slots.back_mut() {
                    newest.last = micros;
                    newest.used = newest.used.plus(amount);
                }
            }
            _ => self.slots.push_back(Slot { last: micros, used: Total::ZERO.plus(amount) }),
        }
        self.tally(now)
    }

    pub(super) fn settle(&mut self, at: Timestamp, from: Amount, to: Amount) {
        let step = self.step(at.unix_micros());
        let found = self.slots.binary_search_by_key(&step, |slot| self.step(slot.last));
        if let Some(slot) = found.ok().and_then(|index| self.slots.get_mut(index)) {
            slot.used = slot.used.replace(from, to);
        }
    }
}
