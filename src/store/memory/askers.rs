//! The number of live counters of each asker.

use std::fmt;

use hashbrown::HashTable;

use crate::call::subject::hash_code;
use crate::charge::Subject;
use crate::json::inline::InlineBytes;

/// The number of an asker in a store, kept with each row. The first is nobody's: such counters are
/// not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AskerNumber(pub(super) u32);

impl AskerNumber {
    pub(super) const NOBODY: Self = Self(0);

    fn index(self) -> Option<usize> {
        (self.0 as usize).checked_sub(1)
    }
}

/// The askers with live counters. Only a call that adds a counter looks at them, and sweeps.
#[derive(Debug, Default)]
pub(super) struct Askers {
    numbers: HashTable<AskerNumber>,
    /// By number, from 1.
    live: Vec<Live>,
    free: Vec<AskerNumber>,
}

struct Live {
    key: InlineBytes<30>,
    counters: u32,
}

// A store may have an asker for each counter.
const _: () = assert!(size_of::<Live>() == 40);

impl Askers {
    fn number(&self, key: &Subject) -> Option<AskerNumber> {
        let is = |number: &AskerNumber| self.key(*number) == Some(key.as_bytes());
        self.numbers.find(hash_code(key.as_bytes()), is).copied()
    }

    /// Returns the number of counters of an asker.
    pub(super) fn count(&self, key: &Subject) -> usize {
        let live = self.number(key).and_then(|number| self.live.get(number.index()?));
        live.map_or(0, |live| live.counters as usize)
    }

    /// Counts more counters of an asker, and returns its number.
    pub(super) fn begin(&mut self, key: &Subject, counters: usize) -> AskerNumber {
        if counters == 0 {
            return AskerNumber::NOBODY;
        }
        if let Some(number) = self.number(key) {
            self.add(number, counters);
            return number;
        }
        let live = Live { key: key.as_bytes().into(), counters: u32::try_from(counters).unwrap_or(u32::MAX) };
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(slot) = number.index().and_then(|index| self.live.get_mut(index)) {
                    *slot = live;
                }
                number
            }
            None => {
                if self.live.len() == self.live.capacity() {
                    // Doubling would leave more memory unused.
                    self.live.reserve_exact(self.live.len() / 8 + 4);
                }
                self.live.push(live);
                // A store has fewer askers than counters, which have fewer than 32 bits.
                u32::try_from(self.live.len()).map_or(AskerNumber::NOBODY, AskerNumber)
            }
        };
        let live = &self.live;
        let hash = |number: &AskerNumber| {
            hash_code(number.index().and_then(|index| live.get(index)).map_or(&[], |live| live.key.as_slice()))
        };
        self.numbers.insert_unique(hash_code(key.as_bytes()), number, hash);
        number
    }

    pub(super) fn add(&mut self, number: AskerNumber, counters: usize) {
        if let Some(live) = number.index().and_then(|index| self.live.get_mut(index)) {
            live.counters = live.counters.saturating_add(u32::try_from(counters).unwrap_or(u32::MAX));
        }
    }

    /// Counts fewer counters. An asker without any is forgotten.
    pub(super) fn remove(&mut self, number: AskerNumber, counters: usize) {
        let Some(live) = number.index().and_then(|index| self.live.get_mut(index)).filter(|_| counters > 0) else {
            return;
        };
        live.counters = live.counters.saturating_sub(u32::try_from(counters).unwrap_or(u32::MAX));
        if live.counters == 0 {
            let hash = hash_code(live.key.as_slice());
            live.key = InlineBytes::default();
            if let Ok(entry) = self.numbers.find_entry(hash, |found| *found == number) {
                entry.remove();
            }
            self.free.push(number);
        }
    }

    /// Returns the bytes of an asker's key.
    pub(super) fn key(&self, number: AskerNumber) -> Option<&[u8]> {
        number.index().and_then(|index| self.live.get(index)).map(|live| live.key.as_slice())
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} counters", self.counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_once_nothing_is_left() {
        let keys: Vec<_> = (0..3u8).map(|n| Subject::of_bytes(&[n])).collect();
        let mut askers = Askers::default();
        let numbers: Vec<_> = keys.iter().map(|key| askers.begin(key, 2)).collect();
        assert_eq!(numbers, [1, 2, 3].map(AskerNumber));
        assert_eq!(askers.begin(&keys[1], 1), numbers[1]);
        askers.remove(numbers[1], 2);
        assert_eq!((askers.count(&keys[1]), askers.key(numbers[1])), (1, Some(keys[1].as_bytes())));
        askers.remove(numbers[1], 1);
        assert_eq!((askers.count(&keys[1]), askers.count(&keys[0])), (0, 2));
        assert_eq!(askers.begin(&Subject::of_bytes(b"new"), 1), numbers[1]);
        assert_eq!(askers.count(&keys[1]), 0);
        askers.add(AskerNumber::NOBODY, 1);
        askers.remove(AskerNumber::NOBODY, 1);
        assert_eq!((askers.begin(&keys[1], 0), askers.key(AskerNumber::NOBODY)), (AskerNumber::NOBODY, None));
    }
}
