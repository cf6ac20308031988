//! Counters in the process.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use super::{Counter, CounterStore, Outcome, Reserve, Settle, Settled, StoreError, Tallies, Tally};
use crate::charge::{Charge, CounterId, Subject};
use crate::time::Timestamp;

/// Counters kept in the memory of the process: the embedded default.
///
/// A reservation takes one short lock for each different subject of its charges (mostly one), out of 64, and allocates
/// only when a subject is counted for the first time. Each takes O(charges), whatever the number of counters.
///
/// Memory is bounded: at most [`capacity`](Self::with_capacity) counters are live, and a store that is full of live
/// ones refuses new ones, it never evicts. Beyond 65,536 counters (or half of the capacity), those whose window has ended are
/// reclaimed, a few at a time whenever a new subject is counted; there is no background thread. Once some are gone, a clock
/// that steps back to their windows, by more than two seconds, finds new subjects refused
/// ([`StoreError::ClockSteppedBack`]) until it has caught up: what they had used is not known any more. Subjects are hashed with a key drawn at random for each store.
pub struct MemoryStore {
    shards: Box<[Mutex<Shard>]>,
    hash: RandomState,
    capacity: usize,
    /// Up to so many counters nothing is reclaimed.
    keep: usize,
    /// Counters in all shards, expired ones that are not reclaimed yet included.
    held: AtomicUsize,
}

/// As many as a word has bits.
const SHARDS: usize = u64::BITS as usize;
/// How many buckets are looked at for expired rows when a row is added. Above one, so that reclaiming outruns growth.
const SWEEP: usize = 6;
/// How many when the store is full.
const SWEEP_WHEN_FULL: usize = 1024;
/// Up to so many counters, some ten megabytes, or half of the capacity, expired ones are kept too: then even a clock that steps
/// back finds what was spent in every window that it comes to.
const KEEP: usize = 65_536;
/// A counter is reclaimed this long after its window has ended, so that threads which read the clock at slightly
/// different times, and small corrections of the clock, never meet a window that has been forgotten.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Shard {
    rows: HashTable<Row>,
    /// Where the next sweep begins.
    hand: usize,
    /// The latest end of a window whose counter was reclaimed. What was used in windows up to here is not known.
    horizon: Option<Timestamp>,
}

/// All counters of one subject: they stand side by side, and under one lock.
struct Row {
    hash: u64,
    subject: Subject,
    cells: SmallVec<[Cell; 1]>,
}

struct Cell {
    counter: CounterId,
    state: Counter,
}

impl Row {
    fn settle(&mut self, settled: &Settled<'_>, now: Timestamp) -> Result<(), StoreError> {
        match self.cells.iter_mut().find(|cell| cell.counter == settled.charge.counter) {
            Some(cell) => cell.state.settle(settled.charge, settled.at, settled.to, now),
            None => Ok(()),
        }
    }
}

impl Cell {
    fn expired(&self, now: Timestamp) -> bool {
        self.state.expires_at().saturating_add(GRACE) <= now
    }
}

impl Default for MemoryStore {
    /// A store of up to a million live counters.
    fn default() -> Self {
        Self::with_capacity(1_000_000)
    }
}

impl MemoryStore {
    /// A store of up to a million live counters.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store of up to `counters` live counters. They take some 220 bytes each, or 130 where three count one
    /// subject, as they come (`cargo bench --bench memory` measures it); nothing is allocated in advance.
    pub fn with_capacity(counters: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hash: RandomState::default(),
            capacity: counters,
            keep: KEEP.min(counters / 2),
            held: AtomicUsize::new(0),
        }
    }

    /// How many counters are held, expired ones that are not reclaimed yet included.
    pub fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether no counter is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn hash_of(&self, subject: &Subject) -> u64 {
        let mut hasher = self.hash.build_hasher();
        hasher.write(subject.as_bytes());
        hasher.finish()
    }

    /// Looks at all counters of the request with their shards locked; if there is room in each, charges all of them.
    fn run(&self, request: &Reserve<'_>, commit: bool) -> Result<Outcome, StoreError> {
        let mut locked = self.lock(request.charges.iter().map(|charge| &charge.subject));
        let mut look = locked.look(request)?;
        if look.missing > 0 && look.room {
            if commit && self.len() > self.keep {
                locked.sweep(SWEEP, request.now, &self.held);
                look = locked.look(request)?;
            }
            if self.held.load(Ordering::Relaxed).saturating_add(look.missing) > self.capacity {
                locked.sweep(SWEEP_WHEN_FULL, request.now, &self.held);
                look = locked.look(request)?;
            }
            self.claim(look.missing, commit)?;
        }
        if !look.room {
            return Ok(Outcome::Refused(look.tallies));
        }
        if commit {
            look.tallies = locked.write(request)?;
        }
        Ok(Outcome::Granted(look.tallies))
    }

    /// Counts `missing` new counters, if there is place for them.
    fn claim(&self, missing: usize, commit: bool) -> Result<(), StoreError> {
        let before = self.held.fetch_add(missing, Ordering::Relaxed);
        let fits = before.saturating_add(missing) <= self.capacity;
        if !(fits && commit) {
            self.held.fetch_sub(missing, Ordering::Relaxed);
        }
        if fits { Ok(()) } else { Err(StoreError::Full { capacity: self.capacity }) }
    }

    /// Locks the shards of all charges, in ascending order, so that no two calls wait for each other.
    fn lock<'c>(&self, subjects: impl Iterator<Item = &'c Subject>) -> Locked<'_> {
        let mut locked = Locked { guards: SmallVec::new(), places: SmallVec::new() };
        // The shards as the bits of one word: in order, each once.
        let mut wanted = 0u64;
        for subject in subjects {
            let hash = self.hash_of(subject);
            let shard = shard_of(hash);
            wanted |= 1 << shard;
            locked.places.push(Place { hash, guard: shard, row: None });
        }
        for place in &mut locked.places {
            place.guard = (wanted & ((1 << place.guard) - 1)).count_ones() as usize;
        }
        while wanted != 0 {
            if let Some(shard) = self.shards.get(wanted.trailing_zeros() as usize) {
                locked.guards.push(shard.lock());
            }
            wanted &= wanted - 1;
        }
        locked
    }
}

#[inline]
fn shard_of(hash: u64) -> usize {
    // Neither the low bits, by which a table finds the bucket, nor the top seven, which it keeps as a tag.
    (hash >> 40) as usize % SHARDS
}

/// The shards that a request needs, locked.
struct Locked<'s> {
    guards: SmallVec<[MutexGuard<'s, Shard>; 4]>,
    /// One for each charge.
    places: SmallVec<[Place; 4]>,
}

/// Where a charge is counted.
#[derive(Clone, Copy)]
struct Place {
    hash: u64,
    /// Which of the guards has its shard.
    guard: usize,
    /// The bucket of the subject's row, until a row is added or removed.
    row: Option<usize>,
}

struct Look {
    /// Every charge fits.
    room: bool,
    /// As the counters stand.
    tallies: Tallies,
    /// How many counters are not there yet.
    missing: usize,
}

impl Look {
    fn add(&mut self, charge: &Charge, tally: Tally) {
        self.room &= tally.has_room(charge);
        self.tallies.push(tally);
    }
}

impl Locked<'_> {
    fn look(&mut self, request: &Reserve<'_>) -> Result<Look, StoreError> {
        let mut look = Look { room: true, tallies: Tallies::new(), missing: 0 };
        for (charge, place) in request.charges.iter().zip(&mut self.places) {
            let Some(shard) = self.guards.get(place.guard) else { return Err(StoreError::Unavailable(None)) };
            place.row = shard.rows.find_bucket_index(place.hash, |row| row.subject == charge.subject);
            let row = place.row.and_then(|bucket| shard.rows.get_bucket(bucket));
            let cell = row.and_then(|row| row.cells.iter().find(|cell| cell.counter == charge.counter));
            let tally = match cell {
                Some(cell) => cell.state.tally(charge, request.now)?,
                None => {
                    if let Some(horizon) = shard.horizon.filter(|horizon| request.now < *horizon) {
                        return Err(StoreError::ClockSteppedBack { horizon });
                    }
                    look.missing += 1;
                    Counter::new(&charge.meter).tally(charge, request.now)?
                }
            };
            look.add(charge, tally);
        }
        Ok(look)
    }

    fn write(&mut self, request: &Reserve<'_>) -> Result<Tallies, StoreError> {
        let mut tallies = Tallies::new();
        let mut added = false;
        for (charge, place) in request.charges.iter().zip(&self.places) {
            let Some(shard) = self.guards.get_mut(place.guard) else { continue };
            let row = match place.row {
                Some(bucket) if !added => shard.rows.get_bucket_mut(bucket),
                _ => {
                    added = true;
                    let entry = shard.rows.entry(place.hash, |row| row.subject == charge.subject, |row| row.hash);
                    let subject = || Row { hash: place.hash, subject: charge.subject.clone(), cells: SmallVec::new() };
                    Some(entry.or_insert_with(subject).into_mut())
                }
            };
            let Some(row) = row else { continue };
            let index = row.cells.iter().position(|cell| cell.counter == charge.counter);
            let index = index.unwrap_or_else(|| {
                row.cells.push(Cell { counter: charge.counter, state: Counter::new(&charge.meter) });
                row.cells.len() - 1
            });
            if let Some(cell) = row.cells.get_mut(index) {
                tallies.push(cell.state.charge(charge, request.now)?);
            }
        }
        Ok(tallies)
    }

    /// Reclaims expired rows among the next `buckets` of each locked shard.
    fn sweep(&mut self, buckets: usize, now: Timestamp, held: &AtomicUsize) {
        for shard in &mut self.guards {
            shard.sweep(buckets, now, held);
        }
    }
}

impl Shard {
    fn sweep(&mut self, buckets: usize, now: Timestamp, held: &AtomicUsize) {
        let all = self.rows.num_buckets();
        for _ in 0..buckets.min(all) {
            self.hand = if self.hand + 1 < all { self.hand + 1 } else { 0 };
            let expired = |row: &Row| row.cells.iter().all(|cell| cell.expired(now));
            if !self.rows.get_bucket(self.hand).is_some_and(expired) {
                continue;
            }
            if let Ok(entry) = self.rows.get_bucket_entry(self.hand) {
                let (row, _) = entry.remove();
                held.fetch_sub(row.cells.len(), Ordering::Relaxed);
                self.horizon = self.horizon.max(row.cells.iter().map(|cell| cell.state.expires_at()).max());
            }
        }
    }
}

impl CounterStore for MemoryStore {
    fn reserve(&self, request: &Reserve<'_>) -> Result<Outcome, StoreError> {
        self.run(request, true)
    }

    fn peek(&self, request: &Reserve<'_>) -> Result<Outcome, StoreError> {
        self.run(request, false)
    }

    fn settle(&self, request: &Settle<'_>) -> Result<(), StoreError> {
        let mut locked = self.lock(request.charges.iter().map(|settled| &settled.charge.subject));
        for (settled, place) in request.charges.iter().zip(&locked.places) {
            let shard = locked.guards.get_mut(place.guard);
            let subject = &settled.charge.subject;
            let row = shard.and_then(|shard| shard.rows.find_mut(place.hash, |row| row.subject == *subject));
            if let Some(row) = row {
                row.settle(settled, request.now)?;
            }
        }
        Ok(())
    }

    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        let hash = self.hash_of(subject);
        let Some(mut shard) = self.shards.get(shard_of(hash)).map(Mutex::lock) else { return Ok(()) };
        if let Ok(mut entry) = shard.rows.find_entry(hash, |row| row.subject == *subject) {
            let cells = &mut entry.get_mut().cells;
            let before = cells.len();
            cells.retain(|cell| cell.counter != counter);
            self.held.fetch_sub(before - cells.len(), Ordering::Relaxed);
            if cells.is_empty() {
                entry.remove();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("counters", &self.len()).field("capacity", &self.capacity).finish()
    }
}
