//! `toolgate audit`: reads and verifies audit logs.

mod joined;
mod tail;

use std::io::BufReader;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use toolgate::audit::{self, ChainHead, Fault, LogError, Verified};

use crate::output::{Format, Output};
use crate::progress::Progress;
use crate::{Failure, Verdict, input};
use joined::Joined;

/// Verify and read audit logs
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "\
Exit codes:
  0  fine
  1  the log is not as it was written
  2  a file cannot be read, or an argument is not valid

Example:
  toolgate audit verify audit.jsonl";

#[derive(Subcommand)]
enum Command {
    Verify(Verify),
    Head(Head),
    Tail(tail::Options),
}

/// Verify that no record of a log is missing, changed, moved or inserted
///
/// The chain has no key: it cannot detect that the end of the log is missing, or that somebody
/// rewrote the log from some record on. Keep a head elsewhere (`toolgate audit head`), and verify
/// the log up to it.
///
/// Several files are verified as one log: name the files of a log that was rotated in their order,
/// which is that of their names. If the first files are archived, verify the rest after the head of
/// the last of them.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = VERIFY_HELP)]
struct Verify {
    /// The log, or its files in their order
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,
    /// The head of the log that this one continues
    #[arg(long, value_name = "HEAD")]
    after: Option<ChainHead>,
    /// A head that was kept elsewhere: the log must have all records up to it
    #[arg(long, value_name = "HEAD")]
    up_to: Option<ChainHead>,
    /// The format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const VERIFY_HELP: &str = "\
Exit codes:
  0  the log is as it was written
  1  the log has a fault: the first one is printed
  2  the file cannot be read, or an argument is not valid

Example:
  toolgate audit verify audit.jsonl --up-to \"$(cat audit.head)\"
  toolgate audit verify audit-*.jsonl";

/// Print the head of a log: its number of records, and a hash over all of them
///
/// The log is verified as it is read. Several files are one log, in their order.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HEAD_HELP)]
struct Head {
    /// The log, or its files in their order
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,
    /// The head of the log that this one continues
    #[arg(long, value_name = "HEAD")]
    after: Option<ChainHead>,
}

const HEAD_HELP: &str = "\
Exit codes:
  0  the head was printed
  1  the log has a fault: the first one is printed to standard error
  2  the file cannot be read, or an argument is not valid

Example:
  toolgate audit head audit.jsonl > audit.head";

pub(crate) fn run(options: &Options, out: &mut Output) -> Result<Verdict, Failure> {
    match &options.command {
        Command::Verify(options) => verify(options, out),
        Command::Head(options) => head(options, out),
        Command::Tail(options) => tail::run(options, out),
    }
}

/// The result for all files: what was verified, or the first fault, its file and its line there.
type Outcome = Result<Verified, (PathBuf, u64, Fault)>;

fn verify_all(logs: &[PathBuf], after: Option<ChainHead>, up_to: Option<ChainHead>) -> Result<Outcome, Failure> {
    let (joined, length) = Joined::open(logs)?;
    let mut log = BufReader::with_capacity(input::BUFFER, Progress::new(joined, length));
    let (after, up_to) = (after.unwrap_or(ChainHead::EMPTY), up_to.unwrap_or(ChainHead::EMPTY));
    match audit::verify_between(&mut log, &after, &up_to) {
        Ok(verified) => Ok(Ok(verified)),
        Err(LogError::Broken { line, fault }) => {
            let (file, line) = log.get_ref().reader().place(line);
            Ok(Err((file, line, fault)))
        }
        Err(LogError::Io(error)) => Err(input::failed(error)),
        Err(other) => Err(Failure::Input(other.to_string())),
    }
}

fn verify(options: &Verify, out: &mut Output) -> Result<Verdict, Failure> {
    match verify_all(&options.logs, options.after, options.up_to)? {
        Ok(verified) => {
            let (head, torn) = (verified.head(), verified.torn());
            let name = match &*options.logs {
                [log] => input::name(log),
                logs => format!("{} files", logs.len()),
            };
            let before = options.after.map_or(0, |after| after.records());
            let records = head.records() - before;
            match options.format {
                Format::Json => {
                    let head = head.to_string();
                    out.json(&json!({ "log": name, "records": records, "head": head, "torn": torn }))?;
                }
                Format::Text => {
                    let before = if before > 0 { format!(" after record {before}") } else { String::new() };
                    out.painted_line("", "ok", &format!(" {name}: {records} records{before}, head {head}"))?;
                    if torn > 0 {
                        out.line(format_args!("{torn} lines are remains of failed writes"))?;
                    }
                }
            }
            Ok(Verdict::Fine)
        }
        Err((file, line, fault)) => {
            let name = input::name(&file);
            match options.format {
                Format::Json => out.json(&json!({ "log": name, "line": line, "fault": fault.to_string() }))?,
                Format::Text => out.painted_line("", "failed", &format!(" {name}: line {line}: {fault}"))?,
            }
            Ok(Verdict::Findings)
        }
    }
}

fn head(options: &Head, out: &mut Output) -> Result<Verdict, Failure> {
    match verify_all(&options.logs, options.after, None)? {
        Ok(verified) => {
            out.line(verified.head())?;
            Ok(Verdict::Fine)
        }
        Err((file, line, fault)) => {
            crate::output::complain(&format!("{}: line {line}: {fault}", input::name(&file)));
            Ok(Verdict::Findings)
        }
    }
}
