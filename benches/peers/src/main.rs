//! toolgate beside other crates, and beside the least that the same work takes by hand.
//!
//! `cargo run --release` in this directory prints medians and the ratios that count; a word after `--` runs what has it
//! in its title, a number changes how many rounds are run, and `--test` runs each once. The workloads are those of the
//! crate's own benches. With `--instructions` it counts instructions too, with `--chart FILE` it draws the decisions, and
//! with `--tables FILE` it writes its tables into a page, between two marks. What `docs/performance.md` shows comes from
//! `cargo run --release -- --instructions --chart ../chart.svg --tables ../../docs/performance.md`.

mod allocations;
mod chart;
#[path = "../../counters.rs"]
#[allow(dead_code, reason = "shared with the crate's own benches")]
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
#[allow(dead_code, reason = "shared with the crate's own benches")]
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use race::Pace;
use report::{Contest, Report};

/// What the command line asks for.
struct Asked {
    words: Vec<String>,
    pace: Pace,
    instructions: bool,
    chart: Option<PathBuf>,
    tables: Option<PathBuf>,
}

impl Asked {
    fn from(mut arguments: impl Iterator<Item = String>) -> Self {
        let pace = Pace { rounds: 101, turn: Duration::from_millis(4) };
        let mut asked = Self { words: Vec::new(), pace, instructions: false, chart: None, tables: None };
        while let Some(argument) = arguments.next() {
            let mut file = || Some(PathBuf::from(arguments.next().expect("a file's name")));
            match argument.as_str() {
                "--test" => asked.pace.rounds = 0,
                "--instructions" => asked.instructions = true,
                "--chart" => asked.chart = file(),
                "--tables" => asked.tables = file(),
                word => match word.parse() {
                    Ok(rounds) if asked.pace.measures() => asked.pace.rounds = rounds,
                    Ok(_) => {}
                    Err(_) => asked.words.push(argument),
                },
            }
        }
        asked
    }

    fn wants(&self, title: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| title.contains(word.as_str()))
    }

    /// So many callers, or a few where nothing is measured.
    fn callers(&self, many: usize) -> usize {
        if self.pace.measures() { many } else { many.min(1_000) }
    }
}

fn contests() -> Vec<Contest> {
    let mut contests = Vec::new();
    for allowed in [true, false] {
        contests.push(rules::names_alone(allowed));
    }
    for allowed in [true, false] {
        contests.push(rules::conditions(allowed));
    }
    contests.push(limiters::one_limit());
    contests
}

fn main() {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [word, title, name, units] = &mut arguments[..]
        && word == instructions::ALONE
    {
        let contests = contests();
        let contest = contests.iter().find(|contest| contest.title == title).expect("a title");
        let entrant = contest.entrants.iter().find(|entrant| entrant.name == *name).expect("a name");
        entrant.make().run(units.parse().expect("a number"));
        return;
    }
    let asked = Asked::from(arguments.into_iter());
    rules::agree();
    let counts = instructions::countable(&asked);
    let asked_for = contests().into_iter().filter(|contest| asked.wants(contest.title));
    let report = Report {
        columns: asked_for.map(|contest| contest.hold(asked.pace, counts)).collect(),
        sizes: rules::many_entries(&asked),
        loads: rules::load(&asked),
    };
    limiters::reserve(&asked);
    limiters::decide(&asked);
    limiters::threads(&asked);
    networked::redis(&asked);
    if asked.pace.measures() {
        report.publish(asked.chart.as_deref(), asked.tables.as_deref());
    }
}
