//! `toolgate test`: runs the tests of a policy.

mod junit;

use std::collections::HashMap;
use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::{Value, json};
use toolgate::testing::{Coverage, Failure as Failed, Suite, TestError};

use crate::output::{Output, complain};
use crate::{Failure, Verdict, input};

/// Run the tests of a policy
///
/// A file of cases is a JSON list. Each case has steps of a trace and the answers that they must
/// get. The format is described in docs/testing.md.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(crate) struct Options {
    /// The policy
    policy: PathBuf,
    /// The files of cases
    #[arg(required = true, value_name = "CASES")]
    cases: Vec<PathBuf>,
    /// List the rules, entries and limits that no case exercises, and fail if there are any
    #[arg(long)]
    coverage: bool,
    /// The format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const HELP: &str = "\
Exit codes:
  0  every case passes
  1  a case fails; with --coverage, also if no case exercises some part of the policy
  2  a file cannot be read, the policy or the cases are not valid, or an argument is not valid

Example:
  toolgate test --coverage policy.json policy.cases.json";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text to read
    Text,
    /// One JSON object
    Json,
    /// JUnit XML, for dashboards of tests
    Junit,
}

/// A case that was run.
struct Ran {
    file: String,
    id: String,
    failure: Option<Failed>,
}

pub(crate) fn run(options: &Options, out: &mut Output) -> Result<Verdict, Failure> {
    let mut suite = Suite::of(input::policy(&options.policy)?);
    let mut ran = Vec::new();
    for file in &options.cases {
        let (name, text) = (input::name(file), input::text(file)?);
        suite = suite.cases(&text).map_err(|error| Failure::Input(format!("{name}: {error}")))?;
        // The suite has accepted the text, so that it is a list of cases with ids.
        let cases: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
        let ids = cases.iter().filter_map(|case| case.get("id")?.as_str());
        ran.extend(ids.map(|id| Ran { file: name.clone(), id: id.to_owned(), failure: None }));
    }
    let coverage = match suite.run() {
        Ok(coverage) => Some(coverage),
        Err(TestError::Failed { failures, .. }) => {
            let mut failures: HashMap<_, _> =
                failures.into_iter().map(|failure| (failure.case().to_owned(), failure)).collect();
            ran.iter_mut().for_each(|ran| ran.failure = failures.remove(&ran.id));
            None
        }
        Err(error) => return Err(Failure::Input(error.to_string())),
    };
    match options.format {
        Format::Text => text(options, &ran, coverage.as_ref(), out)?,
        Format::Json => out.json(&as_json(&ran, coverage.as_ref()))?,
        Format::Junit => {
            out.line(junit::report(&ran))?;
            if let Some(coverage) = coverage.as_ref().filter(|coverage| options.coverage && !coverage.is_complete()) {
                complain(&coverage.to_string());
            }
        }
    }
    let is_fine = coverage.is_some_and(|coverage| !options.coverage || coverage.is_complete());
    Ok(Verdict::found(!is_fine))
}

fn text(options: &Options, ran: &[Ran], coverage: Option<&Coverage>, out: &mut Output) -> Result<(), Failure> {
    for Ran { file, failure, .. } in ran {
        if let Some(failure) = failure {
            out.painted_line("", "failed", &format!(" {file}: {failure}"))?;
        }
    }
    let Some(coverage) = coverage else {
        let failed = ran.iter().filter(|ran| ran.failure.is_some()).count();
        out.line(format_args!("{failed} of {} cases fail", ran.len()))?;
        return Ok(());
    };
    match options.coverage {
        true => out.line(coverage)?,
        // Only the totals.
        false => out.line(coverage.to_string().lines().next().unwrap_or_default())?,
    }
    Ok(())
}

fn as_json(ran: &[Ran], coverage: Option<&Coverage>) -> Value {
    let case = |ran: &Ran| {
        let failure = ran.failure.as_ref();
        let failure = failure.map(|failure| json!({ "step": failure.step(), "message": failure.to_string() }));
        json!({ "file": ran.file, "id": ran.id, "passed": failure.is_none(), "failure": failure })
    };
    let unexercised: Option<Vec<_>> = coverage.map(|coverage| coverage.unexercised().collect());
    json!({
        "cases": ran.iter().map(case).collect::<Vec<_>>(),
        "coverage": coverage,
        "unexercised": unexercised,
    })
}
