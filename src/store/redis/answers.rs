//! The answers of the scripts. `reserve.lua` and `settle.lua` describe the format.

use redis::Value;

use crate::amount::{Amount, Total};
use crate::charge::{Charge, Meter};
use crate::redis::{Cause, LARGEST_EXACT, UnexpectedAnswer};
use crate::store::{ChargedAt, Counter, Generation, Outcome, StoreError, Tallies, Tally};
use crate::time::Timestamp;

const MILLION: u64 = 1_000_000;

pub(super) fn unexpected() -> StoreError {
    unavailable(UnexpectedAnswer.into())
}

pub(super) fn unavailable(cause: Cause) -> StoreError {
    StoreError::unavailable(cause)
}

/// The largest skew between clocks in milliseconds, for errors. It reads the answers.
#[derive(Clone, Copy)]
pub(super) struct SkewBound(pub(super) u64);

impl SkewBound {
    /// Returns the states of the counters, or the error that the script reports.
    fn states(self, answer: Value) -> Result<Vec<Value>, StoreError> {
        let Value::Array(mut parts) = answer else { return Err(unexpected()) };
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
            [Value::Int(4), Value::Int(share)] => {
                Err(StoreError::ShareFull { share: usize::try_from(share).unwrap_or_default() })
            }
            _ => Err(unexpected()),
        }
    }

    /// Reads an answer of `settle.lua`.
    pub(super) fn settled(self, answer: Value) -> Result<(), StoreError> {
        if self.states(answer)?.is_empty() { Ok(()) } else { Err(unexpected()) }
    }

    /// Reads an answer of `reserve.lua` to a look.
    pub(super) fn peeked(self, answer: Value, charges: &[Charge], now: Timestamp) -> Result<Outcome, StoreError> {
        let states = self.states(answer)?;
        if states.len() != charges.len() {
            return Err(unexpected());
        }
        let mut room = true;
        let mut tallies = Tallies::new();
        for (charge, state) in charges.iter().zip(states) {
            let Value::BulkString(state) = state else { return Err(unexpected()) };
            let (counter, generation) = match state.is_empty() {
                true => (Counter::new(&charge.meter), Generation::new(0)),
                false => decode_counter(&state, charge).ok_or(StoreError::Corrupt)?,
            };
            let tally = counter.tally(charge, now)?.of(generation);
            room &= tally.has_room(charge);
            tallies.push(tally);
        }
        Ok(if room { Outcome::Granted(tallies) } else { Outcome::Refused(tallies) })
    }

    /// Reads an answer of `reserve.lua` to a reservation.
    pub(super) fn reserved(self, answer: Value, charges: &[Charge], now: Timestamp) -> Result<Outcome, StoreError> {
        let Value::BulkString(sums) = answer else {
            return match self.peeked(answer, charges, now)? {
                refused @ Outcome::Refused(_) => Ok(refused),
                // The script refused, but the states that it returned have room. Nothing was
                // charged, so nothing is granted.
                Outcome::Granted(_) => Err(StoreError::Corrupt),
            };
        };
        let (parts, []) = sums.as_chunks::<{ 1 + 8 + 5 * 8 }>() else { return Err(unexpected()) };
        if parts.len() != charges.len() {
            return Err(unexpected());
        }
        let tallies = charges.iter().zip(parts).map(|(charge, part)| tally_after(charge, part, now));
        tallies.collect::<Option<_>>().map(Outcome::Granted).ok_or(StoreError::Corrupt)
    }
}

/// Reads the state of a counter after a charge. Returns `None` for one that this charge cannot
/// produce.
fn tally_after(charge: &Charge, part: &[u8], now: Timestamp) -> Option<Tally> {
    let (letter, generation, part) = head(part)?;
    let mut numbers = Doubles(part);
    let (at, other, sum) = (numbers.whole()?, numbers.whole()?, numbers.total()?);
    let not_before = at >= now.unix_micros();
    let instant = Timestamp::from_unix_micros(at);
    let mut tally = match (letter, charge.meter) {
        (b'F', Meter::Fixed(window)) if at >= window.start.unix_micros() => {
            Counter::of_fixed(at, u32::try_from(other).ok()?, sum)?.tally(charge, now).ok()?
        }
        (b'S', Meter::Sliding { seconds }) if not_before => {
            // `other` is when the newest slot above zero was charged last, or -1 if there is none.
            let length = std::time::Duration::from_secs(seconds.max(1).into());
            let resets_at = if other < 0 { now } else { Timestamp::from_unix_micros(other).saturating_add(length) };
            Tally { used: sum, resets_at, retry_at: None, charged_at: ChargedAt { instant, generation } }
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
            // If nothing is in flight, `at` is -1.
            let charged_at = ChargedAt { instant: until, generation };
            Tally { used: sum, resets_at: instant.max(now), retry_at: None, charged_at }
        }
        _ => return None,
    };
    let holds = tally.used.micros() >= charge.amount.micros();
    let fits = charge.max.is_none_or(|max| max > Amount::ZERO && tally.used.micros() <= max.micros());
    if !matches!(charge.meter, Meter::Fixed(_)) {
        tally.retry_at = None;
    }
    (holds && fits).then(|| tally.of(generation))
}

fn level(sum: Total, parts: i64, seconds: u32) -> Option<u128> {
    let whole = u128::from(seconds) * u128::from(MILLION);
    let parts = u128::try_from(parts).ok().filter(|parts| *parts < whole)?;
    Some(u128::from(sum.micros()) * whole + parts)
}

/// Reads the letter and the generation with which every state begins.
fn head(state: &[u8]) -> Option<(&u8, Generation, &[u8])> {
    let (letter, rest) = state.split_first()?;
    let (generation, rest) = rest.split_first_chunk()?;
    Some((letter, Generation::new(u64::from_le_bytes(*generation)), rest))
}

/// Reads a state. Returns `None` for one that charges cannot produce, or of another kind than the
/// charge.
fn decode_counter(state: &[u8], charge: &Charge) -> Option<(Counter, Generation)> {
    let (letter, generation, rest) = head(state)?;
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
    counter.filter(|_| numbers.0.is_empty()).map(|counter| (counter, generation))
}

/// A reader of little-endian doubles.
pub(super) struct Doubles<'b>(pub(super) &'b [u8]);

impl Doubles<'_> {
    /// Reads an integer of at most 2^53.
    pub(super) fn whole(&mut self) -> Option<i64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        let number = f64::from_le_bytes(*bytes);
        #[expect(clippy::cast_precision_loss, reason = "a power of two")]
        let exact = number.fract() == 0.0 && number.abs() <= LARGEST_EXACT as f64;
        #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2^53")]
        exact.then_some(number as i64)
    }

    fn seconds(&mut self) -> Option<u32> {
        self.whole().and_then(|seconds| u32::try_from(seconds).ok())
    }

    /// Reads a sum: whole units, then millionths.
    fn total(&mut self) -> Option<Total> {
        let [units, millionths] = [self.whole()?, self.whole()?].map(u64::try_from);
        let millionths = millionths.ok().filter(|millionths| *millionths < MILLION)?;
        units.ok()?.checked_mul(MILLION)?.checked_add(millionths).map(Total::from_micros)
    }

    /// Reads the rest as pairs of an instant and a sum.
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
    use super::super::arguments::encode;
    use super::super::arguments::tests::{charge, span};
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_micros(70_000_000);

    /// Reads an answer to one charge: its letter, an instant, another number, units and millionths.
    fn answered(charge: &Charge, letter: u8, numbers: [i64; 4]) -> Option<Tally> {
        let [at, other, units, millionths] = numbers;
        let mut answer = vec![letter, 1, 0, 0, 0, 0, 0, 0, 0];
        answer.extend(encode(&[at, other, units, millionths, 0]));
        match SkewBound(0).reserved(Value::BulkString(answer), std::slice::from_ref(charge), NOW) {
            Ok(outcome) => Some(outcome.tallies()[0]),
            Err(error) => {
                assert!(matches!(error, StoreError::Corrupt));
                None
            }
        }
    }

    #[test]
    fn rejects_sums_that_the_charge_cannot_produce() {
        let refill = Amount::from_micros(60).unwrap();
        let fixed = Meter::Fixed(span(60_000_000, 60));
        let (sliding, flight) = (Meter::Sliding { seconds: 30 }, Meter::InFlight { lease: 9 });
        let bucket = Meter::TokenBucket { refill, seconds: 60 };
        for (meter, letter, numbers, granted) in [
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
            let tally = answered(&charge(meter, 5, Some(10)), letter, numbers);
            assert_eq!(tally.is_some(), granted, "{meter:?} {numbers:?}");
        }
        assert!(
            answered(&charge(fixed, 0, Some(0)), b'F', [60_000_000, 60, 0, 0]).is_none(),
            "a max of zero refuses all"
        );
        assert!(answered(&charge(fixed, 0, None), b'F', [59_999_999, 60, 0, 0]).is_none(), "an earlier window");
        assert!(answered(&charge(flight, 0, Some(9)), b'I', [-1, 0, 0, 0]).is_some());
    }

    #[test]
    fn reads_tallies_of_granted_charges() {
        let refill = Amount::from_micros(1).unwrap();
        let instant = Timestamp::from_unix_micros;
        for (meter, letter, numbers, [resets, charged]) in [
            (Meter::Fixed(span(60_000_000, 60)), b'F', [60_000_000, 60, 0, 5], [120_000_000, 60_000_000]),
            (Meter::Sliding { seconds: 30 }, b'S', [70_000_001, 0, 0, 5], [30_000_000, 70_000_001]),
            (Meter::Sliding { seconds: 30 }, b'S', [70_000_001, -1, 0, 5], [70_000_000, 70_000_001]),
            (Meter::TokenBucket { refill, seconds: 1 }, b'B', [70_000_000, 0, 0, 5], [75_000_000, 70_000_000]),
            (Meter::InFlight { lease: 9 }, b'I', [90_000_000, 0, 0, 5], [90_000_000, 79_000_000]),
        ] {
            let tally = answered(&charge(meter, 5, None), letter, numbers).unwrap();
            let is_fixed = matches!(meter, Meter::Fixed(_));
            assert_eq!((tally.used.micros(), tally.retry_at.is_some()), (5, is_fixed), "{meter:?}");
            let charged_at = ChargedAt { instant: instant(charged), generation: Generation::new(1) };
            assert_eq!((tally.resets_at, tally.charged_at), (instant(resets), charged_at), "{meter:?}");
        }
    }

    /// A settlement returns no states: a server that returns some has done something else.
    #[test]
    fn accepts_only_an_empty_answer_to_a_settlement() {
        let array = |parts: &[i64]| Value::Array(parts.iter().map(|part| Value::Int(*part)).collect());
        assert!(SkewBound(0).settled(array(&[0])).is_ok());
        for other in [array(&[]), array(&[0, 0]), array(&[4]), Value::Int(0), Value::Nil] {
            assert!(matches!(SkewBound(0).settled(other), Err(StoreError::Unavailable { .. })));
        }
        assert!(matches!(SkewBound(0).settled(array(&[2])), Err(StoreError::Corrupt)));
        let skewed = SkewBound(7).settled(array(&[1, -8]));
        assert!(matches!(skewed, Err(StoreError::ClockSkew { skew_millis: -8, bound_millis: 7 })));
    }

    #[test]
    fn reads_only_whole_and_exact_numbers() {
        let whole = |number: f64| Doubles(&number.to_le_bytes()).whole();
        assert_eq!([whole(9_007_199_254_740_992.0), whole(-3.0)], [Some(LARGEST_EXACT), Some(-3)]);
        for odd in [0.5, 9_007_199_254_740_994.0, f64::NAN, f64::INFINITY] {
            assert_eq!(whole(odd), None, "{odd}");
        }
        let total = |units, millionths| Doubles(&encode(&[units, millionths])).total().map(Total::micros);
        assert_eq!(total(2, 999_999), Some(2_999_999));
        assert_eq!([total(2, 1_000_000), total(-1, 0), total(0, -1), total(LARGEST_EXACT, 0)], [None; 4]);
        assert!(Doubles(&[0; 7]).whole().is_none());
    }
}
