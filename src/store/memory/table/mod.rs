//! The rows of one shard: two dense lists, and an open-addressed index with four bytes for each
//! entry.
//!
//! Its reason is memory: one counter of 1,000,000 takes 85 bytes, and 153 in a
//! `hashbrown::HashTable` of rows (60 and 107 for each of three counters of one scope). A
//! `HashTable` of indices takes 1.27 to 1.39 times as long with 1,000,000 callers.
//!
//! Rows do not move when the index grows. The index is rebuilt from them, which is a walk over one
//! shard.

use std::time::Duration;

use super::super::{Generation, Generations};
use super::askers::AskerNumber;
use super::row::{Cell, Cells, Key, Row};
use crate::call::subject::hash_code;
use crate::charge::{Charge, CounterId, Meter, Subject};
use crate::time::Timestamp;

pub(super) struct Table {
    /// Empty, or a power of two of entries.
    index: Vec<Entry>,
    single: Vec<Row<Cell>>,
    several: Vec<Row<Cells>>,
    /// The position of the next sweep in each of the two lists.
    hands: [usize; 2],
    /// The latest end of a counter that was reclaimed. Charges up to this instant may be unknown.
    horizon: Option<Timestamp>,
    pub(super) generations: Generations,
}

/// An entry of the index: zero if it is free, otherwise the row and ten bits of its hash.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Entry(u32);

/// The position of a row, valid until a row is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    Single(usize),
    Several(usize),
}

/// The result of an addition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Added {
    /// The number of counters of the subject that have been reclaimed.
    pub(super) gone: usize,
    /// By whom the counters of the subject are counted.
    pub(super) asker: AskerNumber,
}

/// The counters of a row that was removed, and by whom they were counted.
struct Removed {
    cells: Cells,
    asker: AskerNumber,
}

/// The largest number of rows of one kind that an entry can distinguish.
const MAX_ROWS: usize = (1 << 21) - 1;

/// A counter is reclaimed this long after it expires, so that threads which read the clock at
/// slightly different times, and small corrections of the clock, find every window.
const GRACE: Duration = Duration::from_secs(2);

impl Entry {
    const FREE: Self = Self(0);

    #[inline]
    fn new(hash: u32, at: At) -> Self {
        let (kind, index) = match at {
            At::Single(index) => (0, index),
            At::Several(index) => (1, index),
        };
        // The index is below `MAX_ROWS`, so the next number fits into 21 bits and is not zero.
        Self(tag(hash) | kind << 21 | u32::try_from(index + 1).unwrap_or(0))
    }

    #[inline]
    fn at(self) -> At {
        let index = (self.0 & 0x1f_ffff) as usize;
        let index = index.saturating_sub(1);
        if self.0 & 1 << 21 == 0 { At::Single(index) } else { At::Several(index) }
    }
}

/// Returns the ten bits of a hash that rule out most other rows without reading them.
#[inline]
fn tag(hash: u32) -> u32 {
    hash & 0xffc0_0000
}

fn has_expired(cells: &[Cell], now: Timestamp) -> bool {
    cells.iter().all(|cell| cell.expires_at().saturating_add(GRACE) <= now)
}

/// Splits a hash into the half that finds a row in its shard, and the half that finds the shard.
#[inline]
pub(super) fn halves(hash: u64) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are used apart")]
    (hash as u32, (hash >> 32) as u32)
}

fn hash_of(key: &Key) -> u32 {
    halves(hash_code(key.subject())).0
}

impl Table {
    /// Makes a table of no rows.
    pub(super) fn new(first: Generation) -> Self {
        Self {
            index: Vec::new(),
            single: Vec::new(),
            several: Vec::new(),
            hands: [0; 2],
            horizon: None,
            generations: Generations::beginning_with(first),
        }
    }

    /// Looks up the row of a subject.
    #[inline]
    pub(super) fn find(&self, hash: u32, subject: &Subject) -> Option<At> {
        let mask = self.index.len().checked_sub(1)?;
        let mut position = hash as usize & mask;
        // There is always a free entry.
        loop {
            let found = *self.index.get(position)?;
            if found == Entry::FREE {
                return None;
            }
            if tag(found.0) == tag(hash) {
                let at = found.at();
                if self.key(at).is_some_and(|key| key.subject() == subject.as_bytes()) {
                    return Some(at);
                }
            }
            position = (position + 1) & mask;
        }
    }

    #[inline]
    fn key(&self, at: At) -> Option<&Key> {
        match at {
            At::Single(index) => self.single.get(index).map(|row| &row.key),
            At::Several(index) => self.several.get(index).map(|row| &row.key),
        }
    }

    #[inline]
    pub(super) fn cells(&self, at: At) -> &[Cell] {
        match at {
            At::Single(index) => self.single.get(index).map_or(&[], |row| std::slice::from_ref(&row.cells)),
            At::Several(index) => self.several.get(index).map_or(&[], |row| &row.cells),
        }
    }

    /// Returns the counters of a row, and the generations of all.
    #[inline]
    pub(super) fn cells_and_generations(&mut self, at: At) -> (&mut [Cell], &Generations) {
        let cells = match at {
            At::Single(index) => {
                self.single.get_mut(index).map_or(&mut [][..], |row| std::slice::from_mut(&mut row.cells))
            }
            At::Several(index) => self.several.get_mut(index).map_or(&mut [][..], |row| &mut row.cells),
        };
        (cells, &self.generations)
    }

    #[inline]
    pub(super) fn cells_mut(&mut self, at: At) -> &mut [Cell] {
        self.cells_and_generations(at).0
    }

    /// Returns the instant up to which history is lost, if a missing counter may have been
    /// reclaimed while it was still relevant to the charge.
    pub(super) fn reclaimed_horizon(&self, charge: &Charge, now: Timestamp) -> Option<Timestamp> {
        self.horizon.filter(|horizon| match charge.meter {
            Meter::Fixed(asked) => asked.end <= *horizon,
            _ => now < *horizon,
        })
    }

    /// Adds a new counter. If `reclaim` is an instant, reclaims the counters of its subject that
    /// have expired then. A new row is the asker's; the counters of a row are counted by the asker
    /// who began it. Returns `None` if the table can take no more rows.
    pub(super) fn add(
        &mut self,
        hash: u32,
        subject: &Subject,
        cell: Cell,
        reclaim: Option<Timestamp>,
        asker: AskerNumber,
    ) -> Option<Added> {
        let expired = |cells: &[Cell]| reclaim.is_some_and(|now| has_expired(cells, now));
        match self.find(hash, subject) {
            None => {
                let at = self.push_single(Row { key: Key::new(subject, asker), cells: cell })?;
                self.link(hash, at);
                Some(Added { gone: 0, asker })
            }
            Some(At::Several(index)) => {
                let mut gone = 0;
                let mut horizon = self.horizon;
                let mut asker = asker;
                if let Some(row) = self.several.get_mut(index) {
                    asker = row.key.asker();
                    row.cells.retain(|cell| {
                        let expired = expired(std::slice::from_ref(cell));
                        if expired {
                            gone += 1;
                            horizon = horizon.max(Some(cell.expires_at()));
                        }
                        !expired
                    });
                    row.cells.push(cell);
                }
                self.horizon = horizon;
                Some(Added { gone, asker })
            }
            Some(At::Single(index)) => {
                if self.several.len() >= MAX_ROWS {
                    return None;
                }
                let Removed { mut cells, asker } = self.remove(At::Single(index))?;
                let gone = usize::from(expired(&cells));
                if gone > 0 {
                    self.horizon = self.horizon.max(cells.iter().map(Cell::expires_at).max());
                    cells.clear();
                }
                cells.push(cell);
                reserve_a_little(&mut self.several);
                self.several.push(Row { key: Key::new(subject, asker), cells });
                self.link(hash, At::Several(self.several.len() - 1));
                Some(Added { gone, asker })
            }
        }
    }

    /// Removes a counter, and returns by whom it was counted, if it existed.
    pub(super) fn remove_counter(&mut self, hash: u32, subject: &Subject, counter: CounterId) -> Option<AskerNumber> {
        let at = self.find(hash, subject)?;
        let asker = self.key(at)?.asker();
        let cells = self.cells(at);
        let cell = cells.iter().position(|cell| cell.counter == counter)?;
        if cells.len() == 1 {
            self.remove(at);
        } else if let At::Several(index) = at
            && let Some(row) = self.several.get_mut(index)
        {
            row.cells.remove(cell);
        }
        Some(asker)
    }

    /// Reclaims expired rows among the next `count` of each kind. Reports the number of counters of
    /// each, and by whom they were counted.
    pub(super) fn sweep(&mut self, count: usize, now: Timestamp, mut gone: impl FnMut(AskerNumber, usize)) {
        for kind in 0..self.hands.len() {
            for _ in 0..count {
                let rows = if kind == 0 { self.single.len() } else { self.several.len() };
                let Some(hand) = self.hands.get_mut(kind).filter(|_| rows > 0) else { break };
                *hand = if *hand < rows { *hand } else { 0 };
                let at = if kind == 0 { At::Single(*hand) } else { At::Several(*hand) };
                if has_expired(self.cells(at), now) {
                    // The last row takes its place, and is checked next.
                    let Some(Removed { cells, asker }) = self.remove(at) else { break };
                    self.horizon = self.horizon.max(cells.iter().map(Cell::expires_at).max());
                    gone(asker, cells.len());
                } else if let Some(hand) = self.hands.get_mut(kind) {
                    *hand += 1;
                }
            }
        }
    }

    /// Returns the number of subjects.
    pub(super) fn subjects(&self) -> usize {
        self.single.len() + self.several.len()
    }

    /// Returns every subject and its counters.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Key, &[Cell])> {
        let single = self.single.iter().map(|row| (&row.key, std::slice::from_ref(&row.cells)));
        single.chain(self.several.iter().map(|row| (&row.key, &*row.cells)))
    }

    pub(super) fn horizon(&self) -> Option<Timestamp> {
        self.horizon
    }

    pub(super) fn set_horizon(&mut self, horizon: Option<Timestamp>) {
        self.horizon = self.horizon.max(horizon);
    }

    fn push_single(&mut self, row: Row<Cell>) -> Option<At> {
        if self.single.len() >= MAX_ROWS {
            return None;
        }
        reserve_a_little(&mut self.single);
        self.single.push(row);
        Some(At::Single(self.single.len() - 1))
    }

    /// Adds a row to the index, which grows before it is more than three quarters full.
    fn link(&mut self, hash: u32, at: At) {
        let rows = self.subjects();
        if rows * 4 > self.index.len() * 3 {
            let entries = (self.index.len() * 2).max(8);
            self.index = Vec::new();
            self.index.resize(entries, Entry::FREE);
            let single = self.single.iter().enumerate().map(|(index, row)| (&row.key, At::Single(index)));
            let several = self.several.iter().enumerate().map(|(index, row)| (&row.key, At::Several(index)));
            // The new row is among them.
            for (key, at) in single.chain(several) {
                enter(&mut self.index, hash_of(key), at);
            }
        } else {
            enter(&mut self.index, hash, at);
        }
    }

    /// Returns the position of the entry of a row.
    fn entry_of(&self, hash: u32, at: At) -> Option<usize> {
        let mask = self.index.len().checked_sub(1)?;
        let wanted = Entry::new(hash, at);
        let mut position = hash as usize & mask;
        loop {
            match *self.index.get(position)? {
                Entry::FREE => return None,
                found if found == wanted => return Some(position),
                _ => position = (position + 1) & mask,
            }
        }
    }

    /// Removes a row. The last row of its kind takes its position.
    fn remove(&mut self, at: At) -> Option<Removed> {
        let key = self.key(at)?;
        let (hash, asker) = (hash_of(key), key.asker());
        let position = self.entry_of(hash, at)?;
        self.unlink(position);
        let (last, cells) = match at {
            At::Single(index) => {
                let last = At::Single(self.single.len() - 1);
                self.relink(last, at);
                (last, Cells::from_iter([self.single.swap_remove(index).cells]))
            }
            At::Several(index) => {
                let last = At::Several(self.several.len() - 1);
                self.relink(last, at);
                (last, self.several.swap_remove(index).cells)
            }
        };
        debug_assert!(self.entry_of(hash, last).is_none() || last != at);
        Some(Removed { cells, asker })
    }

    /// Changes the entry of the row `from` to the row `to`.
    fn relink(&mut self, from: At, to: At) {
        if from == to {
            return;
        }
        let Some(hash) = self.key(from).map(hash_of) else { return };
        if let Some(entry) = self.entry_of(hash, from).and_then(|position| self.index.get_mut(position)) {
            *entry = Entry::new(hash, to);
        }
    }

    /// Frees an entry, and moves the following entries that would no longer be found.
    fn unlink(&mut self, mut free: usize) {
        let Some(mask) = self.index.len().checked_sub(1) else { return };
        let mut position = free;
        loop {
            position = (position + 1) & mask;
            let Some(found) = self.index.get(position).copied().filter(|found| *found != Entry::FREE) else { break };
            let Some(home) = self.key(found.at()).map(|key| hash_of(key) as usize & mask) else { break };
            // It moves if the free entry is between its home position and its own.
            if position.wrapping_sub(home) & mask >= position.wrapping_sub(free) & mask {
                if let Some(to) = self.index.get_mut(free) {
                    *to = found;
                }
                free = position;
            }
        }
        if let Some(entry) = self.index.get_mut(free) {
            *entry = Entry::FREE;
        }
    }
}

fn enter(index: &mut [Entry], hash: u32, at: At) {
    let Some(mask) = index.len().checked_sub(1) else { return };
    let mut position = hash as usize & mask;
    while let Some(found) = index.get_mut(position) {
        if *found == Entry::FREE {
            *found = Entry::new(hash, at);
            return;
        }
        position = (position + 1) & mask;
    }
}

/// Reserves an eighth more at a time: doubling would leave more memory unused.
fn reserve_a_little<T>(rows: &mut Vec<T>) {
    if rows.len() == rows.capacity() {
        rows.reserve_exact(rows.len() / 8 + 4);
    }
}

#[cfg(test)]
mod tests;
