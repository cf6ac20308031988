//! What is odd in a policy that reads well: entries that never apply, rules that never decide, denials and approvals that a caller
//! can leave.
//!
//! [`check`] looks at a policy alone, [`check_against`] also at the tools that a server has (its `tools/list`). A finding says where,
//! why, and how to help it; where it claims that something can slip through, the [`Witness`] is a call that the engine was run on.
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
mod leaves;
mod limits;
mod literals;
mod reach;
mod schema;
mod together;
mod witness;

use std::collections::HashMap;

use serde_json::Value;

use crate::json::{Json, Node, Parser};
use crate::policy::{Names, Policy, PolicyError};
use crate::tools::explain::ChangedCall;

pub use findings::{Claim, Finding, FindingCode, Report, Severity};
pub use witness::Witness;

use findings::Found;

/// Looks at a policy alone. Its text is wanted, so that findings have lines and columns;
/// [`Policy::to_json`](crate::Policy::to_json) has it in one line.
///
/// # Errors
/// The text is no policy.
pub fn check(source: &str) -> Result<Report, PolicyError> {
    run(source, None)
}

/// Looks at a policy and at the tools that a server has: the result of its `tools/list`, `{"tools": [...]}`, or the list alone.
/// What in it is no tool is passed over.
///
/// # Errors
/// The text is no policy.
pub fn check_against(source: &str, tools: &Value) -> Result<Report, PolicyError> {
    run(source, Some(tools))
}

fn run(source: &str, tools: Option<&Value>) -> Result<Report, PolicyError> {
    let policy: Policy = source.parse()?;
    let Ok(document) = Parser::document(source, usize::MAX) else { return Ok(Report::default()) };
    let patterns =
        member(&document, "tools").map_or(&[][..], entries::keys).iter().filter(|entry| entry.key.contains('*'));
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
    let objects = lint.objects();
    lint.names = entries::names(objects.iter().filter_map(|one| one.name));
    lint.denials = entries::names(objects.iter().filter(|one| one.denies_all().is_some()).filter_map(|one| one.name));
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
    document: &'l Node<'l>,
    /// The entries.
    names: Names,
    /// Those of them that deny every call.
    denials: Names,
    /// Tools of a rules object, by its pointer, that come to its rules.
    reaching: HashMap<String, Vec<String>>,
    /// Of a tool a call that its rules do not deny, if one was found, and how many bytes these have.
    passing: HashMap<String, (Option<ChangedCall>, usize)>,
    /// What running the whole policy on a call costs.
    whole: usize,
    fuel: usize,
    complete: bool,
    found: Vec<Found>,
}

impl<'l> Lint<'l> {
    /// Whether so many steps may still be taken; they are then.
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

    /// The elements of `hide`.
    fn hide(&self) -> &'l [Node<'l>] {
        member(self.document, "hide").map_or(&[], elements)
    }

    /// Every rules object: its pointer, its key in `tools` (none is `all_tools`), where it stands, and what it says.
    fn objects(&self) -> Vec<Object<'l>> {
        let mut all = Vec::new();
        let Json::Object(members) = &self.document.json else { return all };
        for member in members {
            match (&*member.key, &member.value.json) {
                ("tools", Json::Object(entries)) => {
                    all.extend(entries.iter().map(|entry| {
                        let mut pointer = "/tools".to_owned();
                        crate::json::pointer::push_key(&mut pointer, &entry.key);
                        Object { pointer, name: Some(&entry.key), at: entry.at, rules: &entry.value }
                    }));
                }
                ("all_tools", _) => all.push(Object {
                    pointer: "/all_tools".to_owned(),
                    name: None,
                    at: member.at,
                    rules: &member.value,
                }),
                _ => {}
            }
        }
        all
    }
}

/// One rules object of the document.
struct Object<'l> {
    pointer: String,
    name: Option<&'l str>,
    at: usize,
    rules: &'l Node<'l>,
}

impl<'l> Object<'l> {
    /// The value of a key.
    fn get(&self, key: &str) -> Option<&'l Node<'l>> {
        member(self.rules, key)
    }

    /// The elements of a section.
    fn list(&self, key: &str) -> &'l [Node<'l>] {
        self.get(key).map_or(&[], elements)
    }

    /// A tool that it is about, whatever else is said of it; [`Lint::reaching`] has those that come to its rules.
    fn tool(&self) -> String {
        self.name.map_or_else(|| "tool".to_owned(), |name| name.replace('*', ""))
    }

    /// The counter of its `rate_limit`.
    fn rate_counter(&self) -> String {
        format!("{}_rate", self.name.unwrap_or("all_tools"))
    }

    /// Where an element of a section stands.
    fn place(&self, key: &str, index: usize) -> String {
        format!("{}/{key}/{index}", self.pointer)
    }

    fn action(&self) -> Option<&str> {
        self.get("action").and_then(Node::as_str)
    }

    /// Which of its rules denies every call: its action, or a rule of `deny_if` without conditions.
    fn denies_all(&self) -> Option<String> {
        self.always("deny", "deny_if")
    }

    /// Whether something stops every call before, or as, the rules of `section` do: `deny_if` or `require_approval_if`.
    fn stops_all(&self, section: &str) -> bool {
        let asks = || self.always("require_approval", "require_approval_if").is_some();
        self.denies_all().is_some() || (section == "require_approval_if" && asks())
    }

    /// The action, if it is this one, or a rule of the section without conditions.
    fn always(&self, action: &str, section: &str) -> Option<String> {
        if self.action() == Some(action) {
            return Some(format!("{}/action", self.pointer));
        }
        let empty =
            |rule: &Node<'_>| member(rule, "conditions").is_some_and(|conditions| elements(conditions).is_empty());
        self.list(section).iter().position(empty).map(|index| self.place(section, index))
    }
}

fn member<'n, 't>(node: &'n Node<'t>, key: &str) -> Option<&'n Node<'t>> {
    match &node.json {
        Json::Object(members) => members.iter().find(|member| member.key == key).map(|member| &member.value),
        _ => None,
    }
}

fn elements<'n, 't>(node: &'n Node<'t>) -> &'n [Node<'t>] {
    match &node.json {
        Json::Array(elements) => elements,
        _ => &[],
    }
}
