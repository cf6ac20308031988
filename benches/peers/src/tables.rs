//! Formatting of the results as Markdown tables.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::report::{Column, Figure, Loads, Report, Sizes};

const BEGIN: &str = "<!-- Written by benches/peers: begin -->\n";
const END: &str = "<!-- Written by benches/peers: end -->\n";
const PEERS: [&str; 8] =
    ["cedar-policy", "regorus", "cel", "casbin", "jsonschema", "governor", "limitador", "serde_json"];

/// Replaces the text between the marks of a file.
pub(crate) fn write_into(file: &Path, text: &str) {
    let old = std::fs::read_to_string(file).unwrap();
    let (before, rest) = old.split_once(BEGIN).expect("a mark where the tables begin");
    let (_, after) = rest.split_once(END).expect("a mark where the tables end");
    std::fs::write(file, [before, BEGIN, text, END, after].concat()).unwrap();
}

pub(crate) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    if !report.columns.is_empty() {
        text += "One decision: the median, and its ratio to the floor.\n\n";
        text +=
            &of_columns(&report.columns, |figure| format!("{} ({})", time(figure.nanoseconds), times(figure.ratio)));
        let has_instructions =
            report.columns.iter().flat_map(|column| &column.figures).all(|f| f.instructions.is_some());
        text += if has_instructions {
            "\nThe same decision: allocations; instructions, in thousands.\n\n"
        } else {
            "\nThe same decision: allocations.\n\n"
        };
        text += &of_columns(&report.columns, |figure| {
            let allocations = whole(figure.allocations);
            match figure.instructions {
                Some(instructions) => format!("{allocations}; {}", thousands(instructions)),
                None => allocations,
            }
        });
    }
    if let Some(sizes) = &report.sizes {
        text += "\nW1 allowed, by the number of entries.\n\n";
        text += &of_sizes(sizes);
    }
    if !report.loads.is_empty() {
        text += "\nLoading a policy: the time, and the memory that the policy holds.\n\n";
        text += &of_loads(&report.loads);
    }
    text + "\n" + environment().as_str()
}

/// Formats a row for each engine.
fn of_columns(columns: &[Column], cell: impl Fn(&Figure) -> String) -> String {
    let mut engines: Vec<&str> = Vec::new();
    for figure in columns.iter().flat_map(|column| &column.figures) {
        if !engines.contains(&figure.engine.as_str()) {
            engines.push(&figure.engine);
        }
    }
    // All forms of an engine are adjacent.
    engines.sort_by_key(|engine| match engine.split([',', ' ']).next() {
        Some("floor") => 0,
        Some("toolgate") => 1,
        Some("a") => 2,
        Some("jsonschema") => 3,
        Some("cel") => 4,
        Some("regorus") => 5,
        Some("cedar") => 6,
        _ => 7,
    });
    let mut text = header("", columns.iter().map(|column| column.heading.to_owned()));
    for engine in engines {
        let _ = write!(text, "| {engine} |");
        for column in columns {
            let figure = column.figures.iter().find(|figure| figure.engine == engine);
            let _ = write!(text, " {} |", figure.map_or_else(|| "–".to_owned(), &cell));
        }
        text.push('\n');
    }
    text
}

fn of_sizes(sizes: &Sizes) -> String {
    let mut text = header("", sizes.sizes.iter().map(|size| grouped(*size)));
    for (name, medians) in &sizes.rows {
        let _ = write!(text, "| {name} |");
        for index in 0..sizes.sizes.len() {
            let _ = write!(text, " {} |", medians.get(index).map_or_else(|| "–".to_owned(), |m| time(*m)));
        }
        text.push('\n');
    }
    text
}

fn of_loads(loads: &[Loads]) -> String {
    let mut text =
        header("", ["text", "time", "time / floor", "memory", "memory / text"].into_iter().map(str::to_owned));
    for Loads { title, rows } in loads {
        let title = title.trim_start_matches("load ");
        for row in rows {
            let _ = writeln!(
                text,
                "| {title}: {} | {} | {} | {} | {} | {} |",
                row.name,
                kilobytes(row.text_bytes as f64),
                time(row.nanoseconds),
                times(row.nanoseconds / rows[0].nanoseconds),
                kilobytes(row.live_bytes as f64),
                times(row.live_bytes as f64 / row.text_bytes as f64),
            );
        }
    }
    text
}

/// Describes the machine, the compiler and the releases of the peers.
fn environment() -> String {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rustc = Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let rustc = String::from_utf8_lossy(&rustc);
    let peers: Vec<_> = PEERS.iter().map(|peer| format!("`{peer}` {}", version(peer))).collect();
    // Four on each line, so that no line is longer than 100 columns.
    let peers: Vec<_> = peers.chunks(4).map(|line| line.join(", ")).collect();
    format!(
        "Measured with {} on {}, {cores} cores. Peers:\n{}.\n",
        rustc.split(" (").next().unwrap_or_default(),
        processor.map_or("an unknown processor", |(_, name)| name.split('@').next().unwrap_or(name).trim()),
        peers.join(",\n"),
    )
}

/// Returns the release of a peer: the newest in the lock file, because other peers may depend on an
/// older one.
fn version(name: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let start = format!("name = \"{name}\"\nversion = \"");
    let newest = lock.split(&start).skip(1).last().expect("a peer in the lock file");
    newest.split('"').next().unwrap_or_default()
}

fn header(first: &str, rest: impl Iterator<Item = String>) -> String {
    let (mut names, mut lines) = (format!("| {first} |"), String::from("|---|"));
    for name in rest {
        let _ = write!(names, " {name} |");
        lines += "---:|";
    }
    format!("{names}\n{lines}\n")
}

/// Formats a duration with three digits and a unit.
pub(crate) fn time(nanoseconds: f64) -> String {
    let (number, unit) = match nanoseconds {
        small if small < 999.5 => (small, "ns"),
        medium if medium < 999.5e3 => (medium / 1e3, "µs"),
        large => (large / 1e6, "ms"),
    };
    match number {
        small if small < 9.995 => format!("{small:.2} {unit}"),
        medium if medium < 99.95 => format!("{medium:.1} {unit}"),
        large => format!("{large:.0} {unit}"),
    }
}

/// Formats a ratio: `1.7 ×`.
pub(crate) fn times(ratio: f64) -> String {
    match ratio {
        small if small < 9.95 => format!("{small:.1} ×"),
        large => format!("{} ×", grouped(large.round() as usize)),
    }
}

fn whole(number: f64) -> String {
    if number.fract() == 0.0 && number < 1e4 { format!("{number}") } else { grouped(number.round() as usize) }
}

fn thousands(number: f64) -> String {
    match number / 1e3 {
        small if small < 9.95 => format!("{small:.2}"),
        medium if medium < 99.5 => format!("{medium:.1}"),
        large => grouped(large.round() as usize),
    }
}

fn kilobytes(bytes: f64) -> String {
    format!("{} KB", grouped((bytes / 1e3).round() as usize))
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let parts: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|part| String::from_utf8_lossy(part)).collect();
    parts.join(",")
}
