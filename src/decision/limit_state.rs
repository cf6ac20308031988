//! States of the limits of a call.

use serde::Serialize;

use crate::amount::{Amount, Total};
use crate::policy::limit::Limit;
use crate::policy::{LimitRef, Policy};
use crate::store::{Tallies, Tally};
use crate::time::Timestamp;

/// The state of one limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitState {
    pub(crate) counter: Box<str>,
    pub(crate) used: Total,
    pub(crate) remaining: Amount,
    pub(crate) max: Amount,
    pub(crate) resets_at: Timestamp,
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

    /// Returns the most that the counter may hold.
    pub fn max(&self) -> Amount {
        self.max
    }

    /// Returns when the counter is empty again if nothing else is charged: for a fixed window, its
    /// end.
    pub fn resets_at(&self) -> Timestamp {
        self.resets_at
    }

    pub(crate) fn all(policy: &Policy, limits: &[LimitRef], tallies: &Tallies) -> Vec<Self> {
        let state = |found: &LimitRef| Some(Self::of(policy.limit(*found)?, tallies.get(found.charge())?));
        limits.iter().filter_map(state).collect()
    }

    pub(crate) fn of(limit: &Limit, tally: &Tally) -> Self {
        Self {
            counter: limit.counter.clone(),
            used: tally.used,
            remaining: tally.used.remaining(limit.room()),
            max: limit.max,
            resets_at: tally.resets_at,
        }
    }
}
