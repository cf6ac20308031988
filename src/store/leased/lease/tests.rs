//! Tests of leases.

use super::*;
use crate::charge::{CounterId, Subject};

const TERMS: Terms = Terms { share: 16, calls: 1_024, idle: Duration::from_secs(5) };

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros)
}

fn window(minute: i64) -> Span {
    Span { start: Timestamp::from_unix_seconds(60 * minute), end: Timestamp::from_unix_seconds(60 * minute + 60) }
}

fn amount(micros: u64) -> Amount {
    Amount::from_micros(micros).unwrap()
}

fn charge(micros: u64, max: impl Into<Option<u64>>) -> Charge {
    let (counter, subject, meter) = (CounterId::of(["c"]), Subject::default(), Meter::Fixed(window(0)));
    Charge { counter, subject, amount: amount(micros), max: max.into().map(amount), meter }
}

/// Returns where the inner store charges, in a generation of its counter.
fn charged_at(instant: Timestamp, generation: u64) -> ChargedAt {
    ChargedAt { instant, generation: Generation::new(generation) }
}

fn tally(minute: i64, used: u64) -> Tally {
    let Span { start, end } = window(minute);
    Tally { used: Total::from_micros(used), resets_at: end, retry_at: None, charged_at: charged_at(start, 1) }
}

/// Makes a lease in the first minute with a known total, of which `left` is left of one slice.
fn lease(known: u64, left: u64) -> Lease {
    let mut lease = Lease::new(window(0), at(0));
    assert!(lease.note(&tally(0, known), 0));
    lease.add(ReservationId::new(1), amount(left), left);
    lease
}

#[test]
fn slices_grow_if_used_up_soon_and_shrink_if_not() {
    let mut lease = Lease::new(window(0), at(0));
    let mut now = 0;
    for (wait, size) in [
        (0, Some(20)),
        (0, Some(40)),
        (1_000_000, Some(80)),
        (1_000_001, Some(80)),
        (2_000_000, Some(80)),
        (4_000_000, Some(80)),
        (4_000_001, Some(40)),
        (9_000_000, Some(20)),
        (9_000_000, None),
        (0, Some(20)),
    ] {
        now += wait;
        let asked = lease.begin_request(&charge(10, 100_000), window(0), at(now), &TERMS);
        assert_eq!(asked.map(Amount::micros), size, "after {wait}");
        assert_eq!(lease.requesting, size.is_some());
        // While one call requests a slice, no other does, and nothing grows.
        if size.is_some() {
            assert_eq!(lease.begin_request(&charge(10, 100_000), window(0), at(now), &TERMS), None);
        }
        lease.end_request();
    }
    lease.reset_target();
    let asked = lease.begin_request(&charge(10, 100_000), window(0), at(now), &TERMS);
    assert_eq!(asked.map(Amount::micros), Some(20), "it starts anew");
}

#[test]
fn slices_are_bounded_by_share_and_by_calls() {
    let ask = |known: u64, minute: i64, terms: &Terms, charge: &Charge| {
        let mut lease = lease(known, 0);
        (lease.requesting, lease.target) = (false, 1_000_000);
        lease.begin_request(charge, window(minute), at(0), terms).map(Amount::micros)
    };
    let few = Terms { calls: 3, ..TERMS };
    for (known, minute, terms, charge, size) in [
        (50_000, 0, &TERMS, charge(1_000, 100_000), Some(3_125)),
        (50_000, 1, &TERMS, charge(1_000, 100_000), Some(6_250)),
        (50_000, 0, &TERMS, charge(3_124, 100_000), Some(3_125)),
        (50_000, 0, &TERMS, charge(3_125, 100_000), None),
        (100_001, 0, &TERMS, charge(0, 100_000), None),
        (50_000, 0, &few, charge(1_000, 100_000), Some(3_000)),
        (50_000, 0, &few, charge(1_000, None), Some(3_000)),
    ] {
        assert_eq!(ask(known, minute, terms, &charge), size, "{known} {minute} {charge:?}");
    }
}

#[test]
fn covers_only_charges_with_a_maximum_above_the_ceiling() {
    let lease = lease(100, 30);
    for (amount, max, minute, covered) in [
        (30, Some(100), 0, true),
        (31, Some(100), 0, false),
        (30, Some(99), 0, false),
        (30, None, 0, true),
        (0, Some(0), 0, false),
        (1, Some(100), -1, true),
        (1, Some(100), 1, false),
    ] {
        assert_eq!(lease.covers(&charge(amount, max), window(minute)), covered, "{amount} {max:?} {minute}");
    }
    assert!(!self::lease(100, 0).covers(&charge(0, 100), window(0)), "nothing is left");
    assert!(lease.may_fit(&charge(0, 100)) && lease.may_fit(&charge(1, None)));
    assert!(!lease.may_fit(&charge(1, 100)) && lease.may_fit(&charge(1, 101)));
}

#[test]
fn notes_the_latest_answer_of_the_store() {
    let mut lease = lease(100, 30);
    assert_eq!((lease.revision(), lease.known, lease.left()), (1, 100, 30));
    // An answer that another has overtaken lowers nothing.
    assert!(lease.note(&tally(0, 80), 0));
    assert_eq!((lease.revision(), lease.known, lease.ceiling), (2, 100, 100));
    assert!(lease.note(&tally(0, 120), 0));
    assert_eq!((lease.revision(), lease.known, lease.ceiling), (3, 120, 120));
    assert!(lease.note(&tally(0, 90), 3));
    assert_eq!((lease.revision(), lease.known, lease.ceiling, lease.left()), (4, 90, 90, 30));
    // The store may hold exactly what is left. If its counter has begun anew, what was reserved is
    // no longer counted.
    assert!(lease.note(&tally(0, 30), 4));
    assert_eq!((lease.known, lease.left(), lease.slices.len()), (30, 30, 1));
    let anew = |used| Tally { charged_at: charged_at(window(0).start, 2), ..tally(0, used) };
    assert!(lease.note(&anew(29), 5));
    assert_eq!((lease.known, lease.left(), lease.slices.len()), (29, 0, 0));
    lease.credit(charged_at(window(0).start, 1), amount(9));
    assert_eq!(lease.left(), 0, "a charge of the earlier generation gives nothing back");
    lease.credit(charged_at(window(0).start, 2), amount(9));
    assert_eq!(lease.left(), 9);
    assert!(lease.note(&tally(0, 29), 0), "an answer from before, which comes late");
    assert_eq!(lease.left(), 0);
    assert!(lease.note(&anew(29), 7));
    // An earlier window changes nothing; a later one begins with nothing left.
    assert!(!lease.note(&tally(-1, 7), 8));
    assert_eq!((lease.revision(), lease.known, lease.window()), (8, 29, window(0)));
    let mut lease = self::lease(100, 30);
    assert!(lease.note(&tally(1, 7), 1));
    assert_eq!((lease.known, lease.left(), lease.window()), (7, 0, window(1)));
}

#[test]
fn notes_a_refusal_only_in_the_same_window() {
    let mut lease = lease(100, 30);
    for minute in [-1, 1] {
        lease.note_refused(&tally(minute, 7), 1);
        assert_eq!((lease.revision(), lease.known, lease.window()), (1, 100, window(0)));
    }
    lease.note_refused(&tally(0, 70), 1);
    assert_eq!((lease.revision(), lease.known, lease.window()), (2, 70, window(0)));
}

#[test]
fn notes_the_changes_of_settlements() {
    let mut lease = lease(100, 30);
    lease.changed(charged_at(window(0).start, 1), amount(10), amount(4));
    assert_eq!((lease.known, lease.ceiling, lease.left(), lease.revision()), (94, 100, 30, 2));
    lease.changed(charged_at(window(0).start, 1), amount(10), amount(25));
    assert_eq!((lease.known, lease.ceiling, lease.revision()), (109, 109, 3));
    lease.changed(charged_at(window(0).start, 1), amount(100), amount(0));
    assert_eq!((lease.known, lease.ceiling), (30, 109), "what is left is reserved there");
    lease.changed(charged_at(window(1).start, 1), amount(0), amount(9));
    assert_eq!((lease.known, lease.revision()), (30, 4));
}

#[test]
fn keeps_up_to_two_slices_of_what_comes_back() {
    let mut lease = lease(100, 30);
    lease.target = 20;
    for (minute, amount, kept) in [(0, 10, true), (0, 11, false), (-1, 99, true), (1, 1, false)] {
        assert_eq!(lease.keeps(charged_at(window(minute).start, 1), self::amount(amount)), kept, "{minute} {amount}");
    }
    assert_eq!(lease.excess(), 0);
    lease.target = 12;
    assert_eq!(lease.excess(), 6);
}

#[test]
fn returns_the_newest_slices_first() {
    let mut lease = lease(100, 10);
    lease.add(ReservationId::new(2), amount(20), 20);
    let name = Charge { meter: Meter::Fixed(window(7)), ..charge(0, None) };
    assert!(lease.take(0, &name).is_empty());
    let returned = lease.take(25, &name);
    let found: Vec<_> = returned.iter().map(|it| (it.id.get(), it.charge.amount.micros(), it.to.micros())).collect();
    assert_eq!(found, [(2, 20, 0), (1, 10, 5)]);
    for returned in &returned {
        assert_eq!((returned.charge.meter, returned.at), (Meter::Fixed(window(0)), charged_at(window(0).start, 1)));
    }
    assert_eq!((lease.left(), lease.known, lease.ceiling, lease.slices.len()), (5, 75, 75, 1));
    assert_eq!(lease.take(99, &name).len(), 1);
    assert_eq!((lease.left(), lease.known, lease.slices.len()), (0, 70, 0));
}
