//! The difference of two policies: which calls are decided otherwise, each shown by a call.
//!
//! [`compare`] finds what becomes wider and what becomes narrower, tool by tool. A change of rules comes with a call that both policies
//! have evaluated, at a boundary where there is one; limits and the terms of approvals are compared by what they say.
//! [`only_tightens`] answers whether a new policy lets through nothing that an old one stops. Its yes is a proof. Where neither a proof
//! nor a call is found, and where the [budget](DEFAULT_BUDGET) is spent, both say that they cannot tell, and of what.
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
//! # What is compared
//! - **Decisions**, not reasons: allow, approval required, deny, in that order ever narrower. A call that another rule or another
//!   text denies is no change.
//! - **Limits** at equal counts: that a call which is denied now leaves room to others is no change. A limit holds as much as
//!   another if it has the same counter, window, scope and algorithm, no larger `max` or `burst`, no shorter `lease`, and no smaller
//!   amount; a shadow limit counts as much and refuses nothing. A limit whose window, scope or algorithm is another is a new
//!   counter, which begins empty: whether it is stricter is not told. Nor is it where one limit has gone and others are there.
//! - **Approvals**: how long they may be used, who may give them, how many must, and what they are bound to.
//! - The namespaces of the counters, descriptions and messages are not compared.

mod applying;
mod changes;
mod cover;
mod fill;
mod names;
mod report;
mod search;
mod side;
mod slots;
mod terms;
mod texts;

pub use report::{Boundary, Change, ChangeDetail, Comparison, Kind, Tightening, Undecided};

use crate::policy::{Effect, Policy};
use changes::Changes;
use side::Side;
use terms::Sense;

/// How many steps a comparison takes in each direction unless told otherwise: about as many calls are evaluated at most, some
/// seconds.
pub const DEFAULT_BUDGET: u64 = 1_000_000;

/// Documents whose lists and objects are nested deeper than this are not compared.
const NESTING: usize = 127;

/// The steps that are left.
struct Budget {
    left: u64,
}

impl Budget {
    /// Whether there are so many left. They are gone then; and all that are left, if they are too few.
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

/// How much an effect stops.
fn strictness(effect: Effect) -> u8 {
    match effect {
        Effect::Allow => 0,
        Effect::RequireApproval => 1,
        Effect::Deny(_) => 2,
    }
}

/// The difference of two policies.
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

/// Compares two policies in at most this many steps for each direction. A call that the steps do not
/// suffice for is undecided.
#[must_use = "comparing changes nothing"]
pub fn compare_within(old: &Policy, new: &Policy, budget: u64) -> Comparison {
    let mut wider = found(old, new, Sense::Forward, budget);
    let narrower = found(new, old, Sense::Backward, budget);
    wider.changes.extend(narrower.changes);
    wider.undecided.extend(narrower.undecided);
    wider.changes.sort_by(|a, b| (&a.tools, a.kind).cmp(&(&b.tools, b.kind)));
    wider
}

/// Whether `new` lets through nothing that `old` stops, limits and approvals included. The yes is a proof.
pub fn only_tightens(old: &Policy, new: &Policy) -> Tightening {
    only_tightens_within(old, new, DEFAULT_BUDGET)
}

/// The same, in at most this many steps.
pub fn only_tightens_within(old: &Policy, new: &Policy, budget: u64) -> Tightening {
    let Comparison { changes, undecided } = found(old, new, Sense::Forward, budget);
    match changes.into_iter().next() {
        Some(change) => Tightening::No(Box::new(change)),
        None if undecided.is_empty() => Tightening::Yes,
        None => Tightening::CannotTell(undecided),
    }
}

/// Where `to` is looser than `from`.
fn found(from: &Policy, to: &Policy, sense: Sense, budget: u64) -> Comparison {
    let nothing = Comparison { changes: Vec::new(), undecided: Vec::new() };
    if from == to {
        return nothing;
    }
    match (from.document(NESTING), to.document(NESTING)) {
        (Some(old), Some(new)) => Changes::new(&Side::of(from, &old), &Side::of(to, &new), sense, budget).find(),
        _ => {
            let reason = "a document is nested too deeply".to_owned();
            let (tools, rule) = ("*".to_owned(), String::new());
            Comparison { undecided: vec![Undecided { kind: sense.kind(), tools, rule, reason }], ..nothing }
        }
    }
}
