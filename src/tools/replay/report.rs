//! The report of a replay.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Change, ChangeKind, Comparison, Finding};
use crate::policy::Digest;

/// The maximum number of entries of a list in the text.
const MAX_SHOWN: usize = 20;
/// The maximum number of rules, tools, callers, reasons and findings that are listed. Others appear
/// only in the totals.
const MAX_LISTED: usize = 1024;

/// The number of decisions of one rule, tool or caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Count {
    /// How the decisions have changed. `None` for indeterminate ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ChangeKind>,
    /// The rule, tool or caller.
    pub name: String,
    /// The number of decisions.
    pub count: u64,
}

/// The report of a replay. Serializes as JSON and displays as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    policy: String,
    history: &'static str,
    calls: u64,
    unchanged: u64,
    details: u64,
    changed: u64,
    steps: u64,
    indeterminate: u64,
    kept: u64,
    other: u64,
    uncompared: u64,
    rules: Vec<Count>,
    tools: Vec<Count>,
    callers: Vec<Count>,
    indeterminate_reasons: Vec<Count>,
    found: u64,
    findings: Vec<Finding>,
}

impl Report {
    /// Returns the digest of the replayed policy, in hexadecimal.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Returns the kind of the history: `log`, `records` or `trace`.
    pub fn history(&self) -> &'static str {
        self.history
    }

    /// Returns the number of calls in the history: the sum of those that are unchanged, changed in
    /// details, changed, indeterminate, kept, of other policies, and uncompared.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Returns the number of calls whose decision is the same in every detail.
    pub fn unchanged(&self) -> u64 {
        self.unchanged
    }

    /// Returns the number of calls with the same decision by the same rule, but another message,
    /// wait or limit state. Under another policy with limits, these are most of the allowed calls.
    pub fn details(&self) -> u64 {
        self.details
    }

    /// Returns the number of calls with another decision or another rule.
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// Returns the number of steps of a trace other than calls whose answer has changed.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Returns the number of calls whose decision is indeterminate.
    pub fn indeterminate(&self) -> u64 {
        self.indeterminate
    }

    /// Returns the number of calls that are kept as recorded, because no policy decided them.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Returns the number of calls that were skipped, because another policy decided them.
    pub fn other(&self) -> u64 {
        self.other
    }

    /// Returns the number of calls that were decided without a baseline to compare with.
    pub fn uncompared(&self) -> u64 {
        self.uncompared
    }

    /// Returns the number of changed decisions by kind and rule, the most frequent first. Lists the
    /// first 1024 that occurred.
    pub fn rules(&self) -> &[Count] {
        &self.rules
    }

    /// Returns the number of changed decisions by kind and tool.
    pub fn tools(&self) -> &[Count] {
        &self.tools
    }

    /// Returns the number of changed decisions by kind and caller.
    pub fn callers(&self) -> &[Count] {
        &self.callers
    }

    /// Returns the number of indeterminate decisions by reason, such as
    /// `/tools/pay/deny_if/0 needs args.amount`.
    pub fn indeterminate_reasons(&self) -> &[Count] {
        &self.indeterminate_reasons
    }

    /// Returns the number of problems in the history.
    pub fn found(&self) -> u64 {
        self.found
    }

    /// Returns the first 1024 problems in the history.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns `true` if every decision was compared and is unchanged, and the history has no
    /// problems. Kept calls and those of other policies do not count.
    pub fn is_same(&self) -> bool {
        let Self { details, changed, steps, indeterminate, uncompared, found, .. } = self;
        [details, changed, steps, indeterminate, uncompared, found].iter().all(|count| **count == 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} calls in the {}, under policy {}", self.calls, self.history, self.policy)?;
        let parts = [
            (self.unchanged, "unchanged"),
            (self.details, "unchanged, except for the message, the wait or the limits"),
            (self.changed, "changed"),
            (self.indeterminate, "indeterminate"),
            (self.kept, "kept: not decided by a policy"),
            (self.other, "skipped: decided by another policy"),
            (self.uncompared, "decided, but not compared: there is no baseline"),
        ];
        for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "{count:>9}  {what}")?;
        }
        if self.steps > 0 {
            writeln!(f, "{} changed answers to steps other than calls", self.steps)?;
        }
        let lists = [
            ("changed by rule", &self.rules),
            ("changed by tool", &self.tools),
            ("changed by caller", &self.callers),
            ("indeterminate by reason", &self.indeterminate_reasons),
        ];
        for (title, counts) in lists.into_iter().filter(|(_, counts)| !counts.is_empty()) {
            writeln!(f, "{title}")?;
            for Count { kind, name, count } in counts.iter().take(MAX_SHOWN) {
                match kind {
                    Some(kind) => writeln!(f, "{count:>9}  {kind:<9}  {name}")?,
                    None => writeln!(f, "{count:>9}  {name}")?,
                }
            }
            if counts.len() > MAX_SHOWN {
                writeln!(f, "           and {} more", counts.len() - MAX_SHOWN)?;
            }
        }
        if self.found > 0 {
            writeln!(f, "{} problems in the history", self.found)?;
            let shown = self.findings.iter().take(MAX_SHOWN);
            let more = self.found - shown.len() as u64;
            shown.into_iter().try_for_each(|finding| writeln!(f, "  {finding}"))?;
            if more > 0 {
                writeln!(f, "  and {more} more")?;
            }
        }
        Ok(())
    }
}

/// The running totals of a replay.
pub(super) struct Ledger {
    report: Report,
    rules: Counts,
    tools: Counts,
    callers: Counts,
    indeterminate_reasons: Counts,
}

/// Counts by kind and name.
#[derive(Default)]
struct Counts(BTreeMap<(Option<ChangeKind>, String), u64>);

impl Counts {
    fn add(&mut self, kind: Option<ChangeKind>, name: &str) {
        let key = (kind, name.to_owned());
        let is_full = self.0.len() >= MAX_LISTED;
        match self.0.get_mut(&key) {
            Some(count) => *count += 1,
            None if is_full => {}
            None => drop(self.0.insert(key, 1)),
        }
    }

    /// Returns the counts, the highest first.
    fn list(self) -> Vec<Count> {
        let count = |((kind, name), count)| Count { kind, name, count };
        let mut counts: Vec<_> = self.0.into_iter().map(count).collect();
        counts.sort_by_key(|count| std::cmp::Reverse(count.count));
        counts
    }
}

impl Ledger {
    pub(super) fn new(policy: Digest, history: &'static str) -> Self {
        let report = Report {
            policy: policy.to_string(),
            history,
            calls: 0,
            unchanged: 0,
            details: 0,
            changed: 0,
            steps: 0,
            indeterminate: 0,
            kept: 0,
            other: 0,
            uncompared: 0,
            rules: Vec::new(),
            tools: Vec::new(),
            callers: Vec::new(),
            indeterminate_reasons: Vec::new(),
            found: 0,
            findings: Vec::new(),
        };
        let counts = Counts::default;
        Self { report, rules: counts(), tools: counts(), callers: counts(), indeterminate_reasons: counts() }
    }

    pub(super) fn count(&mut self, comparison: &Comparison) {
        let report = &mut self.report;
        report.calls += u64::from(!matches!(comparison, Comparison::Step | Comparison::ChangedStep(_)));
        match comparison {
            Comparison::Step => {}
            Comparison::ChangedStep(_) => report.steps += 1,
            Comparison::Unchanged => report.unchanged += 1,
            Comparison::Kept => report.kept += 1,
            Comparison::OtherPolicy => report.other += 1,
            Comparison::Uncompared => report.uncompared += 1,
            Comparison::Indeterminate(indeterminate) => {
                report.indeterminate += 1;
                self.indeterminate_reasons.add(None, &indeterminate.to_string());
            }
            Comparison::Change(Change { kind: ChangeKind::Details, .. }) => report.details += 1,
            Comparison::Change(change) => {
                report.changed += 1;
                let kind = Some(change.kind);
                self.rules.add(kind, change.rule());
                self.tools.add(kind, &change.tool);
                self.callers.add(kind, &change.caller);
            }
        }
    }

    pub(super) fn find(&mut self, finding: &Finding) {
        self.report.found += 1;
        if self.report.findings.len() < MAX_LISTED {
            self.report.findings.push(finding.clone());
        }
    }

    pub(super) fn report(self) -> Report {
        let Self { report, rules, tools, callers, indeterminate_reasons } = self;
        Report {
            rules: rules.list(),
            tools: tools.list(),
            callers: callers.list(),
            indeterminate_reasons: indeterminate_reasons.list(),
            ..report
        }
    }
}
