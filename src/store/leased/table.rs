//! The leases of all counters, in shards with a short lock each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::lease::{Lease, Returned, Terms};
use crate::amount::Amount;
use crate::charge::{Charge, CounterId, Meter, Span, Subject};
use crate::time::Timestamp;

/// As many as a word has bits, so that one word is a set of shards.
const SHARDS: usize = u64::BITS as usize;
/// The number of rows that each call that slices do not serve checks for expiry and idleness.
const ROWS_PER_SWEEP: usize = 4;
/// A lease is forgotten this long after the end of its window: threads read the clock at slightly
/// different times.
const GRACE: Duration = Duration::from_secs(2);

pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    pub(super) capacity: usize,
    held: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    rows: HashTable<Row>,
    /// The position of the next sweep.
    hand: usize,
}

struct Row {
    hash: u64,
    counter: CounterId,
    subject: Subject,
    lease: Lease,
}

impl Row {
    fn is(&self, counter: CounterId, subject: &Subject) -> bool {
        self.counter == counter && self.subject == *subject
    }

    /// Makes a charge of zero that names the counter and the subject.
    fn name(&self) -> Charge {
        let window = Span { start: self.lease.window_start(), end: self.lease.window_start() };
        let (counter, subject, meter) = (self.counter, self.subject.clone(), Meter::Fixed(window));
        Charge { counter, subject, amount: Amount::ZERO, max: None, meter }
    }
}

/// The position of the lease of a charge.
#[derive(Clone, Copy)]
struct Position {
    hash: u64,
    /// The index of the guard of its shard.
    guard: usize,
    /// The bucket of its row, after the lookup.
    bucket: Option<usize>,
}

/// The locked shards of several charges.
pub(super) struct Locked<'t> {
    guards: SmallVec<[MutexGuard<'t, Shard>; 4]>,
    positions: SmallVec<[Position; 4]>,
}

/// The locked shard of one subject.
pub(super) struct LockedOne<'t> {
    hash: u64,
    shard: MutexGuard<'t, Shard>,
}

impl LockedOne<'_> {
    /// Looks up the lease of a charge.
    #[inline]
    pub(super) fn find(&self, charge: &Charge) -> Option<usize> {
        let hash = row_hash(self.hash, charge.counter);
        self.shard.rows.find_bucket_index(hash, |row| row.is(charge.counter, &charge.subject))
    }

    /// Returns the lease that was found in a bucket.
    #[inline]
    pub(super) fn found(&mut self, bucket: usize) -> Option<&mut Lease> {
        self.shard.rows.get_bucket_mut(bucket).map(|row| &mut row.lease)
    }
}

impl Table {
    pub(super) fn new(capacity: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, capacity, held: AtomicUsize::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Locks the shards of all charges, in ascending order, so that calls do not deadlock.
    #[inline]
    pub(super) fn lock<'c>(&self, charges: impl Iterator<Item = &'c Charge>) -> Locked<'_> {
        let mut locked = Locked { guards: SmallVec::new(), positions: SmallVec::new() };
        let mut wanted = 0u64;
        for charge in charges {
            let hash = charge.subject.hash_code();
            let shard = shard_of(hash);
            wanted |= 1 << shard;
            locked.positions.push(Position { hash: row_hash(hash, charge.counter), guard: shard, bucket: None });
        }
        for position in &mut locked.positions {
            position.guard = (wanted & ((1 << position.guard) - 1)).count_ones() as usize;
        }
        while wanted != 0 {
            if let Some(shard) = self.shards.get(wanted.trailing_zeros() as usize) {
                locked.guards.push(shard.lock());
            }
            wanted &= wanted - 1;
        }
        locked
    }

    /// Locks the shard of one subject.
    #[inline]
    pub(super) fn lock_one(&self, subject: &Subject) -> Option<LockedOne<'_>> {
        let hash = subject.hash_code();
        Some(LockedOne { hash, shard: self.shards.get(shard_of(hash))?.lock() })
    }

    /// Changes a lease, if there is one, with its shard locked.
    pub(super) fn with<T>(
        &self,
        counter: CounterId,
        subject: &Subject,
        change: impl FnOnce(&mut Lease) -> T,
    ) -> Option<T> {
        let hash = subject.hash_code();
        let mut shard = self.shards.get(shard_of(hash))?.lock();
        let row = shard.rows.find_mut(row_hash(hash, counter), |row| row.is(counter, subject));
        row.map(|row| change(&mut row.lease))
    }

    /// Changes a lease, with its shard locked. Adds one if there is none and the table is not full.
    pub(super) fn with_new<T>(
        &self,
        charge: &Charge,
        window: Span,
        now: Timestamp,
        change: impl FnOnce(&mut Lease) -> T,
    ) -> Option<T> {
        let hash = charge.subject.hash_code();
        let mut shard = self.shards.get(shard_of(hash))?.lock();
        let hash = row_hash(hash, charge.counter);
        if let Some(row) = shard.rows.find_mut(hash, |row| row.is(charge.counter, &charge.subject)) {
            return Some(change(&mut row.lease));
        }
        if self.held.fetch_add(1, Ordering::Relaxed) >= self.capacity {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let (counter, subject, lease) = (charge.counter, charge.subject.clone(), Lease::new(window, now));
        let row = Row { hash, counter, subject, lease };
        Some(change(&mut shard.rows.insert_unique(hash, row, |row| row.hash).into_mut().lease))
    }

    /// Removes a lease, with what is left of it.
    pub(super) fn remove(&self, counter: CounterId, subject: &Subject) {
        let hash = subject.hash_code();
        let Some(mut shard) = self.shards.get(shard_of(hash)).map(Mutex::lock) else { return };
        if let Ok(entry) = shard.rows.find_entry(row_hash(hash, counter), |row| row.is(counter, subject)) {
            entry.remove();
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes up to `most` out of a lease, to return it.
    pub(super) fn take(&self, charge: &Charge, most: impl FnOnce(&Lease) -> u64) -> Option<SmallVec<[Returned; 2]>> {
        self.with(charge.counter, &charge.subject, |lease| lease.take(most(lease), charge))
    }

    /// Checks a few rows of the subject's shard, and takes what is left of one that has been idle.
    ///
    /// Above half of the capacity, removes leases whose windows have ended; in a full table, also
    /// idle leases with nothing left. (Below that, leases stay for a clock that steps back.)
    pub(super) fn sweep(&self, subject: &Subject, now: Timestamp, terms: &Terms) -> SmallVec<[Returned; 2]> {
        let Some(mut shard) = self.shards.get(shard_of(subject.hash_code())).map(Mutex::lock) else {
            return SmallVec::new();
        };
        let (crowded, full) = (self.len() > self.capacity / 2, self.len() >= self.capacity);
        let all = shard.rows.num_buckets();
        for _ in 0..ROWS_PER_SWEEP.min(all) {
            shard.hand = if shard.hand + 1 < all { shard.hand + 1 } else { 0 };
            let hand = shard.hand;
            let Ok(mut entry) = shard.rows.get_bucket_entry(hand) else { continue };
            let row = entry.get_mut();
            let (idle, expired) = (row.lease.is_idle(now, terms.idle), row.lease.expired(now, GRACE));
            if (crowded && expired) || (full && idle && row.lease.left() == 0) {
                entry.remove();
                self.held.fetch_sub(1, Ordering::Relaxed);
            } else if idle && !expired && row.lease.left() > 0 {
                let name = row.name();
                return row.lease.take(u64::MAX, &name);
            }
        }
        SmallVec::new()
    }

    /// Returns charges of zero that name the leases in a shard with something left.
    pub(super) fn holders(&self, shard: usize) -> Vec<Charge> {
        let rows = self.shards.get(shard).map(Mutex::lock);
        rows.map_or_else(Vec::new, |shard| {
            shard.rows.iter().filter(|row| row.lease.left() > 0).map(Row::name).collect()
        })
    }

    pub(super) fn shards(&self) -> std::ops::Range<usize> {
        0..self.shards.len()
    }
}

#[inline]
fn shard_of(hash: u64) -> usize {
    // Not the low bits, which choose the bucket, nor the top seven, which are the tag in the table.
    (hash >> 40) as usize % SHARDS
}

/// Combines the hash of a subject with a counter's id, which is part of a digest and needs no
/// hashing.
#[inline]
fn row_hash(subject: u64, counter: CounterId) -> u64 {
    let half = counter.as_bytes().first_chunk().map_or(0, |half| u64::from_le_bytes(*half));
    subject ^ half
}

impl Locked<'_> {
    /// Looks up the lease of a charge. `index` is its index among the charges that were locked.
    #[inline]
    pub(super) fn find(&mut self, index: usize, charge: &Charge) -> Option<&mut Lease> {
        let position = self.positions.get_mut(index)?;
        let shard = self.guards.get_mut(position.guard)?;
        position.bucket = shard.rows.find_bucket_index(position.hash, |row| row.is(charge.counter, &charge.subject));
        shard.rows.get_bucket_mut(position.bucket?).map(|row| &mut row.lease)
    }

    /// Returns the lease that was found for the charge of this index.
    #[inline]
    pub(super) fn found(&mut self, index: usize) -> Option<&mut Lease> {
        let position = self.positions.get(index)?;
        let shard = self.guards.get_mut(position.guard)?;
        shard.rows.get_bucket_mut(position.bucket?).map(|row| &mut row.lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Total;
    use crate::store::{ChargedAt, ReservationId, Tally};

    const TERMS: Terms = Terms { share: 16, calls: 1_024, idle: Duration::from_secs(5) };

    fn second(second: i64) -> Timestamp {
        Timestamp::from_unix_seconds(second)
    }

    fn charge(counter: CounterId, subject: &Subject) -> Charge {
        let meter = Meter::Fixed(Span { start: second(0), end: second(60) });
        Charge { counter, subject: subject.clone(), amount: Amount::ONE, max: None, meter }
    }

    /// Returns subjects of one shard.
    fn neighbours(count: usize) -> Vec<Subject> {
        let subject = |number: u32| Subject::of_bytes(format!("subject {number}").as_bytes());
        let shard = |subject: &Subject| shard_of(subject.hash_code());
        let first = shard(&subject(0));
        (0..).map(subject).filter(|subject| shard(subject) == first).take(count).collect()
    }

    /// Adds a lease for each subject, in the first minute and last served at its start.
    fn add(table: &Table, subjects: &[Subject], left: u64) {
        let Span { start, end } = Span { start: second(0), end: second(60) };
        for subject in subjects {
            let added = table.with_new(&charge(CounterId::of(["c"]), subject), Span { start, end }, start, |lease| {
                let used = Total::from_micros(left);
                assert!(
                    lease.note(&Tally { used, resets_at: end, retry_at: None, charged_at: ChargedAt::new(start) }, 0)
                );
                lease.add(ReservationId::new(1), Amount::from_micros(left).unwrap(), left);
            });
            assert!(added.is_some());
        }
    }

    /// Sweeps until every row has been checked. Returns the subjects whose slices were taken.
    fn sweep(table: &Table, subject: &Subject, now: i64) -> Vec<Subject> {
        let swept = (0..100).flat_map(|_| table.sweep(subject, second(now), &TERMS));
        let mut subjects: Vec<_> = swept.map(|returned| returned.charge.subject.clone()).collect();
        subjects.sort();
        subjects
    }

    #[test]
    fn returns_what_is_left_of_idle_leases_once() {
        let table = Table::new(100);
        let mut subjects = neighbours(20);
        add(&table, &subjects, 7);
        assert!(sweep(&table, &subjects[0], 4).is_empty(), "they were served a moment ago");
        let swept = sweep(&table, &subjects[0], 5);
        subjects.sort();
        assert_eq!(swept, subjects);
        assert!(sweep(&table, &subjects[0], 6).is_empty() && table.len() == 20);
        let table = Table::new(100);
        add(&table, &neighbours(5), 7);
        assert!(sweep(&table, &neighbours(1)[0], 62).is_empty(), "their window has ended");
    }

    #[test]
    fn removes_expired_leases_above_half_of_the_capacity() {
        for (rows, now, left) in [(2, 62, 2), (2, 1000, 2), (3, 61, 3), (3, 62, 0), (4, 62, 0), (5, 4, 5)] {
            let table = Table::new(5);
            let subjects = neighbours(rows);
            add(&table, &subjects, 0);
            sweep(&table, &subjects[0], now);
            // Once half of them are removed, the rest may stay.
            let left = if left == 0 { 0..=2 } else { left..=left };
            assert!(left.contains(&table.len()), "{} of {rows} at {now}", table.len());
        }
        // An expired lease is removed even if something is left.
        let table = Table::new(3);
        let subjects = neighbours(2);
        add(&table, &subjects, 7);
        assert!(sweep(&table, &subjects[0], 62).is_empty() && table.len() < 2);
    }

    #[test]
    fn a_full_table_removes_idle_leases_with_nothing_left() {
        for (capacity, left, now, is_removed) in [(4, 0, 5, true), (4, 0, 4, false), (5, 0, 5, false), (4, 7, 4, false)]
        {
            let table = Table::new(capacity);
            let subjects = neighbours(4);
            add(&table, &subjects, left);
            assert!(sweep(&table, &subjects[0], now).is_empty());
            assert_eq!(table.len() < 4, is_removed, "{} of {capacity} with {left} at {now}", table.len());
        }
        let table = Table::new(4);
        let subjects = neighbours(4);
        add(&table, &subjects, 7);
        let swept = (0..10).map(|_| table.sweep(&subjects[0], second(5), &TERMS)).find(|swept| !swept.is_empty());
        assert_eq!(swept.map(|swept| swept.len()), Some(1), "what is left is returned first");
        assert_eq!(table.len(), 4);
        assert!(
            table
                .with_new(
                    &charge(CounterId::of(["d"]), &subjects[0]),
                    Span { start: second(0), end: second(60) },
                    second(0),
                    |_| ()
                )
                .is_none()
        );
        assert_eq!(table.len(), 4);
    }

    /// Two rows with the same hash.
    #[test]
    fn finds_rows_by_counter_and_subject() {
        let table = Table::new(100);
        let subjects = neighbours(2);
        let counter = |half: u64| -> CounterId {
            let digits: String = half.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::from_str(&format!("\"{digits}{}\"", "0".repeat(16))).unwrap()
        };
        let counters = [0, subjects[0].hash_code() ^ subjects[1].hash_code()].map(counter);
        let span = Span { start: second(0), end: second(60) };
        let one = charge(counters[0], &subjects[0]);
        let other = charge(counters[1], &subjects[1]);
        let hash = |charge: &Charge| row_hash(charge.subject.hash_code(), charge.counter);
        assert_eq!(hash(&one), hash(&other));
        assert_eq!(
            table.with_new(&one, span, second(0), |lease| lease.credit(ChargedAt::new(second(0)), Amount::ONE)),
            Some(())
        );
        assert!(table.with(other.counter, &other.subject, |_| ()).is_none());
        assert!(table.with(one.counter, &other.subject, |_| ()).is_none());
        assert!(table.lock_one(&other.subject).is_some_and(|locked| locked.find(&other).is_none()));
        assert!(table.lock([&other].into_iter()).find(0, &other).is_none());
        table.remove(other.counter, &other.subject);
        assert!(table.len() == 1 && table.with(one.counter, &one.subject, |_| ()).is_some());
        table.remove(one.counter, &one.subject);
        assert_eq!(table.len(), 0);
    }
}
