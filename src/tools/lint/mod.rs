//! Finds parts of a valid policy that are probably mistakes: entries that never apply, rules that
//! never decide, denials and approvals that a caller can evade.
//!
//! [`check`] examines a policy alone; [`check_against`] also compares it with the tools of a server
//! (its `tools/list`). Each finding has its place, its reason and a help text. A finding that
//! claims that a call slips through comes with that call, the [`Witness`], on which the engine was
//! run. The lint claims only what it can prove. If a document is too large to be examined
//! completely, [`Report::is_complete`] is `false`.
//!
//! ```
//! use toolgate::analysis::lint::{self, FindingCode};
//!
//! let report = lint::check(r#"{ "version": "1", "default": "deny", "tools": { "refund": { "deny_if": [
//!     { "conditions": [{ "path": "args.amount", "op": "gt", "value": 100 }] }
//! ] } } }"#)?;
//! let finding = &report.findings()[0];
//! assert_eq!((finding.code(), finding.line()), (FindingCode::DenialLeftOut, 2));
//! assert_eq!(finding.pointer(), "/tools/refund/deny_if/0/conditions/0");
//! // A refund without an amount, which may be a full refund, is allowed.
//! assert_eq!(finding.witness().unwrap().arguments(), &serde_json::json!({}));
//! # Ok::<(), toolgate::PolicyError>(())
//! ```

mod catalogue;
mod conditions;
mod contradictions;
mod denials;
mod entries;
mod expressions;
mod findings;
mod limits;
mod literals;
mod objects;
mod probe;
mod reach;
mod schema;
mod value_types;

use std::collections::HashMap;

use serde_json::Value;

use crate::policy::ast::{Document, RulesObject};
use crate::policy::{Names, Policy, PolicyError};
use crate::tools::explain::Witness;

pub use findings::{Claim, Finding, FindingCode, Report, Severity};

use findings::UnplacedFinding;

/// Checks a policy alone.
///
/// Pass the text as it was written: findings name its lines and columns.
/// [`Policy::to_json`](crate::Policy::to_json) returns a single line.
///
/// # Errors
/// The text is not a valid policy.
pub fn check(source: &str) -> Result<Report, PolicyError> {
    run(source, None)
}

/// Checks a policy, and compares it with the tools of a server.
///
/// `tools` is the result of `tools/list`, `{"tools": [...]}`, or the list alone. Elements that are
/// not tools are ignored.
///
/// # Errors
/// The text is not a valid policy.
pub fn check_against(source: &str, tools: &Value) -> Result<Report, PolicyError> {
    run(source, Some(tools))
}

fn run(source: &str, tools: Option<&Value>) -> Result<Report, PolicyError> {
    let policy: Policy = source.parse()?;
    let Some(document) = Document::read(source, usize::MAX) else { return Ok(Report::default()) };
    let entries = || document.entries.iter();
    let patterns = entries().filter(|entry| entry.name.as_ref().is_some_and(|name| name.contains('*')));
    let denying = entries().filter(|entry| entry.denies_all().is_some());
    let mut lint = Lint {
        policy: &policy,
        document: &document,
        entry_names: entries::name_set(entries().filter_map(|entry| entry.name.as_deref())),
        denying_names: entries::name_set(denying.filter_map(|entry| entry.name.as_deref())),
        reaching_tools: HashMap::new(),
        passing_calls: HashMap::new(),
        policy_steps: 10 + 10 * patterns.count(),
        steps_left: MAX_STEPS,
        is_complete: true,
        findings: Vec::new(),
    };
    lint.entries();
    lint.literal_names();
    lint.all_conditions();
    lint.limits();
    if let Some(tools) = tools {
        lint.catalogue(tools);
    }
    Ok(findings::report(lint.findings, source, lint.is_complete))
}

/// The approximate number of small steps after which a lint stops, incomplete.
const MAX_STEPS: usize = 1_000_000;
/// The approximate number of steps to read and run a small policy.
const SMALL_POLICY_STEPS: usize = 500;

/// The state of one lint.
struct Lint<'l> {
    policy: &'l Policy,
    document: &'l Document,
    /// The names of the entries.
    entry_names: Names,
    /// The names of the entries that deny every call.
    denying_names: Names,
    /// For each rules object, by its pointer: tools whose calls reach its rules.
    reaching_tools: HashMap<String, Vec<String>>,
    /// For each tool: a call that its rules do not deny, if one was found, and the size of these
    /// rules in bytes.
    passing_calls: HashMap<String, (Option<Witness>, usize)>,
    /// The steps to evaluate a call by the whole policy.
    policy_steps: usize,
    steps_left: usize,
    is_complete: bool,
    findings: Vec<UnplacedFinding>,
}

impl<'l> Lint<'l> {
    /// Takes `steps` from the budget. Returns `false`, and marks the lint as incomplete, if fewer
    /// are left.
    fn spend(&mut self, steps: usize) -> bool {
        match self.steps_left.checked_sub(steps) {
            Some(left) => {
                self.steps_left = left;
                true
            }
            None => {
                self.is_complete = false;
                false
            }
        }
    }

    /// Takes the steps of one evaluation by the whole policy from the budget.
    fn spend_policy(&mut self) -> bool {
        self.spend(self.policy_steps)
    }

    /// Every rules object, in document order.
    fn objects(&self) -> Vec<&'l RulesObject> {
        self.document.objects()
    }
}
