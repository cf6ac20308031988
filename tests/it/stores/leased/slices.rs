//! Slices: when they are taken, what they serve, and how they end.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use serde_json::json;
use toolgate::Amount;
use toolgate::charge::{Charge, Meter};
use toolgate::store::{
    AsyncCounterStore, ChargeChange, InProcess, LeasedStore, MemoryStore, Outcome, ReserveRequest, SettleRequest,
    Tallies,
};

use super::{
    Fault, MINUTE, Node, Remote, SECOND, at, charge, granted, next_id, node, reserve, settle, templates, units, window,
};
use crate::polling::{poll_once, ready};

/// Makes calls until the node holds a slice, and returns their number.
fn warm(node: &Node, now: i64, charges: &[Charge]) -> u64 {
    for calls in 1..100 {
        assert!(granted(node, now, charges));
        if node.try_reserve(&ReserveRequest::new(next_id(), at(now), charges)).is_some() {
            return calls + 1;
        }
    }
    panic!("no slice after 100 calls");
}

#[test]
fn fewer_than_one_call_in_a_hundred_makes_a_request() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let nodes: Vec<_> = (0..2).map(|_| LeasedStore::new(Arc::clone(&remote))).collect();
    for call in 0..180_000i64 {
        // 1,000 calls a second on each node, for 90 s.
        let now = 1_000 * MINUTE + call / 2 * 1_000;
        let charges = [charge(&templates[0], 1, Some(1_000_000), now), charge(&templates[2], 1, Some(2_000_000), now)];
        assert!(granted(&nodes[call as usize % 2], now, &charges));
    }
    assert!(remote.requests() < 1_800, "{} requests", remote.requests());
    let later = 1_000 * MINUTE + 90 * SECOND;
    for node in &nodes {
        ready(node.give_back(at(later))).unwrap();
    }
    assert_eq!(remote.tally(&charge(&templates[0], 0, None, later), later).used.micros(), 60_000 * 1_000_000);
}

#[test]
fn a_node_without_leases_takes_no_slices() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = LeasedStore::new(Arc::clone(&remote)).with_calls(1);
    for calls in 1..=50u64 {
        let charges = [charge(&templates[0], 1, Some(40), 0)];
        assert_eq!(granted(&node, 0, &charges), calls <= 40);
        assert_eq!(remote.requests(), calls);
    }
    assert!(node.is_empty());
}

/// A node that may hold no counter, or units for one call only, leaves every operation to the
/// remote store.
#[test]
fn a_node_that_may_hold_nothing_forwards_everything() {
    let templates = templates("s");
    for terms in [|node: Node| node.with_calls(1), |node: Node| node.with_calls(0), |node: Node| node.with_capacity(0)]
    {
        let remote = Arc::new(Remote::default());
        let node = terms(node(&remote));
        let charges = [charge(&templates[0], 5, Some(40), 0), charge(&templates[3], 5, Some(40), 0)];
        let Ok(Outcome::Granted(tallies)) = reserve(&node, 0, &charges) else { panic!("it has room") };
        assert!(ready(node.peek(&ReserveRequest::new(next_id(), at(0), &charges))).is_ok());
        assert!(matches!(settle(&node, 0, &charges, &tallies, 3), Some(Ok(()))));
        assert_eq!(remote.requests(), 3);
        let changes = [ChargeChange::new(&charges[0], tallies[0].charged_at, units(1))];
        let mut less = charges.clone();
        less[0].amount = units(3);
        let changes = changes.map(|settled| ChargeChange::new(&less[0], settled.at, settled.to));
        node.abandon(&SettleRequest::new(next_id(), 1, at(0), &changes));
        let held = charges.each_ref().map(|charge| remote.tally(charge, 0).used.micros() / 1_000_000);
        assert_eq!((held, node.is_empty(), node.len()), ([1, 3], true, 0));
        assert!(Arc::ptr_eq(node.inner(), &remote));
    }
}

/// A dropped permit frees its units in flight, which no slice serves, and nothing else.
#[test]
fn abandoning_a_permit_frees_only_units_in_flight() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let window = [charge(&templates[0], 1, Some(1_000), 0)];
    let served = served(&node, &window);
    assert_eq!((node.is_empty(), node.len()), (false, 1));
    let before = remote.tally(&window[0], 0).used;
    let mut flight = window.clone();
    (flight[0].counter, flight[0].meter) =
        (serde_json::from_value(json!("0".repeat(32))).unwrap(), Meter::InFlight { lease: 60 });
    let Ok(Outcome::Granted(held)) = reserve(&node, 0, &flight) else { panic!("it has room") };
    assert_eq!(remote.tally(&flight[0], 0).used.micros(), 1_000_000);
    let ended = [
        ChargeChange::new(&window[0], served[0].charged_at, Amount::ZERO),
        ChargeChange::new(&flight[0], held[0].charged_at, Amount::ZERO),
    ];
    let requests = remote.requests();
    node.abandon(&SettleRequest::new(next_id(), 1, at(0), &ended[..1]));
    assert_eq!(remote.requests(), requests);
    assert_eq!(remote.tally(&flight[0], 0).used.micros(), 1_000_000);
    node.abandon(&SettleRequest::new(next_id(), 1, at(0), &ended));
    assert_eq!(remote.tally(&flight[0], 0).used.micros(), 0);
    assert_eq!(remote.tally(&window[0], 0).used, before);
    let shown = format!("{:?}", LeasedStore::new(InProcess(MemoryStore::with_capacity(9))));
    assert!(
        shown.starts_with("LeasedStore { inner: InProcess(MemoryStore { counters: 0, capacity: 9 }), terms: "),
        "{shown}"
    );
}

/// The slice of a failed request may be spent, so the next request asks for little.
#[test]
fn a_failing_remote_store_loses_little() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let charges = [charge(&templates[0], 1, Some(100_000), 0)];
    (0..300).for_each(|_| assert!(granted(&node, 0, &charges)));
    while node.try_reserve(&ReserveRequest::new(next_id(), at(0), &charges)).is_some() {}
    let mut spent = Vec::new();
    for _ in 0..3 {
        let before = remote.tally(&charges[0], 0).used.micros();
        remote.fail_next(Fault::AnswerLost);
        assert!(reserve(&node, 0, &charges).is_err());
        spent.push((remote.tally(&charges[0], 0).used.micros() - before) / 1_000_000);
    }
    assert!(spent[0] > 100 && spent[1..].iter().all(|units| *units <= 2), "{spent:?}");
}

/// A settlement above or below the estimate makes no request while the slice covers it.
#[test]
fn a_settlement_within_the_slice_makes_no_request() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let charges = [charge(&templates[0], 1, Some(1_000), 0)];
    let (tallies, requests) = (served(&node, &charges), remote.requests());
    let before = used(&node, &charges);
    assert!(matches!(settle(&node, 0, &charges, &tallies, 2), Some(Ok(()))));
    assert_eq!(used(&node, &charges), before + 1);
    let dearer = [charge(&templates[0], 2, Some(1_000), 0)];
    assert!(matches!(settle(&node, 0, &dearer, &tallies, 0), Some(Ok(()))));
    assert_eq!((used(&node, &charges), remote.requests()), (before - 1, requests));
}

/// Makes calls until slices serve one, and returns its tallies.
fn served(node: &Node, charges: &[Charge]) -> Tallies {
    warm(node, 0, charges);
    (0..20).for_each(|_| assert!(granted(node, 0, charges)));
    loop {
        assert!(granted(node, 0, charges));
        if let Some(outcome) = node.try_reserve(&ReserveRequest::new(next_id(), at(0), charges)) {
            return outcome.tallies().clone();
        }
    }
}

#[test]
fn slices_serve_many_counters_of_one_subject() {
    let templates = templates("s");
    let node = node(&Arc::new(Remote::default()));
    let charges: Vec<_> = (0..6)
        .map(|number| {
            let mut charge = charge(&templates[0], 1, Some(1_000), 0);
            charge.counter = serde_json::from_value(json!(format!("{number:032x}"))).unwrap();
            charge
        })
        .collect();
    let tallies = served(&node, &charges);
    let used: Vec<_> = tallies.iter().map(|tally| tally.used).collect();
    assert!(used.len() == 6 && used.iter().all(|each| *each == used[0]), "{used:?}");
    assert_eq!(self::used(&node, &charges) * 1_000_000, used[0].micros());
}

/// A settlement that fails at the remote store takes nothing from the slices.
#[test]
fn a_failed_settlement_takes_nothing_from_slices() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let charges = [charge(&templates[0], 1, Some(10_000), 0), charge(&templates[2], 1, Some(10_000), 0)];
    let tallies = served(&node, &charges);
    let before = used(&node, &charges);
    let changes = [
        ChargeChange::new(&charges[0], tallies[0].charged_at, units(2)),
        ChargeChange::new(&charges[1], tallies[1].charged_at, units(5_000)),
    ];
    remote.fail_next(Fault::Lost);
    let id = next_id();
    assert!(ready(node.settle(&SettleRequest::new(id, 1, at(0), &changes))).is_err());
    assert_eq!(used(&node, &charges), before);
    assert!(ready(node.settle(&SettleRequest::new(id, 1, at(0), &changes))).is_ok());
    assert_eq!(used(&node, &charges), before + 1);
}

#[test]
fn a_call_that_never_fits_has_no_retry_time() {
    let templates = templates("s");
    let node = node(&Arc::new(Remote::default()));
    // The counter is unknown, then partly held, then full.
    for calls in [0, 3, 10] {
        for _ in 0..calls {
            granted(&node, 0, &[charge(&templates[0], 1, Some(10), 0)]);
        }
        for amount in [11, 12] {
            let never = [charge(&templates[0], amount, Some(10), 0)];
            let outcome = ready(node.peek(&ReserveRequest::new(next_id(), at(0), &never))).unwrap();
            assert!(matches!(outcome, Outcome::Refused(_)) && outcome.tallies()[0].retry_at.is_none(), "after {calls}");
        }
    }
    assert_eq!(node.len(), 1);
}

/// Returns the used amount that the node reports for the first counter, in units.
fn used(node: &Node, charges: &[Charge]) -> u64 {
    let outcome = ready(node.peek(&ReserveRequest::new(next_id(), at(0), charges))).unwrap();
    outcome.tallies()[0].used.micros() / 1_000_000
}

#[test]
fn a_slice_shrinks_as_the_counter_fills() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let (one, two) = (LeasedStore::new(Arc::clone(&remote)), LeasedStore::new(Arc::clone(&remote)));
    let charges = [charge(&templates[0], 1, Some(1_600), 0)];
    let mut served = 0u64;
    while granted(&one, 0, &charges) {
        served += 1;
        let held = remote.tally(&charges[0], 0).used.micros() / 1_000_000 - served;
        assert!(held <= 100, "{held} of 1,600 are held");
        assert!(held <= (1_600 - served) / 8 + 1, "{held} are held when {served} are served");
    }
    assert_eq!(served, 1_600);
    assert!(!granted(&two, 0, &charges));
}

#[test]
fn a_slice_ends_with_its_window() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    warm(&node, 59 * SECOND, &[charge(&templates[0], 1, Some(1_000), 59 * SECOND)]);
    let next = [charge(&templates[0], 1, Some(1_000), MINUTE)];
    assert!(node.try_reserve(&ReserveRequest::new(next_id(), at(MINUTE), &next)).is_none());
    assert!(granted(&node, MINUTE, &next));
    assert!(remote.tally(&next[0], MINUTE).used >= toolgate::Total::from_micros(1_000_000));
    // After the clock steps back, the latest window counts, at the node as at the remote store.
    let before = [charge(&templates[0], 1, Some(1_000), 0)];
    let Ok(Outcome::Granted(tallies)) = reserve(&node, 0, &before) else { panic!("there is room") };
    assert_eq!(window(&tallies[0]), MINUTE);
}

#[test]
fn a_slice_of_a_larger_maximum_serves_no_smaller_one() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let (one, two) = (node(&remote), node(&remote));
    let large = [charge(&templates[0], 1, Some(1_000), 0)];
    let small = [charge(&templates[0], 1, Some(20), 0)];
    for _ in 0..30 {
        assert!(granted(&one, 0, &large));
    }
    assert!(!granted(&one, 0, &small));
    assert!(!granted(&two, 0, &small));
    assert!(granted(&one, 0, &large) && granted(&two, 0, &large));
}

#[test]
fn a_call_makes_all_of_its_charges_or_none() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let leased = charge(&templates[0], 1, Some(100), 0);
    let mut served = warm(&node, 0, std::slice::from_ref(&leased));
    let full = charge(&templates[3], 1, Some(5), 0);
    for calls in 0..10 {
        let both = [leased.clone(), full.clone()];
        assert_eq!(granted(&node, 0, &both), calls < 5, "the sliding window has room for five");
        served += u64::from(calls < 5);
    }
    let other = charge(&templates[1], 50, Some(20), 0);
    assert!(!granted(&node, 0, &[leased.clone(), other]));
    let others: Vec<_> = (0..200).filter(|_| granted(&node, 0, std::slice::from_ref(&leased))).collect();
    assert_eq!(others.len() as u64 + served, 100, "refused calls have spent nothing");
}

#[test]
fn a_failing_remote_store_costs_no_held_units() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let charges = [charge(&templates[0], 1, Some(1_000), 0)];
    (0..10).for_each(|_| _ = warm(&node, 0, &charges));
    remote.down.store(true, Ordering::Relaxed);
    let mixed = [charges[0].clone(), charge(&templates[3], 1, Some(5), 0)];
    let held = |node: &Node| {
        let mut held = 0;
        while node.try_reserve(&ReserveRequest::new(next_id(), at(0), &charges)).is_some() {
            held += 1;
        }
        held
    };
    for _ in 0..100 {
        assert!(reserve(&node, 0, &mixed).is_err());
    }
    assert!(held(&node) > 0, "the units of the failed calls are back");
    assert!(reserve(&node, 0, &charges).is_err());
    remote.down.store(false, Ordering::Relaxed);
    assert!(granted(&node, 0, &charges));
    // A call whose future is dropped takes nothing from the slice.
    (0..10).for_each(|_| _ = warm(&node, 0, &charges));
    remote.fail_next(Fault::Hangs);
    assert!(poll_once(node.reserve(&ReserveRequest::new(next_id(), at(0), &mixed))).is_none());
    assert!(held(&node) > 0);
}

#[test]
fn a_cost_above_the_estimate_is_recorded() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let charges = [charge(&templates[0], 1, Some(1_000), 0)];
    warm(&node, 0, &charges);
    let request = ReserveRequest::new(next_id(), at(0), &charges);
    let tallies = loop {
        let Ok(Outcome::Granted(tallies)) = ready(node.reserve(&request)) else { panic!("there is room") };
        if tallies[0].charged_at.instant.unix_micros() == 1 {
            break tallies;
        }
    };
    let before = tallies[0].used.micros();
    // Nothing changes while the remote store is down; then the whole amount is recorded.
    remote.down.store(true, Ordering::Relaxed);
    assert!(settle(&node, 0, &charges, &tallies, 5_000).unwrap().is_err());
    remote.down.store(false, Ordering::Relaxed);
    settle(&node, 0, &charges, &tallies, 5_000).unwrap().unwrap();
    ready(node.give_back(at(0))).unwrap();
    assert_eq!(remote.tally(&charges[0], 0).used.micros(), before + 4_999 * 1_000_000);
    assert!(!granted(&node, 0, &charges));
}

#[test]
fn later_calls_give_unused_slices_back() {
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let callers: Vec<_> = (0..40).map(|caller| templates(&format!("s{caller}"))[0].clone()).collect();
    let mut served = Vec::new();
    for caller in &callers {
        served.push(warm(&node, 0, &[charge(caller, 1, Some(1_000), 0)]));
    }
    let now = 10 * SECOND;
    // Other callers make calls, one by one.
    for caller in 0..20_000 {
        let other = for_caller(&callers[0], caller);
        reserve(&node, now, &[charge(&other, 1, Some(0), now)]).unwrap();
    }
    let left = |(caller, served): (&Charge, &u64)| {
        remote.tally(&charge(caller, 0, None, now), now).used.micros() / 1_000_000 - served
    };
    assert_eq!(callers.iter().zip(&served).map(left).sum::<u64>(), 0);
}

/// Returns the charge for another subject. Subjects are made by a gate, which is slow, so they are
/// kept.
fn for_caller(template: &Charge, caller: usize) -> Charge {
    static SUBJECTS: Mutex<Vec<Charge>> = Mutex::new(Vec::new());
    let mut subjects = SUBJECTS.lock().unwrap();
    while subjects.len() <= caller % 500 {
        let name = format!("o{}", subjects.len());
        subjects.push(templates(&name)[0].clone());
    }
    let mut charge = template.clone();
    charge.subject = subjects[caller % 500].subject.clone();
    charge
}

#[test]
fn a_node_holds_at_most_its_capacity_of_counters() {
    let remote = Arc::new(Remote::default());
    let node = node(&remote).with_capacity(10);
    let template = templates("s")[0].clone();
    for caller in 0..500 {
        let charges = [charge(&for_caller(&template, caller), 1, Some(3), 0)];
        let calls = (0..6).filter(|_| granted(&node, 0, &charges)).count();
        assert_eq!(calls, 3);
        assert!(node.len() <= 10);
    }
    // After their windows have ended, other counters take their places.
    for caller in 0..500 {
        let now = 10 * MINUTE;
        granted(&node, now, &[charge(&for_caller(&template, caller), 1, Some(3), now)]);
    }
    assert!(node.len() <= 10);
}

#[test]
fn a_reset_drops_the_slice() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let charges = [charge(&templates[0], 1, Some(100), 0)];
    warm(&node, 0, &charges);
    ready(node.reset(charges[0].counter, &charges[0].subject)).unwrap();
    assert!(node.try_reserve(&ReserveRequest::new(next_id(), at(0), &charges)).is_none());
    let calls = (0..300).filter(|_| granted(&node, 0, &charges)).count();
    assert_eq!(calls, 100);
}

/// A reset whose answer never comes has dropped the slice, and slices that are taken meanwhile are
/// dropped too.
#[test]
fn an_abandoned_reset_drops_the_slice() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let charges = [charge(&templates[0], 1, Some(1_000), 0)];
    warm(&node, 0, &charges);
    remote.fail_next(Fault::Hangs);
    {
        let mut reset = pin!(node.reset(charges[0].counter, &charges[0].subject));
        let polled = reset.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending() && node.is_empty());
        warm(&node, 0, &charges);
        assert_eq!(node.len(), 1);
    }
    assert!(node.is_empty(), "a slice taken during the reset is not held after it");
}

#[test]
fn racing_threads_on_two_nodes_admit_exactly_the_maximum() {
    const MAX: u64 = 20_000;
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let nodes: Vec<_> = (0..2).map(|_| Arc::new(LeasedStore::new(Arc::clone(&remote)))).collect();
    let charges = [charge(&templates[0], 1, Some(MAX), 0), charge(&templates[2], 1, Some(MAX * 2), 0)];
    let hammer = |node: Arc<Node>| {
        let charges = charges.clone();
        std::thread::spawn(move || {
            let mut admitted = 0u64;
            for call in 0..MAX / 2 {
                match reserve(&*node, 0, &charges).unwrap() {
                    Outcome::Granted(tallies) if call % 7 == 0 => {
                        settle(&*node, 0, &charges, &tallies, 0).unwrap().unwrap();
                    }
                    Outcome::Granted(_) => admitted += 1,
                    Outcome::Refused(_) => {}
                }
            }
            admitted
        })
    };
    let threads: Vec<_> = (0..4).map(|index| hammer(Arc::clone(&nodes[index % 2]))).collect();
    let mut admitted: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(admitted <= MAX, "{admitted}");
    // The units that one node gives back are available to the other.
    ready(nodes[1].give_back(at(0))).unwrap();
    while granted(&*nodes[0], 0, &charges) {
        admitted += 1;
    }
    assert_eq!(admitted, MAX);
    ready(nodes[0].give_back(at(0))).unwrap();
    assert_eq!(remote.tally(&charges[0], 0).used.micros(), MAX * 1_000_000);
    assert_eq!(remote.tally(&charges[1], 0).used.micros(), MAX * 1_000_000);
}

#[test]
fn a_call_served_by_slices_allocates_nothing() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = LeasedStore::new(Arc::clone(&remote));
    let charges = [charge(&templates[0], 1, Some(1_000_000), 0), charge(&templates[1], 1, Some(1_000_000), 0)];
    for _ in 0..50 {
        warm(&node, 0, &charges);
    }
    let request = ReserveRequest::new(next_id(), at(0), &charges);
    let info = allocation_counter::measure(|| assert!(node.try_reserve(&request).is_some()));
    assert_eq!(info.count_total, 0);
}

/// The remote counter was reset by another node: this node serves what is left of its slice, and
/// learns of it by its next request.
#[test]
fn a_slice_ends_with_the_generation_of_its_counter() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let one = [charge(&templates[0], 1, Some(1_000), 0)];
    let before = served(&node, &one);
    ready(AsyncCounterStore::reset(&remote, one[0].counter, &one[0].subject)).unwrap();
    let others = [charge(&templates[0], 900, Some(1_000), 0)];
    assert!(granted(&remote, 0, &others));
    let request = || ReserveRequest::new(next_id(), at(0), &one);
    let left = (0..).take_while(|_| node.try_reserve(&request()).is_some()).count();
    let admitted = (0..2_000).filter(|_| granted(&node, 0, &one)).count();
    assert_eq!((left < 300, admitted), (true, 100), "{left} were left");
    assert_eq!(remote.tally(&one[0], 0).used.micros(), 1_000_000_000);
    assert!(matches!(settle(&node, 0, &one, &before, 0), Some(Ok(()))));
    assert!(!granted(&node, 0, &one), "a charge from before the reset gives nothing back");
}
