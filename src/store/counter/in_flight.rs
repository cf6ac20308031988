//! Calls in flight.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::{ChargedAt, Tally};
use super::serde_formats::{micros, millionths};
use crate::amount::{Amount, Total};
use crate::time::Timestamp;

/// The units in flight, each with the end of its lease.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InFlight {
    /// The sum of all units.
    #[serde(with = "millionths")]
    held: Total,
    /// In the order of `until`. Units whose leases end at the same instant are merged.
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
    /// `units` has the end of the lease and the amount of each.
    #[cfg(feature = "redis")]
    pub(super) fn of_parts(held: Total, units: impl Iterator<Item = (i64, Total)>) -> Self {
        let unit = |(until, amount)| Unit { until: Timestamp::from_unix_micros(until), amount };
        Self { held, units: units.map(unit).collect() }
    }

    pub(super) fn is_sound(&self) -> bool {
        let ordered = self.units.iter().zip(self.units.iter().skip(1)).all(|(a, b)| a.until < b.until);
        let sum = self.units.iter().fold(Total::ZERO, |sum, unit| sum.plus_micros(unit.amount.micros()));
        // A saturated sum stays at its highest value.
        ordered && (sum == self.held || self.held.micros() == u64::MAX)
    }

    pub(super) fn expires_at(&self) -> Timestamp {
        self.last().unwrap_or(Timestamp::MIN)
    }

    fn last(&self) -> Option<Timestamp> {
        self.units.back().map(|unit| unit.until)
    }

    /// Returns the units whose leases have not ended, and their sum.
    fn live(&self, now: Timestamp) -> (impl Iterator<Item = &Unit>, Total) {
        let gone = self.units.iter().take_while(|unit| unit.until <= now);
        let (count, sum) =
            gone.fold((0, 0u64), |(count, sum), unit| (count + 1, unit.amount.micros().saturating_add(sum)));
        // A saturated sum is added up anew.
        let used = match self.held.micros() {
            u64::MAX => {
                self.units.iter().skip(count).fold(Total::ZERO, |sum, unit| sum.plus_micros(unit.amount.micros()))
            }
            held => Total::from_micros(held.saturating_sub(sum)),
        };
        (self.units.iter().skip(count), used)
    }

    pub(super) fn tally(&self, now: Timestamp) -> Tally {
        let (_, used) = self.live(now);
        let resets_at = self.last().map_or(now, |last| last.max(now));
        Tally { used, resets_at, retry_at: None, charged_at: ChargedAt::new(now) }
    }

    /// Returns when it holds no more than `room`, if the end of no call is reported.
    pub(super) fn falls_to(&self, room: u64, now: Timestamp) -> Option<Timestamp> {
        let (mut live, used) = self.live(now);
        let mut over = used.micros().saturating_sub(room);
        live.find_map(|unit| {
            over = over.saturating_sub(unit.amount.micros());
            (over == 0).then_some(unit.until)
        })
    }

    pub(super) fn charge(&mut self, now: Timestamp, lease: u32, amount: Amount) -> Tally {
        let (live, used) = self.live(now);
        let live = live.count();
        self.units.drain(..self.units.len() - live);
        self.held = used;
        let until = now.saturating_add(std::time::Duration::from_secs(lease.into()));
        if amount > Amount::ZERO {
            self.add(until, amount.micros());
            self.held = self.held.plus(amount);
        }
        Tally { charged_at: ChargedAt::new(until), ..self.tally(now) }
    }

    fn add(&mut self, until: Timestamp, micros: u64) {
        match self.units.binary_search_by_key(&until, |unit| unit.until) {
            Ok(index) => {
                if let Some(unit) = self.units.get_mut(index) {
                    unit.amount = unit.amount.plus_micros(micros);
                }
            }
            Err(index) => self.units.insert(index, Unit { until, amount: Total::from_micros(micros) }),
        }
    }

    /// Moves the end of a lease that has not ended.
    pub(super) fn prolong(&mut self, at: Timestamp, amount: Amount, until: Timestamp, now: Timestamp) {
        let Ok(index) = self.units.binary_search_by_key(&at, |unit| unit.until) else { return };
        let Some(unit) = self.units.get_mut(index).filter(|_| at > now && until > at) else { return };
        let moved = amount.micros().min(unit.amount.micros());
        unit.amount = Total::from_micros(unit.amount.micros() - moved);
        if unit.amount == Total::ZERO {
            self.units.remove(index);
        }
        if moved > 0 {
            self.add(until, moved);
        }
    }

    pub(super) fn settle(&mut self, at: Timestamp, from: Amount, to: Amount, now: Timestamp) {
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
            // A unit of zero is not kept, so it begins now. The lease of any other missing unit has
            // ended.
            Err(index) if from == Amount::ZERO && to > Amount::ZERO && at > now => {
                self.units.insert(index, Unit { until: at, amount: Total::ZERO.plus(to) });
                (0, to.micros())
            }
            Err(_) => return,
        };
        // By the change of the unit, which may be less than requested: the sum is always that of
        // the units.
        self.held = match self.held.micros() {
            u64::MAX => self.units.iter().fold(Total::ZERO, |sum, unit| sum.plus_micros(unit.amount.micros())),
            held => Total::from_micros(held.saturating_sub(before).saturating_add(after)),
        };
    }
}
