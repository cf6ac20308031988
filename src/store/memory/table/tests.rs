//! Tests of the table of rows.

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

/// Adds a counter of subject 1 for one asker after another, and returns how many are gone.
fn add(table: &mut Table, cell: Cell, reclaim: Option<Timestamp>) -> Option<usize> {
    let (subject, asker) = (subject(1), table.rows().map(|(_, cells)| cells.len()).sum::<usize>());
    let asker = AskerNumber(u32::try_from(asker).unwrap() + 7);
    let added = table.add(halves(subject.hash_code()).0, &subject, cell, reclaim, asker)?;
    assert_eq!(added.asker, AskerNumber(7), "the row stays with the asker that began it");
    Some(added.gone)
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
        let mut table = Table::new(Generation::new(0));
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
                    let added = table.add(hash, &subject, cell(counter, end), None, AskerNumber(number.into()));
                    // The row stays with the asker that began it.
                    prop_assert_eq!(added, Some(Added { gone: 0, asker: AskerNumber(number.into()) }));
                }
                Act::Remove { subject: number, counter } => {
                    let known = model.get_mut(&number).is_some_and(|known| known.remove(&counter).is_some());
                    model.retain(|_, known| !known.is_empty());
                    let (subject, id) = (subject(number), CounterId::of([&*counter.to_string()]));
                    let hash = hash(&subject);
                    let asker = known.then_some(AskerNumber(number.into()));
                    prop_assert_eq!(table.remove_counter(hash, &subject, id), asker);
                }
                Act::Sweep { rows, now } => {
                    let before: usize = model.values().map(BTreeMap::len).sum();
                    let mut reclaimed = 0;
                    table.sweep(rows, Timestamp::from_unix_seconds(now), |_, counters| reclaimed += counters);
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
    let mut table = Table::new(Generation::new(0));
    let subject = subject(1);
    let at = Timestamp::from_unix_seconds;
    assert_eq!(add(&mut table, cell(0, 10), Some(at(9))), Some(0));
    assert_eq!(add(&mut table, cell(1, 20), Some(at(11))), Some(0), "within the grace");
    assert_eq!(add(&mut table, cell(2, 30), Some(at(12))), Some(1));
    assert_eq!(add(&mut table, cell(3, 40), Some(at(50))), Some(2));
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
    let mut table = Table::new(Generation::new(0));
    let subject = subject(1);
    let hash = halves(subject.hash_code()).0;
    let at = Timestamp::from_unix_seconds;
    assert_eq!(add(&mut table, cell(0, 10), Some(at(9))), Some(0));
    assert_eq!(add(&mut table, cell(1, 40), Some(at(12))), Some(1));
    let cells = table.find(hash, &subject).map(|found| table.cells(found)).unwrap();
    assert_eq!(cells.iter().map(Cell::expires_at).collect::<Vec<_>>(), [at(40)]);
    assert_eq!(table.horizon(), Some(at(10)));
}

#[test]
fn reports_the_horizon_of_relevant_charges() {
    let mut table = Table::new(Generation::new(0));
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
