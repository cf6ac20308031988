//! A web service in front of an MCP server, built with `axum`. Each bearer token has a grant, and
//! the policy of the grant decides the calls.
//!
//! ```text
//! TOKEN=secret cargo run --example axum -- POLICY.json http://127.0.0.1:9000/mcp
//! ```
//!
//! It serves stateless servers that answer in JSON.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper_util::client::legacy::{Client, Error, connect::HttpConnector};
use sha2::{Digest, Sha256};
use toolgate::mcp::{CallOutcome, FromClient, FromServer, Routed, ServerState, Session, filter_tools_list};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{Access, AsyncGrants, AsyncPermit, Caller, Gate, Grants};

const JSON: (HeaderName, &str) = (CONTENT_TYPE, "application/json");

pub(crate) struct Service {
    pub(crate) grants: AsyncGrants<InProcess<MemoryStore>>,
    /// The grants by the digests of their tokens. The time of a lookup reveals nothing of a token.
    pub(crate) tokens: HashMap<[u8; 32], String>,
    pub(crate) state: ServerState<AsyncPermit>,
    pub(crate) server: Uri,
    pub(crate) client: Client<HttpConnector, Body>,
}

pub(crate) fn router(service: Service) -> axum::Router {
    // axum reads at most 2 MB of a body.
    axum::Router::new().route("/mcp", axum::routing::post(handle)).with_state(Arc::new(service))
}

async fn handle(State(service): State<Arc<Service>>, headers: HeaderMap, body: Bytes) -> Response {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let grant = token.and_then(|token| service.tokens.get(&<[u8; 32]>::from(Sha256::digest(token))));
    let Some(caller) = grant.map(|grant| Caller::new().grant(grant)) else {
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")]).into_response();
    };
    // In a task of its own: axum drops this function when the client leaves, and the call must end.
    let work = tokio::spawn(async move { service.exchange(&body, &caller, &headers).await });
    work.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

impl Service {
    /// Decides a message, forwards it, and ends the call.
    async fn exchange(&self, body: &[u8], caller: &Caller, headers: &HeaderMap) -> Response {
        // Without access, other requests than calls do not pass either.
        let Ok(gate) = self.grants.gate(caller) else { return StatusCode::FORBIDDEN.into_response() };
        let mut session = Session::sharing(&self.state, caller);
        let given = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let (message, id, headers) = match session.from_http_client(body, given) {
            FromClient::Forward { message, id, headers, .. } => (message, id, headers),
            FromClient::Answer { answer, .. } => {
                return (StatusCode::BAD_REQUEST, [JSON], answer.unwrap_or_default()).into_response();
            }
            FromClient::Decide(call) => {
                let decision = self.grants.check(&call.by(caller)).await;
                let wait = decision.retry_after_secs().map(|seconds| [(RETRY_AFTER, seconds.to_string())]);
                match session.decided(call, decision) {
                    Routed::Forward { message, id, headers } => (message, Some(id), headers),
                    // Status 200, because clients show their model no other answer.
                    Routed::Answer { answer } => return (wait, [JSON], answer).into_response(),
                }
            }
        };
        let answer = self.forward(message, headers).await;
        let Some(id) = id else { return StatusCode::ACCEPTED.into_response() };
        let filter = |list: &mut _| filter_tools_list(gate.policy().as_ref(), list);
        let routed = answer.as_ref().ok().map(|text| session.from_server(text, filter));
        let (answer, ended) = if let Some(FromServer::Forward { message, answers: Some(_), ended, .. }) = routed {
            (Some(message.into_owned()), ended)
        } else {
            let outcome = answer.err().unwrap_or(CallOutcome::Unclear(None));
            session.fail(&id, outcome, "no answer").map_or((None, None), |failed| (failed.answer, failed.ended))
        };
        if let Some(ended) = ended {
            ended.conclude().await.unwrap_or_else(|error| eprintln!("axum: a call is not ended: {error}"));
        }
        ([JSON], answer.unwrap_or_default()).into_response()
    }

    /// Sends a message to the server. Fails with the outcome of a call.
    async fn forward(&self, message: String, headers: Vec<(Box<str>, String)>) -> Result<Bytes, CallOutcome> {
        let unclear = CallOutcome::Unclear(None);
        // Nothing of the client's headers reaches the server, above all not its token.
        let request = Request::post(&self.server).header(ACCEPT, "application/json, text/event-stream");
        let request = request.header(CONTENT_TYPE, "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(&**name, value));
        // Without a connection, the request has certainly not arrived.
        let failed = |error: Error| if error.is_connect() { CallOutcome::NotRun } else { unclear };
        let answer = async {
            let sent = self.client.request(request.body(Body::from(message)).map_err(|_| unclear)?).await;
            to_bytes(Body::new(sent.map_err(failed)?.into_body()), 2 << 20).await.map_err(|_| unclear)
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), answer).await.unwrap_or(Err(unclear))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [policy, server] = arguments.as_slice() else { return Err("usage: axum POLICY.json URL".into()) };
    let token = std::env::var("TOKEN").map_err(|_| "TOKEN is the bearer token of the only client")?;
    let grants = Grants::over(&Gate::builder().store_async(InProcess(MemoryStore::new())).build());
    grants.put_policy("agents", &std::fs::read_to_string(policy).map_err(|error| format!("{policy}: {error}"))?)?;
    grants.give("g-42", Access::to("agents").on_any_server(), "ops")?;
    let tokens = HashMap::from([(Sha256::digest(token).into(), "g-42".to_owned())]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    let client = Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let (state, server) = (ServerState::new(), server.parse()?);
    axum::serve(listener, router(Service { grants, tokens, state, server, client })).await?;
    Ok(())
}
