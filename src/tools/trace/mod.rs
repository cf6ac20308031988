//! Traces: steps, one a line, that run against a gate whose clock the trace sets.
//!
//! A trace and its answers are JSON Lines. The trace carries its own time, so that it always gets
//! the same answers. A step is one of those below. It may have `"at"`, in RFC 3339 or in seconds
//! since the start (2026-01-15T10:30:00Z, a Thursday), and `"id"`, by which later steps name a call
//! (`"#<line>"` by default). Unknown members are refused.
//!
//! | step | effect |
//! |---|---|
//! | `{"call": {"tool", "arguments"?, "server"?, "grant"?, "session"?, "agent"?, "user"?, "context"?, "task"?: true, "input"?: {..}}, "approval"?: "<id>"}` | decides the call; with `approval`, under the approval that the named call asked for, and no other |
//! | `{"message": "<text>"}`, or a line that holds `"jsonrpc"` | reads it [strictly](crate::mcp::Message) and decides it |
//! | `{"caller": {"grant"?, "session"?, "agent"?, "user"?, "server"?, "context"?}}` | sets the caller of the calls that follow |
//! | `{"release": "<id>"}`, `{"settle": "<id>", "amount": n}`, `{"end": "<id>"}` | releases, settles or ends an allowed call |
//! | `{"approve": "<id>", "by": ".."}`, `{"refuse": "<id>", "by": ".."}` | approves or refuses what a call has asked for |
//! | `{"policy": {..}}`, `{"policy": "<file>"}`, `{"policy": null}` | replaces the policy, or removes it; the counters are kept |
//! | `{"store": "down"}`, `{"store": "up"}` | the counters fail from here on, or answer again |
//! | `{"tools_list": {..}}` | filters a `tools/list` result |
//!
//! [`testing`](crate::testing) runs cases of such steps, and [`replay`](crate::replay) whole
//! histories.

mod answer;
mod fault_store;
mod step;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::amount::Amount;
use crate::approval::{Approval, ApprovalId, ApprovalStore, CallDigest, DecideError, MemoryApprovals};
use crate::call::ToolCall;
use crate::decision::permit::{Permit, SettleError};
use crate::decision::{Decision, Denial};
use crate::gate::Gate;
use crate::json::object::Object;
use crate::mcp::{self, Message};
use crate::policy::{Code, Policy, PolicyError};
use crate::store::StoreError;
use crate::time::{Clock, ManualClock, Timestamp};
use step::{At, Call, Caller, Line, Switch};

pub use answer::{Answer, Summary};
pub use fault_store::FaultStore;
pub(crate) use step::explained;

/// The start of every trace: 2026-01-15T10:30:00Z, a Thursday.
pub const START: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

/// The number of calls that later steps can name: the latest.
const KNOWN: usize = 1 << 17;

/// Runs a trace against a gate of its own, line by line.
///
/// It keeps the latest 131,072 calls. An older call is unknown to later steps, and has ended.
///
/// ```
/// use toolgate::trace::Runner;
///
/// let policy = r#"{ "version": "1", "default": "deny",
///     "tools": { "search": { "rate_limit": { "max": 1, "window": 60, "scope": "grant" } } } }"#;
/// let mut runner = Runner::new(policy.parse()?);
/// let mut decide = |line| runner.answer(line).map(|answer| serde_json::json!(answer)["decision"].clone());
/// let search = r#"{ "call": { "tool": "search", "grant": "g-42" } }"#;
/// assert_eq!(decide(search).unwrap(), "allow");
/// assert_eq!(decide(search).unwrap(), "rate_limited");
/// assert_eq!(decide(r#"{ "at": 60, "call": { "tool": "search", "grant": "g-42" } }"#).unwrap(), "allow");
/// # Ok::<(), toolgate::PolicyError>(())
/// ```
#[must_use = "a runner does nothing until it has lines to answer"]
pub struct Runner {
    gate: RunnerGate,
    store: Arc<FaultStore>,
    clock: ManualClock,
    caller: Caller,
    /// Calls by id.
    calls: HashMap<Arc<str>, Known>,
    /// The ids of all known calls, the oldest first. The id of a repeated call appears again.
    order: VecDeque<Arc<str>>,
    files: Box<Files>,
    complain: Box<Complain>,
    watch: Option<Box<Watch>>,
    line: usize,
    summary: Summary,
}

type Files = dyn FnMut(&str) -> io::Result<Vec<u8>> + Send;
type Complain = dyn FnMut(&str, &PolicyError) + Send;
/// Receives each call that was decided, with the policy, the time and the decision.
type Watch = dyn FnMut(&ToolCall<'_>, Option<&Policy>, Timestamp, &Decision) + Send;

/// A call that was decided.
struct Known {
    state: State,
    /// The approval that it asked for, if it did.
    request: Option<ApprovalId>,
    /// How often its id appears in the order.
    made: u32,
}

/// The state of a call.
enum State {
    Refused,
    Open(Box<Permit>),
    /// Released or ended.
    Done,
}

type RunnerGate = Gate<Arc<FaultStore>>;

/// A person's answer to a request: [`Gate::approve`] or [`Gate::refuse`].
type Decide = fn(&RunnerGate, &ApprovalId, &str) -> Result<Approval, DecideError>;

/// An id that no approval has, for a call that names an approval which was never asked for.
const NO_APPROVAL: ApprovalId = ApprovalId::new(CallDigest::new([0; 32]), 0);

impl Runner {
    /// Creates a gate under `policy` at the start of a trace. Counters and approvals are in memory.
    pub fn new(policy: Policy) -> Self {
        Self::over(policy, MemoryApprovals::new())
    }

    /// Creates a gate as [`new`](Self::new) does, with approvals in the given store.
    pub fn over(policy: Policy, approvals: impl ApprovalStore + 'static) -> Self {
        let clock = ManualClock::new(START);
        let store = Arc::new(FaultStore::default());
        let builder = Gate::builder().policy(policy).store(Arc::clone(&store)).clock(clock.clone());
        // A trace says who approves; it does not say what that person saw.
        let gate = builder.approvals(approvals).approve_unseen().build();
        let (caller, summary) = (Caller::default(), Summary::default());
        let (calls, order) = (HashMap::new(), VecDeque::new());
        let files: Box<Files> = Box::new(|_| Err(io::ErrorKind::Unsupported.into()));
        let complain: Box<Complain> = Box::new(|_, _| {});
        Self { gate, store, clock, caller, calls, order, files, complain, watch: None, line: 0, summary }
    }

    /// Reads the files that `policy` steps name with this function. By default such steps fail,
    /// because a trace may come from an untrusted source.
    pub fn files(self, read: impl FnMut(&str) -> io::Result<Vec<u8>> + Send + 'static) -> Self {
        Self { files: Box::new(read), ..self }
    }

    /// Calls this function for each `policy` step with an invalid policy, with the name of its file
    /// (or the step's id) and the error.
    pub fn on_invalid_policy(self, hear: impl FnMut(&str, &PolicyError) + Send + 'static) -> Self {
        Self { complain: Box::new(hear), ..self }
    }

    pub(crate) fn watch(
        self,
        watch: impl FnMut(&ToolCall<'_>, Option<&Policy>, Timestamp, &Decision) + Send + 'static,
    ) -> Self {
        Self { watch: Some(Box::new(watch)), ..self }
    }

    /// Returns the gate that decides the calls.
    pub fn gate(&self) -> &Gate<Arc<FaultStore>> {
        &self.gate
    }

    /// Returns the totals so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Returns the current time of the trace.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Runs the next line and returns its answer, or `None` for a blank line. A line that cannot be
    /// read is answered `unreadable`, and changes nothing.
    pub fn answer(&mut self, text: &str) -> Option<Answer> {
        self.line += 1;
        if text.trim().is_empty() {
            return None;
        }
        self.summary.steps += 1;
        let id = format!("#{}", self.line);
        if is_message(text) {
            return Some(self.message(id, text));
        }
        let Ok(Object(line)) = serde_json::from_str::<Object<Line>>(text) else { return Some(self.unreadable(id)) };
        let before = self.clock.now();
        let answer = self.step(id, line);
        if let Answer::Failed { error: "unreadable", .. } = answer {
            self.clock.set(before);
        }
        Some(answer)
    }

    fn unreadable(&mut self, id: String) -> Answer {
        self.summary.unreadable += 1;
        Answer::Failed { id, error: "unreadable" }
    }

    fn step(&mut self, default_id: String, line: Line) -> Answer {
        let Some(now) = At::instant(line.at, self.clock.now()) else { return self.unreadable(default_id) };
        let id = line.id.unwrap_or(default_id);
        let steps =
            (line.call, line.message, line.caller, line.release, line.end, line.policy, line.store, line.tools_list);
        self.clock.set(now);
        let alone = line.approval.is_none() && matches!(steps, (None, None, None, None, None, None, None, None));
        if line.approve.is_some() || line.refuse.is_some() || line.by.is_some() {
            let alone = alone && line.settle.is_none() && line.amount.is_none();
            return match (line.approve, line.refuse, line.by) {
                (Some(of), None, Some(by)) if alone => self.verdict(id, &of, &by, RunnerGate::approve),
                (None, Some(of), Some(by)) if alone => self.verdict(id, &of, &by, RunnerGate::refuse),
                _ => self.unreadable(id),
            };
        }
        if let Some(of) = line.settle {
            return if alone { self.settle(id, &of, line.amount.as_ref()) } else { self.unreadable(id) };
        }
        if line.amount.is_some() {
            return self.unreadable(id);
        }
        match steps {
            (Some(Object(call)), None, None, None, None, None, None, None) => self.call(id, &call, line.approval),
            _ if line.approval.is_some() => self.unreadable(id),
            (None, Some(text), None, None, None, None, None, None) => self.message(id, &text),
            (None, None, Some(Object(caller)), None, None, None, None, None) => {
                self.caller = caller;
                Answer::Done { id, ok: true }
            }
            (None, None, None, Some(of), None, None, None, None) => {
                match self.calls.get(&*of).map(|known| &known.state) {
                    Some(State::Open(permit)) if permit.is_settled() => Answer::Failed { id, error: "already_done" },
                    _ => self.finish(id, &of, Permit::try_release),
                }
            }
            (None, None, None, None, Some(of), None, None, None) => self.finish(id, &of, |permit| {
                drop(permit);
                Ok(())
            }),
            (None, None, None, None, None, Some(policy), None, None) => self.policy(id, &policy),
            (None, None, None, None, None, None, Some(switch), None) => {
                self.store.set_down(matches!(switch, Switch::Down));
                Answer::Done { id, ok: true }
            }
            (None, None, None, None, None, None, None, Some(mut result)) => {
                mcp::filter_tools_list(self.gate.policy().as_ref(), &mut result);
                let name = |tool: &Value| tool.get("name").and_then(Value::as_str).map(str::to_owned);
                let tools = result.get("tools").and_then(Value::as_array);
                Answer::Tools { id, tools: tools.into_iter().flatten().filter_map(name).collect() }
            }
            _ => self.unreadable(id),
        }
    }

    fn call(&mut self, id: String, call: &Call, approval: Option<String>) -> Answer {
        let tool_call = call.by(&self.caller);
        let named = approval.map(|of| self.calls.get(&*of).and_then(|known| known.request).unwrap_or(NO_APPROVAL));
        let decision = self.gate.check(&tool_call.approval(named.as_ref()));
        if let Some(watch) = &mut self.watch {
            watch(&tool_call, self.gate.policy().as_ref(), self.clock.now(), &decision);
        }
        self.decided(id, decision)
    }

    fn message(&mut self, id: String, text: &str) -> Answer {
        let decision = match Message::read(text) {
            Ok(Message::Call(call)) => {
                let tool_call = self.caller.make(call.tool_call());
                let decision = self.gate.check(&tool_call);
                if let Some(watch) = &mut self.watch {
                    watch(&tool_call, self.gate.policy().as_ref(), self.clock.now(), &decision);
                }
                decision
            }
            Ok(Message::Other(_)) => return Answer::Failed { id, error: "not_a_call" },
            Err(malformed) => Decision::Deny(Denial::from(malformed)),
        };
        self.decided(id, decision)
    }

    fn decided(&mut self, id: String, decision: Decision) -> Answer {
        self.summary.count(&decision);
        let answer = Answer::Decided {
            id: id.clone(),
            decision: decision.as_str(),
            code: decision.code().map(Code::as_str),
            rule: decision.rule().map(str::to_owned),
            message: decision.message().map(str::to_owned),
            retry_after: decision.retry_after().map(answer::seconds),
            limits: decision.limits(),
        };
        let request = match &decision {
            Decision::RequireApproval(request) => request.approval().map(|approval| *approval.id()),
            Decision::Allow(_) | Decision::Deny(_) | Decision::RateLimit(_) => None,
        };
        let state = match decision {
            Decision::Allow(permit) => State::Open(Box::new(permit)),
            Decision::Deny(_) | Decision::RateLimit(_) | Decision::RequireApproval(_) => State::Refused,
        };
        self.know(id.into(), state, request);
        answer
    }

    /// Keeps a call for later steps, and drops the oldest of more than [`KNOWN`].
    fn know(&mut self, id: Arc<str>, state: State, request: Option<ApprovalId>) {
        let made = self.calls.get(&id).map_or(1, |known| known.made.saturating_add(1));
        self.calls.insert(Arc::clone(&id), Known { state, request, made });
        self.order.push_back(id);
        if self.order.len() <= KNOWN {
            return;
        }
        if let Some(oldest) = self.order.pop_front()
            && let Some(known) = self.calls.get_mut(&oldest)
        {
            known.made -= 1;
            if known.made == 0 {
                self.calls.remove(&oldest);
            }
        }
    }

    fn finish(&mut self, id: String, of: &str, how: impl FnOnce(Permit) -> Result<(), StoreError>) -> Answer {
        let state = self.calls.get_mut(of).map(|known| &mut known.state);
        let error = match state {
            None | Some(State::Refused) => "unknown_call",
            Some(State::Done) => "already_done",
            Some(open) => match std::mem::replace(open, State::Done) {
                State::Open(permit) => match how(*permit) {
                    Ok(()) => return Answer::Done { id, ok: true },
                    Err(_) => "store_unavailable",
                },
                State::Refused | State::Done => "unknown_call",
            },
        };
        Answer::Failed { id, error }
    }

    fn verdict(&mut self, id: String, of: &str, by: &str, decide: Decide) -> Answer {
        match self.calls.get(of).map(|known| &known.request) {
            None => Answer::Failed { id, error: "unknown_call" },
            Some(None) => Answer::Failed { id, error: "not_pending" },
            Some(Some(request)) => match decide(&self.gate, request, by) {
                Ok(_) => Answer::Done { id, ok: true },
                Err(error) => Answer::Failed { id, error: error.as_str() },
            },
        }
    }

    fn settle(&mut self, id: String, of: &str, amount: Option<&Value>) -> Answer {
        let permit = match self.calls.get_mut(of).map(|known| &mut known.state) {
            None | Some(State::Refused) => return Answer::Failed { id, error: "unknown_call" },
            Some(State::Done) => return Answer::Failed { id, error: "already_done" },
            Some(State::Open(permit)) => permit,
        };
        let real = amount.and_then(Value::as_number).and_then(|number| Amount::from_number(number).ok());
        let error = match real.map(|real| permit.settle(real)) {
            Some(Ok(())) => return Answer::Done { id, ok: true },
            Some(Err(SettleError::AlreadySettled)) => "already_done",
            Some(Err(_)) => "store_unavailable",
            None if permit.is_settled() => "already_done",
            None => "amount_invalid",
        };
        Answer::Failed { id, error }
    }

    fn policy(&mut self, id: String, policy: &RawValue) -> Answer {
        let (place, read) = match serde_json::from_str::<Option<Value>>(policy.get()) {
            Ok(None) => (String::new(), Ok(None)),
            Ok(Some(Value::String(file))) => match (self.files)(&file) {
                Ok(bytes) => (file, Policy::from_slice(&bytes).map(Some)),
                Err(_) => return Answer::Failed { id, error: "policy_invalid" },
            },
            // Read from the text, which keeps the order of entries and shows duplicate keys.
            _ => (format!("policy {id}"), Policy::from_json(policy.get()).map(Some)),
        };
        match read {
            Ok(policy) => {
                self.gate.replace_policy(policy);
                Answer::Done { id, ok: true }
            }
            Err(error) => {
                (self.complain)(&place, &error);
                Answer::Failed { id, error: "policy_invalid" }
            }
        }
    }
}

/// Returns `true` if a line is a JSON-RPC message or a batch. Only the gate's strict reader reads
/// such a line, because a lenient reader keeps the last of two equal keys without an error.
fn is_message(text: &str) -> bool {
    // The name of the member is spelled out, or has an escape.
    if !text.contains("jsonrpc") && !text.contains("\\u") {
        return false;
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(members)) => members.contains_key("jsonrpc"),
        Ok(Value::Array(elements)) => elements.iter().any(|element| element.get("jsonrpc").is_some()),
        Ok(_) => false,
        Err(_) => text.contains("\"jsonrpc\""),
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("line", &self.line).field("now", &self.now()).finish_non_exhaustive()
    }
}
