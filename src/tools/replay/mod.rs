//! Decides a recorded history again: by the same policy, to confirm it; by another, to see what
//! would change.
//!
//! A history is one of these, read as a stream, so memory does not grow with its length:
//!
//! - an [audit log](crate::audit), best
//!   [written with arguments](crate::GateBuilder::audit_arguments);
//! - the bare records of a log, one line of JSON each, as a sink of the host may have stored them;
//! - a [trace](crate::trace).
//!
//! # Logs
//! Each record is decided at its own instant, with counters that start empty. Releases, settlements
//! and ends are applied to the permit that the replay issued for the call. An approval counts as
//! given where the recorded call used one, whatever the other policy says about approvers and
//! deadlines; otherwise no call is approved. Where a store failed, it fails again. Decisions that a
//! policy did not make are *kept*: calls that could not be read, expired grants, changed tools,
//! callers without a policy. All calls are decided by the given policy, even if several were in
//! force, unless the replay is limited to [one of them](Replay::only).
//!
//! A record without argument values is decided if no rule needs them. Otherwise it is
//! *indeterminate*, and the replay reports which rule needs which argument. If the record is of the
//! same policy, the outcome of the rules is taken from the record and its limits are charged.
//! Otherwise its counters are uncertain from there on, and so are decisions that depend on them.
//!
//! The replay is exact for calls that one process decided one at a time. For calls that threads
//! decided at once, a log has the order in which they were recorded, which may differ from the
//! order in which they were counted. A counter whose limits let calls
//! [pass uncounted](crate::GateBuilder::pass_uncounted) must be [named](Replay::pass_uncounted).
//! Counters that somebody has reset are reset again; grants that were given or revoked change
//! nothing here, because the decisions that they make are kept. Calls counted before the log begins
//! are not in a log, nor is what a store has lost.
//!
//! # Traces
//! A trace has no decisions: it is compared with stored [answers](Replay::answers) or with
//! [another policy](Replay::against). Each policy runs all its steps, `policy` steps included.
//!
//! # Findings
//! A problem in a history is reported as a [`Finding`] with its line. The replay then continues,
//! unless it is set to [stop](Replay::stop_at_finding).

mod format;
mod line;
mod log_replay;
mod partial;
mod report;
mod trace_replay;

use std::fmt;
use std::io::{self, BufRead};
use std::ops::ControlFlow;

use crate::audit::{AuditRecord, ChainHead, Entry, TolerantReader};
use crate::gate::shadow::DifferenceKind;
use crate::json::object::Object;
use crate::policy::{Digest, Policy};
use format::Format;
use line::Lines;
use log_replay::LogReplay;
use report::Ledger;
use trace_replay::TraceReplay;

pub use report::{Count, Report};

/// A replay of a history under a policy.
///
/// ```
/// use std::ops::ControlFlow;
/// use serde_json::json;
/// use toolgate::audit::JsonLines;
/// use toolgate::replay::{Replay, Event};
/// use toolgate::{Gate, Policy, ToolCall};
///
/// let path = std::env::temp_dir().join(format!("toolgate-replay-{}.jsonl", std::process::id()));
/// let policy: Policy = r#"{ "version": "1", "default": "allow" }"#.parse()?;
/// let gate = Gate::builder().audit(JsonLines::append(&path)?).audit_arguments().policy(policy.clone()).build();
/// let arguments = json!({ "id": 7 });
/// for tool in ["get_repo", "delete_repo"] {
///     assert!(gate.check(&ToolCall::new(tool, &arguments).grant("g-42")).is_allowed());
/// }
///
/// let log = std::fs::read(&path)?;
/// let report = Replay::new(policy).run(&log[..], |_| ControlFlow::Continue(()))?;
/// assert!(report.is_same() && report.calls() == 2);
///
/// let strict: Policy = r#"{ "version": "1", "default": "allow",
///     "tools": { "delete_*": { "action": "deny" } } }"#.parse()?;
/// let report = Replay::new(strict).run(&log[..], |event| {
///     if let Event::Change(change) = event {
///         assert_eq!((change.line, &*change.tool), (4, "delete_repo"));
///         assert_eq!(change.rule(), "/tools/delete_*/action");
///     }
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!((report.unchanged(), report.changed()), (1, 1));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a replay does nothing until it is run"]
pub struct Replay {
    policy: Policy,
    only: Option<Digest>,
    pass_uncounted: Vec<Box<str>>,
    stops_at_finding: bool,
    baseline: Baseline,
    after: ChainHead,
}

/// The baseline that a trace is compared with.
enum Baseline {
    None,
    /// Stored answers, one line for each step.
    Answers(Box<dyn BufRead>),
    /// The decisions of another policy.
    Policy(Policy),
}

/// A decision, in short.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DecisionSummary {
    /// `allow`, `deny`, `rate_limited` or `approval_required`. For a step of a trace that is not a
    /// call: its answer.
    pub decision: String,
    /// The code of the refusal.
    pub code: Option<String>,
    /// The rule that refuses the call.
    pub rule: Option<String>,
}

/// How a decision has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// A call that was refused is now allowed.
    Loosened,
    /// A call that was allowed is now refused.
    Tightened,
    /// The call is still refused, but by another decision or rule.
    Changed,
    /// The decision and its rule are the same, but the message, the wait or the state of the limits
    /// differs.
    Details,
}

impl ChangeKind {
    /// Returns `loosened`, `tightened`, `changed` or `details`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loosened => DifferenceKind::Loosened.as_str(),
            Self::Tightened => DifferenceKind::Tightened.as_str(),
            Self::Changed => DifferenceKind::Changed.as_str(),
            Self::Details => "details",
        }
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A decision that has changed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The line of the history.
    pub line: u64,
    /// How it has changed.
    pub kind: ChangeKind,
    /// The tool.
    pub tool: String,
    /// The caller, such as `grant g-42`: the first present of grant, agent, user and session.
    pub caller: String,
    /// The recorded decision.
    pub was: DecisionSummary,
    /// The decision of the replay.
    pub now: DecisionSummary,
}

impl Change {
    /// Returns the rule that makes the difference: the recorded one for a call that is now allowed,
    /// otherwise the one of the replay. Returns the code if there is no rule.
    pub fn rule(&self) -> &str {
        let summary = if self.kind == ChangeKind::Loosened { &self.was } else { &self.now };
        summary.rule.as_deref().or(summary.code.as_deref()).unwrap_or_default()
    }
}

/// A decision that the history does not determine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Indeterminate {
    /// The line of the history.
    pub line: u64,
    /// The tool.
    pub tool: String,
    /// The caller.
    pub caller: String,
    /// The rule or limit that needs more than the history has. `None` if the call itself is not
    /// known.
    pub rule: Option<String>,
    /// The paths whose values it needs, such as `args.amount`.
    pub needs: Vec<String>,
    /// The uncertain counter, if that is the reason.
    pub counter: Option<String>,
}

/// Writes the reason: `/tools/pay/deny_if/0 needs args.amount`.
impl fmt::Display for Indeterminate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.rule, &self.counter) {
            (Some(rule), Some(counter)) => {
                write!(f, "{rule} depends on the counter `{counter}`, which has missed calls")
            }
            (Some(rule), None) => write!(f, "{rule} needs {}", self.needs.join(", ")),
            (None, _) => f.write_str("a name in the record is truncated"),
        }
    }
}

/// A problem in a history.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The line, from 1.
    pub line: u64,
    /// The problem, in words.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// An event that a replay reports while it runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A decision has changed, or only its [details](ChangeKind::Details) have, which
    /// [`Report::changed`] does not count.
    Change(Change),
    /// The history does not determine a decision.
    Indeterminate(Indeterminate),
    /// The history has a problem.
    Finding(Finding),
}

/// The result for one line of a history.
enum Comparison {
    Unchanged,
    Change(Change),
    Indeterminate(Indeterminate),
    /// No policy made the decision.
    Kept,
    /// A policy other than the one that is replayed made the decision.
    OtherPolicy,
    /// The call was decided, and there is no baseline to compare it with.
    Uncompared,
    /// The line is not a call.
    Step,
    /// The line is not a call, and its answer has changed.
    ChangedStep(Change),
}

impl Replay {
    /// Creates a replay under this policy.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            only: None,
            pass_uncounted: Vec::new(),
            stops_at_finding: false,
            baseline: Baseline::None,
            after: ChainHead::EMPTY,
        }
    }

    /// Reads a log that continues after the head of another, as a log that was rotated does.
    /// Without this, its first line is a finding. Calls counted before it are not in it.
    pub fn after(self, head: ChainHead) -> Self {
        Self { after: head, ..self }
    }

    /// Restricts the replay of a log to the calls that this policy decided: those of one server,
    /// for instance, if [`Grants`](crate::Grants) wrote the log.
    pub fn only(self, policy: &Policy) -> Self {
        Self { only: Some(policy.digest()), ..self }
    }

    /// Names a counter by which the gate that wrote the log lets calls
    /// [pass uncounted](crate::GateBuilder::pass_uncounted).
    pub fn pass_uncounted(mut self, counter: &str) -> Self {
        self.pass_uncounted.push(counter.into());
        self
    }

    /// Stops at the first finding.
    pub fn stop_at_finding(self) -> Self {
        Self { stops_at_finding: true, ..self }
    }

    /// Compares a trace with stored answers, one line for each step. Only the members that a stored
    /// answer has are compared.
    pub fn answers(self, answers: impl BufRead + 'static) -> Self {
        Self { baseline: Baseline::Answers(Box::new(answers)), ..self }
    }

    /// Compares a trace with the decisions of this policy.
    pub fn against(self, policy: Policy) -> Self {
        Self { baseline: Baseline::Policy(policy), ..self }
    }

    /// Decides a history again, from its beginning to its end.
    ///
    /// `on_event` receives changes, indeterminate decisions and findings as they occur, and may
    /// stop the replay. The report covers everything up to that point.
    ///
    /// # Errors
    /// The history or the answers cannot be read.
    pub fn run(self, mut history: impl BufRead, on_event: impl FnMut(&Event) -> ControlFlow<()>) -> io::Result<Report> {
        let format = Format::of(&mut history)?;
        let digest = self.policy.digest();
        let mut reporter = Reporter {
            on_event,
            stops_at_finding: self.stops_at_finding,
            ledger: Ledger::new(digest, format.as_str()),
            only: self.only,
        };
        match format {
            Format::Trace => {
                let mut replay = TraceReplay::new(self.policy, self.baseline);
                let mut lines = Lines::new(history);
                while let Some((line, text)) = lines.next()? {
                    let comparison = replay.line(line, text)?;
                    if reporter.step(line, comparison).is_break() {
                        break;
                    }
                }
            }
            Format::Records => {
                let mut replay = LogReplay::new(self.policy, &self.pass_uncounted);
                let mut lines = Lines::new(history);
                while let Some((line, text)) = lines.next()? {
                    let flow = match text.map(serde_json::from_str::<Object<AuditRecord>>) {
                        _ if text.is_some_and(|text| text.trim().is_empty()) => ControlFlow::Continue(()),
                        Some(Ok(Object(record))) => reporter.record(&mut replay, line, &record),
                        Some(Err(error)) => reporter.finding(line, format!("not a valid record: {error}")),
                        None => reporter.finding(line, "not UTF-8, or longer than 16 MiB".to_owned()),
                    };
                    if flow.is_break() {
                        break;
                    }
                }
            }
            Format::Log => {
                let mut replay = LogReplay::new(self.policy, &self.pass_uncounted);
                let mut reader = TolerantReader::after(history, self.after);
                while let Some(entry) = reader.next()? {
                    let flow = match entry {
                        Entry::Record(line, record) => reporter.record(&mut replay, line, &record),
                        Entry::Fault(line, fault) => reporter.finding(line, fault.to_string()),
                    };
                    if flow.is_break() {
                        break;
                    }
                }
            }
        }
        Ok(reporter.ledger.report())
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Reports to the host and keeps the totals.
struct Reporter<H> {
    on_event: H,
    stops_at_finding: bool,
    ledger: Ledger,
    only: Option<Digest>,
}

impl<H: FnMut(&Event) -> ControlFlow<()>> Reporter<H> {
    fn record(&mut self, replay: &mut LogReplay, line: u64, record: &AuditRecord) -> ControlFlow<()> {
        let comparison = match self.only {
            Some(only) if record.decision().is_some() && record.policy() != Some(only) => Comparison::OtherPolicy,
            Some(only) if record.counter().is_some() && record.policy() != Some(only) => Comparison::Step,
            _ => replay.record(line, record),
        };
        self.report(comparison)
    }

    /// Reports the result of a line of a trace, and the problem with the line, if any.
    fn step(&mut self, line: u64, (comparison, problem): (Comparison, Option<String>)) -> ControlFlow<()> {
        self.report(comparison)?;
        problem.map_or(ControlFlow::Continue(()), |problem| self.finding(line, problem))
    }

    fn report(&mut self, comparison: Comparison) -> ControlFlow<()> {
        self.ledger.count(&comparison);
        match comparison {
            Comparison::Change(change) | Comparison::ChangedStep(change) => (self.on_event)(&Event::Change(change)),
            Comparison::Indeterminate(indeterminate) => (self.on_event)(&Event::Indeterminate(indeterminate)),
            Comparison::Unchanged
            | Comparison::Kept
            | Comparison::OtherPolicy
            | Comparison::Uncompared
            | Comparison::Step => ControlFlow::Continue(()),
        }
    }

    fn finding(&mut self, line: u64, problem: String) -> ControlFlow<()> {
        let finding = Finding { line, problem };
        self.ledger.find(&finding);
        (self.on_event)(&Event::Finding(finding))?;
        if self.stops_at_finding { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
