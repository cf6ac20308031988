//! Random histories of one node and of several.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use toolgate::charge::{Charge, Meter};
use toolgate::store::{
    AsyncCounterStore, CounterStore, Generation, InProcess, MemoryStore, Outcome, ReserveRequest, Tallies, Tally,
};

use super::{Fault, MINUTE, Remote, at, charge, next_id, node, reserve, settle, templates, window};
use crate::polling::{poll_once, ready};

/// Returns the tallies of a store that made the charges itself.
fn plain(tallies: &Tallies, charges: &[Charge]) -> Vec<Tally> {
    let plain = |(tally, charge): (&Tally, &Charge)| {
        let mut tally = *tally;
        if matches!(charge.meter, Meter::Fixed(_)) {
            tally.charged_at.instant = at(window(&tally));
        }
        // Each store has generations of its own.
        tally.charged_at.generation = Generation::new(0);
        tally
    };
    tallies.iter().zip(charges).map(plain).collect()
}

/// The charges of a call: the counter, the amount, and the maximum.
type Asked = Vec<(usize, u64, Option<u64>)>;

#[derive(Clone, Debug)]
enum Step {
    Call { node: usize, asked: Asked },
    Peek { node: usize, asked: Asked },
    Settle { call: usize, to: u64 },
    Tick { millis: i64 },
    GiveBack { node: usize },
    Reset { counter: usize },
    Crash { node: usize },
    Fail { fault: Fault },
}

fn asked(counters: usize) -> impl Strategy<Value = Asked> {
    let max = prop_oneof![8 => Just(Some(40)), 2 => Just(Some(15)), 1 => Just(None), 1 => Just(Some(0))];
    let one = (0..counters, prop_oneof![6 => Just(1), 3 => 0..6u64], max);
    prop::collection::vec(one, 1..4).prop_map(|mut asked| {
        asked.sort_by_key(|(counter, ..)| *counter);
        asked.dedup_by_key(|(counter, ..)| *counter);
        asked
    })
}

/// Mostly small calls on one or two counters, so that slices grow.
fn step(nodes: usize, counters: usize) -> impl Strategy<Value = Step> {
    let call = prop_oneof![
        3 => (0..2usize).prop_map(|counter| vec![(counter, 1, Some(40))]),
        2 => asked(counters),
    ];
    prop_oneof![
        20 => (0..nodes, call).prop_map(|(node, asked)| Step::Call { node, asked }),
        2 => (0..nodes, asked(counters)).prop_map(|(node, asked)| Step::Peek { node, asked }),
        6 => (any::<prop::sample::Index>(), prop_oneof![3 => Just(0), 1 => 0..8u64])
            .prop_map(|(call, to)| Step::Settle { call: call.index(1 << 16), to }),
        2 => prop_oneof![4 => 0..2_000i64, 1 => -70_000..70_000i64].prop_map(|millis| Step::Tick { millis }),
        1 => (0..nodes).prop_map(|node| Step::GiveBack { node }),
    ]
}

fn charges_of(templates: &[Charge], asked: &Asked, now: i64) -> Vec<Charge> {
    asked.iter().map(|(counter, amount, max)| charge(&templates[*counter], *amount, *max, now)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// A single node gives the answers and tallies of its remote store.
    #[test]
    fn one_node_answers_as_the_remote_store(
        steps in prop::collection::vec(
            prop_oneof![30 => step(1, 4), 1 => (0..4usize).prop_map(|counter| Step::Reset { counter })], 1..120),
        idle in prop_oneof![Just(0u64), Just(1), Just(5)],
    ) {
        let templates = templates("s");
        let remote = Arc::new(Remote::default());
        let node = node(&remote).with_idle(Duration::from_secs(idle));
        let reference = InProcess(MemoryStore::new());
        let mut now = 1_000 * MINUTE;
        let mut made: Vec<(Vec<Charge>, Tallies, Tallies)> = Vec::new();
        for step in steps {
            match step {
                Step::Call { asked, .. } => {
                    let charges = charges_of(&templates, &asked, now);
                    let found = reserve(&node, now, &charges).unwrap();
                    let expected = reserve(&reference, now, &charges).unwrap();
                    match (&found, &expected) {
                        (Outcome::Granted(found), Outcome::Granted(expected)) => {
                            prop_assert_eq!(plain(found, &charges), plain(expected, &charges));
                            made.push((charges, found.clone(), expected.clone()));
                        }
                        (Outcome::Refused(found), Outcome::Refused(expected)) => {
                            prop_assert_eq!(plain(found, &charges), plain(expected, &charges));
                        }
                        _ => prop_assert!(false, "{charges:?}: {found:?}, not {expected:?}"),
                    }
                }
                Step::Peek { asked, .. } => {
                    let charges = charges_of(&templates, &asked, now);
                    let request = ReserveRequest::new(next_id(), at(now), &charges);
                    let found = ready(node.peek(&request)).unwrap();
                    let expected = ready(reference.peek(&request)).unwrap();
                    prop_assert_eq!(matches!(found, Outcome::Granted(_)), matches!(expected, Outcome::Granted(_)));
                    let used = |outcome: &Outcome| outcome.tallies().iter().map(|tally| tally.used).collect::<Vec<_>>();
                    prop_assert_eq!(used(&found), used(&expected));
                    let waits = |outcome: &Outcome| -> Vec<_> {
                        let tallies = outcome.tallies().iter().zip(&charges);
                        tallies.map(|(tally, charge)| (!tally.has_room(charge)).then_some(tally.retry_at)).collect()
                    };
                    prop_assert_eq!(waits(&found), waits(&expected));
                }
                Step::Settle { call, to } if !made.is_empty() => {
                    let (charges, found, expected) = made.swap_remove(call % made.len());
                    settle(&node, now, &charges, &found, to).unwrap().unwrap();
                    settle(&reference, now, &charges, &expected, to).unwrap().unwrap();
                }
                Step::Tick { millis } => now += millis * 1_000,
                Step::GiveBack { .. } => ready(node.give_back(at(now))).unwrap(),
                Step::Reset { counter } => {
                    // Releases of charges before a reset have no meaning after it.
                    let Charge { counter, subject, .. } = &templates[counter];
                    made.retain(|(charges, ..)| charges.iter().all(|charge| charge.counter != *counter));
                    ready(node.reset(*counter, subject)).unwrap();
                    ready(reference.reset(*counter, subject)).unwrap();
                }
                _ => {}
            }
        }
    }

    /// Nodes crash, requests fail or hang, and clocks step: the remote store still counts every
    /// admitted call. Without such failures, it counts exactly those once the nodes give their
    /// slices back.
    #[test]
    fn nodes_never_admit_more_than_the_remote_store_counts(
        steps in prop::collection::vec(prop_oneof![
            30 => step(3, 3),
            1 => (0..3usize).prop_map(|node| Step::Crash { node }),
            1 => select(vec![Fault::Lost, Fault::AnswerLost, Fault::Hangs]).prop_map(|fault| Step::Fail { fault }),
        ], 1..200),
        with_failures in any::<bool>(),
    ) {
        let templates = templates("s");
        let remote = Arc::new(Remote::default());
        let mut nodes: Vec<_> = (0..3).map(|_| node(&remote)).collect();
        let mut now = 1_000 * MINUTE;
        // For each counter and window, the admitted amount, and the part of it beyond the maximum.
        let mut admitted: BTreeMap<(usize, i64), u64> = BTreeMap::new();
        let mut added: BTreeMap<(usize, i64), u64> = BTreeMap::new();
        let mut made: Vec<(usize, Asked, Vec<Charge>, Tallies)> = Vec::new();
        for step in steps {
            match step {
                Step::Call { node, asked } => {
                    let charges = charges_of(&templates, &asked, now);
                    let request = ReserveRequest::new(next_id(), at(now), &charges);
                    let faulty = remote.fault.lock().unwrap().is_some();
                    match poll_once(nodes[node].reserve(&request)) {
                        Some(Ok(Outcome::Granted(tallies))) => {
                            for ((counter, amount, _), tally) in asked.iter().zip(&tallies) {
                                let key = (*counter, window(tally));
                                let sum = admitted.entry(key).or_default();
                                *sum += amount;
                                let bound = 40 + added.get(&key).copied().unwrap_or(0);
                                let bounded = asked.iter().all(|(_, _, max)| max.is_some());
                                prop_assert!(!bounded || added.contains_key(&key) || *sum <= bound);
                            }
                            // A charge without a maximum, as of a shadow limit, can exceed it.
                            for ((counter, amount, max), tally) in asked.iter().zip(&tallies) {
                                if max.is_none() {
                                    *added.entry((*counter, window(tally))).or_default() += amount;
                                }
                            }
                            made.push((node, asked, charges, tallies));
                        }
                        Some(Ok(Outcome::Refused(_))) => {
                            let direct = remote.store.peek(&request).unwrap();
                            let refused = matches!(direct, Outcome::Refused(_));
                            prop_assert!(refused, "the remote store has room: {:?} {:?}", charges, direct);
                            if !faulty {
                                let look = ready(nodes[node].peek(&request)).unwrap();
                                prop_assert!(matches!(look, Outcome::Refused(_)));
                            }
                        }
                        Some(Err(_)) | None => prop_assert!(faulty),
                    }
                }
                Step::Peek { node, asked } => {
                    let charges = charges_of(&templates, &asked, now);
                    let request = ReserveRequest::new(next_id(), at(now), &charges);
                    let faulty = remote.fault.lock().unwrap().is_some();
                    let Some(Ok(look)) = poll_once(nodes[node].peek(&request)) else {
                        prop_assert!(faulty);
                        continue;
                    };
                    if matches!(remote.store.peek(&request).unwrap(), Outcome::Granted(_)) {
                        prop_assert!(matches!(look, Outcome::Granted(_)), "a peek refuses a call that has room");
                    }
                }
                Step::Settle { call, to } if !made.is_empty() => {
                    let (node, asked, charges, tallies) = made.swap_remove(call % made.len());
                    let settled = matches!(settle(&nodes[node], now, &charges, &tallies, to), Some(Ok(())));
                    for ((counter, from, _), tally) in asked.iter().zip(&tallies) {
                        let key = (*counter, window(tally));
                        // A failed settlement may have been carried out, so neither its release nor
                        // its addition is expected.
                        let to = if settled { to } else { to.min(*from) };
                        // A settlement of a past window changes nothing.
                        let state = remote.tally(&charge(&templates[*counter], 0, None, key.1), now);
                        if window(&state) == key.1 {
                            let sum = admitted.entry(key).or_default();
                            *sum = (*sum + to).saturating_sub(*from);
                            *added.entry(key).or_default() += to.saturating_sub(*from);
                        }
                    }
                }
                Step::Tick { millis } => now += millis * 1_000,
                Step::GiveBack { node } => {
                    let _ = poll_once(nodes[node].give_back(at(now)));
                }
                Step::Crash { node: crashed } if with_failures => {
                    nodes[crashed] = node(&remote);
                    made.retain(|(node, ..)| *node != crashed);
                }
                Step::Fail { fault } if with_failures => remote.fail_next(fault),
                _ => {}
            }
            for ((counter, start), sum) in &admitted {
                let tally = remote.tally(&charge(&templates[*counter], 0, None, *start), now);
                if window(&tally) == *start {
                    prop_assert!(tally.used.micros() >= sum * 1_000_000, "{counter} holds {} of {sum}", tally.used);
                }
            }
        }
        if !with_failures {
            for node in &nodes {
                ready(node.give_back(at(now))).unwrap();
            }
            for ((counter, start), sum) in &admitted {
                let tally = remote.tally(&charge(&templates[*counter], 0, None, *start), now);
                if window(&tally) == *start {
                    prop_assert_eq!(tally.used.micros(), sum * 1_000_000, "all slices are given back");
                }
            }
        }
    }
}
