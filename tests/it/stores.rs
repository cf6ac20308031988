//! The suite that every store must pass, over all stores; and what the counters promise, held against a judge.

use toolgate::charge::{Charge, CounterId, Meter, Span, Subject};
use toolgate::store::conformance;
use toolgate::store::{Counter, CounterStore, MemoryStore};
use toolgate::{Amount, Timestamp};

use crate::naive::Naive;

fn passes<S: CounterStore>(store: S) {
    if let Err(failures) = conformance::check(store) {
        panic!("{failures}");
    }
}

#[test]
fn the_memory_store_passes_the_suite() {
    passes(MemoryStore::new());
}

#[test]
fn the_naive_store_passes_the_suite() {
    passes(Naive::default());
}

#[test]
fn equal_histories_have_equal_answers() {
    for seed in 0..40 {
        if let Err(failure) = conformance::compare(MemoryStore::new(), Naive::default(), seed, 400) {
            panic!("{failure}");
        }
    }
}

fn units(units: u64) -> Amount {
    Amount::from_micros(units * 1_000_000).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn charge(meter: Meter, amount: Amount, max: Option<Amount>) -> Charge {
    Charge::new(CounterId::named("c"), Subject::default(), amount, max, meter)
}

#[test]
fn what_never_fits_is_told_to_wait_for_nothing() {
    let minute = Meter::Fixed(Span { start: at(0), end: at(60) });
    let dry = Meter::TokenBucket { refill: Amount::ZERO, seconds: 1 };
    for (meter, amount, max) in [(minute, 2, 1), (minute, 0, 0), (dry, 2, 2)] {
        let charge = charge(meter, units(amount), Some(units(max)));
        let mut counter = Counter::new(&meter);
        counter.charge(&self::charge(meter, Amount::ONE, None), at(1)).unwrap();
        assert_eq!(counter.tally(&charge, at(1)).unwrap().retry_at, None, "{charge:?}");
    }
}

/// An end that is told twice frees what its own unit holds at most, and nothing of the others.
#[test]
fn ends_told_twice_free_nothing_that_others_hold() {
    let meter = Meter::InFlight { lease: 60 };
    let of = |amount: u64| charge(meter, units(amount), Some(units(100)));
    let mut counter = Counter::new(&meter);
    counter.charge(&of(10), at(0)).unwrap();
    let together = counter.charge(&of(5), at(1)).unwrap().charged_at;
    counter.charge(&of(1), at(1)).unwrap();
    for _ in 0..2 {
        counter.settle(&of(5), together, Amount::ZERO, at(2)).unwrap();
    }
    assert_eq!(counter.tally(&of(1), at(2)).unwrap().used.micros(), units(10).micros());
}

/// A store that keeps counters as text must be able to read what it wrote.
#[test]
fn a_counter_that_was_full_to_the_brim_is_read_back() {
    let meter = Meter::InFlight { lease: 60 };
    let largest = charge(meter, Amount::MAX, None);
    let mut counter = Counter::new(&meter);
    let places: Vec<_> = (0..3).map(|second| counter.charge(&largest, at(second)).unwrap().charged_at).collect();
    counter.settle(&largest, places[0], Amount::ZERO, at(3)).unwrap();
    let text = serde_json::to_string(&counter).unwrap();
    assert_eq!(serde_json::from_str::<Counter>(&text).unwrap(), counter);
    assert_eq!(counter.tally(&largest, at(3)).unwrap().used.micros(), 2 * Amount::MAX.micros());
}
