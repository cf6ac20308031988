//! Annotations of GitHub Actions: lines that its runner shows beside the code.

use std::io;

use toolgate::analysis::lint::Severity;

use super::{Checked, Problem, STALE, Stale};
use crate::output::Output;

pub(super) fn write(
    all: &[Checked],
    problems: &[Problem<'_>],
    stale: &[Stale<'_>],
    out: &mut Output,
) -> io::Result<()> {
    for problem in problems.iter().filter(|problem| !problem.is_accepted) {
        let Problem { file, severity, code, pointer, line, column, message, help, .. } = problem;
        let level = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "notice",
        };
        let help = help.map_or(String::new(), |help| format!("\nhelp: {help}"));
        let pointer = if pointer.is_empty() { "the document" } else { pointer };
        let text = format!("{message}\nin {pointer}{help}");
        annotate(out, level, (file, *line, *column), code, &text)?;
    }
    for Stale { file, line, text } in stale {
        annotate(out, "warning", (file, Some(*line), None), "accepted", &format!("{text}: {STALE}"))?;
    }
    for checked in all.iter().filter(|checked| checked.omitted() > 0) {
        let more = format!("and {} more", checked.omitted());
        annotate(out, "error", (&checked.file, None, None), "omitted", &more)?;
    }
    Ok(())
}

fn annotate(
    out: &mut Output,
    level: &str,
    (file, line, column): (&str, Option<usize>, Option<usize>),
    title: &str,
    text: &str,
) -> io::Result<()> {
    let mut place = format!("file={}", property(file));
    for (name, number) in [("line", line), ("col", column)] {
        place += &number.map_or(String::new(), |number| format!(",{name}={number}"));
    }
    out.line(format_args!("::{level} {place},title={}::{}", property(title), data(text)))
}

/// Escapes the text of an annotation.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a property of an annotation.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
