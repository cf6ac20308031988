//! A small MCP server over streamable HTTP, for the tests of the gateway.
//!
//! ```text
//! cargo run --example mcp_http_upstream -- --listen 127.0.0.1:9000 [--json] [--stateless] [--calls FILE]
//! ```
//!
//! It answers with streams of events; with `--json`, with one JSON text wherever that is enough.
//! With `--stateless` it keeps no sessions. `--calls` writes each call that arrives to a file.
//!
//! Its tools: `echo`, `add`, `sleep` (with progress, if asked for), `large` (a result of this many
//! bytes), `fail` (an error of the tool), `unknown_method` (an error of JSON-RPC), `notify` (a
//! message on the stream that listens), `later` (the answer comes on another stream, after this one
//! has ended), `busy` (status 503), `forgetful` (status 404), `crash` (breaks off in the middle),
//! `odd` (answers with something that is not a message), `never` (is never answered), `delete_file`
//! (pretends to).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const USAGE: &str = "usage: mcp_http_upstream --listen ADDRESS:PORT [--json] [--stateless] [--calls FILE]";
const VERSIONS: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];
const TOOLS: &str = "echo add sleep large fail unknown_method notify later busy forgetful crash odd never delete_file";
/// The longest message that it takes.
const MAX_BYTES: usize = 64 << 20;

/// A part of an answer; an error breaks the connection off.
type Piece = Result<Bytes, io::Error>;

#[derive(Default)]
struct Server {
    json: bool,
    stateless: bool,
    calls: Option<Mutex<File>>,
    sessions: Mutex<HashMap<String, Session>>,
    last_session: AtomicU64,
}

#[derive(Default)]
struct Session {
    /// The stream on which the client listens.
    listener: Option<mpsc::Sender<Piece>>,
    /// Answers that can be asked for, each by the event that it follows.
    later: HashMap<String, String>,
    /// Calls that can be cancelled.
    under_way: HashMap<String, tokio::task::AbortHandle>,
}

fn main() -> ExitCode {
    let mut server = Server::default();
    let mut listen = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--listen" => listen = words.next(),
            "--json" => server.json = true,
            "--stateless" => server.stateless = true,
            "--calls" => server.calls = words.next().and_then(|file| File::create(file).ok()).map(Mutex::new),
            _ => listen = None,
        }
    }
    let Some(listen) = listen else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(&listen, Arc::new(server)))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{listen}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(listen: &str, server: Arc<Server>) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    eprintln!("listening on http://{}/mcp", listener.local_addr()?);
    let routes = post(message).get(listen_to).delete(end);
    let app = Router::new().route("/mcp", routes).with_state(server);
    axum::serve(listener.tap_io(|client| drop(client.set_nodelay(true))), app).await
}

/// Returns a header as text.
fn header(head: &HeaderMap, name: &str) -> Option<String> {
    head.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

async fn message(State(server): State<Arc<Server>>, head: HeaderMap, body: Body) -> Response {
    let Ok(session) = server.session(&head) else { return StatusCode::NOT_FOUND.into_response() };
    let body = axum::body::to_bytes(body, MAX_BYTES).await.ok();
    let Some(message) = body.and_then(|body| serde_json::from_slice::<Value>(&body).ok()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let method = message.get("method").and_then(Value::as_str);
    let Some(id) = message.get("id").filter(|_| method.is_some()) else {
        server.hear(&session, &message);
        return StatusCode::ACCEPTED.into_response();
    };
    match method {
        Some("tools/call") => server.call(session, id, &message).await,
        Some("initialize") => server.initialize(id, &message),
        Some("ping") => server.reply(&result(id, &json!({}))),
        Some("tools/list") => {
            let tool = |name| json!({ "name": name, "inputSchema": { "type": "object" } });
            server.reply(&result(id, &json!({ "tools": TOOLS.split(' ').map(tool).collect::<Vec<_>>() })))
        }
        _ => server.reply(&error(id, -32601, "no such method")),
    }
}

/// Opens the stream on which the server sends messages unasked, or continues an earlier one.
async fn listen_to(State(server): State<Arc<Server>>, head: HeaderMap) -> Response {
    let Ok(session) = server.session(&head) else { return StatusCode::NOT_FOUND.into_response() };
    let mut sessions = server.sessions.lock();
    let Some(session) = sessions.get_mut(&session) else { return StatusCode::METHOD_NOT_ALLOWED.into_response() };
    let (listener, stream) = mpsc::channel(64);
    let _ = listener.try_send(Ok(": here\n\n".into()));
    match header(&head, "last-event-id").and_then(|after| session.later.remove(&after)) {
        // Only what was asked for.
        Some(answer) => drop(listener.try_send(Ok(answer.into()))),
        None => session.listener = Some(listener),
    }
    stream_of(stream)
}

async fn end(State(server): State<Arc<Server>>, head: HeaderMap) -> StatusCode {
    let Ok(session) = server.session(&head) else { return StatusCode::NOT_FOUND };
    let known = server.sessions.lock().remove(&session).is_some();
    if known { StatusCode::NO_CONTENT } else { StatusCode::METHOD_NOT_ALLOWED }
}

impl Server {
    /// Returns the session that a request names, or an empty text. An unknown one is an error.
    fn session(&self, head: &HeaderMap) -> Result<String, ()> {
        let session = header(head, "mcp-session-id").unwrap_or_default();
        let is_known = session.is_empty() || self.stateless || self.sessions.lock().contains_key(&session);
        if is_known { Ok(session) } else { Err(()) }
    }

    fn initialize(&self, id: &Value, message: &Value) -> Response {
        let asked = message.pointer("/params/protocolVersion").and_then(Value::as_str);
        let version = VERSIONS.into_iter().find(|version| Some(*version) == asked).unwrap_or("2025-06-18");
        let mut response = self.reply(&result(
            id,
            &json!({
                "protocolVersion": version,
                "capabilities": { "tools": {}, "logging": {} },
                "serverInfo": { "name": "mcp_http_upstream", "version": "1" },
            }),
        ));
        if !self.stateless {
            let number = self.last_session.fetch_add(1, Ordering::Relaxed);
            let session = format!("session-{}-{number}", std::process::id());
            if let Ok(header) = session.parse() {
                response.headers_mut().insert("mcp-session-id", header);
            }
            self.sessions.lock().insert(session, Session::default());
        }
        response
    }

    /// A notification, or an answer of the client.
    fn hear(&self, session: &str, message: &Value) {
        if message.get("method").and_then(Value::as_str) == Some("notifications/cancelled") {
            let id = message.pointer("/params/requestId").map(Value::to_string).unwrap_or_default();
            if let Some(call) = self.sessions.lock().get_mut(session).and_then(|session| session.under_way.remove(&id))
            {
                call.abort();
            }
        }
    }

    async fn call(self: Arc<Self>, session: String, id: &Value, message: &Value) -> Response {
        let arguments = message.pointer("/params/arguments").cloned().unwrap_or_default();
        let tool = message.pointer("/params/name").and_then(Value::as_str).unwrap_or_default();
        if let Some(calls) = &self.calls {
            let _ = calls.lock().write_all(format!("{tool} {arguments}\n").as_bytes());
        }
        let number = |name: &str| arguments.get(name).and_then(Value::as_u64).unwrap_or_default();
        match tool {
            "echo" => self.reply(&text(id, arguments.get("text").and_then(Value::as_str).unwrap_or_default())),
            "add" => self.reply(&text(id, &number("a").saturating_add(number("b")).to_string())),
            "large" => {
                let bytes = usize::try_from(number("bytes")).unwrap_or_default().min(MAX_BYTES);
                self.reply(&text(id, &"x".repeat(bytes)))
            }
            "delete_file" => self.reply(&text(id, "deleted")),
            "fail" => {
                let content = json!([{ "type": "text", "text": "it failed" }]);
                self.reply(&result(id, &json!({ "content": content, "isError": true })))
            }
            "busy" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            "forgetful" => StatusCode::NOT_FOUND.into_response(),
            "odd" => self.reply("<p>Bad Gateway</p>"),
            "never" => std::future::pending().await,
            "unknown_method" => self.reply(&error(id, -32601, "no such tool")),
            "notify" => {
                let said = json!({ "jsonrpc": "2.0", "method": "notifications/message",
                                   "params": { "level": "info", "data": arguments.get("text") } });
                let listener = self.sessions.lock().get(&session).and_then(|session| session.listener.clone());
                if let Some(listener) = listener {
                    let _ = listener.try_send(Ok(format!("id: n1\nevent: message\ndata: {said}\n\n").into()));
                }
                self.reply(&text(id, "notified"))
            }
            "crash" => {
                let (pieces, stream) = mpsc::channel(4);
                let _ = pieces.try_send(Ok("event: message\ndata: {\"jsonrpc\":\"2.0\",".into()));
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    pieces.send(Err(io::Error::other("crash"))).await.is_ok()
                });
                stream_of(stream)
            }
            "later" => {
                let (pieces, stream) = mpsc::channel(4);
                let event = format!("later-{id}");
                let _ = pieces.try_send(Ok(format!("id: {event}\nretry: 100\ndata: \n\n").into()));
                let answer = format!("id: {event}-1\nevent: message\ndata: {}\n\n", text(id, "here it is"));
                if let Some(session) = self.sessions.lock().get_mut(&session) {
                    session.later.insert(event, answer);
                }
                stream_of(stream)
            }
            "sleep" => self.sleep(session, id, message, number("ms")),
            _ => self.reply(&error(id, -32602, "no such tool")),
        }
    }

    /// Ten steps, each with its progress if anybody wants to know.
    fn sleep(self: Arc<Self>, session: String, id: &Value, message: &Value, millis: u64) -> Response {
        let (pieces, stream) = mpsc::channel(4);
        let (key, last) = (id.to_string(), text(id, "slept"));
        let token = message.pointer("/params/_meta/progressToken").cloned();
        let (server, of, own) = (Arc::clone(&self), session.clone(), key.clone());
        let sleeping = tokio::spawn(async move {
            for step in 1..=10 {
                tokio::time::sleep(Duration::from_millis(millis / 10)).await;
                if let Some(token) = &token {
                    let params = json!({ "progressToken": token, "progress": step, "total": 10 });
                    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
                    let _ = pieces.send(Ok(format!("event: message\ndata: {progress}\n\n").into())).await;
                }
            }
            let _ = pieces.send(Ok(format!("event: message\ndata: {last}\n\n").into())).await;
            if let Some(session) = server.sessions.lock().get_mut(&of) {
                session.under_way.remove(&own);
            }
        });
        if let Some(session) = self.sessions.lock().get_mut(&session) {
            session.under_way.insert(key, sleeping.abort_handle());
        }
        stream_of(stream)
    }

    fn reply(&self, message: &str) -> Response {
        let kind = if self.json { "application/json" } else { "text/event-stream" };
        let body = if self.json { message.to_owned() } else { format!("event: message\ndata: {message}\n\n") };
        ([(CONTENT_TYPE, kind)], body).into_response()
    }
}

fn stream_of(stream: mpsc::Receiver<Piece>) -> Response {
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(ReceiverStream::new(stream))).into_response()
}

fn result(id: &Value, result: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
}

fn error(id: &Value, code: i32, message: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string()
}

fn text(id: &Value, text: &str) -> String {
    result(id, &json!({ "content": [{ "type": "text", "text": text }] }))
}
