//! What a replay comes to.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Came, Change, ChangeKind, Finding};
use crate::policy::Digest;

/// How many of a list are shown in text.
const SHOWN: usize = 20;
/// How many rules, tools, callers and findings are told apart; the rest is counted together.
const KEYS: usize = 1024;

/// How often something of one name has come up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Count {
    /// In what the decisions have changed; none for those that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ChangeKind>,
    /// The rule, tool or caller.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// What a replay has come to. It is written as JSON, and shown as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    policy: String,
    history: &'static str,
    calls: u64,
    alike: u64,
    details: u64,
    changed: u64,
    steps: u64,
    untold: u64,
    kept: u64,
    other: u64,
    uncompared: u64,
    rules: Vec<Count>,
    tools: Vec<Count>,
    callers: Vec<Count>,
    untold_rules: Vec<Count>,
    found: u64,
    findings: Vec<Finding>,
}

impl Report {
    /// The digest of the policy by which was decided, in hexadecimal digits.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// What the history was: `log`, `records` or `trace`.
    pub fn history(&self) -> &'static str {
        self.history
    }

    /// How many calls it has. They are alike, alike but for details, changed, untold, kept, of other policies, or compared with
    /// nothing.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// How many were decided as before, with all that a decision carries.
    pub fn unchanged(&self) -> u64 {
        self.alike
    }

    /// How many were decided as before, by the same rule, but with another message or wait, or other limits: under another policy with
    /// limits, that is most of what passes them.
    pub fn details(&self) -> u64 {
        self.details
    }

    /// How many come out otherwise: another decision, or another rule.
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// How many steps of a trace that are no calls are answered otherwise.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How many cannot be told.
    pub fn untold(&self) -> u64 {
        self.untold
    }

    /// How many stay as they were, because no policy has decided them.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// How many were left out, because another policy has decided them.
    pub fn other(&self) -> u64 {
        self.other
    }

    /// How many were decided with nothing to compare them with.
    pub fn uncompared(&self) -> u64 {
        self.uncompared
    }

    /// How many decisions have changed in each way by each rule, the most first; of the first 1024 that came up.
    pub fn rules(&self) -> &[Count] {
        &self.rules
    }

    /// How many have changed in each way for each tool.
    pub fn tools(&self) -> &[Count] {
        &self.tools
    }

    /// How many have changed in each way for each caller.
    pub fn callers(&self) -> &[Count] {
        &self.callers
    }

    /// How many cannot be told for want of what: `/tools/pay/deny_if/0 needs args.amount`.
    pub fn untold_rules(&self) -> &[Count] {
        &self.untold_rules
    }

    /// How many things are wrong with the history.
    pub fn found(&self) -> u64 {
        self.found
    }

    /// The first 1024 things that are wrong with it.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether all that was decided was decided again, alike, and nothing was wrong with the history.
    pub fn is_same(&self) -> bool {
        let Self { details, changed, steps, untold, uncompared, found, .. } = self;
        [details, changed, steps, untold, uncompared, found].iter().all(|count| **count == 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} calls in the {}, by policy {}", self.calls, self.history, self.policy)?;
        let parts = [
            (self.alike, "decided alike"),
            (self.details, "decided alike, but for the message, the wait, or how limits stand"),
            (self.changed, "come out otherwise"),
            (self.untold, "cannot be told"),
            (self.kept, "no policy's to decide, and kept"),
            (self.other, "of another policy, and left out"),
            (self.uncompared, "decided, with nothing to compare them with"),
        ];
        for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "{count:>9}  {what}")?;
        }
        if self.steps > 0 {
            writeln!(f, "{} steps that are no calls are answered otherwise", self.steps)?;
        }
        let lists = [
            ("changed by rule", &self.rules),
            ("changed by tool", &self.tools),
            ("changed by caller", &self.callers),
            ("cannot be told", &self.untold_rules),
        ];
        for (title, counts) in lists.into_iter().filter(|(_, counts)| !counts.is_empty()) {
            writeln!(f, "{title}")?;
            for Count { kind, name, count } in counts.iter().take(SHOWN) {
                match kind {
                    Some(kind) => writeln!(f, "{count:>9}  {kind:<9}  {name}")?,
                    None => writeln!(f, "{count:>9}  {name}")?,
                }
            }
            if counts.len() > SHOWN {
                writeln!(f, "           and {} more", counts.len() - SHOWN)?;
            }
        }
        if self.found > 0 {
            writeln!(f, "{} things are wrong with the history", self.found)?;
            let shown = self.findings.iter().take(SHOWN);
            let more = self.found - shown.len() as u64;
            shown.into_iter().try_for_each(|finding| writeln!(f, "  {finding}"))?;
            if more > 0 {
                writeln!(f, "  and {more} more")?;
            }
        }
        Ok(())
    }
}

/// What a replay adds up.
pub(super) struct Ledger {
    report: Report,
    rules: Counts,
    tools: Counts,
    callers: Counts,
    untold_rules: Counts,
}

/// By kind and name.
#[derive(Default)]
struct Counts(BTreeMap<(Option<ChangeKind>, String), u64>);

impl Counts {
    fn add(&mut self, kind: Option<ChangeKind>, name: &str) {
        let key = (kind, name.to_owned());
        let is_full = self.0.len() >= KEYS;
        match self.0.get_mut(&key) {
            Some(count) => *count += 1,
            None if is_full => {}
            None => drop(self.0.insert(key, 1)),
        }
    }

    /// The most first.
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
            alike: 0,
            details: 0,
            changed: 0,
            steps: 0,
            untold: 0,
            kept: 0,
            other: 0,
            uncompared: 0,
            rules: Vec::new(),
            tools: Vec::new(),
            callers: Vec::new(),
            untold_rules: Vec::new(),
            found: 0,
            findings: Vec::new(),
        };
        let counts = Counts::default;
        Self { report, rules: counts(), tools: counts(), callers: counts(), untold_rules: counts() }
    }

    pub(super) fn count(&mut self, came: &Came) {
        let report = &mut self.report;
        report.calls += u64::from(!matches!(came, Came::Step | Came::OtherStep(_)));
        match came {
            Came::Step => {}
            Came::OtherStep(_) => report.steps += 1,
            Came::Alike => report.alike += 1,
            Came::Kept => report.kept += 1,
            Came::Other => report.other += 1,
            Came::Decided => report.uncompared += 1,
            Came::Indeterminate(untold) => {
                report.untold += 1;
                self.untold_rules.add(None, &untold.to_string());
            }
            Came::Change(Change { kind: ChangeKind::Details, .. }) => report.details += 1,
            Came::Change(change) => {
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
        if self.report.findings.len() < KEYS {
            self.report.findings.push(finding.clone());
        }
    }

    pub(super) fn report(self) -> Report {
        let Self { report, rules, tools, callers, untold_rules } = self;
        Report {
            rules: rules.list(),
            tools: tools.list(),
            callers: callers.list(),
            untold_rules: untold_rules.list(),
            ..report
        }
    }
}
