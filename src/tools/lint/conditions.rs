//! Rules one by one, and of each the conditions that never hold.

use std::time::Duration;

use serde_json::{Value, json};

use super::denials::STOPS;
use super::findings::{Claim, FindingCode, Found};
use super::leaves::{Leaf, leaves};
use super::together::{cost, exclude};
use super::witness::{NOW, Witness, alone};
use super::{Lint, Object, RUN, elements, member};
use crate::call::ToolCall;
use crate::call::path::Source;
use crate::json::Node;
use crate::policy::Policy;

pub(super) const SECTIONS: [&str; 3] = ["require", "deny_if", "require_approval_if"];

impl<'l> Lint<'l> {
    /// A policy with one rule and nothing else, if there is time for it.
    pub(super) fn alone(&mut self, section: &str, rule: &Value) -> Option<Policy> {
        let steps = RUN + 10 * rule.to_string().len();
        if self.spend(steps) { alone(section, rule) } else { None }
    }

    pub(super) fn all_conditions(&mut self) {
        for object in self.objects() {
            for section in SECTIONS {
                let stops = STOPS.iter().find(|stops| stops.section == section).filter(|_| !object.stops_all(section));
                for (index, rule) in object.list(section).iter().enumerate() {
                    if !self.spend(RUN) {
                        return;
                    }
                    let Some(conditions) = member(rule, "conditions") else { continue };
                    let place = object.place(section, index);
                    let all = leaves(elements(conditions), &format!("{place}/conditions"));
                    let never = self.never(&object, section, &all);
                    if let Some(never) = never {
                        self.never_holds(section, rule, never);
                    } else if let Some(stops) = stops {
                        self.leavable(stops, &object, rule, &all);
                    }
                    self.literals(&all);
                    if section == "require" {
                        self.unanchored(rule, &place, &all);
                    }
                }
            }
        }
    }

    fn never_holds(&mut self, section: &str, rule: &Node<'_>, never: Never) {
        let Never { at, pointer, message, help } = never;
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
            help,
            witness,
        });
    }

    /// Why the conditions can never be true together.
    fn never(&mut self, object: &Object<'_>, section: &str, all: &[Leaf<'_>]) -> Option<Never> {
        let all: Vec<&Leaf<'_>> = all.iter().filter(|leaf| leaf.joined).collect();
        for leaf in &all {
            let tools = object.name.filter(|name| !name.contains('*'));
            if self.spend(RUN) && never_alone(leaf, section, tools) {
                let message = format!("`{}` can never be true", said(leaf));
                return Some(Never::of(leaf, message, holds(leaf)));
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
                if !self.spend(cost(a, b)) {
                    return None;
                }
                if exclude(a, b, section) || exclude(b, a, section) {
                    let message = format!("`{}` and `{}` can never both be true", said(a), said(b));
                    let help = "join them by `any`, write two rules, or help the values";
                    return Some(Never::of(b, message, help.to_owned()));
                }
            }
        }
        None
    }
}

/// Conditions that never hold: where, why, and how to help them.
struct Never {
    at: usize,
    pointer: String,
    message: String,
    help: String,
}

impl Never {
    fn of(leaf: &Leaf<'_>, message: String, help: String) -> Self {
        Self { at: leaf.at, pointer: leaf.pointer.clone(), message, help }
    }
}

/// How to help a comparison with what its path never is.
fn holds(leaf: &Leaf<'_>) -> String {
    let path = leaf.path.to_string();
    match &*path {
        "time.hour" => format!("help the value: `{path}` is a number from 0 to 23, in UTC"),
        "time.minute" => format!("help the value: `{path}` is a number from 0 to 59"),
        "time.weekday" => format!("help the value: `{path}` is a number from 1 (Monday) to 7, in UTC"),
        "time.date" => format!("help the value: `{path}` is a text such as `2026-01-15`, in UTC"),
        _ => "help the value, or remove the condition".to_owned(),
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
