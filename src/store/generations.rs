//! Generations: by which a store knows a charge that was made before a counter began anew.

use std::collections::VecDeque;

use super::{ChargeChange, Generation, Tallies};
use crate::charge::{Charge, CounterId, Subject};

/// The generations of all counters of a store in the process, in eight bytes and what was reset
/// lately: a store puts [`of`](Self::of) into the tallies of its charges, and changes only charges
/// that [may change](Self::may_change).
///
/// It remembers the last 64 counters that were reset. A charge that is older than what it remembers
/// can become more and not less, which never gives room back. `examples/custom_store.rs` has one.
#[derive(Debug)]
pub struct Generations {
    /// The generation of every counter that was not reset lately.
    base: u64,
    resets: Option<Box<Resets>>,
}

#[derive(Debug)]
struct Resets {
    /// The generation at the beginning, and of the latest reset.
    first: u64,
    last: u64,
    /// The oldest first. No counter of one subject is here twice.
    latest: VecDeque<Reset>,
}

#[derive(Debug)]
struct Reset {
    counter: CounterId,
    subject: Subject,
    generation: u64,
}

/// How many resets are remembered.
const REMEMBERED: usize = 64;

impl Default for Generations {
    fn default() -> Self {
        Self::new()
    }
}

impl Generations {
    /// Begins generations that no other store has, so that charges of a store that this one was
    /// restored from are charges of an earlier generation.
    pub fn new() -> Self {
        Self::beginning_with(Generation::random())
    }

    pub(super) fn beginning_with(first: Generation) -> Self {
        Self { base: first.get(), resets: None }
    }

    /// Returns the present generation of a counter of a subject. O(1) where nothing was reset,
    /// otherwise O(64).
    #[inline]
    pub fn of(&self, counter: CounterId, subject: &Subject) -> Generation {
        match &self.resets {
            None => Generation::new(self.base),
            Some(resets) => Generation::new(resets.of(counter, subject).unwrap_or(self.base)),
        }
    }

    /// Puts the generations of the counters of charges into their tallies.
    #[cold]
    pub(super) fn put_into(&self, tallies: &mut Tallies, charges: &[Charge]) {
        for (tally, charge) in tallies.iter_mut().zip(charges) {
            tally.charged_at.generation = self.of(charge.counter, &charge.subject);
        }
    }

    #[inline]
    pub(super) fn has_resets(&self) -> bool {
        self.resets.is_some()
    }

    /// Returns the generation of the counters that were not reset lately.
    #[inline]
    pub(super) fn of_others(&self) -> Generation {
        Generation::new(self.base)
    }

    /// Begins the next generation of a counter of a subject.
    pub fn reset(&mut self, counter: CounterId, subject: &Subject) {
        let first = self.base;
        let resets =
            self.resets.get_or_insert_with(|| Box::new(Resets { first, last: first, latest: VecDeque::new() }));
        resets.latest.retain(|reset| !(reset.counter == counter && reset.subject == *subject));
        if resets.latest.len() >= REMEMBERED
            && let Some(oldest) = resets.latest.pop_front()
        {
            self.base = oldest.generation;
        }
        resets.last = resets.last.wrapping_add(1);
        resets.latest.push_back(Reset { counter, subject: subject.clone(), generation: resets.last });
    }

    /// Returns whether a settlement may change this charge: always if its counter is of the same
    /// generation, and never if it is of another one. If that is no longer known, the charge may
    /// become more. A unit in flight of zero is not held, so it begins in the present generation.
    #[inline]
    pub fn may_change(&self, change: &ChargeChange<'_>) -> bool {
        let made = change.at.generation.get();
        let present = self.of(change.charge.counter, &change.charge.subject).get();
        made == present || change.is_new_unit() || self.forgotten(made, present) && change.to > change.charge.amount
    }

    #[cold]
    fn forgotten(&self, made: u64, present: u64) -> bool {
        let Some(resets) = &self.resets else { return false };
        // Numbers are compared by their distance from the first, since they may wrap around.
        present == self.base && made.wrapping_sub(resets.first) < self.base.wrapping_sub(resets.first)
    }
}

impl Resets {
    #[cold]
    fn of(&self, counter: CounterId, subject: &Subject) -> Option<u64> {
        let reset = self.latest.iter().find(|reset| reset.counter == counter && reset.subject == *subject);
        reset.map(|reset| reset.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Amount;
    use crate::charge::Meter;
    use crate::store::ChargedAt;
    use crate::time::Timestamp;

    fn subject(number: usize) -> Subject {
        Subject::of_bytes(number.to_string().as_bytes())
    }

    /// Returns whether a charge may become less, and more.
    fn may(generations: &Generations, number: usize, generation: Generation) -> [bool; 2] {
        let (counter, meter) = (CounterId::of(["c"]), Meter::Sliding { seconds: 60 });
        let charge = Charge::new(counter, subject(number), Amount::ONE, None, meter);
        let at = ChargedAt { instant: Timestamp::UNIX_EPOCH, generation };
        [Amount::ZERO, Amount::MAX].map(|to| generations.may_change(&ChargeChange::new(&charge, at, to)))
    }

    #[test]
    fn charges_before_a_reset_do_not_change() {
        for first in [0, u64::MAX - 1] {
            let counter = CounterId::of(["c"]);
            let mut generations = Generations::beginning_with(Generation::new(first));
            let made = generations.of(counter, &subject(1));
            generations.reset(counter, &subject(1));
            let after = generations.of(counter, &subject(1));
            generations.reset(counter, &subject(1));
            let last = generations.of(counter, &subject(1));
            assert!(made != after && after != last);
            let found = [made, after, last].map(|generation| may(&generations, 1, generation));
            assert_eq!(found, [[false; 2], [false; 2], [true; 2]]);
            assert_eq!(may(&generations, 2, made), [true; 2], "another subject");
            assert_eq!(may(&generations, 1, Generation::new(first ^ 1 << 40)), [false; 2], "of another store");
        }
    }

    #[test]
    fn charges_that_are_older_than_what_is_known_become_only_more() {
        let counter = CounterId::of(["c"]);
        let mut generations = Generations::beginning_with(Generation::new(u64::MAX - 7));
        let made = generations.of(counter, &subject(0));
        (0..REMEMBERED + 10).for_each(|number| generations.reset(counter, &subject(number)));
        assert_eq!(may(&generations, 0, made), [false, true], "its reset is forgotten");
        assert_eq!(may(&generations, 1_000, made), [false, true], "it was not reset");
        assert_eq!(may(&generations, 30, made), [false; 2], "its reset is known");
        for number in [0, 30, 1_000] {
            assert_eq!(may(&generations, number, generations.of(counter, &subject(number))), [true; 2]);
        }
        assert_eq!(generations.resets.map(|resets| resets.latest.len()), Some(REMEMBERED));
    }
}
