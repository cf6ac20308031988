//! Requests that wait for a person, and the answers.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use toolgate::approval::{Approval, ApprovalId, ApprovalState, Verdict};
use toolgate::{Clock, Identity, SystemClock, Timestamp};

use super::{OperatorState, error};

/// The most requests of one answer. People decide the oldest first, and cannot read more at once.
const REQUESTS: usize = 200;
/// The header of an answer with the number of all requests that are pending.
const ALL: &str = "x-toolgate-pending";
/// The most bytes of a person's name.
const NAME_BYTES: usize = 200;

/// Writes an approval. `details` are the arguments, or `null` if they are too long to be kept. Then
/// `arguments` has the beginning of each, with invisible characters written out.
fn to_json(approval: &Approval, now: Timestamp) -> Value {
    let caller = [Identity::Server, Identity::Grant, Identity::Session, Identity::Agent, Identity::User]
        .into_iter()
        .filter_map(|identity| Some((identity.as_str().to_owned(), approval.identity(identity)?.into())));
    let arguments = approval.arguments().iter().map(|argument| {
        json!({ "name": argument.name(), "value": argument.value(), "hidden_bytes": argument.hidden_bytes() })
    });
    json!({
        "id": approval.id().to_string(),
        "digest": approval.id().digest().to_string(),
        "tool": approval.tool(),
        "caller": Value::Object(caller.collect()),
        "reason": approval.reason(),
        "details": approval.details(),
        "details_bytes": approval.details_bytes(),
        "arguments": arguments.collect::<Vec<_>>(),
        "arguments_left_out": approval.arguments_left_out(),
        // Only what is shown in full can be approved.
        "is_shown": approval.is_shown(),
        // The text is an object of all arguments, or a list of those that the policy binds.
        "binds": if approval.details().is_some_and(|details| details.starts_with('[')) { "some" } else { "all" },
        "made_at": approval.made_at(),
        "expires_at": approval.expires_at(),
        "expires_in_ms": u64::try_from(approval.expires_at().saturating_since(now).as_millis()).unwrap_or(u64::MAX),
        "min_approvers": approval.min_approvers(),
        "uses": approval.uses(),
        "approved_by": approval.approved_by().collect::<Vec<_>>(),
    })
}

pub(super) async fn pending(State(state): State<OperatorState>) -> Response {
    match state.host().pending().await {
        Ok(pending) => {
            let now = SystemClock.now();
            let shown: Vec<_> = pending.iter().take(REQUESTS).map(|approval| to_json(approval, now)).collect();
            ([(ALL, pending.len().to_string())], Json(shown)).into_response()
        }
        Err(message) => error(StatusCode::SERVICE_UNAVAILABLE, message),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    /// The name of the person who answers.
    by: String,
}

pub(super) async fn answer(
    State(state): State<OperatorState>,
    Path((id, verdict)): Path<(String, String)>,
    Json(Answer { by }): Json<Answer>,
) -> Response {
    let verdict = match verdict.as_str() {
        "approve" => Verdict::Approve,
        "refuse" => Verdict::Refuse,
        "lift" => Verdict::Lift,
        _ => {
            let message = "a request is answered with `approve` or `refuse`, a refusal with `lift`";
            return error(StatusCode::NOT_FOUND, message);
        }
    };
    let id: ApprovalId = match id.parse() {
        Ok(id) => id,
        Err(invalid) => return error(StatusCode::BAD_REQUEST, format!("{invalid}")),
    };
    let by = by.trim();
    if by.is_empty() || by.len() > NAME_BYTES || by.chars().any(char::is_control) {
        return error(StatusCode::BAD_REQUEST, format!("give a name of 1 to {NAME_BYTES} bytes, on one line"));
    }
    match state.host().answer(&id, verdict, by).await {
        Ok(approval) => Json(json!({
            "id": id.to_string(),
            "state": word(approval.state()),
            "approvals": approval.approved_by().len(),
            "min_approvers": approval.min_approvers(),
        }))
        .into_response(),
        Err(message) => error(StatusCode::CONFLICT, message),
    }
}

fn word(state: ApprovalState) -> &'static str {
    match state {
        ApprovalState::Pending => "pending",
        ApprovalState::Approved => "approved",
        ApprovalState::Denied => "denied",
        ApprovalState::Expired => "expired",
        ApprovalState::Consumed => "consumed",
    }
}
