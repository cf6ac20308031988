//! A policy tried out beside the one in force: it decides nothing, and counts apart.
//!
//! [`Gate::start_shadow`](crate::Gate::start_shadow) has a [`Shadow`] judge every call that the gate decides, at the same instant, with
//! counters of its own. Where the two come to different ends, the host hears of a [`Difference`], and a [`Report`] adds them up.
//!
//! A candidate never changes a decision, nor what the policy in force counts. It asks nobody for an approval and uses none: where a
//! call has passed by an approval, the candidate's need for one counts as fulfilled. What it lets pass is charged to its
//! counters, and given back, settled and ended when the call's permit is; where the gate stops a call that the candidate lets
//! pass, the charge stays spent. Its store may fail, and its store or who hears of differences may panic: that is one difference more, or
//! nothing, where panics unwind. Its counters begin empty: right after the start, it may let pass what the policy in force stops.
//!
//! Calls are decided before the candidate looks at them, but [`Gate::check`](crate::Gate::check) returns after that: a candidate takes
//! about as long as a decision does. Its counters are in the process, also where those of the gate are across a network; each
//! process tries the candidate out on the calls that it decides itself.

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

/// How many kinds of difference and rules are told apart in a report; the rest is counted together.
const KEYS: usize = 1024;

/// Who hears of differences.
pub(crate) type Hear = dyn Fn(&Difference) + Send + Sync;

/// A policy to try out, with counters of its own.
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
#[must_use = "a candidate does nothing until a gate tries it out"]
pub struct Shadow {
    pub(crate) policy: Policy,
    pub(crate) store: Arc<dyn CounterStore>,
    pub(crate) hear: Option<Box<Hear>>,
}

impl Shadow {
    /// A candidate with counters in memory.
    pub fn new(policy: Policy) -> Self {
        Self { policy, store: Arc::new(MemoryStore::new()), hear: None }
    }

    /// Counts elsewhere. The store must be no gate's: in one that is shared, the candidate would take room from real calls.
    pub fn store(self, store: impl CounterStore + 'static) -> Self {
        Self { store: Arc::new(store), ..self }
    }

    /// Hears of each difference, from the thread that decides the call, before the decision is given back: it should not wait.
    pub fn on_difference(self, hear: impl Fn(&Difference) + Send + Sync + 'static) -> Self {
        Self { hear: Some(Box::new(hear)), ..self }
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// In what a candidate differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "there is no fifth way for two decisions to be")]
pub enum DifferenceKind {
    /// It would let a call pass that was stopped.
    Loosened,
    /// It would stop a call that was let pass: deny it, limit it, or ask a person.
    Tightened,
    /// Both stop the call, but by other decisions or rules.
    Changed,
    /// The candidate's counters could not tell, whatever was decided.
    Errored,
}

impl DifferenceKind {
    /// `passes`, `stops`, `otherwise` or `fails`.
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

/// A call that a candidate would have decided otherwise.
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

    /// In what it differs.
    pub fn kind(&self) -> DifferenceKind {
        self.kind
    }

    /// What was decided, as it is [recorded](crate::audit).
    pub fn in_force(&self) -> &AuditRecord {
        &self.in_force
    }

    /// What the candidate would have decided, of the same call at the same instant, under the same id.
    pub fn candidate(&self) -> &AuditRecord {
        &self.candidate
    }

    /// The rule that makes the difference: of the policy in force for what the candidate lets pass, else of the candidate. The
    /// code, where there is no rule.
    pub fn rule(&self) -> &str {
        let side = match self.kind {
            DifferenceKind::Loosened => &self.in_force,
            DifferenceKind::Tightened | DifferenceKind::Changed | DifferenceKind::Errored => &self.candidate,
        };
        side.rule().or(side.code().map(|code| code.as_str())).unwrap_or_default()
    }
}

/// How a trial stands.
///
/// Serialised, each of its `rules` has the `kind` of the difference, the `rule` and the `count`.
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

/// For a person: how many calls, and a line for each rule.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, agreed, differed, rules } = self;
        writeln!(f, "{agreed} calls decided alike, {differed} not, by candidate {policy}")?;
        rules.iter().try_for_each(|(kind, rule, count)| writeln!(f, "{count:>9}  {kind:<9}  {rule}"))
    }
}

impl Report {
    /// The candidate.
    pub fn policy(&self) -> Digest {
        self.policy
    }

    /// How many calls were decided alike.
    pub fn agreed(&self) -> u64 {
        self.agreed
    }

    /// How many calls were not.
    pub fn differed(&self) -> u64 {
        self.differed
    }

    /// How many calls differed in each way by each [rule](Difference::rule), in order: the first 1024 of them that came up. What is
    /// missing to [`differed`](Self::differed) is of others.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = (DifferenceKind, &str, u64)> {
        self.rules.iter().map(|(kind, rule, count)| (*kind, &**rule, *count))
    }
}

/// What a trial adds up.
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
        let is_full = differences.rules.len() >= KEYS;
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
