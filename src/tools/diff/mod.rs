//! Compares two policies: finds the calls that they decide differently, each with an example.
//!
//! [`compare`] reports what becomes wider and what becomes narrower, tool by tool. A change of
//! rules comes with a call that both policies have evaluated, and with a [`Boundary`] if the
//! decision changes at a number. Limits and the terms of approvals are compared by their settings.
//!
//! [`only_tightens`] reports whether a new policy lets through nothing that an old one stops. A
//! [`Tightening::Yes`] is a proof. Where neither a proof nor a counterexample is found, and where
//! the [budget](DEFAULT_BUDGET) is exhausted, both functions name the rules that are undecided.
//!
//! ```
//! use toolgate::analysis::diff::{self, Kind, Tightening, ChangeDetail};
//! use toolgate::Policy;
//!
//! let at_most = |most: u32| -> Result<Policy, toolgate::PolicyError> {
//!     format!(r#"{{ "version": "1", "default": "deny", "tools": {{ "pay": {{
//!         "deny_if": [{{ "conditions": [{{ "path": "args.amount", "op": "gt", "value": {most} }}] }}]
//!     }} }} }}"#).parse()
//! };
//! let (old, new) = (at_most(50000)?, at_most(80000)?);
//!
//! let found = diff::compare(&old, &new);
//! let [change] = found.changes() else { panic!("{found}") };
//! assert_eq!((change.kind(), change.tools()), (Kind::Wider, "pay"));
//! let ChangeDetail::Call { witness, .. } = change.detail() else { panic!("{found}") };
//! assert_eq!(witness.arguments()["amount"], 50001);
//!
//! assert_eq!(diff::only_tightens(&new, &old), Tightening::Yes);
//! assert!(matches!(diff::only_tightens(&old, &new), Tightening::No(_)));
//! # Ok::<(), toolgate::PolicyError>(())
//! ```
//!
//! # Scope
//! - **Decisions**, not reasons. From wide to narrow: allow, approval required, deny. A call that
//!   is denied by another rule or with another message is unchanged.
//! - **Limits**, at equal counts. A call that is now denied leaves room for others, which is not
//!   reported. A limit is as strict as another if it has the same counter, window, scope and
//!   algorithm, no larger `max` or `burst`, no shorter `lease`, and no smaller amount. A shadow
//!   limit counts like any other and refuses nothing. A limit with another window, scope or
//!   algorithm is a new counter, which starts empty, so the change is undecided. It is also
//!   undecided if a limit was added or removed and others apply.
//! - **Approvals**: their time to live, who may approve, how many must, and what they are bound to.
//!
//! Namespaces of counters, descriptions and messages are not compared.

mod changes;
mod compared;
mod cover;
mod entries;
mod fill;
mod names;
mod report;
mod search;
mod slots;
mod terms;
mod texts;

pub use report::{Boundary, Change, ChangeDetail, Comparison, Kind, Tightening, Undecided};

use crate::policy::{Effect, Policy};
use changes::Comparer;
use compared::ComparedPolicy;
use terms::Direction;

/// The default budget of a comparison, in steps for each direction. A step takes about as long as
/// the evaluation of one call, and the whole budget takes some seconds.
pub const DEFAULT_BUDGET: u64 = 1_000_000;

/// The maximum nesting of lists and objects in a document that is compared.
const MAX_NESTING: usize = 127;

/// The remaining steps of a comparison.
struct Budget {
    left: u64,
}

impl Budget {
    /// Takes the steps from the budget. If too few are left, takes all of them and returns `false`.
    fn spend(&mut self, steps: u64) -> bool {
        match self.left.checked_sub(steps) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.left = 0;
                false
            }
        }
    }
}

/// Returns the rank of an effect: a stricter one is higher.
fn strictness(effect: Effect) -> u8 {
    match effect {
        Effect::Allow => 0,
        Effect::RequireApproval => 1,
        Effect::Deny(_) => 2,
    }
}

/// Compares two policies.
///
/// ```
/// use toolgate::{Policy, analysis::diff};
///
/// let old: Policy = r#"{ "version": "1", "default": "deny", "tools": { "read": {} } }"#.parse()?;
/// let new: Policy = r#"{ "version": "1", "default": "deny", "tools": { "read": {}, "write": {} } }"#.parse()?;
/// assert!(diff::compare(&old, &old).is_equal());
/// assert!(diff::compare(&old, &new).to_string().starts_with("1 wider, 0 narrower"));
/// # Ok::<(), toolgate::PolicyError>(())
/// ```
#[must_use = "comparing changes nothing"]
pub fn compare(old: &Policy, new: &Policy) -> Comparison {
    compare_within(old, new, DEFAULT_BUDGET)
}

/// Compares two policies in at most this many steps for each direction. Rules that are not compared
/// when the budget is exhausted are undecided.
#[must_use = "comparing changes nothing"]
pub fn compare_within(old: &Policy, new: &Policy, budget: u64) -> Comparison {
    let mut all = loosened(old, new, Direction::OldToNew, budget);
    let narrower = loosened(new, old, Direction::NewToOld, budget);
    all.changes.extend(narrower.changes);
    all.undecided.extend(narrower.undecided);
    all.changes.sort_by(|a, b| (&a.tools, a.kind).cmp(&(&b.tools, b.kind)));
    all
}

/// Reports whether `new` lets through nothing that `old` stops, including limits and approvals.
/// [`Tightening::Yes`] is a proof.
pub fn only_tightens(old: &Policy, new: &Policy) -> Tightening {
    only_tightens_within(old, new, DEFAULT_BUDGET)
}

/// Answers like [`only_tightens`], in at most this many steps.
pub fn only_tightens_within(old: &Policy, new: &Policy, budget: u64) -> Tightening {
    let Comparison { changes, undecided } = loosened(old, new, Direction::OldToNew, budget);
    match changes.into_iter().next() {
        Some(change) => Tightening::No(Box::new(change)),
        None if undecided.is_empty() => Tightening::Yes,
        None => Tightening::CannotTell(undecided),
    }
}

/// Finds where `to` is looser than `from`.
fn loosened(from: &Policy, to: &Policy, direction: Direction, budget: u64) -> Comparison {
    let unchanged = Comparison { changes: Vec::new(), undecided: Vec::new() };
    if from == to {
        return unchanged;
    }
    match (from.document(MAX_NESTING), to.document(MAX_NESTING)) {
        (Some(old), Some(new)) => {
            let (from, to) = (ComparedPolicy::new(from, &old), ComparedPolicy::new(to, &new));
            Comparer::new(&from, &to, direction, budget).compare()
        }
        _ => {
            let reason = "a document is nested too deeply to be compared".to_owned();
            let (tools, rule) = ("*".to_owned(), String::new());
            Comparison { undecided: vec![Undecided { kind: direction.kind(), tools, rule, reason }], ..unchanged }
        }
    }
}
