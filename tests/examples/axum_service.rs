//! The web service, in front of a server of `rmcp` over HTTP.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use toolgate::mcp::ServerState;
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{Access, AsyncGrants, Gate, Grants};
use tower::ServiceExt;

use crate::example_axum::{Service, router};
use crate::server::{POLICY, Server};

/// Returns the service in front of this address.
fn service(address: std::net::SocketAddr) -> (Router, AsyncGrants<InProcess<MemoryStore>>) {
    let grants = Grants::over(&Gate::builder().store_async(InProcess(MemoryStore::new())).build());
    grants.put_policy("agents", POLICY).unwrap();
    grants.give("g-42", Access::to("agents").on_any_server(), "ops").unwrap();
    let tokens = HashMap::from([(Sha256::digest("secret").into(), "g-42".to_owned())]);
    let server = format!("http://{address}/mcp").parse().unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    (router(Service { grants: grants.clone(), tokens, state: ServerState::new(), server, client }), grants)
}

async fn served() -> (Router, AsyncGrants<InProcess<MemoryStore>>, Server) {
    let server = Server::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (service, grants) = service(listener.local_addr().unwrap());
    let upstream = Router::new().route_service("/mcp", server.over_http());
    tokio::spawn(async move { axum::serve(listener, upstream).await });
    (service, grants, server)
}

fn request(token: Option<&str>, body: String) -> Request<Body> {
    let request = Request::post("/mcp")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2025-11-25");
    let request = token.into_iter().fold(request, |request, token| request.header("authorization", token));
    request.body(Body::from(body)).unwrap()
}

fn message(method: &str, params: &Value) -> Request<Body> {
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    request(Some("Bearer secret"), message.to_string())
}

fn calling(tool: &str) -> Request<Body> {
    message("tools/call", &json!({ "name": tool, "arguments": { "q": 1 } }))
}

async fn send(service: &Router, request: Request<Body>) -> (Response<()>, Value) {
    let (parts, body) = service.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    (Response::from_parts(parts, ()), serde_json::from_slice(&bytes).unwrap_or_default())
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test]
async fn a_request_needs_a_token_with_a_grant() {
    let (service, grants, server) = served().await;
    let body = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo"}}"#;
    for token in [None, Some("Bearer other"), Some("secret"), Some("Bearer ")] {
        let (response, _) = send(&service, request(token, body.to_owned())).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
    grants.revoke("g-42", "ops");
    for request in [calling("echo"), message("tools/list", &json!({}))] {
        assert_eq!(send(&service, request).await.0.status(), StatusCode::FORBIDDEN);
    }
    assert_eq!(server.calls(), 0);
}

#[tokio::test]
async fn lists_only_the_tools_of_the_policy() {
    let (service, ..) = served().await;
    let (response, answer) = send(&service, message("tools/list", &json!({}))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(tools.iter().map(|tool| &tool["name"]).collect::<Vec<_>>(), ["echo", "slow"]);
}

#[tokio::test]
async fn a_limit_says_when_to_try_again() {
    let (service, _, server) = served().await;
    let (_, answer) = send(&service, calling("echo")).await;
    assert_eq!(text(&answer), r#"{"q":1}"#);
    let (response, answer) = send(&service, calling("echo")).await;
    assert!(text(&answer).starts_with("[RATE LIMITED]"), "{answer}");
    let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait));
    let (response, answer) = send(&service, calling("secret")).await;
    assert!(text(&answer).starts_with("[POLICY DENIED]"), "{answer}");
    assert!(!response.headers().contains_key("retry-after"));
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn releases_what_did_not_run() {
    let (service, _, server) = served().await;
    for calls in 1..=2 {
        let (_, answer) = send(&service, calling("missing")).await;
        assert_eq!(answer["error"]["code"], -32601, "{answer}");
        assert_eq!(server.calls(), calls, "the quota was given back");
    }
    let (_, answer) = send(&service, calling("broken")).await;
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    let (_, answer) = send(&service, calling("broken")).await;
    assert!(text(&answer).starts_with("[RATE LIMITED]"), "the tool may have run: {answer}");
}

#[tokio::test]
async fn an_unreachable_server_costs_no_quota() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (service, _) = service(closed);
    for _ in 0..2 {
        let (_, answer) = send(&service, calling("echo")).await;
        assert!(answer["error"]["message"].as_str().unwrap().contains("was not made"), "{answer}");
    }
}

#[tokio::test]
async fn ambiguous_messages_are_not_forwarded() {
    let (service, _, server) = served().await;
    let body = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"secret","name":"echo"}}"#;
    let (response, answer) = send(&service, request(Some("Bearer secret"), body.to_owned())).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(answer["error"]["message"].as_str().unwrap().contains("a key appears twice"), "{answer}");
    assert_eq!(server.calls(), 0);
}

#[tokio::test]
async fn a_call_ends_after_its_client_has_left() {
    let (service, _, server) = served().await;
    let client = tokio::spawn({
        let service = service.clone();
        async move { send(&service, calling("slow")).await }
    });
    server.seen().started.notified().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    let (_, answer) = send(&service, calling("slow")).await;
    assert!(text(&answer).starts_with("[RATE LIMITED]"), "the first call is still in flight: {answer}");

    server.seen().go_on.notify_one();
    let ended = async {
        // Each call that passes waits to be let go.
        server.seen().go_on.notify_one();
        while text(&send(&service, calling("slow")).await.1).starts_with("[RATE LIMITED]") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
}
