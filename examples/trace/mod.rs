//! Runs a trace: what happens, line by line, against a gate whose clock stands in the trace.
//!
//! Shared by `decide`, `shadow` and the tests, which judge the same answers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value, json};
use toolgate::approval::CallDigest;
use toolgate::charge::{CounterId, Subject};
use toolgate::mcp::{self, Message};
use toolgate::store::{CounterStore, MemoryStore, Outcome, Reserve, Settle, StoreError};
use toolgate::{
    Amount, Approval, ApprovalId, ApprovalStore, Clock, DecideError, Decision, Denial, Gate, LimitState, ManualClock,
    MemoryApprovals, Permit, Policy, PolicyError, SettleError, Timestamp, ToolCall,
};

/// When a trace begins: 2026-01-15T10:30:00Z, a Thursday.
const START: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

/// A gate, and what the trace has brought about so far.
pub(crate) struct Runner {
    pub(crate) gate: Gate<Arc<SwitchStore>>,
    store: Arc<SwitchStore>,
    clock: ManualClock,
    caller: Caller,
    /// By the call's id; taken out when it was released or has ended.
    permits: HashMap<String, Option<Permit>>,
    /// By the call's id: what it asked a person for, if it did.
    requests: HashMap<String, Option<ApprovalId>>,
    line: usize,
    summary: Summary,
}

/// Counters in memory that can be made to fail.
#[derive(Default)]
pub(crate) struct SwitchStore {
    counters: MemoryStore,
    down: AtomicBool,
}

impl SwitchStore {
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    fn reach(&self) -> Result<&MemoryStore, StoreError> {
        if self.down.load(Ordering::Relaxed) { Err(StoreError::Unavailable(None)) } else { Ok(&self.counters) }
    }
}

impl CounterStore for SwitchStore {
    fn reserve(&self, request: &Reserve<'_>) -> Result<Outcome, StoreError> {
        self.reach()?.reserve(request)
    }

    fn peek(&self, request: &Reserve<'_>) -> Result<Outcome, StoreError> {
        self.reach()?.peek(request)
    }

    fn settle(&self, request: &Settle<'_>) -> Result<(), StoreError> {
        self.reach()?.settle(request)
    }

    fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        self.reach()?.reset(counter, subject)
    }
}

/// One line of a trace: a time, an id, and one of the steps.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: Option<At>,
    id: Option<String>,
    call: Option<Call>,
    /// The call that asked for the approval which this call comes with.
    approval: Option<String>,
    approve: Option<String>,
    refuse: Option<String>,
    /// Who approves or refuses.
    by: Option<String>,
    message: Option<String>,
    caller: Option<Caller>,
    release: Option<String>,
    settle: Option<String>,
    /// What the call of `settle` has really cost.
    #[serde(default, deserialize_with = "present")]
    amount: Option<Value>,
    end: Option<String>,
    /// `null` is a step of its own: it takes the policy away.
    #[serde(default, deserialize_with = "present")]
    policy: Option<Box<RawValue>>,
    store: Option<Switch>,
    tools_list: Option<Value>,
}

/// RFC 3339, or seconds since the start of the trace.
#[derive(Deserialize)]
#[serde(untagged)]
enum At {
    Instant(String),
    Seconds(Number),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    tool: String,
    arguments: Option<Value>,
    server: Option<String>,
    grant: Option<String>,
    session: Option<String>,
    agent: Option<String>,
    user: Option<String>,
    context: Option<Map<String, Value>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Caller {
    server: Option<String>,
    grant: Option<String>,
    session: Option<String>,
    agent: Option<String>,
    user: Option<String>,
    context: Option<Map<String, Value>>,
}

impl Caller {
    /// The call, made by this caller.
    fn make<'a>(&'a self, call: ToolCall<'a>) -> ToolCall<'a> {
        let Self { server, grant, session, agent, user, context } = self;
        call.server(server.as_deref())
            .grant(grant.as_deref())
            .session(session.as_deref())
            .agent(agent.as_deref())
            .user(user.as_deref())
            .context(context.as_ref())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Switch {
    Up,
    Down,
}

fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// What a trace answers to a line.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    /// To a call.
    Decided {
        id: String,
        decision: &'static str,
        code: Option<&'static str>,
        rule: Option<String>,
        message: Option<String>,
        retry_after: Option<Value>,
        limits: Vec<LimitState>,
    },
    /// To a list of tools: the names of those that stay.
    Tools {
        id: String,
        tools: Vec<String>,
    },
    Done {
        id: String,
        ok: bool,
    },
    Failed {
        id: String,
        error: &'static str,
    },
}

/// Tells of a document that a `policy` step could not put in force.
pub(crate) type Complain<'c> = &'c mut dyn FnMut(&str, Result<&PolicyError, &std::io::Error>);

/// What a person says of a request.
type Decide = fn(&Gate<Arc<SwitchStore>>, &ApprovalId, &str) -> Result<Approval, DecideError>;

/// For a call that names an approval which was never asked for: an id that none has.
const NO_APPROVAL: ApprovalId = ApprovalId::new(CallDigest::new([0; 32]), 0);

impl Runner {
    pub(crate) fn new(policy: Policy) -> Self {
        Self::over(policy, MemoryApprovals::new())
    }

    /// With approvals in a store of one's own.
    pub(crate) fn over(policy: Policy, approvals: impl ApprovalStore + 'static) -> Self {
        let clock = ManualClock::new(START);
        let store = Arc::new(SwitchStore::default());
        let builder = Gate::builder().policy(policy).store(Arc::clone(&store)).clock(clock.clone());
        let gate = builder.approvals(approvals).build();
        let (caller, summary) = (Caller::default(), Summary::default());
        let (permits, requests) = (HashMap::new(), HashMap::new());
        Self { gate, store, clock, caller, permits, requests, line: 0, summary }
    }

    /// Answers the next line; nothing to a blank one.
    pub(crate) fn answer(&mut self, text: &str, complain: Complain<'_>) -> Option<Answer> {
        self.line += 1;
        if text.trim().is_empty() {
            return None;
        }
        self.summary.steps += 1;
        let id = format!("#{}", self.line);
        // A JSON-RPC message is read by the gate's own reader and no other: one that keeps the last of two equal keys would
        // not notice them.
        let parsed = serde_json::from_str::<Value>(text);
        let is_message = match &parsed {
            Ok(Value::Object(members)) => members.contains_key("jsonrpc"),
            Ok(Value::Array(elements)) => elements.iter().any(|element| element.get("jsonrpc").is_some()),
            Ok(_) => false,
            Err(_) => text.contains("\"jsonrpc\""),
        };
        if is_message {
            return Some(self.message(id, text));
        }
        match serde_json::from_str::<Line>(text) {
            Ok(line) => Some(self.step(id, line, complain)),
            Err(_) => Some(self.unreadable(id)),
        }
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    fn unreadable(&mut self, id: String) -> Answer {
        self.summary.unreadable += 1;
        Answer::Failed { id, error: "unreadable" }
    }

    fn step(&mut self, default_id: String, line: Line, complain: Complain<'_>) -> Answer {
        let now = match line.at {
            None => Some(self.clock.now()),
            Some(At::Instant(text)) => text.parse().ok(),
            Some(At::Seconds(seconds)) => {
                let micros = (seconds.as_f64().unwrap_or(f64::INFINITY) * 1e6).round();
                let fits = micros.abs() < 1e17;
                #[expect(clippy::cast_possible_truncation, reason = "whole and far within an `i64`")]
                fits.then(|| Timestamp::from_unix_micros(START.unix_micros() + micros as i64))
            }
        };
        let Some(now) = now else { return self.unreadable(default_id) };
        let id = line.id.unwrap_or(default_id);
        let steps =
            (line.call, line.message, line.caller, line.release, line.end, line.policy, line.store, line.tools_list);
        self.clock.set(now);
        let alone = line.approval.is_none() && matches!(steps, (None, None, None, None, None, None, None, None));
        if line.approve.is_some() || line.refuse.is_some() || line.by.is_some() {
            let alone = alone && line.settle.is_none() && line.amount.is_none();
            return match (line.approve, line.refuse, line.by) {
                (Some(of), None, Some(by)) if alone => self.verdict(id, &of, &by, Gate::approve),
                (None, Some(of), Some(by)) if alone => self.verdict(id, &of, &by, Gate::refuse),
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
            (Some(call), None, None, None, None, None, None, None) => self.call(id, &call, line.approval),
            _ if line.approval.is_some() => self.unreadable(id),
            (None, Some(text), None, None, None, None, None, None) => self.message(id, &text),
            (None, None, Some(caller), None, None, None, None, None) => {
                self.caller = caller;
                Answer::Done { id, ok: true }
            }
            (None, None, None, Some(of), None, None, None, None) => match self.permits.get(&of) {
                Some(Some(permit)) if permit.is_settled() => Answer::Failed { id, error: "already_done" },
                _ => self.finish(id, &of, Permit::try_release),
            },
            (None, None, None, None, Some(of), None, None, None) => self.finish(id, &of, |permit| {
                drop(permit);
                Ok(())
            }),
            (None, None, None, None, None, Some(policy), None, None) => self.policy(id, &policy, complain),
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
        let mut tool_call = self.caller.make(ToolCall::new(&call.tool, call.arguments.as_ref()));
        // What the call names itself stands in place of what the caller is.
        for (own, set) in [
            (&call.server, ToolCall::server as fn(_, _) -> _),
            (&call.grant, ToolCall::grant),
            (&call.session, ToolCall::session),
            (&call.agent, ToolCall::agent),
            (&call.user, ToolCall::user),
        ] {
            if let Some(own) = own {
                tool_call = set(tool_call, own.as_str());
            }
        }
        if let Some(context) = &call.context {
            tool_call = tool_call.context(context);
        }
        let decision = match approval.map(|of| self.requests.get(&of).copied().flatten()) {
            None => self.gate.check(&tool_call),
            Some(named) => self.gate.check_approved(&tool_call, &named.unwrap_or(NO_APPROVAL)),
        };
        self.decided(id, decision)
    }

    fn message(&mut self, id: String, text: &str) -> Answer {
        let decision = match Message::read(text) {
            Ok(Message::Call(call)) => self.gate.check(&self.caller.make(call.tool_call())),
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
            code: decision.code().map(toolgate::Code::as_str),
            rule: decision.rule().map(str::to_owned),
            message: decision.message().map(str::to_owned),
            retry_after: decision.retry_after().map(seconds),
            limits: decision.limits(),
        };
        let request = match &decision {
            Decision::RequireApproval(request) => request.approval().map(|approval| *approval.id()),
            Decision::Allow(_) | Decision::Deny(_) | Decision::RateLimit(_) => None,
        };
        self.requests.insert(id.clone(), request);
        match decision {
            Decision::Allow(permit) => self.permits.insert(id, Some(permit)),
            Decision::Deny(_) | Decision::RateLimit(_) | Decision::RequireApproval(_) => self.permits.remove(&id),
        };
        answer
    }

    fn finish(&mut self, id: String, of: &str, how: impl FnOnce(Permit) -> Result<(), StoreError>) -> Answer {
        let error = match self.permits.get_mut(of).map(Option::take) {
            None => "unknown_call",
            Some(None) => "already_done",
            Some(Some(permit)) => match how(permit) {
                Ok(()) => return Answer::Done { id, ok: true },
                Err(_) => "store_unavailable",
            },
        };
        Answer::Failed { id, error }
    }

    fn verdict(&mut self, id: String, of: &str, by: &str, decide: Decide) -> Answer {
        match self.requests.get(of) {
            None => Answer::Failed { id, error: "unknown_call" },
            Some(None) => Answer::Failed { id, error: "not_pending" },
            Some(Some(request)) => match decide(&self.gate, request, by) {
                Ok(_) => Answer::Done { id, ok: true },
                Err(error) => Answer::Failed { id, error: error.as_str() },
            },
        }
    }

    fn settle(&mut self, id: String, of: &str, amount: Option<&Value>) -> Answer {
        let permit = match self.permits.get_mut(of) {
            None => return Answer::Failed { id, error: "unknown_call" },
            Some(None) => return Answer::Failed { id, error: "already_done" },
            Some(Some(permit)) => permit,
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

    fn policy(&mut self, id: String, policy: &RawValue, complain: Complain<'_>) -> Answer {
        let read = match serde_json::from_str::<Option<Value>>(policy.get()) {
            Ok(None) => Ok(None),
            Ok(Some(Value::String(file))) => match std::fs::read(Path::new(&file)) {
                Ok(bytes) => Policy::from_slice(&bytes).map(Some).inspect_err(|error| complain(&file, Ok(error))),
                Err(error) => {
                    complain(&file, Err(&error));
                    return Answer::Failed { id, error: "policy_invalid" };
                }
            },
            // From the text, so that the order of the entries and duplicate keys are seen.
            _ => Policy::from_json(policy.get())
                .map(Some)
                .inspect_err(|error| complain(&format!("policy {id}"), Ok(error))),
        };
        match read {
            Ok(policy) => {
                self.gate.replace_policy(policy);
                Answer::Done { id, ok: true }
            }
            Err(_) => Answer::Failed { id, error: "policy_invalid" },
        }
    }
}

/// Seconds with at most three decimals.
fn seconds(wait: Duration) -> Value {
    let millis = wait.as_millis();
    match u64::try_from(millis / 1000) {
        Ok(seconds) if millis.is_multiple_of(1000) => json!(seconds),
        _ => json!(wait.as_secs_f64()),
    }
}

/// What a trace came to.
#[derive(Default)]
pub(crate) struct Summary {
    pub(crate) steps: usize,
    pub(crate) calls: usize,
    pub(crate) unreadable: usize,
    pub(crate) by_decision: BTreeMap<&'static str, usize>,
    /// By code and rule.
    pub(crate) by_rule: BTreeMap<(String, String), usize>,
    /// By counter: its last state, and how many calls it counted.
    pub(crate) counters: BTreeMap<String, (LimitState, usize)>,
}

impl Summary {
    fn count(&mut self, decision: &Decision) {
        self.calls += 1;
        *self.by_decision.entry(decision.as_str()).or_default() += 1;
        if let Some(code) = decision.code() {
            let rule = decision.rule().unwrap_or_default().to_owned();
            *self.by_rule.entry((code.to_string(), rule)).or_default() += 1;
        }
        for state in decision.limits() {
            let counted = usize::from(decision.is_allowed());
            let name = state.counter().to_owned();
            self.counters
                .entry(name)
                .and_modify(|(peak, calls)| {
                    *calls += counted;
                    if state.used() >= peak.used() {
                        *peak = state.clone();
                    }
                })
                .or_insert((state, counted));
        }
    }
}
