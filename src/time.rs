//! Instants and clocks.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

pub(crate) const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// An instant in UTC, in whole microseconds since the Unix epoch.
///
/// As in Unix time, there are no leap seconds. Every operation saturates at [`Timestamp::MIN`] and
/// [`Timestamp::MAX`], about 292,000 years from the epoch, so no instant makes a decision panic.
///
/// ```
/// use toolgate::Timestamp;
///
/// let start: Timestamp = "2026-01-15T10:30:00Z".parse()?;
/// assert_eq!(start.unix_micros(), 1_768_473_000_000_000);
/// assert_eq!(start.to_string(), "2026-01-15T10:30:00Z");
/// # Ok::<(), toolgate::ParseTimestampError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest instant.
    pub const MAX: Self = Self(i64::MAX);
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(0);

    /// Creates the instant `micros` microseconds after the Unix epoch, or before it if negative.
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Creates the instant `seconds` seconds after the Unix epoch, or before it if negative.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Returns the microseconds since the Unix epoch.
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// Returns the whole seconds since the Unix epoch, rounded towards the past.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// Returns the instant `duration` later.
    #[must_use = "returns the new instant and does not change the original"]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let micros = u128::from(self.0.abs_diff(i64::MIN)).saturating_add(duration.as_micros());
        Self(u64::try_from(micros).map_or(i64::MAX, |micros| i64::MIN.wrapping_add_unsigned(micros)))
    }

    /// Returns the time since `earlier`, or zero if that is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let micros = i128::from(self.0) - i128::from(earlier.0);
        Duration::from_micros(u64::try_from(micros.max(0)).unwrap_or(u64::MAX))
    }

    /// Returns the calendar fields that conditions can read.
    pub(crate) fn civil(self) -> Civil {
        let seconds = self.unix_seconds();
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        Civil {
            year,
            month,
            day,
            // 1970-01-01 was a Thursday, the fourth day of a week that begins on Monday.
            weekday: (days + 3).rem_euclid(7) + 1,
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
            micros: self.0.rem_euclid(MICROS_PER_SECOND),
        }
    }
}

/// The calendar fields of an instant in UTC.
#[derive(Clone, Copy)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
    /// 1 is Monday.
    pub(crate) weekday: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    second: i64,
    micros: i64,
}

/// Writes RFC 3339 in UTC, with as many decimals as the instant has. Years past 9999 or before 0
/// have a sign and six digits.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { year, month, day, hour, minute, second, micros, .. } = self.civil();
        if (0..=9999).contains(&year) {
            write!(f, "{year:04}")?;
        } else {
            write!(f, "{year:+07}")?;
        }
        write!(f, "-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if micros != 0 {
            let digits = format!("{micros:06}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is not an RFC 3339 instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 instant, such as `2026-01-15T10:30:00Z`")]
pub struct ParseTimestampError(());

/// Reads RFC 3339: `2026-01-15T10:30:00Z`, `2026-01-15T10:30:00.25+02:00`.
///
/// # Errors
/// Any other text, for example a date alone (`2026-01-15`), a day that the month does not have
/// (`2026-02-29T00:00:00Z`), a time without an offset (`2026-01-15T10:30:00`) or a leap second
/// (`23:59:60`). Decimals past the sixth are cut off.
impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, ParseTimestampError> {
        parse_rfc3339(text.as_bytes()).ok_or(ParseTimestampError(()))
    }
}

fn parse_rfc3339(text: &[u8]) -> Option<Timestamp> {
    let mut rest = text;
    let mut number = |digits: usize, before: &[u8]| -> Option<i64> {
        if !before.is_empty() {
            let (first, tail) = rest.split_first()?;
            if !before.contains(first) {
                return None;
            }
            rest = tail;
        }
        let (head, tail) = rest.split_at_checked(digits)?;
        rest = tail;
        head.iter().try_fold(0, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
    };
    let (year, month, day) = (number(4, b"")?, number(2, b"-")?, number(2, b"-")?);
    let (hour, minute, second) = (number(2, b"Tt ")?, number(2, b":")?, number(2, b":")?);
    let mut micros = 0;
    if let Some((b'.', tail)) = rest.split_first() {
        let digits = tail.iter().take_while(|b| b.is_ascii_digit()).count();
        let (decimals, tail) = tail.split_at_checked(digits)?;
        if decimals.is_empty() {
            return None;
        }
        for place in 0..6 {
            micros = micros * 10 + decimals.get(place).map_or(0, |b| i64::from(b - b'0'));
        }
        rest = tail;
    }
    let offset = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) => {
            let two = |a: &u8, b: &u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
            let (hours, minutes) = (two(h1, h2), two(m1, m2));
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let days = days_from_civil(year, month, day);
    if civil_from_days(days) != (year, month, day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
    Some(Timestamp(seconds * MICROS_PER_SECOND + micros))
}

/// Returns `true` for a date of the calendar, such as `2026-01-15`.
pub(crate) fn is_date(text: &str) -> bool {
    let is_plain = |at: usize, byte: u8| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| is_plain(at, byte))
        && parse_rfc3339(format!("{text}T00:00:00Z").as_bytes()).is_some()
}

/// Returns the days from 1970-01-01 to a day of the proleptic Gregorian calendar. Counts years from
/// March, so that the leap day is the last of its year (the method of Howard Hinnant's
/// "chrono-compatible low-level date algorithms").
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Inverts [`days_from_civil`]: returns year, month (1 to 12) and day (1 to 31).
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// The clock of a [`Gate`](crate::Gate).
///
/// If a clock steps back, a spent window does not open again. If a clock runs ahead, calls are
/// charged to future windows, and a counter stays there until the host
/// [resets](crate::Gate::reset_counter) it or the time comes.
pub trait Clock: Send + Sync {
    /// Returns the current instant.
    fn now(&self) -> Timestamp;
}

/// The system clock.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "it is written as a value and will never have fields")]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// Converts to whole microseconds, and saturates at [`Timestamp::MIN`] and [`Timestamp::MAX`].
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            // By seconds: the 128-bit arithmetic of `as_micros` takes as long as a table look-up.
            Ok(since) => {
                let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
                Timestamp(seconds.saturating_mul(MICROS_PER_SECOND).saturating_add(since.subsec_micros().into()))
            }
            Err(before) => Timestamp(i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros)),
        }
    }
}

/// A clock for tests that moves only when it is set. Clones share one time.
///
/// ```
/// use std::time::Duration;
/// use toolgate::{Clock, ManualClock};
///
/// let clock = ManualClock::new("2026-01-15T10:30:00Z".parse()?);
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().to_string(), "2026-01-15T10:31:00Z");
/// # Ok::<(), toolgate::ParseTimestampError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Creates a clock that shows `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.0)))
    }

    /// Moves the clock forwards.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by));
    }

    /// Sets the clock, which may move it backwards.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Returns the time from `now` to `until` in whole milliseconds, rounded up, or zero if it has
/// passed.
pub(crate) fn wait_millis(now: Timestamp, until: Timestamp) -> u64 {
    let micros = i128::from(until.unix_micros()) - i128::from(now.unix_micros());
    u64::try_from(micros.max(0)).unwrap_or(u64::MAX).div_ceil(MICROS_PER_SECOND.unsigned_abs() / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_eight_centuries_follows_the_last() {
        let (mut year, mut month, mut day) = (1600, 1, 1);
        for days in days_from_civil(1600, 1, 1)..=days_from_civil(2399, 12, 31) {
            assert_eq!(civil_from_days(days), (year, month, day));
            assert_eq!(days_from_civil(year, month, day), days);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn texts_and_instants_agree() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-15T10:30:00Z", 1_768_473_000_000_000),
            ("2026-01-15T12:30:00.25+02:00", 1_768_473_000_250_000),
            ("2026-01-15T10:29:59.9999995Z", 1_768_472_999_999_999),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("0000-03-01T00:00:00Z", -62_162_035_200_000_000),
            ("1970-01-01T05:30:00+05:30", 0),
            ("1970-01-01T23:59:00+23:59", 0),
            ("1969-12-31T00:01:00-23:59", 0),
        ] {
            assert_eq!(text.parse::<Timestamp>().map(Timestamp::unix_micros), Ok(micros), "{text}");
            let written = Timestamp(micros).to_string();
            assert_eq!(written.parse::<Timestamp>(), Ok(Timestamp(micros)), "{written}");
        }
    }

    #[test]
    fn refuses_texts_that_are_not_instants() {
        for text in [
            "",
            "2026-01-15",
            "2026-01-15T10:30:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-15T24:00:00Z",
            "2026-01-15T23:59:60Z",
            "2026-01-15T10:30:00.Z",
            "2026-01-15T10:30:00+02",
            "2026-01-15T10:30:00+24:00",
            "2026-01-15T10:30:00+00:60",
            "2026-01-15T10:30:00+00:61",
            "2026-01-15T10:30:00+0::00",
            "2026-01-15T10:30:00+00:0/",
            "2026-01-15T10:60:00Z",
            "2026-01-15T10:30:60Z",
            "2026-01-15T10:30:00ZZ",
            "+2026-01-15T10:30:00Z",
            "２026-01-15T10:30:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_manual_clock_moves_only_when_set() {
        let clock = ManualClock::new(Timestamp(5));
        let same = clock.clone();
        clock.advance(Duration::from_micros(7));
        assert_eq!(same.now(), Timestamp(12));
        same.set(Timestamp(-1));
        assert_eq!(clock.now(), Timestamp(-1));
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let now = SystemClock.now().unix_micros().unsigned_abs().into();
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        assert!((before..=after).contains(&now), "{before} {now} {after}");
    }

    #[test]
    fn the_ends_of_time_do_not_panic() {
        for end in [Timestamp::MIN, Timestamp::MAX] {
            assert!(!end.to_string().is_empty());
            assert!(end.saturating_add(Duration::MAX) == Timestamp::MAX);
        }
        // Not every system clock reaches so far.
        let last = UNIX_EPOCH.checked_add(Duration::from_secs(i64::MAX.unsigned_abs()));
        assert!(last.is_none_or(|last| Timestamp::from(last) == Timestamp::MAX));
        assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_millis(1)), Timestamp(-1_000));
        assert_eq!(Timestamp::MAX.saturating_since(Timestamp::MIN), Duration::from_micros(u64::MAX));
        assert_eq!(Timestamp::MIN.saturating_since(Timestamp::MAX), Duration::ZERO);
    }

    #[test]
    fn waits_are_rounded_up() {
        let at = Timestamp::from_unix_micros;
        assert_eq!(wait_millis(at(0), at(1)), 1);
        assert_eq!(wait_millis(at(0), at(1000)), 1);
        assert_eq!(wait_millis(at(0), at(1001)), 2);
        assert_eq!(wait_millis(at(5), at(0)), 0);
        assert_eq!(wait_millis(Timestamp::MIN, Timestamp::MAX), u64::MAX / 1000 + 1);
    }
}
