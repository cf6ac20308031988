//! States of the limits of a call.

use serde::Serialize;

use crate::amount::{Amount, Total};
use crate::policy::{LimitRef, Plan, Policy};
use crate::store::Tallies;
use crate::time::Timestamp;

/// The state of one limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitState {
    pub(crate) counter: Box<str>,
    pub(crate) used: Total,
    pub(crate) remaining: Amount,
    pub(crate) max: Amount,
    pub(crate) resets_at: Option<Timestamp>,
}

impl LimitState {
    /// Returns the name of the counter.
    pub fn counter(&self) -> &str {
        &self.counter
    }

    /// Returns what the counter holds.
    pub fn used(&self) -> Total {
        self.used
    }

    /// Returns what is left up to `max`, or up to the `burst` of a token bucket.
    pub fn remaining(&self) -> Amount {
        self.remaining
    }

    /// Returns the `max` of the limit, or the host's own for this caller if that is smaller
    /// (`max_from`).
    pub fn max(&self) -> Amount {
        self.max
    }

    /// Returns when the counter is empty again if nothing else is charged: for a fixed window, its
    /// end. `None` if only a reset empties it: the window `lifetime`.
    pub fn resets_at(&self) -> Option<Timestamp> {
        self.resets_at
    }

    pub(crate) fn all(policy: &Policy, plan: &Plan, tallies: &Tallies) -> Vec<Self> {
        let state = |(index, found): (usize, &LimitRef)| {
            let (limit, tally) = (policy.limit(*found)?, tallies.get(found.charge())?);
            let (max, room) = plan.max_and_room(index, limit);
            Some(Self {
                counter: limit.counter.clone(),
                used: tally.used,
                remaining: tally.used.remaining(room),
                max,
                resets_at: tally.resets_at(),
            })
        };
        plan.limits.iter().enumerate().filter_map(state).collect()
    }
}
