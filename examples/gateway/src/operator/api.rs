//! The JSON interface: pending approvals, usage, policies, tools, and the command to read files.

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use toolgate::Identity;
use toolgate::approval::{Approval, ApprovalId, Verdict};

use super::OperatorState;
use crate::who::Who;

pub(super) fn router() -> Router<OperatorState> {
    Router::new()
        .route("/api/approvals", get(pending))
        .route("/api/approvals/{id}/{verdict}", post(answer))
        .route("/api/usage", get(usage))
        .route("/api/policies", get(policies))
        .route("/api/tools", get(tools))
        .route("/api/reload", post(reload))
        .route("/metrics", get(metrics))
}

/// An error as JSON: `{"error": "…"}`.
fn error(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "error": message.into() }))).into_response()
}

/// Writes an approval. `details` are the arguments, or `null` if they are too long to be kept.
fn to_json(approval: &Approval) -> Value {
    let caller = [Identity::Server, Identity::Grant, Identity::Session, Identity::Agent, Identity::User]
        .into_iter()
        .filter_map(|identity| Some((identity.as_str().to_owned(), approval.identity(identity)?.into())));
    json!({
        "id": approval.id().to_string(),
        "tool": approval.tool(),
        "caller": Value::Object(caller.collect()),
        "reason": approval.reason(),
        "details": approval.details(),
        "details_bytes": approval.details_bytes(),
        "made_at": approval.made_at().to_string(),
        "expires_at": approval.expires_at().to_string(),
        "min_approvers": approval.min_approvers(),
        "approved_by": approval.approved_by().collect::<Vec<_>>(),
    })
}

async fn pending(State(state): State<OperatorState>) -> Response {
    match state.host().pending().await {
        Ok(pending) => Json(pending.iter().map(to_json).collect::<Vec<_>>()).into_response(),
        Err(message) => error(StatusCode::SERVICE_UNAVAILABLE, message),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    /// The name of the person who answers.
    by: String,
}

async fn answer(
    State(state): State<OperatorState>,
    Path((id, verdict)): Path<(String, String)>,
    Json(Answer { by }): Json<Answer>,
) -> Response {
    let verdict = match verdict.as_str() {
        "approve" => Verdict::Approve,
        "refuse" => Verdict::Refuse,
        _ => return error(StatusCode::NOT_FOUND, "an approval is answered with `approve` or `refuse`"),
    };
    let id: ApprovalId = match id.parse() {
        Ok(id) => id,
        Err(invalid) => return error(StatusCode::BAD_REQUEST, format!("{invalid}")),
    };
    match state.host().answer(&id, verdict, by.trim()).await {
        Ok(approval) => {
            let state = format!("{:?}", approval.state()).to_lowercase();
            Json(json!({ "id": id.to_string(), "state": state })).into_response()
        }
        Err(message) => error(StatusCode::CONFLICT, message),
    }
}

async fn usage(State(state): State<OperatorState>, Query(who): Query<Who>) -> Response {
    match state.host().usage(&who).await {
        Ok(limits) => Json(limits).into_response(),
        Err(message) => error(StatusCode::CONFLICT, message),
    }
}

async fn policies(State(state): State<OperatorState>) -> Json<Value> {
    let policies = state.host().policies().into_iter().map(|(name, policy)| {
        let (entries, digest) = (policy.entries(), policy.digest().to_string());
        json!({ "name": name, "entries": entries, "digest": digest, "text": policy.to_json() })
    });
    Json(policies.collect())
}

async fn tools(State(state): State<OperatorState>) -> Json<Value> {
    Json(json!(state.host().tools()))
}

async fn reload(State(state): State<OperatorState>) -> Response {
    match tokio::task::spawn_blocking(move || state.reload()).await {
        Ok(Ok(message)) => Json(json!({ "message": message })).into_response(),
        Ok(Err(message)) => error(StatusCode::CONFLICT, message),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "reading the files has failed"),
    }
}

async fn metrics(State(state): State<OperatorState>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (kind, state.host().metrics.to_text()).into_response()
}
