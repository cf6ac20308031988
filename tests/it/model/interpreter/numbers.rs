//! Numbers and amounts.

use std::cmp::Ordering;

use serde_json::{Number, Value};

/// One unit of an amount, in micro-units.
pub(super) const UNIT: u128 = 1_000_000;

/// The largest valid amount, in micro-units.
pub(super) const LARGEST: u128 = 9_000_000_000_000 * UNIT;

pub(super) fn order(a: &Number, b: &Number) -> Ordering {
    let ((a_negative, a), (b_negative, b)) = (exact(a), exact(b));
    let magnitudes = (a.len(), a).cmp(&(b.len(), b));
    match (a_negative, b_negative) {
        (false, false) => magnitudes,
        (true, true) => magnitudes.reverse(),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

pub(super) fn integer(number: &Number) -> Option<i128> {
    let signed = number.as_i64().map(i128::from);
    signed.or(number.as_u64().map(i128::from))
}

/// Returns a number as an integer multiple of 2^-1074, which every `f64` is: whether it is
/// negative, and the binary digits of its magnitude without leading zeros.
pub(super) fn exact(number: &Number) -> (bool, String) {
    let (negative, magnitude, shift) = match integer(number) {
        Some(integer) => (integer < 0, integer.unsigned_abs(), 1074),
        None => {
            let bits = number.as_f64().expect("a double").to_bits();
            let exponent = (bits >> 52) as usize & 0x7ff;
            let fraction = u128::from(bits & ((1 << 52) - 1));
            let negative = bits >> 63 == 1 && (exponent, fraction) != (0, 0);
            match exponent {
                0 => (negative, fraction, 0),
                _ => (negative, fraction + (1 << 52), exponent - 1),
            }
        }
    };
    let digits = format!("{magnitude:b}{}", "0".repeat(shift));
    (negative, digits.trim_start_matches('0').to_string())
}

pub(super) fn is_whole(number: &Number) -> bool {
    integer(number).is_some() || number.as_f64().is_some_and(|double| double.fract() == 0.0)
}

/// Returns an amount in micro-units, from the shortest decimal form of the number. Returns `None`
/// if it is not a valid amount.
pub(super) fn amount(value: &Value) -> Option<u128> {
    let number = value.as_number()?;
    let decimal = match integer(number) {
        Some(integer) => integer.to_string(),
        None => number.as_f64()?.to_string(),
    };
    let decimal = match decimal.strip_prefix('-') {
        Some("0") => "0",
        Some(_) => return None,
        None => &decimal,
    };
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    if fraction.len() > 6 || whole.len() > 13 {
        return None;
    }
    let micros = format!("{whole}{fraction:0<6}").parse().expect("up to 19 digits");
    (micros <= LARGEST).then_some(micros)
}
