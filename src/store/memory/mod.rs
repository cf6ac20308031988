//! Counters in the process.

mod row;
#[cfg(all(test, shuttle))]
mod shuttle;
mod snapshot;
mod table;

use std::fmt;

use smallvec::SmallVec;

use super::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use super::{CounterStore, Outcome, ReserveRequest, SettleRequest, StoreError, Tallies, Tally};
use crate::charge::{Charge, CounterId, Meter, Subject};
use row::Cell;
use table::{At, Table};

pub use snapshot::{RestoreError, Snapshot};

/// Counters kept in the memory of the process: the embedded default.
///
/// A reservation takes one short lock for each different subject of its charges (mostly one), out of many, and allocates
/// only when a subject is counted for the first time, or a sliding window or the calls in flight need more room. Each takes
/// O(charges), whatever the number of counters.
///
/// Memory is bounded: at most [`capacity`](Self::with_capacity) counters are live, and a store that is full of live
/// ones refuses new ones, it never evicts; what a call has cost is recorded in a full one, too. A live counter of a fixed
/// window takes some 85 bytes where it is the only one of its subject, 60 where there are three, and the subject's own bytes
/// where they are more than 30 (`cargo bench --bench memory` measures it); a sliding window takes up to 65 times 16 bytes more,
/// a token bucket some 70, and each call in flight 16.
///
/// Beyond 65,536 counters (or half of the capacity), those whose window has ended are reclaimed, a few at a time whenever a
/// new one is counted; there is no background thread, and no call does work that grows with the number of counters. Once some
/// are gone, a clock that steps back to their windows, by more than two seconds, finds new subjects refused
/// ([`StoreError::ClockSteppedBack`]) until it has caught up: what they had used is not known any more. Subjects are hashed
/// with a key drawn at random for each process.
pub struct MemoryStore {
    /// A power of two of them.
    shards: Box<[Shard]>,
    capacity: usize,
    /// Up to so many counters nothing is reclaimed.
    keep: usize,
    /// Counters in all shards, expired ones that are not reclaimed yet included.
    held: AtomicUsize,
}

/// On cache lines of its own, so that threads which count different subjects do not take them from each other.
#[repr(align(128))]
struct Shard(Mutex<Table>);

// The locks of a scheduler that tests run under are larger.
#[cfg(not(shuttle))]
const _: () = assert!(size_of::<Shard>() == 128);

/// How many counters a shard has room for, about: what a call may have to walk over when the shard grows.
const SHARD: usize = 1024;
/// At least so many shards, so that threads seldom meet.
const FEWEST: usize = 64;
/// At most so many, eight megabytes.
const MOST: usize = 65_536;
/// How many rows are looked at for expired ones when a counter is added. Above one, so that reclaiming outruns growth.
const SWEEP: usize = 4;
/// How many when the store is full.
const SWEEP_WHEN_FULL: usize = SHARD;
/// Up to so many counters, some six megabytes, or half of the capacity, expired ones are kept too: then even a clock that
/// steps back finds what was spent in every window that it comes to.
const KEEP: usize = 65_536;

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

    /// A store of up to `counters` live counters. An empty one takes an eighth of a byte for each; the counters take their memory
    /// as they come.
    pub fn with_capacity(counters: usize) -> Self {
        let shards = counters.div_ceil(SHARD).clamp(FEWEST, MOST).next_power_of_two();
        Self {
            shards: (0..shards).map(|_| Shard(Mutex::new(Table::default()))).collect(),
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

    /// Where a subject is counted.
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

    /// The commonest case: one charge, whose counter is there. Four fifths of what the general way takes.
    #[inline]
    fn run_one(&self, request: &ReserveRequest<'_>, charge: &Charge, commit: bool) -> Result<Outcome, StoreError> {
        let spot = self.spot(&charge.subject);
        let mut table = self.lock(spot.shard)?;
        let cells = table.find(spot.hash, &charge.subject).map_or(&mut [][..], |at| table.cells_mut(at));
        let Some(cell) = cells.iter_mut().find(|cell| cell.counter == charge.counter) else {
            drop(table);
            return self.run_several(request, commit);
        };
        let tally = cell.tally(charge, request.now)?;
        Ok(if !tally.has_room(charge) {
            Outcome::Refused(Tallies::from_iter([tally]))
        } else if commit {
            Outcome::Granted(Tallies::from_iter([cell.charge(charge, request.now)?]))
        } else {
            Outcome::Granted(Tallies::from_iter([tally]))
        })
    }

    #[inline]
    fn run_several(&self, request: &ReserveRequest<'_>, commit: bool) -> Result<Outcome, StoreError> {
        // Filled where it is returned: what has just been written in pieces is waited for when it is moved.
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

    /// Whether there is room, and the tallies, none yet.
    #[inline]
    fn fill(&self, request: &ReserveRequest<'_>, commit: bool, tallies: &mut Tallies) -> Result<bool, StoreError> {
        let Some((first, others)) = request.charges.split_first() else { return Ok(true) };
        let known = match request.charges.len() {
            _ if others.iter().all(|charge| charge.subject == first.subject) => {
                self.run_in_one_row(request, commit, tallies)
            }
            0..=FEW => self.run_in_few_rows(request, commit, tallies),
            _ => Ok(None),
        };
        match known? {
            Some(room) => Ok(room),
            None => self.run_in_all(request, commit, tallies),
        }
    }

    /// The next common case: one subject, all of whose counters are there. One hash, one lock, no list of places.
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
        let cells = table.cells_mut(at);
        let mut room = true;
        for charge in request.charges {
            let Some(cell) = cells.iter().find(|cell| cell.counter == charge.counter) else { return Ok(None) };
            let tally = cell.tally(charge, request.now)?;
            room &= tally.has_room(charge);
            tallies.push(tally);
        }
        if room && commit {
            for (charge, tally) in request.charges.iter().zip(tallies) {
                if let Some(cell) = cells.iter_mut().find(|cell| cell.counter == charge.counter) {
                    *tally = cell.charge(charge, request.now)?;
                }
            }
        }
        Ok(Some(room))
    }

    /// The next common one: a few subjects, all of whose counters are there.
    #[inline]
    fn run_in_few_rows(
        &self,
        request: &ReserveRequest<'_>,
        commit: bool,
        tallies: &mut Tallies,
    ) -> Result<Option<bool>, StoreError> {
        // By shard, in ascending order, so that no two calls wait for each other.
        let mut order = [(usize::MAX, 0); FEW];
        let mut spots = [Spot::default(); FEW];
        for (index, (charge, (spot, turn))) in request.charges.iter().zip(spots.iter_mut().zip(&mut order)).enumerate()
        {
            *spot = self.spot(&charge.subject);
            *turn = (spot.shard, index);
        }
        sort_few(&mut order);
        let mut tables: [Option<MutexGuard<'_, Table>>; FEW] = [const { None }; FEW];
        let mut guards = [0; FEW];
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
        let mut found = [(At::Single(0), 0); FEW];
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
            tallies.push(tally);
        }
        if room && commit {
            let places = guards.iter().zip(&found);
            for ((charge, tally), (guard, (at, index))) in request.charges.iter().zip(tallies).zip(places) {
                let table = tables.get_mut(*guard).and_then(Option::as_mut);
                if let Some(cell) = table.and_then(|table| table.cells_mut(*at).get_mut(*index)) {
                    *tally = cell.charge(charge, request.now)?;
                }
            }
        }
        Ok(Some(room))
    }

    /// Any number of subjects, whose counters may be new.
    #[cold]
    fn run_in_all(
        &self,
        request: &ReserveRequest<'_>,
        commit: bool,
        tallies: &mut Tallies,
    ) -> Result<bool, StoreError> {
        let mut locked = self.lock_all(request.charges)?;
        let mut look = locked.look(request)?;
        if look.missing > 0 && look.room {
            if commit && self.len() > self.keep {
                locked.sweep(SWEEP, request, &self.held);
                look = locked.look(request)?;
            }
            if self.len().saturating_add(look.missing) > self.capacity {
                locked.sweep(SWEEP_WHEN_FULL, request, &self.held);
                look = locked.look(request)?;
            }
            self.claim(look.missing, commit)?;
        }
        let room = look.room;
        *tallies = if room && commit { locked.write(request, self)? } else { look.tallies };
        Ok(room)
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
    fn lock_all(&self, charges: &[Charge]) -> Result<Locked<'_>, StoreError> {
        let mut places: SmallVec<[Place; 4]> = SmallVec::new();
        let mut wanted: SmallVec<[usize; 4]> = SmallVec::new();
        for charge in charges {
            let spot = self.spot(&charge.subject);
            if let Err(order) = wanted.binary_search(&spot.shard) {
                wanted.insert(order, spot.shard);
            }
            places.push(Place { spot, guard: 0, found: None });
        }
        for place in &mut places {
            place.guard = wanted.binary_search(&place.spot.shard).unwrap_or(usize::MAX);
        }
        let guards = wanted.into_iter().map(|shard| self.lock(shard)).collect::<Result<_, _>>()?;
        Ok(Locked { guards, places })
    }
}

/// So many charges are reserved without a list on the heap.
const FEW: usize = 4;

/// A sorting network.
#[inline]
fn sort_few([a, b, c, d]: &mut [(usize, usize); FEW]) {
    let sort = |low: &mut (usize, usize), high: &mut (usize, usize)| {
        if *low > *high {
            std::mem::swap(low, high);
        }
    };
    sort(a, b);
    sort(c, d);
    sort(a, c);
    sort(b, d);
    sort(b, c);
}

/// A shard, and the part of the hash by which a subject is found in it.
#[derive(Clone, Copy, Default)]
struct Spot {
    shard: usize,
    hash: u32,
}

/// The shards that a request needs, locked.
struct Locked<'s> {
    guards: SmallVec<[MutexGuard<'s, Table>; 4]>,
    /// One for each charge.
    places: SmallVec<[Place; 4]>,
}

/// Where a charge is counted.
#[derive(Clone, Copy)]
struct Place {
    spot: Spot,
    /// Which of the guards has its shard.
    guard: usize,
    /// The row and the cell, until something is added or removed.
    found: Option<(At, usize)>,
}

struct Look {
    /// Every charge fits.
    room: bool,
    /// As the counters stand.
    tallies: Tallies,
    /// How many counters are not there yet.
    missing: usize,
}

impl Locked<'_> {
    #[inline]
    fn look(&mut self, request: &ReserveRequest<'_>) -> Result<Look, StoreError> {
        let mut look = Look { room: true, tallies: Tallies::new(), missing: 0 };
        for (charge, place) in request.charges.iter().zip(&mut self.places) {
            let Some(table) = self.guards.get(place.guard) else { return Err(no_shard()) };
            let at = table.find(place.spot.hash, &charge.subject);
            let cells = at.map_or(&[][..], |at| table.cells(at));
            let cell = cells.iter().enumerate().find(|(_, cell)| cell.counter == charge.counter);
            place.found = at.zip(cell.map(|(index, _)| index));
            let tally = match cell {
                Some((_, cell)) => cell.tally(charge, request.now)?,
                None => {
                    if let Some(horizon) = table.has_forgotten(charge, request.now) {
                        return Err(StoreError::ClockSteppedBack { horizon });
                    }
                    look.missing += 1;
                    Tally::unused(&charge.meter, request.now)
                }
            };
            look.room &= tally.has_room(charge);
            look.tallies.push(tally);
        }
        Ok(look)
    }

    #[inline]
    fn write(&mut self, request: &ReserveRequest<'_>, store: &MemoryStore) -> Result<Tallies, StoreError> {
        let mut tallies = Tallies::new();
        let reclaim = (store.len() > store.keep).then_some(request.now);
        let mut added = false;
        for (charge, place) in request.charges.iter().zip(&self.places) {
            let Some(table) = self.guards.get_mut(place.guard) else { return Err(no_shard()) };
            // What was found stays where it is until something is added.
            let found = match place.found {
                Some(found) if !added => Some(found),
                _ => table.find(place.spot.hash, &charge.subject).and_then(|at| {
                    let cell = table.cells(at).iter().position(|cell| cell.counter == charge.counter)?;
                    Some((at, cell))
                }),
            };
            let cell = found.and_then(|(at, cell)| table.cells_mut(at).get_mut(cell));
            tallies.push(match cell {
                Some(cell) => cell.charge(charge, request.now)?,
                None => {
                    added = true;
                    // One that had ended was there, and has made room for another of its row: it comes again.
                    store.held.fetch_add(usize::from(place.found.is_some()), Ordering::Relaxed);
                    let mut cell = Cell::new(charge);
                    let tally = cell.charge(charge, request.now)?;
                    // A shard of two million rows of one kind takes no more: a store of a hundred thousand million counters.
                    let gone = table.add(place.spot.hash, &charge.subject, cell, reclaim);
                    store.held.fetch_sub(gone.ok_or_else(shard_full)?, Ordering::Relaxed);
                    tally
                }
            });
        }
        Ok(tallies)
    }

    /// Reclaims expired counters among the next `rows` of each locked shard.
    fn sweep(&mut self, rows: usize, request: &ReserveRequest<'_>, held: &AtomicUsize) {
        for table in &mut self.guards {
            held.fetch_sub(table.sweep(rows, request.now), Ordering::Relaxed);
        }
    }
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
        // One subject after the other: no decision hangs on two of them at once.
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
                let cells = at.map_or(&mut [][..], |at| table.cells_mut(at));
                match cells.iter_mut().find(|cell| cell.counter == settled.charge.counter) {
                    Some(cell) => cell.settle(settled, request.now)?,
                    None if settled.begins(request.now) => {
                        // What has happened is counted, in a full store too: there are no more of these than permits.
                        self.held.fetch_add(1, Ordering::Relaxed);
                        let mut cell = Cell::new(settled.charge);
                        // A bucket that was reclaimed was full by the horizon.
                        let is_bucket = matches!(settled.charge.meter, Meter::TokenBucket { .. });
                        let full_by = table.horizon().filter(|_| is_bucket);
                        cell.settle(settled, full_by.map_or(request.now, |instant| instant.max(request.now)))?;
                        table.add(spot.hash, subject, cell, None).ok_or_else(shard_full)?;
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
        if self.lock(spot.shard)?.remove_counter(spot.hash, subject, counter) {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("counters", &self.len()).field("capacity", &self.capacity).finish()
    }
}
