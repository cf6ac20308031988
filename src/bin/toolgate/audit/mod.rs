//! `toolgate audit`: reads and verifies audit logs.

mod tail;

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use toolgate::audit::{self, ChainHead, LogError};

use crate::output::{Format, Output};
use crate::{Failure, Verdict, input};

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
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = VERIFY_HELP)]
struct Verify {
    /// The log
    log: PathBuf,
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
  toolgate audit verify audit.jsonl --up-to \"$(cat audit.head)\"";

/// Print the head of a log: its number of records, and a hash over all of them
///
/// The log is verified as it is read.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HEAD_HELP)]
struct Head {
    /// The log
    log: PathBuf,
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

fn verify(options: &Verify, out: &mut Output) -> Result<Verdict, Failure> {
    let log = input::watched_stream(&options.log)?;
    let verified = match &options.up_to {
        None => audit::verify(log),
        Some(head) => audit::verify_up_to(log, head),
    };
    let name = input::name(&options.log);
    let fault = match verified {
        Ok(verified) => {
            let (head, torn) = (verified.head(), verified.torn());
            match options.format {
                Format::Json => {
                    let head_text = head.to_string();
                    out.json(&json!({ "log": name, "records": head.records(), "head": head_text, "torn": torn }))?;
                }
                Format::Text => {
                    out.painted_line("", "ok", &format!(" {name}: {} records, head {head}", head.records()))?;
                    if torn > 0 {
                        out.line(format_args!("{torn} lines are remains of failed writes"))?;
                    }
                }
            }
            return Ok(Verdict::Fine);
        }
        Err(LogError::Io(error)) => return Err(input::failed(error)),
        Err(fault) => fault,
    };
    match (options.format, &fault) {
        (Format::Json, LogError::Broken { line, fault }) => {
            out.json(&json!({ "log": name, "line": line, "fault": fault.to_string() }))?;
        }
        _ => out.painted_line("", "failed", &format!(" {name}: {fault}"))?,
    }
    Ok(Verdict::Findings)
}

fn head(options: &Head, out: &mut Output) -> Result<Verdict, Failure> {
    match audit::verify(input::watched_stream(&options.log)?) {
        Ok(verified) => {
            out.line(verified.head())?;
            Ok(Verdict::Fine)
        }
        Err(LogError::Io(error)) => Err(input::failed(error)),
        Err(fault) => {
            crate::output::complain(&format!("{}: {fault}", input::name(&options.log)));
            Ok(Verdict::Findings)
        }
    }
}
