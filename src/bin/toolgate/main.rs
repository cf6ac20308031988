//! The command `toolgate`: checks, tests, compares and explains policies, and reads audit logs.

mod audit;
mod check;
mod completions;
mod decide;
mod diff;
mod explain;
mod input;
mod lines;
mod output;
mod progress;
mod recommend;
mod replay;
mod schema;
mod test;
mod translate;
mod yaml;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::Output;

/// Checks, tests, compares and explains policies of toolgate, and reads its audit logs.
///
/// FILE arguments may be `-` for standard input, once in a command. On a terminal the output has
/// colours and tables; elsewhere it is plain lines. NO_COLOR=1 removes the colours.
#[derive(Parser)]
#[command(name = "toolgate", version, arg_required_else_help = true, verbatim_doc_comment, after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "\
Exit codes, the same for every command:
  0  fine
  1  findings: `toolgate COMMAND --help` says what counts
  2  a file cannot be read, or an argument is not valid

Example:
  toolgate decide policy.json trace.jsonl";

#[derive(Subcommand)]
enum Command {
    Check(check::Options),
    Decide(decide::Options),
    Explain(explain::Options),
    Test(test::Options),
    Diff(diff::Options),
    Replay(replay::Options),
    Recommend(recommend::Options),
    Schema(schema::Options),
    Translate(translate::Options),
    Audit(audit::Options),
    Completions(completions::Options),
}

/// The result of a command that could do its work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    Findings,
}

impl Verdict {
    fn found(found: bool) -> Self {
        if found { Self::Findings } else { Self::Fine }
    }
}

/// The reason why a command could not do its work.
enum Failure {
    /// An input cannot be read. The text names it.
    Input(String),
    /// The output cannot be written.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Output::new();
    let done = match cli.command {
        Command::Check(options) => check::run(&options, &mut out),
        Command::Decide(options) => decide::run(&options, &mut out),
        Command::Explain(options) => explain::run(&options, &mut out),
        Command::Test(options) => test::run(&options, &mut out),
        Command::Diff(options) => diff::run(&options, &mut out),
        Command::Replay(options) => replay::run(&options, &mut out),
        Command::Recommend(options) => recommend::run(&options, &mut out),
        Command::Schema(_) => schema::run(&mut out),
        Command::Translate(options) => translate::run(&options, &mut out),
        Command::Audit(options) => audit::run(&options, &mut out),
        Command::Completions(options) => completions::run(&options, &mut out),
    };
    let flushed = out.flush();
    let done = done.and_then(|verdict| Ok(flushed.map(|()| verdict)?));
    match done {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Findings) => ExitCode::from(1),
        // The reader of the output has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => fail(&format!("the output cannot be written: {error}")),
        Err(Failure::Input(problem)) => fail(&problem),
    }
}

fn fail(problem: &str) -> ExitCode {
    output::complain(&format!("error: {}", problem.trim_end()));
    ExitCode::from(2)
}
