//! The memory store and its counters: capacity, expiry, settlements and racing threads.

use std::sync::Barrier;
use std::thread;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use toolgate::charge::{Asker, Charge, CounterId, Meter, Span, Subject};
use toolgate::store::{
    ChargeChange, ChargedAt, Counter, CounterStore, MemoryStore, Outcome, ReservationId, ReserveRequest, SettleRequest,
    StoreError,
};
use toolgate::{Amount, Identity, Timestamp};

fn units(units: u64) -> Amount {
    Amount::from_micros(units * 1_000_000).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn charge(meter: Meter, amount: Amount, max: Option<Amount>) -> Charge {
    Charge::new(CounterId::named("c"), Subject::default(), amount, max, meter)
}

/// The used amount that each grant reports is its place in the order of all.
#[test]
fn racing_threads_get_distinct_places_on_one_counter() {
    const THREADS: usize = 4;
    const MAX: u64 = 2000;
    let meters = [
        Meter::Fixed(Span { start: at(0), end: at(60) }),
        Meter::Sliding { seconds: 60 },
        Meter::TokenBucket { refill: Amount::ONE, seconds: 60 },
        Meter::InFlight { lease: 60 },
    ];
    let mut changed_hands = 0;
    // Repeats until the threads have raced; a round in which they do not shows nothing.
    for round in 0..400 {
        let store = MemoryStore::new();
        let charges = [charge(meters[round % 4], Amount::ONE, Some(units(MAX)))];
        let start = Barrier::new(THREADS);
        let places = |thread: usize| {
            start.wait();
            let calls = (0..MAX).map(|call| ReservationId::new(u128::from(call) << 8 | thread as u128));
            let outcomes = calls.map(|id| {
                // On a busy machine a thread would make all of its calls at once.
                if id.get() >> 8 & 15 == 0 {
                    thread::yield_now();
                }
                store.reserve(&ReserveRequest::new(id, at(1), &charges)).unwrap()
            });
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
    panic!("the threads raced only {changed_hands} times: the test shows nothing");
}

#[test]
fn a_charge_that_never_fits_has_no_retry_time() {
    let minute = Meter::Fixed(Span { start: at(0), end: at(60) });
    let dry = Meter::TokenBucket { refill: Amount::ZERO, seconds: 1 };
    for (meter, amount, max) in [(minute, 2, 1), (minute, 0, 0), (dry, 2, 2)] {
        let charge = charge(meter, units(amount), Some(units(max)));
        let mut counter = Counter::new(&meter);
        counter.charge(&self::charge(meter, Amount::ONE, None), at(1)).unwrap();
        assert_eq!(counter.tally(&charge, at(1)).unwrap().retry_at, None, "{charge:?}");
    }
}

/// An end that is reported twice frees at most its own units.
#[test]
fn a_repeated_end_frees_no_units_of_other_calls() {
    let meter = Meter::InFlight { lease: 60 };
    let of = |amount: u64| charge(meter, units(amount), Some(units(100)));
    let mut counter = Counter::new(&meter);
    counter.charge(&of(10), at(0)).unwrap();
    let together = counter.charge(&of(5), at(1)).unwrap().charged_at;
    counter.charge(&of(1), at(1)).unwrap();
    for _ in 0..2 {
        counter.settle(&ChargeChange::new(&of(5), together, Amount::ZERO), at(2)).unwrap();
    }
    assert_eq!(counter.tally(&of(1), at(2)).unwrap().used.micros(), units(10).micros());
}

/// A store that keeps counters as text must be able to read what it wrote.
#[test]
fn a_saturated_counter_parses_back() {
    let meter = Meter::InFlight { lease: 60 };
    let largest = charge(meter, Amount::MAX, None);
    let mut counter = Counter::new(&meter);
    let places: Vec<_> = (0..3).map(|second| counter.charge(&largest, at(second)).unwrap().charged_at).collect();
    counter.settle(&ChargeChange::new(&largest, places[0], Amount::ZERO), at(3)).unwrap();
    let text = serde_json::to_string(&counter).unwrap();
    assert_eq!(serde_json::from_str::<Counter>(&text).unwrap(), counter);
    assert_eq!(counter.tally(&largest, at(3)).unwrap().used.micros(), 2 * Amount::MAX.micros());
}

#[test]
fn a_subject_has_at_most_128_bytes() {
    let of = |length: usize| Subject::from_bytes(&vec![b'x'; length]);
    assert_eq!(of(128).as_bytes(), [b'x'; 128]);
    assert!(of(129).as_bytes().len() <= 128);
    assert_ne!(of(129), of(130));
}

/// A peek at a new counter sweeps a full store too. Expired counters of a subject are removed when
/// a new counter of it is added beyond the number that is kept.
#[test]
fn expired_counters_of_a_subject_make_room() {
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
    assert!(full.is_empty(), "a peek adds nothing");
    let kept = holding_one(2);
    assert!(matches!(kept.reserve(&request(&new)), Ok(Outcome::Granted(_))));
    assert_eq!(kept.len(), 1);
}

/// A store that miscounts its counters would exceed its capacity.
#[test]
fn a_counter_that_is_replaced_in_one_call_is_counted() {
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
    /// Counters come and go, in rows of one counter and of several.
    #[test]
    fn len_is_the_number_of_counters(
        calls in vec((0..4u8, btree_set(0..6u8, 1..4), any::<bool>(), 0..90i64, 0..4u8), 1..60),
    ) {
        let store = MemoryStore::with_capacity(10).counters_per_asker(8);
        let askers = ["a", "b"].map(|name| Asker::new((Identity::Grant, name)));
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
                let counter = CounterId::named(&number.to_string());
                Charge::new(counter, Subject::from_bytes(&[subject]), units(u64::from(then / 2)), None, meter)
            };
            let mut charges: Vec<_> = counters.iter().map(of).collect();
            if is_reversed {
                charges.reverse();
            }
            // A subject may be counted by either asker, and stays with the one that began it.
            let asker = askers[usize::from(subject / 2 + then) % 2];
            match store.reserve(&ReserveRequest::new(ReservationId::new(0), at(now), &charges).by(asker)) {
                Ok(Outcome::Granted(tallies)) if then > 0 => {
                    let settled = charges.iter().zip(&tallies);
                    let settled: Vec<_> =
                        settled.map(|(charge, tally)| ChargeChange::new(charge, tally.charged_at, units(1))).collect();
                    let later = at(now + i64::from(then) * 8);
                    store.settle(&SettleRequest::new(ReservationId::new(0), 1, later, &settled)).unwrap();
                }
                Ok(_) => {}
                Err(error) => {
                    let is_full = matches!(error, StoreError::Full { .. } | StoreError::ShareFull { share: 8 });
                    prop_assert!(is_full, "{error}");
                }
            }
            let snapshot = serde_json::to_value(store.snapshot()).unwrap();
            let keys: Vec<_> = snapshot["askers"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
            for asker in askers {
                let key = serde_json::to_value(asker.key()).unwrap();
                let number = keys.iter().position(|known| *known == key).map_or(u64::MAX, |index| index as u64 + 1);
                let kept = snapshot["counters"].as_array().unwrap().iter();
                let own = kept.filter(|kept| kept["asker"] == number).count();
                prop_assert_eq!(store.len_of(asker), own);
            }
            prop_assert_eq!(store.len(), store.snapshot().len());
        }
    }
}

/// A bucket that refills one unit a second, and that the store has forgotten after a charge of one.
fn forgotten_bucket() -> (MemoryStore, Charge, ChargedAt) {
    let bucket = charge(Meter::TokenBucket { refill: units(60), seconds: 60 }, Amount::ONE, Some(units(100)));
    let of = |name: &str| {
        let meter = Meter::Fixed(Span { start: at(0), end: at(86_400) });
        Charge::new(CounterId::named(name), Subject::default(), Amount::ONE, None, meter)
    };
    let store = MemoryStore::with_capacity(4);
    let made = [(0, bucket.clone()), (1, of("d1")), (1, of("d2")), (100, of("d3"))].map(|(second, charge)| {
        let made = store.reserve(&ReserveRequest::new(ReservationId::new(0), at(second), &[charge])).unwrap();
        made.tallies()[0].charged_at
    });
    assert_eq!(store.len(), 3, "the bucket is full again, so it is dropped");
    (store, bucket, made[0])
}

#[test]
fn a_forgotten_bucket_owes_a_late_settlement() {
    // Also if the clock has stepped back to a time before the bucket was dropped.
    for (second, used) in [(100, 49), (0, 49), (140, 9)] {
        let (store, bucket, made) = forgotten_bucket();
        let settled = [ChargeChange::new(&bucket, made, units(50))];
        let now = at(if second == 140 { 100 } else { second });
        store.settle(&SettleRequest::new(ReservationId::new(0), 1, now, &settled)).unwrap();
        let looked = [charge(bucket.meter, Amount::ZERO, None)];
        let tallies = store.peek(&ReserveRequest::new(ReservationId::new(0), at(second), &looked)).unwrap();
        assert_eq!(tallies.tallies()[0].used.micros(), units(used).micros(), "{second}");
        assert_eq!((store.len(), store.snapshot().len()), (4, 4));
    }
    // A late release has no effect, since the bucket is full.
    let (store, bucket, made) = forgotten_bucket();
    let settled = [ChargeChange::new(&bucket, made, Amount::ZERO)];
    store.settle(&SettleRequest::new(ReservationId::new(0), 1, at(100), &settled)).unwrap();
    assert_eq!(store.len(), 3);
}

/// A full store records the whole settlement: after a partial one, the host would settle again.
#[test]
fn a_full_store_settles_every_charge() {
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

/// A charge of one unit to the counter of a subject in the window of a minute.
fn minute(subject: u32, minute: i64) -> [Charge; 1] {
    let window = Span { start: at(minute * 60), end: at(minute * 60 + 60) };
    let subject = Subject::from_bytes(&subject.to_le_bytes());
    [Charge::new(CounterId::named("c"), subject, Amount::ONE, Some(units(9)), Meter::Fixed(window))]
}

#[test]
fn one_asker_gets_its_share_and_no_more() {
    let store = MemoryStore::with_capacity(64);
    let [eve, ann] = [Some("eve"), Some("ann")].map(|name| Asker::new(name.map(|name| (Identity::Grant, name))));
    let nobody = Asker::new(None);
    let ask = |store: &MemoryStore, asker: Asker<'_>, subject, time: i64| {
        let charges = minute(subject, time / 60);
        let request = ReserveRequest::new(ReservationId::new(0), at(time), &charges).by(asker);
        let peeked = store.peek(&request).map(|_| ());
        let reserved = store.reserve(&request).map(|_| ());
        assert_eq!(peeked.is_ok(), reserved.is_ok());
        reserved.map_err(|error| error.to_string())
    };
    let full = Err("this caller has too many counters: one caller can have 4 at once".to_owned());
    assert!((0..4).all(|subject| ask(&store, eve, subject, 0).is_ok()));
    assert_eq!(ask(&store, eve, 4, 0), full);
    assert_eq!((store.len(), store.len_of(eve)), (4, 4));
    // Others are served, known counters too, and whoever has no identity is one asker.
    assert!((0..4).all(|subject| ask(&store, eve, subject, 1).is_ok()));
    assert!((10..14).all(|subject| ask(&store, ann, subject, 1).is_ok()));
    assert!((20..24).all(|subject| ask(&store, nobody, subject, 1).is_ok()));
    assert_eq!((ask(&store, nobody, 24, 1), ask(&store, ann, 14, 1)), (full.clone(), full.clone()));
    // A snapshot keeps who has them.
    let text = serde_json::to_string(&store.snapshot()).unwrap();
    let restored = MemoryStore::restore(serde_json::from_str(&text).unwrap(), 64).unwrap();
    assert_eq!((ask(&restored, eve, 4, 1), ask(&restored, eve, 3, 1)), (full.clone(), Ok(())));
    assert_eq!([eve, ann, nobody].map(|asker| restored.len_of(asker)), [4; 3]);
    let unknown = text.replace("\"askers\":[", "\"askers\":[],\"gone\":[");
    assert!(serde_json::from_str::<toolgate::store::Snapshot>(&unknown).is_err());
    let mut unknown: serde_json::Value = serde_json::from_str(&text).unwrap();
    unknown["askers"].as_array_mut().unwrap().pop();
    let unknown = MemoryStore::restore(serde_json::from_value(unknown).unwrap(), 64).unwrap_err();
    assert_eq!(unknown.to_string(), "the snapshot has a counter of an unknown asker");
    // Before askers were kept, there were none.
    let mut former: serde_json::Value = serde_json::from_str(&text).unwrap();
    former.as_object_mut().unwrap().remove("askers");
    former["counters"].as_array_mut().unwrap().iter_mut().for_each(|kept| {
        kept.as_object_mut().unwrap().remove("asker");
    });
    let former = MemoryStore::restore(serde_json::from_value(former).unwrap(), 64).unwrap();
    assert_eq!((former.len(), former.len_of(eve), ask(&former, eve, 4, 1)), (12, 0, Ok(())));
    // A reset makes room, and so does the end of the windows.
    store.reset(CounterId::named("c"), &minute(0, 0)[0].subject).unwrap();
    assert_eq!((ask(&store, eve, 4, 1), ask(&store, eve, 5, 1)), (Ok(()), full.clone()));
    assert!((30..34).all(|subject| ask(&store, eve, subject, 62).is_ok()));
    assert_eq!((store.len_of(eve), ask(&store, eve, 34, 62)), (4, full));
    let wide = MemoryStore::with_capacity(64).counters_per_asker(64);
    assert!((0..64).all(|subject| ask(&wide, eve, subject, 0).is_ok()));
}

#[test]
fn charges_before_a_snapshot_change_nothing_after_it() {
    let store = MemoryStore::with_capacity(8);
    let charges = minute(1, 0);
    let made = store.reserve(&ReserveRequest::new(ReservationId::new(1), at(0), &charges)).unwrap();
    let restored = MemoryStore::restore(store.snapshot(), 8).unwrap();
    let settled = [ChargeChange::new(&charges[0], made.tallies()[0].charged_at, Amount::ZERO)];
    let settle = SettleRequest::new(ReservationId::new(1), 1, at(1), &settled);
    for (store, used) in [(&restored, 1_000_000), (&store, 0)] {
        store.settle(&settle).unwrap();
        let seen = store.peek(&ReserveRequest::new(ReservationId::new(2), at(1), &charges)).unwrap();
        assert_eq!(seen.tallies()[0].used.micros(), used);
    }
}
