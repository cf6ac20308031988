//! How the limits of a call stand.

use serde::Serialize;

use crate::amount::{Amount, Total};
use crate::policy::limit::Limit;
use crate::policy::{LimitRef, Policy};
use crate::store::{Tallies, Tally};
use crate::time::Timestamp;

/// How one limit stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitState {
    pub(crate) counter: Box<str>,
    pub(crate) used: Total,
    pub(crate) remaining: Amount,
    pub(crate) max: Amount,
    pub(crate) resets_at: Timestamp,
}

impl LimitState {
    /// The name of its counter.
    pub fn counter(&self) -> &str {
        &self.counter
    }

    /// What the counter holds.
    pub fn used(&self) -> Total {
        self.used
    }

    /// What is left up to `max`, or to the `burst` of a token bucket.
    pub fn remaining(&self) -> Amount {
        self.remaining
    }

    /// The most that the counter may hold.
    pub fn max(&self) -> Amount {
        self.max
    }

    /// When the counter holds nothing any more, if nothing else is charged: the end of a fixed window.
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
