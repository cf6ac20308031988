//! JSON numbers by their exact mathematical value.
//!
//! No integer is converted to a float for a comparison, and no decimal text is rounded to the
//! nearest float.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::LazyLock;

use serde_json::Number;

use crate::json::inline::InlineBytes;

/// The value of a JSON number that a 64-bit integer (signed or not) or a double holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exact {
    Integer(i64),
    /// Above the largest `i64`.
    Large(u64),
    /// Finite.
    Float(f64),
}

impl Exact {
    /// Returns the value of `number`, or `None` if a double does not hold it.
    ///
    /// That happens only if a crate of the build enables `arbitrary_precision` of `serde_json`. A
    /// number is then a text, which two readers may take for two values, so nothing can be decided
    /// on it.
    pub(crate) fn of(number: &Number) -> Option<Self> {
        if let Some(integer) = number.as_i64() {
            return Some(Self::Integer(integer));
        }
        if let Some(integer) = number.as_u64() {
            return Some(Self::Large(integer));
        }
        if *NUMBERS_ARE_TEXT {
            return Self::of_text(ShortText::format(format_args!("{number}")).as_str());
        }
        number.as_f64().filter(|float| float.is_finite()).map(Self::Float)
    }

    /// Returns the value of a number in JSON text, if a 64-bit integer or a double holds it: an
    /// integer as written, or a text whose decimal value equals the shortest form of the nearest
    /// double. Linear in the text.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        if !text.contains(['.', 'e', 'E']) {
            if let Ok(integer) = text.parse::<i64>() {
                return Some(Self::Integer(integer));
            }
            if let Ok(integer) = text.parse::<u64>() {
                return Some(Self::Large(integer));
            }
        }
        let float = text.parse::<f64>().ok().filter(|float| float.is_finite())?;
        (Decimal::of_text(text)? == ShortText::of(float).decimal()?).then_some(Self::Float(float))
    }

    /// Returns the value as an integer if it is whole and within ±2^100, and else as the float that
    /// it is. Equal values have equal results.
    pub(crate) fn to_integer(self) -> Result<i128, f64> {
        match self {
            Self::Integer(integer) => Ok(integer.into()),
            Self::Large(integer) => Ok(integer.into()),
            #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2^100")]
            Self::Float(float) if self.is_whole() && float.abs() < 2f64.powi(100) => Ok(float as i128),
            Self::Float(float) => Err(float),
        }
    }

    /// Returns `true` if readers with doubles hold the same value, and write it with these digits:
    /// each integer within ±(2^53 - 1) is such a number.
    pub(crate) fn is_double(self) -> bool {
        let integer = match self {
            Self::Integer(integer) => i128::from(integer),
            Self::Large(integer) => i128::from(integer),
            Self::Float(_) => return true,
        };
        if integer.unsigned_abs() < 1 << 53 {
            return true;
        }
        #[expect(clippy::cast_precision_loss, reason = "compared with the integer")]
        let float = integer as f64;
        let digits = integer.to_string();
        self == Self::Float(float) && ShortText::of(float).decimal() == Decimal::of_text(&digits)
    }

    /// Returns `true` if the value is whole (`1.0` is).
    pub(crate) fn is_whole(self) -> bool {
        match self {
            Self::Integer(_) | Self::Large(_) => true,
            Self::Float(float) => float.fract() == 0.0,
        }
    }

    /// The value as a `serde_json` number.
    pub(crate) fn to_number(self) -> Option<Number> {
        match self {
            Self::Integer(integer) => Some(integer.into()),
            Self::Large(integer) => Some(integer.into()),
            Self::Float(float) => Number::from_f64(float),
        }
    }
}

impl PartialEq for Exact {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Exact {}

impl PartialOrd for Exact {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Exact {
    fn cmp(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(&b),
            (Self::Large(a), Self::Large(b)) => a.cmp(&b),
            (Self::Integer(_), Self::Large(_)) => Ordering::Less,
            (Self::Large(_), Self::Integer(_)) => Ordering::Greater,
            // Both are finite, so they compare; -0.0 equals 0.0.
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (Self::Integer(a), Self::Float(b)) => compare_integer(a.into(), b),
            (Self::Large(a), Self::Float(b)) => compare_integer(a.into(), b),
            (Self::Float(a), Self::Integer(b)) => compare_integer(b.into(), a).reverse(),
            (Self::Float(a), Self::Large(b)) => compare_integer(b.into(), a).reverse(),
        }
    }
}

/// Compares a 64-bit integer, signed or not, with a finite double.
fn compare_integer(integer: i128, float: f64) -> Ordering {
    // Every such integer is within ±2^64, where the whole part of a double fits an `i128` exactly.
    if float >= 2f64.powi(65) {
        return Ordering::Less;
    }
    if float <= -(2f64.powi(65)) {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2^65")]
    integer.cmp(&(whole as i128)).then_with(|| {
        // The whole parts are equal: the fraction decides.
        0.0.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal)
    })
}

static NUMBERS_ARE_TEXT: LazyLock<bool> = LazyLock::new(|| serde_json::from_str::<Number>("1e400").is_ok());

/// A text without an allocation up to 30 bytes. Any `f64`, `u64` or date in JSON is shorter.
#[derive(Default)]
pub(crate) struct ShortText(InlineBytes<30>);

impl ShortText {
    /// Formats a text.
    pub(crate) fn format(text: fmt::Arguments<'_>) -> Self {
        let mut short = Self::default();
        // Writing to a buffer does not fail.
        let _ = short.write_fmt(text);
        short
    }

    /// The shortest decimal text that reads back as the same double, as JSON writes it; of two that
    /// are equally near, the even one, as in ECMAScript (`{float:e}` takes the larger one). It has
    /// at most 17 digits, a sign, a point, zeros and an exponent.
    pub(crate) fn of(float: f64) -> Self {
        let mut short = Self::default();
        let _ = serde_json::to_writer(&mut short, &float);
        short
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.0.as_slice()).unwrap_or_default()
    }

    pub(crate) fn decimal(&self) -> Option<Decimal<'_>> {
        Decimal::of_text(self.as_str())
    }
}

impl fmt::Write for ShortText {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0.extend([], part.as_bytes());
        Ok(())
    }
}

impl io::Write for ShortText {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.0.extend([], part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A parsed decimal text: ± digits × 10^scale, without zeros at either end of the digits.
#[derive(Clone, Copy)]
pub(crate) struct Decimal<'t> {
    pub(crate) negative: bool,
    /// The digits before the point, and those after it.
    whole: &'t str,
    fraction: &'t str,
    /// The power of ten of the last digit. No text that fits in memory reaches the ends of `i64`.
    pub(crate) scale: i64,
}

impl<'t> Decimal<'t> {
    /// Parses a JSON number. The text must be valid.
    pub(crate) fn of_text(text: &'t str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut decimal = Self {
            negative,
            whole: whole.trim_start_matches('0'),
            fraction: fraction.trim_end_matches('0'),
            scale: exponent,
        };
        if decimal.fraction.is_empty() {
            let trimmed = decimal.whole.trim_end_matches('0');
            let zeros = decimal.whole.len() - trimmed.len();
            decimal.whole = trimmed;
            decimal.scale = exponent.checked_add(i64::try_from(zeros).ok()?)?;
        } else {
            decimal.scale = exponent.checked_sub(i64::try_from(decimal.fraction.len()).ok()?)?;
            if decimal.whole.is_empty() {
                decimal.fraction = decimal.fraction.trim_start_matches('0');
            }
        }
        if decimal.is_zero() {
            (decimal.negative, decimal.scale) = (false, 0);
        }
        Some(decimal)
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    pub(crate) fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.bytes().chain(self.fraction.bytes()).map(|digit| digit.wrapping_sub(b'0'))
    }

    pub(crate) fn digit_count(&self) -> usize {
        self.whole.len() + self.fraction.len()
    }
}

impl PartialEq for Decimal<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.negative == other.negative && self.scale == other.scale && self.digits().eq(other.digits())
    }
}

/// Exponents beyond ±10^15 are cut: no digits that fit in memory bring such a value back into the
/// range of a double.
fn parse_exponent(text: &str) -> Option<i64> {
    const FAR: i64 = 1_000_000_000_000_000;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let size = digits.bytes().fold(0i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(FAR));
    Some(if negative { -size } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Exact {
        Exact::of_text(text).unwrap_or_else(|| panic!("{text} is exact"))
    }

    #[test]
    fn values_ascend() {
        let ascending = [
            "-1.7976931348623157e308",
            "-18446744073709551616e1",
            "-9223372036854775808",
            "-9007199254740993",
            "-9007199254740992.0",
            "-1.5",
            "-1",
            "-5e-324",
            "0",
            "5e-324",
            "0.1",
            "0.30000000000000004",
            "1",
            "1.0000000000000002",
            "9007199254740992",
            "9007199254740993",
            "9007199254740994.0",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551615",
            "1e20",
            "1e300",
        ];
        let ascending: Vec<_> = ascending.iter().filter_map(|text| Exact::of_text(text)).collect();
        assert_eq!(ascending.len(), 21, "one is not held exactly");
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn forms_of_one_value_are_equal() {
        for (a, b) in
            [("100", "1e2"), ("100", "100.0"), ("0", "-0"), ("-0.0", "0.0"), ("5e-1", "0.5"), ("1E+2", "10e1")]
        {
            assert_eq!(exact(a), exact(b), "{a} {b}");
        }
    }

    #[test]
    fn inexact_numbers_are_refused() {
        for text in [
            "1e400",
            "-1e400",
            "1e-400",
            "18446744073709551616",
            "-9223372036854775809",
            "9007199254740993.5",
            "9007199254740993.0",
            "1.0000000000000000001",
            "0.30000000000000000001",
            "0.1000000000000000055511151231257827",
            "1e99999999999999999999",
            "1e-99999999999999999999",
        ] {
            assert!(Exact::of_text(text).is_none(), "{text}");
        }
    }

    #[test]
    fn whole_values() {
        for (text, whole) in [("1", true), ("1.0", true), ("1e20", true), ("1.5", false), ("5e-324", false)] {
            assert_eq!(exact(text).is_whole(), whole, "{text}");
        }
    }

    #[test]
    fn decimals_compare_by_value() {
        let decimal = |text| Decimal::of_text(text).unwrap();
        for (a, b) in [("0.10", "1e-1"), ("00100", "1e2"), ("0.0", "-0e5"), ("12.500", "125e-1"), ("0.00120", "12e-4")]
        {
            assert!(decimal(a) == decimal(b), "{a} {b}");
        }
        assert!(decimal("1.01") != decimal("1.1"));
        for text in ["1e", "1e-", "1ex", "1e5x"] {
            assert!(Decimal::of_text(text).is_none(), "{text}");
        }
        assert_eq!((decimal("12.05").digit_count(), decimal("120").digit_count()), (4, 2));
        assert!(decimal("-1") != decimal("1"));
    }
}
