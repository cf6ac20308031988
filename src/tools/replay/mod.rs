//! A recorded history decided again: by the same policy, bit for bit; by another, what would have changed.
//!
//! A history is an [audit log](crate::audit), best one that was [written with arguments](crate::GateBuilder::audit_arguments); the
//! bare records of a log, a line of JSON each, as a sink of the host's own may have kept them; or a [trace](crate::trace). It is
//! read as a stream: memory does not grow with its length.
//!
//! **A log** is decided record by record, each at its own instant, with counters that begin empty. What became of a call (released,
//! settled, ended) is done to the permit that the replay has given for it. A person's approval counts as given where the recorded call has
//! used it, whatever the other policy says of who may approve and for how long; where the recorded call asked nobody, nobody has approved.
//! Where a store has failed, it fails again. What is no policy's decision stays as it was, and is *kept*: calls that could not be
//! read, grants that had expired, tools that had changed, callers without a policy. All calls are decided by the policy
//! that is given, also where several were in force, or [one of them alone](Replay::only) is decided again.
//!
//! A record without the values of arguments is decided where none is needed. Of each other the replay says what it *cannot tell*: which
//! rule needs which argument. If the record is of the same policy, what the rules have said is taken from the
//! record, and its limits are charged; else its counters are uncertain from there on, and so is what they would decide.
//!
//! The replay is exact for what one process at a time has decided. Of calls that threads have decided at once, a log has the order in which
//! they were recorded, which may not be that in which they were counted. A limit that lets calls
//! [pass uncounted](crate::GateBuilder::pass_uncounted) has to be [named](Replay::pass_uncounted). A counter that the host has reset, and
//! what was counted before the log begins, are in no log.
//!
//! **A trace** has no decisions: it is compared with [answers](Replay::answers) that were kept, or with
//! [another policy](Replay::against). It goes through all its steps under each, `policy` steps included.
//!
//! What is wrong with a history is a [`Finding`] with its line, and the rest goes on, unless it is told to
//! [stop](Replay::stop_at_finding).

mod again;
mod format;
mod line;
mod partial;
mod report;
mod traced;

use std::fmt;
use std::io::{self, BufRead};
use std::ops::ControlFlow;

use crate::audit::{AuditRecord, Entry, TolerantReader};
use crate::gate::shadow::DifferenceKind;
use crate::json::object::Object;
use crate::policy::{Digest, Policy};
use again::Again;
use format::Format;
use line::Lines;
use report::Ledger;
use traced::Traced;

pub use report::{Count, Report};

/// What to do with a history.
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
/// let strict: Policy = r#"{ "version": "1", "default": "allow", "tools": { "delete_*": { "action": "deny" } } }"#.parse()?;
/// let report = Replay::new(strict).run(&log[..], |told| {
///     if let Event::Change(change) = told {
///         assert_eq!((change.line, change.tool.as_str(), change.rule()), (4, "delete_repo", "/tools/delete_*/action"));
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
    stops: bool,
    was: Was,
}

/// What a trace was decided like.
enum Was {
    Unknown,
    Answers(Box<dyn BufRead>),
    Under(Policy),
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DecisionSummary {
    /// `allow`, `deny`, `rate_limited` or `approval_required`; of a step of a trace that is no call, its answer.
    pub decision: String,
    /// Why it is stopped.
    pub code: Option<String>,
    /// The rule that stops it.
    pub rule: Option<String>,
}

/// In what a decision has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// A call that was stopped passes.
    Loosened,
    /// A call that has passed is stopped.
    Tightened,
    /// It is stopped by another decision or rule.
    Changed,
    /// The decision and its rule are the same, but not the message, the wait, or how the limits stand.
    Details,
}

impl ChangeKind {
    /// `passes`, `stops`, `otherwise` or `details`.
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

/// A decision that comes out otherwise.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The line of the history.
    pub line: u64,
    /// In what it differs.
    pub kind: ChangeKind,
    /// The tool.
    pub tool: String,
    /// Who called, as `grant g-42`: the grant, else the agent, user or session.
    pub caller: String,
    /// What was decided.
    pub was: DecisionSummary,
    /// What is decided now.
    pub now: DecisionSummary,
}

impl Change {
    /// The rule that makes the difference: the former one for a call that passes now, else the present one. The code, where there
    /// is no rule.
    pub fn rule(&self) -> &str {
        let side = if self.kind == ChangeKind::Loosened { &self.was } else { &self.now };
        side.rule.as_deref().or(side.code.as_deref()).unwrap_or_default()
    }
}

/// A decision that cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Indeterminate {
    /// The line of the history.
    pub line: u64,
    /// The tool.
    pub tool: String,
    /// Who called.
    pub caller: String,
    /// The rule or limit that would need more than the history has; none where the call itself is not known.
    pub rule: Option<String>,
    /// The paths that it needs the values of: `args.amount`.
    pub needs: Vec<String>,
    /// The counter that is uncertain, where it is that.
    pub counter: Option<String>,
}

/// What it needs: `/tools/pay/deny_if/0 needs args.amount`.
impl fmt::Display for Indeterminate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.rule, &self.counter) {
            (Some(rule), Some(counter)) => write!(f, "{rule} counts by `{counter}`, which has missed calls"),
            (Some(rule), None) => write!(f, "{rule} needs {}", self.needs.join(", ")),
            (None, _) => f.write_str("a name in the record was cut"),
        }
    }
}

/// Something that is wrong with a history.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// What a replay tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A decision comes out otherwise, or alike but for its [details](ChangeKind::Details), which [`Report::changed`] does not
    /// count.
    Change(Change),
    /// A decision cannot be told.
    Indeterminate(Indeterminate),
    /// Something is wrong with the history.
    Finding(Finding),
}

/// What came of one decision.
enum Came {
    Alike,
    Change(Change),
    Indeterminate(Indeterminate),
    /// It is no policy's.
    Kept,
    /// It was made under another policy than the one that is decided again.
    Other,
    /// It was decided, and there is nothing to compare it with.
    Decided,
    /// No call.
    Step,
    /// No call, and answered otherwise.
    OtherStep(Change),
}

impl Replay {
    /// Decides histories again by this policy.
    pub fn new(policy: Policy) -> Self {
        Self { policy, only: None, pass_uncounted: Vec::new(), stops: false, was: Was::Unknown }
    }

    /// Of a log, decides only what this policy has decided: that of one server, say, where [`Grants`](crate::Grants) have written
    /// the log.
    pub fn only(self, policy: &Policy) -> Self {
        Self { only: Some(policy.digest()), ..self }
    }

    /// The gate whose log it is lets calls [pass uncounted](crate::GateBuilder::pass_uncounted) by this counter.
    pub fn pass_uncounted(mut self, counter: &str) -> Self {
        self.pass_uncounted.push(counter.into());
        self
    }

    /// Stops at the first finding.
    pub fn stop_at_finding(self) -> Self {
        Self { stops: true, ..self }
    }

    /// Compares a trace with the answers that were written for it, a line for each step: with all members that they have.
    pub fn answers(self, answers: impl BufRead + 'static) -> Self {
        Self { was: Was::Answers(Box::new(answers)), ..self }
    }

    /// Compares a trace with what this policy decides.
    pub fn against(self, policy: Policy) -> Self {
        Self { was: Was::Under(policy), ..self }
    }

    /// Decides a history again, from its beginning to its end. `hear` is told of changes, of what cannot be told, and of findings as
    /// they come, and may stop it; the report has all that was seen until then.
    ///
    /// # Errors
    /// The history, or the answers, cannot be read.
    pub fn run(self, mut history: impl BufRead, hear: impl FnMut(&Event) -> ControlFlow<()>) -> io::Result<Report> {
        let format = Format::of(&mut history)?;
        let digest = self.policy.digest();
        let mut teller =
            Teller { hear, stops: self.stops, ledger: Ledger::new(digest, format.as_str()), only: self.only };
        match format {
            Format::Trace => {
                let mut traced = Traced::new(self.policy, self.was);
                let mut lines = Lines::new(history);
                while let Some((line, text)) = lines.next()? {
                    let came = traced.line(line, text)?;
                    if teller.each(line, came).is_break() {
                        break;
                    }
                }
            }
            Format::Records => {
                let mut again = Again::new(self.policy, &self.pass_uncounted);
                let mut lines = Lines::new(history);
                while let Some((line, text)) = lines.next()? {
                    let told = match text.map(serde_json::from_str::<Object<AuditRecord>>) {
                        _ if text.is_some_and(|text| text.trim().is_empty()) => ControlFlow::Continue(()),
                        Some(Ok(Object(record))) => teller.record(&mut again, line, &record),
                        Some(Err(error)) => teller.finding(line, format!("no record: {error}")),
                        None => teller.finding(line, "no text, or longer than 16 MiB".to_owned()),
                    };
                    if told.is_break() {
                        break;
                    }
                }
            }
            Format::Log => {
                let mut again = Again::new(self.policy, &self.pass_uncounted);
                let mut survey = TolerantReader::new(history);
                while let Some(seen) = survey.next()? {
                    let told = match seen {
                        Entry::Record(line, record) => teller.record(&mut again, line, &record),
                        Entry::Fault(line, fault) => teller.finding(line, fault.to_string()),
                    };
                    if told.is_break() {
                        break;
                    }
                }
            }
        }
        Ok(teller.ledger.report())
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Tells the host and adds up.
struct Teller<H> {
    hear: H,
    stops: bool,
    ledger: Ledger,
    only: Option<Digest>,
}

impl<H: FnMut(&Event) -> ControlFlow<()>> Teller<H> {
    fn record(&mut self, again: &mut Again, line: u64, record: &AuditRecord) -> ControlFlow<()> {
        let came = match self.only {
            Some(only) if record.decision().is_some() && record.policy() != Some(only) => Came::Other,
            _ => again.record(line, record),
        };
        self.came(came)
    }

    /// What came of a line of a trace, in which something may be wrong besides.
    fn each(&mut self, line: u64, (came, problem): (Came, Option<String>)) -> ControlFlow<()> {
        self.came(came)?;
        problem.map_or(ControlFlow::Continue(()), |problem| self.finding(line, problem))
    }

    fn came(&mut self, came: Came) -> ControlFlow<()> {
        self.ledger.count(&came);
        match came {
            Came::Change(change) | Came::OtherStep(change) => (self.hear)(&Event::Change(change)),
            Came::Indeterminate(untold) => (self.hear)(&Event::Indeterminate(untold)),
            Came::Alike | Came::Kept | Came::Other | Came::Decided | Came::Step => ControlFlow::Continue(()),
        }
    }

    fn finding(&mut self, line: u64, problem: String) -> ControlFlow<()> {
        let finding = Finding { line, problem };
        self.ledger.find(&finding);
        (self.hear)(&Event::Finding(finding))?;
        if self.stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
