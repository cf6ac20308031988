//! What was measured, in one place: it becomes tables and a chart.

use std::path::Path;

use crate::race::{Claim, Contender, Entrant, Pace, race};
use crate::{allocations, chart, instructions, tables};

/// Entrants that decide the same calls. The first of them is the floor.
pub(crate) struct Contest {
    pub(crate) title: &'static str,
    /// What the tables and the chart call it.
    pub(crate) heading: &'static str,
    pub(crate) entrants: Vec<Entrant>,
    pub(crate) claims: Vec<Claim>,
}

/// What a contest has shown.
pub(crate) struct Column {
    pub(crate) heading: &'static str,
    pub(crate) figures: Vec<Figure>,
}

/// One decision of one engine.
pub(crate) struct Figure {
    pub(crate) engine: String,
    /// The median.
    pub(crate) nanoseconds: f64,
    /// The median beside that of the floor.
    pub(crate) ratio: f64,
    pub(crate) allocations: f64,
    pub(crate) instructions: Option<f64>,
}

/// Medians in nanoseconds, of each engine for as many sizes as it was asked for.
pub(crate) struct Sizes {
    pub(crate) sizes: Vec<usize>,
    pub(crate) rows: Vec<(String, Vec<f64>)>,
}

/// What several take to read the same policy.
pub(crate) struct Loads {
    pub(crate) title: &'static str,
    pub(crate) rows: Vec<Loaded>,
}

pub(crate) struct Loaded {
    pub(crate) name: &'static str,
    pub(crate) text_bytes: usize,
    /// What the policy holds once it has been read.
    pub(crate) live_bytes: i64,
    pub(crate) nanoseconds: f64,
}

pub(crate) struct Report {
    pub(crate) columns: Vec<Column>,
    pub(crate) sizes: Option<Sizes>,
    pub(crate) loads: Vec<Loads>,
}

impl Contest {
    /// Takes everybody's time, then counts allocations, and instructions where that can be done.
    pub(crate) fn hold(&self, pace: Pace, counts: bool) -> Column {
        let mut contenders: Vec<_> = self.entrants.iter().map(Entrant::make).collect();
        let medians = race(self.title, pace, &mut contenders, &self.claims);
        let floor = medians[0];
        let figures = self.entrants.iter().zip(&mut contenders).zip(&medians);
        let figures = figures.map(|((entrant, contender), nanoseconds)| Figure {
            engine: entrant.name.clone(),
            nanoseconds: *nanoseconds,
            ratio: nanoseconds / floor,
            allocations: allocations_of(contender, *nanoseconds),
            instructions: counts.then(|| instructions::of(self.title, entrant, *nanoseconds)),
        });
        Column { heading: self.heading, figures: figures.collect() }
    }
}

/// How often one decision allocates, in the mean of so many as take some 50 ms.
fn allocations_of(contender: &mut Contender<'_>, nanoseconds: f64) -> f64 {
    let units = if nanoseconds.is_nan() { 2 } else { ((50e6 / nanoseconds) as u64).clamp(16, 4096) };
    let (allocated, _) = allocations::during(|| contender.run(units));
    allocated.times as f64 / units as f64
}

impl Report {
    /// Prints the tables, and writes what was asked for.
    pub(crate) fn publish(&self, chart: Option<&Path>, page: Option<&Path>) {
        let text = tables::markdown(self);
        println!("\n{text}");
        if let Some(file) = page {
            tables::put_into(file, &text);
        }
        if let Some(file) = chart {
            std::fs::write(file, chart::draw(&self.columns)).unwrap();
        }
    }
}
