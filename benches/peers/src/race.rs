//! Runs contenders in turn and compares their medians.
//!
//! On a machine with neighbours a figure taken now and another taken a minute later cannot be compared. So every round
//! runs each contender for a few milliseconds, beginning with another one each time; a disturbance meets all alike, and
//! the median forgets the rounds that it met.

use std::time::{Duration, Instant};

/// How many rounds there are, and how long a contender runs in each.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    pub(crate) turn: Duration,
}

impl Pace {
    /// For what is larger than the nearer caches, which every turn begins by filling again: fewer and longer turns.
    pub(crate) fn of_large(self) -> Self {
        Self { rounds: self.rounds.div_ceil(3), turn: self.turn * 8 }
    }

    pub(crate) fn measures(self) -> bool {
        self.rounds > 0
    }
}

/// One of those that do the same work.
pub(crate) struct Contender<'w> {
    name: String,
    /// Does so much work and says how long it took.
    run: Box<dyn FnMut(u64) -> Duration + 'w>,
}

impl<'w> Contender<'w> {
    /// One whose unit of work is `work`.
    pub(crate) fn new(name: &str, mut work: impl FnMut() + 'w) -> Self {
        Self::timed(name, move |units| {
            let began = Instant::now();
            for _ in 0..units {
                work();
            }
            began.elapsed()
        })
    }

    /// One that takes its own time.
    pub(crate) fn timed(name: &str, run: impl FnMut(u64) -> Duration + 'w) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }

    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Does so much work and says how long it took.
    pub(crate) fn run(&mut self, units: u64) -> Duration {
        (self.run)(units)
    }

    /// How many units it does in a turn.
    fn units(&mut self, turn: Duration) -> u64 {
        let mut units = 1;
        loop {
            let took = (self.run)(units);
            if took >= turn || units >= 1 << 32 {
                return units;
            }
            let fits = turn.as_nanos() / took.as_nanos().max(1);
            units *= u64::try_from(fits).unwrap_or(16).clamp(2, 16);
        }
    }
}

/// A contender that can be made again: for its time, for its allocations, and alone in a process of its own.
pub(crate) struct Entrant {
    pub(crate) name: String,
    make: Box<dyn Fn() -> Contender<'static>>,
}

impl Entrant {
    pub(crate) fn new(name: &str, make: impl Fn() -> Contender<'static> + 'static) -> Self {
        Self { name: name.into(), make: Box::new(make) }
    }

    pub(crate) fn make(&self) -> Contender<'static> {
        (self.make)()
    }
}

/// What the table says of a contender beside another.
pub(crate) struct Claim {
    contender: usize,
    beside: usize,
    at_most: Option<f64>,
}

/// That a contender takes at most so many times what another takes.
pub(crate) fn claim(contender: usize, beside: usize, at_most: f64) -> Claim {
    Claim { contender, beside, at_most: Some(at_most) }
}

/// A ratio that is shown and has no target.
pub(crate) fn shown(contender: usize, beside: usize) -> Claim {
    Claim { contender, beside, at_most: None }
}

/// Prints the medians, and for each claim the ratio of two of them beside its target. If nothing is measured, each
/// contender runs once. Answers with the medians, in nanoseconds.
pub(crate) fn race(title: &str, pace: Pace, contenders: &mut [Contender<'_>], claims: &[Claim]) -> Vec<f64> {
    println!("\n{title}");
    if !pace.measures() {
        for contender in &mut *contenders {
            contender.run(2);
        }
        return vec![f64::NAN; contenders.len()];
    }
    let Pace { rounds, turn } = pace;
    let units: Vec<_> = contenders.iter_mut().map(|contender| contender.units(turn)).collect();
    let mut times: Vec<Vec<f64>> = contenders.iter().map(|_| Vec::with_capacity(rounds)).collect();
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let index = (turn + round) % contenders.len();
            // The caches still hold what the one before has used.
            (contenders[index].run)(units[index] / 8);
            let took = (contenders[index].run)(units[index]);
            times[index].push(took.as_secs_f64() * 1e9 / units[index] as f64);
        }
    }
    let medians: Vec<_> = times.iter().map(|times| quantile(times, 0.5)).collect();
    for (contender, median) in contenders.iter().zip(&medians) {
        println!("  {:<46}{:>14}", contender.name, duration(*median));
    }
    for Claim { contender, beside, at_most } in claims {
        let ratio = medians[*contender] / medians[*beside];
        // How far single rounds stray tells how much to believe the ratio.
        let rounds: Vec<_> = times[*contender].iter().zip(&times[*beside]).map(|(a, b)| a / b).collect();
        let target = match at_most {
            Some(most) if ratio <= *most => format!("; at most {most:.2}"),
            Some(most) => format!("; at most {most:.2}: MISSED"),
            None => String::new(),
        };
        println!(
            "  {:<46}{ratio:>11.2} × {} ({:.2} to {:.2} in half of the rounds){target}",
            contenders[*contender].name,
            contenders[*beside].name,
            quantile(&rounds, 0.25),
            quantile(&rounds, 0.75),
        );
    }
    medians
}

fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

pub(crate) fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        small if small < 1e4 => format!("{small:.1} ns"),
        medium if medium < 1e7 => format!("{:.1} µs", medium / 1e3),
        large => format!("{:.1} ms", large / 1e6),
    }
}
