//! `toolgate explain`: explains the decision about one call.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};
use toolgate::{Clock, Gate, ManualClock, SystemClock, Timestamp, ToolCall};

use crate::output::{Format, Output};
use crate::{Failure, Verdict, input};

/// Explain why a call is decided as it is
///
/// Lists every rule that matches the call with what its conditions found, every limit with its
/// charge, and for each refusal the nearest change that would pass. The counters are empty.
///
/// CALL is a JSON object with `tool`, and optionally `arguments`, `grant`, `session`, `agent`,
/// `user`, `server` and `context`.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(crate) struct Options {
    /// The policy
    policy: PathBuf,
    /// The call: a file, or the JSON itself if it begins with `{`
    call: String,
    /// The instant of the call in RFC 3339, such as 2026-01-15T22:30:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Show the values of arguments, not only their types
    #[arg(long)]
    values: bool,
    /// The format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const HELP: &str = "\
Exit codes:
  0  the decision was explained, whatever it is
  2  a file cannot be read, the policy or the call is not valid, or an argument is not valid

Example:
  toolgate explain policy.json '{ \"tool\": \"pay\", \"arguments\": { \"amount\": 900 } }'";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    tool: String,
    arguments: Option<Value>,
    grant: Option<String>,
    session: Option<String>,
    agent: Option<String>,
    user: Option<String>,
    server: Option<String>,
    context: Option<Map<String, Value>>,
}

pub(crate) fn run(options: &Options, out: &mut Output) -> Result<Verdict, Failure> {
    let policy = input::policy(&options.policy)?;
    let (text, name) = match options.call.trim_start().starts_with('{') {
        true => (options.call.clone(), "the call".to_owned()),
        false => (input::text(options.call.as_ref())?, input::name(options.call.as_ref())),
    };
    // As an object, because serde would also read a list of the members.
    let object: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| Failure::Input(format!("{name}: is not a JSON object: {error}")))?;
    let call = Call::deserialize(Value::Object(object))
        .map_err(|error| Failure::Input(format!("{name}: is not a valid call: {error}")))?;
    let at = options.at.unwrap_or_else(|| SystemClock.now());
    let call = ToolCall::new(&call.tool, call.arguments.as_ref())
        .grant(call.grant.as_deref())
        .session(call.session.as_deref())
        .agent(call.agent.as_deref())
        .user(call.user.as_deref())
        .server(call.server.as_deref())
        .context(call.context.as_ref());

    let explanation = match options.values {
        true => policy.explain_with_values(&call, at),
        false => Gate::builder()
            .policy(policy)
            .clock(ManualClock::new(at))
            .build()
            .explain(&call)
            .map_err(|error| Failure::Input(error.to_string()))?,
    };
    match options.format {
        Format::Json => out.json(&explanation)?,
        Format::Text => out.line(explanation.to_string().trim_end())?,
    }
    Ok(Verdict::Fine)
}
