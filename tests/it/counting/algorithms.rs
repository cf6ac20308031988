//! The guarantees of each counting algorithm, tested on random calls against plain sums over the
//! admitted ones.

use proptest::prelude::*;
use toolgate::charge::{Charge, CounterId, Meter, Span, Subject};
use toolgate::store::{ChargeChange, ChargedAt, Counter, MemoryStore, Tally, conformance};
use toolgate::{Amount, Timestamp};

use crate::counting::naive_store::NaiveStore;

const SECOND: i64 = 1_000_000;

/// A call: the microseconds since the one before, which may be negative, its amount in millionths,
/// and the percentage that a recent call is settled to after it.
#[derive(Clone, Debug)]
struct Call {
    wait: i64,
    amount: u64,
    settled: Option<u8>,
}

/// Dense and sparse calls for a window of this length.
fn calls(seconds: u32) -> impl Strategy<Value = Vec<Call>> {
    let window = i64::from(seconds) * SECOND;
    let wait = prop_oneof![
        2 => Just(0),
        2 => Just(1),
        6 => 0..window / 64 + 2,
        4 => 0..window / 8,
        1 => window - 1..window + 2,
        1 => -window..0,
    ];
    let amount = prop_oneof![4 => 1u64..4, 1 => 0u64..12, 1 => Just(1_000_000)];
    let call = (wait, amount, prop::option::weighted(0.2, 0u8..100));
    prop::collection::vec(call.prop_map(|(wait, amount, settled)| Call { wait, amount, settled }), 1..80)
}

/// The length of a window in seconds, and calls for it. 7 s divides neither an hour nor a day.
fn windows() -> impl Strategy<Value = (u32, Vec<Call>)> {
    prop::sample::select(vec![1, 7, 60, 3600]).prop_flat_map(|seconds| (Just(seconds), calls(seconds)))
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(1_768_474_800 * SECOND + micros)
}

fn charge(meter: Meter, amount: u64, max: u64) -> Charge {
    let [amount, max] = [amount, max].map(|micros| Amount::from_micros(micros).unwrap());
    Charge::new(CounterId::named("c"), Subject::default(), amount, Some(max), meter)
}

/// Places a fixed window around `now`, as a gate does; other meters stay as they are.
fn placed(meter: Meter, now: Timestamp) -> Meter {
    let Meter::Fixed(span) = meter else { return meter };
    let length = span.end.unix_micros() - span.start.unix_micros();
    let start = now.unix_micros().div_euclid(length) * length;
    let instant = Timestamp::from_unix_micros;
    Meter::Fixed(Span { start: instant(start), end: instant(start + length) })
}

/// An admitted call: its time, the place of its charge, and the amount that counts now.
#[derive(Clone, Copy)]
struct Admitted {
    now: i64,
    place: ChargedAt,
    amount: u64,
}

/// A counter that is charged as a store does, and all the calls that it has admitted.
struct Run {
    counter: Counter,
    meter: Meter,
    max: u64,
    now: i64,
    admitted: Vec<Admitted>,
}

impl Run {
    fn new(meter: Meter, max: u64) -> Self {
        Self { counter: Counter::new(&meter), meter, max, now: 0, admitted: Vec::new() }
    }

    fn tally(&self, charge: &Charge, now: Timestamp) -> Tally {
        let charge = self.charge(charge.amount.micros(), now);
        self.counter.tally(&charge, now).unwrap()
    }

    fn charge(&self, amount: u64, now: Timestamp) -> Charge {
        charge(placed(self.meter, now), amount, self.max)
    }

    /// Makes a call and returns whether it is admitted.
    fn call(&mut self, call: &Call) -> bool {
        self.now += call.wait;
        let now = at(self.now);
        let charge = self.charge(call.amount, now);
        if !self.counter.tally(&charge, now).unwrap().has_room(&charge) {
            return false;
        }
        let place = self.counter.charge(&charge, now).unwrap().charged_at;
        self.admitted.push(Admitted { now: self.now, place, amount: call.amount });
        true
    }

    /// Settles one of the last calls to a part of its amount.
    fn settle(&mut self, call: &Call) {
        let Some(part) = call.settled else { return };
        let index = self.admitted.len().saturating_sub(1 + usize::from(part) % 5);
        let Some(admitted) = self.admitted.get_mut(index) else { return };
        let (amount, to) = (admitted.amount, admitted.amount * u64::from(part) / 100);
        admitted.amount = to;
        let (now, place) = (at(self.now), admitted.place);
        let charge = self.charge(amount, now);
        self.counter.settle(&ChargeChange::new(&charge, place, Amount::from_micros(to).unwrap()), now).unwrap();
    }
}

proptest! {
    /// No interval of the window's length holds more than `max`. It is enough to check, for each
    /// admitted call, the interval that ends with it: an interval that holds too much still does
    /// when it is moved back to end at its last charge.
    #[test]
    fn a_sliding_window_never_exceeds_max_in_any_interval((seconds, calls) in windows(), max in 1u64..20) {
        let mut run = Run::new(Meter::Sliding { seconds }, max);
        for call in &calls {
            if run.call(call) {
                let end = run.admitted.last().unwrap().place.instant.unix_micros();
                let begin = end - i64::from(seconds) * SECOND;
                let within = run.admitted.iter().filter(|other| other.place.instant.unix_micros() > begin);
                let sum: u64 = within.map(|other| other.amount).sum();
                prop_assert!(sum <= max, "{sum} in the {seconds} s up to {end}");
            }
            run.settle(call);
        }
    }

    /// A refused call would also be refused by a log that counts each charge for 1/64 of the window
    /// longer.
    #[test]
    fn a_sliding_window_holds_a_charge_at_most_a_64th_too_long((seconds, calls) in windows(), max in 1u64..20) {
        let mut run = Run::new(Meter::Sliding { seconds }, max);
        for call in &calls {
            if !run.call(call) {
                let latest = run.admitted.iter().map(|other| other.place.instant).max();
                let present = latest.map_or(at(run.now), |latest| latest.max(at(run.now))).unix_micros();
                let begin = present - i64::from(seconds) * (SECOND + SECOND / 64);
                let within = run.admitted.iter().filter(|other| other.place.instant.unix_micros() > begin);
                let sum: u64 = within.map(|other| other.amount).sum();
                prop_assert!(sum + call.amount > max, "{sum} and {} fit", call.amount);
            }
            run.settle(call);
        }
    }

    /// Between any two instants a bucket gives at most its burst and what was refilled between
    /// them.
    #[test]
    fn a_token_bucket_never_exceeds_burst_and_rate(
        (seconds, calls) in windows(),
        burst in 1u64..20,
        refill in 0u64..40,
    ) {
        let meter = Meter::TokenBucket { refill: Amount::from_micros(refill).unwrap(), seconds };
        let mut run = Run::new(meter, burst);
        for call in &calls {
            if !run.call(call) {
                continue;
            }
            let end = run.admitted.last().unwrap().place.instant.unix_micros();
            let mut sum = 0;
            for other in run.admitted.iter().rev() {
                sum += other.amount;
                let refilled = u128::from(refill) * u128::from(end.abs_diff(other.place.instant.unix_micros()));
                let shares = u128::from(seconds) * 1_000_000;
                prop_assert!(u128::from(sum) * shares <= u128::from(burst) * shares + refilled);
            }
        }
    }

    /// At every instant at most `max` is in flight: calls that were admitted, have not ended, and
    /// whose lease has not expired.
    #[test]
    fn at_most_max_is_in_flight((lease, calls) in windows(), max in 1u64..20) {
        let mut run = Run::new(Meter::InFlight { lease }, max);
        for call in &calls {
            // If the clock stepped back, an expired lease would run again.
            let call = Call { wait: call.wait.max(0), ..call.clone() };
            if run.call(&call) {
                let live = run.admitted.iter().filter(|other| other.now + i64::from(lease) * SECOND > run.now);
                prop_assert!(live.map(|other| other.amount).sum::<u64>() <= max);
            }
            run.settle(&call);
        }
    }

    /// A call is refused until the promised instant and admitted at it. No instant is promised
    /// where the call can never pass.
    #[test]
    fn retry_at_is_exact_for_every_meter(
        (seconds, calls) in windows(),
        max in 0u64..20,
        refill in 0u64..40,
        amount in 0u64..24,
        kind in 0..4,
    ) {
        let length = i64::from(seconds) * SECOND;
        let meter = match kind {
            0 => Meter::Fixed(Span { start: Timestamp::UNIX_EPOCH, end: Timestamp::from_unix_micros(length) }),
            1 => Meter::Sliding { seconds },
            2 => Meter::TokenBucket { refill: Amount::from_micros(refill).unwrap(), seconds },
            _ => Meter::InFlight { lease: seconds },
        };
        let mut run = Run::new(meter, max);
        for call in &calls {
            run.call(call);
            run.settle(call);
            let now = at(run.now);
            let probe = charge(meter, amount, max);
            let tally = run.tally(&probe, now);
            if tally.has_room(&probe) {
                continue;
            }
            match tally.retry_at {
                Some(retry) => {
                    prop_assert!(retry > now);
                    let before = Timestamp::from_unix_micros(retry.unix_micros() - 1);
                    prop_assert!(!run.tally(&probe, before).has_room(&probe), "it has room before {retry}");
                    prop_assert!(run.tally(&probe, retry).has_room(&probe), "it has no room at {retry}");
                }
                None => prop_assert!(max == 0 || amount > max || (kind == 2 && refill == 0)),
            }
        }
    }

    #[test]
    fn the_memory_store_agrees_with_the_naive_store(seed: u64) {
        let agreed = conformance::compare(MemoryStore::new(), NaiveStore::default(), seed, 100);
        prop_assert!(agreed.is_ok(), "{}", agreed.unwrap_err());
    }
}
