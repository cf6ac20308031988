//! Counters: the log of charges, and the content of a counter by each algorithm.

use super::Model;
use super::limits::Counting;
use super::time::{Window, window_at};

/// A charge of a counter, or a refill of a bucket.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) key: String,
    pub(super) how: Algorithm,
    /// The time by the clock.
    pub(super) now: i64,
    /// The current amount of a charge, which settlements and releases change; in a bucket, the
    /// original amount.
    pub(super) amount: u128,
    pub(super) taken: bool,
}

/// The algorithm of a counter, with lengths in microseconds.
#[derive(Clone, Debug)]
pub(super) enum Algorithm {
    Fixed(Window),
    Sliding(i64),
    /// The refilled amount, and the time for it.
    Bucket(u128, i64),
    InFlight(i64),
}

impl Model {
    /// Computes what the counter of a limit holds at `now` from the log.
    pub(super) fn holds(&self, one: &Counting, now: i64) -> Holds {
        let (key, how) = &one.charged[0];
        let events: Vec<&Event> = self.log.iter().filter(|event| event.key == *key).collect();
        // A charge at an earlier time counts at the time of the latest charge.
        let present = events.iter().map(|event| event.now).max().unwrap_or(now).max(now);
        let counted_at = |index: usize| events[..=index].iter().map(|event| event.now).max().expect("at least its own");
        let numbered = || events.iter().enumerate();
        match how {
            Algorithm::Fixed(window) => {
                let span = window_at(window, present);
                let of_span = numbered().filter(|(index, _)| window_at(window, counted_at(*index)) == span);
                Holds::Window { used: of_span.map(|(_, event)| event.amount).sum(), end: span.1 }
            }
            Algorithm::Sliding(length) => {
                // The charges in one 64th of the window expire with the last of them.
                let cell = |at: i64| (i128::from(at) * 64).div_euclid(i128::from(*length));
                let last = |index: usize| {
                    let same = (0..events.len()).map(counted_at).filter(|at| cell(*at) == cell(counted_at(index)));
                    same.max().expect("at least its own")
                };
                let leaving = numbered().map(|(index, event)| (last(index) + length, event.amount));
                Holds::Pieces { pieces: leaving.filter(|(until, _)| *until > present).collect(), now }
            }
            Algorithm::InFlight(_) => {
                let until = |event: &Event| match event.how {
                    Algorithm::InFlight(lease) => event.now + lease,
                    _ => panic!("a counter has one algorithm"),
                };
                // A charge removes expired units for good, also if the clock steps back after it.
                let swept = |index: usize| events[index + 1..].iter().any(|event| event.now >= until(events[index]));
                let units = numbered().filter(|(index, _)| !swept(*index));
                let units = units.map(|(_, event)| (until(event), event.amount));
                Holds::Pieces { pieces: units.filter(|(until, _)| *until > now).collect(), now }
            }
            Algorithm::Bucket(rate, length) => {
                // The missing amount, in micro-units times the microseconds of the window.
                let (mut missing, mut at) = (0i128, i64::MIN);
                for event in events {
                    let (Algorithm::Bucket(rate, _), amount) = (&event.how, signed(event.amount) * i128::from(*length))
                    else {
                        panic!("a counter has one algorithm")
                    };
                    let then = at.max(event.now);
                    if at > i64::MIN {
                        missing -= signed(*rate) * (i128::from(then) - i128::from(at));
                    }
                    missing = missing.max(0) + if event.taken { amount } else { -amount };
                    missing = missing.max(0);
                    at = then;
                }
                let since = if at > i64::MIN { i128::from(present) - i128::from(at) } else { 0 };
                let missing = (missing - signed(*rate) * since).max(0);
                Holds::Missing { missing, rate: signed(*rate), length: i128::from(*length), present, now }
            }
        }
    }
}

pub(super) fn signed(number: u128) -> i128 {
    i128::try_from(number).expect("far below the largest i128")
}

/// The content of a counter.
pub(super) enum Holds {
    /// An amount until the end of a window.
    Window { used: u128, end: i64 },
    /// Amounts, each with the time of its expiry.
    Pieces { pieces: Vec<(i64, u128)>, now: i64 },
    /// The amount missing from a bucket, in parts. A micro-unit has `length` parts, and `rate`
    /// parts are refilled in a microsecond.
    Missing { missing: i128, rate: i128, length: i128, present: i64, now: i64 },
}

impl Holds {
    pub(super) fn used(&self) -> u128 {
        match self {
            Holds::Window { used, .. } => *used,
            Holds::Pieces { pieces, .. } => pieces.iter().map(|(_, amount)| amount).sum(),
            Holds::Missing { missing, length, .. } => divide_up(*missing, *length).unsigned_abs(),
        }
    }

    pub(super) fn resets_at(&self) -> i64 {
        match self {
            Holds::Window { end, .. } => *end,
            Holds::Pieces { now, .. } | Holds::Missing { now, .. } if self.used() == 0 => *now,
            _ => self.falls_to(0),
        }
    }

    /// Returns the first time at which it holds at most `room`. It holds more now.
    pub(super) fn falls_to(&self, room: u128) -> i64 {
        match self {
            Holds::Window { end, .. } => *end,
            Holds::Pieces { pieces, .. } => {
                let left =
                    |at: i64| pieces.iter().filter(|(until, _)| *until > at).map(|(_, amount)| amount).sum::<u128>();
                let instants = pieces.iter().map(|(until, _)| *until).filter(|at| left(*at) <= room);
                instants.min().expect("all amounts expire")
            }
            // A bucket without a rate never refills.
            Holds::Missing { rate: 0, .. } => i64::MAX,
            Holds::Missing { missing, rate, length, present, .. } => {
                let wait = divide_up(missing - signed(room) * length, *rate);
                i64::try_from(i128::from(*present) + wait).unwrap_or(i64::MAX)
            }
        }
    }
}

/// Divides and rounds up.
pub(super) fn divide_up(number: i128, by: i128) -> i128 {
    -(-number).div_euclid(by)
}
