//! Output for people on a terminal, for pipes, and for programs.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table as Grid};
use console::Style;
use serde::Serialize;
use toolgate::{visible, visible_json};

/// The format of the output.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text to read.
    Text,
    /// JSON.
    Json,
}

/// Standard output.
pub(crate) struct Output {
    to: BufWriter<StdoutLock<'static>>,
    is_terminal: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        let to = io::stdout().lock();
        let is_terminal = to.is_terminal();
        Self { to: BufWriter::new(to), is_terminal }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Writes text and a line end. Characters that control a terminal are escaped.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.to, "{}", printable(&text.to_string()))
    }

    /// Writes a line with a word that has the style of the word.
    pub(crate) fn painted_line(&mut self, before: &str, word: &str, after: &str) -> io::Result<()> {
        let word = style(word).apply_to(printable(word));
        writeln!(self.to, "{}{word}{}", printable(before), printable(after))
    }

    /// Writes indented JSON and a line end.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        writeln!(self.to, "{}", visible_json(&serde_json::to_string_pretty(value)?))
    }

    /// Writes JSON in one line.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        writeln!(self.to, "{}", visible_json(&serde_json::to_string(value)?))
    }
}

/// For text that is made elsewhere, as it is.
impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Writes a message to standard error. If that is closed, nobody reads the message.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(message));
}

/// A table on a terminal, and lines with tabs elsewhere. The words of the first column have styles.
pub(crate) struct Table<'o> {
    out: &'o mut Output,
    header: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

/// The number of rows after which a table begins again, so that its memory has a bound.
const MAX_ROWS: usize = 500;
/// The preset of a table whose only line is below the header.
const HEADER_LINE: &str = "     ──            ";
/// The width of a table if the terminal does not report its own.
const DEFAULT_WIDTH: u16 = 100;

impl<'o> Table<'o> {
    pub(crate) fn new(out: &'o mut Output, header: &'static [&'static str]) -> Self {
        Self { out, header, rows: Vec::new() }
    }

    pub(crate) fn is_on_terminal(&self) -> bool {
        self.out.is_terminal
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) -> io::Result<()> {
        if !self.out.is_terminal {
            let [first, rest @ ..] = cells.as_slice() else { return Ok(()) };
            let rest: String = rest.iter().map(|cell| format!("\t{}", cell.replace(['\n', '\t'], " "))).collect();
            return self.out.painted_line("", first, &rest);
        }
        self.rows.push(cells.iter().map(|cell| printable(cell).into_owned()).collect());
        if self.rows.len() < MAX_ROWS { Ok(()) } else { self.print() }
    }

    pub(crate) fn end(mut self) -> io::Result<()> {
        self.print()
    }

    fn print(&mut self) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut grid = Grid::new();
        let width = console::Term::stdout().size_checked().map_or(DEFAULT_WIDTH, |(_, columns)| columns);
        grid.load_preset(HEADER_LINE)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width.max(40))
            .set_header(self.header.iter().copied())
            .add_rows(self.rows.drain(..));
        for line in grid.lines() {
            // The table counts the columns of plain text, so the styles are added to its lines.
            let word = line.strip_prefix(' ').and_then(|line| line.split(' ').next()).unwrap_or_default();
            match line.split_once(word).filter(|_| !word.is_empty()) {
                Some((before, after)) => {
                    writeln!(self.out.to, "{before}{}{}", style(word).apply_to(word), after.trim_end())?
                }
                None => writeln!(self.out.to, "{}", line.trim_end())?,
            }
        }
        Ok(())
    }
}

/// The style of a decision, a severity or a class. On anything but a terminal, and with `NO_COLOR`,
/// a style changes nothing.
pub(crate) fn style(word: &str) -> Style {
    match word {
        "allow" | "ok" | "read" | "passed" | "narrower" => Style::new().green(),
        "deny" | "error" | "destructive" | "financial" | "execute" | "failed" => Style::new().red(),
        "rate_limited" | "warning" | "write" | "wider" => Style::new().yellow(),
        "approval_required" | "note" | "other" => Style::new().cyan(),
        _ => Style::new(),
    }
}

/// Writes out each character that controls a terminal, changes the direction of text or shows
/// nothing. Line ends and tabs remain.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let is_kept = |c| matches!(c, '\n' | '\t');
    let parts = text.split_inclusive(is_kept).map(|part| {
        let end = part.strip_suffix(is_kept).map_or(part.len(), str::len);
        part.split_at_checked(end).unwrap_or((part, ""))
    });
    if parts.clone().all(|(part, _)| matches!(visible(part), Cow::Borrowed(_))) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(parts.fold(String::new(), |shown, (part, end)| shown + &visible(part) + end))
}

/// Shortens a text to at most this many characters.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}
