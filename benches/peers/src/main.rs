//! Compares toolgate with other crates, and with the same work written by hand.
//!
//! `cargo run --release` in this directory prints medians and their ratios. A word after `--`
//! selects the comparisons with the word in their titles, a number sets the number of rounds, and
//! `--test` runs each contender without measuring. The workloads are those of the crate's own
//! benchmarks. `--instructions` also counts instructions, `--chart FILE` draws the decisions, and
//! `--tables FILE` writes the tables into a page, between two marks. The figures of
//! `docs/performance.md` come from:
//!
//! ```sh
//! cargo run --release -- --instructions --chart ../chart.svg --tables ../../docs/performance.md
//! ```

mod allocations;
mod chart;
#[path = "../../counters.rs"]
#[allow(dead_code, reason = "shared with the crate's own benchmarks")]
mod counters;
mod engines;
#[path = "../../floor.rs"]
mod floor;
mod instructions;
mod limiters;
mod networked;
mod peer;
mod race;
mod report;
mod rules;
mod tables;
#[path = "../../workload.rs"]
#[allow(dead_code, reason = "shared with the crate's own benchmarks")]
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use race::Pace;
use report::{Comparison, Report};

/// The options of the command line.
struct Options {
    /// Words of titles. If there are none, every comparison runs.
    words: Vec<String>,
    pace: Pace,
    instructions: bool,
    chart: Option<PathBuf>,
    tables: Option<PathBuf>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Self {
        let pace = Pace { rounds: 101, turn: Duration::from_millis(4) };
        let mut options = Self { words: Vec::new(), pace, instructions: false, chart: None, tables: None };
        while let Some(argument) = arguments.next() {
            let mut file = || Some(PathBuf::from(arguments.next().expect("a file name")));
            match argument.as_str() {
                "--test" => options.pace.rounds = 0,
                "--instructions" => options.instructions = true,
                "--chart" => options.chart = file(),
                "--tables" => options.tables = file(),
                word => match word.parse() {
                    Ok(rounds) if options.pace.measures() => options.pace.rounds = rounds,
                    Ok(_) => {}
                    Err(_) => options.words.push(argument),
                },
            }
        }
        options
    }

    /// Returns `true` if the comparison with this title should run.
    fn selects(&self, title: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| title.contains(word.as_str()))
    }

    /// Returns the number of callers: `many`, or at most a thousand if nothing is measured.
    fn callers(&self, many: usize) -> usize {
        if self.pace.measures() { many } else { many.min(1_000) }
    }
}

fn comparisons() -> Vec<Comparison> {
    vec![
        rules::names_alone(true),
        rules::names_alone(false),
        rules::conditions(true),
        rules::conditions(false),
        limiters::one_limit(),
    ]
}

fn main() {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [word, title, name, units] = &mut arguments[..]
        && word == instructions::ALONE
    {
        let comparisons = comparisons();
        let comparison = comparisons.iter().find(|comparison| comparison.title == title).expect("a title");
        let contender = comparison.contenders.iter().find(|contender| contender.name == *name).expect("a name");
        contender.make().run(units.parse().expect("a number"));
        return;
    }
    let options = Options::parse(arguments.into_iter());
    rules::check_agreement();
    let counts = instructions::can_count(&options);
    let selected = comparisons().into_iter().filter(|comparison| options.selects(comparison.title));
    let report = Report {
        columns: selected.map(|comparison| comparison.run(options.pace, counts)).collect(),
        sizes: rules::many_entries(&options),
        loads: rules::load(&options),
    };
    limiters::reserve(&options);
    limiters::decide(&options);
    limiters::threads(&options);
    networked::redis(&options);
    networked::cluster(&options);
    if options.pace.measures() {
        report.publish(options.chart.as_deref(), options.tables.as_deref());
    }
}
