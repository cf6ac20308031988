//! The keys and arguments of the scripts. `reserve.lua` and `settle.lua` describe the format.

use std::io::Write;

use sha2::{Digest, Sha256};

use crate::amount::Amount;
use crate::call::Identity;
use crate::charge::{Asker, Charge, CounterId, Meter, Span, Subject};
use crate::redis::{LARGEST_EXACT, LATEST_NOW, OutOfRange};
use crate::store::{ChargeChange, Generation, ReservationId, StoreError};
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// Up to this many seconds, every intermediate result of `limbs.lua` is exact: some 405 days. A
/// policy has 400 at most.
const MAX_SECONDS: u32 = 35_000_000;
const MILLION: u64 = 1_000_000;

fn out_of_range(what: &'static str) -> StoreError {
    StoreError::unavailable(OutOfRange(what))
}

/// The names of keys: the tag in braces, a letter for the kind of entry, and fixed-length bytes
/// before any that a caller chose.
pub(super) struct Keys {
    prefix: String,
    /// The identity by whose name keys are spread over tags.
    partition: Option<Identity>,
}

/// The hash tag of keys, which are on one node of a cluster: the prefix, and for a partition its
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag(Option<u16>);

/// The number of partitions: enough to spread over any cluster, and few enough to list.
const PARTITIONS: u16 = 1_024;

impl Tag {
    /// The prefix alone: for subjects that lack the identity.
    pub(super) const HOME: Self = Self(None);
    /// One of the partitions.
    pub(super) const FIRST: Self = Self(Some(0));
}

impl Keys {
    pub(super) fn new(prefix: String, partition: Option<Identity>) -> Self {
        Self { prefix, partition }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn is_partitioned(&self) -> bool {
        self.partition.is_some()
    }

    /// Returns the tag of a subject's counters.
    pub(super) fn tag(&self, subject: &Subject) -> Tag {
        let Some(name) = self.partition.and_then(|identity| subject.name_of(identity)) else { return Tag::HOME };
        // The prefix is a key, so that two stores do not fill the same partitions.
        let hash = Sha256::new().chain_update(&self.prefix).chain_update([0]).chain_update(name).finalize();
        let number = hash.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
        Tag(Some(number % PARTITIONS))
    }

    fn key(&self, tag: Tag, letter: u8, start: &[u8], rest: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + 10 + start.len() + rest.len());
        key.push(b'{');
        key.extend_from_slice(self.prefix.as_bytes());
        if let Tag(Some(partition)) = tag {
            // Writing to memory does not fail.
            let _ = write!(key, "/{partition}");
        }
        key.extend_from_slice(&[b'}', b':', letter, b':']);
        key.extend_from_slice(start);
        key.extend_from_slice(rest);
        key
    }

    pub(super) fn counter(&self, tag: Tag, counter: CounterId, subject: &Subject) -> Vec<u8> {
        self.key(tag, b'c', counter.as_bytes(), subject.as_bytes())
    }

    /// Returns a key that no entry has.
    pub(super) fn unused(&self, tag: Tag) -> Vec<u8> {
        self.key(tag, b'c', b"check", b"")
    }

    /// Returns the key for the counters of an asker.
    pub(super) fn asker(&self, tag: Tag, asker: Asker<'_>) -> Vec<u8> {
        self.key(tag, b'k', asker.key().as_bytes(), b"")
    }

    /// Returns the key for the record of a reservation (step 0) or of one of its settlements.
    pub(super) fn record(&self, tag: Tag, id: ReservationId, step: u32) -> Vec<u8> {
        self.key(tag, b'r', &id.get().to_be_bytes(), &step.to_be_bytes())
    }
}

/// An argument of a script: numbers, and in some arguments a number as text after them.
pub(super) type Argument = Vec<u8>;

/// Writes numbers as little-endian doubles.
#[expect(clippy::cast_precision_loss, reason = "none is above 2^53")]
pub(super) fn encode(numbers: &[i64]) -> Argument {
    let mut argument = Vec::with_capacity(96);
    for number in numbers {
        argument.extend_from_slice(&(*number as f64).to_le_bytes());
    }
    argument
}

/// Appends a generation.
pub(super) fn with_generation(mut argument: Argument, generation: Generation) -> Argument {
    argument.extend_from_slice(&generation.get().to_le_bytes());
    argument
}

/// Appends a number as text.
pub(super) fn with_text(mut argument: Argument, number: i64) -> Argument {
    // Writing to memory does not fail.
    let _ = write!(argument, "{number}");
    argument
}

/// Returns the present in microseconds, if it is exact in the scripts.
pub(super) fn exact_now(now: Timestamp) -> Result<i64, StoreError> {
    let micros = now.unix_micros();
    let is_exact = (0..=LATEST_NOW).contains(&micros);
    is_exact.then_some(micros).ok_or_else(|| StoreError::unavailable(OutOfRange::CLOCK))
}

/// Splits millionths into whole units and the millionths beside them.
fn limbs(micros: u64) -> [i64; 2] {
    [micros / MILLION, micros % MILLION].map(|limb| i64::try_from(limb).unwrap_or(i64::MAX))
}

/// A meter as numbers of the scripts.
struct MeterNumbers {
    kind: i64,
    start: i64,
    seconds: u32,
    /// The refill of a token bucket in a microsecond: whole millionths, and parts of one.
    rate: [i64; 2],
}

impl MeterNumbers {
    fn of(meter: &Meter) -> Result<Self, StoreError> {
        let none = [0, 0];
        let numbers = match *meter {
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
        // The scripts only compare the start of a fixed window, so one without end is exact too.
        // Its key expires in the year 2106.
        let is_lifetime = matches!(meter, Meter::Fixed(Span::LIFETIME));
        if (numbers.seconds > MAX_SECONDS && !is_lifetime) || !(-LATEST_NOW..=LATEST_NOW).contains(&numbers.start) {
            return Err(out_of_range("the window or the lease is too long to be counted exactly"));
        }
        Ok(numbers)
    }
}

/// Writes a charge for `reserve.lua`. A counter is kept for `late` microseconds after its end.
pub(super) fn encode_charge(charge: &Charge, now: i64, late: i64) -> Result<Argument, StoreError> {
    let MeterNumbers { kind, start, seconds, rate: [whole, parts] } = MeterNumbers::of(&charge.meter)?;
    let [units, millionths] = limbs(charge.amount.micros());
    let [max_units, max_millionths] = charge.max.map_or([-1, 0], |max| limbs(max.micros()));
    let seconds = i64::from(seconds);
    let argument = encode(&[kind, units, millionths, max_units, max_millionths, start, seconds, whole, parts]);
    let from = match charge.meter {
        Meter::Fixed(_) => start,
        // The end depends on the level, which the script knows.
        Meter::TokenBucket { .. } => return Ok(argument),
        _ => now,
    };
    let end = from.saturating_add(seconds * MICROS_PER_SECOND).saturating_add(late).min(LARGEST_EXACT);
    Ok(with_text(argument, end / 1_000 + 1))
}

/// Writes a change of a charge for `settle.lua`.
pub(super) fn encode_change(change: &ChargeChange<'_>) -> Result<Argument, StoreError> {
    let MeterNumbers { kind, seconds, rate: [whole, parts], .. } = MeterNumbers::of(&change.charge.meter)?;
    let (from, to) = (change.charge.amount, change.to);
    let difference = from.micros().abs_diff(to.micros());
    let at = change.at.instant.unix_micros();
    let lease_end = change.lease_end.map(Timestamp::unix_micros);
    if [at, lease_end.unwrap_or(at)].iter().any(|at| !(-LARGEST_EXACT..=LARGEST_EXACT).contains(at)) {
        return Err(out_of_range("no charge was made at this instant"));
    }
    let (becomes, amount, whole, parts) = match (lease_end, from) {
        (Some(lease_end), _) => (3, from.micros(), lease_end, 0),
        _ if to < from => (0, difference, whole, parts),
        (_, Amount::ZERO) if to > from => (2, difference, whole, parts),
        _ => (1, difference, whole, parts),
    };
    let [units, millionths] = limbs(amount);
    let numbers = encode(&[kind, at, i64::from(seconds), becomes, units, millionths, whole, parts]);
    Ok(with_generation(numbers, change.at.generation))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::answers::Doubles;
    use super::*;
    use crate::charge::Span;
    use crate::store::ChargedAt;

    pub(in crate::store::redis) fn span(start: i64, seconds: i64) -> Span {
        let instant = Timestamp::from_unix_micros;
        Span { start: instant(start), end: instant(start.saturating_add(seconds * MICROS_PER_SECOND)) }
    }

    pub(in crate::store::redis) fn charge(meter: Meter, amount: u64, max: Option<u64>) -> Charge {
        let amount_of = |micros| Amount::from_micros(micros).unwrap();
        let (counter, subject) = (CounterId::of(["c"]), Subject::default());
        Charge { counter, subject, amount: amount_of(amount), max: max.map(amount_of), meter }
    }

    /// Returns the numbers of an argument, and the text after them.
    fn read(argument: &[u8], count: usize) -> (Vec<i64>, String) {
        let mut numbers = Doubles(argument);
        let read = (0..count).map(|_| numbers.whole().unwrap()).collect();
        (read, String::from_utf8(numbers.0.to_vec()).unwrap())
    }

    #[test]
    fn encodes_charges() {
        let refill = Amount::from_micros(61_000_001).unwrap();
        for (meter, written, expires) in [
            (Meter::Fixed(span(60_000_000, 60)), [0, 1, 500_000, 2, 3, 60_000_000, 60, 0, 0], "122001"),
            (Meter::Fixed(span(-60_000_000, 1)), [0, 1, 500_000, 2, 3, -60_000_000, 1, 0, 0], "-56999"),
            (Meter::Sliding { seconds: 30 }, [1, 1, 500_000, 2, 3, 0, 30, 0, 0], "39001"),
            (Meter::TokenBucket { refill, seconds: 60 }, [2, 1, 500_000, 2, 3, 0, 60, 1, 1_000_001], ""),
            (Meter::InFlight { lease: 9 }, [3, 1, 500_000, 2, 3, 0, 9, 0, 0], "18001"),
        ] {
            let argument = encode_charge(&charge(meter, 1_500_000, Some(2_000_003)), 7_000_000, 2_000_000).unwrap();
            assert_eq!(read(&argument, 9), (written.to_vec(), expires.to_owned()), "{meter:?}");
        }
        let unbounded = encode_charge(&charge(Meter::Sliding { seconds: 1 }, 0, None), 0, 0).unwrap();
        assert_eq!(read(&unbounded, 9), (vec![1, 0, 0, -1, 0, 0, 1, 0, 0], "1001".to_owned()));
    }

    #[test]
    fn rejects_charges_that_are_not_exact_in_the_scripts() {
        let fits = |meter| encode_charge(&charge(meter, 1, None), 0, 0).is_ok();
        let longest = i64::from(MAX_SECONDS);
        for (meter, want) in [
            (Meter::Fixed(span(0, longest)), true),
            (Meter::Fixed(span(0, longest + 1)), false),
            (Meter::Fixed(Span::LIFETIME), true),
            (Meter::Fixed(span(LATEST_NOW, 1)), true),
            (Meter::Fixed(span(LATEST_NOW + 1, 1)), false),
            (Meter::Fixed(span(-LATEST_NOW, 1)), true),
            (Meter::Fixed(span(-LATEST_NOW - 1, 1)), false),
            (Meter::Sliding { seconds: MAX_SECONDS }, true),
            (Meter::Sliding { seconds: MAX_SECONDS + 1 }, false),
            (Meter::InFlight { lease: u32::MAX }, false),
        ] {
            assert_eq!(fits(meter), want, "{meter:?}");
        }
        let instants = [(-1, false), (0, true), (LATEST_NOW, true), (LATEST_NOW + 1, false)];
        for (micros, want) in instants {
            assert_eq!(exact_now(Timestamp::from_unix_micros(micros)).ok(), want.then_some(micros));
        }
    }

    #[test]
    fn encodes_changes() {
        let meter = Meter::Sliding { seconds: 30 };
        let written = |from, to, at| {
            let charge = charge(meter, from, None);
            let to = Amount::from_micros(to).unwrap();
            let at = ChargedAt { instant: Timestamp::from_unix_micros(at), generation: Generation::new(7) };
            let written = encode_change(&ChargeChange::new(&charge, at, to)).ok()?;
            let (numbers, generation) = written.split_at(64);
            assert_eq!(generation, [7, 0, 0, 0, 0, 0, 0, 0]);
            Some(read(numbers, 8).0)
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
        for (at, fits) in
            [(LARGEST_EXACT, true), (LARGEST_EXACT + 1, false), (-LARGEST_EXACT, true), (-LARGEST_EXACT - 1, false)]
        {
            assert_eq!(written(1, 0, at).is_some(), fits, "{at}");
        }
    }
}
