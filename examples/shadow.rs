//! Tries a policy out beside another, on the calls of a trace.
//!
//! ```text
//! cargo run --release --example shadow -- POLICY.json CANDIDATE.json TRACE.jsonl
//! ```
//!
//! Decides the trace by the first policy, and writes one line of JSON for each call that the second would have decided otherwise.
//! How often, and by which rules, follows on standard error.

use std::error::Error;
use std::process::ExitCode;

use toolgate::Policy;
use toolgate::shadow::{Difference, Shadow};
use toolgate::trace::Runner;

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
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [in_force, candidate, trace] = files.as_slice() else {
        eprintln!("usage: shadow POLICY.json CANDIDATE.json TRACE.jsonl");
        return Ok(ExitCode::from(2));
    };
    let read = |file: &String| std::fs::read(file).map_err(|error| format!("{file}: {error}"));
    let policy = |file: &String| Policy::from_slice(&read(file)?).map_err(|error| format!("{file}: {error}"));
    let runner = Runner::new(policy(in_force)?).files(|file| std::fs::read(file));
    let mut runner = runner.on_invalid_policy(|file, error| eprintln!("{file}: {error}"));
    let trial = Shadow::new(policy(candidate)?).on_difference(print);
    runner.gate().start_shadow(trial);

    let history = String::from_utf8(read(trace)?).map_err(|error| format!("{trace}: {error}"))?;
    for line in history.lines() {
        runner.answer(line);
    }
    if let Some(report) = runner.gate().stop_shadow() {
        let (calls, agreed, differed) = (runner.summary().calls, report.agreed(), report.differed());
        eprintln!("\n{calls} calls in the trace: {agreed} decided alike, {differed} not");
        for (kind, rule, count) in report.rules() {
            eprintln!("{count:>7}  {kind:<9}  {rule}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(difference: &Difference) {
    let (ours, theirs) = (difference.in_force(), difference.candidate());
    let side = |record: &toolgate::audit::AuditRecord| serde_json::json!({ "decision": record.decision(), "code": record.code(), "rule": record.rule() });
    let line = serde_json::json!({
        "at": ours.time(), "tool": ours.tool(), "candidate": difference.kind(),
        "in_force_says": side(ours), "candidate_says": side(theirs),
    });
    println!("{line}");
}
