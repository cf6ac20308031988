//! The number of live counters of each asker.

use std::collections::HashMap;

use crate::charge::Subject;

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
    numbers: HashMap<Subject, AskerNumber>,
    /// By number, from 1.
    live: Vec<Live>,
    free: Vec<AskerNumber>,
}

#[derive(Debug)]
struct Live {
    key: Subject,
    counters: usize,
}

impl Askers {
    /// Returns the number of counters of an asker.
    pub(super) fn count(&self, key: &Subject) -> usize {
        let live = self.numbers.get(key).and_then(|number| self.live.get(number.index()?));
        live.map_or(0, |live| live.counters)
    }

    /// Counts more counters of an asker, and returns its number.
    pub(super) fn begin(&mut self, key: &Subject, counters: usize) -> AskerNumber {
        if counters == 0 {
            return AskerNumber::NOBODY;
        }
        if let Some(number) = self.numbers.get(key).copied() {
            self.add(number, counters);
            return number;
        }
        let live = Live { key: key.clone(), counters };
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(slot) = number.index().and_then(|index| self.live.get_mut(index)) {
                    *slot = live;
                }
                number
            }
            None => {
                self.live.push(live);
                // A store has fewer askers than counters, which have fewer than 32 bits.
                u32::try_from(self.live.len()).map_or(AskerNumber::NOBODY, AskerNumber)
            }
        };
        self.numbers.insert(key.clone(), number);
        number
    }

    pub(super) fn add(&mut self, number: AskerNumber, counters: usize) {
        if let Some(live) = number.index().and_then(|index| self.live.get_mut(index)) {
            live.counters = live.counters.saturating_add(counters);
        }
    }

    /// Counts fewer counters. An asker without any is forgotten.
    pub(super) fn remove(&mut self, number: AskerNumber, counters: usize) {
        let Some(live) = number.index().and_then(|index| self.live.get_mut(index)).filter(|_| counters > 0) else {
            return;
        };
        live.counters = live.counters.saturating_sub(counters);
        if live.counters == 0 {
            self.numbers.remove(&live.key);
            live.key = Subject::default();
            self.free.push(number);
        }
    }

    pub(super) fn key(&self, number: AskerNumber) -> Option<&Subject> {
        number.index().and_then(|index| self.live.get(index)).map(|live| &live.key)
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
        assert_eq!((askers.count(&keys[1]), askers.key(numbers[1])), (1, Some(&keys[1])));
        askers.remove(numbers[1], 1);
        assert_eq!((askers.count(&keys[1]), askers.count(&keys[0])), (0, 2));
        assert_eq!(askers.begin(&Subject::of_bytes(b"new"), 1), numbers[1]);
        assert_eq!(askers.count(&keys[1]), 0);
        askers.add(AskerNumber::NOBODY, 1);
        askers.remove(AskerNumber::NOBODY, 1);
        assert_eq!((askers.begin(&keys[1], 0), askers.key(AskerNumber::NOBODY)), (AskerNumber::NOBODY, None));
    }
}
