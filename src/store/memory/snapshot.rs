//! Snapshots, which keep counters over a restart of the process.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::super::counter::Counter;
use super::super::sync::Ordering;
use super::MemoryStore;
use super::askers::AskerNumber;
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
    /// The keys of the askers that have counters.
    #[serde(default)]
    askers: Vec<Subject>,
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
    /// The number of the asker among `askers`, from 1; 0 if nobody is counted.
    #[serde(default)]
    asker: u32,
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
    /// It has a counter of an asker that it does not have.
    #[error("the snapshot has a counter of an unknown asker")]
    UnknownAsker,
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
        let mut snapshot = Snapshot { version: Version::One, horizon: None, counters: Vec::new(), askers: Vec::new() };
        let mut numbers: HashMap<Subject, u32> = HashMap::new();
        for shard in &self.shards {
            let table = shard.0.lock();
            snapshot.horizon = snapshot.horizon.max(table.horizon().map(Timestamp::unix_micros));
            // After the shard: a number of a row in it is not given to another asker meanwhile.
            let askers = self.askers.lock();
            for (key, cells) in table.rows() {
                let subject = Subject::of_bytes(key.subject());
                let asker = askers.key(key.asker()).map_or(0, |asker| {
                    *numbers.entry(Subject::of_bytes(asker)).or_insert_with_key(|asker| {
                        snapshot.askers.push(asker.clone());
                        u32::try_from(snapshot.askers.len()).unwrap_or(0)
                    })
                });
                let kept = |cell: &Cell| {
                    let (subject, state) = (subject.clone(), cell.to_counter());
                    Kept { counter: cell.counter, subject, state, asker }
                };
                snapshot.counters.extend(cells.iter().map(kept));
            }
        }
        snapshot
    }

    /// Makes a store of up to `capacity` counters from a snapshot. Askers keep what they have, also
    /// above their share. Units that were in flight stay
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
        for Kept { counter, subject, state, asker } in snapshot.counters {
            let asker = match usize::try_from(asker).ok().and_then(|asker| asker.checked_sub(1)) {
                None => None,
                Some(index) => Some(snapshot.askers.get(index).ok_or(RestoreError::UnknownAsker)?),
            };
            let spot = store.spot(&subject);
            let Ok(mut table) = store.lock(spot.shard) else { continue };
            let known = table
                .find(spot.hash, &subject)
                .is_some_and(|at| table.cells(at).iter().any(|cell| cell.counter == counter));
            if known {
                return Err(RestoreError::Duplicate { counter });
            }
            let mut askers = store.askers.lock();
            let number = asker.map_or(AskerNumber::NOBODY, |asker| askers.begin(asker, 1));
            let cell = Cell::restored(counter, state);
            let Some(added) = table.add(spot.hash, &subject, cell, None, number) else { return Err(full) };
            if added.asker != number {
                askers.add(added.asker, 1);
                askers.remove(number, 1);
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
