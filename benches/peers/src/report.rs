//! The results of the measurements, from which the tables and the chart are made.

use std::path::Path;

use crate::race::{Contender, ContenderFactory, Pace, Ratio, race};
use crate::{allocations, chart, instructions, tables};

/// Contenders that decide the same calls. The first of them is the floor.
pub(crate) struct Comparison {
    pub(crate) title: &'static str,
    /// The heading of its column in the tables and of its panel in the chart.
    pub(crate) heading: &'static str,
    pub(crate) contenders: Vec<ContenderFactory>,
    pub(crate) ratios: Vec<Ratio>,
}

/// The results of a comparison.
pub(crate) struct Column {
    pub(crate) heading: &'static str,
    pub(crate) figures: Vec<Figure>,
}

/// The results of one engine for one decision.
pub(crate) struct Figure {
    pub(crate) engine: String,
    /// The median.
    pub(crate) nanoseconds: f64,
    /// The ratio of the median to that of the floor.
    pub(crate) ratio: f64,
    pub(crate) allocations: f64,
    pub(crate) instructions: Option<f64>,
}

/// The medians of each engine in nanoseconds, by the number of entries. An engine that is too slow
/// has no medians for the largest sizes.
pub(crate) struct Sizes {
    pub(crate) sizes: Vec<usize>,
    pub(crate) rows: Vec<(String, Vec<f64>)>,
}

/// The results of several engines for loading the same policy.
pub(crate) struct Loads {
    pub(crate) title: &'static str,
    pub(crate) rows: Vec<Loaded>,
}

pub(crate) struct Loaded {
    pub(crate) name: &'static str,
    pub(crate) text_bytes: usize,
    /// The memory that the loaded policy holds.
    pub(crate) live_bytes: i64,
    pub(crate) nanoseconds: f64,
}

pub(crate) struct Report {
    pub(crate) columns: Vec<Column>,
    pub(crate) sizes: Option<Sizes>,
    pub(crate) loads: Vec<Loads>,
}

impl Comparison {
    /// Measures the time of all contenders, then counts their allocations, and their instructions
    /// if `counts` is set.
    pub(crate) fn run(&self, pace: Pace, counts: bool) -> Column {
        let mut contenders: Vec<_> = self.contenders.iter().map(ContenderFactory::make).collect();
        let medians = race(self.title, pace, &mut contenders, &self.ratios);
        let floor = medians[0];
        let figures = self.contenders.iter().zip(&mut contenders).zip(&medians);
        let figures = figures.map(|((factory, contender), nanoseconds)| Figure {
            engine: factory.name.clone(),
            nanoseconds: *nanoseconds,
            ratio: nanoseconds / floor,
            allocations: allocations_per_decision(contender, *nanoseconds),
            instructions: counts.then(|| instructions::per_decision(self.title, factory, *nanoseconds)),
        });
        Column { heading: self.heading, figures: figures.collect() }
    }
}

/// Returns the mean number of allocations of a decision, over decisions that take about 50 ms.
fn allocations_per_decision(contender: &mut Contender<'_>, nanoseconds: f64) -> f64 {
    let units = if nanoseconds.is_nan() { 2 } else { ((50e6 / nanoseconds) as u64).clamp(16, 4096) };
    let (allocated, _) = allocations::during(|| contender.run(units));
    allocated.count as f64 / units as f64
}

impl Report {
    /// Prints the tables, and writes the chart and the page if their paths are given.
    pub(crate) fn publish(&self, chart: Option<&Path>, page: Option<&Path>) {
        let text = tables::markdown(self);
        println!("\n{text}");
        if let Some(file) = page {
            tables::write_into(file, &text);
        }
        if let Some(file) = chart {
            std::fs::write(file, chart::draw(&self.columns)).unwrap();
        }
    }
}
