//! Rules one by one: conditions that never hold, and denials that a caller can leave.

use std::time::Duration;

use serde_json::{Value, json};

use super::findings::{Claim, FindingCode, Found};
use super::witness::{NOW, Witness, alone, undenied};
use super::{Lint, Object, elements, member};
use crate::call::ToolCall;
use crate::json::Node;
use crate::number::Exact;
use crate::path::{Path, Source};
use crate::policy::explain::ChangedCall;
use crate::policy::{Effect, Policy};

/// About what reading and running a small policy costs.
const RUN: usize = 500;

/// A comparison that a rule joins to its others by AND.
pub(super) struct Leaf<'l> {
    pub(super) at: usize,
    pub(super) pointer: String,
    pub(super) path: Path,
    pub(super) op: &'l str,
    /// Nothing for a comparison with another part of the call.
    pub(super) value: Option<Value>,
    absent_matches: bool,
    ignores_case: bool,
    node: &'l Node<'l>,
}

impl Leaf<'_> {
    fn is_negative(&self) -> bool {
        matches!(self.op, "neq" | "not_in" | "not_contains" | "not_regex")
    }

    /// Whether it counts as true where its path is absent.
    pub(super) fn holds_absent(&self, section: &str) -> bool {
        let exists_not = self.op == "exists" && self.value == Some(json!(false));
        self.absent_matches || exists_not || (section != "require" && self.is_negative())
    }
}

/// The comparisons of a rule's list of conditions, those of `all` included; groups of another kind are left out.
pub(super) fn leaves<'l>(conditions: &'l [Node<'l>], pointer: &str, to: &mut Vec<Leaf<'l>>) {
    for (index, node) in conditions.iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        if let Some(all) = member(node, "all") {
            leaves(elements(all), &format!("{pointer}/all"), to);
        }
        let path = member(node, "path").and_then(Node::as_str).and_then(|text| Path::parse(text).ok());
        let (Some(path), Some(op)) = (path, member(node, "op").and_then(Node::as_str)) else { continue };
        to.push(Leaf {
            at: node.at,
            pointer,
            path,
            op,
            value: member(node, "value").and_then(Node::to_value),
            absent_matches: member(node, "absent").is_some(),
            ignores_case: member(node, "ignore_case").and_then(Node::to_value) == Some(json!(true)),
            node,
        });
    }
}

pub(super) const SECTIONS: [&str; 3] = ["require", "deny_if", "require_approval_if"];

impl<'l> Lint<'l> {
    /// A policy with one rule and nothing else, if there is time for it.
    fn alone(&mut self, section: &str, rule: &Value) -> Option<Policy> {
        let steps = RUN + 10 * rule.to_string().len();
        if self.spend(steps) { alone(section, rule) } else { None }
    }

    pub(super) fn all_conditions(&mut self) {
        for object in self.objects() {
            for section in SECTIONS {
                for (index, rule) in object.list(section).iter().enumerate() {
                    if !self.spend(RUN) {
                        return;
                    }
                    let Some(conditions) = member(rule, "conditions") else { continue };
                    let place = object.place(section, index);
                    let mut all = Vec::new();
                    leaves(elements(conditions), &format!("{place}/conditions"), &mut all);
                    let never = self.never(&object, section, &all);
                    if let Some((at, pointer, message)) = never {
                        self.never_holds(section, rule, at, pointer, message);
                    } else if section == "deny_if" && object.denies_all().is_none() {
                        self.leavable(&object, rule, &all);
                    }
                    if section == "require" {
                        self.unanchored(rule, &all);
                    }
                }
            }
        }
    }

    fn never_holds(&mut self, section: &str, rule: &Node<'_>, at: usize, pointer: String, message: String) {
        let effect = match section {
            "require" => "every call is denied",
            _ => "the rule stops only what cannot be compared",
        };
        // A call without arguments shows what becomes of `require`.
        let witness = rule.to_value().filter(|_| section == "require").and_then(|rule| {
            let policy = self.alone(section, &rule)?;
            let arguments = json!({});
            Some(Witness::of(&policy, &ToolCall::new("tool", &arguments), NOW))
        });
        self.found.push(Found {
            code: FindingCode::NeverHolds,
            claim: Claim::NeverHolds,
            at,
            pointer,
            message: format!("{message}: {effect}"),
            mend: "join them by `any`, write two rules, or mend the values".to_owned(),
            witness,
        });
    }

    /// Why the conditions can never be true together.
    fn never(&mut self, object: &Object<'_>, section: &str, all: &[Leaf<'_>]) -> Option<(usize, String, String)> {
        for leaf in all {
            let tools = object.name.filter(|name| !name.contains('*'));
            if self.spend(RUN) && never_alone(leaf, section, tools) {
                let message = format!("`{}` can never be true", said(leaf));
                return Some((leaf.at, leaf.pointer.clone(), message));
            }
        }
        for (index, a) in all.iter().enumerate() {
            for b in all.iter().skip(index + 1) {
                if !self.spend(20) {
                    return None;
                }
                // `[*]` may stand for no element at all, of which everything holds.
                if a.path != b.path || a.path.has_each() || (a.holds_absent(section) && b.holds_absent(section)) {
                    continue;
                }
                let tries = usize::from(matches!(a.op, "eq" | "in")) + usize::from(matches!(b.op, "eq" | "in"));
                if !self.spend(tries * RUN) {
                    return None;
                }
                if exclude(a, b, section) || exclude(b, a, section) {
                    let message = format!("`{}` and `{}` can never both be true", said(a), said(b));
                    return Some((b.at, b.pointer.clone(), message));
                }
            }
        }
        None
    }

    /// Ways around a denial: leaving the argument out, another spelling, another type.
    fn leavable(&mut self, object: &Object<'_>, rule: &Node<'_>, all: &[Leaf<'_>]) {
        let Some(rule) = rule.to_value().and_then(|rule| self.alone("deny_if", &rule)) else { return };
        for leaf in all {
            let in_arguments = leaf.path.is_in_arguments() && !leaf.path.is_root();
            if !in_arguments || leaf.op == "exists" {
                continue;
            }
            if !leaf.is_negative() && !leaf.absent_matches {
                self.left_out(object, leaf, &rule);
            }
            if let Some(hit) = self.hit(leaf) {
                self.respelt(leaf, &rule, &hit);
                self.retyped(leaf, &rule, &hit);
            }
        }
    }

    /// A call that passes the whole policy without the argument.
    fn left_out(&mut self, object: &Object<'_>, leaf: &Leaf<'_>, rule: &Policy) {
        let cost = self.policy.to_json().len() / 2 + RUN;
        if !self.spend_whole() || !self.spend(cost) {
            return;
        }
        let tool = object.tool();
        let arguments = json!({});
        let Some(passes) = undenied(self.policy, &ToolCall::new(&tool, &arguments)) else { return };
        let mut without = passes.clone();
        without.edit(&leaf.path, None);
        let call = without.call();
        let slips = !matches!(self.policy.evaluate(&call, passes.now()).effect(), Effect::Deny(_))
            && rule.evaluate(&call, passes.now()).is_allowed();
        if slips {
            self.found.push(Found {
                code: FindingCode::DenialLeftOut,
                claim: Claim::SlipsThrough,
                at: leaf.at,
                pointer: leaf.pointer.clone(),
                message: format!("a call without `{}` is not denied", leaf.path),
                mend: "add `\"absent\": \"match\"`, or require that it exists".to_owned(),
                witness: Some(Witness::of(self.policy, &call, passes.now())),
            });
        }
    }

    /// A call of which this comparison alone is true.
    fn hit(&mut self, leaf: &Leaf<'_>) -> Option<ChangedCall> {
        if leaf.path.has_each() || !self.spend(2 * RUN) {
            return None;
        }
        let mut condition = leaf.node.to_value()?;
        // What is wanted is a value.
        condition.as_object_mut()?.remove("absent");
        let holds = self.alone("require", &json!({ "conditions": [condition] }))?;
        let arguments = json!({});
        let call = ToolCall::new("tool", &arguments);
        let explanation = holds.explain(&call, NOW);
        let change = explanation.reasons().next()?.changes().first()?.clone();
        Some(change.apply(&call, NOW))
    }

    fn respelt(&mut self, leaf: &Leaf<'_>, rule: &Policy, hit: &ChangedCall) {
        let texts = matches!(leaf.op, "eq" | "in" | "contains" | "starts_with" | "ends_with" | "regex");
        let Some(text) = value_at(hit, &leaf.path).filter(|_| texts && !leaf.ignores_case) else { return };
        let Some(text) = text.as_str().map(str::to_owned) else { return };
        let swap = |c: char| if c.is_uppercase() { c.to_lowercase().next() } else { c.to_uppercase().next() };
        let other: String = text.chars().filter_map(swap).collect();
        if other == text {
            return;
        }
        let mend = match leaf.op {
            "eq" | "in" => "list what is allowed in `require` instead",
            _ => "add `\"ignore_case\": true`, or better list what is allowed in `require`",
        };
        let message = format!("`{}` is stopped, and {} is not", json!(text), json!(other));
        self.slips(FindingCode::DenialRespelt, leaf, rule, hit, json!(other), message, mend);
    }

    fn retyped(&mut self, leaf: &Leaf<'_>, rule: &Policy, hit: &ChangedCall) {
        if leaf.op != "type" {
            return;
        }
        // Servers take one for the other.
        for other in [json!("1"), json!(1), json!("true"), json!(["x"])] {
            let message = format!("{other} is not stopped, and a server may take it for what is");
            let mend = "name the types that are allowed in `require` instead";
            if self.slips(FindingCode::DenialRetyped, leaf, rule, hit, other, message, mend) {
                return;
            }
        }
    }

    /// A finding, if the rule stops `hit` and not the same call with another value.
    #[expect(clippy::too_many_arguments, reason = "a finding and its proof")]
    fn slips(
        &mut self,
        code: FindingCode,
        leaf: &Leaf<'_>,
        rule: &Policy,
        hit: &ChangedCall,
        to: Value,
        message: String,
        mend: &str,
    ) -> bool {
        let mut other = hit.clone();
        let stopped = |call: &ChangedCall| !rule.evaluate(&call.call(), NOW).is_allowed();
        if !stopped(hit) || !other.edit(&leaf.path, Some(&to)) || stopped(&other) {
            return false;
        }
        self.found.push(Found {
            code,
            claim: Claim::SlipsThrough,
            at: leaf.at,
            pointer: leaf.pointer.clone(),
            message,
            mend: mend.to_owned(),
            witness: Some(Witness::of(rule, &other.call(), NOW)),
        });
        true
    }

    /// Expressions that let more stand around what they match.
    fn unanchored(&mut self, rule: &Node<'_>, all: &[Leaf<'_>]) {
        let is_tried = |leaf: &&Leaf<'_>| leaf.op == "regex" && leaf.path.is_in_arguments();
        if !all.iter().any(|leaf| is_tried(&leaf)) {
            return;
        }
        let Some(policy) = rule.to_value().and_then(|rule| self.alone("require", &rule)) else { return };
        for leaf in all.iter().filter(is_tried) {
            let Some(Value::String(pattern)) = &leaf.value else { continue };
            let Some((start, end)) = anchors(pattern).filter(|_| self.spend(4 * RUN)) else { continue };
            if start && end {
                continue;
            }
            let arguments = json!({});
            let call = ToolCall::new("tool", &arguments);
            let explanation = policy.explain(&call, NOW);
            let Some(change) = explanation.reasons().next().and_then(|rule| rule.changes().first()) else { continue };
            let holds = change.apply(&call, NOW);
            let Some(Value::String(text)) = value_at(&holds, &leaf.path) else { continue };
            let around = [format!("; {text}; "), format!("; {text}"), format!("{text}; ")];
            let passing = around.into_iter().find_map(|text| {
                let mut other = holds.clone();
                let passes = other.edit(&leaf.path, Some(&json!(text)))
                    && policy.evaluate(&other.call(), other.now()).is_allowed();
                passes.then_some(other)
            });
            let Some(passing) = passing else { continue };
            let open = match (start, end) {
                (false, false) => "around",
                (false, true) => "before",
                _ => "after",
            };
            self.found.push(Found {
                code: FindingCode::RegexUnanchored,
                claim: Claim::SlipsThrough,
                at: leaf.at,
                pointer: leaf.pointer.clone(),
                message: format!("anything may stand {open} what `{pattern}` matches"),
                mend: format!("write {}", json!(format!("^(?:{pattern})$"))),
                witness: Some(Witness::of(&policy, &passing.call(), passing.now())),
            });
        }
    }
}

/// Whether every match of the expression begins where the text begins, and ends where it ends.
fn anchors(pattern: &str) -> Option<(bool, bool)> {
    use regex_syntax::hir::Look;
    let hir = regex_syntax::parse(pattern).ok()?;
    let properties = hir.properties();
    Some((properties.look_set_prefix().contains(Look::Start), properties.look_set_suffix().contains(Look::End)))
}

/// The value at a path in the arguments of a call.
fn value_at(call: &ChangedCall, path: &Path) -> Option<Value> {
    let call = call.call();
    let facts = crate::path::Facts::new(&call, NOW);
    match path.resolve(&facts) {
        crate::path::Found::Value(crate::path::Datum::Text(text)) => Some(text.into()),
        _ => None,
    }
}

fn said(leaf: &Leaf<'_>) -> String {
    let value = leaf.value.as_ref().map_or_else(String::new, |value| format!(" {value}"));
    let short: String = value.chars().take(80).collect();
    format!("{} {}{short}", leaf.path, leaf.op)
}

/// Whether a comparison is true of no call: the engine is run on every value that its path can have, where these are few.
fn never_alone(leaf: &Leaf<'_>, section: &str, tool: Option<&str>) -> bool {
    let (Some(value), Some(condition)) = (&leaf.value, leaf.node.to_value()) else { return false };
    let path = leaf.path.to_string();
    match (leaf.path.source(), leaf.op) {
        (Source::Time, _) if path != "time.date" => {}
        (Source::Tool, _) if tool.is_some() => {}
        // Types that the path always has: a name of the caller is a text, and so is the date.
        (Source::Identity(_) | Source::Time | Source::Tool, _) => {
            let positive = !leaf.holds_absent(section);
            return positive && !can(leaf, value, "string");
        }
        _ => return false,
    }
    let Some(policy) = alone("require", &json!({ "conditions": [condition] })) else { return false };
    let arguments = json!({});
    let call = ToolCall::new(tool.unwrap_or("tool"), &arguments);
    // A week of hours, and the minutes of one: every hour, minute and weekday.
    let hours = (0..168).map(|hour| Duration::from_secs(hour * 3_600));
    let minutes = (0..60).map(|minute| Duration::from_secs(minute * 60));
    !hours.chain(minutes).any(|after| policy.evaluate(&call, NOW.saturating_add(after)).is_allowed())
}

/// Whether the operator with this value can be true of a value of the type: `string`, `number`, `boolean`, `array` or `object`.
pub(super) fn can(leaf: &Leaf<'_>, value: &Value, kind: &str) -> bool {
    let of = |value: &Value| kind == kind_of(value);
    let among = |values: &Value| values.as_array().is_some_and(|values| values.iter().any(of));
    match leaf.op {
        "eq" | "neq" => of(value),
        "lt" | "lte" | "gt" | "gte" => kind == "number",
        // Not one of several types: of no type is a value comparable with all of them, if there is more than one.
        "in" => among(value),
        "not_in" => value.as_array().is_some_and(|values| values.iter().all(of)),
        "exists" => true,
        "regex" | "not_regex" | "starts_with" | "ends_with" | "path_within" | "host_in" => kind == "string",
        "contains" => (kind == "string" && value.is_string()) || kind == "array",
        "not_contains" => (kind == "string" && value.is_string()) || kind == "array",
        "min_length" | "max_length" => matches!(kind, "string" | "array" | "object"),
        "type" => {
            let is = |name: &Value| name == kind || (kind == "number" && name == "integer");
            value.as_array().map_or_else(|| is(value), |names| names.iter().any(is))
        }
        _ => true,
    }
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

pub(super) const KINDS: [&str; 5] = ["string", "number", "boolean", "array", "object"];

/// Whether no value makes both true. `a` and `b` have one path, and absence makes at most one of them true.
fn exclude(a: &Leaf<'_>, b: &Leaf<'_>, section: &str) -> bool {
    let (Some(of_a), Some(of_b)) = (&a.value, &b.value) else { return false };
    if a.op == "exists" && *of_a == json!(false) {
        return !b.holds_absent(section);
    }
    if a.op == "exists" || b.op == "exists" {
        return false;
    }
    if !KINDS.iter().any(|kind| can(a, of_a, kind) && can(b, of_b, kind)) {
        return true;
    }
    let number = |value: &Value| value.as_number().and_then(Exact::of);
    match (a.op, b.op) {
        ("gt" | "gte", "lt" | "lte") => match (number(of_a), number(of_b)) {
            (Some(least), Some(most)) => least > most || (least == most && (a.op == "gt" || b.op == "lt")),
            _ => false,
        },
        ("min_length", "max_length") => of_a.as_u64() > of_b.as_u64(),
        // Of few values each is tried.
        ("eq", _) => none_holds(std::slice::from_ref(of_a), a, b),
        ("in", _) => of_a.as_array().is_some_and(|values| none_holds(values, a, b)),
        _ => false,
    }
}

/// Whether the engine finds both true of none of the values.
fn none_holds(values: &[Value], a: &Leaf<'_>, b: &Leaf<'_>) -> bool {
    const MOST: usize = 64;
    let (Some(one), Some(two), true) = (a.node.to_value(), b.node.to_value(), a.path.is_in_arguments()) else {
        return false;
    };
    let Some(policy) = alone("require", &json!({ "conditions": [one, two] })) else { return false };
    values.len() <= MOST
        && values.iter().all(|value| {
            let arguments = json!({});
            let mut call = ChangedCall::new(&ToolCall::new("tool", &arguments), NOW);
            call.edit(&a.path, Some(value)) && !policy.evaluate(&call.call(), NOW).is_allowed()
        })
}
