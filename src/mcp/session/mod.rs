//! One MCP connection through a gateway, in both directions.

mod client;
mod routing;
mod server;
mod text;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::RandomState;
use serde_json::Value;

use super::server_state::{Binding, HeldCall, asker};
use super::{CallOutcome, Integers, MalformedMessage, Refusal, RefusalFormat, RequestId, ServerState};
use crate::approval::Approval;
use crate::call::Caller;
use crate::decision::Denial;
use crate::decision::permit::{AnyPermit, Permit};
use text::error;

pub use routing::{FailedRequest, FinishedCall, FromClient, FromServer, Routed};

/// The maximum number of pending requests, so that a silent server cannot fill the memory.
const MAX_PENDING: usize = 10_000;
/// The maximum length of a request's id in bytes. It is kept until the server has answered.
const MAX_ID_BYTES: usize = 1_024;
/// The number of answers that are remembered, to recognise them when a stream is resumed.
const MAX_ANSWERED: usize = 256;
/// The number of progress tokens of tasks that are remembered.
const MAX_TASK_TOKENS: usize = 256;

/// The codes of JSON-RPC for a text that is not JSON, and a message that is not a valid request.
const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
/// The code of MCP for a header that contradicts the message.
const HEADER_MISMATCH: i32 = -32020;
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
/// up](Self::give_up). The server may still be working on it, and the client that cancels is the
/// one that is limited. A server that follows the protocol does not answer it: give it up after a
/// short time, such as ten seconds.
///
/// # Calls that go on
///
/// A server may answer a call with a request for input (`resultType: "input_required"`), and the
/// client repeats the call with what it was asked for. All these rounds are one call: one charge,
/// one approval, one permit. The client gets a `requestState` of the session's own in place of the
/// server's. A call with that state, from the same caller, with the same tool and arguments, and
/// in time, continues the call: the gate judges its conditions again, with what the client sends as
/// `input`, and charges nothing. Each state serves once, and a call takes at most 16 rounds. The
/// gate denies any other call with `requestState` or `inputResponses`, with the code
/// `unknown_state`.
///
/// A call that the server runs as a task keeps its permit until an answer to `tasks/get`,
/// `tasks/result` or `tasks/cancel`, or a notification, reports that the task has ended, or until
/// the lease of its units in flight ends.
///
/// Sessions that share a [`ServerState`] share these calls.
pub struct Session<P = Permit> {
    form: Option<RefusalFormat>,
    integers: Integers,
    protocol_version: Option<Box<str>>,
    pending: HashMap<RequestId, PendingRequest<P>, RandomState>,
    answered: VecDeque<(RequestId, RequestKind)>,
    /// The pending request of each progress token.
    progress: HashMap<RequestId, RequestId, RandomState>,
    /// The progress tokens of tasks.
    task_tokens: VecDeque<RequestId>,
    state: ServerState<P>,
    /// The caller, in bindings.
    asker: Arc<str>,
    approval_page: Option<ApprovalPage>,
    announces_changes: bool,
    max_list_ttl: Duration,
    /// Headers are written for what is forwarded.
    writes_headers: bool,
}

/// Returns the address of the page on which a person decides a request.
type ApprovalPage = Arc<dyn Fn(&Approval) -> Option<String> + Send + Sync>;

#[derive(Debug)]
struct PendingRequest<P> {
    kind: RequestKind,
    /// `None` for a request that is not a call, and for a call that has not been decided yet.
    /// Boxed, because a permit is large and most requests may be of another kind.
    permit: Option<Box<P>>,
    is_cancelled: bool,
    progress: Option<RequestId>,
    /// For a call that may go on: what binds it, and the number of its round.
    ongoing: Option<(Binding, u8)>,
    /// For an undecided call that continues another: that call, and its state at the client.
    held: Option<Box<(Box<str>, HeldCall<P>)>>,
    /// For a question about a task: the task's id.
    task: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestKind {
    Initialize,
    List,
    /// A call that the gate has not decided yet. The server has not seen it.
    Undecided,
    Call,
    /// `server/discover`.
    Discover,
    /// `subscriptions/listen`, for changes of the list of tools.
    Listen,
    /// `tasks/get` or `tasks/cancel`.
    TaskStatus,
    /// `tasks/result`.
    TaskResult,
    Other,
    /// Answered by the host, because the server took too long. A late answer is dropped.
    GivenUp,
}

#[expect(private_bounds, reason = "for the two kinds of permits")]
impl<P: AnyPermit> Session<P> {
    /// A new connection with a server of its own. Refusals are written in the format for the
    /// protocol's version that `initialize` negotiates. For tools that a list has shown with an
    /// `outputSchema`, they are written as [`RefusalFormat::Text`]: clients validate structured
    /// content against that schema, even in an error, and reject what does not match.
    pub fn new() -> Self {
        Self::sharing(&ServerState::new(), &Caller::new())
    }

    /// A new connection of this caller with a server whose state other sessions share.
    pub fn sharing(state: &ServerState<P>, caller: &Caller) -> Self {
        Self {
            form: None,
            integers: Integers::default(),
            protocol_version: None,
            pending: HashMap::default(),
            answered: VecDeque::new(),
            progress: HashMap::default(),
            task_tokens: VecDeque::new(),
            state: state.clone(),
            asker: asker(caller),
            approval_page: None,
            announces_changes: false,
            max_list_ttl: Duration::ZERO,
            writes_headers: false,
        }
    }

    /// Writes all refusals in this format, whatever the version.
    pub fn with_form(self, form: RefusalFormat) -> Self {
        Self { form: Some(form), ..self }
    }

    /// Reads messages of the client with these integers.
    #[must_use = "returns the session with the change"]
    pub fn with_integers(self, integers: Integers) -> Self {
        Self { integers, ..self }
    }

    /// Sends people to a page of the host's to decide approvals: `page` returns the address for a
    /// request, or `None` to refuse it in text.
    ///
    /// A client that can show its user a page (`elicitation.url`, from protocol version
    /// 2026-07-28) gets a request for input with this address, and repeats the call. It passes once
    /// the approval is given; until then it gets the same answer. What the client itself answers
    /// never counts as an approval. Other clients get the refusal.
    #[must_use = "returns the session with the change"]
    pub fn with_approval_page(self, page: impl Fn(&Approval) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { approval_page: Some(Arc::new(page)), ..self }
    }

    /// Announces to the client that its list of tools may change, whether the server does or not.
    /// The host then sends it what [`list_changed`](Self::list_changed) returns after it has
    /// replaced a policy.
    #[must_use = "returns the session with the change"]
    pub fn announcing_changes(self) -> Self {
        Self { announces_changes: true, ..self }
    }

    /// Lets clients keep a filtered list for at most this long (`ttlMs`), in place of zero. During
    /// that time a client may not notice that a policy was replaced.
    #[must_use = "returns the session with the change"]
    pub fn with_max_list_ttl(self, max_list_ttl: Duration) -> Self {
        Self { max_list_ttl, ..self }
    }

    /// Returns the notifications that tell the client to list the tools again, for a host that has
    /// replaced a policy ([`ServerState::lists_differ`](super::ServerState::lists_differ)). Each
    /// comes with the pending `subscriptions/listen` request on whose stream it belongs; without
    /// one, it belongs on the connection, or on the stream that a client opens with GET.
    pub fn list_changed(&self) -> Vec<(Option<RequestId>, String)> {
        let listening = self.pending.iter().filter(|(_, request)| request.kind == RequestKind::Listen);
        let mut messages: Vec<_> = listening.map(|(id, _)| (Some(id.clone()), list_changed(Some(id)))).collect();
        if self.protocol_version.is_some() {
            messages.push((None, list_changed(None)));
        }
        messages
    }

    /// The state that it shares.
    pub fn state(&self) -> &ServerState<P> {
        &self.state
    }

    /// The protocol's version, once the server has answered `initialize`.
    pub fn protocol_version(&self) -> Option<&str> {
        self.protocol_version.as_deref()
    }

    /// The number of pending requests: those of the client that wait for an answer. Linear in it.
    pub fn under_way(&self) -> usize {
        self.pending.values().filter(|request| request.kind != RequestKind::GivenUp).count()
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
        Some(self.failed(request, id, ending, why))
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
        let given_up = std::mem::replace(request, PendingRequest::new(RequestKind::GivenUp));
        Some(self.failed(given_up, id, CallOutcome::Unclear(None), why))
    }

    /// Gives up a request that the client has cancelled, as [`give_up`](Self::give_up) does.
    /// Returns `None` if the server has answered it, also if the client has used its id again
    /// since.
    pub fn give_up_cancelled(&mut self, id: &RequestId) -> Option<FailedRequest<P>> {
        self.pending.get(id).filter(|request| request.is_cancelled)?;
        self.give_up(id, "it was cancelled")
    }

    /// Ends all pending requests: the server is gone.
    pub fn fail_all(&mut self, ending: CallOutcome, why: &str) -> Vec<FailedRequest<P>> {
        let all = std::mem::take(&mut self.pending).into_iter();
        let waiting = all.filter(|(_, request)| request.kind != RequestKind::GivenUp);
        waiting.map(|(id, request)| self.failed(request, &id, ending, why)).collect()
    }

    fn failed(
        &mut self,
        mut request: PendingRequest<P>,
        id: &RequestId,
        ending: CallOutcome,
        why: &str,
    ) -> FailedRequest<P> {
        self.forget_progress(&request, id);
        if let Some((state, held)) = request.held.take().map(|held| *held) {
            self.state.put_back(&state, held);
        }
        request.fail(id, ending, why)
    }

    fn forget_progress(&mut self, request: &PendingRequest<P>, id: &RequestId) {
        if let Some(token) = &request.progress
            && self.progress.get(token) == Some(id)
        {
            self.progress.remove(token);
        }
    }
}

impl<P: AnyPermit> Default for Session<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> fmt::Debug for Session<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("protocol_version", &self.protocol_version).finish_non_exhaustive()
    }
}

impl<P> PendingRequest<P> {
    fn new(kind: RequestKind) -> Self {
        Self { kind, permit: None, is_cancelled: false, progress: None, ongoing: None, held: None, task: None }
    }

    /// The outcome of this round's end for the whole call. A call whose earlier rounds have reached
    /// the server may have run.
    fn ending(&self, ending: CallOutcome) -> CallOutcome {
        let is_further = self.ongoing.is_some_and(|(_, round)| round > 1);
        if is_further && ending == CallOutcome::NotRun { CallOutcome::Unclear(None) } else { ending }
    }

    fn fail(self, id: &RequestId, ending: CallOutcome, why: &str) -> FailedRequest<P> {
        let is_certain = ending == CallOutcome::NotRun;
        let sentence = if is_certain { "The request was not made" } else { "The request may have been made" };
        let answer = || error(&id.to_string(), NOT_ANSWERED, &format!("{sentence}: {why}."), None);
        let ending = self.ending(ending);
        FailedRequest {
            answer: (!self.is_cancelled).then(answer),
            ended: self.permit.map(|permit| FinishedCall { permit: *permit, ending }),
        }
    }
}

/// The answer to a message that is longer than `bound` bytes. A host need not read such a message
/// to its end.
pub fn too_long(bound: usize) -> String {
    error("null", INVALID_REQUEST, &format!("The message has more than {bound} bytes."), None)
}

/// The member of `_meta` that names the request on whose stream a notification is.
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// The notification that the list of tools has changed.
fn list_changed(subscription: Option<&RequestId>) -> String {
    let method = r#""method":"notifications/tools/list_changed""#;
    match subscription {
        None => format!(r#"{{"jsonrpc":"2.0",{method}}}"#),
        Some(id) => format!(r#"{{"jsonrpc":"2.0",{method},"params":{{"_meta":{{"{SUBSCRIPTION}":{id}}}}}}}"#),
    }
}

fn refuse(malformed: MalformedMessage, id: Option<String>, code: i32) -> FromClient {
    let http_status = if id.as_deref() == Some("null") || code == HEADER_MISMATCH { 400 } else { 200 };
    let denial = Denial::from(malformed);
    let refusal = Refusal::from(&denial);
    let data = Value::from(refusal.facts().clone());
    let answer = id.map(|id| error(&id, code, &refusal.text(), Some(data)));
    FromClient::Answer { answer, denial, http_status }
}
