//! A random history for two stores.

use super::Suite;
use super::case::{Case, DAY, Mismatch, SECOND, WINDOW, shown, subject, units};
use crate::amount::Amount;
use crate::charge::{Charge, Meter};
use crate::store::{AsyncCounterStore, Outcome, Tally};
use crate::time::Timestamp;

/// A random number generator, with equal numbers for equal seeds on every platform.
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number, by SplitMix64: a Weyl sequence whose bits are mixed until each
    /// depends on all others.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below a bound.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn micros(&mut self, bound: i64) -> i64 {
        i64::try_from(self.below(bound.unsigned_abs())).unwrap_or(0)
    }

    fn one_of<T: Clone>(&mut self, among: &[T]) -> Option<T> {
        let index = usize::try_from(self.below(among.len() as u64)).unwrap_or(0);
        among.get(index).cloned()
    }
}

/// A reservation that both stores have granted.
struct Granted {
    /// One for each store.
    held: [super::case::Held; 2],
    settled: u8,
}

pub(super) async fn compare(
    stores: [&dyn AsyncCounterStore; 2],
    start: Timestamp,
    run: u64,
    seed: u64,
    steps: usize,
) -> Result<(), Mismatch> {
    let suite = Suite::new(start);
    let cases = stores.map(|store| Case::new(store, &suite, run, "equal_histories_give_equal_answers"));
    let mut history = History::new(&cases, seed);
    for step in 0..steps {
        let in_history = |mismatch: Mismatch| {
            let request = format!("step {step} of the history of seed {seed}: {}", mismatch.request);
            Mismatch { request, ..mismatch }
        };
        history.step().await.map_err(in_history)?;
    }
    Ok(())
}

struct History<'c, 's> {
    cases: &'c [Case<'s>; 2],
    draw: Draw,
    /// A charge of one unit for every counter and subject.
    charges: Vec<Charge>,
    granted: Vec<Granted>,
    now: i64,
}

impl<'c, 's> History<'c, 's> {
    fn new(cases: &'c [Case<'s>; 2], seed: u64) -> Self {
        let [case, _] = cases;
        let mut meters = case.meters().to_vec();
        meters.extend([
            case.fixed(SECOND),
            case.fixed(DAY),
            Meter::Sliding { seconds: 1 },
            Meter::Sliding { seconds: 3600 },
            Meter::TokenBucket { refill: units(7), seconds: 3 },
            Meter::TokenBucket { refill: Amount::ZERO, seconds: 1 },
            Meter::TokenBucket { refill: Amount::MAX, seconds: 3600 },
            Meter::InFlight { lease: 1 },
        ]);
        let counters: Vec<Charge> = meters.into_iter().map(|meter| case.charge(meter)).collect();
        let charges =
            [&b"a"[..], b"b\0{}"].iter().flat_map(|name| counters.iter().map(|c| c.by(subject(name)))).collect();
        Self { cases, draw: Draw::new(seed), charges, granted: Vec::new(), now: 0 }
    }

    async fn step(&mut self) -> Result<(), Mismatch> {
        self.pass_time();
        match self.draw.below(100) {
            0..=54 => self.reserve().await,
            55..=69 => self.peek().await,
            70..=92 => self.settle().await,
            93..=97 => self.prolong().await,
            _ => self.reset().await,
        }
    }

    /// Moves the time: mostly by little, sometimes far, and sometimes back, but never before the
    /// start.
    fn pass_time(&mut self) {
        let step = match self.draw.below(100) {
            0..=29 => 0,
            30..=44 => 1,
            45..=64 => self.draw.micros(SECOND / 10),
            65..=79 => self.draw.micros(SECOND),
            80..=89 => self.draw.micros(WINDOW / 4),
            90..=92 => WINDOW,
            93 => self.draw.micros(2 * 3600 * SECOND),
            94 => self.draw.micros(DAY / 8),
            95 => -1,
            96..=97 => -self.draw.micros(SECOND),
            _ => -self.draw.micros(2 * WINDOW),
        };
        self.now = (self.now + step).max(0);
    }

    fn amount(&mut self) -> Amount {
        match self.draw.below(20) {
            0 => Amount::ZERO,
            1 => Amount::from_micros(1).unwrap_or(Amount::ONE),
            2 => Amount::MAX,
            3..=6 => Amount::from_micros(self.draw.below(5_000_000)).unwrap_or(Amount::ONE),
            _ => units(self.draw.below(4)),
        }
    }

    /// Returns some charges, no two of the same counter and subject.
    fn call(&mut self) -> Vec<Charge> {
        let mut charges: Vec<Charge> = Vec::new();
        for _ in 0..self.draw.below(5) {
            let Some(charge) = self.draw.one_of(&self.charges) else { continue };
            if charges.iter().any(|other| (other.counter, &other.subject) == (charge.counter, &charge.subject)) {
                continue;
            }
            let max = match self.draw.below(12) {
                0..=2 => None,
                3 => Some(Amount::MAX),
                4 => Some(self.amount()),
                _ => Some(units(self.draw.below(12) + 1)),
            };
            charges.push(Charge { max, ..charge.of(self.amount()) });
        }
        charges
    }

    async fn reserve(&mut self) -> Result<(), Mismatch> {
        let (charges, now) = (self.call(), self.now);
        let [one, other] = self.cases;
        let (id, first) = one.reserve(now, &charges).await?;
        let (other_id, second) = other.reserve(now, &charges).await?;
        self.same("reserve", &charges, &first, &second)?;
        if let (Outcome::Granted(first), Outcome::Granted(second)) = (first, second) {
            let made = |id, tallies| super::case::Held::new(id, one.aimed(now, &charges), tallies);
            self.granted.push(Granted { held: [made(id, first), made(other_id, second)], settled: 0 });
        }
        Ok(())
    }

    async fn peek(&mut self) -> Result<(), Mismatch> {
        let (charges, now) = (self.call(), self.now);
        let [one, other] = self.cases;
        let (first, second) = (one.peek(now, &charges).await?, other.peek(now, &charges).await?);
        self.same("peek", &charges, &first, &second)
    }

    /// Settles as a gate does: to the real amount and then to zero, or to zero at once.
    async fn settle(&mut self) -> Result<(), Mismatch> {
        let now = self.now;
        let latest = self.granted.len().saturating_sub(12);
        let index = latest + usize::try_from(self.draw.below(12)).unwrap_or(0);
        let real = self.amount();
        let release = self.draw.below(2) == 0;
        let [one, other] = self.cases;
        let Some(granted) = self.granted.get_mut(index) else { return Ok(()) };
        granted.settled += if release || granted.settled > 0 { 2 } else { 1 };
        let [first, second] = &mut granted.held;
        let to = vec![if granted.settled > 1 { Amount::ZERO } else { real }; first.charges.len()];
        one.settle(now, first, &to).await?;
        other.settle(now, second, &to).await?;
        let charges: Vec<Charge> = first.charges.iter().map(|charge| charge.of(Amount::ZERO)).collect();
        if granted.settled > 1 {
            self.granted.remove(index);
        }
        let (first, second) = (one.peek(now, &charges).await?, other.peek(now, &charges).await?);
        self.same("settle and peek", &charges, &first, &second)
    }

    async fn prolong(&mut self) -> Result<(), Mismatch> {
        let now = self.now;
        let lease_end = now + self.draw.micros(2 * WINDOW);
        let latest = self.granted.len().saturating_sub(12);
        let index = latest + usize::try_from(self.draw.below(12)).unwrap_or(0);
        let [one, other] = self.cases;
        let Some(granted) = self.granted.get_mut(index) else { return Ok(()) };
        let [first, second] = &mut granted.held;
        one.prolong(now, first, lease_end).await?;
        other.prolong(now, second, lease_end).await?;
        let charges: Vec<Charge> = first.charges.iter().map(|charge| charge.of(Amount::ZERO)).collect();
        let (first, second) = (one.peek(now, &charges).await?, other.peek(now, &charges).await?);
        self.same("prolong and peek", &charges, &first, &second)
    }

    async fn reset(&mut self) -> Result<(), Mismatch> {
        if let Some(charge) = self.draw.one_of(&self.charges) {
            for case in self.cases {
                case.reset(&charge).await?;
            }
        }
        Ok(())
    }

    fn same(&self, verb: &str, charges: &[Charge], first: &Outcome, second: &Outcome) -> Result<(), Mismatch> {
        let granted = |outcome: &Outcome| matches!(outcome, Outcome::Granted(_));
        let made = granted(first) && verb == "reserve";
        let all = first.tallies().iter().zip(second.tallies()).zip(charges);
        if granted(first) == granted(second) && all.into_iter().all(|((a, b), charge)| alike(a, b, charge, made)) {
            return Ok(());
        }
        let [case, _] = self.cases;
        let request = case.describe(verb, self.now, &case.aimed(self.now, charges));
        Err(Mismatch::new(
            request,
            format!("as from the first store: {}", shown(first)),
            format!("from the second store: {}", shown(second)),
        ))
    }
}

/// Returns whether two tallies are equal in everything that has a meaning.
fn alike(a: &Tally, b: &Tally, charge: &Charge, made: bool) -> bool {
    // A counter that holds nothing has no end to wait for.
    let fixed = matches!(charge.meter, Meter::Fixed(_));
    let resets = a.resets_at == b.resets_at || (!fixed && a.used.micros() == 0);
    let retry = a.retry_at == b.retry_at || made || a.has_room(charge);
    let charged = a.charged_at.instant == b.charged_at.instant || !made;
    a.used == b.used && resets && retry && charged
}
