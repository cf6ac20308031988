//! Threads that come to a store in the process at once.

use std::slice::from_ref;
use std::sync::Barrier;
use std::thread;

use super::block_on;
use super::case::{Case, Mismatch, SECOND, subject, units};
use crate::amount::Amount;
use crate::charge::Charge;
use crate::store::{ChargeChange, CounterStore, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError};

/// A case that needs the store itself.
pub(super) struct Threaded {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    pub(super) body: fn(&Case<'_>, &dyn CounterStore) -> Result<(), Mismatch>,
}

pub(super) const CASES: &[Threaded] = &[
    Threaded {
        name: "threads_are_admitted_exactly_max_times",
        why: "a lost update admits calls that nobody has counted",
        body: exactly_max,
    },
    Threaded {
        name: "threads_do_not_share_the_last_unit",
        why: "check, then update: two threads see the same room, and both take it",
        body: last_unit,
    },
    Threaded {
        name: "threads_over_crossing_counters_charge_all_or_none",
        why: "threads that lock one counter after the other wait for ever, or charge in part",
        body: crossing,
    },
    Threaded {
        name: "threads_that_give_back_leave_nothing",
        why: "a lost update leaves budget spent, or gives it twice",
        body: give_back,
    },
];

const THREADS: usize = 4;

/// Runs a job on each of several threads, all of which begin together; what they gave, thread by thread.
fn race<T: Send>(job: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        let (start, job) = (&start, &job);
        let run = move |thread| {
            start.wait();
            job(thread)
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run(thread))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

fn reserve(
    case: &Case<'_>,
    store: &dyn CounterStore,
    id: ReservationId,
    charges: &[Charge],
) -> Result<Outcome, StoreError> {
    store.reserve(&ReserveRequest::new(id, case.at(0), charges))
}

/// How many calls of each thread were granted. One that gets no answer has granted nothing.
fn granted(
    case: &Case<'_>,
    store: &dyn CounterStore,
    calls: usize,
    of: impl Fn(usize) -> Vec<Charge> + Sync,
) -> Vec<u64> {
    race(|thread| {
        let charges = of(thread);
        let granted = |_: &usize| matches!(reserve(case, store, case.id(), &charges), Ok(Outcome::Granted(_)));
        (0..calls).filter(granted).count() as u64
    })
}

fn exactly_max(case: &Case<'_>, store: &dyn CounterStore) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).up_to(400);
        let granted = granted(case, store, 200, |_| vec![charge.clone()]);
        if granted.iter().sum::<u64>() != 400 {
            let asked = format!("200 times by each of {THREADS} threads: {}", case.asking("reserve", 0, &[charge]));
            return Err(Mismatch::new(asked, "400 granted in all", format!("{granted:?} granted")));
        }
        block_on(case.holds(0, &charge, 400_000_000))?;
    }
    Ok(())
}

/// Many counters with room for two, to each of which all threads come once, side by side: the last unit is where they meet.
fn last_unit(case: &Case<'_>, store: &dyn CounterStore) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charges: Vec<Charge> = (0..100).map(|_| case.charge(meter).up_to(2)).collect();
        let granted = race(|_| {
            let call = |charge| reserve(case, store, case.id(), from_ref(charge));
            charges.iter().map(|charge| matches!(call(charge), Ok(Outcome::Granted(_)))).collect::<Vec<_>>()
        });
        for (index, charge) in charges.iter().enumerate() {
            let of = granted.iter().filter(|granted| granted.get(index) == Some(&true)).count();
            if of != 2 {
                let asked =
                    format!("once by each of {THREADS} threads: {}", case.asking("reserve", 0, from_ref(charge)));
                return Err(Mismatch::new(asked, "2 granted in all", format!("{of} granted")));
            }
        }
    }
    Ok(())
}

fn crossing(case: &Case<'_>, store: &dyn CounterStore) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|name| case.charge(meter).by(subject(name)));
        let (a, b, c) = (a.up_to(300), b.up_to(200), c.up_to(250));
        let lists = [vec![a.clone(), b.clone(), c.clone()], vec![c.clone(), b.clone()], vec![b.clone(), a.clone()]];
        let lists = [lists.to_vec(), vec![vec![a.clone(), c.clone()]]].concat();
        let granted = granted(case, store, 150, |thread| lists.get(thread % lists.len()).cloned().unwrap_or_default());
        for charge in [&a, &b, &c] {
            let with = lists.iter().zip(&granted).filter(|(list, _)| list.contains(charge));
            block_on(case.holds(0, charge, with.map(|(_, granted)| granted * 1_000_000).sum()))?;
        }
    }
    Ok(())
}

/// Each thread takes one and gives it back, again and again: all but one of them always have room.
fn give_back(case: &Case<'_>, store: &dyn CounterStore) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).of(units(2)).up_to(2 * THREADS as u64);
        let refused: usize =
            race(|_| (0..100).filter(|_| !taken_and_given_back(case, store, &charge)).count()).into_iter().sum();
        if refused > 0 {
            let asked = format!(
                "by each of {THREADS} threads, who give back at once: {}",
                case.asking("reserve", 0, &[charge])
            );
            return Err(Mismatch::new(
                asked,
                "granted always: there is room for all of them",
                format!("{refused} refused"),
            ));
        }
        block_on(case.holds(SECOND, &charge, 0))?;
    }
    Ok(())
}

fn taken_and_given_back(case: &Case<'_>, store: &dyn CounterStore, charge: &Charge) -> bool {
    let id = case.id();
    let Ok(Outcome::Granted(tallies)) = reserve(case, store, id, from_ref(charge)) else { return false };
    let settled: Vec<_> =
        tallies.iter().map(|tally| ChargeChange::new(charge, tally.charged_at, Amount::ZERO)).collect();
    store.settle(&SettleRequest::new(id, 1, case.at(0), &settled)).is_ok()
}
