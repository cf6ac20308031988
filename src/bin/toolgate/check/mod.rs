//! `toolgate check`: reads policies and looks for probable mistakes in them.

mod accepted;
mod annotations;
mod sarif;

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::{Value, json};
use toolgate::analysis::lint::{self, Finding, Severity};
use toolgate::{Issue, Policy, PolicyError};

use crate::output::Output;
use crate::{Failure, Verdict, input};
use accepted::Accepted;

/// Check policies: issues, and findings of the lint
///
/// An issue makes a document invalid. A finding is a probable mistake in a valid policy: entries
/// that never apply, rules that never decide, denials that a caller can evade. Its severity is
/// error, warning or note.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(crate) struct Options {
    /// The policies
    #[arg(required = true, value_name = "POLICY")]
    policies: Vec<PathBuf>,
    /// The tools of the server, as `tools/list` answers
    ///
    /// With them, names, arguments and types that the server does not have are found.
    #[arg(long, value_name = "LIST")]
    tools: Option<PathBuf>,
    /// Also fail for findings of this severity, and above
    #[arg(long, value_enum)]
    deny: Option<Deny>,
    /// A file of accepted findings
    ///
    /// Each line has the code of a finding and its pointer, or begins with `#`.
    #[arg(long, value_name = "FILE")]
    accept: Option<PathBuf>,
    /// The format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const HELP: &str = "\
Exit codes:
  0  no issues, and no findings that count
  1  an issue, or a finding of the severity error; with --deny warnings also a warning, and an
     accepted finding that no longer occurs; with --deny notes also a note
  2  a file cannot be read, or an argument is not valid

A file for --accept, for one policy:
  # Refunds without an amount are full refunds, which we allow.
  denial_left_out /tools/refund/deny_if/0/conditions/0

Example:
  toolgate check --tools tools.json --deny warnings policy.json";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Deny {
    Warnings,
    Notes,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text to read
    Text,
    /// One JSON object
    Json,
    /// Annotations of GitHub Actions
    Github,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

/// The result for one file.
struct Checked {
    file: String,
    result: Result<lint::Report, PolicyError>,
}

/// An issue or a finding, in one form for all formats.
struct Problem<'p> {
    file: &'p str,
    severity: Severity,
    code: &'p str,
    pointer: &'p str,
    line: Option<usize>,
    column: Option<usize>,
    message: &'p str,
    help: Option<&'p str>,
    /// The call that shows a finding, and its effect.
    witness: Option<String>,
    is_accepted: bool,
}

pub(crate) fn run(options: &Options, out: &mut Output) -> Result<Verdict, Failure> {
    if options.accept.is_some() && options.policies.len() > 1 {
        return Err(Failure::Input("--accept takes one POLICY: its lines do not name a file".to_owned()));
    }
    let tools = options.tools.as_deref().map(input::tools).transpose()?;
    let mut accepted = options.accept.as_deref().map(Accepted::read).transpose()?.unwrap_or_default();
    let mut all = Vec::new();
    for file in &options.policies {
        let bytes = input::policy_bytes(file)?;
        all.push(Checked { file: input::name(file), result: check(&bytes, tools.as_ref()) });
    }
    let problems: Vec<_> = all.iter().flat_map(|checked| problems(checked, &mut accepted)).collect();
    // Nothing is known about the findings of an invalid policy.
    let is_valid = all.iter().all(|checked| checked.result.is_ok());
    let stale: Vec<_> = if is_valid { accepted.stale().collect() } else { Vec::new() };

    match options.format {
        Format::Text => text(&all, &problems, &stale, out)?,
        Format::Json => out.json(&as_json(&all, &problems, &stale))?,
        Format::Github => annotations::write(&all, &problems, &stale, out)?,
        Format::Sarif => out.json(&sarif::log(&problems, &stale))?,
    }
    let least = match options.deny {
        None => Severity::Error,
        Some(Deny::Warnings) => Severity::Warning,
        Some(Deny::Notes) => Severity::Note,
    };
    let counts = problems.iter().any(|problem| !problem.is_accepted && problem.severity >= least);
    let omitted = all.iter().any(|checked| checked.omitted() > 0);
    Ok(Verdict::found(counts || omitted || (least < Severity::Error && !stale.is_empty())))
}

fn check(bytes: &[u8], tools: Option<&Value>) -> Result<lint::Report, PolicyError> {
    // Reads bytes that are not UTF-8 too, and says so.
    Policy::from_slice(bytes)?;
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    match tools {
        None => lint::check(text),
        Some(tools) => lint::check_against(text, tools),
    }
}

impl Checked {
    /// The number of issues or findings that were found and not kept.
    fn omitted(&self) -> usize {
        self.result.as_ref().map_or_else(PolicyError::omitted, lint::Report::omitted)
    }
}

fn problems<'c>(checked: &'c Checked, accepted: &mut Accepted) -> Vec<Problem<'c>> {
    let file = &*checked.file;
    match &checked.result {
        Err(error) => error.issues().iter().map(|issue| Problem::of_issue(file, issue)).collect(),
        Ok(report) => report.findings().iter().map(|finding| Problem::of_finding(file, finding, accepted)).collect(),
    }
}

impl<'p> Problem<'p> {
    fn of_issue(file: &'p str, issue: &'p Issue) -> Self {
        Self {
            file,
            severity: Severity::Error,
            code: issue.code().as_str(),
            pointer: issue.pointer(),
            line: issue.line(),
            column: issue.column(),
            message: issue.message(),
            help: issue.help(),
            witness: None,
            is_accepted: false,
        }
    }

    fn of_finding(file: &'p str, finding: &'p Finding, accepted: &mut Accepted) -> Self {
        let witness = finding.witness().zip(finding.effect());
        Self {
            file,
            severity: finding.severity(),
            code: finding.code().as_str(),
            pointer: finding.pointer(),
            line: Some(finding.line()),
            column: Some(finding.column()),
            message: finding.message(),
            help: Some(finding.help()),
            witness: witness.map(|(call, effect)| format!("{call} -> {effect}")),
            is_accepted: accepted.takes(finding.code().as_str(), finding.pointer()),
        }
    }

    /// The file, the line and the column.
    fn place(&self) -> String {
        let number = |number: Option<usize>| number.map_or(String::new(), |number| format!(":{number}"));
        format!("{}{}{}", self.file, number(self.line), number(self.column))
    }
}

/// An accepted finding that does not occur: its line in the file, its file and its text.
struct Stale<'a> {
    file: &'a str,
    line: usize,
    text: &'a str,
}

const STALE: &str = "this accepted finding no longer occurs: remove the line";

fn text(all: &[Checked], problems: &[Problem<'_>], stale: &[Stale<'_>], out: &mut Output) -> Result<(), Failure> {
    let mut shown: Vec<_> = problems.iter().filter(|problem| !problem.is_accepted).collect();
    // The errors first; otherwise by place.
    shown.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    for problem in &shown {
        let Problem { severity, code, pointer, message, help, witness, .. } = problem;
        let severity = severity.as_str();
        if out.is_terminal() {
            out.painted_line(&format!("{}: ", problem.place()), severity, &format!("[{code}]: {message}"))?;
            let pointer = if pointer.is_empty() { "the document" } else { pointer };
            out.line(format_args!("  in {pointer}"))?;
            if let Some(help) = help {
                out.line(format_args!("  help: {help}"))?;
            }
            if let Some(witness) = witness {
                out.line(format_args!("  call: {witness}"))?;
            }
            out.line("")?;
        } else {
            let help = help.map_or(String::new(), |help| format!(" (help: {help})"));
            let witness = witness.as_ref().map_or(String::new(), |witness| format!(" (call: {witness})"));
            let line = format!("{}: {severity}[{code}]: {pointer}: {message}{help}{witness}", problem.place());
            out.line(line.replace('\n', " "))?;
        }
    }
    for Stale { file, line, text } in stale {
        out.line(format_args!("{file}:{line}: warning: `{text}`: {STALE}"))?;
    }
    for checked in all.iter().filter(|checked| checked.omitted() > 0) {
        out.line(format_args!("{}: and {} more", checked.file, checked.omitted()))?;
    }
    let count = |severity| shown.iter().filter(|problem| problem.severity == severity).count();
    let [errors, warnings, notes] = [Severity::Error, Severity::Warning, Severity::Note].map(count);
    let accepted = problems.len() - shown.len();
    out.line(format_args!("{errors} errors, {warnings} warnings, {notes} notes, {accepted} accepted"))?;
    Ok(())
}

fn as_json(all: &[Checked], problems: &[Problem<'_>], stales: &[Stale<'_>]) -> Value {
    let mut problems = problems.iter();
    let policy = |checked: &Checked| match &checked.result {
        Err(error) => {
            problems.by_ref().take(error.issues().len()).for_each(drop);
            json!({ "file": checked.file, "issues": error.issues(), "omitted": error.omitted() })
        }
        Ok(report) => {
            // The problems are in the order of the findings.
            let beside = report.findings().iter().zip(problems.by_ref().take(report.findings().len()));
            let (accepted, findings): (Vec<_>, Vec<_>) = beside.partition(|(_, problem)| problem.is_accepted);
            let only =
                |pairs: Vec<(&Finding, _)>| json!(pairs.into_iter().map(|(finding, _)| finding).collect::<Vec<_>>());
            json!({
                "file": checked.file, "issues": [], "findings": only(findings), "accepted": only(accepted),
                "omitted": report.omitted(), "complete": report.is_complete(),
            })
        }
    };
    let policies: Vec<_> = all.iter().map(policy).collect();
    let stale = |stale: &Stale<'_>| json!({ "file": stale.file, "line": stale.line, "finding": stale.text });
    json!({ "policies": policies, "no_longer_found": stales.iter().map(stale).collect::<Vec<_>>() })
}
