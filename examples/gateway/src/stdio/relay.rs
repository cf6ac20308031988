//! Both directions: the messages of a client and of its server, through one connection.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{Receiver, Sender, WeakSender};
use tokio_util::codec::FramedRead;
use toolgate::mcp::{self, CallOutcome, RequestId};
use tracing::Span;

use super::lines::{Line, Lines};
use crate::link::{GRACE_OF_CANCELLED, LISTEN, Link, Next};

/// The codes of JSON-RPC.
const INVALID_REQUEST: i32 = -32600;
const INTERNAL_ERROR: i32 = -32603;
/// How often late requests are looked for.
const TICK: Duration = Duration::from_millis(100);

/// A message for the server, and its id if it is a request.
pub(super) type ToServer = (String, Option<RequestId>);

/// The connection of one client with one server.
pub(super) struct Relay {
    pub(super) link: Link,
    /// The requests that can be late.
    due: Mutex<HashMap<RequestId, Due>>,
    limits: Limits,
    to_client: Sender<String>,
    /// Gone once the client has closed its end.
    to_server: WeakSender<ToServer>,
}

/// The bounds of messages and requests.
pub(super) struct Limits {
    pub(super) timeout: Option<Duration>,
    /// The time for a request that reports progress.
    pub(super) longest_timeout: Duration,
    pub(super) max_message: usize,
}

struct Due {
    begun: Instant,
    until: Option<Instant>,
    is_call: bool,
    is_cancelled: bool,
    /// Ends with the request.
    _span: Span,
}

impl Due {
    /// The client does not wait any more. The server may not answer.
    fn cancel(&mut self) {
        let soon = Instant::now() + GRACE_OF_CANCELLED;
        self.is_cancelled = true;
        self.until = Some(self.until.map_or(soon, |until| until.min(soon)));
    }

    /// The server has reported progress.
    fn extend(&mut self, timeout: Duration, longest: Duration) {
        if let (Some(until), false) = (self.until, self.is_cancelled) {
            self.until = Some(until.max((Instant::now() + timeout).min(self.begun + longest)));
        }
    }
}

impl Relay {
    pub(super) fn new(
        link: Link,
        limits: Limits,
        to_client: Sender<String>,
        to_server: WeakSender<ToServer>,
    ) -> Arc<Self> {
        Arc::new(Self { link, due: Mutex::default(), limits, to_client, to_server })
    }

    /// Passes on the messages of the client until it closes its end. Returns the way to the server,
    /// whose standard input closes with it.
    pub(super) async fn pass_from_client(
        self: Arc<Self>,
        mut lines: FramedRead<impl AsyncRead + Unpin, Lines>,
        to_server: Sender<ToServer>,
    ) -> Sender<ToServer> {
        while let Some(Ok(line)) = lines.next().await {
            let message = match line {
                Line::Whole(message) => message,
                Line::TooLong(outline) => {
                    let most = self.limits.max_message;
                    tracing::warn!("refused a message of more than {most} bytes");
                    let why = format!("The message has more than {most} bytes.");
                    // The answer has the id if it is certain.
                    let answer = outline.of_request().map(|id| error_answer(&id, INVALID_REQUEST, &why));
                    self.tell(Some(answer.unwrap_or_else(|| mcp::too_long(most)))).await;
                    continue;
                }
            };
            match self.link.take_from_client(&self.link.who, message.trim_ascii(), None).await {
                Next::Forward { message, id, method, cancels, span, .. } => {
                    if let Some(id) = &id {
                        let timeout = self.limits.timeout.filter(|_| method != LISTEN);
                        let begun = Instant::now();
                        let until = timeout.map(|timeout| begun + timeout);
                        let is_call = method == "tools/call";
                        let due = Due { begun, until, is_call, is_cancelled: false, _span: span };
                        self.due.lock().insert(id.clone(), due);
                    }
                    cancels.and_then(|id| self.due.lock().get_mut(&id).map(Due::cancel));
                    // Whoever writes them takes all.
                    let _ = to_server.send((message, id)).await;
                }
                Next::Answer { answer, .. } => self.tell(answer).await,
            }
        }
        to_server
    }

    /// Passes on the messages of the server until it closes its end.
    pub(super) async fn pass_from_server(self: Arc<Self>, mut lines: FramedRead<impl AsyncRead + Unpin, Lines>) {
        while let Some(Ok(line)) = lines.next().await {
            let message = match line {
                Line::Whole(message) => message,
                Line::TooLong(outline) => {
                    let why = format!("a message of the server has more than {} bytes", self.limits.max_message);
                    tracing::warn!("{why}: dropped");
                    // A request that it answers has ended.
                    let Some(id) = outline.of_answer() else { continue };
                    BytesMut::from(error_answer(&id, INTERNAL_ERROR, &why).as_str())
                }
            };
            let passed = self.link.take_from_server(message.trim_ascii(), &Span::none()).await;
            passed.answers.and_then(|id| self.due.lock().remove(&id));
            if let (Some(id), Some(timeout)) = (&passed.progress, self.limits.timeout)
                && let Some(due) = self.due.lock().get_mut(id)
            {
                due.extend(timeout, self.limits.longest_timeout);
            }
            self.tell(passed.message.map(Cow::into_owned)).await;
        }
    }

    /// Writes messages for the server until there are no more. Answers each request that could not
    /// be sent.
    pub(super) async fn write_server(
        self: Arc<Self>,
        server: impl AsyncWrite + Unpin,
        mut messages: Receiver<ToServer>,
    ) {
        let mut server = Some(server);
        while let Some((mut message, id)) = messages.recv().await {
            message.push('\n');
            let sent = match &mut server {
                Some(server) => send(server, message.as_bytes()).await,
                None => Err(CallOutcome::NotRun),
            };
            if let Err(outcome) = sent {
                server = None;
                if let Some(id) = id {
                    self.due.lock().remove(&id);
                    self.tell(self.link.fail(&id, outcome, "the server has gone").await).await;
                }
            }
        }
    }

    /// Answers the requests that are late, and notifies the server of the calls among them.
    pub(super) async fn give_up_late(self: Arc<Self>) {
        let why =
            format!("the server has not answered within {} seconds", self.limits.timeout.unwrap_or_default().as_secs());
        loop {
            tokio::time::sleep(TICK).await;
            let is_late = |due: &mut Due| due.until.is_some_and(|until| until <= Instant::now());
            let late: Vec<_> = self.due.lock().extract_if(|_, due| is_late(due)).collect();
            for (id, due) in late {
                // If the server does not read, it need not learn it.
                if let Some(to_server) = self.to_server.upgrade().filter(|_| due.is_call && !due.is_cancelled) {
                    let params = format!(r#"{{"requestId":{id},"reason":"it has taken too long"}}"#);
                    let cancel = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#);
                    let _ = to_server.try_send((cancel, None));
                }
                self.tell(self.link.give_up(&id, &why).await).await;
            }
        }
    }

    /// Notifies the client when a change of the policy has changed its list of tools.
    pub(super) async fn report_changes(self: Arc<Self>) {
        let mut listed = self.link.host.policy_of(&self.link.who);
        let mut changed = self.link.host.changed.subscribe();
        while changed.changed().await.is_ok() {
            for (_, message) in self.link.list_changed(&mut listed).await {
                self.tell(Some(message)).await;
            }
        }
    }

    /// Answers all requests that are under way: there will be no other answer.
    pub(super) async fn give_up_all(&self, why: &str) {
        for error in self.link.fail_all(why).await {
            self.tell(Some(error)).await;
        }
    }

    /// Sends the client a message. If its reader has gone, nobody needs it.
    async fn tell(&self, message: Option<String>) {
        if let Some(message) = message {
            let _ = self.to_client.send(message).await;
        }
    }
}

/// Writes the whole message. A server that has read nothing of it has done nothing; if it has read
/// a part, nobody knows.
async fn send(server: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> Result<(), CallOutcome> {
    let (mut outcome, mut rest) = (CallOutcome::NotRun, message);
    while !rest.is_empty() {
        match server.write(rest).await {
            Ok(0) | Err(_) => return Err(outcome),
            Ok(written) => {
                rest = rest.get(written..).unwrap_or_default();
                outcome = CallOutcome::Unclear(None);
            }
        }
    }
    server.flush().await.map_err(|_| outcome)
}

fn error_answer(id: &str, code: i32, why: &str) -> String {
    let why = Value::from(why);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{why}}}}}"#)
}
