//! The page and the JSON interface for the people who run the gateway: approvals, usage, decisions,
//! policies, and a workbench for policies that are not in force.
//!
//! Whoever may use it may approve in any name. It is guarded by a bearer token on a TCP address,
//! and by the permissions of the file on a Unix socket. `docs/operator.md` describes it.

mod activity;
mod approvals;
mod guard;
mod page;
mod policies;
#[cfg(test)]
mod tests;
mod workbench;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::host::Host;

/// The most bytes of a request's body.
const BODY_BYTES: usize = 2 << 20;

/// The state of the operator's address.
#[derive(Clone)]
pub struct OperatorState(Arc<Inner>);

struct Inner {
    host: Arc<Host>,
    /// The SHA-256 digests of the tokens that may use the address. `None` on a Unix socket.
    tokens: Option<Vec<[u8; 32]>>,
    /// The host names of the page, besides those that cannot lead elsewhere.
    hosts: Vec<String>,
    reload: Box<dyn Fn() -> Result<String, String> + Send + Sync>,
    /// Bounds how many policies are checked or tried at once.
    workers: Arc<Semaphore>,
    /// Bounds how many readers follow the decisions.
    followers: Arc<Semaphore>,
}

impl OperatorState {
    /// Makes the state of a gateway. `reload` reads its files again and returns a line about it.
    pub fn new(
        host: Arc<Host>,
        tokens: Option<Vec<[u8; 32]>>,
        hosts: Vec<String>,
        reload: impl Fn() -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        let (workers, followers) = (Arc::new(Semaphore::new(2)), Arc::new(Semaphore::new(activity::FOLLOWERS)));
        Self(Arc::new(Inner { host, tokens, hosts, reload: Box::new(reload), workers, followers }))
    }

    /// The gateway: pending approvals, usage, callers and records of its journal, policies, tools.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// Reads the files of the gateway again.
    ///
    /// # Errors
    /// The issues of the files. Everything stays as it was.
    pub fn reload(&self) -> Result<String, String> {
        (self.0.reload)()
    }

    /// Runs work that takes a processor for a while, apart from what answers requests, and never
    /// more than two at once.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Response> {
        let failed = || error(StatusCode::INTERNAL_SERVER_ERROR, "the policy could not be examined");
        let turn = Arc::clone(&self.0.workers).acquire_owned().await.map_err(|_| failed())?;
        // The work continues if its client goes away, and keeps its turn.
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| failed())
    }
}

/// Returns all routes of the operator's address.
pub fn router(state: OperatorState) -> Router {
    let api = Router::new()
        .route("/api/session", get(session))
        .route("/api/approvals", get(approvals::pending))
        .route("/api/approvals/{id}/{verdict}", post(approvals::answer))
        .route("/api/usage", get(activity::usage))
        .route("/api/callers", get(activity::callers))
        .route("/api/events", get(activity::events))
        .route("/api/policies", get(policies::policies))
        .route("/api/tools", get(policies::tools))
        .route("/api/reload", post(reload))
        .route("/api/workbench/check", post(workbench::check))
        .route("/api/workbench/explain", post(workbench::explain))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), guard::same_site))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(state.clone(), guard::token));
    let page = page::router().layer(middleware::from_fn_with_state(state.clone(), guard::same_site));
    api.merge(page).layer(middleware::map_response(guard::headers)).with_state(state)
}

/// An error as JSON: `{"error": "…"}`.
fn error(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "error": message.into() }))).into_response()
}

/// Answers a page that wants to know whether its token is accepted.
async fn session() -> Response {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") })).into_response()
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
    (kind, state.host().metrics().await).into_response()
}
