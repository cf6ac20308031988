//! Exact decimal amounts: the cost of a call, and the maximum of a limit.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Number;

use crate::json::number::{Decimal, Exact, ShortText};

/// An amount from 0 to 9,000,000,000,000 with at most six decimals, held exactly.
///
/// Amounts count calls, money or bytes. They are decimals, never floats: ten times 0.1 is 1.
///
/// ```
/// use toolgate::Amount;
///
/// let tenth: Amount = "0.1".parse()?;
/// assert_eq!(tenth.micros() * 10, Amount::ONE.micros());
/// assert_eq!(Amount::from(12), "12".parse()?);
/// assert!("0.0000001".parse::<Amount>().is_err());
/// # Ok::<(), toolgate::AmountError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(u64);

/// The number is not a valid amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmountError {
    /// `-1`: an amount that gives budget back would undo the limit.
    #[error("an amount is not negative")]
    Negative,
    /// `0.0000001`: the seventh decimal would be lost.
    #[error("an amount has at most six decimals")]
    TooPrecise,
    /// `9000000000001`.
    #[error("an amount is at most 9000000000000")]
    TooLarge,
    /// `"5"`, `1e`: not a number.
    #[error("an amount is a number")]
    NotANumber,
}

impl Amount {
    /// Zero.
    pub const ZERO: Self = Self(0);
    /// One, the default cost of a call.
    pub const ONE: Self = Self(MICROS);
    /// The largest amount, 9,000,000,000,000.
    pub const MAX: Self = Self(9_000_000_000_000 * MICROS);

    /// Returns the amount in millionths.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Creates an amount from millionths. Returns `None` above [`Amount::MAX`].
    pub const fn from_micros(micros: u64) -> Option<Self> {
        if micros <= Self::MAX.0 { Some(Self(micros)) } else { None }
    }

    /// Converts a JSON number. An `f64` is taken as its shortest decimal text.
    ///
    /// # Errors
    /// `-1`, `0.0000001`, `9000000000001`.
    pub fn from_number(number: &Number) -> Result<Self, AmountError> {
        Self::from_exact(Exact::of(number).ok_or(AmountError::TooPrecise)?)
    }

    /// Converts a JSON number as [`from_number`](Self::from_number) does, and rounds it up to the
    /// next millionth: for costs as machines write them, such as `0.00001725`. A budget that is
    /// settled at rounded costs is then never exceeded.
    ///
    /// # Errors
    /// `-1`, `9000000000001`.
    pub fn from_number_up(number: &Number) -> Result<Self, AmountError> {
        Self::from_exact_up(Exact::of(number).ok_or(AmountError::NotANumber)?)
    }

    /// Converts an `f64`, which is taken as its shortest decimal text, and rounds it up to the next
    /// millionth.
    ///
    /// ```
    /// use toolgate::Amount;
    ///
    /// // 115 tokens at 0.15 for a million of them.
    /// assert_eq!(Amount::from_f64_up(115.0 * 0.15 / 1e6)?, "0.000018".parse()?);
    /// assert_eq!(Amount::from_f64_up(0.1)?, "0.1".parse()?);
    /// assert_eq!(Amount::from_f64_up(0.1 + 0.2)?, "0.300001".parse()?);
    /// assert!(Amount::from_f64_up(-0.1).is_err());
    /// # Ok::<(), toolgate::AmountError>(())
    /// ```
    ///
    /// # Errors
    /// A number below zero or above [`Amount::MAX`], an infinity or NaN.
    pub fn from_f64_up(number: f64) -> Result<Self, AmountError> {
        if !number.is_finite() {
            return Err(AmountError::NotANumber);
        }
        Self::from_exact_up(Exact::Float(number))
    }

    fn from_exact_up(value: Exact) -> Result<Self, AmountError> {
        match (Self::from_exact(value), value) {
            (Err(AmountError::TooPrecise), Exact::Float(float)) => {
                Self::rounded_up(&ShortText::of(float).decimal().ok_or(AmountError::NotANumber)?)
            }
            (amount, _) => amount,
        }
    }

    /// Rounds up a decimal that is positive, not too large and too precise.
    fn rounded_up(decimal: &Decimal<'_>) -> Result<Self, AmountError> {
        // The digits before the seventh decimal. The last digit of a decimal is not zero, so what
        // is cut off is more than nothing.
        let kept = decimal.scale.saturating_add(6).saturating_add_unsigned(decimal.digit_count() as u64);
        let kept = usize::try_from(kept).unwrap_or(0);
        let micros = decimal.digits().take(kept).fold(0u128, |sum, digit| sum * 10 + u128::from(digit));
        u64::try_from(micros + 1).ok().and_then(Self::from_micros).ok_or(AmountError::TooLarge)
    }

    pub(crate) fn from_exact(value: Exact) -> Result<Self, AmountError> {
        match value {
            Exact::Integer(integer) => match u64::try_from(integer) {
                Ok(units) if units <= Self::MAX.0 / MICROS => Ok(Self(units * MICROS)),
                Ok(_) => Err(AmountError::TooLarge),
                Err(_) => Err(AmountError::Negative),
            },
            Exact::Large(_) => Err(AmountError::TooLarge),
            Exact::Float(float) => Self::from_decimal(&ShortText::of(float).decimal().ok_or(AmountError::NotANumber)?),
        }
    }

    /// Converts the digits of a number in JSON text.
    pub(crate) fn from_decimal(decimal: &Decimal<'_>) -> Result<Self, AmountError> {
        if decimal.is_zero() {
            return Ok(Self::ZERO);
        }
        if decimal.negative {
            return Err(AmountError::Negative);
        }
        // 9e12 has thirteen digits before the point. The digits have no trailing zeros.
        if decimal.scale > 12 || decimal.scale.saturating_add_unsigned(decimal.digit_count() as u64) > 13 {
            return Err(AmountError::TooLarge);
        }
        if decimal.scale < -6 {
            return Err(AmountError::TooPrecise);
        }
        // At most 13 digits before the point and 6 after it: 19 digits, which fit into a `u128`.
        let digits = decimal.digits().fold(0u128, |sum, digit| sum * 10 + u128::from(digit));
        let places = u32::try_from(decimal.scale + 6).map_err(|_| AmountError::TooPrecise)?;
        let micros = digits * 10u128.pow(places);
        u64::try_from(micros).ok().and_then(Self::from_micros).ok_or(AmountError::TooLarge)
    }
}

const MICROS: u64 = 1_000_000;

/// Writes a decimal without trailing zeros: `12`, `0.5`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Total(self.0).fmt(f)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Converts whole units: every `u32` is an amount.
impl From<u32> for Amount {
    fn from(units: u32) -> Self {
        Self(u64::from(units) * MICROS)
    }
}

/// Reads a JSON number.
impl std::str::FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let plain = text.strip_prefix('-').unwrap_or(text);
        let digits = |run: &str| !run.is_empty() && run.bytes().all(|b| b.is_ascii_digit());
        let mantissa = plain.split(['e', 'E']).next().unwrap_or_default();
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        if !digits(whole) || !digits(fraction) {
            return Err(AmountError::NotANumber);
        }
        Self::from_decimal(&Decimal::of_text(text).ok_or(AmountError::NotANumber)?)
    }
}

/// Writes a number: an integer if the amount is whole, else the nearest `f64`, which is exact up to
/// fifteen digits.
impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Total(self.0).serialize(serializer)
    }
}

/// The sum of the amounts that were charged to a counter, in millionths.
///
/// It can exceed [`Amount::MAX`], because a shadow limit continues to count past its `max`. It
/// never wraps: at `u64::MAX` it stays until its window ends, which is the safe side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Total(u64);

impl Total {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// Returns the sum in millionths.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Creates a sum from millionths.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Returns the sum plus `amount`.
    #[must_use = "returns the new sum and does not change the original"]
    pub const fn plus(self, amount: Amount) -> Self {
        Self(self.0.saturating_add(amount.0))
    }

    /// Returns the sum plus some millionths.
    pub(crate) const fn plus_micros(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Returns the sum minus `amount`, at least zero. A sum of `u64::MAX` stays.
    #[must_use = "returns the new sum and does not change the original"]
    pub const fn minus(self, amount: Amount) -> Self {
        if self.0 == u64::MAX { self } else { Self(self.0.saturating_sub(amount.0)) }
    }

    /// Returns the sum with its part `from` replaced by `to`.
    #[must_use = "returns the new sum and does not change the original"]
    pub(crate) const fn replace(self, from: Amount, to: Amount) -> Self {
        // In one step, so that a sum of `u64::MAX` stays.
        if to.0 >= from.0 { self.plus(Amount(to.0 - from.0)) } else { self.minus(Amount(from.0 - to.0)) }
    }

    /// Returns what is left up to `max`.
    pub fn remaining(self, max: Amount) -> Amount {
        Amount(max.0.saturating_sub(self.0))
    }

    /// Returns `true` if `amount` can be added without exceeding `max`. A `max` of zero has no
    /// room, not even for zero.
    pub fn has_room(self, amount: Amount, max: Amount) -> bool {
        max > Amount::ZERO && self.0.checked_add(amount.0).is_some_and(|sum| sum <= max.0)
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, millionths) = (self.0 / MICROS, self.0 % MICROS);
        if millionths == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{millionths:06}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl fmt::Debug for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Total {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(MICROS) {
            return serializer.serialize_u64(self.0 / MICROS);
        }
        match self.to_string().parse::<f64>() {
            Ok(float) => serializer.serialize_f64(float),
            Err(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_up_to_the_next_millionth() {
        use AmountError::{Negative, NotANumber, TooLarge};
        for (number, want) in [
            (0.0, Ok(0)),
            (-0.0, Ok(0)),
            (5e-324, Ok(1)),
            (1e-7, Ok(1)),
            (1e-6, Ok(1)),
            (0.000_001_000_1, Ok(2)),
            (0.000_017_25, Ok(18)),
            (0.1, Ok(100_000)),
            (0.300_000_000_000_000_04, Ok(300_001)),
            (59.970_000_000_000_01, Ok(59_970_001)),
            (0.999_999_5, Ok(1_000_000)),
            (9e12, Ok(9_000_000_000_000_000_000)),
            (9_000_000_000_000.002, Err(TooLarge)),
            (1e300, Err(TooLarge)),
            (-1e-9, Err(Negative)),
            (-1.0, Err(Negative)),
            (f64::NAN, Err(NotANumber)),
            (f64::INFINITY, Err(NotANumber)),
        ] {
            assert_eq!(Amount::from_f64_up(number).map(Amount::micros), want, "{number:e}");
            if let Some(json) = Number::from_f64(number) {
                assert_eq!(Amount::from_number_up(&json).map(Amount::micros), want, "{json}");
            }
        }
        assert_eq!(Amount::from_number_up(&7.into()), Ok(Amount::from(7)));
        assert_eq!(Amount::from_number_up(&u64::MAX.into()), Err(TooLarge));
    }

    #[test]
    fn parses_texts_exactly() {
        use AmountError::{Negative, NotANumber, TooLarge, TooPrecise};
        for (text, want) in [
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("-0.0", Ok(0)),
            ("1", Ok(1_000_000)),
            ("1e2", Ok(100_000_000)),
            ("0.1", Ok(100_000)),
            ("0.10", Ok(100_000)),
            ("1e-6", Ok(1)),
            ("10.0e-7", Ok(1)),
            ("9000000000000", Ok(9_000_000_000_000_000_000)),
            ("8999999999999.999999", Ok(8_999_999_999_999_999_999)),
            ("9000000000000.000001", Err(TooLarge)),
            ("9000000000001", Err(TooLarge)),
            ("1e13", Err(TooLarge)),
            ("1111111111111111111111111111111111111111111111111111111111111111", Err(TooLarge)),
            ("1111111111111111111111111111111111111111111111111111111111111111.5", Err(TooLarge)),
            ("1e999999999999999999999", Err(TooLarge)),
            ("1e-7", Err(TooPrecise)),
            ("1e-999999999999999999999", Err(TooPrecise)),
            ("1.0000001", Err(TooPrecise)),
            ("-1", Err(Negative)),
            ("-1e-9", Err(Negative)),
            ("", Err(NotANumber)),
            ("x", Err(NotANumber)),
            ("1.", Err(NotANumber)),
            (".5", Err(NotANumber)),
            ("1e", Err(NotANumber)),
            ("1e5x", Err(NotANumber)),
        ] {
            assert_eq!(text.parse::<Amount>().map(Amount::micros), want, "{text}");
        }
    }

    #[test]
    fn converts_floats_by_their_shortest_text() {
        for (float, want) in [
            (0.1, Ok(100_000)),
            (0.3, Ok(300_000)),
            (1e-6, Ok(1)),
            (9e12, Ok(9_000_000_000_000_000_000)),
            (999_999_999.999_999, Ok(999_999_999_999_999)),
            (0.1 + 0.2, Err(AmountError::TooPrecise)),
            // ...08.062 is read as this `f64`, which is as near to ...08.063.
            (8_796_093_022_208.062, Ok(8_796_093_022_208_062_000)),
            (-0.5, Err(AmountError::Negative)),
            (1e300, Err(AmountError::TooLarge)),
            (5e-324, Err(AmountError::TooPrecise)),
        ] {
            let number = Number::from_f64(float).unwrap();
            assert_eq!(Amount::from_number(&number).map(Amount::micros), want, "{float}");
        }
    }

    #[test]
    fn writes_amounts_as_it_reads_them() {
        for text in ["0", "1", "0.5", "0.000001", "8999999999999.999999"] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn totals_neither_wrap_nor_go_below_zero() {
        let full = Total::from_micros(u64::MAX - 1).plus(Amount::ONE);
        assert_eq!(full.micros(), u64::MAX);
        assert_eq!(full.minus(Amount::ONE), full, "a saturated sum stays full");
        assert_eq!(Total::ZERO.minus(Amount::ONE), Total::ZERO);
        assert!(!full.has_room(Amount::ZERO, Amount::MAX));
        assert!(!Total::ZERO.has_room(Amount::ZERO, Amount::ZERO));
        assert!(Total::ZERO.has_room(Amount::MAX, Amount::MAX));
    }
}
