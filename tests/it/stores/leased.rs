//! Slices of remote counters: never more than the maximum over all nodes, and no refusal that the
//! remote store would not give.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use toolgate::charge::{Charge, Charges, CounterId, Meter, Span, Subject};
use toolgate::store::{
    Answer, AsyncCounterStore, ChargeChange, CounterStore, InProcess, LeasedStore, MemoryStore, Outcome, ReservationId,
    ReserveRequest, SettleRequest, StoreError, Tallies, Tally,
};
use toolgate::{Amount, Policy, Timestamp, ToolCall};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;

/// Asks a future for its answer, once; none if it is not there.
fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    poll_once(future).expect("a store in the process answers at once")
}

/// What becomes of the next request to the remote store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It never arrives.
    Lost,
    /// It is carried out, and the answer is lost.
    AnswerLost,
    /// It is carried out, and the answer never comes: the caller goes away.
    Hangs,
}

/// A store across a network: it counts requests, and fails when it is told to.
#[derive(Default)]
struct Remote {
    store: MemoryStore,
    requests: AtomicU64,
    down: AtomicBool,
    fault: Mutex<Option<Fault>>,
}

impl Remote {
    fn answer<'a, T: Send + 'a>(&self, ask: impl FnOnce() -> Result<T, StoreError>) -> Answer<'a, T> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let fault = self.fault.lock().unwrap().take();
        let fault = if self.down.load(Ordering::Relaxed) { Some(Fault::Lost) } else { fault };
        if fault == Some(Fault::Lost) {
            return Box::pin(std::future::ready(Err(StoreError::Unavailable(None))));
        }
        let answer = ask();
        match fault {
            None => Box::pin(std::future::ready(answer)),
            Some(Fault::Hangs) => Box::pin(std::future::pending()),
            Some(_) => Box::pin(std::future::ready(Err(StoreError::Unavailable(None)))),
        }
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn fail_next(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// What it holds of a counter, without being asked across the network.
    fn stands(&self, charge: &Charge, now: i64) -> Tally {
        let request = [charge.clone()];
        let outcome = self.store.peek(&ReserveRequest::new(ReservationId::new(0), at(now), &request)).unwrap();
        outcome.tallies()[0]
    }
}

impl AsyncCounterStore for Remote {
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> Answer<'a, Outcome> {
        self.answer(|| self.store.reserve(request))
    }

    fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> Answer<'a, Outcome> {
        self.answer(|| {
            let outcome = self.store.peek(request)?;
            // Of a charge that has room an instant means nothing, so none is said.
            let silent = |(tally, charge): (&Tally, &Charge)| {
                let mut tally = *tally;
                tally.retry_at = tally.retry_at.filter(|_| !tally.has_room(charge));
                tally
            };
            let tallies = outcome.tallies().iter().zip(request.charges).map(silent).collect();
            Ok(if matches!(outcome, Outcome::Granted(_)) {
                Outcome::Granted(tallies)
            } else {
                Outcome::Refused(tallies)
            })
        })
    }

    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> Answer<'a, ()> {
        self.answer(|| self.store.settle(request))
    }

    fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> Answer<'a, ()> {
        self.answer(|| self.store.reset(counter, subject))
    }

    fn abandon(&self, request: &SettleRequest<'_>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.store.settle(request).unwrap();
    }
}

/// Charges of one to three counters of fixed windows, and one of another kind, for a caller.
fn templates(caller: &str) -> Charges {
    let limit = |name: &str, more: serde_json::Value| {
        let mut limit = json!({ "counter": name, "window": "minute", "max": 1, "scope": "session" });
        limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        limit
    };
    let limits = [
        limit("a", json!({})),
        limit("b", json!({})),
        limit("c", json!({ "scope": "global" })),
        limit("s", json!({ "algorithm": "sliding" })),
    ];
    let document = json!({ "version": "1", "default": "deny", "tools": { "t": { "limits": limits } } });
    let policy = Policy::from_json(&document.to_string()).unwrap();
    crate::gate::recorded_charges::charges(policy, &ToolCall::new("t", &json!({})).session(caller))
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros)
}

fn units(units: u64) -> Amount {
    Amount::from_micros(units * 1_000_000).unwrap()
}

/// The template, charging so much in the minute of `now`.
fn charge(template: &Charge, amount: u64, max: Option<u64>, now: i64) -> Charge {
    let start = now.div_euclid(MINUTE) * MINUTE;
    let meter = match template.meter {
        Meter::Fixed(_) => Meter::Fixed(Span { start: at(start), end: at(start + MINUTE) }),
        other => other,
    };
    let mut charge = template.clone();
    (charge.amount, charge.max, charge.meter) = (units(amount), max.map(units), meter);
    charge
}

fn next_id() -> ReservationId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    ReservationId::new(NEXT.fetch_add(1, Ordering::Relaxed).into())
}

type Node = LeasedStore<Arc<Remote>>;

/// A node that asks for slices as soon as it can.
fn node(remote: &Arc<Remote>) -> Node {
    LeasedStore::new(Arc::clone(remote)).with_share(4)
}

fn reserve<S: AsyncCounterStore>(store: &S, now: i64, charges: &[Charge]) -> Result<Outcome, StoreError> {
    block_on(store.reserve(&ReserveRequest::new(next_id(), at(now), charges)))
}

fn granted<S: AsyncCounterStore>(store: &S, now: i64, charges: &[Charge]) -> bool {
    matches!(reserve(store, now, charges), Ok(Outcome::Granted(_)))
}

fn settle<S: AsyncCounterStore>(
    store: &S,
    now: i64,
    charges: &[Charge],
    tallies: &Tallies,
    to: u64,
) -> Option<Result<(), StoreError>> {
    let changes: Vec<_> = charges
        .iter()
        .zip(tallies)
        .map(|(charge, tally)| ChargeChange::new(charge, tally.charged_at, units(to)))
        .collect();
    poll_once(store.settle(&SettleRequest::new(next_id(), 1, at(now), &changes)))
}

/// The start of the window that a charge was made in.
fn window(tally: &Tally) -> i64 {
    tally.charged_at.unix_micros().div_euclid(SECOND) * SECOND
}

/// A tally as a store says it that has made the charge itself.
fn plain(tallies: &Tallies, charges: &[Charge]) -> Vec<Tally> {
    let plain = |(tally, charge): (&Tally, &Charge)| {
        let mut tally = *tally;
        if matches!(charge.meter, Meter::Fixed(_)) {
            tally.charged_at = at(window(&tally));
        }
        tally
    };
    tallies.iter().zip(charges).map(plain).collect()
}

/// What is asked of a charge: which counter, how much, which of its maxima.
type Asked = Vec<(usize, u64, Option<u64>)>;

#[derive(Clone, Debug)]
enum Step {
    Call { node: usize, asked: Asked },
    Peek { node: usize, asked: Asked },
    SettleRequest { call: usize, to: u64 },
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

/// Mostly many small calls for one counter or two, so that slices grow.
fn step(nodes: usize, counters: usize) -> impl Strategy<Value = Step> {
    let call = prop_oneof![
        3 => (0..2usize).prop_map(|counter| vec![(counter, 1, Some(40))]),
        2 => asked(counters),
    ];
    prop_oneof![
        20 => (0..nodes, call).prop_map(|(node, asked)| Step::Call { node, asked }),
        2 => (0..nodes, asked(counters)).prop_map(|(node, asked)| Step::Peek { node, asked }),
        6 => (any::<prop::sample::Index>(), prop_oneof![3 => Just(0), 1 => 0..8u64])
            .prop_map(|(call, to)| Step::SettleRequest { call: call.index(1 << 16), to }),
        2 => prop_oneof![4 => 0..2_000i64, 1 => -70_000..70_000i64].prop_map(|millis| Step::Tick { millis }),
        1 => (0..nodes).prop_map(|node| Step::GiveBack { node }),
    ]
}

fn charges_of(templates: &[Charge], asked: &Asked, now: i64) -> Charges {
    asked.iter().map(|(counter, amount, max)| charge(&templates[*counter], *amount, *max, now)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// One node is its remote store: every answer, every tally.
    #[test]
    fn one_node_answers_as_the_store_itself(
        steps in prop::collection::vec(
            prop_oneof![30 => step(1, 4), 1 => (0..4usize).prop_map(|counter| Step::Reset { counter })], 1..120),
        idle in prop_oneof![Just(0u64), Just(1), Just(5)],
    ) {
        let templates = templates("s");
        let remote = Arc::new(Remote::default());
        let node = node(&remote).with_idle(Duration::from_secs(idle));
        let judge = InProcess(MemoryStore::new());
        let mut now = 1_000 * MINUTE;
        let mut made: Vec<(Charges, Tallies, Tallies)> = Vec::new();
        for step in steps {
            match step {
                Step::Call { asked, .. } => {
                    let charges = charges_of(&templates, &asked, now);
                    let (mine, right) = (reserve(&node, now, &charges).unwrap(), reserve(&judge, now, &charges).unwrap());
                    match (&mine, &right) {
                        (Outcome::Granted(mine), Outcome::Granted(right)) => {
                            prop_assert_eq!(plain(mine, &charges), right.to_vec());
                            made.push((charges, mine.clone(), right.clone()));
                        }
                        (Outcome::Refused(mine), Outcome::Refused(right)) => {
                            prop_assert_eq!(plain(mine, &charges), right.to_vec());
                        }
                        _ => prop_assert!(false, "{charges:?}: {mine:?}, not {right:?}"),
                    }
                }
                Step::Peek { asked, .. } => {
                    let charges = charges_of(&templates, &asked, now);
                    let request = ReserveRequest::new(next_id(), at(now), &charges);
                    let (mine, right) = (block_on(node.peek(&request)).unwrap(), block_on(judge.peek(&request)).unwrap());
                    prop_assert_eq!(matches!(mine, Outcome::Granted(_)), matches!(right, Outcome::Granted(_)));
                    let used = |outcome: &Outcome| outcome.tallies().iter().map(|tally| tally.used).collect::<Vec<_>>();
                    prop_assert_eq!(used(&mine), used(&right));
                    let waits = |outcome: &Outcome| -> Vec<_> {
                        let tallies = outcome.tallies().iter().zip(&charges);
                        tallies.map(|(tally, charge)| (!tally.has_room(charge)).then_some(tally.retry_at)).collect()
                    };
                    prop_assert_eq!(waits(&mine), waits(&right));
                }
                Step::SettleRequest { call, to } if !made.is_empty() => {
                    let (charges, mine, right) = made.swap_remove(call % made.len());
                    settle(&node, now, &charges, &mine, to).unwrap().unwrap();
                    settle(&judge, now, &charges, &right, to).unwrap().unwrap();
                }
                Step::Tick { millis } => now += millis * 1_000,
                Step::GiveBack { .. } => block_on(node.give_back(at(now))).unwrap(),
                Step::Reset { counter } => {
                    // Releases of what was charged before a reset mean nothing after it.
                    let Charge { counter, subject, .. } = &templates[counter];
                    made.retain(|(charges, ..)| charges.iter().all(|charge| charge.counter != *counter));
                    block_on(node.reset(*counter, subject)).unwrap();
                    block_on(judge.reset(*counter, subject)).unwrap();
                }
                _ => {}
            }
        }
    }

    /// Nodes crash, requests fail or hang, clocks step: what was admitted is counted at the remote
    /// store, always. Without such misfortune, giving back leaves there exactly what was admitted.
    #[test]
    fn nodes_never_admit_more_than_is_reserved(
        steps in prop::collection::vec(prop_oneof![
            30 => step(3, 3),
            1 => (0..3usize).prop_map(|node| Step::Crash { node }),
            1 => prop::sample::select(vec![Fault::Lost, Fault::AnswerLost, Fault::Hangs]).prop_map(|fault| Step::Fail { fault }),
        ], 1..200),
        misfortune in any::<bool>(),
    ) {
        let templates = templates("s");
        let remote = Arc::new(Remote::default());
        let mut nodes: Vec<_> = (0..3).map(|_| node(&remote)).collect();
        let mut now = 1_000 * MINUTE;
        // Of each counter and window, what was admitted, and what settlements have added to it.
        let mut truth: BTreeMap<(usize, i64), u64> = BTreeMap::new();
        let mut added: BTreeMap<(usize, i64), u64> = BTreeMap::new();
        let mut made: Vec<(usize, Asked, Charges, Tallies)> = Vec::new();
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
                                let sum = truth.entry(key).or_default();
                                *sum += amount;
                                let most = 40 + added.get(&key).copied().unwrap_or(0);
                                let bounded = asked.iter().all(|(_, _, max)| max.is_some());
                                prop_assert!(!bounded || added.contains_key(&key) || *sum <= most);
                            }
                            // What only shadow limits charge counts beyond the maximum.
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
                                let look = block_on(nodes[node].peek(&request)).unwrap();
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
                        prop_assert!(matches!(look, Outcome::Granted(_)), "a look refuses what there is room for");
                    }
                }
                Step::SettleRequest { call, to } if !made.is_empty() => {
                    let (node, asked, charges, tallies) = made.swap_remove(call % made.len());
                    let settled = matches!(settle(&nodes[node], now, &charges, &tallies, to), Some(Ok(())));
                    for ((counter, from, _), tally) in asked.iter().zip(&tallies) {
                        let key = (*counter, window(tally));
                        // One that failed may have been carried out: what it gave back is not
                        // counted on, what it added neither.
                        let to = if settled { to } else { to.min(*from) };
                        // A settlement of a window that is over changes nothing.
                        let stands = remote.stands(&charge(&templates[*counter], 0, None, key.1), now);
                        if window(&stands) == key.1 {
                            let sum = truth.entry(key).or_default();
                            *sum = (*sum + to).saturating_sub(*from);
                            *added.entry(key).or_default() += to.saturating_sub(*from);
                        }
                    }
                }
                Step::Tick { millis } => now += millis * 1_000,
                Step::GiveBack { node } => {
                    let _ = poll_once(nodes[node].give_back(at(now)));
                }
                Step::Crash { node: crashed } if misfortune => {
                    nodes[crashed] = node(&remote);
                    made.retain(|(node, ..)| *node != crashed);
                }
                Step::Fail { fault } if misfortune => remote.fail_next(fault),
                _ => {}
            }
            for ((counter, start), sum) in &truth {
                let tally = remote.stands(&charge(&templates[*counter], 0, None, *start), now);
                if window(&tally) == *start {
                    prop_assert!(tally.used.micros() >= sum * 1_000_000, "{counter} holds {} of {sum}", tally.used);
                }
            }
        }
        if !misfortune {
            for node in &nodes {
                block_on(node.give_back(at(now))).unwrap();
            }
            for ((counter, start), sum) in &truth {
                let tally = remote.stands(&charge(&templates[*counter], 0, None, *start), now);
                if window(&tally) == *start {
                    prop_assert_eq!(tally.used.micros(), sum * 1_000_000, "what is given back is there again");
                }
            }
        }
    }
}

/// Calls until a slice is held.
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
fn under_one_call_in_a_hundred_makes_a_request() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let nodes: Vec<_> = (0..2).map(|_| LeasedStore::new(Arc::clone(&remote))).collect();
    for call in 0..180_000i64 {
        // 1,000 calls a second on each node, for a minute and a half.
        let now = 1_000 * MINUTE + call / 2 * 1_000;
        let charges = [charge(&templates[0], 1, Some(1_000_000), now), charge(&templates[2], 1, Some(2_000_000), now)];
        assert!(granted(&nodes[call as usize % 2], now, &charges));
    }
    assert!(remote.requests() < 1_800, "{} requests", remote.requests());
    let later = 1_000 * MINUTE + 90 * SECOND;
    for node in &nodes {
        block_on(node.give_back(at(later))).unwrap();
    }
    assert_eq!(remote.stands(&charge(&templates[0], 0, None, later), later).used.micros(), 60_000 * 1_000_000);
}

#[test]
fn nothing_is_leased_unless_asked_for() {
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

/// Without room for a counter, or for more than one call, every verb is the remote store's.
#[test]
fn a_node_that_may_hold_nothing_passes_everything_on() {
    let templates = templates("s");
    for terms in [|node: Node| node.with_calls(1), |node: Node| node.with_calls(0), |node: Node| node.with_capacity(0)]
    {
        let remote = Arc::new(Remote::default());
        let node = terms(node(&remote));
        let charges = [charge(&templates[0], 5, Some(40), 0), charge(&templates[3], 5, Some(40), 0)];
        let Ok(Outcome::Granted(tallies)) = reserve(&node, 0, &charges) else { panic!("it has room") };
        assert!(block_on(node.peek(&ReserveRequest::new(next_id(), at(0), &charges))).is_ok());
        assert!(matches!(settle(&node, 0, &charges, &tallies, 3), Some(Ok(()))));
        assert_eq!(remote.requests(), 3);
        let changes = [ChargeChange::new(&charges[0], tallies[0].charged_at, units(1))];
        let mut less = charges.clone();
        less[0].amount = units(3);
        let changes = changes.map(|settled| ChargeChange::new(&less[0], settled.at, settled.to));
        node.abandon(&SettleRequest::new(next_id(), 1, at(0), &changes));
        let held = charges.each_ref().map(|charge| remote.stands(charge, 0).used.micros() / 1_000_000);
        assert_eq!((held, node.is_empty(), node.len()), ([1, 3], true, 0));
        assert!(Arc::ptr_eq(node.inner(), &remote));
    }
}

/// A permit that is dropped frees what is in flight, which no slice serves, and nothing else.
#[test]
fn what_is_abandoned_is_what_no_slice_has_served() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let window = [charge(&templates[0], 1, Some(1_000), 0)];
    let served = served(&node, &window);
    assert_eq!((node.is_empty(), node.len()), (false, 1));
    let before = remote.stands(&window[0], 0).used;
    let mut flight = window.clone();
    (flight[0].counter, flight[0].meter) =
        (serde_json::from_value(json!("0".repeat(32))).unwrap(), Meter::InFlight { lease: 60 });
    let Ok(Outcome::Granted(held)) = reserve(&node, 0, &flight) else { panic!("it has room") };
    assert_eq!(remote.stands(&flight[0], 0).used.micros(), 1_000_000);
    let ended = [
        ChargeChange::new(&window[0], served[0].charged_at, Amount::ZERO),
        ChargeChange::new(&flight[0], held[0].charged_at, Amount::ZERO),
    ];
    let requests = remote.requests();
    node.abandon(&SettleRequest::new(next_id(), 1, at(0), &ended[..1]));
    assert_eq!(remote.requests(), requests);
    assert_eq!(remote.stands(&flight[0], 0).used.micros(), 1_000_000);
    node.abandon(&SettleRequest::new(next_id(), 1, at(0), &ended));
    assert_eq!(remote.stands(&flight[0], 0).used.micros(), 0);
    assert_eq!(remote.stands(&window[0], 0).used, before);
    let shown = format!("{:?}", LeasedStore::new(InProcess(MemoryStore::with_capacity(9))));
    assert!(
        shown.starts_with("LeasedStore { inner: InProcess(MemoryStore { counters: 0, capacity: 9 }), terms: "),
        "{shown}"
    );
}

/// Whatever a request that failed has asked for may be spent: the next one asks for little.
#[test]
fn a_remote_store_that_goes_on_failing_is_asked_for_little() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let charges = [charge(&templates[0], 1, Some(100_000), 0)];
    (0..300).for_each(|_| assert!(granted(&node, 0, &charges)));
    while node.try_reserve(&ReserveRequest::new(next_id(), at(0), &charges)).is_some() {}
    let mut spent = Vec::new();
    for _ in 0..3 {
        let before = remote.stands(&charges[0], 0).used.micros();
        remote.fail_next(Fault::AnswerLost);
        assert!(reserve(&node, 0, &charges).is_err());
        spent.push((remote.stands(&charges[0], 0).used.micros() - before) / 1_000_000);
    }
    assert!(spent[0] > 100 && spent[1..].iter().all(|units| *units <= 2), "{spent:?}");
}

/// A call that costs more than its estimate, or less, makes no request while the slice has room for
/// it.
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

/// Calls until slices serve one, and how it was served.
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

/// A settlement that fails at the remote store has taken nothing out of the slices.
#[test]
fn a_settlement_that_fails_takes_nothing() {
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
    assert!(block_on(node.settle(&SettleRequest::new(id, 1, at(0), &changes))).is_err());
    assert_eq!(used(&node, &charges), before);
    assert!(block_on(node.settle(&SettleRequest::new(id, 1, at(0), &changes))).is_ok());
    assert_eq!(used(&node, &charges), before + 1);
}

#[test]
fn no_wait_is_told_for_what_never_fits() {
    let templates = templates("s");
    let node = node(&Arc::new(Remote::default()));
    // Nothing is known of the counter, then some of it is held, then it is full.
    for calls in [0, 3, 10] {
        for _ in 0..calls {
            granted(&node, 0, &[charge(&templates[0], 1, Some(10), 0)]);
        }
        for amount in [11, 12] {
            let never = [charge(&templates[0], amount, Some(10), 0)];
            let outcome = block_on(node.peek(&ReserveRequest::new(next_id(), at(0), &never))).unwrap();
            assert!(matches!(outcome, Outcome::Refused(_)) && outcome.tallies()[0].retry_at.is_none(), "after {calls}");
        }
    }
    assert_eq!(node.len(), 1);
}

/// What the node says of the counter, in units.
fn used(node: &Node, charges: &[Charge]) -> u64 {
    let outcome = block_on(node.peek(&ReserveRequest::new(next_id(), at(0), charges))).unwrap();
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
        let held = remote.stands(&charges[0], 0).used.micros() / 1_000_000 - served;
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
    assert!(remote.stands(&next[0], MINUTE).used >= toolgate::Total::from_micros(1_000_000));
    // A clock that steps back finds the latest window, here as there.
    let before = [charge(&templates[0], 1, Some(1_000), 0)];
    let Ok(Outcome::Granted(tallies)) = reserve(&node, 0, &before) else { panic!("there is room") };
    assert_eq!(window(&tallies[0]), MINUTE);
}

#[test]
fn a_smaller_maximum_is_not_served_from_what_a_larger_one_has_taken() {
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
fn a_call_of_several_charges_is_made_whole_or_not_at_all() {
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
    assert_eq!(others.len() as u64 + served, 100, "no refused call has burnt anything");
}

#[test]
fn a_remote_store_that_fails_denies_and_loses_nothing_that_is_held() {
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
    assert!(held(&node) > 0, "what the failed calls took is back");
    assert!(reserve(&node, 0, &charges).is_err());
    remote.down.store(false, Ordering::Relaxed);
    assert!(granted(&node, 0, &charges));
    // A call whose future is dropped midway takes nothing from the slice.
    (0..10).for_each(|_| _ = warm(&node, 0, &charges));
    remote.fail_next(Fault::Hangs);
    assert!(poll_once(node.reserve(&ReserveRequest::new(next_id(), at(0), &mixed))).is_none());
    assert!(held(&node) > 0);
}

#[test]
fn what_costs_more_than_its_estimate_is_recorded_somewhere() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let charges = [charge(&templates[0], 1, Some(1_000), 0)];
    warm(&node, 0, &charges);
    let request = ReserveRequest::new(next_id(), at(0), &charges);
    let tallies = loop {
        let Ok(Outcome::Granted(tallies)) = block_on(node.reserve(&request)) else { panic!("there is room") };
        if tallies[0].charged_at.unix_micros() == 1 {
            break tallies;
        }
    };
    let before = tallies[0].used.micros();
    // While the remote store is away nothing changes; then all of it is recorded.
    remote.down.store(true, Ordering::Relaxed);
    assert!(settle(&node, 0, &charges, &tallies, 5_000).unwrap().is_err());
    remote.down.store(false, Ordering::Relaxed);
    settle(&node, 0, &charges, &tallies, 5_000).unwrap().unwrap();
    block_on(node.give_back(at(0))).unwrap();
    assert_eq!(remote.stands(&charges[0], 0).used.micros(), before + 4_999 * 1_000_000);
    assert!(!granted(&node, 0, &charges));
}

#[test]
fn what_is_not_used_goes_back_at_a_later_call() {
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let callers: Vec<_> = (0..40).map(|caller| templates(&format!("s{caller}"))[0].clone()).collect();
    let mut served = Vec::new();
    for caller in &callers {
        served.push(warm(&node, 0, &[charge(caller, 1, Some(1_000), 0)]));
    }
    let now = 10 * SECOND;
    // Others call, one by one.
    for caller in 0..20_000 {
        let other = templates_of_many(&callers[0], caller);
        reserve(&node, now, &[charge(&other, 1, Some(0), now)]).unwrap();
    }
    let left = |(caller, served): (&Charge, &u64)| {
        remote.stands(&charge(caller, 0, None, now), now).used.micros() / 1_000_000 - served
    };
    assert_eq!(callers.iter().zip(&served).map(left).sum::<u64>(), 0);
}

/// The charge for another subject. (Subjects come from callers; a gate makes them one by one, which
/// takes long.)
fn templates_of_many(template: &Charge, caller: usize) -> Charge {
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
fn a_node_knows_of_no_more_counters_than_it_may() {
    let remote = Arc::new(Remote::default());
    let node = node(&remote).with_capacity(10);
    let template = templates("s")[0].clone();
    for caller in 0..500 {
        let charges = [charge(&templates_of_many(&template, caller), 1, Some(3), 0)];
        let calls = (0..6).filter(|_| granted(&node, 0, &charges)).count();
        assert_eq!(calls, 3);
        assert!(node.len() <= 10);
    }
    // When their windows are over, others take their places.
    for caller in 0..500 {
        let now = 10 * MINUTE;
        granted(&node, now, &[charge(&templates_of_many(&template, caller), 1, Some(3), now)]);
    }
    assert!(node.len() <= 10);
}

#[test]
fn a_reset_forgets_the_slice() {
    let templates = templates("s");
    let remote = Arc::new(Remote::default());
    let node = node(&remote);
    let charges = [charge(&templates[0], 1, Some(100), 0)];
    warm(&node, 0, &charges);
    block_on(node.reset(charges[0].counter, &charges[0].subject)).unwrap();
    assert!(node.try_reserve(&ReserveRequest::new(next_id(), at(0), &charges)).is_none());
    let calls = (0..300).filter(|_| granted(&node, 0, &charges)).count();
    assert_eq!(calls, 100);
}

/// A reset whose answer never comes has forgotten the slice, and what was asked meanwhile is not
/// held either.
#[test]
fn a_reset_that_is_dropped_midway_forgets_the_slice() {
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
    assert!(node.is_empty(), "what was leased before the reset had an end is not held after it");
}

#[test]
fn threads_on_two_nodes_admit_the_maximum_and_no_more() {
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
    // What one of them holds is there for the other when it is given back.
    block_on(nodes[1].give_back(at(0))).unwrap();
    while granted(&*nodes[0], 0, &charges) {
        admitted += 1;
    }
    assert_eq!(admitted, MAX);
    block_on(nodes[0].give_back(at(0))).unwrap();
    assert_eq!(remote.stands(&charges[0], 0).used.micros(), MAX * 1_000_000);
    assert_eq!(remote.stands(&charges[1], 0).used.micros(), MAX * 1_000_000);
}

#[test]
fn a_call_that_slices_serve_allocates_nothing() {
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
