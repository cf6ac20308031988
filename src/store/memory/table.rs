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

use super::row::{Cell, Cells, Key, Row};
use crate::call::subject::hash_code;
use crate::charge::{Charge, CounterId, Meter, Subject};
use crate::time::Timestamp;

#[derive(Default)]
pub(super) struct Table {
    /// Empty, or a power of two of entries.
    index: Vec<Entry>,
    single: Vec<Row<Cell>>,
    several: Vec<Row<Cells>>,
    /// The position of the next sweep in each of the two lists.
    hands: [usize; 2],
    /// The latest end of a counter that was reclaimed. Charges up to this instant may be unknown.
    horizon: Option<Timestamp>,
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
    halves(hash_code(key.as_slice())).0
}

impl Table {
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
                if self.key(at).is_some_and(|key| key.as_slice() == subject.as_bytes()) {
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

    #[inline]
    pub(super) fn cells_mut(&mut self, at: At) -> &mut [Cell] {
        match at {
            At::Single(index) => self.single.get_mut(index).map_or(&mut [], |row| std::slice::from_mut(&mut row.cells)),
            At::Several(index) => self.several.get_mut(index).map_or(&mut [], |row| &mut row.cells),
        }
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
    /// have expired then. Returns the number of these, or `None` if the table can take no more
    /// rows.
    pub(super) fn add(
        &mut self,
        hash: u32,
        subject: &Subject,
        cell: Cell,
        reclaim: Option<Timestamp>,
    ) -> Option<usize> {
        let expired = |cells: &[Cell]| reclaim.is_some_and(|now| has_expired(cells, now));
        match self.find(hash, subject) {
            None => {
                let at = self.push_single(Row { key: subject.as_bytes().into(), cells: cell })?;
                self.link(hash, at);
                Some(0)
            }
            Some(At::Several(index)) => {
                let mut gone = 0;
                let mut horizon = self.horizon;
                if let Some(row) = self.several.get_mut(index) {
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
                Some(gone)
            }
            Some(At::Single(index)) => {
                if self.several.len() >= MAX_ROWS {
                    return None;
                }
                let mut cells = self.remove(At::Single(index))?;
                let gone = usize::from(expired(&cells));
                if gone > 0 {
                    self.horizon = self.horizon.max(cells.iter().map(Cell::expires_at).max());
                    cells.clear();
                }
                cells.push(cell);
                reserve_a_little(&mut self.several);
                self.several.push(Row { key: subject.as_bytes().into(), cells });
                self.link(hash, At::Several(self.several.len() - 1));
                Some(gone)
            }
        }
    }

    /// Removes a counter, and returns whether it existed.
    pub(super) fn remove_counter(&mut self, hash: u32, subject: &Subject, counter: CounterId) -> bool {
        let Some(at) = self.find(hash, subject) else { return false };
        let cells = self.cells(at);
        let Some(cell) = cells.iter().position(|cell| cell.counter == counter) else { return false };
        if cells.len() == 1 {
            self.remove(at);
        } else if let At::Several(index) = at
            && let Some(row) = self.several.get_mut(index)
        {
            row.cells.remove(cell);
        }
        true
    }

    /// Reclaims expired rows among the next `count` of each kind, and returns the number of their
    /// counters.
    pub(super) fn sweep(&mut self, count: usize, now: Timestamp) -> usize {
        let mut reclaimed = 0;
        for kind in 0..self.hands.len() {
            for _ in 0..count {
                let rows = if kind == 0 { self.single.len() } else { self.several.len() };
                let Some(hand) = self.hands.get_mut(kind).filter(|_| rows > 0) else { break };
                *hand = if *hand < rows { *hand } else { 0 };
                let at = if kind == 0 { At::Single(*hand) } else { At::Several(*hand) };
                if has_expired(self.cells(at), now) {
                    // The last row takes its place, and is checked next.
                    let cells = self.remove(at).unwrap_or_default();
                    self.horizon = self.horizon.max(cells.iter().map(Cell::expires_at).max());
                    reclaimed += cells.len();
                } else if let Some(hand) = self.hands.get_mut(kind) {
                    *hand += 1;
                }
            }
        }
        reclaimed
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
        let rows = self.single.len() + self.several.len();
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
    fn remove(&mut self, at: At) -> Option<Cells> {
        let hash = hash_of(self.key(at)?);
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
        Some(cells)
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
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::amount::Amount;
    use crate::charge::Span;

    /// Makes a counter of a window of one second with this end.
    fn cell(counter: u8, end: i64) -> Cell {
        let window = Span { start: Timestamp::from_unix_seconds(end - 1), end: Timestamp::from_unix_seconds(end) };
        let (counter, subject) = (CounterId::of([&*counter.to_string()]), Subject::default());
        Cell::new(&Charge { counter, subject, amount: Amount::ONE, max: None, meter: Meter::Fixed(window) })
    }

    fn subject(number: u16) -> Subject {
        // Some are longer than what a row stores inline.
        Subject::of_bytes(format!("{number}{}", "x".repeat(usize::from(number % 40))).as_bytes())
    }

    #[derive(Debug, Clone)]
    enum Act {
        Add { subject: u16, counter: u8, end: i64 },
        Remove { subject: u16, counter: u8 },
        Sweep { rows: usize, now: i64 },
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => (0..60u16, 0..5u8, 10..100i64).prop_map(|(subject, counter, end)| Act::Add { subject, counter, end }),
            1 => (0..60u16, 0..5u8).prop_map(|(subject, counter)| Act::Remove { subject, counter }),
            1 => (0..40usize, 0..110i64).prop_map(|(rows, now)| Act::Sweep { rows, now }),
        ];
        prop::collection::vec(act, 0..400)
    }

    proptest! {
        /// A map of maps is the model. (Nothing expires at the instant of an addition.)
        #[test]
        fn a_table_agrees_with_a_map(acts in acts()) {
            let mut table = Table::default();
            let mut model: BTreeMap<u16, BTreeMap<u8, i64>> = BTreeMap::new();
            let hash = |subject: &Subject| halves(subject.hash_code()).0;
            for act in acts {
                match act {
                    Act::Add { subject: number, counter, end } => {
                        let known = model.entry(number).or_default();
                        if known.contains_key(&counter) {
                            continue;
                        }
                        known.insert(counter, end);
                        let subject = subject(number);
                        let hash = hash(&subject);
                        prop_assert_eq!(table.add(hash, &subject, cell(counter, end), None), Some(0));
                    }
                    Act::Remove { subject: number, counter } => {
                        let known = model.get_mut(&number).is_some_and(|known| known.remove(&counter).is_some());
                        model.retain(|_, known| !known.is_empty());
                        let (subject, id) = (subject(number), CounterId::of([&*counter.to_string()]));
                        let hash = hash(&subject);
                        prop_assert_eq!(table.remove_counter(hash, &subject, id), known);
                    }
                    Act::Sweep { rows, now } => {
                        let before: usize = model.values().map(BTreeMap::len).sum();
                        let reclaimed = table.sweep(rows, Timestamp::from_unix_seconds(now));
                        // Only rows whose counters have all expired are removed, after the grace.
                        // Which of them depends on the hand.
                        model.retain(|number, known| {
                            let there = table.find(hash(&subject(*number)), &subject(*number)).is_some();
                            assert!(there || known.values().all(|end| *end + 2 <= now), "a live row was removed");
                            there
                        });
                        let after: usize = model.values().map(BTreeMap::len).sum();
                        prop_assert_eq!(reclaimed, before - after);
                        if rows >= 60 {
                            prop_assert!(model.values().all(|known| known.values().any(|end| *end + 2 > now)));
                        }
                    }
                }
                model.retain(|_, known| !known.is_empty());
                for (number, known) in &model {
                    let subject = subject(*number);
                    let at = table.find(hash(&subject), &subject).unwrap();
                    let seconds = |cell: &Cell| cell.expires_at().unix_seconds();
                    let mut ends: Vec<_> = table.cells(at).iter().map(seconds).collect();
                    ends.sort_unstable();
                    let mut wanted: Vec<_> = known.values().copied().collect();
                    wanted.sort_unstable();
                    prop_assert_eq!(ends, wanted);
                }
                prop_assert_eq!(table.rows().count(), model.len());
            }
        }
    }

    #[test]
    fn reclaims_expired_counters_of_the_same_subject() {
        let mut table = Table::default();
        let subject = subject(1);
        let hash = halves(subject.hash_code()).0;
        let at = Timestamp::from_unix_seconds;
        assert_eq!(table.add(hash, &subject, cell(0, 10), Some(at(9))), Some(0));
        assert_eq!(table.add(hash, &subject, cell(1, 20), Some(at(11))), Some(0), "within the grace");
        assert_eq!(table.add(hash, &subject, cell(2, 30), Some(at(12))), Some(1));
        assert_eq!(table.add(hash, &subject, cell(3, 40), Some(at(50))), Some(2));
        let charge = |end| {
            let window = Span { start: at(end - 1), end: at(end) };
            let counter = CounterId::of(["a new one"]);
            Charge { counter, subject: subject.clone(), amount: Amount::ONE, max: None, meter: Meter::Fixed(window) }
        };
        assert_eq!(table.reclaimed_horizon(&charge(30), at(29)), Some(at(30)));
        assert_eq!(table.reclaimed_horizon(&charge(31), at(30)), None);
    }

    #[test]
    fn reclaims_the_only_counter_of_the_same_subject() {
        let mut table = Table::default();
        let subject = subject(1);
        let hash = halves(subject.hash_code()).0;
        let at = Timestamp::from_unix_seconds;
        assert_eq!(table.add(hash, &subject, cell(0, 10), Some(at(9))), Some(0));
        assert_eq!(table.add(hash, &subject, cell(1, 40), Some(at(12))), Some(1));
        let cells = table.find(hash, &subject).map(|found| table.cells(found)).unwrap();
        assert_eq!(cells.iter().map(Cell::expires_at).collect::<Vec<_>>(), [at(40)]);
        assert_eq!(table.horizon(), Some(at(10)));
    }

    #[test]
    fn reports_the_horizon_of_relevant_charges() {
        let mut table = Table::default();
        let at = Timestamp::from_unix_seconds;
        let horizon = |table: &Table, meter, now| {
            let (counter, subject) = (CounterId::of(["c"]), subject(1));
            table.reclaimed_horizon(&Charge { counter, subject, amount: Amount::ONE, max: None, meter }, now)
        };
        let fixed = |end| Meter::Fixed(Span { start: at(end - 1), end: at(end) });
        let sliding = Meter::Sliding { seconds: 5 };
        assert_eq!([fixed(1), sliding].map(|meter| horizon(&table, meter, at(1))), [None; 2]);
        table.set_horizon(Some(at(10)));
        table.set_horizon(None);
        table.set_horizon(Some(at(7)));
        assert_eq!([9, 10, 11].map(|end| horizon(&table, fixed(end), at(50))), [Some(at(10)), Some(at(10)), None]);
        assert_eq!([9, 10, 11].map(|now| horizon(&table, sliding, at(now))), [Some(at(10)), None, None]);
    }

    #[test]
    fn entries_encode_rows() {
        for index in [0, 1, 1000, MAX_ROWS - 1] {
            for at in [At::Single(index), At::Several(index)] {
                for hash in [0, 1, u32::MAX] {
                    let entry = Entry::new(hash, at);
                    assert!(entry.at() == at && entry != Entry::FREE && tag(entry.0) == tag(hash));
                }
            }
        }
    }
}
