//! Both directions: what a client sends and what its server sends, through one session and one gate.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::process::ChildStdin;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use toolgate::mcp::{
    self, Call, CallOutcome, FailedRequest, FinishedCall, FromClient, FromServer, RequestId, Routed, Session,
};
use toolgate::{Decision, Gate, Permit, ToolCall};

use super::child::takes_a_little;
use super::lines::{Line, Lines};
use super::outline::Outline;
use crate::gateway::caller::Caller;
use crate::gateway::log::say;
use crate::gateway::options::Options;
use crate::gateway::pins::Pins;
use crate::gateway::text::plain;

/// A request that is answered when the client has heard enough, from 2026-07-28 on. (A message that is no call and only pretends to
/// be one waits for longer, and holds nothing.)
const LISTEN: &str = r#""method":"subscriptions/listen""#;

/// JSON-RPC's own codes.
const NO_REQUEST: i32 = -32600;
const INTERNAL_ERROR: i32 = -32603;

/// The connection of one client with one server. No lock is held while a pipe is written to but the pipe's own.
pub(crate) struct Relay {
    gate: Gate,
    pins: Option<Pins>,
    caller: Caller,
    session: Mutex<Session>,
    /// Until when each request that is under way must be answered.
    due: Mutex<HashMap<RequestId, Due>>,
    timeout: Option<Duration>,
    max_message: usize,
    to_client: Mutex<io::Stdout>,
    /// None once it has been closed.
    to_server: Mutex<Option<ChildStdin>>,
}

/// A request that is under way.
#[derive(Clone, Copy)]
struct Due {
    until: Instant,
    is_call: bool,
}

impl Relay {
    pub(crate) fn new(gate: Gate, pins: Option<Pins>, options: &Options, to_server: ChildStdin) -> Self {
        let session = options.form.into_iter().fold(Session::new(), Session::with_form);
        Self {
            gate,
            pins,
            caller: options.caller.clone(),
            session: Mutex::new(session),
            due: Mutex::default(),
            timeout: options.timeout,
            max_message: options.max_message,
            to_client: Mutex::new(io::stdout()),
            to_server: Mutex::new(Some(to_server)),
        }
    }

    /// Passes on what the client sends, as far as it may be, until it has no more to say.
    pub(crate) fn read_client(&self, from: impl Read) -> io::Result<()> {
        let mut lines = Lines::new(from, self.max_message);
        while let Some(line) = lines.next()? {
            match line {
                Line::Whole(message) => self.take_from_client(message)?,
                Line::TooLong(outline) => {
                    say(format_args!("refused a message of more than {} bytes", self.max_message));
                    self.tell_client(&too_long(outline, self.max_message))?;
                }
            }
        }
        Ok(())
    }

    fn take_from_client(&self, message: &[u8]) -> io::Result<()> {
        let taken = self.session.lock().from_client(message);
        match taken {
            FromClient::Forward { message, id } => {
                let due = self.due_after().filter(|_| !message.contains(LISTEN));
                self.tell_server(&message, id, due)
            }
            FromClient::Answer { answer, denial } => {
                say(format_args!("refused a message: {}", plain(denial.message())));
                // Which tool it might have called nobody can tell.
                self.gate.record_denial(&self.caller.names(ToolCall::new("", None::<&Value>)), &denial);
                answer.map_or(Ok(()), |answer| self.tell_client(&answer))
            }
            FromClient::Decide(call) => {
                let decision = self.decide(&call);
                let decided = self.session.lock().decided(call, decision);
                match decided {
                    Routed::Forward { message, id } => self.tell_call(&message, id),
                    Routed::Answer { answer } => self.tell_client(&answer),
                }
            }
        }
    }

    fn decide(&self, call: &Call) -> Decision {
        let call = self.caller.names(call.tool_call());
        match self.pins.as_ref().and_then(|pins| pins.denial(&call)) {
            Some(denial) => {
                self.gate.record_denial(&call, &denial);
                Decision::Deny(denial)
            }
            None => self.gate.check(&call),
        }
    }

    /// Passes on what the server sends, until it has closed its end. Of a client that has gone it is said so once; what becomes
    /// of its calls is noted all the same.
    pub(crate) fn read_server(&self, from: impl Read, client_has_gone: impl Fn()) -> io::Result<()> {
        let mut lines = Lines::new(from, self.max_message);
        let mut is_there = true;
        while let Some(line) = lines.next()? {
            let answer = match line {
                Line::Whole(message) => self.take_from_server(message),
                Line::TooLong(outline) => {
                    let why = format!("a message of the server has more than {} bytes", self.max_message);
                    say(format_args!("{why}: dropped"));
                    // A request that it answers is over.
                    let error = |id: String| error_answer(&id, INTERNAL_ERROR, &why);
                    outline.of_answer().and_then(|id| self.take_from_server(error(id).as_bytes()))
                }
            };
            if let (Some(answer), true) = (answer, is_there)
                && self.tell_client(&answer).is_err()
            {
                is_there = false;
                client_has_gone();
            }
        }
        Ok(())
    }

    fn take_from_server(&self, message: &[u8]) -> Option<String> {
        let taken = self.session.lock().from_server(message, |result| self.filter(result));
        match taken {
            FromServer::Forward { message, answers, ended } => {
                if let Some(id) = answers {
                    self.due.lock().remove(&id);
                }
                // Before the client knows: its next call may need what this one held.
                if let Some(ended) = ended {
                    conclude(ended);
                }
                Some(message.into_owned())
            }
            FromServer::Drop { why } => {
                say(format_args!("dropped a message of the server: {why}"));
                None
            }
        }
    }

    fn filter(&self, result: &mut Value) {
        let policy = self.gate.policy();
        match &self.pins {
            None => mcp::filter_tools_list(policy.as_ref(), result),
            Some(pins) => {
                let server = self.caller.server.as_deref().unwrap_or_default();
                pins.filter_tools_list(server, policy.as_ref(), result);
            }
        }
    }

    /// Answers the requests that have waited for too long, and tells the server that nobody waits for the calls among them.
    pub(crate) fn give_up(&self, now: Instant) {
        let mut late = Vec::new();
        self.due.lock().retain(|id, due| {
            let is_late = due.until <= now;
            if is_late {
                late.push((id.clone(), due.is_call));
            }
            !is_late
        });
        let seconds = self.timeout.unwrap_or_default().as_secs();
        for (id, is_call) in late {
            if is_call {
                self.cancel(&id);
            }
            let failed =
                self.session.lock().give_up(&id, &format!("the server has not answered within {seconds} seconds"));
            if let Some(failed) = failed {
                self.conclude(failed);
            }
        }
    }

    /// Tells the server that nobody waits for a call, if it can be told without waiting for the server.
    fn cancel(&self, id: &RequestId) {
        let reason = r#""reason":"it has taken too long""#;
        let message = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},{reason}}}}}{}"#,
            '\n'
        );
        if let Some(mut server) = self.to_server.try_lock()
            && let Some(server) = &mut *server
            && takes_a_little(server, message.len())
        {
            // If it has gone, its end is noticed elsewhere.
            let _ = server.write_all(message.as_bytes());
        }
    }

    /// Answers all requests that are under way: there will be no other answer.
    pub(crate) fn give_up_all(&self, why: &str) {
        let failed = self.session.lock().fail_all(CallOutcome::Unclear(None), why);
        self.due.lock().clear();
        for failed in failed {
            self.conclude(failed);
        }
    }

    fn fail(&self, id: &RequestId, ending: CallOutcome, why: &str) {
        let failed = self.session.lock().fail(id, ending, why);
        if let Some(failed) = failed {
            self.conclude(failed);
        }
    }

    fn conclude(&self, failed: FailedRequest<Permit>) {
        if let Some(ended) = failed.ended {
            conclude(ended);
        }
        if let Some(answer) = failed.answer {
            // If the client has gone, nobody waits for it.
            let _ = self.tell_client(&answer);
        }
    }

    /// Whether requests wait for an answer.
    pub(crate) fn is_at_work(&self) -> bool {
        self.session.lock().under_way() > 0
    }

    /// Tells the server that nothing more will come.
    pub(crate) fn close_server(&self) {
        self.to_server.lock().take();
    }

    fn tell_client(&self, message: &str) -> io::Result<()> {
        let mut client = self.to_client.lock();
        client.write_all(format!("{message}\n").as_bytes())?;
        client.flush()
    }

    fn tell_call(&self, message: &str, id: RequestId) -> io::Result<()> {
        let due = self.due_after().map(|due| Due { is_call: true, ..due });
        self.tell_server(message, Some(id), due)
    }

    /// When a request that is sent now is late.
    fn due_after(&self) -> Option<Due> {
        self.timeout.map(|timeout| Due { until: Instant::now() + timeout, is_call: false })
    }

    /// Sends a message to the server. What cannot be sent has not been done, or not whole; the client is told, and goes on.
    fn tell_server(&self, message: &str, id: Option<RequestId>, due: Option<Due>) -> io::Result<()> {
        if let (Some(id), Some(due)) = (&id, due) {
            self.due.lock().insert(id.clone(), due);
        }
        let sent = match &mut *self.to_server.lock() {
            Some(server) => send(server, format!("{message}\n").as_bytes()),
            None => Err(CallOutcome::NotRun),
        };
        if let (Err(ending), Some(id)) = (sent, id) {
            self.due.lock().remove(&id);
            self.fail(&id, ending, "the server has gone");
        }
        Ok(())
    }
}

/// Gives back what the call has not used, or frees what it held.
fn conclude(ended: FinishedCall<Permit>) {
    if let Err(error) = ended.conclude() {
        say(format_args!("{error}: the call stays counted"));
    }
}

/// Writes it all. A server that has read nothing of it has done nothing; of one that has read a part, nobody can tell.
fn send(server: &mut impl Write, message: &[u8]) -> Result<(), CallOutcome> {
    let mut ending = CallOutcome::NotRun;
    let mut rest = message;
    while !rest.is_empty() {
        match server.write(rest) {
            Ok(0) => return Err(ending),
            Ok(written) => {
                rest = rest.get(written..).unwrap_or_default();
                ending = CallOutcome::Unclear(None);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(ending),
        }
    }
    server.flush().map_err(|_| ending)
}

/// The answer to a message that is too long: to its sender, if that is certain.
fn too_long(outline: Outline, bound: usize) -> String {
    match outline.of_request() {
        Some(id) => error_answer(&id, NO_REQUEST, &format!("The message has more than {bound} bytes.")),
        None => mcp::too_long(bound),
    }
}

fn error_answer(id: &str, code: i32, why: &str) -> String {
    let why = Value::from(why);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{why}}}}}"#)
}
