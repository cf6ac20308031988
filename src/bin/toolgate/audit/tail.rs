//! `toolgate audit tail`: shows the last records of a log, and those that follow.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use toolgate::Identity;
use toolgate::audit::{AuditRecord, Event};

use crate::lines::{Line, Lines};
use crate::output::{Format, Output};
use crate::{Failure, Verdict, input};

/// Show the last records of a log in a readable form, and follow it
///
/// The records are not verified: use `toolgate audit verify`. Of standard input, all records are
/// shown as they arrive.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(super) struct Options {
    /// The log
    log: PathBuf,
    /// Continue with the records that are written from now on, until the command is interrupted
    #[arg(short, long)]
    follow: bool,
    /// The number of records to begin with
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10)]
    lines: u64,
    /// The format
    ///
    /// JSON has a record in each line.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const HELP: &str = "\
Exit codes:
  0  the records were shown
  1  a line is not a record
  2  the file cannot be read, or an argument is not valid

Example:
  toolgate audit tail --follow audit.jsonl";

/// The time between two looks at a file.
const PAUSE: Duration = Duration::from_millis(250);

/// A line of a log. `audit verify` reads the other members.
#[derive(Deserialize)]
struct Written {
    record: AuditRecord,
}

/// Shows lines.
struct Shower<'s> {
    out: &'s mut Output,
    format: Format,
    is_broken: bool,
}

pub(super) fn run(options: &Options, out: &mut Output) -> Result<Verdict, Failure> {
    let mut shower = Shower { out, format: options.format, is_broken: false };
    if options.log.as_os_str() == "-" {
        let mut lines = Lines::new(BufReader::new(io::stdin().lock()));
        shower.all(&mut lines)?;
        lines.rest().map_or(Ok(()), |line| shower.line(line))?;
        return Ok(Verdict::found(shower.is_broken));
    }
    let name = input::name(&options.log);
    let failed = |error: io::Error| Failure::Input(format!("{name}: {error}"));
    let (mut file, mut metadata) = open(&options.log).map_err(failed)?;
    let start = start_of_last(&mut file, options.lines).map_err(failed)?;
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut lines = Lines::new(BufReader::new(file));
    let mut position = start;
    loop {
        shower.all(&mut lines)?;
        shower.out.flush()?;
        if !options.follow {
            lines.rest().map_or(Ok(()), |line| shower.line(line))?;
            return Ok(Verdict::found(shower.is_broken));
        }
        thread::sleep(PAUSE);
        // The file was replaced or cut: what is there now begins anew.
        let is_new = std::fs::metadata(&options.log)
            .is_ok_and(|now| !is_same(&now, &metadata) || now.len() < position + lines.position);
        if is_new && let Ok((file, now)) = open(&options.log) {
            shower.all(&mut lines)?;
            (lines, metadata, position) = (Lines::new(BufReader::new(file)), now, 0);
        }
    }
}

fn open(file: &Path) -> io::Result<(File, Metadata)> {
    let file = File::open(file)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() { Err(io::Error::other("is a folder: name a file")) } else { Ok((file, metadata)) }
}

#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

/// Returns where the last `count` lines begin. Reads the file from its end.
fn start_of_last(file: &mut File, count: u64) -> io::Result<u64> {
    const BLOCK: u64 = 1 << 16;
    let mut left = count;
    let length = file.seek(SeekFrom::End(0))?;
    // The line end of the last line does not begin another one.
    let mut end = length.saturating_sub(1);
    if left == 0 {
        return Ok(length);
    }
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(begin))?;
        let mut block = Vec::new();
        Read::by_ref(file).take(end - begin).read_to_end(&mut block)?;
        let line_ends = (begin..).zip(&block).filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
        let line_ends: Vec<_> = line_ends.collect();
        let found = line_ends.len() as u64;
        if found >= left {
            let index = usize::try_from(found - left).unwrap_or_default();
            return Ok(line_ends.get(index).map_or(0, |at| at + 1));
        }
        left -= found;
        end = begin;
    }
    Ok(0)
}

impl Shower<'_> {
    /// Shows all lines up to the end of the file.
    fn all(&mut self, lines: &mut Lines<impl BufRead>) -> Result<(), Failure> {
        while let Some(line) = lines.next().map_err(input::failed)? {
            self.line(line)?;
        }
        Ok(())
    }

    fn line(&mut self, line: Line<'_>) -> Result<(), Failure> {
        let read = |line: &str| {
            let written = serde_json::from_str::<Written>(line).map(|written| written.record);
            written.or_else(|_| serde_json::from_str::<AuditRecord>(line))
        };
        match (line.and_then(|line| read(line).ok()), self.format) {
            (Some(record), Format::Json) => self.out.json_line(&record)?,
            (Some(record), Format::Text) => self.record(&record)?,
            (None, _) => {
                self.is_broken = true;
                crate::output::complain("a line is not a record of an audit log");
            }
        }
        // Whoever waits for records sees each at once.
        Ok(self.out.flush()?)
    }

    fn record(&mut self, record: &AuditRecord) -> io::Result<()> {
        let word = record.decision().map_or(record.event().as_str(), |decision| decision.as_str());
        let mut parts = vec![format!("{:width$} {}", "", record.time(), width = 17_usize.saturating_sub(word.len()))];
        let identities = [Identity::Grant, Identity::Session, Identity::Agent, Identity::User, Identity::Server];
        parts.extend(record.tool().map(str::to_owned));
        let named = |identity: Identity| Some(format!("{}={}", identity.as_str(), record.identity(identity)?));
        parts.extend(identities.into_iter().filter_map(named));
        match record.event() {
            Event::Decision => {
                parts.extend(record.rule().map(|rule| format!("[{rule}]")));
                parts.extend(record.message().map(str::to_owned));
                parts.extend(record.retry_after().map(|wait| format!("retry after {} s", wait.as_secs_f64())));
            }
            Event::Settle => parts.extend(record.amount().map(|amount| format!("at {amount}"))),
            Event::Policy => {
                parts.push(record.policy().map_or("removed".to_owned(), |digest| digest.to_string()));
                parts.extend(record.namespace().filter(|name| !name.is_empty()).map(|name| format!("for {name}")));
            }
            Event::Reset => parts.extend(record.counter().map(|counter| format!("counter {counter}"))),
            Event::Give | Event::Forget => {
                parts.extend(record.namespace().map(|policy| format!("policy {policy}")));
                parts.extend(record.expires_at().map(|end| format!("until {end}")));
            }
            _ => {}
        }
        parts.extend(record.by().map(|by| format!("by {by}")));
        parts.extend(record.failure().map(|failure| format!("failed: {failure}")));
        self.out.painted_line("", word, &parts.join("  ").replace('\n', " "))
    }
}
