//! What is odd in a policy that reads well: entries that never apply, rules that never decide, denials and approvals that a caller
//! can leave.
//!
//! [`check`] looks at a policy alone, [`check_against`] also at the tools that a server has (its `tools/list`). A finding says where,
//! why, and how to fix it; where it claims that something can slip through, the [`Witness`] is a call that the engine was run on.
//! What cannot be told is not claimed: a document too large to be looked at whole leaves [`Report::is_complete`] false.
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
//! // A refund without an amount may be a full one, and passes.
//! assert_eq!(finding.witness().unwrap().arguments(), &serde_json::json!({}));
//! # Ok::<(), toolgate::PolicyError>(())
//! ```

mod catalogue;
mod conditions;
mod denials;
mod entries;
mod expressions;
mod findings;
mod kinds;
mod limits;
mod literals;
mod objects;
mod reach;
mod schema;
mod together;
mod trial;

use std::collections::HashMap;

use serde_json::Value;

use crate::policy::ast::{Document, RulesObject};
use crate::policy::{Names, Policy, PolicyError};
use crate::tools::explain::Witness;

pub use findings::{Claim, Finding, FindingCode, Report, Severity};

use findings::Found;

/// Looks at a policy alone. Its text is wanted, so that findings have lines and columns;
/// [`Policy::to_json`](crate::Policy::to_json) has it in one line.
///
/// # Errors
/// The text is not a valid policy.
pub fn check(source: &str) -> Result<Report, PolicyError> {
    run(source, None)
}

/// Looks at a policy and at the tools that a server has: the result of its `tools/list`, `{"tools": [...]}`, or the list alone.
/// What in it is no tool is passed over.
///
/// # Errors
/// The text is not a valid policy.
pub fn check_against(source: &str, tools: &Value) -> Result<Report, PolicyError> {
    run(source, Some(tools))
}

fn run(source: &str, tools: Option<&Value>) -> Result<Report, PolicyError> {
    let policy: Policy = source.parse()?;
    let Some(document) = Document::read(source, usize::MAX) else { return Ok(Report::default()) };
    let patterns = document.entries.iter().filter(|entry| entry.name.as_ref().is_some_and(|name| name.contains('*')));
    let whole = 10 + 10 * patterns.count();
    let mut lint = Lint {
        policy: &policy,
        document: &document,
        names: Names::default(),
        denials: Names::default(),
        reaching: HashMap::new(),
        passing: HashMap::new(),
        whole,
        fuel: FUEL,
        complete: true,
        found: Vec::new(),
    };
    lint.names = entries::names(document.entries.iter().filter_map(|entry| entry.name.as_deref()));
    let denials = document.entries.iter().filter(|entry| entry.denies_all().is_some());
    lint.denials = entries::names(denials.filter_map(|entry| entry.name.as_deref()));
    lint.entries();
    lint.literal_names();
    lint.all_conditions();
    lint.limits();
    if let Some(tools) = tools {
        lint.catalogue(tools);
    }
    Ok(findings::report(lint.found, source, lint.complete))
}

/// About how many small steps one lint takes before it says that it cannot tell the rest.
const FUEL: usize = 1_000_000;
/// About what reading and running a small policy costs.
const RUN: usize = 500;

/// A lint at work.
struct Lint<'l> {
    policy: &'l Policy,
    document: &'l Document,
    /// The entries.
    names: Names,
    /// Those of them that deny every call.
    denials: Names,
    /// Tools of a rules object, by its pointer, that come to its rules.
    reaching: HashMap<String, Vec<String>>,
    /// Of a tool a call that its rules do not deny, if one was found, and how many bytes these have.
    passing: HashMap<String, (Option<Witness>, usize)>,
    /// What running the whole policy on a call costs.
    whole: usize,
    fuel: usize,
    complete: bool,
    found: Vec<Found>,
}

impl<'l> Lint<'l> {
    /// Takes that many steps from the budget. Returns `false` if too few are left.
    fn spend(&mut self, steps: usize) -> bool {
        match self.fuel.checked_sub(steps) {
            Some(left) => {
                self.fuel = left;
                true
            }
            None => {
                self.complete = false;
                false
            }
        }
    }

    /// Whether the whole policy may be run on a call or two.
    fn spend_whole(&mut self) -> bool {
        self.spend(self.whole)
    }

    /// Every rules object, in document order.
    fn objects(&self) -> Vec<&'l RulesObject> {
        self.document.objects()
    }
}
