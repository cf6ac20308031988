//! Runs contenders in turn and compares their medians.
//!
//! On a machine with other load, a figure cannot be compared with one that was measured a minute
//! later. So every round runs each contender for a few milliseconds, and begins with another
//! contender each time. A disturbance affects all of them equally, and the median ignores the
//! rounds that it affects.

use std::time::{Duration, Instant};

/// The number of rounds, and how long a contender runs in each.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    pub(crate) turn: Duration,
}

impl Pace {
    /// Returns the pace for data that is larger than the nearer caches: fewer and longer turns,
    /// because each turn fills the caches first.
    pub(crate) fn of_large(self) -> Self {
        Self { rounds: self.rounds.div_ceil(3), turn: self.turn * 8 }
    }

    pub(crate) fn measures(self) -> bool {
        self.rounds > 0
    }
}

/// One of several implementations of the same work.
pub(crate) struct Contender<'w> {
    name: String,
    run: Box<dyn FnMut(u64) -> Duration + 'w>,
}

impl<'w> Contender<'w> {
    /// Creates a contender whose unit of work is `work`.
    pub(crate) fn new(name: &str, mut work: impl FnMut() + 'w) -> Self {
        Self::timed(name, move |units| {
            let began = Instant::now();
            for _ in 0..units {
                work();
            }
            began.elapsed()
        })
    }

    /// Creates a contender that measures its own time.
    pub(crate) fn timed(name: &str, run: impl FnMut(u64) -> Duration + 'w) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }

    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Does this many units of work, and returns how long they took.
    pub(crate) fn run(&mut self, units: u64) -> Duration {
        (self.run)(units)
    }

    /// Returns the number of units that take about one turn.
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

/// Makes a contender: for a race, and again alone in a process that counts its instructions.
pub(crate) struct ContenderFactory {
    pub(crate) name: String,
    make: Box<dyn Fn() -> Contender<'static>>,
}

impl ContenderFactory {
    pub(crate) fn new(name: &str, make: impl Fn() -> Contender<'static> + 'static) -> Self {
        Self { name: name.into(), make: Box::new(make) }
    }

    pub(crate) fn make(&self) -> Contender<'static> {
        (self.make)()
    }
}

/// The ratio of a contender's median to that of another, the base, and its target. Both are
/// indices.
pub(crate) struct Ratio {
    contender: usize,
    base: usize,
    at_most: Option<f64>,
}

/// A ratio with a target.
pub(crate) fn ratio_at_most(contender: usize, base: usize, at_most: f64) -> Ratio {
    Ratio { contender, base, at_most: Some(at_most) }
}

/// A ratio without a target.
pub(crate) fn ratio(contender: usize, base: usize) -> Ratio {
    Ratio { contender, base, at_most: None }
}

/// Prints the medians, and each ratio with its target. Returns the medians in nanoseconds. If
/// nothing is measured, each contender does two units of work, and the medians are NaN.
pub(crate) fn race(title: &str, pace: Pace, contenders: &mut [Contender<'_>], ratios: &[Ratio]) -> Vec<f64> {
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
            // Warm up: the caches still hold the data of the previous contender.
            (contenders[index].run)(units[index] / 8);
            let took = (contenders[index].run)(units[index]);
            times[index].push(took.as_secs_f64() * 1e9 / units[index] as f64);
        }
    }
    let medians: Vec<_> = times.iter().map(|times| quantile(times, 0.5)).collect();
    for (contender, median) in contenders.iter().zip(&medians) {
        println!("  {:<46}{:>14}", contender.name, duration(*median));
    }
    for Ratio { contender, base, at_most } in ratios {
        let ratio = medians[*contender] / medians[*base];
        // The spread over the rounds shows how reliable the ratio is.
        let rounds: Vec<_> = times[*contender].iter().zip(&times[*base]).map(|(a, b)| a / b).collect();
        let target = match at_most {
            Some(max) if ratio <= *max => format!("; at most {max:.2}"),
            Some(max) => format!("; at most {max:.2}: MISSED"),
            None => String::new(),
        };
        println!(
            "  {:<46}{ratio:>11.2} × {} ({:.2} to {:.2} in half of the rounds){target}",
            contenders[*contender].name,
            contenders[*base].name,
            quantile(&rounds, 0.25),
            quantile(&rounds, 0.75),
        );
    }
    medians
}

fn quantile(values: &[f64], fraction: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * fraction) as usize]
}

pub(crate) fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        small if small < 1e4 => format!("{small:.1} ns"),
        medium if medium < 1e7 => format!("{:.1} µs", medium / 1e3),
        large => format!("{:.1} ms", large / 1e6),
    }
}
