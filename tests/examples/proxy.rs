//! The proxy, between a client and a server of `rmcp`.

use std::time::Duration;

use rmcp::model::{CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest};
use rmcp::service::{PeerRequestOptions, RoleClient, RunningService, ServiceError};
use rmcp::{ServerHandler, ServiceExt};
use serde_json::json;
use toolgate::{Caller, Gate};

use crate::example_rmcp_proxy::Proxy;
use crate::server::{POLICY, Server};

type Client = RunningService<RoleClient, ()>;

/// Connects a client to a server, both in this process.
async fn connect(server: impl ServerHandler) -> Client {
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move { server.serve(far).await.unwrap().waiting().await });
    ().serve(near).await.unwrap()
}

/// Returns a client of a proxy, the server and the gate behind it, and the connection between the
/// proxy and the server, which lasts until it is dropped.
async fn proxied() -> (Client, Server, Gate, Client) {
    let server = Server::default();
    let upstream = connect(server.clone()).await;
    let gate = Gate::new(POLICY.parse().unwrap());
    let caller = Caller::new().grant("g-42").session("s-7");
    let client = connect(Proxy { gate: gate.clone(), caller, server: upstream.peer().clone() }).await;
    (client, server, gate, upstream)
}

fn named(tool: &'static str) -> CallToolRequestParams {
    CallToolRequestParams::new(tool).with_arguments(json!({ "q": 1 }).as_object().unwrap().clone())
}

async fn call(client: &Client, tool: &'static str) -> Result<CallToolResult, ServiceError> {
    client.peer().call_tool(named(tool)).await
}

fn text(result: &CallToolResult) -> &str {
    &result.content[0].as_text().unwrap().text
}

#[tokio::test]
async fn lists_only_the_tools_of_the_policy() {
    let (client, _server, _gate, _upstream) = proxied().await;
    let tools = client.list_all_tools().await.unwrap();
    assert_eq!(tools.iter().map(|tool| &*tool.name).collect::<Vec<_>>(), ["echo", "slow"]);
}

#[tokio::test]
async fn forwards_allowed_calls_alone() {
    let (client, server, _gate, _upstream) = proxied().await;
    let answer = call(&client, "echo").await.unwrap();
    assert_eq!((answer.is_error, text(&answer)), (Some(false), r#"{"q":1}"#));
    let limited = call(&client, "echo").await.unwrap();
    assert_eq!(limited.is_error, Some(true));
    assert!(text(&limited).starts_with("[RATE LIMITED]"), "{limited:?}");
    let denied = call(&client, "secret").await.unwrap();
    assert_eq!((denied.is_error, text(&denied)), (Some(true), "[POLICY DENIED] The tool `secret` is not available."));
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn releases_what_did_not_run() {
    let (client, server, _gate, _upstream) = proxied().await;
    for calls in 1..=2 {
        let error = call(&client, "missing").await.unwrap_err();
        assert!(matches!(error, ServiceError::McpError(error) if error.code.0 == -32601));
        assert_eq!(server.calls(), calls, "the quota was given back");
    }
    assert!(call(&client, "broken").await.is_err());
    let limited = call(&client, "broken").await.unwrap();
    assert!(text(&limited).starts_with("[RATE LIMITED]"), "the tool may have run: {limited:?}");
}

#[tokio::test]
async fn a_cancelled_call_ends_at_the_server_too() {
    let (client, server, gate, _upstream) = proxied().await;
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(named("slow")));
    let handle = client.peer().send_cancellable_request(request, PeerRequestOptions::no_options()).await.unwrap();
    server.seen().started.notified().await;
    let arguments = json!({ "q": 1 });
    let caller = Caller::new().grant("g-42").session("s-7");
    assert_eq!(gate.check(&caller.call("slow", &arguments)).as_str(), "rate_limited", "a call is in flight");

    handle.cancel(None).await.unwrap();
    let ended = async {
        server.seen().cancelled.notified().await;
        while !gate.check(&caller.call("slow", &arguments)).is_allowed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
}
