//! Comparison of a policy with the tools of a server.

use serde_json::Value;

use super::Lint;
use super::entries::name_set;
use super::findings::{FindingCode, UnplacedFinding};
use super::schema::{Declared, declared};
use super::value_types::{VALUE_TYPES, can_hold_for, type_of};
use crate::call::path::Path;
use crate::policy::ast::{Comparison, Limit, Placed, RuleSection, RulesObject};
use crate::policy::compiled::DefaultEffect;
use crate::policy::limit::{Cost, ScopePart};
use crate::policy::operator::Takes;
use crate::policy::{Names, edits};

/// A tool in the catalogue.
struct Tool<'t> {
    name: &'t str,
    schema: Option<&'t Value>,
}

/// The requirements of a part of a policy that reads an argument, other than to compare it.
struct ArgumentUse<'r> {
    /// The effect on a call without the argument.
    if_absent: Option<&'r str>,
    /// The types that the argument may have. Empty for any type.
    types: &'r [&'r str],
    /// The message, after its subject, if the argument never has one of the types.
    never_fits: &'r str,
}

/// The largest catalogue that is read whole.
const MAX_CATALOGUE_TOOLS: usize = 100_000;
/// The number of tools that are compared with one entry, and of names that are compared for
/// suggestions.
const MAX_TOOLS_COMPARED: usize = 1_000;

impl Lint<'_> {
    pub(super) fn catalogue(&mut self, list: &Value) {
        let list = list.get("result").unwrap_or(list);
        let list = list.get("tools").unwrap_or(list).as_array().map_or(&[][..], Vec::as_slice);
        self.is_complete &= list.len() <= MAX_CATALOGUE_TOOLS;
        let tool = |definition| {
            let name = Value::get(definition, "name")?.as_str().filter(|name| !name.is_empty())?;
            Some(Tool { name, schema: definition.get("inputSchema") })
        };
        let tools: Vec<Tool<'_>> = list.iter().filter_map(tool).take(MAX_CATALOGUE_TOOLS).collect();
        let document = self.document;
        let entries = name_set(document.entries.iter().filter_map(|entry| entry.name.as_deref()));
        let tools_of_entries = self.tools_of_entries(&entries, &tools);
        self.unmentioned(&entries, &tools, &tools_of_entries);
        for (object, matching) in document.entries.iter().zip(&tools_of_entries) {
            let name = object.name.as_deref().unwrap_or_default();
            if matching.is_empty() {
                self.no_such_tool(name, object.at, object.pointer.clone(), &tools);
            } else {
                self.arguments(object, &tools, matching);
            }
        }
        for (index, hidden) in document.hide.iter().enumerate() {
            let name = name_set(std::iter::once(hidden.value.as_str()));
            if self.spend(tools.len()) && !tools.iter().any(|tool| name.matches(tool.name)) {
                self.no_such_tool(&hidden.value, hidden.at, format!("/hide/{index}"), &tools);
            }
        }
        if let Some(all_tools) = &document.all_tools {
            let every: Vec<usize> = (0..tools.len()).collect();
            self.arguments(all_tools, &tools, &every);
        }
    }

    /// Returns the indexes of the tools that each entry matches.
    fn tools_of_entries(&mut self, entries: &Names, tools: &[Tool<'_>]) -> Vec<Vec<usize>> {
        let mut matching: Vec<Vec<usize>> = vec![Vec::new(); entries.len()];
        for (index, tool) in tools.iter().enumerate() {
            if !self.spend(10 + entries.patterns()) {
                break;
            }
            for entry in entries.matching(tool.name).iter(entries, tool.name) {
                if let Some(indexes) = matching.get_mut(entry as usize) {
                    indexes.push(index);
                }
            }
        }
        matching
    }

    /// Reports tools that no entry matches and that are not hidden.
    fn unmentioned(&mut self, entries: &Names, tools: &[Tool<'_>], tools_of_entries: &[Vec<usize>]) {
        let default = &self.document.default;
        let outcome = if default.value == DefaultEffect::Deny { "denied" } else { "allowed" };
        if entries.len() != tools_of_entries.len() || !self.is_complete {
            return;
        }
        let mut is_mentioned = vec![false; tools.len()];
        for index in tools_of_entries.iter().flatten() {
            if let Some(is_mentioned) = is_mentioned.get_mut(*index) {
                *is_mentioned = true;
            }
        }
        let hidden = name_set(self.document.hide.iter().map(|name| name.value.as_str()));
        for (tool, _) in tools.iter().zip(is_mentioned).filter(|(_, is_mentioned)| !is_mentioned) {
            if !self.spend(hidden.patterns()) {
                return;
            }
            if hidden.matches(tool.name) {
                continue;
            }
            let message = format!("no entry matches the tool `{}`: it is {outcome} by `default`", tool.name);
            let help = "add an entry for it if this is not intended";
            let place = (default.at, "/default".to_owned());
            self.findings.push(UnplacedFinding::without_claim(FindingCode::ToolUnmentioned, place, message, help));
        }
    }

    fn no_such_tool(&mut self, name: &str, at: usize, pointer: String, tools: &[Tool<'_>]) {
        if !self.is_complete {
            return;
        }
        let known = tools.iter().take(MAX_TOOLS_COMPARED).map(|tool| tool.name);
        let steps = known.len() * (name.len() + 1) * 4;
        let near = if self.spend(steps) { nearest(name, known) } else { None };
        let message = format!("`{name}` matches no tool in the catalogue");
        let help = near.map_or_else(|| "remove it".to_owned(), |near| format!("did you mean `{near}`?"));
        self.findings.push(UnplacedFinding::without_claim(FindingCode::NoSuchTool, (at, pointer), message, help));
    }

    /// Compares the arguments that the rules, limits and approvals of an object read with the
    /// schemas of the matching tools.
    fn arguments(&mut self, object: &RulesObject, tools: &[Tool<'_>], matching: &[usize]) {
        for section in RuleSection::ALL {
            for (index, rule) in object.rules(section).iter().enumerate() {
                for comparison in rule.comparisons(&object.rule_pointer(section, index)) {
                    if comparison.reads_argument() {
                        self.comparison(&comparison, section, tools, matching);
                    }
                    self.operand(&comparison, section, tools, matching);
                }
            }
        }
        for limit in &object.limits {
            self.arguments_of_limit(limit, tools, matching);
        }
        let bind = object.approval.iter().flat_map(|approval| &approval.bind).enumerate();
        for (index, binding) in bind {
            let types: &[&str] = if binding.value.at_most { &["number"] } else { &[] };
            let usage = ArgumentUse { if_absent: None, types, never_fits: "is a number: `<=` bounds nothing" };
            let place = (binding.at, format!("{}/approval/bind/{index}", object.pointer));
            self.argument_use(&binding.value.path, place, &usage, tools, matching);
        }
    }

    fn arguments_of_limit(&mut self, limit: &Limit, tools: &[Tool<'_>], matching: &[usize]) {
        let refuses = !limit.is_shadow;
        if let Cost::From(path) = &limit.cost.value {
            let usage = ArgumentUse {
                if_absent: refuses.then_some("a call without it is denied, because its amount is unknown"),
                types: &["number"],
                never_fits: "is a number: the amount of every call is unknown",
            };
            let place = (limit.cost.at, format!("{}/amount_from", limit.pointer));
            self.argument_use(path, place, &usage, tools, matching);
        }
        for (index, part) in limit.scope.iter().flat_map(|scope| &scope.value).enumerate() {
            let ScopePart::Path(path) = &part.value else { continue };
            let usage = ArgumentUse {
                if_absent: refuses.then_some("a call without it is denied, because it cannot be counted"),
                types: &["string", "number"],
                never_fits: "is a string or a number: no call can be counted",
            };
            let place = (part.at, format!("{}/scope/{index}", limit.pointer));
            self.argument_use(path, place, &usage, tools, matching);
        }
    }

    /// Checks the argument of `value_from`.
    fn operand(&mut self, comparison: &Placed<'_>, section: RuleSection, tools: &[Tool<'_>], matching: &[usize]) {
        let Some(path) = &comparison.value_from else { return };
        let types = comparison.operator.meaning.operand_types;
        let never_fits = match types {
            ["number", ..] => "is a number: nothing can be compared with it",
            ["array", ..] => "is a list: nothing can be compared with it",
            _ => "is a string: nothing can be compared with it",
        };
        let is_required = section == RuleSection::Require && comparison.is_joined;
        let usage = ArgumentUse { if_absent: is_required.then_some("a call without it is denied"), types, never_fits };
        let place = (path.at, format!("{}/value_from", comparison.pointer));
        self.argument_use(&path.value, place, &usage, tools, matching);
    }

    /// Checks an argument that is read for another purpose than to compare it.
    fn argument_use(
        &mut self,
        path: &Path,
        place: (usize, String),
        usage: &ArgumentUse<'_>,
        tools: &[Tool<'_>],
        matching: &[usize],
    ) {
        if !path.is_in_arguments() || path.is_root() {
            return;
        }
        let help = "require that it exists, with an `on_deny` that explains it";
        let if_absent = usage.if_absent.filter(|_| !path.has_each()).map(|effect| (effect, help));
        let Some(declarations) = self.argument(path, &place, if_absent, tools, matching) else { return };
        let never = declarations.iter().all(|declared| match declared {
            Declared::Argument { types: Some(types), .. } => !types.iter().any(|name| may_be(name, usage.types)),
            _ => false,
        });
        if never && !declarations.is_empty() && !usage.types.is_empty() {
            let message = format!("no value that the tool declares for `{path}` {}", usage.never_fits);
            self.never_of_type(place, message, "name an argument of a suitable type");
        }
    }

    fn never_of_type(&mut self, place: (usize, String), message: String, help: &str) {
        self.findings.push(UnplacedFinding::without_claim(FindingCode::NeverOfType, place, message, help));
    }

    /// Checks the argument that a comparison reads.
    fn comparison(&mut self, comparison: &Placed<'_>, section: RuleSection, tools: &[Tool<'_>], matching: &[usize]) {
        let path = &comparison.path;
        let place = (comparison.at, comparison.pointer.clone());
        let handles_absence = path.has_each() || comparison.is(Takes::Exists) || !comparison.is_joined;
        let effect = match section {
            _ if handles_absence || comparison.absent.is_some() || comparison.holds_if_absent(section) => None,
            RuleSection::Require => Some("a call without it is denied"),
            _ => Some("the rule does not stop a call without it"),
        };
        let help = "handle calls without it: add `\"absent\": \"match\"` or a rule with `exists`, or in \
                    rules that stop calls `\"absent\": \"no_match\"`";
        let declarations = self.argument(path, &place, effect.map(|effect| (effect, help)), tools, matching);
        let Some(declarations) = declarations.filter(|_| comparison.value.is_some()) else { return };
        // A negated comparison holds for the other types.
        if comparison.is(Takes::Exists) || comparison.is_negated() {
            return;
        }
        // One tool that declares a suitable value is enough to make the comparison useful.
        let never = declarations.iter().all(|declared| match declared {
            Declared::Argument { types: Some(types), values, .. } => {
                !types.iter().any(|name| can_hold_for_type(comparison, name)) || !may_equal(comparison, *values)
            }
            _ => false,
        });
        if never && !declarations.is_empty() {
            let operator = comparison.operator.name;
            let message = format!("no value that the tool declares for `{path}` satisfies `{operator}`");
            self.never_of_type(place, message, "compare with a value that the tool's `inputSchema` declares");
        }
    }

    /// Reports an argument that no tool declares, or that a tool declares as optional. Returns the
    /// declarations of the argument. `if_absent` is the effect on a call without it, and the help.
    fn argument<'t>(
        &mut self,
        path: &Path,
        (at, pointer): &(usize, String),
        if_absent: Option<(&str, &str)>,
        tools: &[Tool<'t>],
        matching: &[usize],
    ) -> Option<Vec<Declared<'t>>> {
        let compared = matching.iter().take(MAX_TOOLS_COMPARED);
        let compared: Vec<&Tool<'_>> = compared.filter_map(|index| tools.get(*index)).collect();
        if !self.spend(50 * compared.len() + 50) {
            return None;
        }
        let compares_all = matching.len() <= MAX_TOOLS_COMPARED;
        self.is_complete &= compares_all;
        let declaration = |tool: &&Tool<'t>| tool.schema.map_or(Declared::Unknown, |schema| declared(schema, path));
        let declarations: Vec<Declared<'t>> = compared.iter().map(declaration).collect();
        let mut report = |code, message: String, help: String| {
            self.findings.push(UnplacedFinding::without_claim(code, (*at, pointer.clone()), message, help));
        };
        let is_undeclared = |declared: &Declared<'_>| matches!(declared, Declared::Undeclared { .. });
        if compares_all && !declarations.is_empty() && declarations.iter().all(is_undeclared) {
            let names = declarations.iter().flat_map(|declared| match declared {
                Declared::Undeclared { known, .. } => known.as_slice(),
                _ => &[],
            });
            let text = path.to_string();
            let last = text.rsplit(['.', '[']).next().unwrap_or_default();
            let near = nearest(last, names.copied().take(MAX_TOOLS_COMPARED));
            let is_closed = |declared: &Declared<'_>| matches!(declared, Declared::Undeclared { closed: true, .. });
            let subject = match compared.as_slice() {
                [tool] => format!("`{}` declares no", tool.name),
                _ => "no matching tool declares an".to_owned(),
            };
            let closed = if declarations.iter().all(is_closed) { ", and accepts no others" } else { "" };
            let help = near.map_or_else(
                || "name an argument that the tool declares".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            report(FindingCode::NoSuchArgument, format!("{subject} argument `{path}`{closed}"), help);
        }
        let optional =
            declarations.iter().position(|declared| matches!(declared, Declared::Argument { optional: true, .. }));
        if let (Some(tool), Some((effect, help))) = (optional.and_then(|index| compared.get(index)), if_absent) {
            let message = format!("`{}` declares `{path}` as optional: {effect}", tool.name);
            report(FindingCode::ArgumentOptional, message, help.to_owned());
        }
        Some(declarations)
    }
}

/// Returns `true` if the comparison can hold for a value of a declared type.
fn can_hold_for_type(comparison: &Comparison, name: &str) -> bool {
    let types = VALUE_TYPES.iter().copied().filter(|value_type| can_hold_for(comparison, value_type));
    let lacks_integer = || comparison.values_asked_for().is_some_and(has_no_whole_number);
    may_be(name, &types.collect::<Vec<_>>()) && !(name == "integer" && lacks_integer())
}

/// Returns `false` if the comparison asks for equality with strings or booleans, and none of them
/// is among the declared values.
fn may_equal(comparison: &Comparison, declared: Option<&[Value]>) -> bool {
    let is_simple = |value: &Value| matches!(type_of(value), "string" | "boolean");
    declared.zip(comparison.values_asked_for()).is_none_or(|(declared, wanted)| {
        wanted.is_empty() || !wanted.iter().all(is_simple) || wanted.iter().any(|value| declared.contains(value))
    })
}

/// Returns `true` if a value of the declared type may have one of these types. A value of an
/// unknown type may.
fn may_be(name: &str, types: &[&str]) -> bool {
    let value_type = if name == "integer" { "number" } else { name };
    types.contains(&value_type) || (!VALUE_TYPES.contains(&value_type) && value_type != "null")
}

/// Returns `true` if none of the values is a whole number.
fn has_no_whole_number(values: &[Value]) -> bool {
    let is_whole = |number: &Value| match number.as_f64() {
        Some(float) if number.is_f64() => float.fract() == 0.0,
        _ => true,
    };
    !values.iter().filter(|value| value.is_number()).any(is_whole)
}

/// Returns the name with the fewest edits, if these are at most a third of its length or a single
/// one.
fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const MAX_BYTES: usize = 64;
    let is_short = |name: &str| name.len() <= MAX_BYTES;
    let near =
        names.filter(|known| is_short(known) && is_short(name)).map(|known| (edits(name, known), known)).min()?;
    (near.0 <= (near.1.len() / 3).max(1)).then_some(near.1)
}
