//! Messages of the server.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::super::rounds::Interim;
use super::super::server_state::MAX_ROUNDS;
use super::super::{CallOutcome, RequestId};
use super::text::{Envelope, error, read_answer, read_list};
use super::{
    FinishedCall, FromServer, MAX_ANSWERED, MAX_TASK_TOKENS, NOT_ANSWERED, PendingRequest, RequestKind, SUBSCRIPTION,
    Session,
};
use crate::decision::permit::AnyPermit;
use crate::json::Node;
use crate::json::object::Object;

#[expect(private_bounds, reason = "for the two kinds of permits")]
impl<P: AnyPermit> Session<P> {
    /// Takes a message of the server. Linear in the message.
    ///
    /// It is forwarded unchanged, with these exceptions:
    ///
    /// - An answer to `tools/list`: `filter` gets its `result`, to remove the tools that the caller
    ///   must not see ([`filter_tools_list`](crate::mcp::filter_tools_list),
    ///   [`ToolPins::filter_tools_list`](crate::mcp::ToolPins::filter_tools_list)). If two parsers
    ///   could read a list differently, the client gets an error instead. Since the list is for one
    ///   caller, `cacheScope` becomes `private`, and `ttlMs` at most what the session
    ///   [allows](Self::with_max_list_ttl).
    /// - A request for input: its `requestState` becomes the session's own.
    /// - An answer to `initialize` or `server/discover`, if the session
    ///   [announces changes](Self::announcing_changes).
    /// - Line breaks between the tokens of the JSON become blanks, so that no client reads one
    ///   message as two.
    ///
    /// These messages are dropped: those that are not valid JSON-RPC, batches, those that could be
    /// read as two messages (also by a client that ignores the case of keys), answers to requests
    /// that are not pending, and progress of requests that are not. An answer that is sent again,
    /// as when a stream is resumed, is forwarded again and ends nothing.
    pub fn from_server<'m>(&mut self, message: &'m [u8], filter: impl FnOnce(&mut Value)) -> FromServer<'m, P> {
        let Ok(text) = std::str::from_utf8(message) else { return FromServer::Drop { why: "not UTF-8" } };
        let Some(envelope) = Envelope::read(text) else {
            return FromServer::Drop { why: "not a JSON-RPC message" };
        };
        // An answer to `tools/list` becomes an error for the client below.
        let is_answer = envelope.result && envelope.method.is_none();
        if envelope.has_variant && !(is_answer && self.asked_for_list(envelope.id.as_ref())) {
            return FromServer::Drop { why: "a key that differs from one of JSON-RPC's in case only" };
        }
        let plain = |progress, ended| {
            let message = in_one_line(text);
            FromServer::Forward { message, answers: None, progress, ended }
        };
        match (&envelope.method, envelope.result || envelope.error) {
            (Some(method), false) if &**method == "notifications/subscriptions/acknowledged" => {
                let message = self.acknowledged(text);
                return FromServer::Forward { message, answers: None, progress: None, ended: None };
            }
            (Some(method), false) => {
                return match self.notified(method, text) {
                    Ok((progress, ended)) => plain(progress, ended),
                    Err(why) => FromServer::Drop { why },
                };
            }
            (Some(_), true) => return FromServer::Drop { why: "a request and an answer in one" },
            (None, false) => return FromServer::Drop { why: "neither a request nor an answer" },
            (None, true) => {}
        }
        let id = match &envelope.id {
            // The server reports that it could not read an id.
            None | Some(Value::Null) if envelope.error && !envelope.result => return plain(None, None),
            id => id.as_ref().and_then(RequestId::of),
        };
        let pending = id.as_ref().and_then(|id| self.pending.get(id));
        let asked = match (&id, pending.map(|request| request.kind)) {
            (Some(_), Some(RequestKind::Undecided)) => None,
            (Some(id), Some(RequestKind::GivenUp)) => {
                self.pending.remove(id);
                None
            }
            (Some(id), Some(kind)) => {
                self.remember(id.clone(), kind);
                self.pending.remove(id)
            }
            (Some(id), None) => self.answered(id).map(PendingRequest::new),
            (None, _) => None,
        };
        let (Some(id), Some(request)) = (id, asked) else {
            return FromServer::Drop { why: "an answer to a request that is not pending" };
        };
        self.forget_progress(&request, &id);
        let (message, ended) = match request.kind {
            RequestKind::Call => match self.call_answered(request, &id, text, envelope.outline.as_ref()) {
                Some(answered) => answered,
                None => return FromServer::Drop { why: "a request for input that was sent again" },
            },
            RequestKind::List if envelope.result => (Cow::Owned(self.filtered(text, &id, filter)), None),
            RequestKind::Initialize => {
                self.note_version(text);
                (self.announced(text), None)
            }
            RequestKind::Discover => (self.announced(text), None),
            RequestKind::TaskStatus | RequestKind::TaskResult => {
                let ended = if envelope.result { self.task_reported(&request, &id, text) } else { None };
                (in_one_line(text), ended)
            }
            _ => (in_one_line(text), None),
        };
        FromServer::Forward { message, answers: Some(id), progress: None, ended }
    }

    /// Takes the body of a response of HTTP with a status from 400 to 499, as
    /// [`from_server`](Self::from_server) does. It is dropped unless it is an error. With such a
    /// status, the error -32602 (invalid params) also reports that the tool was not run.
    pub fn from_server_with_client_error<'m>(&mut self, message: &'m [u8]) -> FromServer<'m, P> {
        let envelope = std::str::from_utf8(message).ok();
        if !envelope.and_then(Envelope::read).is_some_and(|envelope| envelope.error && !envelope.result) {
            return FromServer::Drop { why: "not an error of JSON-RPC" };
        }
        match self.from_server(message, |_| {}) {
            FromServer::Forward { message, answers, progress, ended } => {
                let ended = ended
                    .map(|FinishedCall { permit, ending }| FinishedCall { permit, ending: ending.with_client_error() });
                FromServer::Forward { message, answers, progress, ended }
            }
            dropped @ FromServer::Drop { .. } => dropped,
        }
    }

    /// Takes the answer to a call. `None` if it must not be forwarded.
    fn call_answered<'m>(
        &mut self,
        mut request: PendingRequest<P>,
        id: &RequestId,
        text: &'m str,
        outline: Option<&Node<'_>>,
    ) -> Option<(Cow<'m, str>, Option<FinishedCall<P>>)> {
        let outcome = outline.and_then(|root| CallOutcome::read(id, root));
        let ending = request.ending(outcome.unwrap_or(CallOutcome::Unclear(None)));
        let permit = request.permit.take().map(|permit| *permit);
        let finished = |permit: P, ending| Some(FinishedCall { permit, ending });
        if ending != CallOutcome::Interim {
            return Some((in_one_line(text), permit.and_then(|permit| finished(permit, ending))));
        }
        let interim = read_answer(text).and_then(Interim::read);
        let unclear = CallOutcome::Unclear(None);
        let failure = |why: &str| Cow::Owned(error(&id.to_string(), NOT_ANSWERED, why, None));
        match (interim, permit, request.ongoing) {
            (Some(Interim::Input(_)), None, _) => None,
            // Only from this version on can a call have rounds. Its repetition will be refused.
            (Some(Interim::Input(_)), Some(permit), None) => Some((in_one_line(text), finished(permit, unclear))),
            (Some(Interim::Input(answer)), Some(permit), Some((binding, round))) => {
                let mut call = self.state.call(permit, binding, &self.asker);
                (call.round, call.server_state) = (round, state_of(&answer).map(Into::into));
                let held = if round < MAX_ROUNDS { self.state.hold_for_input(call) } else { Err(call) };
                Some(match held {
                    Ok(state) => (Cow::Owned(with_state(answer, &state)), None),
                    Err(call) => {
                        let why = "The call has asked for input too often, or too many calls wait for input.";
                        (failure(why), finished(call.permit, unclear))
                    }
                })
            }
            (Some(Interim::Task(task)), Some(permit), ongoing) => {
                if let Some(token) = request.progress.take() {
                    self.note_task_token(token);
                }
                let binding = ongoing.map_or(super::Binding::none(), |(binding, _)| binding);
                let call = self.state.call(permit, binding, &self.asker);
                let refused = self.state.hold_task(&task, call).err();
                let ended = refused.and_then(|call| finished(call.permit, CallOutcome::Interim));
                Some((in_one_line(text), ended))
            }
            (Some(Interim::Task(_)), None, _) => Some((in_one_line(text), None)),
            (None, permit, _) => {
                let why = "The server's answer can be read in more than one way.";
                Some((failure(why), permit.and_then(|permit| finished(permit, CallOutcome::Interim))))
            }
        }
    }

    /// Takes a request or notification of the server. Returns the request whose progress it
    /// reports, and the call that has ended.
    fn notified(
        &mut self,
        method: &str,
        text: &str,
    ) -> Result<(Option<RequestId>, Option<FinishedCall<P>>), &'static str> {
        match method {
            "notifications/progress" => {
                let token = read_answer(text)
                    .and_then(|message| message.pointer("/params/progressToken").and_then(RequestId::of));
                match token {
                    Some(token) if self.progress.contains_key(&token) => Ok((self.progress.get(&token).cloned(), None)),
                    Some(token) if self.task_tokens.contains(&token) => Ok((None, None)),
                    _ => Err("progress of a request that is not pending"),
                }
            }
            "notifications/tasks" | "notifications/tasks/status" => {
                let ended = read_answer(text).and_then(|message| {
                    let params = message.get("params")?;
                    self.task_ended(params.get("taskId")?.as_str()?, params)
                });
                Ok((None, ended))
            }
            _ => Ok((None, None)),
        }
    }

    /// Ends the call of a task if this answer reports the task's end.
    fn task_reported(&self, request: &PendingRequest<P>, id: &RequestId, text: &str) -> Option<FinishedCall<P>> {
        let task = request.task.as_deref()?;
        if request.kind == RequestKind::TaskResult {
            // The result of the call itself.
            let ending = CallOutcome::of_answer(id, text);
            return self.state.end_task(task).map(|permit| FinishedCall { permit, ending });
        }
        let answer = read_answer(text)?;
        let result = answer.get("result")?;
        let reported = result.get("task").unwrap_or(result);
        let is_same = reported.get("taskId").is_none_or(|id| id.as_str() == Some(task));
        if is_same { self.task_ended(task, reported) } else { None }
    }

    fn task_ended(&self, task: &str, reported: &Value) -> Option<FinishedCall<P>> {
        let ending = match reported.get("status")?.as_str()? {
            "completed" => CallOutcome::Succeeded,
            "failed" => CallOutcome::ToolFailed,
            "cancelled" => CallOutcome::Unclear(None),
            _ => return None,
        };
        self.state.end_task(task).map(|permit| FinishedCall { permit, ending })
    }

    /// The filtered answer to `tools/list`; an error if a client could read another list than was
    /// filtered.
    fn filtered(&mut self, text: &str, id: &RequestId, filter: impl FnOnce(&mut Value)) -> String {
        let Some(mut answer) = read_list(text) else {
            let why = "The server's list of tools can be read in more than one way.";
            return error(&id.to_string(), NOT_ANSWERED, why, None);
        };
        if let Some(result) = answer.get_mut("result") {
            self.state.tools().note_names(listed(result));
            filter(result);
            self.state.tools().note(listed(result));
            if let Some(members) = result.as_object_mut()
                && (members.contains_key("ttlMs") || members.contains_key("cacheScope"))
            {
                let most = u64::try_from(self.max_list_ttl.as_millis()).unwrap_or(u64::MAX);
                let given = members.get("ttlMs").and_then(Value::as_u64).unwrap_or_default();
                members.insert("ttlMs".to_owned(), given.min(most).into());
                members.insert("cacheScope".to_owned(), "private".into());
            }
        }
        answer.to_string()
    }

    /// The answer that lists the server's capabilities, which says that the list of tools may
    /// change.
    fn announced<'m>(&self, text: &'m str) -> Cow<'m, str> {
        let answer = if self.announces_changes { read_answer(text) } else { None };
        let Some(mut answer) = answer else { return in_one_line(text) };
        match answer.pointer_mut("/result/capabilities/tools").and_then(Value::as_object_mut) {
            Some(tools) => {
                tools.insert("listChanged".to_owned(), true.into());
                Cow::Owned(answer.to_string())
            }
            None => in_one_line(text),
        }
    }

    /// The acknowledgement of a subscription, which says that the client will learn of changes of
    /// the list of tools.
    fn acknowledged<'m>(&self, text: &'m str) -> Cow<'m, str> {
        let message = if self.announces_changes { read_answer(text) } else { None };
        let Some(mut message) = message else { return in_one_line(text) };
        let id = message.get("params").and_then(|params| RequestId::of(params.get("_meta")?.get(SUBSCRIPTION)?));
        let is_asked = id.and_then(|id| self.pending.get(&id)).is_some_and(|asked| asked.kind == RequestKind::Listen);
        match message.pointer_mut("/params/notifications").and_then(Value::as_object_mut) {
            Some(notifications) if is_asked => {
                notifications.insert("toolsListChanged".to_owned(), true.into());
                Cow::Owned(message.to_string())
            }
            _ => in_one_line(text),
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

    fn note_task_token(&mut self, token: RequestId) {
        if self.task_tokens.len() >= MAX_TASK_TOKENS {
            self.task_tokens.pop_front();
        }
        self.task_tokens.push_back(token);
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

/// Returns the message without raw line breaks, which JSON has between tokens only.
fn in_one_line(text: &str) -> Cow<'_, str> {
    // Without an early end, the compiler looks at many bytes at once.
    let breaks = text.bytes().fold(0, |any, byte| any | u8::from(byte == b'\n') | u8::from(byte == b'\r'));
    if breaks > 0 { text.replace(['\n', '\r'], " ").into() } else { text.into() }
}

fn listed(result: &Value) -> &[Value] {
    result.get("tools").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn state_of(answer: &Value) -> Option<&str> {
    answer.get("result")?.get("requestState")?.as_str()
}

fn with_state(mut answer: Value, state: &str) -> String {
    if let Some(result) = answer.get_mut("result").and_then(Value::as_object_mut) {
        result.insert("requestState".to_owned(), state.into());
    }
    answer.to_string()
}
