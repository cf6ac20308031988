//! The store of counters in memory.

mod askers;
mod locked;
mod row;
#[cfg(all(test, shuttle))]
mod shuttle;
mod snapshot;
mod table;

use std::fmt;

use smallvec::SmallVec;

use super::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use super::{CounterStore, Generation, Outcome, ReserveRequest, SettleRequest, StoreError, Tallies};
use crate::charge::{Asker, Charge, CounterId, Meter, Subject};
use crate::time::Timestamp;
use askers::{AskerNumber, Askers};
use locked::{Locked, Position};
use row::Cell;
use table::{At, Table};

pub use snapshot::{RestoreError, Snapshot};

/// A store of counters in the memory of the process: the default.
///
/// A reservation takes one short lock for each different subject of its charges (usually one), out
/// of many. It allocates only when a subject is counted for the first time, or when a sliding
/// window or the calls in flight need more space. Each request takes O(charges), whatever the
/// number of counters.
///
/// Memory is bounded: at most [`capacity`](Self::with_capacity) counters are live. A store that is
/// full of live counters refuses new ones; it never evicts. One asker (the first of grant, user,
/// agent and session) can have a sixteenth of them
/// ([`counters_per_asker`](Self::counters_per_asker)): past it only this asker gets no new ones,
/// [`StoreError::ShareFull`]. A counter belongs to the asker who began to count its subject; those
/// of the asker's own scope are not counted, since there is one for each limit and no more.
/// Settlements are recorded even in a full store. A live counter of a fixed window takes about 85
/// bytes if it is the only one of its subject, and about 60 if the subject has three, plus the
/// subject's bytes if they are more than 30, or 25 where the asker is counted; an asker takes about
/// 50 (`cargo bench --bench memory` measures it). A sliding window takes up to 65 times 16 bytes
/// more, a token bucket about 70, and each call in flight 16.
///
/// Above 65,536 counters (or half of the capacity), counters that have expired are reclaimed, a few
/// whenever a new one is added. There is no background thread, and no call does work that grows
/// with the number of counters. After counters were reclaimed, a clock that steps back to their
/// windows by more than two seconds makes new subjects refused ([`StoreError::ClockSteppedBack`])
/// until it has caught up, because what they had used is no longer known. Subjects are hashed with
/// a key that is drawn at random for each process.
pub struct MemoryStore {
    /// Their number is a power of two.
    shards: Box<[Shard]>,
    capacity: usize,
    /// Up to this many counters nothing is reclaimed.
    keep: usize,
    /// The number of counters in all shards, including expired ones that are not yet reclaimed.
    held: AtomicUsize,
    /// The next shard that a full store sweeps.
    hand: AtomicUsize,
    /// The largest number of counters of one asker.
    share: usize,
    /// Locked after shards, and by calls that add a counter alone.
    askers: Mutex<Askers>,
}

/// A shard on cache lines of its own, so that threads which count different subjects do not share
/// one.
#[repr(align(128))]
struct Shard(Mutex<Table>);

// The locks of shuttle are larger.
#[cfg(not(shuttle))]
const _: () = assert!(size_of::<Shard>() == 128);

/// The approximate number of counters in a shard, which a call may have to walk over when the shard
/// grows.
const COUNTERS_PER_SHARD: usize = 1024;
/// The least number of shards, so that threads seldom compete for one.
const MIN_SHARDS: usize = 64;
/// The largest number of shards: eight megabytes.
const MAX_SHARDS: usize = 65_536;
/// The number of rows that are checked for expiry when a counter is added. More than one, so that
/// reclaiming outruns growth.
const ROWS_PER_SWEEP: usize = 4;
/// The number of rows that are checked when the store is full.
const ROWS_PER_FULL_SWEEP: usize = COUNTERS_PER_SHARD;
/// One asker can have one of this many parts of the counters.
const SHARES: usize = 16;
/// The number of shards that are looked at when the store or a share is full.
const SHARDS_PER_FULL_SWEEP: usize = 1024;
/// Up to this many counters (about six megabytes), or half of the capacity, expired counters are
/// kept too, so that a clock that steps back finds what was used in each window.
const KEPT_COUNTERS: usize = 65_536;

impl Default for MemoryStore {
    /// Makes a store of up to a million live counters.
    fn default() -> Self {
        Self::with_capacity(1_000_000)
    }
}

impl MemoryStore {
    /// Makes a store of up to a million live counters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a store of up to `counters` live counters. An empty store takes an eighth of a byte
    /// for each; a counter takes its memory when it is added.
    pub fn with_capacity(counters: usize) -> Self {
        let shards = counters.div_ceil(COUNTERS_PER_SHARD).clamp(MIN_SHARDS, MAX_SHARDS).next_power_of_two();
        let first = Generation::random();
        Self {
            shards: (0..shards).map(|_| Shard(Mutex::new(Table::new(first)))).collect(),
            capacity: counters,
            keep: KEPT_COUNTERS.min(counters / 2),
            held: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            share: (counters / SHARES).max(1),
            askers: Mutex::new(Askers::default()),
        }
    }

    /// Sets how many counters one asker can have at once: a sixteenth of the capacity by default. A
    /// host with a single grant for all its callers needs more.
    #[must_use = "this returns the store with the new setting"]
    pub fn counters_per_asker(self, counters: usize) -> Self {
        Self { share: counters, ..self }
    }

    /// Returns the number of counters, including expired ones that are not yet reclaimed.
    pub fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns the number of counters of an asker, expired ones included.
    pub fn len_of(&self, asker: Asker<'_>) -> usize {
        self.askers.lock().count(&asker.key())
    }

    /// Returns whether there are no counters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns where a subject is counted.
    #[inline]
    fn spot(&self, subject: &Subject) -> Spot {
        let (hash, shard) = table::halves(subject.hash_code());
        Spot { shard: shard as usize & (self.shards.len() - 1), hash }
    }

    #[inline]
    fn lock(&self, shard: usize) -> Result<MutexGuard<'_, Table>, StoreError> {
        self.shards.get(shard).map(|shard| shard.0.lock()).ok_or_else(no_shard)
    }

    #[inline]
    fn run(&self, request: &ReserveRequest<'_>, commit: bool) -> Result<Outcome, StoreError> {
        match request.charges {
            [charge] => self.run_one(request, charge, commit),
            _ => self.run_several(request, commit),
        }
    }

    /// The most common case: one charge to an existing counter. It takes four fifths of the time of
    /// the general case.
    #[inline]
    fn run_one(&self, request: &ReserveRequest<'_>, charge: &Charge, commit: bool) -> Result<Outcome, StoreError> {
        let spot = self.spot(&charge.subject);
        let mut table = self.lock(spot.shard)?;
        let generation = table.generations.of(charge.counter, &charge.subject);
        let cells = table.find(spot.hash, &charge.subject).map_or(&mut [][..], |at| table.cells_mut(at));
        let Some(cell) = cells.iter_mut().find(|cell| cell.counter == charge.counter) else {
            drop(table);
            return self.run_several(request, commit);
        };
        let tally = cell.tally(charge, request.now)?;
        Ok(if !tally.has_room(charge) {
            Outcome::Refused(Tallies::one(tally.of(generation)))
        } else if commit {
            Outcome::Granted(Tallies::one(cell.charge(charge, request.now)?.of(generation)))
        } else {
            Outcome::Granted(Tallies::one(tally.of(generation)))
        })
    }

    #[inline]
    fn run_several(&self, request: &ReserveRequest<'_>, commit: bool) -> Result<Outcome, StoreError> {
        // Filled in place: moving a value that was just written field by field stalls on store
        // forwarding.
        let mut answer = Ok(Outcome::Granted(Tallies::new()));
        if let Ok(Outcome::Granted(tallies)) = &mut answer {
            match self.fill(request, commit, tallies) {
                Ok(true) => {}
                Ok(false) => answer = Ok(Outcome::Refused(std::mem::take(tallies))),
                Err(error) => answer = Err(error),
            }
        }
        answer
    }

    /// Returns whether there is room, and fills `tallies`, which is empty before.
    #[inline]
    fn fill(&self, request: &ReserveRequest<'_>, commit: bool, tallies: &mut Tallies) -> Result<bool, StoreError> {
        let Some((first, others)) = request.charges.split_first() else { return Ok(true) };
        let known = match request.charges.len() {
            _ if others.iter().all(|charge| charge.subject == first.subject) => {
                self.run_in_one_row(request, commit, tallies)
            }
            0..=INLINE_CHARGES => self.run_in_few_rows(request, commit, tallies),
            _ => Ok(None),
        };
        match known? {
            Some(room) => Ok(room),
            None => self.run_in_all(request, commit, tallies),
        }
    }

    /// The second most common case: existing counters of one subject. One hash, one lock, no list
    /// of places.
    #[inline]
    fn run_in_one_row(
        &self,
        request: &ReserveRequest<'_>,
        commit: bool,
        tallies: &mut Tallies,
    ) -> Result<Option<bool>, StoreError> {
        let Some(first) = request.charges.first() else { return Ok(None) };
        let spot = self.spot(&first.subject);
        let mut table = self.lock(spot.shard)?;
        let Some(at) = table.find(spot.hash, &first.subject) else { return Ok(None) };
        let (cells, generations) = table.cells_and_generations(at);
        let generation = generations.of_others();
        let mut room = true;
        for charge in request.charges {
            let Some(cell) = cells.iter().find(|cell| cell.counter == charge.counter) else { return Ok(None) };
            let tally = cell.tally(charge, request.now)?;
            room &= tally.has_room(charge);
            tallies.push(tally.of(generation));
        }
        if room && commit {
            for (charge, tally) in request.charges.iter().zip(tallies.iter_mut()) {
                if let Some(cell) = cells.iter_mut().find(|cell| cell.counter == charge.counter) {
                    *tally = cell.charge(charge, request.now)?.of(generation);
                }
            }
        }
        if generations.has_resets() {
            generations.put_into(tallies, request.charges);
        }
        Ok(Some(room))
    }

    /// The third most common case: existing counters of a few subjects. Without it, reserving from
    /// three scopes takes 1.73 times as long (237 ns in place of 137, beside 240 for three checks
    /// of `governor`).
    #[inline]
    fn run_in_few_rows(
        &self,
        request: &ReserveRequest<'_>,
        commit: bool,
        tallies: &mut Tallies,
    ) -> Result<Option<bool>, StoreError> {
        // Locked by shard, in ascending order, so that calls do not deadlock.
        let mut order = [(usize::MAX, 0); INLINE_CHARGES];
        let mut spots = [Spot::default(); INLINE_CHARGES];
        for (index, (charge, (spot, turn))) in request.charges.iter().zip(spots.iter_mut().zip(&mut order)).enumerate()
        {
            *spot = self.spot(&charge.subject);
            *turn = (spot.shard, index);
        }
        order.sort_unstable();
        let mut tables: [Option<MutexGuard<'_, Table>>; INLINE_CHARGES] = [const { None }; INLINE_CHARGES];
        let mut guards = [0; INLINE_CHARGES];
        let mut last = usize::MAX;
        let mut holder = 0;
        for (turn, (shard, index)) in order.iter().take(request.charges.len()).enumerate() {
            if *shard != last {
                (last, holder) = (*shard, turn);
                if let Some(table) = tables.get_mut(turn) {
                    *table = Some(self.lock(*shard)?);
                }
            }
            if let Some(guard) = guards.get_mut(*index) {
                *guard = holder;
            }
        }
        let mut found = [(At::Single(0), 0); INLINE_CHARGES];
        let mut room = true;
        let places = spots.iter().zip(&guards).zip(&mut found);
        for (charge, ((spot, guard), found)) in request.charges.iter().zip(places) {
            let Some(Some(table)) = tables.get(*guard) else { return Ok(None) };
            let Some(at) = table.find(spot.hash, &charge.subject) else { return Ok(None) };
            let mut cells = table.cells(at).iter().enumerate();
            let Some((index, cell)) = cells.find(|(_, cell)| cell.counter == charge.counter) else { return Ok(None) };
            *found = (at, index);
            let tally = cell.tally(charge, request.now)?;
            room &= tally.has_room(charge);
            tallies.push(tally.of(table.generations.of(charge.counter, &charge.subject)));
        }
        if room && commit {
            let places = guards.iter().zip(&found);
            for ((charge, tally), (guard, (at, index))) in request.charges.iter().zip(tallies).zip(places) {
                let table = tables.get_mut(*guard).and_then(Option::as_mut);
                if let Some(cell) = table.and_then(|table| table.cells_mut(*at).get_mut(*index)) {
                    *tally = cell.charge(charge, request.now)?.of(tally.charged_at.generation);
                }
            }
        }
        Ok(Some(room))
    }

    /// The general case: any number of subjects, and new counters.
    #[cold]
    fn run_in_all(
        &self,
        request: &ReserveRequest<'_>,
        commit: bool,
        tallies: &mut Tallies,
    ) -> Result<bool, StoreError> {
        let mut locked = self.lock_all(request.charges)?;
        let mut look = locked.look(request)?;
        let (mut asker, mut own) = (AskerNumber::NOBODY, None);
        if look.missing > 0 && look.room {
            let key = request.asker.map(Asker::key);
            if commit && self.len() > self.keep {
                locked.sweep(ROWS_PER_SWEEP, request, self);
                look = locked.look(request)?;
            }
            let counted = locked.not_own(request.charges, key.as_ref());
            if self.len().saturating_add(look.missing) > self.capacity || !self.has_share(key.as_ref(), counted) {
                locked.sweep(ROWS_PER_FULL_SWEEP, request, self);
                self.sweep_others(request.now);
                look = locked.look(request)?;
            }
            let counted = locked.not_own(request.charges, key.as_ref());
            asker = self.claim_share(key.as_ref(), counted, commit)?;
            if let Err(full) = self.claim(look.missing, commit) {
                self.askers.lock().remove(asker, counted);
                return Err(full);
            }
            own = key;
        }
        let room = look.room;
        *tallies = if room && commit { locked.write(request, self, asker, own.as_ref())? } else { look.tallies };
        Ok(room)
    }

    /// Reclaims expired counters of the next shards that nobody uses now. What has expired may be
    /// in any shard, and in a small store most have few.
    fn sweep_others(&self, now: Timestamp) {
        let mut left = ROWS_PER_FULL_SWEEP;
        for _ in 0..self.shards.len().min(SHARDS_PER_FULL_SWEEP) {
            let next = self.hand.fetch_add(1, Ordering::Relaxed) & (self.shards.len() - 1);
            let Some(mut table) = self.shards.get(next).and_then(|shard| shard.0.try_lock()) else { continue };
            let rows = table.subjects().min(left);
            table.sweep(rows, now, |asker, counters| self.forget(asker, counters));
            left -= rows;
        }
    }

    /// Counts fewer counters.
    fn forget(&self, asker: AskerNumber, counters: usize) {
        self.held.fetch_sub(counters, Ordering::Relaxed);
        self.askers.lock().remove(asker, counters);
    }

    fn has_share(&self, asker: Option<&Subject>, missing: usize) -> bool {
        asker.is_none_or(|asker| self.askers.lock().count(asker).saturating_add(missing) <= self.share)
    }

    /// Counts `missing` new counters of an asker, if its share has room for them.
    fn claim_share(&self, asker: Option<&Subject>, missing: usize, commit: bool) -> Result<AskerNumber, StoreError> {
        let Some(asker) = asker else { return Ok(AskerNumber::NOBODY) };
        let mut askers = self.askers.lock();
        match askers.count(asker).saturating_add(missing) <= self.share {
            true if commit => Ok(askers.begin(asker, missing)),
            true => Ok(AskerNumber::NOBODY),
            false => Err(StoreError::ShareFull { share: self.share }),
        }
    }

    /// Counts `missing` new counters, if they fit.
    fn claim(&self, missing: usize, commit: bool) -> Result<(), StoreError> {
        let before = self.held.fetch_add(missing, Ordering::Relaxed);
        let fits = before.saturating_add(missing) <= self.capacity;
        if !(fits && commit) {
            self.held.fetch_sub(missing, Ordering::Relaxed);
        }
        if fits { Ok(()) } else { Err(StoreError::Full { capacity: self.capacity }) }
    }

    /// Locks the shards of all charges, in ascending order, so that calls do not deadlock.
    fn lock_all(&self, charges: &[Charge]) -> Result<Locked<'_>, StoreError> {
        let mut positions: SmallVec<[Position; 4]> = SmallVec::new();
        let mut wanted: SmallVec<[usize; 4]> = SmallVec::new();
        for charge in charges {
            let spot = self.spot(&charge.subject);
            if let Err(order) = wanted.binary_search(&spot.shard) {
                wanted.insert(order, spot.shard);
            }
            positions.push(Position { spot, guard: 0, found: None });
        }
        for position in &mut positions {
            position.guard = wanted.binary_search(&position.spot.shard).unwrap_or(usize::MAX);
        }
        let guards = wanted.into_iter().map(|shard| self.lock(shard)).collect::<Result<_, _>>()?;
        Ok(Locked { guards, positions })
    }
}

/// Up to this many charges are reserved without a list on the heap.
const INLINE_CHARGES: usize = 4;

/// A shard, and the half of the hash by which a subject is found in it.
#[derive(Clone, Copy, Default)]
struct Spot {
    shard: usize,
    hash: u32,
}

/// The indices of shards are masked, so this does not happen.
#[cold]
fn no_shard() -> StoreError {
    StoreError::unavailable("a shard is missing")
}

#[cold]
fn shard_full() -> StoreError {
    StoreError::unavailable("a shard has two million rows of one kind, and takes no more")
}

impl CounterStore for MemoryStore {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.run(request, true)
    }

    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.run(request, false)
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        // One subject after another: no decision depends on two of them.
        let mut charges = request.charges;
        while let Some(first) = charges.first() {
            let subject = &first.charge.subject;
            let same = charges.iter().take_while(|settled| settled.charge.subject == *subject).count();
            let Some((own, rest)) = charges.split_at_checked(same) else { break };
            charges = rest;
            let spot = self.spot(subject);
            let mut table = self.lock(spot.shard)?;
            let mut at = table.find(spot.hash, subject);
            for settled in own {
                if !table.generations.may_change(settled) {
                    continue;
                }
                let cells = at.map_or(&mut [][..], |at| table.cells_mut(at));
                match cells.iter_mut().find(|cell| cell.counter == settled.charge.counter) {
                    Some(cell) => cell.settle(settled, request.now)?,
                    None if settled.begins(request.now) => {
                        // Recorded in a full store too. There are at most as many of these as
                        // permits.
                        self.held.fetch_add(1, Ordering::Relaxed);
                        let mut cell = Cell::new(settled.charge);
                        // A reclaimed bucket was full at the horizon.
                        let is_bucket = matches!(settled.charge.meter, Meter::TokenBucket { .. });
                        let full_by = table.horizon().filter(|_| is_bucket);
                        cell.settle(settled, full_by.map_or(request.now, |instant| instant.max(request.now)))?;
                        let added = table.add(spot.hash, subject, cell, None, AskerNumber::NOBODY);
                        self.askers.lock().add(added.ok_or_else(shard_full)?.asker, 1);
                        at = table.find(spot.hash, subject);
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        let spot = self.spot(subject);
        let mut table = self.lock(spot.shard)?;
        table.generations.reset(counter, subject);
        if let Some(asker) = table.remove_counter(spot.hash, subject, counter) {
            self.forget(asker, 1);
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("counters", &self.len()).field("capacity", &self.capacity).finish()
    }
}
