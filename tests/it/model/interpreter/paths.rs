//! Paths into a call.

use serde_json::Value;

use super::conditions::text_has;
use super::text;
use super::time::{DAY, HOUR, MINUTE, date, weekday};

#[derive(Debug, Clone)]
pub(super) enum Step {
    Name(String),
    Index(String),
    Each,
    EachMember,
}

/// A value that a path leads to. With `[*]` there can be several or none.
pub(super) enum Reached {
    Found(Value),
    Absent,
    Undecidable,
}

/// Returns the five roots as members of one object.
pub(super) fn roots(call: &Value, arguments: Value, now: i64) -> Value {
    let mut who = serde_json::json!({ "tool": call["tool"] });
    for identity in ["server", "grant", "session", "agent", "user"] {
        if call[identity].as_str().is_some_and(|name| !name.is_empty()) {
            who[identity] = call[identity].clone();
        }
    }
    if call["task"] == true {
        who["task"] = Value::Bool(true);
    }
    let days = now.div_euclid(DAY);
    let (year, month, day) = date(days);
    serde_json::json!({
        "args": arguments,
        "context": if call["context"].is_null() { serde_json::json!({}) } else { call["context"].clone() },
        "input": call["input"],
        "call": who,
        "time": {
            "hour": now.rem_euclid(DAY) / HOUR,
            "minute": now.rem_euclid(HOUR) / MINUTE,
            "weekday": weekday(days),
            "date": format!("{year:04}-{month:02}-{day:02}"),
        },
    })
}

/// Parses a path into steps, of which the first is the root.
pub(super) fn steps(path: &str) -> Vec<Step> {
    let path = format!(".{path}");
    let mut rest = path.as_str();
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            steps.push(match &after[..end] {
                "*" => Step::EachMember,
                name => Step::Name(name.to_string()),
            });
            rest = &after[end..];
        } else if rest.starts_with("[\"") {
            let mut strings = serde_json::Deserializer::from_str(&rest[1..]).into_iter::<String>();
            steps.push(Step::Name(strings.next().expect("a name").expect("a quoted name")));
            rest = rest[1 + strings.byte_offset()..].strip_prefix(']').expect("a bracket");
        } else {
            let (index, after) = rest[1..].split_once(']').expect("a bracket");
            steps.push(if index == "*" { Step::Each } else { Step::Index(index.to_string()) });
            rest = after;
        }
    }
    steps
}

/// Returns the elements of an array, named by their indices, or the members of an object.
pub(super) fn members(value: &Value) -> Vec<(String, Value)> {
    match value {
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v.clone())).collect(),
        Value::Object(members) => members.iter().map(|(name, v)| (name.clone(), v.clone())).collect(),
        _ => Vec::new(),
    }
}

/// Returns what a path leads to. The names of arguments may be read without regard to case.
pub(super) fn reach(roots: &Value, path: &[Step]) -> Vec<Reached> {
    let any_case = matches!(path.first(), Some(Step::Name(root)) if root == "args" || root == "input");
    reach_below(roots, path, any_case, true)
}

fn reach_below(value: &Value, steps: &[Step], any_case: bool, is_root: bool) -> Vec<Reached> {
    if value.is_null() {
        return vec![Reached::Absent];
    }
    let Some((step, rest)) = steps.split_first() else {
        return vec![Reached::Found(value.clone())];
    };
    let next = |value: &Value| reach_below(value, rest, any_case, false);
    let member = match (step, value) {
        (Step::Each, Value::Array(_)) | (Step::EachMember, Value::Object(_)) => {
            return members(value).iter().flat_map(|(_, member)| next(member)).collect();
        }
        (Step::Name(name), Value::Object(members)) => {
            let differs_in_case = |other: &String| other != name && text_has(other, r"\A", name, r"\z", true);
            if any_case && !is_root && members.keys().any(differs_in_case) {
                return vec![Reached::Undecidable];
            }
            members.get(name)
        }
        (Step::Index(index), Value::Array(items)) => index.parse::<usize>().ok().and_then(|i| items.get(i)),
        _ => return vec![Reached::Undecidable],
    };
    next(member.unwrap_or(&Value::Null))
}

/// Returns the value at a path without `[*]`.
pub(super) fn value_at(path: &Value, roots: &Value) -> Option<Value> {
    let mut reached = reach(roots, &steps(&text(path)));
    match (reached.pop(), reached.is_empty()) {
        (Some(Reached::Found(value)), true) => Some(value),
        _ => None,
    }
}
