//! Messages of the client.

use serde_json::Value;

use super::super::rounds::CallRound;
use super::super::server_state::{Binding, HeldCall};
use super::super::{
    Call, Integers, MalformedMessage, Message, OtherMessage, Refusal, RefusalFormat, RequestId, headers,
};
use super::text::answerable;
use super::{
    FromClient, HEADER_MISMATCH, INVALID_REQUEST, MAX_ID_BYTES, MAX_PENDING, PARSE_ERROR, PendingRequest, RequestKind,
    Routed, Session, refuse,
};
use crate::decision::permit::AnyPermit;
use crate::decision::{self, Decision, Denial, default_message};
use crate::policy::Code;

/// The beginning of a state that belongs to no call under way: the client repeats the call once a
/// person has approved it.
const APPROVAL_STATE: &str = "approval-";

#[expect(private_bounds, reason = "for the two kinds of permits")]
impl<P: AnyPermit> Session<P> {
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
        match read(message, self.integers) {
            Ok(message) => self.take(message, None),
            Err((error, id, code)) => refuse(error, id, code),
        }
    }

    /// Takes a message of the client with the headers of its HTTP request, as
    /// [`from_client`](Self::from_client) does. What is forwarded then comes with the headers to
    /// send, written from the message that was judged: forward none of the client's own headers
    /// whose names begin with `mcp-`, except the session's id.
    ///
    /// A message is refused, with the status 400 and the code -32020 of MCP, if a header among
    /// `MCP-Protocol-Version`, `Mcp-Method`, `Mcp-Name` and `Mcp-Param-*` contradicts it or appears
    /// twice, or is missing although the protocol's version requires it. `Mcp-Param-*` can only be
    /// checked for a tool that a list has shown, and is refused before; clients then list the
    /// tools, and try again.
    pub fn from_http_client<'h>(
        &mut self,
        message: &[u8],
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> FromClient {
        self.writes_headers = true;
        let message = match read(message, self.integers) {
            Ok(message) => message,
            Err((error, id, code)) => return refuse(error, id, code),
        };
        let tools = self.state.tools();
        let (tool, id) = match &message {
            Message::Call(call) => (tools.get(call.tool()), call.id()),
            Message::Other(other) => (None, other.as_value().get("id")),
        };
        let checked = headers::check(&message, headers, tool);
        drop(tools);
        match checked {
            Ok(version) => self.take(message, version.map(Into::into)),
            Err(mismatch) => {
                let id = id.and_then(RequestId::of).map_or("null".to_owned(), |id| id.to_string());
                refuse(malformed(&mismatch.to_string()), Some(id), HEADER_MISMATCH)
            }
        }
    }

    fn take(&mut self, message: Message, version: Option<Box<str>>) -> FromClient {
        let (id, kind, task) = match &message {
            Message::Call(call) => (call.id(), RequestKind::Undecided, None),
            Message::Other(other) => {
                let value = other.as_value();
                let mut task = None;
                let kind = match value.get("method").and_then(Value::as_str) {
                    // An answer to a request by the server.
                    None => return self.forward(other, version.as_deref(), None),
                    Some("initialize") => RequestKind::Initialize,
                    Some("server/discover") => RequestKind::Discover,
                    Some("tools/list") => RequestKind::List,
                    Some("subscriptions/listen") => {
                        let asked = value.pointer("/params/notifications/toolsListChanged");
                        if asked == Some(&Value::Bool(true)) { RequestKind::Listen } else { RequestKind::Other }
                    }
                    Some(method @ ("tasks/get" | "tasks/cancel" | "tasks/result")) => {
                        task = value.pointer("/params/taskId").and_then(Value::as_str).map(Into::into);
                        if method == "tasks/result" { RequestKind::TaskResult } else { RequestKind::TaskStatus }
                    }
                    Some(_) => RequestKind::Other,
                };
                (value.get("id"), kind, task)
            }
        };
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
                Some(id)
            }
        };
        let mut request = PendingRequest { task, ..PendingRequest::new(kind) };
        let forwarded = match message {
            Message::Call(mut call) => {
                request.progress = id.as_ref().and_then(|id| self.note_progress(call.meta(), id));
                request.held = self.resume(&mut call);
                call.http_version = version;
                FromClient::Decide(call)
            }
            Message::Other(other) => {
                let meta = other.as_value().get("params").and_then(|params| params.get("_meta"));
                request.progress = id.as_ref().and_then(|id| self.note_progress(meta, id));
                self.forward(&other, version.as_deref(), id.clone())
            }
        };
        if let Some(id) = id {
            self.pending.insert(id, request);
        }
        forwarded
    }

    fn forward(&mut self, message: &OtherMessage, version: Option<&str>, id: Option<RequestId>) -> FromClient {
        let headers = if self.writes_headers { headers::of_other(message, version) } else { Vec::new() };
        let value = message.as_value();
        let method: Option<Box<str>> = value.get("method").and_then(Value::as_str).map(Into::into);
        let cancels = match method.as_deref() {
            Some("notifications/cancelled") => self.cancel(value.pointer("/params/requestId")),
            _ => None,
        };
        FromClient::Forward { message: message.to_json(), id, method, cancels, headers }
    }

    /// Finds the call that this one continues, or the request for an approval that it repeats.
    fn resume(&mut self, call: &mut Call) -> Option<Box<(Box<str>, HeldCall<P>)>> {
        if !call.carries_state() {
            return None;
        }
        let state: Box<str> = call.request_state()?.into();
        let binding = Binding::of(&self.asker, call);
        if let Some(bound) = state.strip_prefix(APPROVAL_STATE) {
            if bound == binding.to_string() {
                let declines = call.declines_page();
                call.begin_again();
                call.wants_page = !declines;
            }
            return None;
        }
        let held = self.state.take(&state, binding)?;
        call.continue_with(held.server_state.as_deref(), held.approved_under);
        Some(Box::new((state, held)))
    }

    /// Takes the decision on a call from [`from_client`](Self::from_client), and keeps the permit
    /// until the call ends.
    ///
    /// Pass the same call whose [`tool_call`](Call::tool_call) the gate has decided: what was
    /// judged must be what is forwarded.
    pub fn decided(&mut self, call: Call, decision: Decision<P>) -> Routed {
        let refusal = Refusal::of(&decision);
        let id = call.id().and_then(RequestId::of);
        let pending = id.as_ref().and_then(|id| self.pending.remove(id));
        match (decision, refusal, id) {
            // A gate would have denied it, if it had been asked about this call.
            (Decision::Allow(permit), None, Some(_)) if call.carries_state() => {
                drop(permit);
                let denial = unknown_state(call.tool());
                let answer = call.answer(&Refusal::from(&denial), self.form(&call));
                Routed::Answer { answer: answer.unwrap_or_default() }
            }
            (Decision::Allow(permit), None, Some(id)) => {
                let mut request = pending.unwrap_or_else(|| PendingRequest::new(RequestKind::Call));
                request.kind = RequestKind::Call;
                match request.held.take().map(|held| *held) {
                    // The permit of this round holds nothing, except an approval that it has used.
                    Some((_, held)) => {
                        request.permit = Some(Box::new(held.permit));
                        request.ongoing = Some((held.binding, held.round.saturating_add(1)));
                    }
                    None => {
                        request.permit = Some(Box::new(permit));
                        request.ongoing = call.has_rounds().then(|| (Binding::of(&self.asker, &call), 1));
                    }
                }
                let headers = match self.writes_headers {
                    true => {
                        let tools = self.state.tools();
                        headers::of_call(&call, call.http_version.as_deref(), tools.get(call.tool()))
                    }
                    false => Vec::new(),
                };
                self.pending.insert(id.clone(), request);
                Routed::Forward { message: call.to_json(), id, headers }
            }
            (decision, refusal, id) => {
                if let (Some(id), Some(mut request)) = (id, pending) {
                    self.forget_progress(&request, &id);
                    if let Some((state, held)) = request.held.take().map(|held| *held) {
                        self.state.put_back(&state, held);
                    }
                }
                let answer = self.page(&call, &decision).or_else(|| call.answer(&refusal?, self.form(&call)));
                // A call from `from_client` has an id, and so an answer.
                Routed::Answer { answer: answer.unwrap_or_default() }
            }
        }
    }

    /// Returns the answer that sends the user to the page for an approval, if client and host have
    /// pages.
    fn page(&self, call: &Call, decision: &Decision<P>) -> Option<String> {
        let Decision::RequireApproval(request) = decision else { return None };
        if !call.wants_page || call.round != CallRound::First || !call.accepts_pages() {
            return None;
        }
        let page = self.approval_page.as_ref()?;
        let url = page(request.approval()?)?;
        let state = format!("{APPROVAL_STATE}{}", Binding::of(&self.asker, call));
        call.answer_with_page(&url, request.message(), &state)
    }

    fn form(&self, call: &Call) -> RefusalFormat {
        let of_version = || match call.protocol_version().or(self.protocol_version()) {
            Some(version) if !self.state.tools().may_have_output_schema(call.tool()) => {
                RefusalFormat::of_version(version)
            }
            _ => RefusalFormat::Text,
        };
        self.form.unwrap_or_else(of_version)
    }

    /// Notes that the client does not wait for a request any more, and returns it if it is pending.
    fn cancel(&mut self, id: Option<&Value>) -> Option<RequestId> {
        let id = id.and_then(RequestId::of)?;
        let request = self.pending.get_mut(&id).filter(|request| request.kind != RequestKind::GivenUp)?;
        request.is_cancelled = true;
        Some(id)
    }

    /// Notes the token under which the server reports the progress of a request.
    fn note_progress(&mut self, meta: Option<&Value>, id: &RequestId) -> Option<RequestId> {
        let token = RequestId::of(meta?.get("progressToken")?)?;
        if token.text().is_some_and(|text| text.len() > MAX_ID_BYTES) {
            return None;
        }
        self.progress.insert(token.clone(), id.clone());
        Some(token)
    }
}

/// Reads a message. The error comes with the id and the code of the answer.
fn read(message: &[u8], integers: Integers) -> Result<Message, (MalformedMessage, Option<String>, i32)> {
    let text = std::str::from_utf8(message).map_err(|error| {
        let why = "the text is not UTF-8".to_owned();
        (MalformedMessage { at: error.valid_up_to(), why }, Some("null".to_owned()), PARSE_ERROR)
    })?;
    Message::read_with(text, integers).map_err(|error| {
        let (id, code) = answerable(text);
        (error, id, code)
    })
}

fn unknown_state(tool: &str) -> Denial {
    let code = Code::UnknownState;
    let message = default_message(code, tool).into();
    decision::Refusal { code, rule: None, message, policy: None }.into()
}

fn malformed(why: &str) -> MalformedMessage {
    MalformedMessage { at: 0, why: why.to_owned() }
}
