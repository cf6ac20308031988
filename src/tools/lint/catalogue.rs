//! A policy against the tools that a server has.

use serde_json::Value;

use super::conditions::{KINDS, SECTIONS, can, kind_of};
use super::entries::names;
use super::findings::{FindingCode, Found};
use super::leaves::{Leaf, leaves};
use super::schema::{Declared, declared};
use super::{Lint, Object, elements, member};
use crate::call::path::Path;
use crate::json::{Json, Node};
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
        let objects = self.objects();
        let entries = names(objects.iter().filter_map(|object| object.name));
        let hide = self.hide();
        let hidden_names: Vec<(usize, &Node<'_>)> = hide.iter().enumerate().collect();
        let matched = self.matched(&entries, &tools);
        self.unmentioned(&entries, &tools, &matched);
        let named: Vec<&Object<'_>> = objects.iter().filter(|object| object.name.is_some()).collect();
        for (object, matching) in named.iter().zip(&matched) {
            let name = object.name.unwrap_or_default();
            if matching.is_empty() {
                self.no_such_tool(name, object.at, object.pointer.clone(), &tools);
            } else {
                self.arguments(object, &tools, matching);
            }
        }
        for (index, node) in hidden_names {
            let Some(name) = node.as_str() else { continue };
            let one = names(std::iter::once(name));
            if self.spend(tools.len()) && !tools.iter().any(|tool| one.matches(tool.name)) {
                self.no_such_tool(name, node.at, format!("/hide/{index}"), &tools);
            }
        }
        if let Some(all) = objects.iter().find(|object| object.name.is_none()) {
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
        let default = member(self.document, "default");
        let denies = default.and_then(Node::as_str) == Some("deny");
        let (at, outcome) = (default.map_or(0, |default| default.at), if denies { "denied" } else { "allowed" });
        if entries.len() != matched.len() || !self.complete {
            return;
        }
        let mut mentioned = vec![false; tools.len()];
        for index in matched.iter().flatten() {
            if let Some(mentioned) = mentioned.get_mut(*index) {
                *mentioned = true;
            }
        }
        let hide = self.hide();
        let hidden = names(hide.iter().filter_map(Node::as_str));
        for (tool, _) in tools.iter().zip(mentioned).filter(|(_, mentioned)| !mentioned) {
            if !self.spend(hidden.patterns()) {
                return;
            }
            if hidden.matches(tool.name) {
                continue;
            }
            let message = format!("no entry matches the tool `{}`: by `default` it is {outcome}", tool.name);
            let help = "add an entry for it if that is not meant";
            self.found.push(Found::remark(FindingCode::ToolUnmentioned, (at, "/default".to_owned()), message, help));
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
    fn arguments(&mut self, object: &Object<'_>, tools: &[Tool<'_>], matching: &[usize]) {
        for section in SECTIONS {
            for (index, rule) in object.list(section).iter().enumerate() {
                let pointer = format!("{}/conditions", object.place(section, index));
                for leaf in leaves(member(rule, "conditions").map_or(&[], elements), &pointer) {
                    if leaf.reads_argument() {
                        self.leaf(&leaf, section, tools, matching);
                    }
                    self.other(&leaf, section, tools, matching);
                }
            }
        }
        let limits = object.list("limits").iter().enumerate();
        let limits = limits.map(|(index, limit)| (limit, object.place("limits", index)));
        let rate = object.get("rate_limit").map(|rate| (rate, format!("{}/rate_limit", object.pointer)));
        for (limit, place) in limits.chain(rate) {
            let refuses = !matches!(member(limit, "shadow"), Some(Node { json: Json::Bool(true), .. }));
            if let Some(node) = member(limit, "amount_from") {
                let read = Read {
                    absent: refuses.then_some("a call without it is denied, as its amount cannot be told"),
                    kinds: &["number"],
                    mistyped: "is a number: what a call costs cannot be told",
                };
                self.reads(node, node.as_str(), format!("{place}/amount_from"), &read, tools, matching);
            }
            for (index, part) in member(limit, "scope").map_or(&[][..], elements).iter().enumerate() {
                let read = Read {
                    absent: refuses.then_some("a call without it is denied, as it cannot be counted"),
                    kinds: &["string", "number"],
                    mistyped: "is a string or a number: no call can be counted",
                };
                self.reads(part, part.as_str(), format!("{place}/scope/{index}"), &read, tools, matching);
            }
        }
        let bind = object.get("approval").and_then(|approval| member(approval, "bind")).map_or(&[][..], elements);
        for (index, node) in bind.iter().enumerate() {
            let text = node.as_str().unwrap_or_default();
            let (path, kinds): (_, &[&str]) = match text.strip_suffix("<=") {
                Some(path) => (path, &["number"]),
                None => (text, &[]),
            };
            let read = Read { absent: None, kinds, mistyped: "is a number: `<=` bounds nothing" };
            let pointer = format!("{}/approval/bind/{index}", object.pointer);
            self.reads(node, Some(path), pointer, &read, tools, matching);
        }
    }

    /// What a comparison compares with, elsewhere in the call.
    fn other(&mut self, leaf: &Leaf<'_>, section: &str, tools: &[Tool<'_>], matching: &[usize]) {
        let Some(node) = member(leaf.node, "value_from") else { return };
        let (kinds, mistyped): (&[&str], _) = match leaf.op {
            "lt" | "lte" | "gt" | "gte" => (&["number"], "is a number: nothing can be compared with it"),
            "in" | "not_in" => (&["array"], "is a list: nothing can be compared with it"),
            "starts_with" | "ends_with" => (&["string", "array"], "is a text: nothing can be compared with it"),
            _ => (&[], ""),
        };
        let absent = (section == "require" && leaf.joined).then_some("a call without it is denied");
        let read = Read { absent, kinds, mistyped };
        self.reads(node, node.as_str(), format!("{}/value_from", leaf.pointer), &read, tools, matching);
    }

    /// An argument that is read for something else than to be compared.
    fn reads(
        &mut self,
        node: &Node<'_>,
        path: Option<&str>,
        pointer: String,
        read: &Read<'_>,
        tools: &[Tool<'_>],
        matching: &[usize],
    ) {
        let path = path.and_then(|text| Path::parse(text).ok());
        let Some(path) = path.filter(|path| path.is_in_arguments() && !path.is_root()) else { return };
        let place = (node.at, pointer);
        let help = "require that it exists, with an `on_deny` that says so";
        let absent = read.absent.filter(|_| !path.has_each()).map(|absent| (absent, help));
        let Some(found) = self.argument(&path, &place, absent, tools, matching) else { return };
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

    fn leaf(&mut self, leaf: &Leaf<'_>, section: &str, tools: &[Tool<'_>], matching: &[usize]) {
        let place = (leaf.at, leaf.pointer.clone());
        let absent = match section {
            _ if leaf.path.has_each() || leaf.op == "exists" || !leaf.joined || leaf.holds_absent(section) => None,
            "require" => Some("a call without it is denied"),
            _ => Some("the rule does not stop a call without it"),
        };
        let help = "say what becomes of a call without it: `\"absent\": \"match\"`, or a rule with `exists`";
        let found = self.argument(&leaf.path, &place, absent.map(|absent| (absent, help)), tools, matching);
        let (Some(value), Some(found)) = (&leaf.value, found) else { return };
        // What is turned around is satisfied by other types.
        if leaf.op == "exists" || leaf.turned {
            return;
        }
        // Only where no tool declares anything else.
        let never = found.iter().all(|declared| match declared {
            Declared::There { types: Some(types), values, .. } => {
                let of_type = types.iter().any(|name| {
                    may_be(name, &KINDS.map(|kind| if can(leaf, value, kind) { kind } else { "" }))
                        && !(*name == "integer" && is_broken(leaf, value))
                });
                let wanted: Vec<&Value> = match (leaf.op, value) {
                    ("eq", value) => vec![value],
                    ("in", Value::Array(values)) => values.iter().collect(),
                    _ => Vec::new(),
                };
                let plain = |value: &Value| matches!(kind_of(value), "string" | "boolean");
                let listed = values.is_none_or(|values| {
                    wanted.is_empty()
                        || !wanted.iter().all(|value| plain(value))
                        || wanted.iter().any(|v| values.contains(v))
                });
                !of_type || !listed
            }
            _ => false,
        });
        if never && !found.is_empty() {
            let message = format!("no value that the tool declares for `{}` satisfies `{}`", leaf.path, leaf.op);
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

/// Whether a comparison asks for equality with numbers, none of which is whole.
fn is_broken(leaf: &Leaf<'_>, value: &Value) -> bool {
    let whole = |number: &Value| match number.as_f64() {
        Some(float) if number.is_f64() => float.fract() == 0.0,
        _ => true,
    };
    match (leaf.op, value) {
        ("eq", number) => !whole(number),
        ("in", Value::Array(values)) => !values.iter().filter(|value| value.is_number()).any(whole),
        _ => false,
    }
}

/// The name with the fewest edits, if they are few.
fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const LONGEST: usize = 64;
    let short = |name: &str| name.len() <= LONGEST;
    let near = names.filter(|known| short(known) && short(name)).map(|known| (edits(name, known), known)).min()?;
    (near.0 <= (near.1.len() / 3).max(1)).then_some(near.1)
}
