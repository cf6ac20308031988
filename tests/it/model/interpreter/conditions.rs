//! Conditions: groups, comparisons and their three truth values.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};
use serde_json::Value;
use url::Url;

use super::numbers::{is_whole, order};
use super::paths::{Reached, members, reach, steps, value_at};
use super::{list, text};

/// In this order, `all` is the least value and `any` the greatest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tri {
    False,
    Undecidable,
    True,
}

pub(super) fn tri(holds: bool) -> Tri {
    if holds { Tri::True } else { Tri::False }
}

pub(super) fn negated(value: Tri) -> Tri {
    match value {
        Tri::True => Tri::False,
        Tri::False => Tri::True,
        Tri::Undecidable => Tri::Undecidable,
    }
}

pub(super) fn all(values: impl IntoIterator<Item = Tri>) -> Tri {
    values.into_iter().min().unwrap_or(Tri::True)
}

pub(super) fn any(values: impl IntoIterator<Item = Tri>) -> Tri {
    values.into_iter().max().unwrap_or(Tri::False)
}

pub(super) fn rule_value(rule: &Value, require: bool, roots: &Value) -> Tri {
    all(list(&rule["conditions"]).iter().map(|c| condition(c, false, require, roots)))
}

/// Evaluates a condition below an odd number of `not` (if `negate`) or an even one. Each `not` is
/// pushed down to the comparisons.
pub(super) fn condition(node: &Value, negate: bool, require: bool, roots: &Value) -> Tri {
    if !node["not"].is_null() {
        return condition(&node["not"], !negate, require, roots);
    }
    for (group, needs_all) in [("all", true), ("any", false)] {
        if !node[group].is_null() {
            let members = list(&node[group]);
            let values = members.iter().map(|c| condition(c, negate, require, roots));
            return if needs_all != negate { all(values) } else { any(values) };
        }
    }
    leaf(node, negate, require, roots)
}

pub(super) fn leaf(leaf: &Value, negate: bool, require: bool, roots: &Value) -> Tri {
    let (operator, negated_by_name) = match leaf["op"].as_str().expect("an operator") {
        "neq" => ("eq", true),
        "not_in" => ("in", true),
        "not_contains" => ("contains", true),
        "not_regex" => ("regex", true),
        other => (other, false),
    };
    let negative = negate != negated_by_name;
    let wanted = match leaf.get("value_from") {
        None => leaf["value"].clone(),
        Some(path) => match value_at(path, roots) {
            Some(value) if can_be_wanted(operator, &value) => value,
            _ => return Tri::Undecidable,
        },
    };
    let ignore_case = leaf["ignore_case"] == true;

    let mut values = Vec::new();
    let mut pairs = 0;
    for reached in reach(roots, &steps(&text(&leaf["path"]))) {
        pairs += listed(operator, &wanted);
        values.push(match reached {
            Reached::Undecidable => Tri::Undecidable,
            Reached::Absent if leaf["absent"] == "match" => Tri::True,
            Reached::Absent if leaf["absent"] == "no_match" => Tri::False,
            Reached::Absent if operator == "exists" => tri((wanted == false) != negative),
            Reached::Absent => tri(negative && !require),
            Reached::Found(found) => {
                pairs += pairs_inside(operator, &found, &wanted);
                let value = compare(operator, &found, &wanted, ignore_case);
                if negative { negated(value) } else { value }
            }
        });
    }
    if pairs > 1_000_000 {
        return Tri::Undecidable;
    }
    if require { all(values) } else { any(values) }
}

/// Returns the number of values that each value is compared with.
fn listed(operator: &str, wanted: &Value) -> usize {
    match operator {
        "in" | "starts_with" | "ends_with" | "path_within" | "host_in" | "keys_in" => one_or_more(wanted).len(),
        _ => 1,
    }
}

/// Returns the number of pairs of values inside `found` that a comparison has.
fn pairs_inside(operator: &str, found: &Value, wanted: &Value) -> usize {
    fn inside(found: &Value, wanted: &Value) -> usize {
        match (found, wanted) {
            (Value::Array(a), Value::Array(b)) => a.iter().zip(b).map(|(a, b)| 1 + inside(a, b)).sum(),
            (Value::Object(a), Value::Object(b)) => {
                a.iter().map(|(name, a)| 1 + b.get(name).map_or(0, |b| inside(a, b))).sum()
            }
            _ => 0,
        }
    }
    match (operator, found) {
        ("in", _) => list(wanted).iter().map(|one| inside(found, one)).sum(),
        ("contains", Value::Array(items)) if wanted.is_string() => {
            fn size(value: &Value) -> usize {
                members(value).iter().map(|(_, member)| 1 + size(member)).sum()
            }
            items.iter().map(|item| 1 + size(item)).sum()
        }
        ("contains", Value::Array(items)) => items.iter().map(|item| 1 + inside(wanted, item)).sum(),
        ("eq", _) => inside(found, wanted),
        ("keys_in", Value::Object(_)) => members(found).len(),
        _ => 0,
    }
}

/// Returns every text inside a value, names of members included.
fn texts(value: &Value) -> Vec<String> {
    let names = value.as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let own = value.as_str().map(str::to_owned);
    names.chain(own).chain(members(value).iter().flat_map(|(_, member)| texts(member))).collect()
}

/// Returns whether `value` is valid as the operand of `value_from`.
pub(super) fn can_be_wanted(operator: &str, value: &Value) -> bool {
    let items = list(value);
    match operator {
        "lt" | "lte" | "gt" | "gte" => value.is_number(),
        _ if value == &Value::Array(Vec::new()) => false,
        "in" => !items.is_empty(),
        "starts_with" | "ends_with" => value.is_string() || (!items.is_empty() && items.iter().all(Value::is_string)),
        _ => true,
    }
}

pub(super) fn compare(operator: &str, found: &Value, wanted: &Value, ignore_case: bool) -> Tri {
    match operator {
        "exists" => tri(wanted == true),
        "type" => tri(one_or_more(wanted).iter().any(|name| has_type(found, &text(name)))),
        "eq" => equal(found, wanted, false),
        "in" => any(list(wanted).iter().map(|one| equal(found, one, false))),
        "lt" | "lte" | "gt" | "gte" => compare_numbers(operator, found, wanted),
        "contains" => match (found, wanted) {
            (Value::String(string), Value::String(part)) => tri(text_has(string, "", part, "", ignore_case)),
            (Value::Array(items), Value::String(part)) => any(items.iter().map(|item| match item {
                Value::String(string) if text_has(string, r"\A", part, r"\z", ignore_case) => Tri::True,
                Value::Number(_) | Value::Bool(_) => Tri::Undecidable,
                other if texts(other).iter().any(|text| text_has(text, "", part, "", ignore_case)) => Tri::Undecidable,
                _ => Tri::False,
            })),
            (Value::Array(items), _) => any(items.iter().map(|item| equal(item, wanted, ignore_case))),
            _ => Tri::Undecidable,
        },
        "min_length" | "max_length" => {
            let Value::String(string) = found else { return Tri::Undecidable };
            let operator = if operator == "min_length" { "gte" } else { "lte" };
            compare_numbers(operator, &Value::from(string.chars().count()), wanted)
        }
        "min_items" | "max_items" => {
            if !found.is_array() && !found.is_object() {
                return Tri::Undecidable;
            }
            let operator = if operator == "min_items" { "gte" } else { "lte" };
            compare_numbers(operator, &Value::from(members(found).len()), wanted)
        }
        "keys_in" => match found {
            Value::Object(object) => tri(object.keys().all(|name| list(wanted).iter().any(|known| known == name))),
            _ => Tri::Undecidable,
        },
        _ => match found {
            Value::String(string) => compare_string(operator, string, wanted, ignore_case),
            _ => Tri::Undecidable,
        },
    }
}

pub(super) fn compare_numbers(operator: &str, found: &Value, wanted: &Value) -> Tri {
    let (Value::Number(found), Value::Number(wanted)) = (found, wanted) else {
        return Tri::Undecidable;
    };
    let order = order(found, wanted);
    tri(match operator {
        "lt" => order == Ordering::Less,
        "lte" => order != Ordering::Greater,
        "gt" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    })
}

/// Evaluates the operators for strings.
pub(super) fn compare_string(operator: &str, string: &str, wanted: &Value, ignore_case: bool) -> Tri {
    let has = |before: &str, part: &Value, after: &str| text_has(string, before, &text(part), after, ignore_case);
    match operator {
        "regex" => tri(regex(&text(wanted), ignore_case).is_match(string)),
        "starts_with" => tri(one_or_more(wanted).iter().any(|part| has(r"\A", part, ""))),
        "ends_with" => tri(one_or_more(wanted).iter().any(|part| has("", part, r"\z"))),
        "path_within" => path_within(string, wanted),
        "host_in" => host_in(string, wanted),
        other => panic!("the model does not know the operator `{other}`"),
    }
}

pub(super) fn one_or_more(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        one => vec![one.clone()],
    }
}

pub(super) fn regex(source: &str, ignore_case: bool) -> Regex {
    RegexBuilder::new(source).case_insensitive(ignore_case).size_limit(1 << 28).build().expect("a regex that compiles")
}

/// Returns whether `string` contains `part` between the two anchors.
pub(super) fn text_has(string: &str, before: &str, part: &str, after: &str, ignore_case: bool) -> bool {
    regex(&format!("{before}(?:{}){after}", regex::escape(part)), ignore_case).is_match(string)
}

pub(super) fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_number().is_some_and(is_whole),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the model does not know the type `{other}`"),
    }
}

pub(super) fn equal(found: &Value, wanted: &Value, ignore_case: bool) -> Tri {
    match (found, wanted) {
        (Value::Null, Value::Null) => Tri::True,
        (Value::Bool(a), Value::Bool(b)) => tri(a == b),
        (Value::Number(a), Value::Number(b)) => tri(order(a, b) == Ordering::Equal),
        (Value::String(a), Value::String(b)) if ignore_case => tri(text_has(a, r"\A", b, r"\z", true)),
        (Value::String(a), Value::String(b)) => tri(a == b),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            let (found, wanted) = (members(found), members(wanted));
            let mut common = Vec::new();
            for (name, member) in &found {
                for (_, other) in wanted.iter().filter(|(other, _)| other == name) {
                    common.push(equal(member, other, ignore_case));
                }
            }
            if common.contains(&Tri::Undecidable) {
                return Tri::Undecidable;
            }
            let same_names = common.len() == found.len() && common.len() == wanted.len();
            tri(same_names && !common.contains(&Tri::False))
        }
        _ => Tri::Undecidable,
    }
}

pub(super) fn path_within(path: &str, directories: &Value) -> Tri {
    let lower = path.to_ascii_lowercase();
    let tricks = ["\0", "\\", "%2e", "%2f", "%5c", "%00"];
    let trimmed = |segment: &str| !segment.is_empty() && segment.trim_matches(['.', ' ']).is_empty();
    let two_slashes = path.starts_with("//") && !path.starts_with("///");
    let odd_segment = path.split('/').any(|segment| trimmed(segment) && segment != "." && segment != "..");
    if !path.starts_with('/') || tricks.iter().any(|trick| lower.contains(trick)) || two_slashes || odd_segment {
        return Tri::Undecidable;
    }
    let path = segments(path);
    let directories = list(directories);
    tri(directories.iter().any(|d| path.starts_with(&segments(&text(d)))))
}

pub(super) fn segments(path: &str) -> Vec<String> {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name.to_string()),
        }
    }
    segments
}

pub(super) fn host_in(address: &str, hosts: &Value) -> Tri {
    let blank = |c: char| c <= ' ';
    let outer = address.starts_with(blank) || address.ends_with(blank);
    let (_, after_scheme) = address.split_once(':').unwrap_or_default();
    let authority = after_scheme.trim_start_matches('/').split(['/', '?', '#']).next().unwrap_or_default();
    let slashes = after_scheme.len() - after_scheme.trim_start_matches('/').len();
    if slashes != 2 || outer || address.contains(['\\', '\t', '\r', '\n']) || authority.contains('@') {
        return Tri::Undecidable;
    }
    let Some(host) = host_of(address) else {
        return Tri::Undecidable;
    };
    tri(list(hosts).iter().map(text).any(|entry| match entry.strip_prefix("*.") {
        Some(domain) => host_of(&format!("http://{domain}/")).is_some_and(|d| host.ends_with(&format!(".{d}"))),
        None => host_of(&format!("http://{entry}/")).is_some_and(|entry| entry == host),
    }))
}

/// Returns the host of an HTTP(S) URL as text, without a trailing dot.
pub(super) fn host_of(address: &str) -> Option<String> {
    let url = Url::parse(address).ok()?;
    if url.scheme() != "http" && url.scheme() != "https" {
        return None;
    }
    let host = url.host_str()?;
    if let Some(mapped) = host.strip_prefix("[::ffff:").and_then(|rest| rest.strip_suffix(']')) {
        let number =
            mapped.split(':').fold(0u32, |sum, part| sum << 16 | u32::from_str_radix(part, 16).expect("digits"));
        return Some(std::net::Ipv4Addr::from(number).to_string());
    }
    Some(host.strip_suffix('.').unwrap_or(host).to_string())
}
