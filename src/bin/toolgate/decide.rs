//! `toolgate decide`: decides every call of a trace.

use std::io;
use std::path::PathBuf;

use serde_json::Value;
use toolgate::PolicyError;
use toolgate::trace::{Answer, Runner, Summary};

use crate::lines::Lines;
use crate::output::{Format, Output, Table, complain, shortened};
use crate::{Failure, Verdict, input};

/// Decide the calls of a trace
///
/// Runs each step of TRACE under POLICY, and prints each decision with its reason, then a summary.
/// The format of traces is described in docs/trace-format.md. The counters start empty, and the
/// trace sets the clock.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(crate) struct Options {
    /// The policy
    policy: PathBuf,
    /// The trace, JSON Lines
    #[arg(default_value = "-")]
    trace: PathBuf,
    /// The format
    ///
    /// JSON has an answer in a line for each step, and no summary.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const HELP: &str = "\
Exit codes:
  0  every line of the trace was read, whatever the decisions are
  1  a line of the trace could not be read
  2  a file cannot be read, the policy is not valid, or an argument is not valid

Example:
  toolgate decide examples/data/code-generator.json examples/data/code-generator.jsonl";

/// The most characters of a step in a table: it leaves most of a terminal to the reason.
const STEP: usize = 38;
/// The most characters of a step in a pipe.
const LONG_STEP: usize = 160;

pub(crate) fn run(options: &Options, out: &mut Output) -> Result<Verdict, Failure> {
    let policy = input::policy(&options.policy)?;
    let mut lines = Lines::new(input::stream(&options.trace)?);
    let mut runner = Runner::new(policy).files(read_policy).on_invalid_policy(report_policy);
    if options.format == Format::Json {
        each(&mut lines, &mut runner, |_, answer| out.json_line(&answer))?;
    } else {
        let mut table = Table::new(out, &["decision", "step", "reason"]);
        each(&mut lines, &mut runner, |line, answer| row(&mut table, line, &answer))?;
        table.end()?;
        summarise(runner.summary(), out)?;
    }
    Ok(Verdict::found(runner.summary().unreadable > 0))
}

/// Answers each line.
fn each<R: io::BufRead>(
    lines: &mut Lines<R>,
    runner: &mut Runner,
    mut then: impl FnMut(&str, Answer) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut answer = |line: Option<&str>| {
        // A line that is not text is answered in its place, as one that is not a step.
        let line = line.unwrap_or("unreadable");
        runner.answer(line).map_or(Ok(()), |answer| then(line, answer))
    };
    while let Some(line) = lines.next().map_err(input::failed)? {
        answer(line)?;
    }
    lines.rest().map_or(Ok(()), answer)?;
    Ok(())
}

/// Reads the policy file of a step.
fn read_policy(file: &str) -> io::Result<Vec<u8>> {
    input::policy_bytes(file.as_ref()).map_err(|failure| {
        if let Failure::Input(problem) = failure {
            complain(&problem);
        }
        io::ErrorKind::NotFound.into()
    })
}

fn report_policy(file: &str, error: &PolicyError) {
    complain(&format!("{file}: {error}"));
}

fn row(table: &mut Table<'_>, line: &str, answer: &Answer) -> io::Result<()> {
    let step: Value = serde_json::from_str(line).unwrap_or_default();
    let most = if table.is_on_terminal() { STEP } else { LONG_STEP };
    let (call, other) = (|| shortened(&call(&step), most), || shortened(&other(&step), most));
    match answer {
        Answer::Decided { decision, code, rule, message, retry_after, .. } => {
            let mut reason = message.clone().unwrap_or_default();
            if let Some(wait) = retry_after {
                reason += &format!(" Retry after {wait} s.");
            }
            if let Some(place) = rule.as_deref().or(*code) {
                reason += &format!("\n[{place}]");
            }
            table.row([decision, &call(), &reason])
        }
        Answer::Tools { tools, .. } => table.row(["ok", "tools_list", &tools.join(", ")]),
        Answer::Failed { error, .. } => table.row(["error", &other(), error]),
        // A change of the caller is not an event that has a result.
        _ if step.get("caller").is_some() => Ok(()),
        _ => table.row(["ok", &other(), ""]),
    }
}

/// The tool and the arguments of a call.
fn call(step: &Value) -> String {
    let message = step.get("message").and_then(Value::as_str).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let message = message.as_ref().unwrap_or(step);
    let call = step.get("call").or_else(|| message.get("params")).unwrap_or(&Value::Null);
    let tool = call.get("tool").or_else(|| call.get("name")).and_then(Value::as_str);
    let arguments = call.get("arguments").map(Value::to_string).unwrap_or_default();
    match tool {
        Some(tool) => format!("{tool} {arguments}").trim_end().to_owned(),
        None => "message".to_owned(),
    }
}

/// The name of another step, and the call that it names.
fn other(step: &Value) -> String {
    const STEPS: [&str; 7] = ["release", "settle", "end", "approve", "refuse", "store", "policy"];
    let named = STEPS.into_iter().find_map(|name| Some((name, step.get(name)?)));
    match named {
        Some((name, Value::String(of))) => format!("{name} {of}"),
        Some((name, _)) => name.to_owned(),
        None if step.get("call").is_some() => call(step),
        None => "-".to_owned(),
    }
}

fn summarise(summary: &Summary, out: &mut Output) -> io::Result<()> {
    let Summary { steps, calls, unreadable, by_decision, by_rule, counters, .. } = summary;
    out.line(format_args!("\n{calls} calls in {steps} steps"))?;
    for (decision, count) in by_decision {
        out.line(format_args!("{count:>7}  {decision}"))?;
    }
    if *unreadable > 0 {
        out.line(format_args!("{unreadable:>7}  lines could not be read"))?;
    }
    if !by_rule.is_empty() {
        out.line("refused by")?;
        let mut rules: Vec<_> = by_rule.iter().collect();
        rules.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((code, rule), count) in rules {
            out.line(format_args!("{count:>7}  {code:<17} {rule}"))?;
        }
    }
    if !counters.is_empty() {
        out.line("limits, at their fullest")?;
        let mut counters: Vec<_> = counters.values().collect();
        counters.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
        for (state, calls) in counters.into_iter().take(8) {
            let (counter, used, max) = (state.counter(), state.used(), state.max());
            out.line(format_args!("{calls:>7}  calls counted by {counter}: {used} of {max} used"))?;
        }
    }
    Ok(())
}
