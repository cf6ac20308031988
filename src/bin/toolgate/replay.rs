//! `toolgate replay`: decides a recorded history again.

use std::io::{self, BufRead, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use toolgate::audit::ChainHead;
use toolgate::replay::{Replay, Report};

use crate::output::{Format, Output, complain};
use crate::{Failure, Verdict, input};

/// Decide an audit log or a trace again, and show what changes
///
/// Each call is decided at its own instant, with its counters, releases, settlements and approvals.
/// The decisions of an audit log are compared with the recorded ones, those of a trace with stored
/// answers or another policy.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(crate) struct Options {
    /// The history: an audit log, its bare records, or a trace
    history: PathBuf,
    /// The policy
    policy: PathBuf,
    /// Compare a trace with the answers that `decide --format json` wrote for it
    #[arg(long, value_name = "FILE", conflicts_with = "against")]
    answers: Option<PathBuf>,
    /// Compare a trace with the decisions of another policy
    #[arg(long, value_name = "POLICY")]
    against: Option<PathBuf>,
    /// Decide only the calls of a log that this policy has decided
    #[arg(long, value_name = "POLICY")]
    only: Option<PathBuf>,
    /// The head of the log that this one continues, as a log that was rotated does
    #[arg(long, value_name = "HEAD")]
    after: Option<ChainHead>,
    /// A counter by which the gate lets calls pass uncounted if its store fails
    #[arg(long, value_name = "COUNTER")]
    pass_uncounted: Vec<String>,
    /// Stop at the first problem of the history
    #[arg(long)]
    stop: bool,
    /// Also fail if only messages, waits or limit states differ
    #[arg(long)]
    exact: bool,
    /// Write each change and problem as a line of JSON, and the report to standard error
    #[arg(long)]
    each: bool,
    /// The format of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const HELP: &str = "\
Exit codes:
  0  every call was compared, and none is decided differently
  1  a decision has changed, cannot be determined, or has nothing to be compared with; or the
     history has a problem; with --exact, also if messages, waits or limit states differ
  2  a file cannot be read, a policy is not valid, or an argument is not valid

Example:
  toolgate replay audit.jsonl new-policy.json
  cat audit-*.jsonl | toolgate replay - new-policy.json";

pub(crate) fn run(options: &Options, out: &mut Output) -> Result<Verdict, Failure> {
    let mut replay = Replay::new(input::policy(&options.policy)?);
    if let Some(policy) = &options.against {
        replay = replay.against(input::policy(policy)?);
    }
    if let Some(policy) = &options.only {
        replay = replay.only(&input::policy(policy)?);
    }
    if let Some(answers) = &options.answers {
        replay = replay.answers(input::stream(answers)?);
    }
    if let Some(head) = options.after {
        replay = replay.after(head);
    }
    replay = options.pass_uncounted.iter().fold(replay, |replay, counter| replay.pass_uncounted(counter));
    if options.stop {
        replay = replay.stop_at_finding();
    }
    // A bar between the lines of --each could not be read.
    let history: Box<dyn BufRead> = match options.each {
        true => Box::new(input::stream(&options.history)?),
        false => Box::new(input::watched_stream(&options.history)?),
    };
    let mut failed = None;
    let report = replay.run(history, |event| {
        if options.each {
            failed = out.json_line(event).err();
        }
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let report = report.map_err(input::failed)?;
    failed.map_or(Ok(()), Err)?;
    write(options, &report, out)?;
    Ok(Verdict::found(!is_fine(&report, options.exact)))
}

fn is_fine(report: &Report, exact: bool) -> bool {
    let counts = [report.changed(), report.steps(), report.indeterminate(), report.uncompared(), report.found()];
    if exact { report.is_same() } else { counts.iter().all(|count| *count == 0) }
}

fn write(options: &Options, report: &Report, out: &mut Output) -> io::Result<()> {
    match (options.format, options.each) {
        (Format::Text, false) => out.line(report.to_string().trim_end()),
        (Format::Json, false) => out.json(report),
        (format, true) => {
            out.flush()?;
            complain(&match format {
                Format::Text => report.to_string(),
                Format::Json => serde_json::to_string_pretty(report)?,
            });
            Ok(())
        }
    }
}
