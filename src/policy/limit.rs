//! Limits: how much may pass in a window, and for whom.

use crate::amount::Amount;
use crate::call::identity::Identity;
use crate::call::path::Path;
use crate::call::subject::OwnScope;
use crate::charge::Span;
use crate::time::{Timestamp, civil_from_days, days_from_civil};

/// One limit of a policy.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) counter: Box<str>,
    pub(crate) window: Window,
    pub(crate) max: Amount,
    /// The path to the host's own maximum for a caller. The smaller of the two holds. Boxed,
    /// because it is rare.
    pub(crate) max_from: Option<Box<Path>>,
    pub(crate) scope: Scope,
    pub(crate) cost: Cost,
    pub(crate) algorithm: Algorithm,
    /// Minutes east of UTC.
    pub(crate) utc_offset: i32,
    /// The limit counts and reports, but never refuses.
    pub(crate) shadow: bool,
    pub(crate) on_exceed: Option<Box<str>>,
    /// The index of the counter that it charges. Limits that name one counter share it.
    pub(crate) slot: u32,
    /// The other token buckets of its counter, from limits with another `max` or `max_from`. Each
    /// refills at its own rate, so each is charged whenever the counter is.
    pub(crate) buckets: Box<[u32]>,
    /// It is the `rate_limit` of an entry, not an element of `limits`.
    pub(crate) is_rate_limit: bool,
}

impl Limit {
    /// The most that its counter may hold: the burst of a token bucket, unless `max` is zero; else
    /// `max`.
    #[inline]
    pub(crate) fn room(&self) -> Amount {
        match self.algorithm {
            Algorithm::TokenBucket { burst: Some(burst) } if self.max > Amount::ZERO => burst,
            _ => self.max,
        }
    }
}

/// The window that a limit counts over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Window {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    /// This many seconds, aligned to the Unix epoch. Never zero.
    Every(u32),
    /// From the decision until the call ends.
    InFlight,
    /// All time: it never begins anew.
    Lifetime,
}

/// The windows that have names.
pub(crate) const WINDOWS: [(&str, Window); 8] = [
    ("second", Window::Second),
    ("minute", Window::Minute),
    ("hour", Window::Hour),
    ("day", Window::Day),
    ("week", Window::Week),
    ("month", Window::Month),
    ("in_flight", Window::InFlight),
    ("lifetime", Window::Lifetime),
];

/// The longest duration: 400 days.
pub(crate) const MAX_DURATION: u32 = 400 * 86_400;

impl Window {
    /// Returns `true` if the window follows the calendar, so that an offset from UTC can shift it.
    pub(crate) fn is_calendar(self) -> bool {
        !matches!(self, Self::Every(_) | Self::InFlight | Self::Lifetime)
    }

    /// The aligned window that contains `now`.
    #[inline]
    pub(crate) fn around(self, now: Timestamp, utc_offset: i32) -> Span {
        const DAY: i64 = 86_400;
        let offset = i64::from(utc_offset) * 60;
        let local = now.unix_seconds() + offset;
        let aligned = |length: i64, origin: i64| {
            let start = (local - origin).div_euclid(length) * length + origin;
            (start, start + length)
        };
        let (start, end) = match self {
            Self::Second => aligned(1, 0),
            Self::Minute => aligned(60, 0),
            Self::Hour => aligned(3600, 0),
            Self::Day => aligned(DAY, 0),
            // 1970-01-05 was a Monday.
            Self::Week => aligned(7 * DAY, 4 * DAY),
            Self::Month => {
                let (year, month, _) = civil_from_days(local.div_euclid(DAY));
                let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                (days_from_civil(year, month, 1) * DAY, days_from_civil(next_year, next_month, 1) * DAY)
            }
            Self::Every(seconds) => aligned(seconds.max(1).into(), 0),
            Self::InFlight => return Span { start: now, end: Timestamp::MAX },
            Self::Lifetime => return Span::LIFETIME,
        };
        Span { start: Timestamp::from_unix_seconds(start - offset), end: Timestamp::from_unix_seconds(end - offset) }
    }

    /// The length of a window that is not aligned; a month is 30 days. The largest number for a
    /// window without end.
    pub(crate) fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 30 * 86_400,
            Self::Every(seconds) => seconds,
            Self::InFlight => 0,
            Self::Lifetime => u32::MAX,
        }
    }

    /// A text that is unique to the window.
    pub(crate) fn canonical(self) -> String {
        match self {
            Self::Every(seconds) => format!("{seconds}s"),
            named => {
                WINDOWS.iter().find(|(_, window)| *window == named).map_or_else(String::new, |(name, _)| (*name).into())
            }
        }
    }
}

/// Parses a duration: `90s`, `15m`, `12h`, `30d`. At least a second and at most 400 days.
pub(crate) fn parse_duration(text: &str) -> Option<u32> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let seconds = digits.parse::<u32>().ok()?.checked_mul(unit)?;
    (1..=MAX_DURATION).contains(&seconds).then_some(seconds)
}

/// Parses an offset from UTC, such as `+02:00` or `-05:30`, into minutes.
pub(crate) fn parse_utc_offset(text: &str) -> Option<i32> {
    let [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = text.as_bytes() else { return None };
    let two = |a: &u8, b: &u8| {
        (a.is_ascii_digit() && b.is_ascii_digit()).then(|| i32::from(a - b'0') * 10 + i32::from(b - b'0'))
    };
    let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = hours * 60 + minutes;
    Some(if *sign == b'-' { -offset } else { offset })
}

/// The scope of a counter: calls that agree in all of these parts share one count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) parts: Box<[ScopePart]>,
    /// The same scope, if all parts are the caller's own.
    pub(crate) own: Option<OwnScope>,
}

impl Scope {
    pub(crate) fn new(parts: impl Into<Box<[ScopePart]>>) -> Self {
        let parts = parts.into();
        let identity = |part: &ScopePart| match part {
            ScopePart::Global => Some(None),
            ScopePart::Identity(identity) => Some(Some(*identity)),
            ScopePart::Path(_) => None,
        };
        let identities: Option<Vec<_>> = parts.iter().map(identity).collect();
        Self { own: identities.and_then(|identities| OwnScope::of(identities.into_iter())), parts }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScopePart {
    Identity(Identity),
    /// Everyone.
    Global,
    Path(Path),
}

/// The scopes that have names.
pub(crate) const SCOPES: [&str; 6] = ["grant", "session", "agent", "user", "server", "global"];

impl ScopePart {
    /// Returns the part of that name.
    pub(crate) fn named(word: &str) -> Option<Self> {
        if word == "global" {
            return Some(Self::Global);
        }
        Identity::ALL.into_iter().find(|identity| identity.as_str() == word).map(Self::Identity)
    }

    /// A text that is unique to the part.
    pub(crate) fn canonical(&self) -> String {
        match self {
            Self::Identity(identity) => identity.as_str().into(),
            Self::Global => "global".into(),
            Self::Path(path) => path.to_string(),
        }
    }
}

/// The cost of one call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    Constant(Amount),
    From(Path),
}

/// The counting algorithm of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Algorithm {
    /// At most `max` in each aligned window.
    Fixed,
    /// At most `max` in every interval of the window's length.
    Sliding,
    /// `max` in each window, refilled continuously, and at most `burst` at once.
    TokenBucket { burst: Option<Amount> },
    /// A unit is held until the call ends, or for `lease` seconds.
    InFlight { lease: u32 },
}

/// The algorithms that a limit can name.
pub(crate) const ALGORITHMS: [&str; 3] = ["fixed", "sliding", "token_bucket"];

impl Algorithm {
    /// The name of its kind, which is part of the counter's identity. Burst and lease may change
    /// without starting a new counter.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Sliding => "sliding",
            Self::TokenBucket { .. } => "token_bucket",
            Self::InFlight { .. } => "in_flight",
        }
    }

    /// A text that is unique to the algorithm. `max` may differ between limits of one counter, so
    /// it is not included.
    #[cfg(feature = "analysis")]
    pub(crate) fn canonical(self) -> String {
        match self {
            Self::TokenBucket { burst: Some(burst) } => format!("{} {burst}", self.kind()),
            Self::InFlight { lease } => format!("{} {lease}", self.kind()),
            other => other.kind().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (window, offset, now, start, end) in [
            (Window::Second, 0, "2026-01-15T10:30:00.5Z", "2026-01-15T10:30:00Z", "2026-01-15T10:30:01Z"),
            (Window::Minute, 0, "2026-01-15T10:30:59Z", "2026-01-15T10:30:00Z", "2026-01-15T10:31:00Z"),
            (Window::Hour, 330, "2026-01-15T10:29:59Z", "2026-01-15T09:30:00Z", "2026-01-15T10:30:00Z"),
            (Window::Day, -300, "2026-01-15T04:59:59Z", "2026-01-14T05:00:00Z", "2026-01-15T05:00:00Z"),
            (Window::Day, 60, "2026-01-15T23:00:00Z", "2026-01-15T23:00:00Z", "2026-01-16T23:00:00Z"),
            (Window::Week, 0, "2026-01-18T23:59:59Z", "2026-01-12T00:00:00Z", "2026-01-19T00:00:00Z"),
            (Window::Week, 0, "1969-12-31T00:00:00Z", "1969-12-29T00:00:00Z", "1970-01-05T00:00:00Z"),
            (Window::Month, 0, "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            (Window::Month, -480, "2026-01-01T07:59:59Z", "2025-12-01T08:00:00Z", "2026-01-01T08:00:00Z"),
            (Window::Every(90), 0, "1970-01-01T00:02:00Z", "1970-01-01T00:01:30Z", "1970-01-01T00:03:00Z"),
            (Window::Every(60), 0, "1969-12-31T23:59:30Z", "1969-12-31T23:59:00Z", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(window.around(at(now), offset), Span { start: at(start), end: at(end) }, "{window:?} {now}");
        }
    }

    #[test]
    fn the_ends_of_time_have_windows() {
        for (_, window) in WINDOWS {
            for now in [Timestamp::MIN, Timestamp::MAX] {
                for offset in [-1439, 0, 1439] {
                    let span = window.around(now, offset);
                    let begins = span.start <= now || window == Window::Lifetime;
                    assert!(begins && now <= span.end, "{window:?} {now} {span:?}");
                }
            }
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("12h", Some(43_200)),
            ("30d", Some(2_592_000)),
            ("007s", Some(7)),
            ("400d", Some(MAX_DURATION)),
            ("401d", None),
            ("34560001s", None),
            ("0s", None),
            ("s", None),
            ("", None),
            ("10", None),
            ("10x", None),
            ("m15", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5h", None),
            ("1 h", None),
            ("99999999999999999999d", None),
            ("1ß", None),
        ] {
            assert_eq!(parse_duration(text), want, "{text}");
        }
    }

    #[test]
    fn offsets() {
        for (text, want) in [
            ("+00:00", Some(0)),
            ("-00:00", Some(0)),
            ("+02:00", Some(120)),
            ("-05:30", Some(-330)),
            ("+23:59", Some(1439)),
            ("+24:00", None),
            ("+02:60", None),
            ("02:00", None),
            ("+2:00", None),
            ("+0200", None),
            ("Z", None),
            ("+02:0a", None),
            ("+a2:00", None),
        ] {
            assert_eq!(parse_utc_offset(text), want, "{text}");
        }
    }
}
