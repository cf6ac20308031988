//! Draws the decisions as a chart: bars on a logarithmic scale, labelled with their figures.

use std::fmt::Write;

use crate::report::{Column, Figure};
use crate::tables::{time, times};

/// The contenders that the chart shows, each engine in its fastest form, and their short names.
const BARS: [(&str, &str); 9] = [
    ("floor by hand", "floor by hand"),
    ("toolgate", "toolgate"),
    ("a HashMap of names", "HashMap"),
    ("jsonschema behind a map", "jsonschema"),
    ("a HashMap of names and limitador", "limitador"),
    ("cel, names in a map", "cel"),
    ("regorus, compiled", "regorus"),
    ("cedar, tools in a group", "cedar"),
    ("casbin", "casbin"),
];
const WIDTH: f64 = 860.0;
const MARGIN: f64 = 20.0;
const TOP: f64 = 74.0;
const ROW: f64 = 22.0;
/// The height from a panel's heading to its first bar.
const HEAD: f64 = 30.0;
/// The height from a panel's last bar to the next panel.
const FOOT: f64 = 38.0;
const NAMES: f64 = 88.0;
const FIGURES: f64 = 118.0;
/// The legend, beside the last of an odd number of panels.
const NOTES: [&str; 8] = [
    "W1: 359 tools are allowed by name, and nothing else.",
    "W2: W1, and one tool with four conditions on its arguments,",
    "of which one is a regular expression.",
    "W1 + one limit: a whole decision, counted for each caller.",
    "The floor is the same work by hand: look-ups in a fast map,",
    "the compiled regular expression, one check of governor.",
    "Compare the ratios to the floor (×), measured in one run.",
    "Each engine in its fastest form; all give the same answers.",
];
/// The styles of light and dark pages. They do not use variables, which few renderers support.
const STYLE: &str = "\
.page{fill:#fff}text{fill:#1f2328;font:12px -apple-system,'Segoe UI',Helvetica,Arial,sans-serif}\
.title{font-size:17px;font-weight:600}.head{font-size:13px;font-weight:600}.soft{fill:#59636e}\
.tick{fill:#59636e;font-size:10px}.ours{font-weight:600}\
.figure{paint-order:stroke;stroke:#fff;stroke-width:3px}line{stroke:#d8dee4}\
rect.peer{fill:#9aa4af}rect.floor{fill:#c9d1d9}rect.ours{fill:#0969da}\
@media(prefers-color-scheme:dark){.page{fill:#0d1117}text{fill:#f0f6fc}.soft,.tick{fill:#9198a1}line{stroke:#30363d}\
.figure{stroke:#0d1117}\
rect.peer{fill:#6e7681}rect.floor{fill:#484f58}rect.ours{fill:#4493f8}}";

/// Draws all columns as an SVG.
pub(crate) fn draw(columns: &[Column]) -> String {
    let panels: Vec<_> = columns.iter().map(|column| (column.heading, bars(column))).collect();
    let width = (WIDTH - 3.0 * MARGIN) / 2.0;
    let all = || panels.iter().flat_map(|(_, figures)| figures).map(|(_, figure)| figure.nanoseconds);
    let scale = Scale {
        from: all().fold(f64::MAX, f64::min).log10().floor(),
        to: all().fold(1.0, f64::max).log10(),
        width: width - NAMES - FIGURES,
    };
    let mut body = String::new();
    let mut y = TOP;
    for pair in panels.chunks(2) {
        let rows = pair.iter().map(|(_, figures)| figures.len()).max().unwrap_or(0);
        for (at, (heading, figures)) in pair.iter().enumerate() {
            panel(&mut body, (MARGIN + at as f64 * (width + MARGIN), y), rows, heading, figures, &scale);
        }
        y += HEAD + rows as f64 * ROW + FOOT;
    }
    if panels.len() % 2 == 1 {
        let rows = panels.last().map_or(0, |(_, figures)| figures.len());
        let (x, top) = (2.0 * MARGIN + width, y - FOOT - rows as f64 * ROW);
        for (line, text) in NOTES.iter().enumerate() {
            let _ = writeln!(
                body,
                "<text class=\"soft\" x=\"{x}\" y=\"{}\">{text}</text>",
                top + 13.0 + line as f64 * 18.0
            );
        }
    }
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" \
         role=\"img\" aria-label=\"Time of one decision by engine, as in the tables of docs/performance.md\">\n\
         <style>{STYLE}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{y}\" rx=\"8\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"32\">One decision: median, and ratio to the floor by hand</text>\n\
         <text class=\"soft\" x=\"{MARGIN}\" y=\"52\">Shorter is faster. Logarithmic scale: each \
         line is ten times the one before.</text>"
    );
    svg + body.as_str() + "</svg>\n"
}

struct Scale {
    /// The exponent of ten of the shortest time, in nanoseconds. `to` is that of the longest.
    from: f64,
    to: f64,
    width: f64,
}

impl Scale {
    fn at(&self, power: f64) -> f64 {
        (power - self.from) / (self.to - self.from) * self.width
    }
}

/// Returns the figures that the chart shows, with the short names of their engines.
fn bars(column: &Column) -> Vec<(&'static str, &Figure)> {
    let find = |name| column.figures.iter().find(|figure| figure.engine == name);
    BARS.iter().filter_map(|(name, short)| Some((*short, find(*name)?))).collect()
}

fn panel(svg: &mut String, (x, y): (f64, f64), rows: usize, heading: &str, figures: &[(&str, &Figure)], scale: &Scale) {
    let note = if heading.contains("limit") { "with governor, except toolgate and limitador" } else { "" };
    let _ = writeln!(
        svg,
        "<text class=\"head\" x=\"{x}\" y=\"{}\">{heading}\
         <tspan class=\"soft\" dx=\"6\" style=\"font-weight:400\">{note}</tspan></text>",
        y + 14.0
    );
    let (left, top, bottom) = (x + NAMES, y + HEAD - 4.0, y + HEAD + rows as f64 * ROW);
    let mut power = scale.from;
    while power <= scale.to {
        let at = left + scale.at(power);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>\
             <text class=\"tick\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{}</text>",
            bottom + 13.0,
            tick(power)
        );
        power += 1.0;
    }
    for (index, (name, figure)) in figures.iter().enumerate() {
        let y = y + HEAD + index as f64 * ROW;
        let class = match *name {
            "toolgate" => "ours",
            "floor by hand" => "floor",
            _ => "peer",
        };
        let length = scale.at(figure.nanoseconds.log10()).max(1.0);
        let _ = writeln!(
            svg,
            "<text class=\"{weight}\" text-anchor=\"end\" x=\"{}\" y=\"{}\">{name}</text>\
             <rect class=\"{class}\" x=\"{left}\" y=\"{}\" width=\"{length:.1}\" height=\"15\" rx=\"2\"/>\
             <text class=\"figure {weight}\" x=\"{:.1}\" y=\"{}\">{} · {}</text>",
            left - 8.0,
            y + 13.0,
            y + 1.0,
            left + length + 6.0,
            y + 13.0,
            time(figure.nanoseconds),
            times(figure.ratio),
            weight = if class == "ours" { "ours" } else { "" },
        );
    }
}

fn tick(power: f64) -> String {
    let number = |above: f64| 10f64.powf(power - above).round();
    match power {
        small if small < 3.0 => format!("{} ns", number(0.0)),
        medium if medium < 6.0 => format!("{} µs", number(3.0)),
        _ => format!("{} ms", number(6.0)),
    }
}
