//! One MCP connection through a gateway, in both directions.

mod routing;
mod text;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};

use serde::Deserialize;
use serde_json::Value;

use super::{Call, CallOutcome, MalformedMessage, Message, Refusal, RefusalFormat, RequestId};
use crate::decision::permit::Permit;
use crate::decision::{Decision, Denial};
use crate::json::object::Object;
use text::{Envelope, answerable, error, read_list};

pub use routing::{FailedRequest, FinishedCall, FromClient, FromServer, Routed};

/// The maximum number of pending requests, so that a silent server cannot fill the memory.
const MAX_PENDING: usize = 10_000;
/// The maximum length of a request's id in bytes. It is kept until the server has answered.
const MAX_ID_BYTES: usize = 1_024;
/// The number of answers that are remembered, to recognise them when a stream is resumed.
const MAX_ANSWERED: usize = 256;
/// The number of tools with an `outputSchema` that are remembered. Past it, every tool counts as
/// having one.
const MAX_OUTPUT_SCHEMAS: usize = 10_000;
/// The maximum length in bytes of a tool's name to be remembered. A tool with a longer name counts
/// as having a schema.
const MAX_NAME_BYTES: usize = 1_024;

/// The codes of JSON-RPC for a text that is not JSON, and a message that is not a valid request.
const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
/// The server did not answer. Next to the codes of [`RefusalFormat::Error`], in the range that
/// JSON-RPC reserves for servers.
const NOT_ANSWERED: i32 = -32053;

/// One MCP connection through a gateway: it tracks requests until they are answered, ends the
/// permits of calls, and filters lists.
///
/// A session does no I/O, reads no clock and calls no gate. The host moves the bytes and calls the
/// gate, so a session works with every transport, with or without a runtime. Use one for each
/// connection (stdio) or MCP session (streamable HTTP), behind a lock if several threads move
/// messages.
///
/// ```
/// use toolgate::mcp::{Routed, FromClient, FromServer, Session, filter_tools_list};
/// use toolgate::{Gate, Policy};
///
/// let policy: Policy = r#"{ "version": "1", "default": "deny", "tools": { "get_*": {} } }"#.parse()?;
/// let gate = Gate::new(policy);
/// let mut session = Session::new();
///
/// // A message of the client is forwarded, answered, or decided first.
/// let text = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"drop_user"}}"#;
/// let FromClient::Decide(call) = session.from_client(text) else { panic!("a call") };
/// let decision = gate.check(&call.tool_call().grant("g-42"));
/// let Routed::Answer { answer, .. } = session.decided(call, decision) else { panic!("refused") };
/// assert!(answer.contains("POLICY DENIED"));
///
/// // A message of the server is forwarded. Lists are filtered; an answer to a call ends its permit.
/// let text = br#"{"jsonrpc":"2.0","id":"l","method":"tools/list"}"#;
/// let FromClient::Forward { .. } = session.from_client(text) else { panic!("no call") };
/// let text = br#"{"jsonrpc":"2.0","id":"l","result":{"tools":[{"name":"get_user"},{"name":"drop_user"}]}}"#;
/// let list = session.from_server(text, |result| filter_tools_list(gate.policy().as_ref(), result));
/// let FromServer::Forward { message, .. } = list else { panic!("an answer") };
/// assert!(message.contains("get_user") && !message.contains("drop_user"));
/// # Ok::<(), toolgate::PolicyError>(())
/// ```
///
/// A call that the client cancels stays pending until the server answers it or the host [gives it
/// up](Self::give_up). The server may still be working on it, and the client that cancels
/// is the one that is limited.
#[derive(Debug)]
pub struct Session<P = Permit> {
    form: Option<RefusalFormat>,
    protocol_version: Option<Box<str>>,
    pending: HashMap<RequestId, PendingRequest<P>>,
    answered: VecDeque<(RequestId, RequestKind)>,
    with_output_schema: HashSet<Box<str>>,
}

#[derive(Debug)]
struct PendingRequest<P> {
    kind: RequestKind,
    /// `None` for a request that is not a call, and for a call that has not been decided yet.
    permit: Option<P>,
    is_cancelled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestKind {
    Initialize,
    List,
    /// A call that the gate has not decided yet. The server has not seen it.
    Undecided,
    Call,
    Other,
    /// Answered by the host, because the server took too long. A late answer is dropped.
    GivenUp,
}

impl<P> Session<P> {
    /// A new connection. Refusals are written in the format for the protocol's version that
    /// `initialize` negotiates. For tools that a list has shown with an `outputSchema`, they are
    /// written as [`RefusalFormat::Text`]: clients validate structured content against that schema,
    /// even in an error, and reject what does not match.
    pub fn new() -> Self {
        Self {
            form: None,
            protocol_version: None,
            pending: HashMap::new(),
            answered: VecDeque::new(),
            with_output_schema: HashSet::new(),
        }
    }

    /// Writes all refusals in this format, whatever the version.
    pub fn with_form(self, form: RefusalFormat) -> Self {
        Self { form: Some(form), ..self }
    }

    /// The protocol's version, once the server has answered `initialize`.
    pub fn protocol_version(&self) -> Option<&str> {
        self.protocol_version.as_deref()
    }

    /// The number of pending requests: those of the client that wait for an answer. Linear in it.
    pub fn under_way(&self) -> usize {
        self.pending.values().filter(|request| request.kind != RequestKind::GivenUp).count()
    }

    /// Takes a message of the client. Linear in the message.
    ///
    /// These messages are refused with an answer, which has the id if the id is certain:
    ///
    /// - a message that is not UTF-8, or that [`Message::read`] refuses;
    /// - a request whose id is neither a string of at most 1,024 bytes nor an integer;
    /// - a request with the id of a pending request, or of one that was [given up](Self::give_up);
    /// - a `tools/call` without an id, because its end would go unnoticed;
    /// - a request while 10,000 others are pending.
    pub fn from_client(&mut self, message: &[u8]) -> FromClient {
        let read = match std::str::from_utf8(message) {
            Ok(text) => Message::read(text).map_err(|error| {
                let (answer, code) = answerable(text);
                (error, answer, code)
            }),
            Err(error) => {
                let why = "the text is not UTF-8".to_owned();
                Err((MalformedMessage { at: error.valid_up_to(), why }, Some("null".to_owned()), PARSE_ERROR))
            }
        };
        let message = match read {
            Ok(message) => message,
            Err((error, id, code)) => return refuse(error, id, code),
        };
        let (id, kind) = match &message {
            Message::Call(call) => (call.id(), RequestKind::Undecided),
            Message::Other(other) => {
                let value = other.as_value();
                let kind = match value.get("method").and_then(Value::as_str) {
                    // An answer to a request by the server.
                    None => return FromClient::Forward { message: other.to_json(), id: None },
                    Some("initialize") => RequestKind::Initialize,
                    Some("tools/list") => RequestKind::List,
                    Some("notifications/cancelled") => {
                        self.cancel(value.pointer("/params/requestId"));
                        RequestKind::Other
                    }
                    Some(_) => RequestKind::Other,
                };
                (value.get("id"), kind)
            }
        };
        let malformed = |why: &str| MalformedMessage { at: 0, why: why.to_owned() };
        let id = match id.map(RequestId::of) {
            None if kind == RequestKind::Undecided => {
                return refuse(malformed("a call needs an `id`"), None, INVALID_REQUEST);
            }
            None => None,
            Some(None) => {
                let error = malformed("the `id` of a request must be a string or an integer");
                return refuse(error, Some("null".to_owned()), INVALID_REQUEST);
            }
            Some(Some(id)) => {
                let error = match () {
                    () if id.text().is_some_and(|text| text.len() > MAX_ID_BYTES) => "the `id` is too long",
                    () if self.pending.contains_key(&id) => "a request with this `id` is already pending",
                    () if self.pending.len() >= MAX_PENDING => "too many requests are pending",
                    () => "",
                };
                if !error.is_empty() {
                    return refuse(malformed(error), Some(id.to_string()), INVALID_REQUEST);
                }
                self.pending.insert(id.clone(), PendingRequest { kind, permit: None, is_cancelled: false });
                Some(id)
            }
        };
        match message {
            Message::Call(call) => FromClient::Decide(call),
            Message::Other(other) => FromClient::Forward { message: other.to_json(), id },
        }
    }

    /// Takes the decision on a call from [`from_client`](Self::from_client), and keeps the permit
    /// until the call ends.
    ///
    /// Pass the same call whose [`tool_call`](Call::tool_call) the gate has decided: what was
    /// judged must be what is forwarded.
    pub fn decided(&mut self, call: Call, decision: Decision<P>) -> Routed {
        let refusal = Refusal::of(&decision);
        let id = call.id().and_then(RequestId::of);
        match (decision, refusal, id) {
            (Decision::Allow(permit), None, Some(id)) => {
                let is_cancelled = self.pending.get(&id).is_some_and(|request| request.is_cancelled);
                let request = PendingRequest { kind: RequestKind::Call, permit: Some(permit), is_cancelled };
                self.pending.insert(id.clone(), request);
                Routed::Forward { message: call.to_json(), id }
            }
            (_, refusal, id) => {
                if let Some(id) = id {
                    self.pending.remove(&id);
                }
                let answer = refusal.and_then(|refusal| call.answer(&refusal, self.form(&call)));
                // A call from `from_client` has an id, and so an answer.
                Routed::Answer { answer: answer.unwrap_or_default() }
            }
        }
    }

    /// Takes a message of the server. Linear in the message.
    ///
    /// It is forwarded unchanged, except for answers to `tools/list`: `filter` gets their `result`,
    /// to remove the tools that the caller must not see
    /// ([`filter_tools_list`](super::filter_tools_list),
    /// [`ToolPins::filter_tools_list`](super::ToolPins::filter_tools_list)). If two parsers could
    /// read a list differently, the client gets an error instead.
    ///
    /// These messages are dropped: those that are not valid JSON-RPC, batches, those that could be
    /// read as two messages (also by a client that ignores the case of keys), and answers to
    /// requests that are not pending. An answer that is sent again, as when a stream is resumed, is
    /// forwarded again and ends nothing.
    pub fn from_server<'m>(&mut self, message: &'m [u8], filter: impl FnOnce(&mut Value)) -> FromServer<'m, P> {
        let Ok(text) = std::str::from_utf8(message) else { return FromServer::Drop { why: "not UTF-8" } };
        let Ok(Object(envelope)) = serde_json::from_str::<Object<Envelope>>(text) else {
            return FromServer::Drop { why: "not a JSON-RPC message" };
        };
        // An answer to `tools/list` becomes an error for the client below.
        if envelope.has_variant && !(envelope.result && !envelope.method && self.asked_for_list(envelope.id.as_ref())) {
            return FromServer::Drop { why: "a key that differs from one of JSON-RPC's in case only" };
        }
        let plain = FromServer::Forward { message: text.into(), answers: None, ended: None };
        match (envelope.method, envelope.result || envelope.error) {
            (true, false) => return plain,
            (true, true) => return FromServer::Drop { why: "a request and an answer in one" },
            (false, false) => return FromServer::Drop { why: "neither a request nor an answer" },
            (false, true) => {}
        }
        let id = match envelope.id {
            // The server reports that it could not read an id.
            None | Some(Value::Null) if envelope.error && !envelope.result => return plain,
            id => id.as_ref().and_then(RequestId::of),
        };
        let pending = id.as_ref().and_then(|id| self.pending.get_mut(id));
        let asked = match (&id, pending) {
            (Some(_), Some(PendingRequest { kind: RequestKind::Undecided, .. })) => None,
            (Some(id), Some(PendingRequest { kind: RequestKind::GivenUp, .. })) => {
                self.pending.remove(id);
                None
            }
            (Some(id), Some(request)) => {
                let taken = (request.kind, request.permit.take());
                self.pending.remove(id);
                self.remember(id.clone(), taken.0);
                Some(taken)
            }
            (Some(id), None) => self.answered(id).map(|kind| (kind, None)),
            (None, _) => None,
        };
        let (Some(id), Some((kind, permit))) = (id, asked) else {
            return FromServer::Drop { why: "an answer to a request that is not pending" };
        };
        let ended = permit.map(|permit| FinishedCall { permit, ending: CallOutcome::of_answer(&id, text) });
        let message = match kind {
            RequestKind::List if envelope.result => Cow::Owned(self.filtered(text, &id, filter)),
            RequestKind::Initialize => {
                self.note_version(text);
                text.into()
            }
            _ => text.into(),
        };
        FromServer::Forward { message, answers: Some(id), ended }
    }

    /// Ends a request that will get no answer: the server is unreachable, or the connection for the
    /// answer is gone. Returns `None` if the request is not pending. If an answer may still come,
    /// use [`give_up`](Self::give_up).
    ///
    /// Pass [`CallOutcome::NotRun`] if the request certainly did not reach the server; its quota is
    /// then released. Otherwise pass [`CallOutcome::Unclear`]. The client's error message contains
    /// `why`.
    pub fn fail(&mut self, id: &RequestId, ending: CallOutcome, why: &str) -> Option<FailedRequest<P>> {
        let request = self.pending.remove(id).filter(|request| request.kind != RequestKind::GivenUp)?;
        Some(request.fail(id, ending, why))
    }

    /// Gives up a request that may still get an answer: the server has taken longer than the host
    /// waits. Returns `None` if the request is not pending. It ends as [`CallOutcome::Unclear`],
    /// and the client's error message contains `why`.
    ///
    /// A late answer is dropped. Until it arrives, no other request can have the id, because the
    /// late answer would end the permit of that request and be forwarded as its answer. (The
    /// protocol does not let a client use an id twice.) A request that was given up counts towards
    /// the 10,000 that can be pending.
    ///
    /// ```
    /// # use toolgate::mcp::{FromClient, FromServer, Session};
    /// let mut session = Session::<toolgate::Permit>::new();
    /// let ping = br#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
    /// let FromClient::Forward { id: Some(id), .. } = session.from_client(ping) else { panic!("a request") };
    /// let failed = session.give_up(&id, "no answer in 60 s").unwrap();
    /// assert!(failed.answer.unwrap().contains("no answer in 60 s"));
    /// assert!(matches!(session.from_client(ping), FromClient::Answer { .. }));
    /// let late = br#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
    /// assert!(matches!(session.from_server(late, |_| {}), FromServer::Drop { .. }));
    /// assert!(matches!(session.from_client(ping), FromClient::Forward { .. }));
    /// ```
    pub fn give_up(&mut self, id: &RequestId, why: &str) -> Option<FailedRequest<P>> {
        let request = self.pending.get_mut(id).filter(|request| request.kind != RequestKind::GivenUp)?;
        let late = PendingRequest { kind: RequestKind::GivenUp, permit: None, is_cancelled: false };
        Some(std::mem::replace(request, late).fail(id, CallOutcome::Unclear(None), why))
    }

    /// Ends all pending requests: the server is gone.
    pub fn fail_all(&mut self, ending: CallOutcome, why: &str) -> Vec<FailedRequest<P>> {
        let waiting = self.pending.drain().filter(|(_, request)| request.kind != RequestKind::GivenUp);
        waiting.map(|(id, request)| request.fail(&id, ending, why)).collect()
    }

    fn form(&self, call: &Call) -> RefusalFormat {
        let known = &self.with_output_schema;
        let is_forgotten = call.tool().len() > MAX_NAME_BYTES || known.len() >= MAX_OUTPUT_SCHEMAS;
        let has_schema = is_forgotten || known.contains(call.tool());
        let of_version = || match call.protocol_version().or(self.protocol_version()) {
            Some(version) if !has_schema => RefusalFormat::of_version(version),
            _ => RefusalFormat::Text,
        };
        self.form.unwrap_or_else(of_version)
    }

    /// The filtered answer to `tools/list`; an error if a client could read another list than was
    /// filtered.
    fn filtered(&mut self, text: &str, id: &RequestId, filter: impl FnOnce(&mut Value)) -> String {
        let Some(mut answer) = read_list(text) else {
            let why = "The server's list of tools can be read in more than one way.";
            return error(&id.to_string(), NOT_ANSWERED, why, None);
        };
        if let Some(result) = answer.get_mut("result") {
            filter(result);
        }
        let tools = answer.pointer("/result/tools").and_then(Value::as_array);
        for tool in tools.into_iter().flatten() {
            let Some(name) = tool.get("name").and_then(Value::as_str) else { continue };
            match tool.get("outputSchema") {
                Some(_) if name.len() <= MAX_NAME_BYTES && self.with_output_schema.len() < MAX_OUTPUT_SCHEMAS => {
                    self.with_output_schema.insert(name.into());
                }
                Some(_) => {}
                None => {
                    self.with_output_schema.remove(name);
                }
            }
        }
        answer.to_string()
    }

    fn cancel(&mut self, id: Option<&Value>) {
        let id = id.and_then(RequestId::of);
        if let Some(request) = id.and_then(|id| self.pending.get_mut(&id)) {
            request.is_cancelled = true;
        }
    }

    /// The kind of the last answered request with this id.
    fn answered(&self, id: &RequestId) -> Option<RequestKind> {
        self.answered.iter().rfind(|(answered, _)| answered == id).map(|(_, kind)| *kind)
    }

    fn asked_for_list(&self, id: Option<&Value>) -> bool {
        let pending = |id: &RequestId| self.pending.get(id).map(|request| request.kind);
        let id = id.and_then(RequestId::of);
        id.and_then(|id| pending(&id).or_else(|| self.answered(&id))) == Some(RequestKind::List)
    }

    fn remember(&mut self, id: RequestId, kind: RequestKind) {
        if self.answered.len() >= MAX_ANSWERED {
            self.answered.pop_front();
        }
        self.answered.push_back((id, kind));
    }

    fn note_version(&mut self, text: &str) {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(borrow)]
            result: Object<Agreed<'a>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Agreed<'a> {
            #[serde(borrow)]
            protocol_version: Cow<'a, str>,
        }
        if let Ok(Object(Answer { result: Object(agreed) })) = serde_json::from_str::<Object<Answer<'_>>>(text) {
            // A version is a date. A longer text is not a version, and is not kept.
            let version = &*agreed.protocol_version;
            self.protocol_version = (version.len() <= 64).then(|| version.into());
        }
    }
}

impl<P> Default for Session<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> PendingRequest<P> {
    fn fail(self, id: &RequestId, ending: CallOutcome, why: &str) -> FailedRequest<P> {
        let is_certain = ending == CallOutcome::NotRun;
        let sentence = if is_certain { "The request was not made" } else { "The request may have been made" };
        let answer = || error(&id.to_string(), NOT_ANSWERED, &format!("{sentence}: {why}."), None);
        FailedRequest {
            answer: (!self.is_cancelled).then(answer),
            ended: self.permit.map(|permit| FinishedCall { permit, ending }),
        }
    }
}

/// The answer to a message that is longer than `bound` bytes. A host need not read such a message
/// to its end.
pub fn too_long(bound: usize) -> String {
    error("null", INVALID_REQUEST, &format!("The message has more than {bound} bytes."), None)
}

fn refuse(malformed: MalformedMessage, id: Option<String>, code: i32) -> FromClient {
    let denial = Denial::from(malformed);
    let refusal = Refusal::from(&denial);
    let data = Value::from(refusal.facts().clone());
    FromClient::Answer { answer: id.map(|id| error(&id, code, &refusal.text(), Some(data))), denial }
}
