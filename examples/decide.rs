//! Decides every call of a trace.
//!
//! ```text
//! cargo run --release --example decide -- POLICY.json [TRACE.jsonl]
//! cargo run --release --example decide -- --intercept POLICY.yaml [TRACE.jsonl]
//! cargo run --release --example decide -- --intercept POLICY.yaml --print
//! ```
//!
//! With `--intercept` the policy is a YAML document of Intercept, and is translated; `--print` writes the translation. Reads the trace, or standard input, as JSON Lines, and writes one line for each step: what is decided, why, and how the
//! limits stand. A summary follows on standard error. Exits with 2 if the policy is none, with 1 if a line could not be read,
//! else with 0.

mod yaml;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::process::ExitCode;

use serde_json::Value;
use toolgate::trace::{Runner, Summary};
use toolgate::{Policy, PolicyError, intercept};

/// The longest line that is read: longer ones are passed over and answered as unreadable.
const LINE_BYTES: usize = 16 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (is_intercept, policy_file, trace_file) = match arguments.as_slice() {
        ["--intercept", policy, "--print"] => return print_translated(policy),
        ["--intercept", policy] => (true, *policy, None),
        ["--intercept", policy, trace] => (true, *policy, Some(*trace)),
        [policy] if !policy.starts_with("--") => (false, *policy, None),
        [policy, trace] if !policy.starts_with("--") => (false, *policy, Some(*trace)),
        _ => {
            eprintln!("usage: decide POLICY.json [TRACE.jsonl]");
            eprintln!("       decide --intercept POLICY.yaml [TRACE.jsonl | --print]");
            return ExitCode::from(2);
        }
    };
    let read = if is_intercept { read_intercept(policy_file, intercept::read) } else { read_policy(policy_file) };
    let Some(policy) = read else { return ExitCode::from(2) };
    let trace: Box<dyn BufRead> = match trace_file.map(File::open) {
        None => Box::new(io::stdin().lock()),
        Some(Ok(file)) => Box::new(BufReader::new(file)),
        Some(Err(error)) => {
            eprintln!("{}: {error}", trace_file.unwrap_or_default());
            return ExitCode::from(2);
        }
    };
    let read = |file: &str| std::fs::read(file).inspect_err(|error| eprintln!("{file}: {error}"));
    let mut runner = Runner::new(policy).files(read).on_invalid_policy(complain);
    match run(&mut runner, trace, &mut BufWriter::new(io::stdout().lock())) {
        Ok(()) => {}
        // Whoever read the answers has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    summarise(runner.summary());
    if runner.summary().unreadable > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn read_policy(file: &str) -> Option<Policy> {
    let bytes = bytes_of(file)?;
    Policy::from_slice(&bytes).inspect_err(|error| complain(file, error)).ok()
}

/// Reads a YAML document, and makes something of it.
fn read_intercept<T>(file: &str, make: impl FnOnce(&Value) -> Result<T, PolicyError>) -> Option<T> {
    match yaml::read(&bytes_of(file)?) {
        Ok(document) => make(&document).inspect_err(|error| complain(file, error)).ok(),
        Err(error) => {
            eprintln!("{file}: {error}");
            None
        }
    }
}

fn bytes_of(file: &str) -> Option<Vec<u8>> {
    std::fs::read(file).inspect_err(|error| eprintln!("{file}: {error}")).ok()
}

fn print_translated(file: &str) -> ExitCode {
    let Some(translated) = read_intercept(file, intercept::translate) else { return ExitCode::from(2) };
    match writeln!(io::stdout(), "{translated:#}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(runner: &mut Runner, mut trace: impl BufRead, answers: &mut impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    while read_line(&mut trace, &mut line)? {
        // What is no text is no line that can be read; the reader of steps says so.
        let text = String::from_utf8_lossy(&line);
        let text = if line.len() > LINE_BYTES || std::str::from_utf8(&line).is_err() { "unreadable" } else { &*text };
        if let Some(answer) = runner.answer(text) {
            serde_json::to_writer(&mut *answers, &answer)?;
            answers.write_all(b"\n")?;
        }
    }
    answers.flush()
}

/// Reads the next line without its end. Of one that is too long, the end is dropped.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    loop {
        let buffer = from.fill_buf()?;
        if buffer.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        let room = (LINE_BYTES + 1).saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(part.get(..room).unwrap_or_default());
        let used = part.len() + usize::from(end.is_some());
        from.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// Prints every issue, a line each.
fn complain(file: &str, error: &PolicyError) {
    for issue in error.issues() {
        let place = |number: Option<usize>| number.map_or(String::new(), |number| format!(":{number}"));
        eprintln!("{file}{}{}: {issue}", place(issue.line()), place(issue.column()));
    }
    if error.omitted() > 0 {
        eprintln!("{file}: and {} more", error.omitted());
    }
}

fn summarise(summary: &Summary) {
    let Summary { steps, calls, unreadable, by_decision, by_rule, counters, .. } = summary;
    eprintln!("\n{calls} calls in {steps} steps");
    if *unreadable > 0 {
        eprintln!("{unreadable:>7}  lines could not be read");
    }
    for (decision, count) in by_decision {
        eprintln!("{count:>7}  {decision}");
    }
    if !by_rule.is_empty() {
        eprintln!("stopped by");
        let mut rules: Vec<_> = by_rule.iter().collect();
        rules.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((code, rule), count) in rules {
            eprintln!("{count:>7}  {code:<18} {rule}");
        }
    }
    if !counters.is_empty() {
        eprintln!("busiest counters (the fullest that each has been)");
        let mut counters: Vec<_> = counters.values().collect();
        counters.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
        for (state, calls) in counters.into_iter().take(8) {
            let (counter, used, max) = (state.counter(), state.used(), state.max());
            eprintln!("{calls:>7}  calls counted by {counter}: {used} of {max} used");
        }
    }
}
