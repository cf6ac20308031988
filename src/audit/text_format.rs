//! The exact text forms of instants, amounts, digests and limits in records: each reads back as it
//! was written.

use std::fmt::Display;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::amount::{Amount, Total};
use crate::approval::ApprovalId;
use crate::decision::limit_state::LimitState;
use crate::json::hex::parse_digest;
use crate::policy::Digest;
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// A value with exactly one text form.
pub(super) trait CanonicalText: Sized + Display {
    fn read(text: &str) -> Option<Self>;
}

/// Serialises a value as its text form, and accepts no other.
struct Text<T>(T);

impl<T: CanonicalText> Serialize for Text<&T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self.0)
    }
}

impl<'de, T: CanonicalText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let value = T::read(&text).filter(|value| value.to_string() == text);
        value.map(Text).ok_or_else(|| D::Error::custom("not the text form that records use"))
    }
}

/// For `#[serde(with)]`: one value.
pub(super) mod one {
    use super::{CanonicalText, Deserialize, Deserializer, Serialize, Serializer, Text};

    pub(crate) fn serialize<T: CanonicalText, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        Text(value).serialize(to)
    }

    pub(crate) fn deserialize<'de, T: CanonicalText, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        Text::deserialize(from).map(|Text(value)| value)
    }
}

/// For `#[serde(with)]`: an optional value.
pub(super) mod option {
    use super::{CanonicalText, Deserialize, Deserializer, Serialize, Serializer, Text};

    pub(crate) fn serialize<T: CanonicalText, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Text).serialize(to)
    }

    pub(crate) fn deserialize<'de, T: CanonicalText, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
        Ok(Option::deserialize(from)?.map(|Text(value)| value))
    }
}

/// For `#[serde(with)]`: the states of limits. ([`LimitState`] itself writes amounts as numbers,
/// which most readers take for an `f64`.)
pub(super) mod limits {
    use super::{Amount, Deserialize, Deserializer, LimitState, Serialize, Serializer, Timestamp, Total};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limit {
        counter: Box<str>,
        #[serde(with = "super::one")]
        used: Total,
        #[serde(with = "super::one")]
        remaining: Amount,
        #[serde(with = "super::one")]
        max: Amount,
        #[serde(with = "super::option")]
        resets_at: Option<Timestamp>,
    }

    pub(crate) fn serialize<S: Serializer>(states: &[LimitState], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(states.iter().map(|state| {
            let LimitState { counter, used, remaining, max, resets_at } = state.clone();
            Limit { counter, used, remaining, max, resets_at }
        }))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<LimitState>, D::Error> {
        let limits = Vec::<Limit>::deserialize(from)?;
        let state = |Limit { counter, used, remaining, max, resets_at }: Limit| LimitState {
            counter,
            used,
            remaining,
            max,
            resets_at,
        };
        Ok(limits.into_iter().map(state).collect())
    }
}

impl CanonicalText for Timestamp {
    /// Also reads years past 9999, which RFC 3339 does not have: the calendar repeats every 400
    /// years.
    fn read(text: &str) -> Option<Self> {
        if !text.starts_with(['+', '-']) {
            return text.parse().ok();
        }
        let (sign, digits) = text.split_at_checked(1)?;
        let (year, rest) = digits.split_once('-')?;
        let year: i64 = year.parse().ok().filter(|year| *year < 1_000_000)?;
        let year = if sign == "-" { -year } else { year };
        let like = 2000 + year.rem_euclid(400);
        let near: Self = format!("{like}-{rest}").parse().ok()?;
        let cycles = i128::from((year - like) / 400);
        let micros = i128::from(near.unix_micros()) + cycles * 146_097 * 86_400 * i128::from(MICROS_PER_SECOND);
        i64::try_from(micros).ok().map(Self::from_unix_micros)
    }
}

impl CanonicalText for Total {
    fn read(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        if decimals.len() > 6 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let micros = format!("{decimals:0<6}").parse::<u64>().ok()?;
        whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micros).map(Self::from_micros)
    }
}

impl CanonicalText for Amount {
    fn read(text: &str) -> Option<Self> {
        Total::read(text).and_then(|total| Self::from_micros(total.micros()))
    }
}

impl CanonicalText for Digest {
    fn read(text: &str) -> Option<Self> {
        parse_digest(text).map(Self::new)
    }
}

impl CanonicalText for ApprovalId {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reads_back<T: CanonicalText + PartialEq>(value: &T) -> bool {
        T::read(&value.to_string()).as_ref() == Some(value)
    }

    proptest! {
        #[test]
        fn reads_back_any_value(micros in any::<i64>(), total in any::<u64>()) {
            prop_assert!(reads_back(&Timestamp::from_unix_micros(micros)));
            prop_assert!(reads_back(&Total::from_micros(total)));
            prop_assert!(reads_back(&Amount::from_micros(total % Amount::MAX.micros()).unwrap()));
        }
    }

    #[test]
    fn reads_back_the_extremes_and_no_other_form() {
        assert!([Timestamp::MIN, Timestamp::MAX, Timestamp::UNIX_EPOCH].iter().all(reads_back));
        assert!([Total::ZERO, Total::from_micros(u64::MAX), Total::from_micros(1)].iter().all(reads_back));
        for wrong in ["", "-1", "1.", ".5", "1.0000001", "1e3", "18446744073710", "0x1"] {
            let read = Total::read(wrong).filter(|total| total.to_string() == wrong);
            assert_eq!(read, None, "{wrong}");
        }
        for wrong in ["+010000", "-", "+", "+1000000-01-01T00:00:00Z", "+010000-13-01T00:00:00Z"] {
            assert_eq!(Timestamp::read(wrong), None, "{wrong}");
        }
    }
}
