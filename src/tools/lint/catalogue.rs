//! A policy against the tools that a server has.

use serde_json::Value;

use super::Lint;
use super::entries::names;
use super::findings::{FindingCode, Found};
use super::kinds::{KINDS, can, kind_of};
use super::schema::{Declared, declared};
use crate::call::path::Path;
use crate::policy::ast::{Limit, Placed, RuleSection, RulesObject};
use crate::policy::compiled::DefaultEffect;
use crate::policy::limit::{Cost, ScopePart};
use crate::policy::operator::Takes;
use crate::policy::{Names, edits};

/// A tool of the catalogue.
struct Tool<'t> {
    name: &'t str,
    schema: Option<&'t Value>,
}

/// What an argument is read for.
struct Read<'r> {
    /// What becomes of a call without it.
    absent: Option<&'r str>,
    /// The types that it may have; any, if none are named.
    kinds: &'r [&'r str],
    /// What is said where it can have none of them.
    mistyped: &'r str,
}

/// How many tools of one entry are looked at, and how many names it is compared with.
const MOST: usize = 1_000;

impl Lint<'_> {
    pub(super) fn catalogue(&mut self, list: &Value) {
        let list = list.get("result").unwrap_or(list);
        let list = list.get("tools").unwrap_or(list).as_array().map_or(&[][..], Vec::as_slice);
        let tool = |tool: &'_ Value| tool.get("name").and_then(Value::as_str).map(str::len);
        self.complete &= list.len() <= 100_000;
        let tools: Vec<Tool<'_>> = list
            .iter()
            .filter(|one| tool(one).is_some_and(|length| length > 0))
            .take(100_000)
            .map(|tool| Tool {
                name: tool.get("name").and_then(Value::as_str).unwrap_or_default(),
                schema: tool.get("inputSchema"),
            })
            .collect();
        let document = self.document;
        let entries = names(document.entries.iter().filter_map(|entry| entry.name.as_deref()));
        let matched = self.matched(&entries, &tools);
        self.unmentioned(&entries, &tools, &matched);
        for (object, matching) in document.entries.iter().zip(&matched) {
            let name = object.name.as_deref().unwrap_or_default();
            if matching.is_empty() {
                self.no_such_tool(name, object.at, object.pointer.clone(), &tools);
            } else {
                self.arguments(object, &tools, matching);
            }
        }
        for (index, name) in document.hide.iter().enumerate() {
            let one = names(std::iter::once(name.value.as_str()));
            if self.spend(tools.len()) && !tools.iter().any(|tool| one.matches(tool.name)) {
                self.no_such_tool(&name.value, name.at, format!("/hide/{index}"), &tools);
            }
        }
        if let Some(all) = &document.all_tools {
            let every: Vec<usize> = (0..tools.len()).collect();
            self.arguments(all, &tools, &every);
        }
    }

    /// The tools that each entry matches.
    fn matched(&mut self, entries: &Names, tools: &[Tool<'_>]) -> Vec<Vec<usize>> {
        let mut matched: Vec<Vec<usize>> = vec![Vec::new(); entries.len()];
        for (index, tool) in tools.iter().enumerate() {
            if !self.spend(10 + entries.patterns()) {
                break;
            }
            for entry in entries.matching(tool.name).iter(entries, tool.name) {
                if let Some(known) = matched.get_mut(entry as usize) {
                    known.push(index);
                }
            }
        }
        matched
    }

    fn unmentioned(&mut self, entries: &Names, tools: &[Tool<'_>], matched: &[Vec<usize>]) {
        let default = &self.document.default;
        let outcome = if default.value == DefaultEffect::Deny { "denied" } else { "allowed" };
        if entries.len() != matched.len() || !self.complete {
            return;
        }
        let mut mentioned = vec![false; tools.len()];
        for index in matched.iter().flatten() {
            if let Some(mentioned) = mentioned.get_mut(*index) {
                *mentioned = true;
            }
        }
        let hidden = names(self.document.hide.iter().map(|name| name.value.as_str()));
        for (tool, _) in tools.iter().zip(mentioned).filter(|(_, mentioned)| !mentioned) {
            if !self.spend(hidden.patterns()) {
                return;
            }
            if hidden.matches(tool.name) {
                continue;
            }
            let message = format!("no entry matches the tool `{}`: by `default` it is {outcome}", tool.name);
            let help = "add an entry for it if that is not meant";
            let place = (default.at, "/default".to_owned());
            self.found.push(Found::remark(FindingCode::ToolUnmentioned, place, message, help));
        }
    }

    fn no_such_tool(&mut self, name: &str, at: usize, pointer: String, tools: &[Tool<'_>]) {
        if !self.complete {
            return;
        }
        let known = tools.iter().take(MOST).map(|tool| tool.name);
        let near = if self.spend(tools.len().min(MOST) * (name.len() + 1) * 4) { nearest(name, known) } else { None };
        let message = format!("`{name}` matches no tool of the catalogue");
        let help = near.map_or_else(|| "remove it".to_owned(), |near| format!("did you mean `{near}`?"));
        self.found.push(Found::remark(FindingCode::NoSuchTool, (at, pointer), message, help));
    }

    /// The arguments that the rules, limits and approvals of an object read, in the schemas of the tools that it matches.
    fn arguments(&mut self, object: &RulesObject, tools: &[Tool<'_>], matching: &[usize]) {
        for section in RuleSection::ALL {
            for (index, rule) in object.rules(section).iter().enumerate() {
                for leaf in rule.comparisons(&object.rule_pointer(section, index)) {
                    if leaf.reads_argument() {
                        self.leaf(&leaf, section, tools, matching);
                    }
                    self.other(&leaf, section, tools, matching);
                }
            }
        }
        for limit in &object.limits {
            self.arguments_of_limit(limit, tools, matching);
        }
        let bind = object.approval.iter().flat_map(|approval| &approval.bind).enumerate();
        for (index, binding) in bind {
            let kinds: &[&str] = if binding.value.at_most { &["number"] } else { &[] };
            let read = Read { absent: None, kinds, mistyped: "is a number: `<=` bounds nothing" };
            let place = (binding.at, format!("{}/approval/bind/{index}", object.pointer));
            self.reads(&binding.value.path, place, &read, tools, matching);
        }
    }

    fn arguments_of_limit(&mut self, limit: &Limit, tools: &[Tool<'_>], matching: &[usize]) {
        let refuses = !limit.is_shadow;
        if let Cost::From(path) = &limit.cost.value {
            let read = Read {
                absent: refuses.then_some("a call without it is denied, as its amount cannot be told"),
                kinds: &["number"],
                mistyped: "is a number: what a call costs cannot be told",
            };
            self.reads(path, (limit.cost.at, format!("{}/amount_from", limit.pointer)), &read, tools, matching);
        }
        for (index, part) in limit.scope.iter().flat_map(|scope| &scope.value).enumerate() {
            let ScopePart::Path(path) = &part.value else { continue };
            let read = Read {
                absent: refuses.then_some("a call without it is denied, as it cannot be counted"),
                kinds: &["string", "number"],
                mistyped: "is a string or a number: no call can be counted",
            };
            self.reads(path, (part.at, format!("{}/scope/{index}", limit.pointer)), &read, tools, matching);
        }
    }

    /// What a comparison compares with, elsewhere in the call.
    fn other(&mut self, leaf: &Placed<'_>, section: RuleSection, tools: &[Tool<'_>], matching: &[usize]) {
        let Some(path) = &leaf.value_from else { return };
        let kinds = leaf.operator.meaning.operand_types;
        let mistyped = match kinds {
            ["number", ..] => "is a number: nothing can be compared with it",
            ["array", ..] => "is a list: nothing can be compared with it",
            _ => "is a text: nothing can be compared with it",
        };
        let is_required = section == RuleSection::Require && leaf.is_joined;
        let read = Read { absent: is_required.then_some("a call without it is denied"), kinds, mistyped };
        self.reads(&path.value, (path.at, format!("{}/value_from", leaf.pointer)), &read, tools, matching);
    }

    /// An argument that is read for something else than to be compared.
    fn reads(&mut self, path: &Path, place: (usize, String), read: &Read<'_>, tools: &[Tool<'_>], matching: &[usize]) {
        if !path.is_in_arguments() || path.is_root() {
            return;
        }
        let help = "require that it exists, with an `on_deny` that says so";
        let absent = read.absent.filter(|_| !path.has_each()).map(|absent| (absent, help));
        let Some(found) = self.argument(path, &place, absent, tools, matching) else { return };
        let never = found.iter().all(|declared| match declared {
            Declared::There { types: Some(types), .. } => !types.iter().any(|name| may_be(name, read.kinds)),
            _ => false,
        });
        if never && !found.is_empty() && !read.kinds.is_empty() {
            let message = format!("no value that the tool declares for `{path}` {}", read.mistyped);
            self.never_of_type(place, message, "name an argument that can be one");
        }
    }

    fn never_of_type(&mut self, place: (usize, String), message: String, help: &str) {
        self.found.push(Found::remark(FindingCode::NeverOfType, place, message, help));
    }

    fn leaf(&mut self, leaf: &Placed<'_>, section: RuleSection, tools: &[Tool<'_>], matching: &[usize]) {
        let place = (leaf.at, leaf.pointer.clone());
        let is_told = leaf.path.has_each() || leaf.is(Takes::Exists) || !leaf.is_joined;
        let absent = match section {
            _ if is_told || leaf.holds_if_absent(section) => None,
            RuleSection::Require => Some("a call without it is denied"),
            _ => Some("the rule does not stop a call without it"),
        };
        let help = "say what becomes of a call without it: `\"absent\": \"match\"`, or a rule with `exists`";
        let found = self.argument(&leaf.path, &place, absent.map(|absent| (absent, help)), tools, matching);
        let Some(found) = found.filter(|_| leaf.value.is_some()) else { return };
        // What is turned around is satisfied by other types.
        if leaf.is(Takes::Exists) || leaf.is_negated() {
            return;
        }
        let wanted = leaf.values_asked_for();
        // Only where no tool declares anything else.
        let never = found.iter().all(|declared| match declared {
            Declared::There { types: Some(types), values, .. } => {
                let of_type = types.iter().any(|name| {
                    may_be(name, &KINDS.map(|kind| if can(leaf, kind) { kind } else { "" }))
                        && !(*name == "integer" && wanted.is_some_and(is_broken))
                });
                let plain = |value: &Value| matches!(kind_of(value), "string" | "boolean");
                let listed = values.zip(wanted).is_none_or(|(values, wanted)| {
                    wanted.is_empty() || !wanted.iter().all(plain) || wanted.iter().any(|v| values.contains(v))
                });
                !of_type || !listed
            }
            _ => false,
        });
        if never && !found.is_empty() {
            let message =
                format!("no value that the tool declares for `{}` satisfies `{}`", leaf.path, leaf.operator.name);
            self.never_of_type(place, message, "compare with what the tool's inputSchema declares");
        }
    }

    /// Tells of an argument that no tool has, or that one declares optional; and what the tools declare.
    fn argument<'t>(
        &mut self,
        path: &Path,
        (at, pointer): &(usize, String),
        absent: Option<(&str, &str)>,
        tools: &[Tool<'t>],
        matching: &[usize],
    ) -> Option<Vec<Declared<'t>>> {
        let known: Vec<&Tool<'_>> = matching.iter().take(MOST).filter_map(|index| tools.get(*index)).collect();
        if !self.spend(50 * known.len() + 50) {
            return None;
        }
        self.complete &= matching.len() <= MOST;
        let found: Vec<Declared<'t>> =
            known.iter().map(|tool| tool.schema.map_or(Declared::Unknown, |schema| declared(schema, path))).collect();
        let mut add = |code, message: String, help: String| {
            let pointer = pointer.clone();
            self.found.push(Found::remark(code, (*at, pointer), message, help));
        };
        let unnamed = |declared: &Declared<'_>| matches!(declared, Declared::Unnamed { .. });
        let first = known.first().map_or("", |tool| tool.name);
        if matching.len() <= MOST && !found.is_empty() && found.iter().all(unnamed) {
            let names = found.iter().flat_map(|declared| match declared {
                Declared::Unnamed { known, .. } => known.as_slice(),
                _ => &[],
            });
            let last = path.to_string();
            let last = last.rsplit(['.', '[']).next().unwrap_or_default().to_owned();
            let near = nearest(&last, names.copied().take(MOST));
            let closed = found.iter().all(|declared| matches!(declared, Declared::Unnamed { closed: true, .. }));
            let whom = if found.len() == 1 { format!("`{first}`") } else { "no matching tool".to_owned() };
            let verb = if found.len() == 1 { "declares no" } else { "declares an" };
            let takes = if closed { ", and takes no others" } else { "" };
            let help = near.map_or_else(
                || "name an argument that the tool has".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            add(FindingCode::NoSuchArgument, format!("{whom} {verb} argument `{path}`{takes}"), help);
        }
        let optional = found.iter().position(|one| matches!(one, Declared::There { optional: true, .. }));
        if let (Some(tool), Some((effect, help))) = (optional.and_then(|index| known.get(index)), absent) {
            let message = format!("`{}` declares `{path}` optional: {effect}", tool.name);
            add(FindingCode::ArgumentOptional, message, help.to_owned());
        }
        Some(found)
    }
}

/// Whether a value of a declared type may be of one of these kinds. A type that is not known may be anything.
fn may_be(name: &str, kinds: &[&str]) -> bool {
    let kind = if name == "integer" { "number" } else { name };
    kinds.contains(&kind) || (!KINDS.contains(&kind) && kind != "null")
}

/// Whether no whole number is among these values.
fn is_broken(values: &[Value]) -> bool {
    let whole = |number: &Value| match number.as_f64() {
        Some(float) if number.is_f64() => float.fract() == 0.0,
        _ => true,
    };
    !values.iter().filter(|value| value.is_number()).any(whole)
}

/// The name with the fewest edits, if they are few.
fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const LONGEST: usize = 64;
    let short = |name: &str| name.len() <= LONGEST;
    let near = names.filter(|known| short(known) && short(name)).map(|known| (edits(name, known), known)).min()?;
    (near.0 <= (near.1.len() / 3).max(1)).then_some(near.1)
}
