//! A small MCP server that speaks streamable HTTP and answers at once, to stand behind a gateway.
//!
//! ```text
//! cargo run --release --example mcp_http_upstream -- --listen 127.0.0.1:9000 [--json] [--stateless] [--calls FILE]
//! ```
//!
//! It answers with streams of events; with `--json`, with plain JSON where a tool needs no stream. `--stateless` keeps no sessions, and
//! `--calls` writes each call that reaches it into a file, a line each.
//!
//! Its tools: `echo`, `add`, `sleep` (for so many `ms`, with progress), `large` (so many `bytes`), `fail` (an error of the tool),
//! `unknown_method` (an error of JSON-RPC), `notify` (says something on the stream that listens), `later` (answers on the stream that
//! takes up where the first has ended), `busy` (status 503), `forgetful` (status 404), `crash` (breaks off in the middle), `odd` (answers
//! with what is no message), `never` (is never answered), `delete_file` (pretends to).

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const USAGE: &str = "usage: mcp_http_upstream --listen ADDRESS:PORT [--json] [--stateless] [--calls FILE]";
const VERSIONS: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];
const TOOLS: [&str; 14] = [
    "echo",
    "add",
    "sleep",
    "large",
    "fail",
    "unknown_method",
    "notify",
    "later",
    "busy",
    "forgetful",
    "crash",
    "odd",
    "never",
    "delete_file",
];
/// The longest message that it takes.
const LONGEST: usize = 64 << 20;

/// A part of an answer; an error breaks the connection off.
type Piece = Result<Bytes, io::Error>;

enum Reply {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Piece>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(match &mut *self {
            Self::Whole(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Self::Stream(pieces) => ready!(pieces.poll_recv(context)).map(|piece| piece.map(Frame::data)),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

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
    /// Answers that wait to be asked for, each behind the event that it follows.
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
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        let server = Arc::clone(&server);
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        // A client that breaks off is its own affair.
        tokio::spawn(
            async move { http1::Builder::new().serve_connection(TokioIo::new(client), service).await.is_ok() },
        );
    }
}

impl Server {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        let (head, mut body) = request.into_parts();
        let of_header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let session = of_header("mcp-session-id");
        let is_known = |id: &String| self.stateless || self.sessions.lock().contains_key(id);
        if head.uri.path() != "/mcp" || session.as_ref().is_some_and(|id| !is_known(id)) {
            return status(StatusCode::NOT_FOUND);
        }
        let session = session.unwrap_or_default();
        match head.method {
            Method::POST => {}
            Method::GET => return self.listen(&session, of_header("last-event-id")),
            Method::DELETE => {
                let known = self.sessions.lock().remove(&session).is_some();
                return status(if known { StatusCode::NO_CONTENT } else { StatusCode::METHOD_NOT_ALLOWED });
            }
            _ => return status(StatusCode::METHOD_NOT_ALLOWED),
        }
        let Some(message) = read(&mut body).await else { return status(StatusCode::BAD_REQUEST) };
        let method = message.get("method").and_then(Value::as_str);
        let Some(id) = message.get("id").filter(|_| method.is_some()) else {
            self.hear(&session, &message);
            return status(StatusCode::ACCEPTED);
        };
        match method {
            Some("tools/call") => self.call(session, id, &message).await,
            Some("initialize") => self.initialize(id, &message),
            Some("ping") => self.reply(&result(id, &json!({}))),
            Some("tools/list") => {
                let tools: Vec<_> =
                    TOOLS.iter().map(|name| json!({ "name": name, "inputSchema": { "type": "object" } })).collect();
                self.reply(&result(id, &json!({ "tools": tools })))
            }
            _ => self.reply(&error(id, -32601, "no such method")),
        }
    }

    fn initialize(&self, id: &Value, message: &Value) -> Response<Reply> {
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

    fn listen(&self, session: &str, after: Option<String>) -> Response<Reply> {
        let mut sessions = self.sessions.lock();
        let Some(session) = sessions.get_mut(session) else { return status(StatusCode::METHOD_NOT_ALLOWED) };
        let (listener, stream) = mpsc::channel(64);
        let _ = listener.try_send(Ok(": here\n\n".into()));
        match after.and_then(|after| session.later.remove(&after)) {
            // What was asked for, and no more.
            Some(answer) => drop(listener.try_send(Ok(answer.into()))),
            None => session.listener = Some(listener),
        }
        stream_of(stream)
    }

    async fn call(self: Arc<Self>, session: String, id: &Value, message: &Value) -> Response<Reply> {
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
                let bytes = usize::try_from(number("bytes")).unwrap_or_default().min(LONGEST);
                self.reply(&text(id, &"x".repeat(bytes)))
            }
            "delete_file" => self.reply(&text(id, "deleted")),
            "fail" => {
                let content = json!([{ "type": "text", "text": "it failed" }]);
                self.reply(&result(id, &json!({ "content": content, "isError": true })))
            }
            "busy" => status(StatusCode::SERVICE_UNAVAILABLE),
            "forgetful" => status(StatusCode::NOT_FOUND),
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
    fn sleep(self: Arc<Self>, session: String, id: &Value, message: &Value, millis: u64) -> Response<Reply> {
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

    fn reply(&self, message: &str) -> Response<Reply> {
        let (kind, bytes) = match self.json {
            true => ("application/json", message.to_owned()),
            false => ("text/event-stream", format!("event: message\ndata: {message}\n\n")),
        };
        let mut response = Response::new(Reply::Whole(Some(bytes.into())));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

fn stream_of(stream: mpsc::Receiver<Piece>) -> Response<Reply> {
    let mut response = Response::new(Reply::Stream(stream));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

fn status(status: StatusCode) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(None));
    *response.status_mut() = status;
    response
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

async fn read(body: &mut Incoming) -> Option<Value> {
    let mut all = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
        if let Ok(bytes) = frame.ok()?.into_data() {
            all.extend_from_slice(&bytes);
        }
        if all.len() > LONGEST {
            return None;
        }
    }
    serde_json::from_slice(&all).ok()
}
