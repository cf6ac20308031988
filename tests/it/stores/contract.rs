//! The suite that every store must pass, over all stores; and what the counters promise, held
//! against a judge.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;

use proptest::prelude::*;
use toolgate::charge::{Charge, CounterId, Meter, Span, Subject};
use toolgate::store::conformance::{self, Suite};
use toolgate::store::{
    AsyncCounterStore, ChargeChange, Counter, CounterStore, InProcess, LeasedStore, MemoryStore, Outcome,
    ReservationId, ReserveRequest, SettleRequest, StoreError,
};
use toolgate::{Amount, Timestamp};

use crate::counting::naive_store::Naive;
use crate::stores::faulty_stores::block_on;

fn passes<S: CounterStore>(store: S) {
    if let Err(failures) = conformance::check(store) {
        panic!("{failures}");
    }
}

#[test]
fn the_memory_store_passes_the_suite() {
    passes(MemoryStore::new());
}

/// Itself, shared, or as a trait object, of either trait.
#[test]
fn a_store_passes_the_suite_through_pointers() {
    let own = MemoryStore::new();
    passes(&own);
    passes(Box::new(MemoryStore::new()));
    passes(Box::new(MemoryStore::new()) as Box<dyn CounterStore>);
    let shared: Arc<dyn CounterStore> = Arc::new(MemoryStore::new());
    passes(Arc::clone(&shared));
    passes(shared);
    // It begins where the caller says, and a store that has seen one run is ready for the next.
    let suite = Suite::new("2031-05-05T05:05:05.000001Z".parse().unwrap());
    let boxed: Box<dyn AsyncCounterStore> = Box::new(InProcess(MemoryStore::new()));
    let arced: Arc<dyn AsyncCounterStore> = Arc::new(InProcess(Box::new(MemoryStore::new()) as Box<dyn CounterStore>));
    for suite in [suite, suite.years(false), suite.flood(10)] {
        for store in [&boxed as &dyn AsyncCounterStore, &arced] {
            let passed = block_on(suite.run(store)).unwrap_or_else(|failures| panic!("{failures}"));
            assert_eq!(passed, suite.cases());
        }
    }
    for seed in 0..5 {
        block_on(suite.compare(&boxed, &arced, seed, 300)).unwrap();
    }
}

/// A node that takes slices of counters in advance is a store like any other.
#[test]
fn a_leased_store_passes_the_suite() {
    let suite = Suite::new("2026-01-15T10:30:00Z".parse().unwrap());
    let leased = LeasedStore::new(InProcess(MemoryStore::new()));
    let passed = block_on(suite.run(&leased)).unwrap_or_else(|failures| panic!("{failures}"));
    assert_eq!(passed, suite.cases());
}

/// Threads on one counter, grant by grant: what a grant has counted is its place in the order of
/// all.
#[test]
fn threads_that_meet_on_one_counter_are_counted_one_by_one() {
    const THREADS: usize = 4;
    const MAX: u64 = 2000;
    let meters = [
        Meter::Fixed(Span { start: at(0), end: at(60) }),
        Meter::Sliding { seconds: 60 },
        Meter::TokenBucket { refill: Amount::ONE, seconds: 60 },
        Meter::InFlight { lease: 60 },
    ];
    let mut changed_hands = 0;
    // As often as it takes to see them meet; a round in which they do not shows nothing.
    for round in 0..400 {
        let store = MemoryStore::new();
        let charges = [charge(meters[round % 4], Amount::ONE, Some(units(MAX)))];
        let start = Barrier::new(THREADS);
        let places = |thread: usize| {
            start.wait();
            let calls = (0..MAX).map(|call| ReservationId::new(u128::from(call) << 8 | thread as u128));
            let outcomes = calls.map(|id| store.reserve(&ReserveRequest::new(id, at(1), &charges)).unwrap());
            let granted = outcomes.filter_map(|outcome| match outcome {
                Outcome::Granted(tallies) => Some(tallies[0].used.micros() / 1_000_000),
                Outcome::Refused(_) => None,
            });
            granted.map(|place| (place, thread)).collect::<Vec<_>>()
        };
        let mut all: Vec<(u64, usize)> = thread::scope(|scope| {
            let places = &places;
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || places(thread))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        assert!(all.iter().map(|(place, _)| *place).eq(1..=MAX), "each place is given once, and none above max");
        changed_hands += all.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
        if round >= 8 && changed_hands > 100 {
            return;
        }
    }
    panic!("the counter changed hands {changed_hands} times only: the test shows nothing");
}

/// The example is what a stranger begins with.
#[test]
fn a_store_of_ones_own_takes_under_sixty_lines() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/custom_store.rs");
    let text = fs::read_to_string(path).unwrap();
    let code = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let lines = code.count();
    assert!(lines < 60, "{lines} lines");
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

#[test]
fn a_subject_of_any_bytes_is_as_long_as_those_of_policies_at_most() {
    let of = |length: usize| Subject::from_bytes(&vec![b'x'; length]);
    assert_eq!(of(128).as_bytes(), [b'x'; 128]);
    assert!(of(129).as_bytes().len() <= 128);
    assert_ne!(of(129), of(130));
}

/// A full store is swept for a look at a new counter, too; and what has ended of a subject goes
/// when another counter of it comes, once more are held than are kept.
#[test]
fn what_has_ended_makes_room_in_its_own_row() {
    let of = |name: &str, start: i64| {
        let meter = Meter::Fixed(Span { start: at(start), end: at(start + 60) });
        Charge::new(CounterId::named(name), Subject::default(), Amount::ONE, None, meter)
    };
    let (ended, new) = ([of("a", 0)], [of("b", 120)]);
    let request = |charges| ReserveRequest::new(ReservationId::new(1), at(121), charges);
    let holding_one = |capacity| {
        let store = MemoryStore::with_capacity(capacity);
        store.reserve(&ReserveRequest::new(ReservationId::new(0), at(1), &ended)).unwrap();
        store
    };
    let full = holding_one(1);
    assert!(matches!(full.peek(&request(&new)), Ok(Outcome::Granted(_))));
    assert!(full.is_empty(), "a look adds nothing");
    let kept = holding_one(2);
    assert!(matches!(kept.reserve(&request(&new)), Ok(Outcome::Granted(_))));
    assert_eq!(kept.len(), 1);
}

/// A store that counts fewer than it holds takes more than its capacity.
#[test]
fn a_counter_that_goes_and_comes_again_in_one_call_is_counted() {
    let of = |name: &str, subject: &[u8], start: i64, seconds: i64| {
        let meter = Meter::Fixed(Span { start: at(start), end: at(start + seconds) });
        Charge::new(CounterId::named(name), Subject::from_bytes(subject), Amount::ONE, None, meter)
    };
    let store = MemoryStore::with_capacity(8);
    let reserve = |second, charges: &[Charge]| {
        assert!(matches!(
            store.reserve(&ReserveRequest::new(ReservationId::new(0), at(second), charges)),
            Ok(Outcome::Granted(_))
        ));
    };
    for other in 0..5 {
        reserve(1, &[of("day", &[other], 0, 86_400)]);
    }
    reserve(1, &[of("minute", b"s", 0, 60), of("day", b"s", 0, 86_400)]);
    reserve(121, &[of("new", b"s", 120, 60), of("minute", b"s", 120, 60)]);
    assert_eq!((store.len(), store.snapshot().len()), (8, 8));
}

proptest! {
    /// Whatever comes and goes, in rows of one counter and of several.
    #[test]
    fn a_store_knows_how_many_counters_it_holds(
        calls in prop::collection::vec((0..4u8, prop::collection::btree_set(0..6u8, 1..4), any::<bool>(), 0..90i64, 0..4u8), 1..60),
    ) {
        let store = MemoryStore::with_capacity(10);
        let mut now = 0;
        for (subject, counters, is_reversed, wait, then) in calls {
            now += wait;
            let of = |number: &u8| {
                let seconds = [10, 60, 3600][usize::from(number % 3)];
                let start = now - now % seconds;
                let meter = match number {
                    0..3 => Meter::Fixed(Span { start: at(start), end: at(start + seconds) }),
                    3 => Meter::Sliding { seconds: 10 },
                    4 => Meter::TokenBucket { refill: units(60), seconds: 60 },
                    _ => Meter::InFlight { lease: 10 },
                };
                Charge::new(CounterId::named(&number.to_string()), Subject::from_bytes(&[subject]), units(u64::from(then / 2)), None, meter)
            };
            let mut charges: Vec<_> = counters.iter().map(of).collect();
            if is_reversed {
                charges.reverse();
            }
            match store.reserve(&ReserveRequest::new(ReservationId::new(0), at(now), &charges)) {
                Ok(Outcome::Granted(tallies)) if then > 0 => {
                    let settled = charges.iter().zip(&tallies);
                    let settled: Vec<_> =
                        settled.map(|(charge, tally)| ChargeChange::new(charge, tally.charged_at, units(1))).collect();
                    store.settle(&SettleRequest::new(ReservationId::new(0), 1, at(now + i64::from(then) * 8), &settled)).unwrap();
                }
                Ok(_) => {}
                Err(error) => prop_assert!(matches!(error, StoreError::Full { .. }), "{error}"),
            }
            prop_assert_eq!(store.len(), store.snapshot().len());
        }
    }
}

/// A bucket of one a second, of which the store forgets that one was taken.
fn forgotten_bucket() -> (MemoryStore, Charge) {
    let bucket = charge(Meter::TokenBucket { refill: units(60), seconds: 60 }, Amount::ONE, Some(units(100)));
    let of = |name: &str| {
        let meter = Meter::Fixed(Span { start: at(0), end: at(86_400) });
        Charge::new(CounterId::named(name), Subject::default(), Amount::ONE, None, meter)
    };
    let store = MemoryStore::with_capacity(4);
    for (second, charge) in [(0, bucket.clone()), (1, of("d1")), (1, of("d2")), (100, of("d3"))] {
        store.reserve(&ReserveRequest::new(ReservationId::new(0), at(second), &[charge])).unwrap();
    }
    assert_eq!(store.len(), 3, "the bucket is full again, and is not kept");
    (store, bucket)
}

#[test]
fn a_bucket_that_was_forgotten_owes_what_is_settled_late() {
    // Also by a clock that has stepped back to where all is forgotten.
    for (second, used) in [(100, 49), (0, 49), (140, 9)] {
        let (store, bucket) = forgotten_bucket();
        let settled = [ChargeChange::new(&bucket, at(0), units(50))];
        let now = at(if second == 140 { 100 } else { second });
        store.settle(&SettleRequest::new(ReservationId::new(0), 1, now, &settled)).unwrap();
        let looked = [charge(bucket.meter, Amount::ZERO, None)];
        let tallies = store.peek(&ReserveRequest::new(ReservationId::new(0), at(second), &looked)).unwrap();
        assert_eq!(tallies.tallies()[0].used.micros(), units(used).micros(), "{second}");
        assert_eq!((store.len(), store.snapshot().len()), (4, 4));
    }
    // What is given back late, is there already.
    let (store, bucket) = forgotten_bucket();
    let settled = [ChargeChange::new(&bucket, at(0), Amount::ZERO)];
    store.settle(&SettleRequest::new(ReservationId::new(0), 1, at(100), &settled)).unwrap();
    assert_eq!(store.len(), 3);
}

/// What has happened is recorded in a full store too, and once: a settlement in part would be made
/// again.
#[test]
fn a_full_store_settles_whole() {
    let store = MemoryStore::with_capacity(2);
    let day = Meter::Fixed(Span { start: at(0), end: at(86_400) });
    let of = |name: &str, subject: &[u8], meter, amount| {
        Charge::new(CounterId::named(name), Subject::from_bytes(subject), amount, None, meter)
    };
    let flight = of("flight", b"s", Meter::InFlight { lease: 60 }, Amount::ZERO);
    let charges = [of("day", b"s", day, units(10)), flight.clone()];
    let id = ReservationId::new(0);
    let places = store.reserve(&ReserveRequest::new(id, at(0), &charges)).unwrap().tallies().clone();
    store.reset(flight.counter, &flight.subject).unwrap();
    store.reserve(&ReserveRequest::new(id, at(0), &[of("day", b"other", day, Amount::ONE)])).unwrap();
    let settled: Vec<_> = charges
        .iter()
        .zip(&places)
        .map(|(charge, tally)| ChargeChange::new(charge, tally.charged_at, units(3)))
        .collect();
    store.settle(&SettleRequest::new(id, 1, at(1), &settled)).unwrap();
    let used = store.peek(&ReserveRequest::new(id, at(1), &charges)).unwrap();
    assert_eq!(used.tallies().iter().map(|tally| tally.used.micros()).collect::<Vec<_>>(), [3_000_000; 2]);
}
