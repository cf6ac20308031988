//! A deliberately naive store, which the real stores are compared with.
//!
//! It keeps a log of everything that happened to a counter, and reads it from the beginning for
//! every question. It shares no arithmetic with the crate: where the crate has a closed form, this
//! searches. Where both agree on random histories, a mistake would have to be made twice.

use std::collections::BTreeMap;
use std::sync::Mutex;

use toolgate::charge::{Charge, CounterId, Meter, Subject};
use toolgate::store::{
    ChargedAt, CounterStore, Generation, Outcome, ReserveRequest, SettleRequest, StoreError, Tallies, Tally,
};
use toolgate::{Timestamp, Total};

/// Sums saturate here. A sum that has reached this value keeps it.
const FULL: u128 = u64::MAX as u128;

/// All events, counter by counter.
#[derive(Default)]
pub(crate) struct NaiveStore(Mutex<Log>);

type Log = BTreeMap<(CounterId, Subject), Vec<Event>>;

#[derive(Clone)]
enum Event {
    Charged { now: i64, meter: Meter, amount: u128 },
    Settled { now: i64, meter: Meter, at: i64, from: u128, to: u128, generation: u64 },
    Prolonged { now: i64, at: i64, amount: u128, lease_end: i64, generation: u64 },
    Reset,
}

/// The log of one counter since its last reset, and the number of resets: the generation.
struct History(Vec<Event>, u64);

impl History {
    fn of(log: &Log, counter: CounterId, subject: &Subject) -> Self {
        let mut events = Vec::new();
        let mut resets = 0;
        for event in log.get(&(counter, subject.clone())).into_iter().flatten() {
            match event {
                Event::Reset => {
                    events.clear();
                    resets += 1;
                }
                // The first unit in flight, of a call whose charge was 0.
                event @ Event::Settled { meter: Meter::InFlight { .. }, from: 0, to: 1.., at, now, .. } if at > now => {
                    events.push(event.clone());
                }
                // The charge was made before the reset.
                Event::Settled { generation, .. } | Event::Prolonged { generation, .. } if *generation != resets => {}
                // An amount beyond the charge is taken from a bucket even if its charge is not in
                // the log.
                event @ Event::Settled { meter: Meter::TokenBucket { .. }, from, to, .. } if to > from => {
                    events.push(event.clone());
                }
                // Other settlements of a counter without charges have no effect.
                Event::Settled { .. } if events.is_empty() => {}
                event => events.push(event.clone()),
            }
        }
        Self(events, resets)
    }

    /// Returns the used amount at an instant, in millionths.
    fn used(&self, asked: &Meter, now: i64) -> u128 {
        match asked {
            Meter::Fixed(asked) => {
                let latest = self.latest_window();
                if latest.is_some_and(|latest| latest >= asked.start.unix_micros()) {
                    self.in_latest_window()
                } else {
                    0
                }
            }
            Meter::Sliding { seconds } => {
                let present = self.latest_instant().map_or(now, |latest| latest.max(now));
                let live = self.slots(*seconds).into_values().filter(|slot| expires_at(slot.last, *seconds) > present);
                live.fold(0, |sum, slot| FULL.min(sum + slot.used))
            }
            Meter::TokenBucket { refill, seconds } => {
                self.missing(refill.micros().into(), *seconds, now).div_ceil(u128::from(*seconds) * 1_000_000)
            }
            Meter::InFlight { .. } => {
                FULL.min(self.units().into_iter().filter(|(until, _)| *until > now).map(|(_, amount)| amount).sum())
            }
            other => panic!("{other:?} is a meter that this store does not know"),
        }
    }

    fn tally(&self, charge: &Charge, now: i64) -> Tally {
        let mut tally = Tally::unused(&charge.meter, Timestamp::from_unix_micros(now));
        tally.used = Total::from_micros(self.used(&charge.meter, now) as u64);
        let (resets_at, charged_at) = match &charge.meter {
            Meter::Fixed(asked) => {
                // All windows of a counter have the same length.
                let length = asked.end.unix_micros() - asked.start.unix_micros();
                let start =
                    self.latest_window().map_or(asked.start.unix_micros(), |at| at.max(asked.start.unix_micros()));
                (start + length, start)
            }
            Meter::Sliding { seconds } => {
                let present = self.latest_instant().map_or(now, |latest| latest.max(now));
                let holding = self.slots(*seconds).into_values().filter(|slot| slot.used > 0);
                let ends = holding.map(|slot| expires_at(slot.last, *seconds));
                (ends.filter(|end| *end > present).max().unwrap_or(now), present)
            }
            Meter::TokenBucket { refill, seconds } => {
                let full = |at: i64| self.missing(refill.micros().into(), *seconds, at) == 0;
                (first(now, full).unwrap_or(i64::MAX), self.latest_instant().map_or(now, |latest| latest.max(now)))
            }
            Meter::InFlight { lease } => {
                let ends = self.units().into_keys().filter(|until| *until > now);
                (ends.max().unwrap_or(now), now + i64::from(*lease) * 1_000_000)
            }
            other => panic!("{other:?} is a meter that this store does not know"),
        };
        tally.resets_at = Timestamp::from_unix_micros(resets_at);
        tally.charged_at =
            ChargedAt { instant: Timestamp::from_unix_micros(charged_at), generation: Generation::new(self.1) };
        tally.retry_at = self.retry_at(charge, now, resets_at).map(Timestamp::from_unix_micros);
        tally
    }

    fn retry_at(&self, charge: &Charge, now: i64, resets_at: i64) -> Option<i64> {
        let (max, amount) = (u128::from(charge.max?.micros()), u128::from(charge.amount.micros()));
        if max == 0 || amount > max {
            return None;
        }
        match charge.meter {
            Meter::Fixed(_) => Some(resets_at),
            _ => first(now, |at| self.used(&charge.meter, at) + amount <= max).filter(|at| *at < i64::MAX),
        }
    }

    /// Returns the start of the latest window that was charged.
    fn latest_window(&self) -> Option<i64> {
        let starts = self.0.iter().filter_map(|event| match event {
            Event::Charged { meter: Meter::Fixed(span), .. } => Some(span.start.unix_micros()),
            _ => None,
        });
        starts.max()
    }

    fn in_latest_window(&self) -> u128 {
        let mut latest = i64::MIN;
        let mut used = 0;
        for event in &self.0 {
            match *event {
                Event::Charged { meter: Meter::Fixed(span), amount, .. } => {
                    if span.start.unix_micros() > latest {
                        (latest, used) = (span.start.unix_micros(), 0);
                    }
                    used = FULL.min(used + amount);
                }
                Event::Settled { at, from, to, .. } if at == latest => used = replaced(used, from, to),
                _ => {}
            }
        }
        used
    }

    /// Returns the latest instant of a charge; for a bucket, also of a settlement.
    fn latest_instant(&self) -> Option<i64> {
        let instants = self.0.iter().filter_map(|event| match *event {
            Event::Charged { now, .. } | Event::Settled { now, meter: Meter::TokenBucket { .. }, .. } => Some(now),
            _ => None,
        });
        instants.max()
    }

    /// Returns the charges of a sliding window, by the 64th of the window that they are in.
    fn slots(&self, seconds: u32) -> BTreeMap<i128, Slot> {
        let step = |micros: i64| (i128::from(micros) * 64).div_euclid(i128::from(seconds) * 1_000_000);
        let mut slots: BTreeMap<i128, Slot> = BTreeMap::new();
        let mut present = i64::MIN;
        for event in &self.0 {
            match *event {
                Event::Charged { now, amount, .. } => {
                    present = present.max(now);
                    let slot = slots.entry(step(present)).or_default();
                    *slot = Slot { last: present, used: FULL.min(slot.used + amount) };
                }
                Event::Settled { at, from, to, .. } => {
                    if let Some(slot) = slots.get_mut(&step(at)) {
                        slot.used = replaced(slot.used, from, to);
                    }
                }
                Event::Prolonged { .. } | Event::Reset => {}
            }
        }
        slots
    }

    /// Returns the amount missing from a bucket, in shares of a millionth. Each microsecond refills
    /// `refill` shares.
    fn missing(&self, refill: u128, seconds: u32, now: i64) -> u128 {
        let shares = u128::from(seconds) * 1_000_000;
        let (mut present, mut missing) = (i64::MIN, 0u128);
        let flow = |missing: u128, from: i64, to: i64| {
            missing.saturating_sub(refill * u128::try_from(i128::from(to) - i128::from(from)).unwrap())
        };
        for event in &self.0 {
            let (now, less, more) = match *event {
                Event::Charged { now, amount, .. } => (now, 0, amount),
                Event::Settled { now, from, to, .. } => (now, from.saturating_sub(to), to.saturating_sub(from)),
                Event::Prolonged { .. } | Event::Reset => continue,
            };
            let later = present.max(now);
            missing = flow(missing, present, later).saturating_sub(less * shares) + more * shares;
            missing = missing.min(FULL * shares);
            present = later;
        }
        flow(missing, present, present.max(now))
    }

    /// Returns the amounts in flight, by the end of their lease. A unit that had expired when
    /// another call came is gone for good.
    fn units(&self) -> BTreeMap<i64, u128> {
        let mut units: BTreeMap<i64, u128> = BTreeMap::new();
        for event in &self.0 {
            match *event {
                Event::Charged { now, meter: Meter::InFlight { lease }, amount } => {
                    units.retain(|until, _| *until > now);
                    let unit = units.entry(now + i64::from(lease) * 1_000_000).or_default();
                    *unit = FULL.min(*unit + amount);
                }
                // A unit of 0 may get an amount while its lease runs.
                Event::Settled { at, from: 0, to, now, .. } if at > now => {
                    let unit = units.entry(at).or_default();
                    *unit = replaced(*unit, 0, to);
                }
                Event::Settled { at, from, to, .. } => {
                    if let Some(unit) = units.get_mut(&at) {
                        *unit = replaced(*unit, from, to);
                    }
                }
                Event::Prolonged { now, at, amount, lease_end, .. } if at > now && lease_end > at => {
                    let unit = units.entry(at).or_default();
                    let moved = amount.min(*unit);
                    *unit -= moved;
                    let unit = units.entry(lease_end).or_default();
                    *unit = FULL.min(*unit + moved);
                }
                _ => {}
            }
            units.retain(|_, amount| *amount > 0);
        }
        units
    }
}

#[derive(Default)]
struct Slot {
    last: i64,
    used: u128,
}

fn expires_at(last: i64, seconds: u32) -> i64 {
    last + i64::from(seconds) * 1_000_000
}

fn replaced(sum: u128, from: u128, to: u128) -> u128 {
    match sum {
        FULL => FULL,
        sum if to >= from => FULL.min(sum + (to - from)),
        sum => sum.saturating_sub(from - to),
    }
}

/// Returns the first instant from `now` on at which a condition holds, by bisection. Once it holds,
/// it must keep holding.
fn first(now: i64, holds: impl Fn(i64) -> bool) -> Option<i64> {
    if holds(now) {
        return Some(now);
    }
    let (mut before, mut after) = (i128::from(now), i128::from(i64::MAX));
    if !holds(i64::MAX) {
        return None;
    }
    while after - before > 1 {
        let middle = (before + after) / 2;
        if holds(i64::try_from(middle).unwrap()) { after = middle } else { before = middle }
    }
    Some(i64::try_from(after).unwrap())
}

impl NaiveStore {
    fn tallies(log: &Log, request: &ReserveRequest<'_>) -> Tallies {
        let history = |charge: &Charge| History::of(log, charge.counter, &charge.subject);
        request.charges.iter().map(|charge| history(charge).tally(charge, request.now.unix_micros())).collect()
    }
}

impl CounterStore for NaiveStore {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        let mut log = self.0.lock().unwrap();
        let before = Self::tallies(&log, request);
        if !before.iter().zip(request.charges).all(|(tally, charge)| tally.has_room(charge)) {
            return Ok(Outcome::Refused(before));
        }
        let places = before.iter().map(|tally| tally.charged_at);
        for charge in request.charges {
            let (now, amount) = (request.now.unix_micros(), charge.amount.micros().into());
            let event = Event::Charged { now, meter: charge.meter, amount };
            log.entry((charge.counter, charge.subject.clone())).or_default().push(event);
        }
        let mut after = Self::tallies(&log, request);
        after.iter_mut().zip(places).for_each(|(tally, place)| tally.charged_at = place);
        Ok(Outcome::Granted(after))
    }

    fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
        let tallies = Self::tallies(&self.0.lock().unwrap(), request);
        let room = tallies.iter().zip(request.charges).all(|(tally, charge)| tally.has_room(charge));
        Ok(if room { Outcome::Granted(tallies) } else { Outcome::Refused(tallies) })
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        let mut log = self.0.lock().unwrap();
        for settled in request.charges {
            let (now, at) = (request.now.unix_micros(), settled.at.instant.unix_micros());
            let (amount, generation) = (settled.charge.amount.micros().into(), settled.at.generation.get());
            let settlement = Event::Settled {
                now,
                meter: settled.charge.meter,
                at,
                from: amount,
                to: settled.to.micros().into(),
                generation,
            };
            let event = settled.lease_end.map_or(settlement, |lease_end| Event::Prolonged {
                now,
                at,
                amount,
                lease_end: lease_end.unix_micros(),
                generation,
            });
            log.entry((settled.charge.counter, settled.charge.subject.clone())).or_default().push(event);
        }
        Ok(())
    }

    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        self.0.lock().unwrap().entry((counter, subject.clone())).or_default().push(Event::Reset);
        Ok(())
    }
}
