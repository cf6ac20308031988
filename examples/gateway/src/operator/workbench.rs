//! The policy workbench: checks a policy, and tries calls against it. Pure functions over the text
//! of a request; nothing in force changes, and no counter is asked.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use toolgate::analysis::lint;
use toolgate::mcp::Message;
use toolgate::{Bounds, Clock, Policy, SystemClock, Timestamp};

use super::{OperatorState, error};
use crate::who::Who;

/// The most bytes of a policy in the workbench.
const POLICY_BYTES: usize = 512 << 10;

/// Policies of this size take a part of a second. The bounds of a policy in force are higher.
fn bounds() -> Bounds {
    Bounds::default().document_bytes(POLICY_BYTES).entries(5_000).regex_total_bytes(32 << 20)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    policy: String,
    /// The tools of the servers, to compare the policy with.
    #[serde(default)]
    tools: Option<Vec<Value>>,
}

pub(super) async fn check(State(state): State<OperatorState>, Json(draft): Json<Draft>) -> Response {
    state.work(move || examine(draft)).await.map_or_else(|failed| failed, |answer| Json(answer).into_response())
}

fn examine(Draft { policy: text, tools }: Draft) -> Value {
    let linted = Policy::from_json_within(&text, &bounds()).and_then(|policy| {
        let lint = match tools {
            Some(tools) => lint::check_against(&text, &Value::Array(tools)),
            None => lint::check(&text),
        };
        Ok((policy, lint?))
    });
    match linted {
        Ok((policy, lint)) => json!({ "valid": true, "digest": policy.digest().to_string(), "lint": lint }),
        Err(invalid) => {
            let mut answer = json!(invalid);
            if let Some(members) = answer.as_object_mut() {
                members.insert("valid".to_owned(), false.into());
            }
            answer
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attempt {
    policy: String,
    call: TriedCall,
    /// The time of the call; now, if it is missing.
    #[serde(default)]
    at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TriedCall {
    tool: String,
    /// JSON texts, because a browser would round long numbers.
    arguments: String,
    #[serde(default)]
    context: Option<String>,
    server: Option<String>,
    grant: Option<String>,
    session: Option<String>,
    agent: Option<String>,
    user: Option<String>,
}

pub(super) async fn explain(State(state): State<OperatorState>, Json(attempt): Json<Attempt>) -> Response {
    let explained = state.work(move || attempt.explain()).await;
    match explained {
        Ok(Ok(explanation)) => Json(explanation).into_response(),
        Ok(Err(message)) => error(StatusCode::UNPROCESSABLE_ENTITY, message),
        Err(failed) => failed,
    }
}

impl Attempt {
    fn explain(self) -> Result<Value, String> {
        let Self { policy, call: tried, at } = self;
        let at = match at {
            None => SystemClock.now(),
            Some(at) => at.parse::<Timestamp>().map_err(|error| format!("the time: {error}"))?,
        };
        let policy = Policy::from_json_within(&policy, &bounds())
            .map_err(|_| "the policy is not valid: fix its issues, then try the call".to_owned())?;
        let arguments: &RawValue =
            serde_json::from_str(&tried.arguments).map_err(|error| format!("the arguments: {error}"))?;
        let context: Option<Map<String, Value>> = match tried.context.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(text) => Some(serde_json::from_str(text).map_err(|error| format!("the context: {error}"))?),
        };
        // Read as the gateway reads it, which refuses duplicate keys and inexact numbers.
        let params = json!({ "name": tried.tool }).to_string();
        let params = params.strip_suffix('}').unwrap_or_default();
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params},"arguments":{arguments}}}}}"#);
        let call = match Message::read(&text) {
            Ok(Message::Call(call)) => call,
            Ok(Message::Other(_)) => return Err("the text is not a call".to_owned()),
            Err(malformed) => {
                // The offset is one into the message around the arguments.
                let malformed = malformed.to_string();
                let why = malformed.split_once(": ").map_or(&*malformed, |(_, why)| why);
                return Err(format!("the gateway refuses this call, `malformed_call`: {why}"));
            }
        };
        let TriedCall { server, grant, session, agent, user, .. } = tried;
        let who = Who { server, grant, session, agent, user, context };
        Ok(json!(policy.explain_with_values(&who.names(call.tool_call()), at)))
    }
}
