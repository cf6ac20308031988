//! The tools of a case: counters of its own, and requests to the store with the answers that are
//! expected.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Suite;
use crate::amount::{Amount, Total};
use crate::call::identity::Identity;
use crate::charge::{Asker, Charge, CounterId, Meter, Span, Subject};
use crate::store::{
    AsyncCounterStore, ChargeChange, ChargedAt, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError,
    Tallies, Tally,
};
use crate::time::{MICROS_PER_SECOND, Timestamp};

/// In microseconds, as all times in the cases.
pub(super) const SECOND: i64 = MICROS_PER_SECOND;
pub(super) const DAY: i64 = 86_400 * SECOND;
/// The length of the windows in most cases.
pub(super) const WINDOW: i64 = 64 * SECOND;
const WINDOW_SECONDS: u32 = 64;

/// An answer that a case does not expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) request: String,
    pub(super) expected: String,
    pub(super) actual: String,
}

impl Mismatch {
    pub(super) fn new(request: impl fmt::Display, expected: impl fmt::Display, actual: impl fmt::Display) -> Self {
        Self { request: request.to_string(), expected: expected.to_string(), actual: actual.to_string() }
    }
}

/// A case that is being run. Times are microseconds from a start at a full hour.
pub(super) struct Case<'s> {
    pub(super) store: &'s dyn AsyncCounterStore,
    pub(super) flood: u32,
    start: i64,
    run: u64,
    name: &'static str,
    drawn: AtomicU64,
}

/// A reservation that was granted.
pub(super) struct Held {
    id: ReservationId,
    pub(super) charges: Vec<Charge>,
    tallies: Tallies,
    step: u32,
}

impl Held {
    pub(super) fn new(id: ReservationId, charges: Vec<Charge>, tallies: Tallies) -> Self {
        Self { id, charges, tallies, step: 0 }
    }
}

/// Makes a request in the name of one of two askers, by turns: who asks changes no counter.
pub(super) fn request_by<'c>(id: ReservationId, now: Timestamp, charges: &'c [Charge]) -> ReserveRequest<'c> {
    let name = if id.get().is_multiple_of(2) { "one" } else { "another" };
    ReserveRequest::new(id, now, charges).by(Asker::new((Identity::Grant, name)))
}

impl<'s> Case<'s> {
    pub(super) fn new(store: &'s dyn AsyncCounterStore, suite: &Suite, run: u64, name: &'static str) -> Self {
        const HOUR: i64 = 3600 * SECOND;
        let start = suite.start.unix_micros();
        let start = start.saturating_add((-start).rem_euclid(HOUR));
        Self { store, flood: suite.flood, start, run, name, drawn: AtomicU64::new(0) }
    }

    pub(super) fn at(&self, micros: i64) -> Timestamp {
        Timestamp::from_unix_micros(self.start.saturating_add(micros))
    }

    fn draw(&self) -> u64 {
        self.drawn.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn id(&self) -> ReservationId {
        let mut name = [0; 4];
        name.iter_mut().zip(CounterId::of([self.name]).as_bytes()).for_each(|(to, from)| *to = *from);
        let case = u128::from(u32::from_le_bytes(name));
        ReservationId::new(u128::from(self.run) << 64 | case << 32 | u128::from(self.draw()))
    }

    /// Returns one meter of each kind, with windows of 64 seconds, in which one unit comes back to
    /// the bucket.
    pub(super) fn meters(&self) -> [Meter; 4] {
        [
            self.fixed(WINDOW),
            Meter::Sliding { seconds: WINDOW_SECONDS },
            Meter::TokenBucket { refill: Amount::ONE, seconds: WINDOW_SECONDS },
            Meter::InFlight { lease: WINDOW_SECONDS },
        ]
    }

    /// Returns a meter of fixed windows of a length, the first of which begins at the start.
    pub(super) fn fixed(&self, length: i64) -> Meter {
        Meter::Fixed(Span { start: self.at(0), end: self.at(length) })
    }

    /// Makes a charge of one unit without a max, to a new counter.
    pub(super) fn charge(&self, meter: Meter) -> Charge {
        let counter = CounterId::of(["(conformance)", self.name, &self.run.to_string(), &self.draw().to_string()]);
        Charge::new(counter, subject(b"somebody"), Amount::ONE, None, meter)
    }

    /// Moves the fixed windows of charges to where a gate would put them at this time.
    pub(super) fn aimed(&self, at: i64, charges: &[Charge]) -> Vec<Charge> {
        let aim = |charge: &Charge| {
            let Meter::Fixed(span) = charge.meter else { return charge.clone() };
            let length = span.end.unix_micros().saturating_sub(span.start.unix_micros()).max(1);
            let start = at.div_euclid(length) * length;
            let span = Span { start: self.at(start), end: self.at(start.saturating_add(length)) };
            Charge { meter: Meter::Fixed(span), ..charge.clone() }
        };
        charges.iter().map(aim).collect()
    }

    /// Peeks, and checks the answer.
    pub(super) async fn peek(&self, at: i64, charges: &[Charge]) -> Result<Outcome, Mismatch> {
        let charges = self.aimed(at, charges);
        let outcome = self.store.peek(&request_by(self.id(), self.at(at), &charges)).await;
        let request = || self.describe("peek", at, &charges);
        let outcome = answered(&request, outcome)?;
        check_answer(&request, self.at(at), &charges, &outcome)?;
        let room = outcome.tallies().iter().zip(&charges).all(|(tally, charge)| tally.has_room(charge));
        if room == matches!(outcome, Outcome::Granted(_)) {
            return Ok(outcome);
        }
        Err(Mismatch::new(
            request(),
            "granted if every charge has room by its tally, otherwise refused",
            shown(&outcome),
        ))
    }

    /// Reserves without peeking first.
    pub(super) async fn reserve_as(&self, id: ReservationId, at: i64, charges: &[Charge]) -> Result<Outcome, Mismatch> {
        let charges = self.aimed(at, charges);
        let outcome = self.store.reserve(&request_by(id, self.at(at), &charges)).await;
        let request = || self.describe("reserve", at, &charges);
        let outcome = answered(&request, outcome)?;
        check_answer(&request, self.at(at), &charges, &outcome)?;
        Ok(outcome)
    }

    /// Peeks and then reserves: the two answers must agree.
    pub(super) async fn reserve(&self, at: i64, charges: &[Charge]) -> Result<(ReservationId, Outcome), Mismatch> {
        let peeked = self.peek(at, charges).await?;
        let id = self.id();
        let outcome = self.reserve_as(id, at, charges).await?;
        let expected: Option<Vec<Total>> = match (&peeked, &outcome) {
            (Outcome::Granted(before), Outcome::Granted(_)) => {
                Some(before.iter().zip(charges).map(|(tally, charge)| tally.used.plus(charge.amount)).collect())
            }
            (Outcome::Refused(before), Outcome::Refused(_)) => Some(before.iter().map(|tally| tally.used).collect()),
            _ => None,
        };
        let used: Vec<Total> = outcome.tallies().iter().map(|tally| tally.used).collect();
        if expected.as_ref() == Some(&used) {
            return Ok((id, outcome));
        }
        let expected = match expected {
            Some(used) => format!("the answer of `peek` just before, plus the charges: used {used:?}"),
            None => format!("the answer of `peek` just before: {}", shown(&peeked)),
        };
        Err(Mismatch::new(self.describe("reserve", at, &self.aimed(at, charges)), expected, shown(&outcome)))
    }

    /// Reserves, and expects a grant.
    pub(super) async fn grant(&self, at: i64, charges: &[Charge]) -> Result<Held, Mismatch> {
        match self.reserve(at, charges).await? {
            (id, Outcome::Granted(tallies)) => Ok(Held::new(id, self.aimed(at, charges), tallies)),
            (_, refused) => {
                Err(Mismatch::new(self.describe("reserve", at, &self.aimed(at, charges)), "granted", shown(&refused)))
            }
        }
    }

    /// Reserves, and expects a refusal.
    pub(super) async fn refuse(&self, at: i64, charges: &[Charge]) -> Result<Tallies, Mismatch> {
        match self.reserve(at, charges).await? {
            (_, Outcome::Refused(tallies)) => Ok(tallies),
            (_, granted) => {
                Err(Mismatch::new(self.describe("reserve", at, &self.aimed(at, charges)), "refused", shown(&granted)))
            }
        }
    }

    /// Expects the counter of a charge to hold `micros` millionths.
    pub(super) async fn holds(&self, at: i64, charge: &Charge, micros: u64) -> Result<(), Mismatch> {
        let charges = [Charge { max: None, amount: Amount::ZERO, ..charge.clone() }];
        let outcome = self.peek(at, &charges).await?;
        let used = outcome.tallies().first().map(|tally| tally.used);
        if used == Some(Total::from_micros(micros)) {
            return Ok(());
        }
        let request = self.describe("peek", at, &self.aimed(at, &charges));
        Err(Mismatch::new(request, format!("used {}", Total::from_micros(micros)), shown(&outcome)))
    }

    /// Changes the charges of a reservation to `to`, in order.
    pub(super) async fn settle(&self, at: i64, held: &mut Held, to: &[Amount]) -> Result<(), Mismatch> {
        held.step = held.step.saturating_add(1);
        self.settle_again(at, held, to).await?;
        held.charges.iter_mut().zip(to).for_each(|(charge, to)| charge.amount = *to);
        Ok(())
    }

    /// Sends the settlement of the current step, perhaps again.
    pub(super) async fn settle_again(&self, at: i64, held: &Held, to: &[Amount]) -> Result<(), Mismatch> {
        let settled: Vec<_> = held
            .charges
            .iter()
            .zip(&held.tallies)
            .zip(to)
            .map(|((charge, tally), to)| ChargeChange::new(charge, tally.charged_at, *to))
            .collect();
        let request = SettleRequest::new(held.id, held.step, self.at(at), &settled);
        let answer = self.store.settle(&request).await;
        answered(&|| format!("{} to {to:?}", self.describe("settle", at, &held.charges)), answer)
    }

    /// Changes the ends of the leases of all units in flight of a reservation, as far as they have
    /// not ended.
    pub(super) async fn prolong(&self, at: i64, held: &mut Held, lease_end: i64) -> Result<(), Mismatch> {
        held.step = held.step.saturating_add(1);
        let (now, lease_end) = (self.at(at), self.at(lease_end));
        let made = held.charges.iter().zip(&held.tallies);
        let runs = |charge: &Charge, tally: &Tally| {
            matches!(charge.meter, Meter::InFlight { .. })
                && tally.charged_at.instant > now
                && tally.charged_at.instant < lease_end
        };
        let running = made.filter(|(charge, tally)| runs(charge, tally));
        let prolonged: Vec<_> =
            running.map(|(charge, tally)| ChargeChange::prolonged(charge, tally.charged_at, lease_end)).collect();
        let answer = self.store.settle(&SettleRequest::new(held.id, held.step, now, &prolonged)).await;
        answered(&|| format!("{} to end at {lease_end}", self.describe("prolong", at, &held.charges)), answer)?;
        for (charge, tally) in held.charges.iter().zip(&mut held.tallies) {
            if runs(charge, tally) {
                tally.charged_at.instant = lease_end;
            }
        }
        Ok(())
    }

    pub(super) async fn reset(&self, charge: &Charge) -> Result<(), Mismatch> {
        let answer = self.store.reset(charge.counter, &charge.subject).await;
        answered(&|| format!("reset counter {:?} of {:?}", charge.counter, charge.subject), answer)
    }

    /// Describes a request.
    pub(super) fn describe(&self, verb: &str, at: i64, charges: &[Charge]) -> String {
        let mut text = format!("{verb} at {}", self.at(at));
        for (index, charge) in charges.iter().enumerate() {
            text.push_str(if index == 0 { ": " } else { "; " });
            text.push_str(&describe(charge));
        }
        text
    }
}

impl Charge {
    pub(super) fn of(&self, amount: Amount) -> Self {
        Self { amount, ..self.clone() }
    }

    pub(super) fn up_to(&self, max: u64) -> Self {
        Self { max: Some(units(max)), ..self.clone() }
    }

    pub(super) fn by(&self, subject: Subject) -> Self {
        Self { subject, ..self.clone() }
    }

    /// Returns whether it has no room in any state of the counter.
    pub(super) fn never_fits(&self) -> bool {
        let rate = !matches!(self.meter, Meter::TokenBucket { refill: Amount::ZERO, .. });
        self.max.is_some_and(|max| max == Amount::ZERO || self.amount > max || !rate)
    }
}

pub(super) fn units(units: u64) -> Amount {
    Amount::from_micros(units.saturating_mul(Amount::ONE.micros())).unwrap_or(Amount::MAX)
}

/// Makes a subject of any bytes.
pub(super) fn subject(bytes: &[u8]) -> Subject {
    Subject::from_bytes(bytes)
}

fn answered<T>(request: &dyn Fn() -> String, answer: Result<T, StoreError>) -> Result<T, Mismatch> {
    answer.map_err(|error| Mismatch::new(request(), "an answer", format!("an error: {error} ({error:?})")))
}

/// Checks the properties that every answer must have.
fn check_answer(
    request: &dyn Fn() -> String,
    now: Timestamp,
    charges: &[Charge],
    outcome: &Outcome,
) -> Result<(), Mismatch> {
    let differs = |expected: &str| Err(Mismatch::new(request(), expected, shown(outcome)));
    if outcome.tallies().len() != charges.len() {
        return differs("one tally for each charge, in order");
    }
    let Outcome::Refused(tallies) = outcome else { return Ok(()) };
    let without_room: Vec<_> = tallies.iter().zip(charges).filter(|(tally, charge)| !tally.has_room(charge)).collect();
    if without_room.is_empty() {
        return differs("a refusal only if a charge has no room by its tally");
    }
    if without_room.iter().any(|(tally, charge)| charge.never_fits() && tally.retry_at.is_some()) {
        return differs("no `retry_at` for a charge that can never have room");
    }
    if without_room.iter().any(|(tally, _)| tally.retry_at.is_some_and(|at| at <= now)) {
        return differs("a `retry_at` after the present: otherwise a caller retries for ever");
    }
    Ok(())
}

/// Describes an answer.
pub(super) fn shown(outcome: &Outcome) -> String {
    let kind = if matches!(outcome, Outcome::Granted(_)) { "granted" } else { "refused" };
    let mut text = kind.to_owned();
    for tally in outcome.tallies() {
        let retry = tally.retry_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
        let Tally { used, resets_at, charged_at: ChargedAt { instant, generation }, .. } = tally;
        text.push_str(&format!("; used {used}, resets at {resets_at}, retry at {retry}, charged at {instant}"));
        text.push_str(&format!(" in generation {}", generation.get()));
    }
    text
}

fn describe(charge: &Charge) -> String {
    let meter = match charge.meter {
        Meter::Fixed(Span { start, end }) => format!("in the window from {start} to {end}"),
        Meter::Sliding { seconds } => format!("in any {seconds} s"),
        Meter::TokenBucket { refill, seconds } => format!("from a bucket with a refill of {refill} in {seconds} s"),
        Meter::InFlight { lease } => format!("in flight, leased for {lease} s"),
    };
    let max = charge.max.map_or_else(|| "without a max".to_owned(), |max| format!("of at most {max}"));
    let [a, b, c, d, ..] = charge.counter.as_bytes();
    let counter = format!("{a:02x}{b:02x}{c:02x}{d:02x}");
    format!("{} {max} {meter} (counter {counter}…, {:?})", charge.amount, charge.subject)
}
