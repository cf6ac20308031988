//! A connection as it passes a gateway, in both directions.

mod text;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};

use serde::Deserialize;
use serde_json::Value;

use super::{Call, CallOutcome, MalformedMessage, Message, Refusal, RefusalFormat, RequestId};
use crate::decision::permit::{AsyncPermit, Permit};
use crate::decision::{Decision, Denial};
use crate::json::object::Object;
use crate::store::StoreError;
use text::{Envelope, answerable, error, read_list};

/// How many requests of a client may be under way at once: a server that never answers does not fill the memory.
const UNDER_WAY: usize = 10_000;
/// How many bytes the id of a request may have, as it is kept until the server has answered.
const ID_BYTES: usize = 1_024;
/// How many answers are remembered, to know them again when a stream is resumed.
const ANSWERED: usize = 256;
/// How many tools with an `outputSchema` are remembered. Past that, all tools count as having one.
const OUTPUT_SCHEMAS: usize = 10_000;
/// How many bytes the name of a tool may have to be remembered for that. One with a longer name counts as having a schema.
const NAME_BYTES: usize = 1_024;

/// The text is no JSON, and the message is no request: JSON-RPC's own codes.
const NO_JSON: i32 = -32700;
const NO_REQUEST: i32 = -32600;
/// The server did not answer. Beside the codes of [`RefusalFormat::Error`], in the range that JSON-RPC leaves to servers.
const NOT_ANSWERED: i32 = -32053;

/// One MCP connection as it passes a gateway: which requests are under way, and what their answers mean for quota and lists.
///
/// It does no I/O, reads no clock and asks no gate: the host moves the bytes and asks the gate, so that it serves every
/// transport, with and without a runtime. One for each connection (stdio) or MCP session (streamable HTTP); behind a lock, where
/// several threads move its messages.
///
/// ```
/// use toolgate::mcp::{Routed, FromClient, FromServer, Session, filter_tools_list};
/// use toolgate::{Gate, Policy};
///
/// let policy: Policy = r#"{ "version": "1", "default": "deny", "tools": { "get_*": {} } }"#.parse()?;
/// let gate = Gate::new(policy);
/// let mut session = Session::new();
///
/// // What the client sends is forwarded, answered, or first decided.
/// let text = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"drop_user"}}"#;
/// let FromClient::Decide(call) = session.from_client(text) else { panic!("a call") };
/// let decision = gate.check(&call.tool_call().grant("g-42"));
/// let Routed::Answer { answer, .. } = session.decided(call, decision) else { panic!("refused") };
/// assert!(answer.contains("POLICY DENIED"));
///
/// // What the server sends is forwarded; lists are filtered, and an answer to a call ends its permit.
/// let text = br#"{"jsonrpc":"2.0","id":"l","method":"tools/list"}"#;
/// let FromClient::Forward { .. } = session.from_client(text) else { panic!("no call") };
/// let text = br#"{"jsonrpc":"2.0","id":"l","result":{"tools":[{"name":"get_user"},{"name":"drop_user"}]}}"#;
/// let list = session.from_server(text, |result| filter_tools_list(gate.policy().as_ref(), result));
/// let FromServer::Forward { message, .. } = list else { panic!("an answer") };
/// assert!(message.contains("get_user") && !message.contains("drop_user"));
/// # Ok::<(), toolgate::PolicyError>(())
/// ```
///
/// A call that the client cancels stays under way until the server answers it or the host gives it up
/// ([`give_up`](Self::give_up)): the server may be at work on it still, and whoever cancels is the one who is limited.
#[derive(Debug)]
pub struct Session<P = Permit> {
    form: Option<RefusalFormat>,
    protocol_version: Option<Box<str>>,
    under_way: HashMap<RequestId, UnderWay<P>>,
    answered: VecDeque<(RequestId, Kind)>,
    with_output_schema: HashSet<Box<str>>,
}

#[derive(Debug)]
struct UnderWay<P> {
    kind: Kind,
    /// None for what is no call, and for a call that is not decided yet.
    permit: Option<P>,
    cancelled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Initialize,
    List,
    /// A call that the host is asking the gate about. The server has not seen it.
    Undecided,
    Call,
    Other,
    /// Answered by the host, because the server took too long. What it answers yet goes to nobody.
    GivenUp,
}

/// What becomes of a message of the client.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a host's safety hangs on it: no arm may be forgotten")]
#[must_use = "what is not decided must not be passed on"]
pub enum FromClient {
    /// No call: send it to the server.
    Forward {
        /// The message to send.
        message: String,
        /// Its id, if it is a request: to [give it up](Session::give_up) by.
        id: Option<RequestId>,
    },
    /// It goes no further.
    Answer {
        /// What to send to the client; none where nothing can be answered.
        answer: Option<String>,
        /// Why, for the host's log.
        denial: Denial,
    },
    /// A call: ask the gate, and hand both to [`Session::decided`].
    Decide(Call),
}

/// What becomes of a call that was decided.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a host's safety hangs on it: no arm may be forgotten")]
#[must_use = "a decision that is not enforced stops nothing"]
pub enum Routed {
    /// It may be made: send it to the server.
    Forward {
        /// The message to send.
        message: String,
        /// Its id, to [give it up](Session::give_up) by.
        id: RequestId,
    },
    /// It may not.
    Answer {
        /// What to send to the client.
        answer: String,
    },
}

/// What becomes of a message of the server.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "whether quota is given back hangs on it: no arm may be forgotten")]
#[must_use = "the client waits for it, and a permit may have ended with it"]
pub enum FromServer<'m, P> {
    /// Send it to the client.
    Forward {
        /// The message to send.
        message: Cow<'m, str>,
        /// The request that it answers.
        answers: Option<RequestId>,
        /// The call that ended with it.
        ended: Option<FinishedCall<P>>,
    },
    /// It goes no further: it is no message, or answers nothing that was asked.
    Drop {
        /// Why, for the host's log.
        why: &'static str,
    },
}

/// A call that has ended: [conclude](FinishedCall::conclude) it, or settle the permit first.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a pair")]
#[must_use = "the permit holds what is in flight until it is concluded"]
pub struct FinishedCall<P> {
    /// The call's permit.
    pub permit: P,
    /// What became of the call.
    pub ending: CallOutcome,
}

/// A request that got no answer.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "a pair")]
#[must_use = "the client waits for it, and a permit may have ended with it"]
pub struct FailedRequest<P> {
    /// What to send to the client; none for a request that it has cancelled.
    pub answer: Option<String>,
    /// The call that ended.
    pub ended: Option<FinishedCall<P>>,
}

impl<P> Session<P> {
    /// A connection on which nothing was said yet. Refusals are written in the form of the protocol's version that
    /// `initialize` agrees on; but those of tools that a list has shown with an `outputSchema` as [`RefusalFormat::Text`], because
    /// clients hold structured content against that schema, even in an error, and throw away what does not follow it.
    pub fn new() -> Self {
        Self {
            form: None,
            protocol_version: None,
            under_way: HashMap::new(),
            answered: VecDeque::new(),
            with_output_schema: HashSet::new(),
        }
    }

    /// Writes refusals in this form, whatever the version.
    pub fn with_form(self, form: RefusalFormat) -> Self {
        Self { form: Some(form), ..self }
    }

    /// The protocol's version, once the server has answered `initialize`.
    pub fn protocol_version(&self) -> Option<&str> {
        self.protocol_version.as_deref()
    }

    /// How many requests of the client wait for an answer. Linear in them.
    pub fn under_way(&self) -> usize {
        self.under_way.values().filter(|entry| entry.kind != Kind::GivenUp).count()
    }

    /// Takes a message of the client. Linear in the message.
    ///
    /// Answered, with as much of its id as is certain, is what [`Message::read`] refuses or is not UTF-8; a request whose
    /// id is neither a text of at most 1,024 bytes nor an integer, or is under way already or [given up](Self::give_up); a
    /// `tools/call` without an id, which could not be told when it ends; and requests past 10,000 under way.
    pub fn from_client(&mut self, message: &[u8]) -> FromClient {
        let read = match std::str::from_utf8(message) {
            Ok(text) => Message::read(text).map_err(|error| {
                let (answer, code) = answerable(text);
                (error, answer, code)
            }),
            Err(error) => {
                let why = "the text is not UTF-8".to_owned();
                Err((MalformedMessage { at: error.valid_up_to(), why }, Some("null".to_owned()), NO_JSON))
            }
        };
        let message = match read {
            Ok(message) => message,
            Err((error, id, code)) => return refuse(error, id, code),
        };
        let (id, kind) = match &message {
            Message::Call(call) => (call.id(), Kind::Undecided),
            Message::Other(other) => {
                let value = other.as_value();
                let kind = match value.get("method").and_then(Value::as_str) {
                    // An answer to a request of the server.
                    None => return FromClient::Forward { message: other.to_json(), id: None },
                    Some("initialize") => Kind::Initialize,
                    Some("tools/list") => Kind::List,
                    Some("notifications/cancelled") => {
                        self.cancel(value.pointer("/params/requestId"));
                        Kind::Other
                    }
                    Some(_) => Kind::Other,
                };
                (value.get("id"), kind)
            }
        };
        let malformed = |why: &str| MalformedMessage { at: 0, why: why.to_owned() };
        let id = match id.map(RequestId::of) {
            None if kind == Kind::Undecided => return refuse(malformed("a call needs an `id`"), None, NO_REQUEST),
            None => None,
            Some(None) => {
                let error = malformed("the `id` of a request is a string or an integer");
                return refuse(error, Some("null".to_owned()), NO_REQUEST);
            }
            Some(Some(id)) => {
                let error = match () {
                    () if id.text().is_some_and(|text| text.len() > ID_BYTES) => "the `id` is too long",
                    () if self.under_way.contains_key(&id) => "a request with this `id` is under way",
                    () if self.under_way.len() >= UNDER_WAY => "too many requests are under way",
                    () => "",
                };
                if !error.is_empty() {
                    return refuse(malformed(error), Some(id.to_string()), NO_REQUEST);
                }
                self.under_way.insert(id.clone(), UnderWay { kind, permit: None, cancelled: false });
                Some(id)
            }
        };
        match message {
            Message::Call(call) => FromClient::Decide(call),
            Message::Other(other) => FromClient::Forward { message: other.to_json(), id },
        }
    }

    /// Takes the decision on a call that [`from_client`](Self::from_client) gave, and keeps its permit until the call ends.
    ///
    /// Judged must be what is forwarded: hand in the very call that the gate was asked about, with
    /// [`tool_call`](Call::tool_call).
    pub fn decided(&mut self, call: Call, decision: Decision<P>) -> Routed {
        let refusal = Refusal::of(&decision);
        let id = call.id().and_then(RequestId::of);
        match (decision, refusal, id) {
            (Decision::Allow(permit), None, Some(id)) => {
                let cancelled = self.under_way.get(&id).is_some_and(|entry| entry.cancelled);
                let entry = UnderWay { kind: Kind::Call, permit: Some(permit), cancelled };
                self.under_way.insert(id.clone(), entry);
                Routed::Forward { message: call.to_json(), id }
            }
            (_, refusal, id) => {
                if let Some(id) = id {
                    self.under_way.remove(&id);
                }
                let answer = refusal.and_then(|refusal| call.answer(&refusal, self.form(&call)));
                // A call that `from_client` gave has an id, and so an answer.
                Routed::Answer { answer: answer.unwrap_or_default() }
            }
        }
    }

    /// Takes a message of the server. It is forwarded as it stands, but for answers to `tools/list`: `filter` gets their
    /// `result`, to take out what the caller may not see ([`filter_tools_list`](super::filter_tools_list),
    /// [`ToolPins::filter_tools_list`](super::ToolPins::filter_tools_list)).
    ///
    /// Dropped is what is no message of JSON-RPC, a batch, what could be read as two messages (by a client that ignores the case of
    /// keys, too), and answers to requests that are not under way. An answer that is sent again, as when a stream is resumed, passes
    /// as it did the first time, and ends nothing. In place of a list that two parsers could read differently the client gets an
    /// error. Linear in the message.
    pub fn from_server<'m>(&mut self, message: &'m [u8], filter: impl FnOnce(&mut Value)) -> FromServer<'m, P> {
        let Ok(text) = std::str::from_utf8(message) else { return FromServer::Drop { why: "not UTF-8" } };
        let Ok(Object(envelope)) = serde_json::from_str::<Object<Envelope>>(text) else {
            return FromServer::Drop { why: "not a message of JSON-RPC" };
        };
        // Of an answer to `tools/list` the client hears an error below.
        if envelope.has_variant && !(envelope.result && !envelope.method && self.asked_for_list(envelope.id.as_ref())) {
            return FromServer::Drop { why: "a key that equals one of JSON-RPC's but for case" };
        }
        let plain = FromServer::Forward { message: text.into(), answers: None, ended: None };
        match (envelope.method, envelope.result || envelope.error) {
            (true, false) => return plain,
            (true, true) => return FromServer::Drop { why: "a request and an answer in one" },
            (false, false) => return FromServer::Drop { why: "neither a request nor an answer" },
            (false, true) => {}
        }
        let id = match envelope.id {
            // An error that says that the server could not read an id.
            None | Some(Value::Null) if envelope.error && !envelope.result => return plain,
            id => id.as_ref().and_then(RequestId::of),
        };
        let under_way = id.as_ref().and_then(|id| self.under_way.get_mut(id));
        let asked = match (&id, under_way) {
            (Some(_), Some(UnderWay { kind: Kind::Undecided, .. })) => None,
            (Some(id), Some(UnderWay { kind: Kind::GivenUp, .. })) => {
                self.under_way.remove(id);
                None
            }
            (Some(id), Some(entry)) => {
                let taken = (entry.kind, entry.permit.take());
                self.under_way.remove(id);
                self.remember(id.clone(), taken.0);
                Some(taken)
            }
            (Some(id), None) => self.answered(id).map(|kind| (kind, None)),
            (None, _) => None,
        };
        let (Some(id), Some((kind, permit))) = (id, asked) else {
            return FromServer::Drop { why: "an answer to nothing that was asked" };
        };
        let ended = permit.map(|permit| FinishedCall { permit, ending: CallOutcome::of_answer(&id, text) });
        let message = match kind {
            Kind::List if envelope.result => Cow::Owned(self.filtered(text, &id, filter)),
            Kind::Initialize => {
                self.note_version(text);
                text.into()
            }
            _ => text.into(),
        };
        FromServer::Forward { message, answers: Some(id), ended }
    }

    /// Ends a request that will have no answer: the server could not be reached, or the connection that would bring the answer is
    /// gone. None, if it is not under way. Where an answer may come yet, [`give_up`](Self::give_up).
    ///
    /// [`CallOutcome::NotRun`] where it certainly did not reach the server: its quota is given back. Otherwise
    /// [`CallOutcome::Unclear`]. `why` is told to the client.
    pub fn fail(&mut self, id: &RequestId, ending: CallOutcome, why: &str) -> Option<FailedRequest<P>> {
        let entry = self.under_way.remove(id).filter(|entry| entry.kind != Kind::GivenUp)?;
        Some(entry.fail(id, ending, why))
    }

    /// Gives a request up that may have an answer yet: the server has taken longer than the host waits. None, if it is not under way.
    /// It ends as [`CallOutcome::Unclear`], and `why` is told to the client.
    ///
    /// The late answer goes to nobody. Until it comes, no other request may have the id: what comes late would end that one's permit,
    /// and be told as its answer. A client that keeps to the protocol uses no id twice. What is given up counts towards the 10,000
    /// requests that may be under way.
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
        let entry = self.under_way.get_mut(id).filter(|entry| entry.kind != Kind::GivenUp)?;
        let late = UnderWay { kind: Kind::GivenUp, permit: None, cancelled: false };
        Some(std::mem::replace(entry, late).fail(id, CallOutcome::Unclear(None), why))
    }

    /// Ends all that is under way: the server is gone.
    pub fn fail_all(&mut self, ending: CallOutcome, why: &str) -> Vec<FailedRequest<P>> {
        let waiting = self.under_way.drain().filter(|(_, entry)| entry.kind != Kind::GivenUp);
        waiting.map(|(id, entry)| entry.fail(&id, ending, why)).collect()
    }

    fn form(&self, call: &Call) -> RefusalFormat {
        let known = &self.with_output_schema;
        let is_forgotten = call.tool().len() > NAME_BYTES || known.len() >= OUTPUT_SCHEMAS;
        let has_schema = is_forgotten || known.contains(call.tool());
        let of_version = || match call.protocol_version().or(self.protocol_version()) {
            Some(version) if !has_schema => RefusalFormat::of_version(version),
            _ => RefusalFormat::Text,
        };
        self.form.unwrap_or_else(of_version)
    }

    /// The answer to `tools/list`, filtered; an error where what is filtered might not be what a client reads.
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
                Some(_) if name.len() <= NAME_BYTES && self.with_output_schema.len() < OUTPUT_SCHEMAS => {
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
        if let Some(entry) = id.and_then(|id| self.under_way.get_mut(&id)) {
            entry.cancelled = true;
        }
    }

    /// What the request was that was answered last under an id.
    fn answered(&self, id: &RequestId) -> Option<Kind> {
        self.answered.iter().rfind(|(answered, _)| answered == id).map(|(_, kind)| *kind)
    }

    fn asked_for_list(&self, id: Option<&Value>) -> bool {
        let under_way = |id: &RequestId| self.under_way.get(id).map(|entry| entry.kind);
        let id = id.and_then(RequestId::of);
        id.and_then(|id| under_way(&id).or_else(|| self.answered(&id))) == Some(Kind::List)
    }

    fn remember(&mut self, id: RequestId, kind: Kind) {
        if self.answered.len() >= ANSWERED {
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
            // A version is a date; what is longer is none, and is not kept.
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

impl<P> UnderWay<P> {
    fn fail(self, id: &RequestId, ending: CallOutcome, why: &str) -> FailedRequest<P> {
        let is_sure = ending == CallOutcome::NotRun;
        let sentence = if is_sure { "The request was not made" } else { "The request may have been made" };
        let answer = || error(&id.to_string(), NOT_ANSWERED, &format!("{sentence}: {why}."), None);
        FailedRequest {
            answer: (!self.cancelled).then(answer),
            ended: self.permit.map(|permit| FinishedCall { permit, ending }),
        }
    }
}

impl FinishedCall<Permit> {
    /// Releases the permit, if the call was certainly not made; ends it otherwise.
    ///
    /// # Errors
    /// The store failed: the quota stays spent, and what is in flight is free when its lease ends.
    pub fn conclude(self) -> Result<(), StoreError> {
        match self.ending {
            CallOutcome::NotRun => self.permit.try_release(),
            CallOutcome::Succeeded | CallOutcome::ToolFailed | CallOutcome::Unclear(_) => {
                self.permit.end();
                Ok(())
            }
        }
    }
}

impl FinishedCall<AsyncPermit> {
    /// Releases the permit, if the call was certainly not made; ends it otherwise.
    ///
    /// # Errors
    /// The store failed: the quota stays spent, and what is in flight is free when its lease ends.
    pub async fn conclude(self) -> Result<(), StoreError> {
        match self.ending {
            CallOutcome::NotRun => self.permit.release().await,
            CallOutcome::Succeeded | CallOutcome::ToolFailed | CallOutcome::Unclear(_) => self.permit.end().await,
        }
    }
}

/// The answer to a message that is longer than the host takes, `bound` bytes: a host need not read it whole to know.
pub fn too_long(bound: usize) -> String {
    error("null", NO_REQUEST, &format!("The message has more than {bound} bytes."), None)
}

fn refuse(malformed: MalformedMessage, id: Option<String>, code: i32) -> FromClient {
    let denial = Denial::from(malformed);
    let refusal = Refusal::from(&denial);
    let data = Value::from(refusal.facts().clone());
    FromClient::Answer { answer: id.map(|id| error(&id, code, &refusal.text(), Some(data))), denial }
}
