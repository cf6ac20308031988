//! A window that slides.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::Tally;
use super::written::millionths;
use crate::amount::{Amount, Total};
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// A sliding window is looked at in steps of a 64th of its length: charges of one step are one slot, and leave together when
/// the last of them leaves. So none is counted for more than a 64th too long, and none too short.
const SLOTS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sliding {
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
    pub(super) fn new(seconds: u32) -> Self {
        Self { seconds: seconds.max(1), slots: VecDeque::new() }
    }

    /// `slots` are the last instant and the sum of each.
    #[cfg(feature = "redis")]
    pub(super) fn of_parts(seconds: u32, slots: impl Iterator<Item = (i64, Total)>) -> Self {
        Self { seconds, slots: slots.map(|(last, used)| Slot { last, used }).collect() }
    }

    pub(super) fn is_sound(&self) -> bool {
        if self.seconds == 0 || self.slots.len() > SLOTS + 1 {
            return false;
        }
        let cell = |slot: &Slot| self.cell(slot.last);
        self.slots.iter().zip(self.slots.iter().skip(1)).all(|(a, b)| cell(a) < cell(b))
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        self.slots.back().map_or(Timestamp::MIN, |slot| self.leaves(slot))
    }

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

    pub(super) fn tally(&self, now: Timestamp) -> Tally {
        let present = self.present(now);
        let used = self.live(present).fold(Total::ZERO, |sum, slot| sum.plus_micros(slot.used.micros()));
        // A slot that was given back, or charged nothing, holds nothing that could leave.
        let newest = self.live(present).find(|slot| slot.used > Total::ZERO);
        let resets_at = newest.map_or(now, |newest| self.leaves(newest));
        Tally { used, resets_at, retry_at: None, charged_at: present }
    }

    /// When it holds no more than `room`.
    pub(super) fn falls_to(&self, room: u64, now: Timestamp) -> Option<Timestamp> {
        let present = self.present(now);
        // From the newest back: the first slot that does not fit any more has to leave.
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

    pub(super) fn settle(&mut self, at: Timestamp, from: Amount, to: Amount) {
        let cell = self.cell(at.unix_micros());
        let found = self.slots.binary_search_by_key(&cell, |slot| self.cell(slot.last));
        if let Some(slot) = found.ok().and_then(|index| self.slots.get_mut(index)) {
            slot.used = slot.used.replace(from, to);
        }
    }
}
