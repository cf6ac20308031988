//! Snapshots, which keep counters over a restart of the process.

use serde::{Deserialize, Serialize};

use super::super::counter::Counter;
use super::super::sync::Ordering;
use super::MemoryStore;
use super::row::Cell;
use crate::charge::{CounterId, Subject};
use crate::time::Timestamp;

/// The contents of a [`MemoryStore`], for a host that keeps counters over a restart. It works with
/// any serde format.
///
/// ```
/// use toolgate::store::{MemoryStore, Snapshot};
///
/// let store = MemoryStore::with_capacity(1_000);
/// let text = serde_json::to_string(&store.snapshot())?;
/// // The process restarts.
/// let snapshot: Snapshot = serde_json::from_str(&text)?;
/// let store = MemoryStore::restore(snapshot, 1_000)?;
/// # assert!(store.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    version: Version,
    /// The instant up to which counters that ended have been reclaimed, in microseconds since the
    /// Unix epoch.
    horizon: Option<i64>,
    counters: Vec<Kept>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    #[serde(rename = "1")]
    One,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    counter: CounterId,
    subject: Subject,
    state: Counter,
}

/// A snapshot cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// It has more counters than the capacity of the store.
    #[error("the snapshot has {counters} counters, more than the capacity of {capacity}")]
    Full {
        /// The number of counters in the snapshot.
        counters: usize,
        /// The capacity of the store.
        capacity: usize,
    },
    /// It has a counter of one subject twice, so that it is unknown what was used.
    #[error("the snapshot has {counter:?} twice for one subject")]
    Duplicate {
        /// The counter.
        counter: CounterId,
    },
}

impl Snapshot {
    /// Returns the number of counters.
    pub fn len(&self) -> usize {
        self.counters.len()
    }

    /// Returns whether it has no counters.
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }
}

impl MemoryStore {
    /// Takes a snapshot of the store. O(counters).
    ///
    /// Shards are locked one after another, so other threads continue. A call that is counted
    /// meanwhile may be in the snapshot completely, for some of its subjects only, or not at all.
    /// Where that matters, take the snapshot while there are no calls.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot { version: Version::One, horizon: None, counters: Vec::new() };
        for shard in &self.shards {
            let table = shard.0.lock();
            snapshot.horizon = snapshot.horizon.max(table.horizon().map(Timestamp::unix_micros));
            for (key, cells) in table.rows() {
                let subject = Subject::of_bytes(key.as_slice());
                let kept =
                    |cell: &Cell| Kept { counter: cell.counter, subject: subject.clone(), state: cell.to_counter() };
                snapshot.counters.extend(cells.iter().map(kept));
            }
        }
        snapshot
    }

    /// Makes a store of up to `capacity` counters from a snapshot. Units that were in flight stay
    /// charged until their leases end. O(counters).
    ///
    /// # Errors
    /// Fails if there are more counters than `capacity`, or a counter of one subject twice.
    pub fn restore(snapshot: Snapshot, capacity: usize) -> Result<Self, RestoreError> {
        let counters = snapshot.counters.len();
        let full = RestoreError::Full { counters, capacity };
        if counters > capacity {
            return Err(full);
        }
        let store = Self::with_capacity(capacity);
        for shard in &store.shards {
            shard.0.lock().set_horizon(snapshot.horizon.map(Timestamp::from_unix_micros));
        }
        for Kept { counter, subject, state } in snapshot.counters {
            let spot = store.spot(&subject);
            let Ok(mut table) = store.lock(spot.shard) else { continue };
            let known = table
                .find(spot.hash, &subject)
                .is_some_and(|at| table.cells(at).iter().any(|cell| cell.counter == counter));
            if known {
                return Err(RestoreError::Duplicate { counter });
            }
            if table.add(spot.hash, &subject, Cell::restored(counter, state), None).is_none() {
                return Err(full);
            }
            store.held.fetch_add(1, Ordering::Relaxed);
        }
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Amount;
    use crate::charge::{Charge, Meter, Span};
    use crate::store::{CounterStore, Outcome, ReservationId, ReserveRequest};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

    fn charges() -> Vec<Charge> {
        let minute = Span { start: NOW, end: NOW.saturating_add(std::time::Duration::from_secs(60)) };
        let refill = Amount::ONE;
        let meters = [
            Meter::Fixed(minute),
            Meter::Sliding { seconds: 60 },
            Meter::TokenBucket { refill, seconds: 60 },
            Meter::InFlight { lease: 60 },
        ];
        let charge = |(index, meter): (u8, Meter)| Charge {
            counter: CounterId::of([&*index.to_string()]),
            subject: Subject::of_bytes(b"\x00anyone{}"),
            amount: Amount::MAX,
            max: Some(Amount::MAX),
            meter,
        };
        (0..).zip(meters).map(charge).collect()
    }

    fn granted(store: &MemoryStore) -> bool {
        let charges = charges();
        matches!(store.reserve(&ReserveRequest::new(ReservationId::next(), NOW, &charges)), Ok(Outcome::Granted(_)))
    }

    #[test]
    fn restores_counters_of_every_kind() {
        let store = MemoryStore::with_capacity(10);
        assert!(granted(&store) && !granted(&store));
        let text = serde_json::to_string(&store.snapshot()).unwrap();
        let snapshot: Snapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(snapshot.len(), 4);
        let restored = MemoryStore::restore(snapshot.clone(), 4).unwrap();
        assert_eq!(restored.len(), 4);
        assert!(!granted(&restored));
        assert_eq!(restored.snapshot().horizon, snapshot.horizon);
        let sorted = |mut snapshot: Snapshot| {
            snapshot.counters.sort_by_key(|kept| kept.counter);
            snapshot
        };
        assert_eq!(sorted(restored.snapshot()), sorted(snapshot));
    }

    #[test]
    fn rejects_snapshots_that_do_not_fit() {
        let store = MemoryStore::with_capacity(10);
        assert!(granted(&store));
        let mut snapshot = store.snapshot();
        let full = MemoryStore::restore(snapshot.clone(), 3).unwrap_err();
        assert_eq!(full, RestoreError::Full { counters: 4, capacity: 3 });
        snapshot.counters.extend_from_within(..1);
        assert!(matches!(MemoryStore::restore(snapshot, 10), Err(RestoreError::Duplicate { .. })));
    }

    #[test]
    fn rejects_states_that_charges_cannot_produce() {
        let store = MemoryStore::with_capacity(10);
        assert!(granted(&store));
        let text = serde_json::to_string(&store.snapshot()).unwrap();
        for (from, to) in [
            ("\"version\":\"1\"", "\"version\":\"2\""),
            ("\"seconds\":60", "\"seconds\":0"),
            ("\"held\":", "\"held\":1"),
            ("\"subject\":\"00", "\"subject\":\"0"),
            ("\"subject\":\"00", "\"subject\":\"é"),
            ("\"level\":\"", "\"level\":\"-"),
            ("\"level\":\"", "\"level\":\"340282366920938463463"),
            ("\"counter\":\"", "\"counter\":\"00"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            let error = serde_json::from_str::<Snapshot>(&changed).unwrap_err();
            assert!(!error.to_string().is_empty());
        }
    }
}
