//! Shows what changes from one policy to another.
//!
//! ```text
//! cargo run --release --example diff -- OLD.json NEW.json [--json]
//! ```
//!
//! Prints the calls that are decided otherwise, with one that shows it for each kind, or all of it as JSON. The exit code is 0 if it is
//! certain that no call is, 1 if some are or it could not be told, 2 if a policy could not be read.

use std::io::Write;
use std::process::ExitCode;

use toolgate::Policy;
use toolgate::analysis::diff;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let (flags, files): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word.starts_with("--"));
    let as_json = match flags.as_slice() {
        [] => false,
        [flag] if flag == "--json" => true,
        _ => return Err(USAGE.to_owned()),
    };
    let [old, new] = files.as_slice() else { return Err(USAGE.to_owned()) };
    let (old, new) = (read(old)?, read(new)?);
    let found = diff::compare(&old, &new);
    let tightens = diff::only_tightens(&old, &new);
    let text = if as_json {
        let all = serde_json::json!({ "comparison": found, "only_tightens": tightens });
        serde_json::to_string_pretty(&all).map_err(|error| error.to_string())?
    } else {
        let short = match &tightens {
            diff::Tightening::Yes => "yes",
            diff::Tightening::No(_) => "no",
            diff::Tightening::CannotTell(_) => "cannot tell",
        };
        format!("{found}\n\nonly tightens: {short}")
    };
    // A reader that has seen enough is no error.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(if found.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const USAGE: &str = "usage: diff OLD.json NEW.json [--json]";

fn read(file: &str) -> Result<Policy, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    Policy::from_slice(&bytes).map_err(|error| format!("{file}: {error}"))
}
