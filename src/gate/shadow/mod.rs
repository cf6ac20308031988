//! Shadow mode: a candidate policy runs beside the one in force, decides nothing, and counts
//! separately.
//!
//! [`Gate::start_shadow`](crate::Gate::start_shadow) lets a [`Shadow`] decide every call that the
//! gate decides, at the same instant and with its own counters. If the two differ, the host
//! receives a [`Difference`], and a [`Report`] adds the differences up.
//!
//! A candidate never changes a decision, nor what the policy in force counts. It neither requests
//! nor uses approvals: if a call passed by an approval, the candidate treats its own requirement as
//! met. A call that the candidate allows is charged to its counters, and released, settled and
//! ended together with the real call; if the gate stops that call, the charge stays spent. If the
//! candidate's store fails or panics, that counts as one more difference; if the callback for
//! differences panics, the panic is caught (where panics unwind). The candidate's counters begin
//! empty: right after the start it may allow calls that the policy in force stops.
//!
//! The gate decides a call before the candidate sees it, but [`Gate::check`](crate::Gate::check)
//! returns after that. The candidate takes about as long as a decision does. Its counters are in
//! the process, even if those of the gate are across a network: each process tests the candidate on
//! the calls that it decides itself.

mod run;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize, Serializer};

use crate::audit::AuditRecord;
use crate::policy::{Digest, Policy};
use crate::store::{CounterStore, MemoryStore};

/// The most pairs of kind and rule that a report counts separately.
const MAX_REPORT_ROWS: usize = 1024;

/// The callback for differences.
pub(crate) type OnDifference = dyn Fn(&Difference) + Send + Sync;

/// A candidate policy with its own counters.
///
/// ```
/// use serde_json::json;
/// use toolgate::shadow::{Shadow, DifferenceKind};
/// use toolgate::{Gate, Policy, ToolCall};
///
/// let lax: Policy = r#"{ "version": "1", "default": "allow" }"#.parse()?;
/// let strict: Policy = r#"{ "version": "1", "default": "allow",
///     "tools": { "delete_*": { "action": "deny" } } }"#.parse()?;
/// let gate = Gate::new(lax);
/// gate.start_shadow(Shadow::new(strict).on_difference(|difference| {
///     assert_eq!(difference.kind(), DifferenceKind::Tightened);
///     assert_eq!(difference.candidate().rule(), Some("/tools/delete_*/action"));
/// }));
/// let arguments = json!({});
/// assert!(gate.check(&ToolCall::new("search", &arguments)).is_allowed());
/// assert!(gate.check(&ToolCall::new("delete_repo", &arguments)).is_allowed(), "a candidate decides nothing");
///
/// let report = gate.stop_shadow().unwrap();
/// assert_eq!((report.agreed(), report.differed()), (1, 1));
/// # Ok::<(), toolgate::PolicyError>(())
/// ```
#[must_use = "a candidate does nothing until a gate starts it"]
pub struct Shadow {
    pub(crate) policy: Policy,
    pub(crate) store: Arc<dyn CounterStore>,
    pub(crate) on_difference: Option<Box<OnDifference>>,
}

impl Shadow {
    /// Creates a candidate with counters in memory.
    pub fn new(policy: Policy) -> Self {
        Self { policy, store: Arc::new(MemoryStore::new()), on_difference: None }
    }

    /// Sets the store of its counters. No gate may use the same store: the candidate would take
    /// room from real calls.
    pub fn store(self, store: impl CounterStore + 'static) -> Self {
        Self { store: Arc::new(store), ..self }
    }

    /// Sets a callback for each difference. It runs on the thread that decides the call, before the
    /// decision is returned: it should not wait.
    pub fn on_difference(self, on_difference: impl Fn(&Difference) + Send + Sync + 'static) -> Self {
        Self { on_difference: Some(Box::new(on_difference)), ..self }
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// The way in which a candidate differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "two decisions can differ in no other way")]
pub enum DifferenceKind {
    /// The candidate would allow a call that was stopped.
    Loosened,
    /// The candidate would stop a call that was allowed: deny it, limit it, or require an approval.
    Tightened,
    /// Both stop the call, but by different decisions or rules.
    Changed,
    /// The candidate's store failed, whatever was decided.
    Errored,
}

impl DifferenceKind {
    /// Returns `loosened`, `tightened`, `changed` or `errored`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loosened => "loosened",
            Self::Tightened => "tightened",
            Self::Changed => "changed",
            Self::Errored => "errored",
        }
    }
}

impl fmt::Display for DifferenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A call that a candidate would have decided differently.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    kind: DifferenceKind,
    in_force: AuditRecord,
    candidate: AuditRecord,
}

impl Difference {
    pub(crate) fn new(kind: DifferenceKind, in_force: AuditRecord, candidate: AuditRecord) -> Self {
        Self { kind, in_force, candidate }
    }

    /// Returns the kind of the difference.
    pub fn kind(&self) -> DifferenceKind {
        self.kind
    }

    /// Returns the decision, as it is [recorded](crate::audit).
    pub fn in_force(&self) -> &AuditRecord {
        &self.in_force
    }

    /// Returns the candidate's decision on the same call at the same instant, with the same id.
    pub fn candidate(&self) -> &AuditRecord {
        &self.candidate
    }

    /// Returns the rule that makes the difference: the one of the policy in force if the candidate
    /// allows the call, else the candidate's. Without a rule, returns the code.
    pub fn rule(&self) -> &str {
        let side = match self.kind {
            DifferenceKind::Loosened => &self.in_force,
            DifferenceKind::Tightened | DifferenceKind::Changed | DifferenceKind::Errored => &self.candidate,
        };
        side.rule().or(side.code().map(|code| code.as_str())).unwrap_or_default()
    }
}

/// The agreements and differences of a candidate so far.
///
/// Serialised, each entry of `rules` has the `kind` of the difference, the `rule` and the `count`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    policy: Digest,
    agreed: u64,
    differed: u64,
    #[serde(serialize_with = "each_rule")]
    rules: Vec<(DifferenceKind, Box<str>, u64)>,
}

fn each_rule<S: Serializer>(rules: &[(DifferenceKind, Box<str>, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Line<'r> {
        kind: DifferenceKind,
        rule: &'r str,
        count: u64,
    }
    serializer.collect_seq(rules.iter().map(|(kind, rule, count)| Line { kind: *kind, rule, count: *count }))
}

/// Writes a summary for people: the numbers of calls, and a line for each rule.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, agreed, differed, rules } = self;
        writeln!(f, "{agreed} calls decided alike, {differed} differently, by candidate {policy}")?;
        rules.iter().try_for_each(|(kind, rule, count)| writeln!(f, "{count:>9}  {kind:<9}  {rule}"))
    }
}

impl Report {
    /// Returns the digest of the candidate.
    pub fn policy(&self) -> Digest {
        self.policy
    }

    /// Returns the number of calls that both decided alike.
    pub fn agreed(&self) -> u64 {
        self.agreed
    }

    /// Returns the number of calls that the two decided differently.
    pub fn differed(&self) -> u64 {
        self.differed
    }

    /// Returns the number of differences of each kind by each [rule](Difference::rule), in order,
    /// for the first 1024 pairs of kind and rule. The rest up to [`differed`](Self::differed) is
    /// due to others.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = (DifferenceKind, &str, u64)> {
        self.rules.iter().map(|(kind, rule, count)| (*kind, &**rule, *count))
    }
}

/// The running totals of a candidate.
pub(crate) struct Ledger {
    policy: Digest,
    agreed: AtomicU64,
    differences: Mutex<Differences>,
}

#[derive(Default)]
struct Differences {
    count: u64,
    rules: BTreeMap<(DifferenceKind, Box<str>), u64>,
}

impl Ledger {
    pub(crate) fn new(policy: Digest) -> Self {
        Self { policy, agreed: AtomicU64::new(0), differences: Mutex::default() }
    }

    pub(crate) fn agree(&self) {
        self.agreed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn differ(&self, difference: &Difference) {
        let mut differences = self.differences.lock();
        differences.count = differences.count.saturating_add(1);
        let key = (difference.kind, difference.rule().into());
        let is_full = differences.rules.len() >= MAX_REPORT_ROWS;
        match differences.rules.get_mut(&key) {
            Some(count) => *count = count.saturating_add(1),
            None if is_full => {}
            None => drop(differences.rules.insert(key, 1)),
        }
    }

    pub(crate) fn report(&self) -> Report {
        let differences = self.differences.lock();
        let rules = differences.rules.iter().map(|((kind, rule), count)| (*kind, rule.clone(), *count));
        Report {
            policy: self.policy,
            agreed: self.agreed.load(Ordering::Relaxed),
            differed: differences.count,
            rules: rules.collect(),
        }
    }
}
