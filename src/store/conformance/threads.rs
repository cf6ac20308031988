//! Cases with several threads, for in-process stores.

use std::slice::from_ref;
use std::sync::Barrier;
use std::thread;

use super::block_on;
use super::case::{Case, Mismatch, SECOND, request_by, subject, units};
use crate::amount::Amount;
use crate::charge::Charge;
use crate::store::{ChargeChange, CounterStore, Outcome, ReservationId, SettleRequest, StoreError};

/// A case that needs the store itself.
pub(super) struct Threaded {
    pub(super) name: &'static str,
    pub(super) reason: &'static str,
    pub(super) body: fn(&Case<'_>, &dyn CounterStore) -> Result<(), Mismatch>,
}

pub(super) const CASES: &[Threaded] = &[
    Threaded {
        name: "threads_are_admitted_exactly_max_times",
        reason: "a lost update admits calls that are not counted",
        body: exactly_max,
    },
    Threaded {
        name: "threads_do_not_share_the_last_unit",
        reason: "with a separate check and update, two threads take the same room",
        body: last_unit,
    },
    Threaded {
        name: "threads_over_crossing_counters_charge_all_or_none",
        reason: "threads that lock counters one by one can deadlock, or charge in part",
        body: crossing,
    },
    Threaded {
        name: "threads_that_release_leave_nothing",
        reason: "a lost update leaves an amount charged, or gives it back twice",
        body: release,
    },
];

const THREADS: usize = 4;

/// Runs a job on several threads that begin together, and returns the result of each.
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
    store.reserve(&request_by(id, case.at(0), charges))
}

/// Makes calls on each thread, and returns how many were granted on each. A call that fails is not
/// granted.
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
            let request = format!("200 times on each of {THREADS} threads: {}", case.describe("reserve", 0, &[charge]));
            return Err(Mismatch::new(request, "400 granted in total", format!("{granted:?} granted")));
        }
        block_on(case.holds(0, &charge, 400_000_000))?;
    }
    Ok(())
}

/// Many counters with room for two, each charged once by all threads at about the same time: they
/// compete for the last unit.
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
                let request =
                    format!("once on each of {THREADS} threads: {}", case.describe("reserve", 0, from_ref(charge)));
                return Err(Mismatch::new(request, "2 granted in total", format!("{of} granted")));
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

/// Each thread reserves and releases, again and again. There is always room for all of them.
fn release(case: &Case<'_>, store: &dyn CounterStore) -> Result<(), Mismatch> {
    for meter in case.meters() {
        let charge = case.charge(meter).of(units(2)).up_to(2 * THREADS as u64);
        let refused: usize =
            race(|_| (0..100).filter(|_| !reserve_and_release(case, store, &charge)).count()).into_iter().sum();
        if refused > 0 {
            let request = format!(
                "on each of {THREADS} threads, each released at once: {}",
                case.describe("reserve", 0, &[charge])
            );
            return Err(Mismatch::new(
                request,
                "always granted: there is room for all of them",
                format!("{refused} refused"),
            ));
        }
        block_on(case.holds(SECOND, &charge, 0))?;
    }
    Ok(())
}

fn reserve_and_release(case: &Case<'_>, store: &dyn CounterStore, charge: &Charge) -> bool {
    let id = case.id();
    let Ok(Outcome::Granted(tallies)) = reserve(case, store, id, from_ref(charge)) else { return false };
    let settled: Vec<_> =
        tallies.iter().map(|tally| ChargeChange::new(charge, tally.charged_at, Amount::ZERO)).collect();
    store.settle(&SettleRequest::new(id, 1, case.at(0), &settled)).is_ok()
}
