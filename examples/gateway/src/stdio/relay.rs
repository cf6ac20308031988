//! Both directions: the messages of a client and of its server, through one session and one gate.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::mpsc;
use toolgate::AsyncPermit;
use toolgate::mcp::{self, CallOutcome, FailedRequest, FromClient, FromServer, RequestId, Routed, Session};
use tracing::{Instrument, Span};

use super::lines::Line;
use crate::host::Host;
use crate::who::Who;

/// A request that is answered when the client has heard enough, from 2026-07-28 on. (A message that
/// only pretends to be one waits for longer, and holds nothing.)
const LISTEN: &str = r#""method":"subscriptions/listen""#;
/// The codes of JSON-RPC.
const INVALID_REQUEST: i32 = -32600;
const INTERNAL_ERROR: i32 = -32603;

/// Messages for a task that writes them. Those past the room in its channel wait here.
pub(super) struct Outbox<T> {
    sender: mpsc::Sender<T>,
    waiting: VecDeque<T>,
}

impl<T> Outbox<T> {
    /// Makes an outbox and what its task reads.
    pub(super) fn new() -> (Self, mpsc::Receiver<T>) {
        // Few: each message may be as long as the bound.
        let (sender, receiver) = mpsc::channel(4);
        (Self { sender, waiting: VecDeque::new() }, receiver)
    }

    fn push(&mut self, message: T) {
        match self.sender.try_send(message) {
            Err(mpsc::error::TrySendError::Full(message)) => self.waiting.push_back(message),
            // If the reader has gone, nobody needs the message.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    pub(super) fn is_full(&self) -> bool {
        !self.waiting.is_empty() || (self.sender.capacity() == 0 && !self.sender.is_closed())
    }

    /// Waits for room, and sends what waits.
    pub(super) async fn make_room(&mut self) {
        while let Ok(place) = self.sender.reserve().await {
            let Some(message) = self.waiting.pop_front() else { return };
            place.send(message);
        }
        self.waiting.clear();
    }
}

/// A message for the server, and its id if it is a request.
pub(super) type ToServer = (String, Option<RequestId>);

/// The connection of one client with one server.
pub(super) struct Relay {
    host: Arc<Host>,
    who: Who,
    session: Session<AsyncPermit>,
    /// The requests under way: when each is late, and its span.
    due: HashMap<RequestId, Due>,
    timeout: Option<Duration>,
    max_message: usize,
    pub(super) to_client: Outbox<String>,
    /// `None` once it is closed.
    pub(super) to_server: Option<Outbox<ToServer>>,
}

struct Due {
    until: Option<Instant>,
    is_call: bool,
    /// Ends with the request.
    _span: Span,
}

impl Relay {
    pub(super) fn new(
        host: Arc<Host>,
        who: Who,
        session: Session<AsyncPermit>,
        (timeout, max_message): (Option<Duration>, usize),
        (to_client, to_server): (Outbox<String>, Outbox<ToServer>),
    ) -> Self {
        let due = HashMap::new();
        Self { host, who, session, due, timeout, max_message, to_client, to_server: Some(to_server) }
    }

    /// Passes on a message of the client, if it may pass.
    pub(super) async fn take_from_client(&mut self, line: Line) {
        let message = match line {
            Line::Whole(message) => message,
            Line::TooLong(outline) => {
                tracing::warn!("refused a message of more than {} bytes", self.max_message);
                let why = format!("The message has more than {} bytes.", self.max_message);
                // The answer has the id if it is certain.
                let answer = outline.of_request().map(|id| error_answer(&id, INVALID_REQUEST, &why));
                return self.to_client.push(answer.unwrap_or_else(|| mcp::too_long(self.max_message)));
            }
        };
        match self.session.from_client(message.trim_ascii()) {
            FromClient::Forward { message, id, .. } => {
                let timeout = self.timeout.filter(|_| !message.contains(LISTEN));
                self.send(message, id, timeout, false, Span::none());
            }
            FromClient::Answer { answer, denial, .. } => {
                tracing::info!("refused a message: {}", denial.message());
                self.host.record_denial(&self.who, &denial);
                answer.into_iter().for_each(|answer| self.to_client.push(answer));
            }
            FromClient::Decide(call) => {
                let id = call.id().and_then(RequestId::of);
                let span = self.host.span("tools/call", Some(call.tool()), &self.who, id.as_ref(), "pipe");
                let decision = self.host.decide(&self.who, &call).instrument(span.clone()).await;
                match self.session.decided(call, decision) {
                    Routed::Forward { message, id, .. } => self.send(message, Some(id), self.timeout, true, span),
                    Routed::Answer { answer } => self.to_client.push(answer),
                }
            }
        }
    }

    fn send(&mut self, message: String, id: Option<RequestId>, timeout: Option<Duration>, is_call: bool, span: Span) {
        if let Some(id) = &id {
            let until = timeout.map(|timeout| Instant::now() + timeout);
            self.due.insert(id.clone(), Due { until, is_call, _span: span });
        }
        if let Some(server) = &mut self.to_server {
            server.push((message, id));
        }
    }

    /// Passes on a message of the server.
    pub(super) async fn take_from_server(&mut self, line: Line) {
        let message = match line {
            Line::Whole(message) => message,
            Line::TooLong(outline) => {
                let why = format!("a message of the server has more than {} bytes", self.max_message);
                tracing::warn!("{why}: dropped");
                // A request that it answers has ended.
                let Some(id) = outline.of_answer() else { return };
                error_answer(&id, INTERNAL_ERROR, &why).as_bytes().into()
            }
        };
        let filter = |result: &mut Value| self.host.filter_tools_list(&self.who, result);
        match self.session.from_server(message.trim_ascii(), filter) {
            FromServer::Forward { message, answers, ended, .. } => {
                answers.and_then(|id| self.due.remove(&id));
                let message = Cow::into_owned(message);
                // Before the client learns it: its next call may need what this one held.
                if let Some(ended) = ended {
                    self.host.conclude(ended).await;
                }
                self.to_client.push(message);
            }
            FromServer::Drop { why } => tracing::warn!("dropped a message of the server: {why}"),
        }
    }

    /// Answers the requests that are late, and notifies the server of the calls among them.
    pub(super) async fn give_up_late(&mut self) {
        let now = Instant::now();
        let late: Vec<_> = self.due.extract_if(|_, due| due.until.is_some_and(|until| until <= now)).collect();
        let why = format!("the server has not answered within {} seconds", self.timeout.unwrap_or_default().as_secs());
        for (id, due) in late {
            // If the server does not read, it need not learn it.
            if let (true, Some(server)) = (due.is_call, &self.to_server) {
                let reason = r#""reason":"it has taken too long""#;
                let params = format!(r#"{{"requestId":{id},{reason}}}"#);
                let cancel = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#);
                let _ = server.sender.try_send((cancel, None));
            }
            let failed = self.session.give_up(&id, &why);
            self.conclude(failed).await;
        }
    }

    /// Answers a request that could not be sent.
    pub(super) async fn fail(&mut self, id: &RequestId, outcome: CallOutcome) {
        self.due.remove(id);
        let failed = self.session.fail(id, outcome, "the server has gone");
        self.conclude(failed).await;
    }

    /// Answers all requests that are under way: there will be no other answer.
    pub(super) async fn give_up_all(&mut self, why: &str) {
        self.due.clear();
        for failed in self.session.fail_all(CallOutcome::Unclear(None), why) {
            self.conclude(Some(failed)).await;
        }
    }

    async fn conclude(&mut self, failed: Option<FailedRequest<AsyncPermit>>) {
        let Some(failed) = failed else { return };
        if let Some(ended) = failed.ended {
            self.host.conclude(ended).await;
        }
        failed.answer.into_iter().for_each(|answer| self.to_client.push(answer));
    }

    /// Returns whether requests wait for an answer.
    pub(super) fn is_at_work(&self) -> bool {
        self.session.under_way() > 0
    }
}

fn error_answer(id: &str, code: i32, why: &str) -> String {
    let why = Value::from(why);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{why}}}}}"#)
}
