//! Looks at a policy for what is odd in it: entries that never apply, rules that never decide, denials and approvals
//! that a caller can leave.
//!
//! ```text
//! cargo run --example lint -- POLICY.json [TOOLS_LIST.json] [--json]
//! ```
//!
//! With the result of a server's `tools/list`, it looks also for names, arguments and types that the server does not have. The exit
//! code is 1 if a finding is an error, 2 if a file cannot be read.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use toolgate::analysis::lint::{self, Severity};

const USAGE: &str = "usage: lint POLICY.json [TOOLS_LIST.json] [--json]";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let (options, files): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let as_json = match options.as_slice() {
        [] => false,
        [option] if option == "--json" => true,
        _ => return Err(USAGE.into()),
    };
    let (file, tools) = match files.as_slice() {
        [policy] => (policy, None),
        [policy, tools] => {
            (policy, Some(serde_json::from_str(&read(tools)?).map_err(|error| format!("{tools}: {error}"))?))
        }
        _ => return Err(USAGE.into()),
    };
    let source = read(file)?;
    let checked = match &tools {
        None => lint::check(&source),
        Some(tools) => lint::check_against(&source, tools),
    };
    let report = match checked {
        Ok(report) => report,
        Err(error) => {
            eprint!("{file}: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let mut to = std::io::stdout().lock();
    if as_json {
        writeln!(to, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        for finding in report.findings() {
            writeln!(to, "{file}:{finding}")?;
        }
        writeln!(to, "findings: {}", report.findings().len() + report.omitted())?;
    }
    Ok(if report.worst() == Some(Severity::Error) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(file: &str) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))
}
