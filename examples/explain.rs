//! Explains why a call is decided as it is, and what would have to change.
//!
//! ```text
//! cargo run --example explain -- POLICY.json CALL.json [--json] [--values]
//! ```
//!
//! The call is an object with `tool`, `arguments`, the caller's `grant`, `session`, `agent`, `user` and `server`, and the `context`
//! that the host would supply. The counters are those of a gate that has decided nothing yet. `--json` prints data; `--values`
//! shows the values that were compared.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;
use toolgate::{Gate, Policy, SystemClock, ToolCall};

const USAGE: &str = "usage: explain POLICY.json CALL.json [--json] [--values]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let (options, files): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let has = |name: &str| options.iter().any(|option| option == name);
    let known = options.iter().all(|option| matches!(&**option, "--json" | "--values"));
    let ([policy, call], true) = (files.as_slice(), known) else { return Err(USAGE.into()) };
    let policy = Policy::from_slice(&read(policy)?).map_err(|error| format!("{policy}: {error}"))?;
    let call: Value = serde_json::from_slice(&read(call)?).map_err(|error| format!("{call}: {error}"))?;
    let text = |key: &str| call.get(key).and_then(Value::as_str);
    let tool = text("tool").ok_or("the call has no `tool`")?;
    let call = ToolCall::new(tool, call.get("arguments"))
        .grant(text("grant"))
        .session(text("session"))
        .agent(text("agent"))
        .user(text("user"))
        .server(text("server"))
        .context(call.get("context").and_then(Value::as_object));

    let explanation = match has("--values") {
        true => policy.explain_with_values(&call, toolgate::Clock::now(&SystemClock)),
        false => Gate::new(policy).explain(&call)?,
    };
    let mut to = std::io::stdout().lock();
    match has("--json") {
        true => writeln!(to, "{}", serde_json::to_string_pretty(&explanation)?)?,
        false => write!(to, "{explanation}")?,
    }
    Ok(())
}

fn read(file: &str) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{file}: {error}"))
}
