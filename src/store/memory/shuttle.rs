//! The memory store under a scheduler that tries many orders in which threads can run.
//!
//! Compiled under `--cfg shuttle` only; `.ci/run` shows how.

use shuttle::sync::Arc;
use shuttle::{check_pct, check_random, thread};

use crate::amount::Amount;
use crate::charge::{Charge, CounterId, Meter, Span, Subject};
use crate::store::{
    ChargeChange, CounterStore, MemoryStore, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError,
};
use crate::time::Timestamp;

/// The number of schedules of each kind.
const SCHEDULES: usize = 2000;

/// Runs a test under random schedules, then under schedules with few, well-placed switches between
/// threads.
fn explore(test: fn()) {
    check_random(test, SCHEDULES);
    check_pct(test, SCHEDULES, 3);
}

fn instant(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn charge(subject: &str, max: u64, window: i64) -> Charge {
    let mut of = Subject::default();
    of.push_text(subject);
    let meter = Meter::Fixed(Span { start: instant(window * 60), end: instant(window * 60 + 60) });
    let max = Amount::from_micros(max * Amount::ONE.micros());
    Charge::new(CounterId::of(["shuttle"]), of, Amount::ONE, max, meter)
}

fn reserve(store: &MemoryStore, id: u128, charges: &[Charge], seconds: i64) -> Result<bool, StoreError> {
    let outcome = store.reserve(&ReserveRequest::new(ReservationId::new(id), instant(seconds), charges))?;
    Ok(matches!(outcome, Outcome::Granted(_)))
}

fn used(store: &MemoryStore, charge: &Charge, seconds: i64) -> u64 {
    let charges = [Charge { max: None, ..charge.clone() }];
    let request = ReserveRequest::new(ReservationId::new(0), instant(seconds), &charges);
    store.peek(&request).unwrap().tallies()[0].used.micros() / Amount::ONE.micros()
}

/// Runs one thread for each list of charges. Returns the number of calls that each was granted.
fn race(store: &Arc<MemoryStore>, lists: Vec<Vec<Charge>>, calls: usize) -> Vec<u64> {
    let threads: Vec<_> = lists
        .into_iter()
        .map(|charges| {
            let store = Arc::clone(store);
            thread::spawn(move || (0..calls).map(|_| u64::from(reserve(&store, 1, &charges, 1).unwrap())).sum::<u64>())
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn admits_exactly_max() {
    explore(|| {
        let store = Arc::new(MemoryStore::new());
        let one = charge("a", 3, 0);
        let granted: u64 = race(&store, vec![vec![one.clone()], vec![one.clone()], vec![one.clone()]], 2).iter().sum();
        assert_eq!((granted, used(&store, &one, 1)), (3, 3));
    });
}

/// Subjects in different orders: calls do not deadlock, and each charges all of its subjects or
/// none.
#[test]
fn charges_crossing_subjects_all_or_none() {
    explore(|| {
        let store = Arc::new(MemoryStore::new());
        let (a, b, c) = (charge("a", 2, 0), charge("b", 2, 0), charge("c", 2, 0));
        let lists = vec![
            vec![a.clone(), b.clone(), c.clone()],
            vec![c.clone(), a.clone()],
            vec![b.clone(), c.clone(), a.clone()],
        ];
        let granted = race(&store, lists, 2);
        let [first, second, third] = granted[..] else { panic!() };
        assert_eq!(used(&store, &a, 1), first + second + third);
        assert_eq!(used(&store, &b, 1), first + third);
        assert_eq!(used(&store, &c, 1), first + second + third);
        assert_eq!(first + second + third, 2, "every call charges `a`, which has room for two");
    });
}

#[test]
fn never_holds_more_than_the_capacity() {
    explore(|| {
        let store = Arc::new(MemoryStore::with_capacity(2));
        let threads: Vec<_> = [["a", "b"], ["c", "a"], ["b", "d"]]
            .into_iter()
            .map(|subjects| {
                let store = Arc::clone(&store);
                thread::spawn(move || {
                    let charges = subjects.map(|subject| charge(subject, 9, 0));
                    let granted = reserve(&store, 1, &charges, 1);
                    match granted {
                        Ok(granted) => assert!(granted),
                        Err(error) => assert!(matches!(error, StoreError::Full { capacity: 2 }), "{error}"),
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(store.len() <= 2, "{} counters are held", store.len());
    });
}

/// New subjects reclaim expired counters while other threads charge and release live ones.
#[test]
fn sweeps_while_others_reserve() {
    explore(|| {
        let store = Arc::new(MemoryStore::with_capacity(4));
        for old in ["o1", "o2"] {
            assert!(reserve(&store, 1, &[charge(old, 1, 0)], 1).unwrap());
        }
        let live = charge("live", 2, 9);
        let sweeper = {
            let store = Arc::clone(&store);
            thread::spawn(move || {
                for new in ["n1", "n2"] {
                    // The store may be full for the moment: this call reclaims nothing in shards
                    // that it does not lock.
                    let _ = reserve(&store, 1, &[charge(new, 1, 9)], 541);
                }
            })
        };
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (store, live) = (Arc::clone(&store), live.clone());
                thread::spawn(move || {
                    let charges = [live.clone()];
                    let request = ReserveRequest::new(ReservationId::new(2), instant(541), &charges);
                    let made = store.reserve(&request);
                    let granted = matches!(made, Ok(Outcome::Granted(_)));
                    if let Ok(Outcome::Granted(tallies)) = made {
                        let at = tallies.first().unwrap().charged_at;
                        let settled = [ChargeChange::new(&live, at, Amount::ZERO)];
                        let request = SettleRequest::new(ReservationId::new(2), 1, instant(542), &settled);
                        store.settle(&request).unwrap();
                    }
                    granted
                })
            })
            .collect();
        sweeper.join().unwrap();
        let granted: Vec<bool> = others.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(store.len() <= 4);
        // If it was counted, it is still there, and everything was released.
        if granted.contains(&true) {
            assert_eq!(used(&store, &live, 542), 0);
        }
    });
}
