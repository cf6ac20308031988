//! The general case of a request: all its shards are locked, and counters may be missing.

use smallvec::SmallVec;

use super::super::sync::{MutexGuard, Ordering};
use super::super::{ReserveRequest, StoreError, Tallies, Tally};
use super::askers::AskerNumber;
use super::row::Cell;
use super::table::{At, Table};
use super::{MemoryStore, Spot, no_shard, shard_full};
use crate::charge::{Charge, Subject};

/// The locked shards of a request.
pub(super) struct Locked<'s> {
    pub(super) guards: SmallVec<[MutexGuard<'s, Table>; 4]>,
    /// One for each charge.
    pub(super) positions: SmallVec<[Position; 4]>,
}

/// The position of the counter of a charge.
#[derive(Clone, Copy)]
pub(super) struct Position {
    pub(super) spot: Spot,
    /// The index of the guard of its shard.
    pub(super) guard: usize,
    /// The row and the cell, valid until something is added or removed.
    pub(super) found: Option<(At, usize)>,
}

/// The result of a lookup.
pub(super) struct Look {
    /// Every charge fits.
    pub(super) room: bool,
    /// The tallies of the counters before the charges.
    pub(super) tallies: Tallies,
    /// The number of counters that do not exist yet.
    pub(super) missing: usize,
}

impl Locked<'_> {
    /// Looks up the counters of a request.
    #[inline]
    pub(super) fn look(&mut self, request: &ReserveRequest<'_>) -> Result<Look, StoreError> {
        let mut look = Look { room: true, tallies: Tallies::new(), missing: 0 };
        for (charge, position) in request.charges.iter().zip(&mut self.positions) {
            let Some(table) = self.guards.get(position.guard) else { return Err(no_shard()) };
            let at = table.find(position.spot.hash, &charge.subject);
            let cells = at.map_or(&[][..], |at| table.cells(at));
            let cell = cells.iter().enumerate().find(|(_, cell)| cell.counter == charge.counter);
            position.found = at.zip(cell.map(|(index, _)| index));
            let tally = match cell {
                Some((_, cell)) => cell.tally(charge, request.now)?,
                None => {
                    if let Some(horizon) = table.reclaimed_horizon(charge, request.now) {
                        return Err(StoreError::ClockSteppedBack { horizon });
                    }
                    look.missing += 1;
                    Tally::unused(&charge.meter, request.now)
                }
            };
            look.room &= tally.has_room(charge);
            look.tallies.push(tally.of(table.generations.of(charge.counter, &charge.subject)));
        }
        Ok(look)
    }

    /// Returns how many of the missing counters are not of the asker's own subject.
    pub(super) fn not_own(&self, charges: &[Charge], own: Option<&Subject>) -> usize {
        let missing = charges.iter().zip(&self.positions).filter(|(_, position)| position.found.is_none());
        missing.filter(|(charge, _)| own != Some(&charge.subject)).count()
    }

    /// Makes the charges of a request, and adds missing counters, which are counted already: by
    /// `asker`, except those of its `own` subject.
    #[inline]
    pub(super) fn write(
        &mut self,
        request: &ReserveRequest<'_>,
        store: &MemoryStore,
        asker: AskerNumber,
        own: Option<&Subject>,
    ) -> Result<Tallies, StoreError> {
        let mut tallies = Tallies::new();
        let reclaim = (store.len() > store.keep).then_some(request.now);
        let mut added = false;
        for (charge, position) in request.charges.iter().zip(&self.positions) {
            let Some(table) = self.guards.get_mut(position.guard) else { return Err(no_shard()) };
            // Positions stay valid until something is added.
            let found = match position.found {
                Some(found) if !added => Some(found),
                _ => table.find(position.spot.hash, &charge.subject).and_then(|at| {
                    let cell = table.cells(at).iter().position(|cell| cell.counter == charge.counter)?;
                    Some((at, cell))
                }),
            };
            let generation = table.generations.of(charge.counter, &charge.subject);
            let cell = found.and_then(|(at, cell)| table.cells_mut(at).get_mut(cell));
            let tally = match cell {
                Some(cell) => cell.charge(charge, request.now)?,
                None => {
                    added = true;
                    // If an expired counter existed and was reclaimed for another one of its row,
                    // it is added again.
                    store.held.fetch_add(usize::from(position.found.is_some()), Ordering::Relaxed);
                    let mut cell = Cell::new(charge);
                    let tally = cell.charge(charge, request.now)?;
                    // A shard holds two million rows of one kind: more than 10^11 counters in the
                    // store.
                    let asker = if own == Some(&charge.subject) { AskerNumber::NOBODY } else { asker };
                    let added = table.add(position.spot.hash, &charge.subject, cell, reclaim, asker);
                    let added = added.ok_or_else(shard_full)?;
                    store.held.fetch_sub(added.gone, Ordering::Relaxed);
                    let counted_by = if position.found.is_none() { asker } else { AskerNumber::NOBODY };
                    if added.gone > 0 || added.asker != counted_by {
                        let mut askers = store.askers.lock();
                        askers.add(added.asker, 1);
                        askers.remove(counted_by, 1);
                        askers.remove(added.asker, added.gone);
                    }
                    tally
                }
            };
            tallies.push(tally.of(generation));
        }
        Ok(tallies)
    }

    /// Reclaims expired counters among the next `rows` rows of each locked shard.
    pub(super) fn sweep(&mut self, rows: usize, request: &ReserveRequest<'_>, store: &MemoryStore) {
        for table in &mut self.guards {
            table.sweep(rows, request.now, |asker, counters| store.forget(asker, counters));
        }
    }
}
