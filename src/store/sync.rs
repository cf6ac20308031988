//! The locks and atomics of the stores: the real ones, or under `--cfg shuttle` those of a scheduler that tries how threads may
//! meet.

#[cfg(not(all(test, shuttle)))]
pub(super) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(all(test, shuttle)))]
pub(super) use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(all(test, shuttle))]
pub(super) use scheduled::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// Shuttle's, under the names and with the signatures of the real ones.
#[cfg(all(test, shuttle))]
mod scheduled {
    pub(in crate::store) use shuttle::sync::MutexGuard;
    pub(in crate::store) use shuttle::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug, Default)]
    pub(in crate::store) struct Mutex<T>(shuttle::sync::Mutex<T>);

    #[allow(dead_code, reason = "what a store needs of it may change")]
    impl<T> Mutex<T> {
        pub(in crate::store) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(in crate::store) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub(in crate::store) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

#[cfg(all(test, shuttle))]
mod tests {
    use shuttle::sync::Arc;
    use shuttle::thread;

    use crate::amount::Amount;
    use crate::charge::{Charge, CounterId, Meter, Span, Subject};
    use crate::store::{
        ChargeChange, CounterStore, MemoryStore, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError,
    };
    use crate::time::Timestamp;

    /// How many schedules are tried of each kind.
    const SCHEDULES: usize = 2000;

    /// Random schedules, then those in which few well-placed changes of threads bring a fault to light.
    fn explore(test: fn()) {
        shuttle::check_random(test, SCHEDULES);
        shuttle::check_pct(test, SCHEDULES, 3);
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

    /// One thread for each list of charges; how many calls of each were granted.
    fn race(store: &Arc<MemoryStore>, lists: Vec<Vec<Charge>>, calls: usize) -> Vec<u64> {
        let threads: Vec<_> = lists
            .into_iter()
            .map(|charges| {
                let store = Arc::clone(store);
                thread::spawn(move || {
                    (0..calls).map(|_| u64::from(reserve(&store, 1, &charges, 1).unwrap())).sum::<u64>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    #[test]
    fn shuttle_admits_exactly_max() {
        explore(|| {
            let store = Arc::new(MemoryStore::new());
            let one = charge("a", 3, 0);
            let granted: u64 =
                race(&store, vec![vec![one.clone()], vec![one.clone()], vec![one.clone()]], 2).iter().sum();
            assert_eq!((granted, used(&store, &one, 1)), (3, 3));
        });
    }

    /// Subjects in every order: no two calls wait for each other for ever, and each call charges all of its subjects or none.
    #[test]
    fn shuttle_charges_crossing_subjects_all_or_none() {
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
    fn shuttle_never_holds_more_than_the_capacity() {
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

    /// New subjects sweep out what has expired, while another thread charges and gives back what has not.
    #[test]
    fn shuttle_sweeps_while_others_reserve() {
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
                        // It may be full for the moment: an expired counter in a shard that this call does not lock stays.
                        let _ = reserve(&store, 1, &[charge(new, 1, 9)], 541);
                    }
                })
            };
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let (store, live) = (Arc::clone(&store), live.clone());
                    thread::spawn(move || {
                        let granted = matches!(reserve(&store, 2, &[live.clone()], 541), Ok(true));
                        if granted {
                            let settled = [ChargeChange::new(&live, instant(540), Amount::ZERO)];
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
            // Where it was counted it is there still, and everything was given back.
            if granted.contains(&true) {
                assert_eq!(used(&store, &live, 542), 0);
            }
        });
    }
}
