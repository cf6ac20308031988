//! The layer, around a service of `rmcp`.

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use toolgate::{Caller, Gate};
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt};

use crate::example_tower_layer::GateLayer;
use crate::server::{POLICY, Server};

type Service = BoxCloneService<Request<Body>, Response, std::convert::Infallible>;

fn layered() -> (Service, Service, Server) {
    let server = Server::default();
    let anonymous = GateLayer(Gate::new(POLICY.parse().unwrap())).layer(server.over_http());
    let known = Extension(Caller::new().grant("g-42")).layer(anonymous.clone());
    (BoxCloneService::new(known), BoxCloneService::new(anonymous), server)
}

fn post(body: String) -> Request<Body> {
    let request = Request::post("/mcp")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("content-length", body.len())
        .header("mcp-protocol-version", "2025-11-25");
    request.body(Body::from(body)).unwrap()
}

fn calling(tool: &str) -> Request<Body> {
    let params = json!({ "name": tool, "arguments": { "q": 1 } });
    post(json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params }).to_string())
}

async fn send(service: &Service, request: Request<Body>) -> Response {
    service.clone().oneshot(request).await.unwrap()
}

async fn json(response: Response) -> Value {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{bytes:?}"))
}

#[tokio::test]
async fn forwards_allowed_calls_alone() {
    let (service, _, server) = layered();
    let answer = json(send(&service, calling("echo")).await).await;
    assert_eq!(answer["result"]["content"][0]["text"], r#"{"q":1}"#, "{answer}");

    let limited = send(&service, calling("echo")).await;
    let wait: u64 = limited.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait));
    let limited = json(limited).await;
    assert!(limited["result"]["content"][0]["text"].as_str().unwrap().starts_with("[RATE LIMITED]"), "{limited}");

    let denied = json(send(&service, calling("secret")).await).await;
    assert_eq!((&denied["id"], &denied["result"]["isError"]), (&json!(7), &json!(true)), "{denied}");
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn other_messages_pass() {
    let (service, ..) = layered();
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/list" }).to_string();
    let answer = json(send(&service, post(body)).await).await;
    assert_eq!(answer["result"]["tools"].as_array().map(Vec::len), Some(3), "{answer}");
}

#[tokio::test]
async fn calls_without_a_caller_do_not_pass() {
    let (_, anonymous, server) = layered();
    assert_eq!(send(&anonymous, calling("echo")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.calls(), 0);
}

#[tokio::test]
async fn ambiguous_and_long_messages_do_not_pass() {
    let (service, _, server) = layered();
    let twice = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"secret","name":"echo"}}"#;
    assert_eq!(send(&service, post(twice.to_owned())).await.status(), StatusCode::BAD_REQUEST);
    let long = format!(r#"{{"pad":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(send(&service, post(long)).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(server.calls(), 0);
}

#[tokio::test]
async fn a_call_is_in_flight_until_its_answer_is_sent() {
    let (service, _, server) = layered();
    server.seen().go_on.notify_one();
    let answer = send(&service, calling("slow")).await;
    let limited = json(send(&service, calling("slow")).await).await;
    assert!(limited["result"]["content"][0]["text"].as_str().unwrap().starts_with("[RATE LIMITED]"), "{limited}");
    drop(answer);
    server.seen().go_on.notify_one();
    let passed = json(send(&service, calling("slow")).await).await;
    assert_eq!(passed["result"]["content"][0]["text"], r#"{"q":1}"#, "{passed}");
}
