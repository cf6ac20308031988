//! Stores with the faults of real stores. The suite must detect each of them.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use toolgate::charge::{Asker, Charge, CounterId, Meter, Subject};
use toolgate::store::conformance::{self, Failures, Suite};
use toolgate::store::{
    AsyncCounterStore, Counter, CounterStore, Generations, InProcess, MemoryStore, Outcome, ReserveRequest,
    SettleRequest, StoreError, StoreFuture, Tallies,
};
use toolgate::{Amount, Timestamp};

use crate::polling::block_on;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    ChecksThenUpdates,
    CountsCallsNotAmounts,
    ChargesOnPeek,
    ChargesUpToTheRefusal,
    CreditsTheCurrentWindow,
    DropsTheAmountAboveTheEstimate,
    DropsDebtsOfForgottenCounters,
    ReopensPastWindows,
    ResetsTheWholeSubject,
    EvictsTheOldest,
    EndsSubjectsAtZeroBytes,
    WaitsForNothing,
    WaitsTooLong,
    WaitsForChargesThatNeverFit,
    NeverExpires,
    LooksAtFourCharges,
    MixesTheOrder,
    RefusesWithoutMax,
    AdmitsFreeCallsAlways,
    CountsEachAskerApart,
    SettlesAnyGeneration,
    EndsLeasesThatWereProlonged,
}

struct Faulty {
    fault: Fault,
    /// The counters, each with a number in the order in which they were added.
    counters: Mutex<BTreeMap<(CounterId, Subject), (usize, Counter)>>,
    generations: Mutex<Generations>,
    added: AtomicUsize,
    turn: Mutex<()>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            counters: Mutex::default(),
            generations: Mutex::default(),
            added: AtomicUsize::new(0),
            turn: Mutex::default(),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn key(&self, charge: &Charge, asker: Option<Asker<'_>>) -> (CounterId, Subject) {
        if let Some(asker) = asker.filter(|_| self.has(Fault::CountsEachAskerApart)) {
            return (
                charge.counter,
                Subject::from_bytes(&[charge.subject.as_bytes(), asker.key().as_bytes()].concat()),
            );
        }
        let bytes = charge.subject.as_bytes();
        let end = bytes.iter().position(|byte| *byte == 0 && self.has(Fault::EndsSubjectsAtZeroBytes));
        (charge.counter, Subject::from_bytes(&bytes[..end.unwrap_or(bytes.len())]))
    }

    /// Returns the time that the store uses.
    fn now(&self, request: &ReserveRequest<'_>) -> Timestamp {
        let never = self.has(Fault::NeverExpires);
        if never { request.now.min("2026-01-15T12:30:00Z".parse().unwrap()) } else { request.now }
    }

    fn look(&self, request: &ReserveRequest<'_>) -> Result<(Tallies, bool), StoreError> {
        let mut counters = self.counters.lock().unwrap();
        let (mut tallies, mut room) = (Tallies::new(), true);
        for (index, charge) in request.charges.iter().enumerate() {
            if let (true, Meter::Fixed(span)) = (self.has(Fault::ReopensPastWindows), charge.meter) {
                let earlier = |counter: &Counter| counter.expires_at() > span.end;
                if counters.get(&self.key(charge, request.asker)).is_some_and(|(_, counter)| earlier(counter)) {
                    counters.remove(&self.key(charge, request.asker));
                }
            }
            let fresh = (0, Counter::new(&charge.meter));
            let (_, counter) = counters.get(&self.key(charge, request.asker)).unwrap_or(&fresh);
            let mut tally = counter.tally(charge, self.now(request))?;
            let mut fits = tally.has_room(charge) || (self.has(Fault::LooksAtFourCharges) && index >= 4);
            fits |= self.has(Fault::AdmitsFreeCallsAlways) && charge.amount == Amount::ZERO;
            fits &= !(self.has(Fault::RefusesWithoutMax) && charge.max.is_none() && tally.used.micros() > 5_000_000);
            tally.retry_at = match (self.fault, tally.retry_at) {
                (Fault::WaitsForNothing, Some(_)) => Some(request.now),
                (Fault::WaitsTooLong, Some(at)) => Some(Timestamp::from_unix_micros(at.unix_micros() + 1)),
                (Fault::WaitsForChargesThatNeverFit, None) => Some(tally.resets_at),
                (_, at) => at,
            };
            room &= fits;
            tallies.push(tally);
        }
        Ok((tallies, room))
    }

    fn charge(&self, request: &ReserveRequest<'_>, tallies: &mut Tallies) -> Result<(), StoreError> {
        let mut counters = self.counters.lock().unwrap();
        for (charge, tally) in request.charges.iter().zip(tallies) {
            let added = self.added.fetch_add(1, Ordering::Relaxed);
            let one = Charge::new(charge.counter, charge.subject.clone(), Amount::ONE, charge.max, charge.meter);
            let charge = if self.has(Fault::CountsCallsNotAmounts) { &one } else { charge };
            let entry =
                counters.entry(self.key(charge, request.asker)).or_insert_with(|| (added, Counter::new(&charge.meter)));
            *tally = entry.1.charge(charge, self.now(request))?;
            tally.charged_at.generation = self.generations.lock().unwrap().of(charge.counter, &charge.subject);
        }
        while self.has(Fault::EvictsTheOldest) && counters.len() > 500 {
            let oldest = counters.iter().min_by_key(|(_, (added, _))| *added).unwrap().0.clone();
            counters.remove(&oldest);
        }
        Ok(())
    }
}

impl CounterStore for Faulty {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        let turn = (!self.has(Fault::ChecksThenUpdates)).then(|| self.turn.lock().unwrap());
        let (mut tallies, room) = self.look(request)?;
        if turn.is_none() {
            std::thread::yield_now();
        }
        if room {
            self.charge(request, &mut tallies)?;
        } else if self.has(Fault::ChargesUpToTheRefusal) {
            let fit = request.charges.iter().zip(&tallies).take_while(|(charge, tally)| tally.has_room(charge)).count();
            let first = ReserveRequest::new(request.id, request.now, &request.charges[..fit]);
            self.charge(&first, &mut tallies.clone())?;
        }
        if self.has(Fault::MixesTheOrder) {
            tallies.sort_by_key(|tally| tally.used);
        }
        Ok(if room { Outcome::Granted(tallies) } else { Outcome::Refused(tallies) })
    }

    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        let (mut tallies, room) = self.look(request)?;
        if room && self.has(Fault::ChargesOnPeek) {
            self.charge(request, &mut tallies.clone())?;
        }
        if self.has(Fault::MixesTheOrder) {
            tallies.sort_by_key(|tally| tally.used);
        }
        Ok(if room { Outcome::Granted(tallies) } else { Outcome::Refused(tallies) })
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        let mut counters = self.counters.lock().unwrap();
        if self.has(Fault::DropsDebtsOfForgottenCounters) {
            counters.retain(|_, (_, counter)| counter.expires_at() > request.now);
        }
        for settled in request.charges {
            let any = self.has(Fault::SettlesAnyGeneration);
            if !any && !self.generations.lock().unwrap().may_change(settled) {
                continue;
            }
            let Some((_, counter)) = counters.get_mut(&self.key(settled.charge, None)) else { continue };
            let mut changed = *settled;
            if let (true, Meter::Fixed(_)) = (self.has(Fault::CreditsTheCurrentWindow), settled.charge.meter) {
                changed.at.instant = Timestamp::from_unix_seconds(counter.expires_at().unix_seconds() - 64);
            }
            if self.has(Fault::DropsTheAmountAboveTheEstimate) {
                changed.to = changed.to.min(settled.charge.amount);
            }
            if self.has(Fault::EndsLeasesThatWereProlonged) && changed.lease_end.take().is_some() {
                changed.to = Amount::ZERO;
            }
            counter.settle(&changed, request.now)?;
        }
        Ok(())
    }

    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        let whole = self.has(Fault::ResetsTheWholeSubject);
        self.generations.lock().unwrap().reset(counter, subject);
        self.counters.lock().unwrap().retain(|(id, of), _| of != subject || (*id != counter && !whole));
        Ok(())
    }
}

#[test]
fn the_suite_detects_every_fault() {
    for (fault, case) in [
        (Fault::ChecksThenUpdates, "threads_do_not_share_the_last_unit"),
        (Fault::CountsCallsNotAmounts, "weighs_every_charge"),
        (Fault::ChargesOnPeek, "peek_charges_nothing"),
        (Fault::ChargesUpToTheRefusal, "all_or_none_in_any_order"),
        (Fault::CreditsTheCurrentWindow, "a_release_credits_its_own_window_alone"),
        (Fault::DropsTheAmountAboveTheEstimate, "settle_to_more_is_recorded_whole"),
        (Fault::DropsDebtsOfForgottenCounters, "late_settlements_drain_a_bucket"),
        (Fault::ReopensPastWindows, "clocks_that_differ_share_the_later_window"),
        (Fault::ReopensPastWindows, "a_clock_a_day_back_opens_no_window"),
        (Fault::ResetsTheWholeSubject, "reset_forgets_one_counter_of_one_subject"),
        (Fault::EvictsTheOldest, "a_flood_of_subjects_evicts_nobody"),
        (Fault::EndsSubjectsAtZeroBytes, "subjects_are_distinct"),
        (Fault::WaitsForNothing, "retry_is_the_first_instant_with_room"),
        (Fault::WaitsTooLong, "retry_is_the_first_instant_with_room"),
        (Fault::WaitsForChargesThatNeverFit, "no_retry_if_there_is_never_room"),
        (Fault::NeverExpires, "counters_are_empty_long_after_their_end"),
        (Fault::LooksAtFourCharges, "many_charges_in_one_call"),
        (Fault::MixesTheOrder, "tallies_have_the_order_of_charges"),
        (Fault::RefusesWithoutMax, "without_max_counts_and_never_refuses"),
        (Fault::AdmitsFreeCallsAlways, "max_of_zero_refuses_all"),
        (Fault::CountsEachAskerApart, "askers_share_the_counters_of_a_subject"),
        (Fault::SettlesAnyGeneration, "charges_before_a_reset_change_nothing_after_it"),
        (Fault::EndsLeasesThatWereProlonged, "a_prolonged_lease_ends_at_its_new_end"),
    ] {
        let failures = conformance::check(Faulty::new(fault)).expect_err("a store with a fault passes the suite");
        let found: Vec<_> = failures.failed().iter().map(conformance::Failure::case).collect();
        assert!(found.contains(&case), "{fault:?} fails {found:?}, and not `{case}`");
        assert!(!failures.passed().is_empty() && !failures.passed().contains(&case));
    }
    conformance::check(Faulty::new(Fault::None)).unwrap_or_else(|failures| panic!("{failures}"));
}

#[test]
fn a_failure_shows_request_expectation_and_answer() {
    let failures = conformance::check(Faulty::new(Fault::DropsTheAmountAboveTheEstimate)).unwrap_err();
    let failure =
        failures.failed().iter().find(|failure| failure.case() == "settle_to_more_is_recorded_whole").unwrap();
    assert!(failure.request().starts_with("peek at 2026-01-15T11:00:00Z: 0 without a max in the window from"));
    assert_eq!(failure.expected(), "used 9");
    assert!(failure.actual().starts_with("granted; used 1, resets at 2026-01-15T11:01:04Z"), "{}", failure.actual());
    let text = failures.to_string();
    for part in ["cases failed\n", "settle_to_more_is_recorded_whole\n", "expected: used 9\n", failure.reason()] {
        assert!(text.contains(part), "{text}");
    }
}

/// A random history detects faults as well.
#[test]
fn random_histories_detect_faults() {
    for fault in [
        Fault::CountsCallsNotAmounts,
        Fault::CreditsTheCurrentWindow,
        Fault::WaitsTooLong,
        Fault::MixesTheOrder,
        Fault::SettlesAnyGeneration,
        Fault::EndsLeasesThatWereProlonged,
    ] {
        let found =
            (0..20).find_map(|seed| conformance::compare(MemoryStore::new(), Faulty::new(fault), seed, 400).err());
        let failure = found.unwrap_or_else(|| panic!("{fault:?} is not found"));
        assert!(failure.request().contains("of the history of seed"), "{failure}");
    }
    conformance::compare(MemoryStore::new(), Faulty::new(Fault::None), 1, 400).unwrap();
}

/// A store that answers late, as one across a network does. If torn, other requests run between its
/// check and its update.
struct Slow {
    store: Faulty,
    torn: bool,
}

/// Yields to the other futures this number of times.
async fn yield_now(mut turns: u32) {
    poll_fn(|context| {
        context.waker().wake_by_ref();
        turns = turns.saturating_sub(1);
        if turns > 0 { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

impl AsyncCounterStore for Slow {
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        Box::pin(async move {
            yield_now(request.id.get() as u32 % 3 + 1).await;
            if self.torn {
                let (mut tallies, room) = self.store.look(request)?;
                yield_now(2).await;
                if room {
                    self.store.charge(request, &mut tallies)?;
                }
                return Ok(if room { Outcome::Granted(tallies) } else { Outcome::Refused(tallies) });
            }
            let outcome = self.store.reserve(request);
            yield_now(2).await;
            outcome
        })
    }

    fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        Box::pin(async move { self.store.peek(request) })
    }

    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            yield_now(request.id.get() as u32 % 3 + 1).await;
            self.store.settle(request)
        })
    }

    fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> StoreFuture<'a, ()> {
        Box::pin(async move { self.store.reset(counter, subject) })
    }
}

fn run(suite: Suite, store: &dyn AsyncCounterStore) -> Result<Vec<&'static str>, Failures> {
    block_on(suite.run(store))
}

#[test]
fn concurrent_calls_detect_a_torn_reservation() {
    let suite = Suite::new("2026-01-15T10:30:00Z".parse().unwrap());
    run(suite, &Slow { store: Faulty::new(Fault::None), torn: false }).unwrap_or_else(|failures| panic!("{failures}"));
    let failures = run(suite, &Slow { store: Faulty::new(Fault::None), torn: true }).unwrap_err();
    let found: Vec<_> = failures.failed().iter().map(conformance::Failure::case).collect();
    assert_eq!(found, ["concurrent_calls_are_admitted_exactly_max_times", "concurrent_calls_charge_all_or_none"]);
}

/// A store that recognises repeated requests by reservation id and settlement step.
#[derive(Default)]
struct Idempotent {
    store: MemoryStore,
    reserved: Mutex<BTreeMap<u128, Outcome>>,
    settled: Mutex<BTreeMap<(u128, u32), ()>>,
}

impl CounterStore for Idempotent {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        let mut reserved = self.reserved.lock().unwrap();
        if let Some(outcome) = reserved.get(&request.id.get()) {
            return Ok(outcome.clone());
        }
        let outcome = self.store.reserve(request)?;
        reserved.insert(request.id.get(), outcome.clone());
        Ok(outcome)
    }

    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        self.store.peek(request)
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        match self.settled.lock().unwrap().insert((request.id.get(), request.step), ()) {
            Some(()) => Ok(()),
            None => self.store.settle(request),
        }
    }

    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        self.store.reset(counter, subject)
    }
}

#[test]
fn cases_with_repeated_requests_are_optional() {
    let suite = Suite::new("2026-01-15T10:30:00Z".parse().unwrap()).resends(true);
    run(suite, &InProcess(Idempotent::default())).unwrap_or_else(|failures| panic!("{failures}"));
    let failures = run(suite, &InProcess(MemoryStore::new())).unwrap_err();
    let found: Vec<_> = failures.failed().iter().map(conformance::Failure::case).collect();
    assert_eq!(found, ["a_reservation_sent_twice_counts_once", "a_settlement_sent_twice_counts_once"]);
}
