//! What is sent to the scripts, and what they answer: `reserve.lua` and `settle.lua` say how it is written.

use std::io::Write;

use redis::Value;

use crate::amount::{Amount, Total};
use crate::charge::{Charge, CounterId, Meter, Subject};
use crate::redis::{Beyond, Cause, EXACT, LATEST};
use crate::store::{ChargeChange, Counter, Outcome, ReservationId, StoreError, Tallies, Tally};
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// Up to so many seconds every intermediate of `limbs.lua` is exact: some 405 days, and a policy has 400 at most.
const LONGEST: u32 = 35_000_000;
const MILLION: u64 = 1_000_000;

fn beyond(what: &'static str) -> StoreError {
    unavailable(Beyond(what).into())
}

/// An answer that no script gives.
pub(super) fn nonsense() -> StoreError {
    unavailable(Beyond::NONSENSE.into())
}

/// The server could not tell.
pub(super) fn unavailable(cause: Cause) -> StoreError {
    StoreError::unavailable(cause)
}

/// The names of keys: the tag in braces, a letter for what is kept, and bytes of one length before any that a caller chose.
pub(super) struct Keys {
    counter: Vec<u8>,
    record: Vec<u8>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        let of = |letter: char| format!("{{{prefix}}}:{letter}:").into_bytes();
        Self { counter: of('c'), record: of('r') }
    }

    pub(super) fn counter(&self, counter: CounterId, subject: &Subject) -> Vec<u8> {
        [&*self.counter, counter.as_bytes(), subject.as_bytes()].concat()
    }

    /// Of a reservation (step 0) or one of its settlements.
    pub(super) fn record(&self, id: ReservationId, step: u32) -> Vec<u8> {
        [&*self.record, &id.get().to_be_bytes(), &step.to_be_bytes()].concat()
    }
}

/// An argument as the scripts read it: numbers, and perhaps the text of another one behind them.
pub(super) type Argument = Vec<u8>;

#[expect(clippy::cast_precision_loss, reason = "none is above 2^53")]
pub(super) fn numbers(numbers: &[i64]) -> Argument {
    let mut argument = Vec::with_capacity(96);
    for number in numbers {
        argument.extend_from_slice(&(*number as f64).to_le_bytes());
    }
    argument
}

pub(super) fn with_text(mut argument: Argument, number: i64) -> Argument {
    // Nothing that is written to memory fails.
    let _ = write!(argument, "{number}");
    argument
}

/// The present in microseconds, if the scripts can hold it.
pub(super) fn present(now: Timestamp) -> Result<i64, StoreError> {
    let micros = now.unix_micros();
    let within = (0..=LATEST).contains(&micros);
    within.then_some(micros).ok_or_else(|| unavailable(Beyond::CLOCK.into()))
}

fn limbs(micros: u64) -> [i64; 2] {
    [micros / MILLION, micros % MILLION].map(|limb| i64::try_from(limb).unwrap_or(i64::MAX))
}

/// A meter as the scripts read it.
struct Measure {
    kind: i64,
    start: i64,
    seconds: u32,
    /// What comes back to a bucket in a microsecond: whole millionths, and parts of one.
    rate: [i64; 2],
}

impl Measure {
    fn of(meter: &Meter) -> Result<Self, StoreError> {
        let none = [0, 0];
        let measure = match *meter {
            Meter::Fixed(window) => {
                let (start, end) = (window.start.unix_micros(), window.end.unix_micros());
                let seconds = end.saturating_sub(start).max(1).unsigned_abs().div_ceil(MILLION);
                let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
                Self { kind: 0, start, seconds, rate: none }
            }
            Meter::Sliding { seconds } => Self { kind: 1, start: 0, seconds: seconds.max(1), rate: none },
            Meter::TokenBucket { refill, seconds } => {
                let seconds = seconds.max(1);
                let parts = u64::from(seconds).saturating_mul(MILLION);
                let rate = [refill.micros() / parts, refill.micros() % parts];
                let rate = rate.map(|part| i64::try_from(part).unwrap_or(i64::MAX));
                Self { kind: 2, start: 0, seconds, rate }
            }
            Meter::InFlight { lease } => Self { kind: 3, start: 0, seconds: lease, rate: none },
        };
        if measure.seconds > LONGEST || !(-LATEST..=LATEST).contains(&measure.start) {
            return Err(beyond("a window or a lease is longer than the store can count exactly"));
        }
        Ok(measure)
    }
}

/// A charge as `reserve.lua` reads it.
pub(super) fn charged(charge: &Charge, now: i64, late: i64) -> Result<Argument, StoreError> {
    let Measure { kind, start, seconds, rate: [whole, parts] } = Measure::of(&charge.meter)?;
    let [units, millionths] = limbs(charge.amount.micros());
    let [max_units, max_millionths] = charge.max.map_or([-1, 0], |max| limbs(max.micros()));
    let seconds = i64::from(seconds);
    let argument = numbers(&[kind, units, millionths, max_units, max_millionths, start, seconds, whole, parts]);
    // Of a bucket it hangs on what is in it.
    let from = match charge.meter {
        Meter::Fixed(_) => start,
        Meter::TokenBucket { .. } => return Ok(argument),
        _ => now,
    };
    let end = from.saturating_add(seconds * MICROS_PER_SECOND).saturating_add(late).min(EXACT);
    Ok(with_text(argument, end / 1_000 + 1))
}

/// A charge that changes, as `settle.lua` reads it.
pub(super) fn settled(settled: &ChargeChange<'_>) -> Result<Argument, StoreError> {
    let Measure { kind, seconds, rate: [whole, parts], .. } = Measure::of(&settled.charge.meter)?;
    let (from, to) = (settled.charge.amount, settled.to);
    let [units, millionths] = limbs(from.micros().abs_diff(to.micros()));
    let at = settled.at.unix_micros();
    if !(-EXACT..=EXACT).contains(&at) {
        return Err(beyond("no charge was made at such an instant"));
    }
    let becomes = match from {
        _ if to < from => 0,
        Amount::ZERO if to > from => 2,
        _ => 1,
    };
    Ok(numbers(&[kind, at, i64::from(seconds), becomes, units, millionths, whole, parts]))
}

/// What the clocks may differ by, to say so in an error.
#[derive(Clone, Copy)]
pub(super) struct Bound(pub(super) u64);

impl Bound {
    /// The states of the counters, or why there are none.
    fn states(self, answer: Value) -> Result<Vec<Value>, StoreError> {
        let Value::Array(mut parts) = answer else { return Err(nonsense()) };
        match *parts.as_slice() {
            [Value::Int(0), ..] => {
                parts.remove(0);
                Ok(parts)
            }
            [Value::Int(1), Value::Int(skew_millis)] => {
                Err(StoreError::ClockSkew { skew_millis, bound_millis: self.0 })
            }
            [Value::Int(2)] => Err(StoreError::Corrupt),
            [Value::Int(3), Value::Int(most)] => {
                Err(StoreError::Full { capacity: usize::try_from(most).unwrap_or_default() })
            }
            _ => Err(nonsense()),
        }
    }

    /// What `settle.lua` answered.
    pub(super) fn done(self, answer: Value) -> Result<(), StoreError> {
        if self.states(answer)?.is_empty() { Ok(()) } else { Err(nonsense()) }
    }

    /// How the counters stand that `reserve.lua` has only looked at.
    pub(super) fn looked(self, answer: Value, charges: &[Charge], now: Timestamp) -> Result<Outcome, StoreError> {
        let states = self.states(answer)?;
        if states.len() != charges.len() {
            return Err(nonsense());
        }
        let mut room = true;
        let mut tallies = Tallies::new();
        for (charge, state) in charges.iter().zip(states) {
            let Value::BulkString(state) = state else { return Err(nonsense()) };
            let counter = match state.is_empty() {
                true => Counter::new(&charge.meter),
                false => counter(&state, charge).ok_or(StoreError::Corrupt)?,
            };
            let tally = counter.tally(charge, now)?;
            room &= tally.has_room(charge);
            tallies.push(tally);
        }
        Ok(if room { Outcome::Granted(tallies) } else { Outcome::Refused(tallies) })
    }

    /// What `reserve.lua` answered when it was to charge.
    pub(super) fn reserved(self, answer: Value, charges: &[Charge], now: Timestamp) -> Result<Outcome, StoreError> {
        let Value::BulkString(sums) = answer else {
            return match self.looked(answer, charges, now)? {
                refused @ Outcome::Refused(_) => Ok(refused),
                // The server refuses what has room by its own account. Nothing was charged, so nothing is granted.
                Outcome::Granted(_) => Err(StoreError::Corrupt),
            };
        };
        let (parts, []) = sums.as_chunks::<{ 1 + 5 * 8 }>() else { return Err(nonsense()) };
        if parts.len() != charges.len() {
            return Err(nonsense());
        }
        let tallies = charges.iter().zip(parts).map(|(charge, part)| made(charge, part, now));
        tallies.collect::<Option<_>>().map(Outcome::Granted).ok_or(StoreError::Corrupt)
    }
}

/// How a counter stands after a charge; none if no charge leads there.
fn made(charge: &Charge, part: &[u8], now: Timestamp) -> Option<Tally> {
    let (letter, part) = part.split_first()?;
    let mut numbers = Doubles(part);
    let (at, other, sum) = (numbers.whole()?, numbers.whole()?, numbers.total()?);
    let not_before = at >= now.unix_micros();
    let instant = Timestamp::from_unix_micros(at);
    let mut tally = match (letter, charge.meter) {
        (b'F', Meter::Fixed(window)) if at >= window.start.unix_micros() => {
            Counter::of_fixed(at, u32::try_from(other).ok()?, sum)?.tally(charge, now).ok()?
        }
        (b'S', Meter::Sliding { seconds }) if not_before => {
            // `other` is when a slot that holds something was charged last; -1 where none does.
            let length = std::time::Duration::from_secs(seconds.max(1).into());
            let resets_at = if other < 0 { now } else { Timestamp::from_unix_micros(other).saturating_add(length) };
            Tally { used: sum, resets_at, retry_at: None, charged_at: instant }
        }
        (b'B', Meter::TokenBucket { refill, seconds }) if not_before => {
            let level = level(sum, other, seconds.max(1))?;
            Counter::of_bucket(seconds.max(1), refill, level, at)?.tally(charge, now).ok()?
        }
        (b'I', Meter::InFlight { lease }) => {
            let until = now.saturating_add(std::time::Duration::from_secs(lease.into()));
            if charge.amount > Amount::ZERO && instant < until {
                return None;
            }
            // Where nothing is in flight `at` is -1.
            Tally { used: sum, resets_at: instant.max(now), retry_at: None, charged_at: until }
        }
        _ => return None,
    };
    let holds = tally.used.micros() >= charge.amount.micros();
    let fits = charge.max.is_none_or(|max| max > Amount::ZERO && tally.used.micros() <= max.micros());
    if !matches!(charge.meter, Meter::Fixed(_)) {
        tally.retry_at = None;
    }
    (holds && fits).then_some(tally)
}

fn level(sum: Total, parts: i64, seconds: u32) -> Option<u128> {
    let whole = u128::from(seconds) * u128::from(MILLION);
    let parts = u128::try_from(parts).ok().filter(|parts| *parts < whole)?;
    Some(u128::from(sum.micros()) * whole + parts)
}

/// The counter that a state stands for; none if it is that of no charges, or of another kind than the charge.
fn counter(state: &[u8], charge: &Charge) -> Option<Counter> {
    let (letter, rest) = state.split_first()?;
    let mut numbers = Doubles(rest);
    let counter = match (letter, charge.meter) {
        (b'F', Meter::Fixed(_)) => {
            let (start, seconds, used, _) = (numbers.whole()?, numbers.seconds()?, numbers.total()?, numbers.whole()?);
            Counter::of_fixed(start, seconds, used)
        }
        (b'S', Meter::Sliding { .. }) => {
            let (seconds, _) = (numbers.seconds()?, numbers.total()?);
            Counter::of_sliding(seconds, numbers.timed()?.into_iter())
        }
        (b'B', Meter::TokenBucket { refill, .. }) => {
            let (seconds, at, sum, parts) = (numbers.seconds()?, numbers.whole()?, numbers.total()?, numbers.whole()?);
            Counter::of_bucket(seconds, refill, level(sum, parts, seconds)?, at)
        }
        (b'I', Meter::InFlight { .. }) => Counter::of_in_flight(numbers.total()?, numbers.timed()?.into_iter()),
        _ => None,
    };
    counter.filter(|_| numbers.0.is_empty())
}

/// Reads what [`Numbers`] writes.
struct Doubles<'b>(&'b [u8]);

impl Doubles<'_> {
    fn whole(&mut self) -> Option<i64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        let number = f64::from_le_bytes(*bytes);
        #[expect(clippy::cast_precision_loss, reason = "a power of two")]
        let exact = number.fract() == 0.0 && number.abs() <= EXACT as f64;
        #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2^53")]
        exact.then_some(number as i64)
    }

    fn seconds(&mut self) -> Option<u32> {
        self.whole().and_then(|seconds| u32::try_from(seconds).ok())
    }

    fn total(&mut self) -> Option<Total> {
        let [units, millionths] = [self.whole()?, self.whole()?].map(u64::try_from);
        let millionths = millionths.ok().filter(|millionths| *millionths < MILLION)?;
        units.ok()?.checked_mul(MILLION)?.checked_add(millionths).map(Total::from_micros)
    }

    /// The rest, as instants with sums.
    fn timed(&mut self) -> Option<Vec<(i64, Total)>> {
        let mut all = Vec::with_capacity(self.0.len() / 24);
        while !self.0.is_empty() {
            all.push((self.whole()?, self.total()?));
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charge::Span;

    fn span(start: i64, seconds: i64) -> Span {
        let instant = Timestamp::from_unix_micros;
        Span { start: instant(start), end: instant(start.saturating_add(seconds * MICROS_PER_SECOND)) }
    }

    fn charge(meter: Meter, amount: u64, max: Option<u64>) -> Charge {
        let amount_of = |micros| Amount::from_micros(micros).unwrap();
        let (counter, subject) = (CounterId::of(["c"]), Subject::default());
        Charge { counter, subject, amount: amount_of(amount), max: max.map(amount_of), meter }
    }

    /// The numbers of an argument, and the text behind them.
    fn read(argument: &[u8], count: usize) -> (Vec<i64>, String) {
        let mut numbers = Doubles(argument);
        let read = (0..count).map(|_| numbers.whole().unwrap()).collect();
        (read, String::from_utf8(numbers.0.to_vec()).unwrap())
    }

    #[test]
    fn charges_are_written_as_the_scripts_read_them() {
        let refill = Amount::from_micros(61_000_001).unwrap();
        for (meter, written, expires) in [
            (Meter::Fixed(span(60_000_000, 60)), [0, 1, 500_000, 2, 3, 60_000_000, 60, 0, 0], "122001"),
            (Meter::Fixed(span(-60_000_000, 1)), [0, 1, 500_000, 2, 3, -60_000_000, 1, 0, 0], "-56999"),
            (Meter::Sliding { seconds: 30 }, [1, 1, 500_000, 2, 3, 0, 30, 0, 0], "39001"),
            (Meter::TokenBucket { refill, seconds: 60 }, [2, 1, 500_000, 2, 3, 0, 60, 1, 1_000_001], ""),
            (Meter::InFlight { lease: 9 }, [3, 1, 500_000, 2, 3, 0, 9, 0, 0], "18001"),
        ] {
            let argument = charged(&charge(meter, 1_500_000, Some(2_000_003)), 7_000_000, 2_000_000).unwrap();
            assert_eq!(read(&argument, 9), (written.to_vec(), expires.to_owned()), "{meter:?}");
        }
        let unbounded = charged(&charge(Meter::Sliding { seconds: 1 }, 0, None), 0, 0).unwrap();
        assert_eq!(read(&unbounded, 9), (vec![1, 0, 0, -1, 0, 0, 1, 0, 0], "1001".to_owned()));
    }

    #[test]
    fn what_the_scripts_cannot_count_exactly_is_not_sent() {
        let fits = |meter| charged(&charge(meter, 1, None), 0, 0).is_ok();
        let longest = i64::from(LONGEST);
        for (meter, want) in [
            (Meter::Fixed(span(0, longest)), true),
            (Meter::Fixed(span(0, longest + 1)), false),
            (Meter::Fixed(span(LATEST, 1)), true),
            (Meter::Fixed(span(LATEST + 1, 1)), false),
            (Meter::Fixed(span(-LATEST, 1)), true),
            (Meter::Fixed(span(-LATEST - 1, 1)), false),
            (Meter::Sliding { seconds: LONGEST }, true),
            (Meter::Sliding { seconds: LONGEST + 1 }, false),
            (Meter::InFlight { lease: u32::MAX }, false),
        ] {
            assert_eq!(fits(meter), want, "{meter:?}");
        }
        let instants = [(-1, false), (0, true), (LATEST, true), (LATEST + 1, false)];
        for (micros, want) in instants {
            assert_eq!(present(Timestamp::from_unix_micros(micros)).ok(), want.then_some(micros));
        }
    }

    #[test]
    fn changes_are_written_as_the_scripts_read_them() {
        let meter = Meter::Sliding { seconds: 30 };
        let written = |from, to, at| {
            let charge = charge(meter, from, None);
            let to = Amount::from_micros(to).unwrap();
            settled(&ChargeChange::new(&charge, Timestamp::from_unix_micros(at), to))
                .ok()
                .map(|written| read(&written, 8).0)
        };
        for (from, to, becomes, [units, millionths]) in [
            (2_000_005, 0, 0, [2, 5]),
            (2_000_005, 1_000_000, 0, [1, 5]),
            (0, 7, 2, [0, 7]),
            (1, 1_000_003, 1, [1, 2]),
            (5, 5, 1, [0, 0]),
            (0, 0, 1, [0, 0]),
        ] {
            assert_eq!(written(from, to, 99), Some(vec![1, 99, 30, becomes, units, millionths, 0, 0]), "{from} {to}");
        }
        for (at, fits) in [(EXACT, true), (EXACT + 1, false), (-EXACT, true), (-EXACT - 1, false)] {
            assert_eq!(written(1, 0, at).is_some(), fits, "{at}");
        }
    }

    const NOW: Timestamp = Timestamp::from_unix_micros(70_000_000);

    /// What becomes of an answer to one charge: its letter, and an instant, another number, units and millionths.
    fn answered(charge: &Charge, letter: u8, told: [i64; 4]) -> Option<Tally> {
        let [at, other, units, millionths] = told;
        let mut answer = vec![letter];
        answer.extend(numbers(&[at, other, units, millionths, 0]));
        match Bound(0).reserved(Value::BulkString(answer), std::slice::from_ref(charge), NOW) {
            Ok(outcome) => Some(outcome.tallies()[0]),
            Err(error) => {
                assert!(matches!(error, StoreError::Corrupt));
                None
            }
        }
    }

    #[test]
    fn only_what_charges_lead_to_is_granted() {
        let refill = Amount::from_micros(60).unwrap();
        let fixed = Meter::Fixed(span(60_000_000, 60));
        let (sliding, flight) = (Meter::Sliding { seconds: 30 }, Meter::InFlight { lease: 9 });
        let bucket = Meter::TokenBucket { refill, seconds: 60 };
        for (meter, letter, told, granted) in [
            (fixed, b'F', [60_000_000, 60, 0, 5], true),
            (fixed, b'F', [120_000_000, 60, 0, 5], true),
            (fixed, b'F', [59_999_999, 60, 0, 5], false),
            (fixed, b'F', [60_000_000, 0, 0, 5], false),
            (fixed, b'S', [70_000_000, 60, 0, 5], false),
            (fixed, b'F', [60_000_000, 60, 0, 4], false),
            (fixed, b'F', [60_000_000, 60, 0, 11], false),
            (sliding, b'S', [70_000_000, -1, 0, 5], true),
            (sliding, b'S', [69_999_999, -1, 0, 5], false),
            (bucket, b'B', [70_000_000, 59_999_999, 0, 5], true),
            (bucket, b'B', [70_000_000, 60_000_000, 0, 5], false),
            (bucket, b'B', [69_999_999, 0, 0, 5], false),
            (flight, b'I', [79_000_000, 0, 0, 5], true),
            (flight, b'I', [78_999_999, 0, 0, 5], false),
        ] {
            let tally = answered(&charge(meter, 5, Some(10)), letter, told);
            assert_eq!(tally.is_some(), granted, "{meter:?} {told:?}");
        }
        assert!(
            answered(&charge(fixed, 0, Some(0)), b'F', [60_000_000, 60, 0, 0]).is_none(),
            "nothing is refused less"
        );
        assert!(answered(&charge(fixed, 0, None), b'F', [59_999_999, 60, 0, 0]).is_none(), "an earlier window");
        assert!(answered(&charge(flight, 0, Some(9)), b'I', [-1, 0, 0, 0]).is_some());
    }

    #[test]
    fn a_granted_charge_stands_as_the_scripts_say() {
        let refill = Amount::from_micros(1).unwrap();
        let instant = Timestamp::from_unix_micros;
        for (meter, letter, told, [resets, charged]) in [
            (Meter::Fixed(span(60_000_000, 60)), b'F', [60_000_000, 60, 0, 5], [120_000_000, 60_000_000]),
            (Meter::Sliding { seconds: 30 }, b'S', [70_000_001, 0, 0, 5], [30_000_000, 70_000_001]),
            (Meter::Sliding { seconds: 30 }, b'S', [70_000_001, -1, 0, 5], [70_000_000, 70_000_001]),
            (Meter::TokenBucket { refill, seconds: 1 }, b'B', [70_000_000, 0, 0, 5], [75_000_000, 70_000_000]),
            (Meter::InFlight { lease: 9 }, b'I', [90_000_000, 0, 0, 5], [90_000_000, 79_000_000]),
        ] {
            let tally = answered(&charge(meter, 5, None), letter, told).unwrap();
            let is_fixed = matches!(meter, Meter::Fixed(_));
            assert_eq!((tally.used.micros(), tally.retry_at.is_some()), (5, is_fixed), "{meter:?}");
            assert_eq!((tally.resets_at, tally.charged_at), (instant(resets), instant(charged)), "{meter:?}");
        }
    }

    /// A settlement has no states to tell, so a server that tells some has not done what it was asked.
    #[test]
    fn a_settlement_is_done_only_if_nothing_else_is_said() {
        let array = |parts: &[i64]| Value::Array(parts.iter().map(|part| Value::Int(*part)).collect());
        assert!(Bound(0).done(array(&[0])).is_ok());
        for other in [array(&[]), array(&[0, 0]), array(&[4]), Value::Int(0), Value::Nil] {
            assert!(matches!(Bound(0).done(other), Err(StoreError::Unavailable { .. })));
        }
        assert!(matches!(Bound(0).done(array(&[2])), Err(StoreError::Corrupt)));
        let skewed = Bound(7).done(array(&[1, -8]));
        assert!(matches!(skewed, Err(StoreError::ClockSkew { skew_millis: -8, bound_millis: 7 })));
    }

    #[test]
    fn numbers_are_whole_and_exact() {
        let whole = |number: f64| Doubles(&number.to_le_bytes()).whole();
        assert_eq!([whole(9_007_199_254_740_992.0), whole(-3.0)], [Some(EXACT), Some(-3)]);
        for odd in [0.5, 9_007_199_254_740_994.0, f64::NAN, f64::INFINITY] {
            assert_eq!(whole(odd), None, "{odd}");
        }
        let total = |units, millionths| Doubles(&numbers(&[units, millionths])).total().map(Total::micros);
        assert_eq!(total(2, 999_999), Some(2_999_999));
        assert_eq!([total(2, 1_000_000), total(-1, 0), total(0, -1), total(EXACT, 0)], [None; 4]);
        assert!(Doubles(&[0; 7]).whole().is_none());
    }
}
