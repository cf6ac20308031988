//! toolgate beside other crates, and beside the least that the same work takes by hand.
//!
//! `cargo run --release` in this directory prints medians and the ratios that count; a word after `--` runs what has it
//! in its title, a number changes how many rounds are run, and `--test` runs each once. The workloads are those of the
//! crate's own benches.

#[path = "../../counters.rs"]
#[allow(dead_code, reason = "shared with the crate's own benches")]
mod counters;
#[path = "../../floor.rs"]
mod floor;
mod limiters;
mod networked;
mod peer;
mod race;
mod rules;
#[path = "../../workload.rs"]
#[allow(dead_code, reason = "shared with the crate's own benches")]
mod workload;

use std::time::Duration;

use race::Pace;

/// What the command line asks for.
struct Asked {
    words: Vec<String>,
    pace: Pace,
}

impl Asked {
    fn from_command_line() -> Self {
        let (numbers, words): (Vec<_>, Vec<_>) =
            std::env::args().skip(1).partition(|word| word.parse::<usize>().is_ok());
        let test = words.iter().any(|word| word == "--test");
        let rounds = numbers.iter().find_map(|number| number.parse().ok()).unwrap_or(101);
        let pace = Pace { rounds: if test { 0 } else { rounds }, turn: Duration::from_millis(4) };
        Self { words: words.into_iter().filter(|word| word != "--test").collect(), pace }
    }

    fn wants(&self, title: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| title.contains(word.as_str()))
    }

    /// So many callers, or a few where nothing is measured.
    fn callers(&self, many: usize) -> usize {
        if self.pace.measures() { many } else { many.min(1_000) }
    }
}

fn main() {
    let asked = Asked::from_command_line();
    rules::names_alone(&asked);
    rules::conditions(&asked);
    rules::many_entries(&asked);
    rules::load(&asked);
    limiters::reserve(&asked);
    limiters::decide(&asked);
    limiters::threads(&asked);
    networked::redis(&asked);
}
