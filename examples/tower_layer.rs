//! A `tower` layer in front of an MCP service over HTTP, here one of `rmcp`. It judges the calls in
//! the bodies of requests, and answers those that the policy refuses. It does not read the answers
//! of the service, so it releases nothing and filters no list: `cargo run --example tower_layer`

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use rmcp::model::{CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use toolgate::mcp::{Message, Refusal, RefusalFormat};
use toolgate::{Caller, Denial, Gate};
use tower::{Layer, Service};

const JSON: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];

#[derive(Clone)]
pub(crate) struct GateLayer(pub(crate) Gate);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.0.clone(), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response: IntoResponse, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // This service is ready. Its clone may not be.
        let clone = self.clone();
        let Self { gate, mut inner } = std::mem::replace(self, clone);
        Box::pin(async move {
            // Other methods open streams or end sessions: they call nothing.
            if request.method() != Method::POST {
                return Ok(inner.call(request).await?.into_response());
            }
            let (mut parts, body) = request.into_parts();
            let Ok(bytes) = to_bytes(body, 1 << 20).await else {
                return Ok(StatusCode::PAYLOAD_TOO_LARGE.into_response());
            };
            let (text, permit) = match Message::from_slice(&bytes) {
                Ok(Message::Other(other)) => (other.to_json(), None),
                Ok(Message::Call(call)) => {
                    // Set by a layer outside this one, which has authenticated the client.
                    let Some(caller) = parts.extensions.get::<Caller>() else {
                        return Ok(StatusCode::UNAUTHORIZED.into_response());
                    };
                    let decision = gate.check(&call.by(caller));
                    let wait = decision.retry_after_secs().map(|seconds| [(RETRY_AFTER, seconds.to_string())]);
                    match decision.into_result() {
                        Ok(permit) => (call.to_json(), Some(permit)),
                        Err(refused) => {
                            // Status 200, because clients show their model no other answer.
                            let answer = call.answer(&Refusal::from(&refused), RefusalFormat::Text).unwrap_or_default();
                            return Ok((wait, JSON, answer).into_response());
                        }
                    }
                }
                Err(error) => {
                    let answer = Refusal::from(&Denial::from(error)).to_answer_without_id(RefusalFormat::Text);
                    return Ok((StatusCode::BAD_REQUEST, JSON, answer).into_response());
                }
            };
            // The text that was judged may have another length than the one that came.
            parts.headers.remove(CONTENT_LENGTH);
            let response = inner.call(Request::from_parts(parts, Body::from(text))).await?.into_response();
            // The body keeps the permit until it has been sent, or the client has left.
            let keep = move |frame| (frame, &permit).0;
            Ok(response.map(|body| Body::new(body.map_frame(keep))))
        })
    }
}

/// A server whose tools answer with their own name.
struct Server;

impl rmcp::ServerHandler for Server {
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        Ok(CallToolResult::success(vec![ContentBlock::text(request.name)]).into())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gate = Gate::new(r#"{ "version": "1", "default": "deny", "tools": { "get_*": {} } }"#.parse()?);
    let server = StreamableHttpService::new(|| Ok(Server), LocalSessionManager::default().into(), Default::default());
    // The outer layer names the caller of every request, in place of authentication.
    let service = axum::Extension(Caller::new().grant("g-42")).layer(GateLayer(gate).layer(server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    axum::serve(listener, axum::Router::new().route_service("/mcp", service)).await?;
    Ok(())
}
