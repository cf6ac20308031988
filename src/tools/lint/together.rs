//! Two comparisons of one value that can never both be true.

use serde_json::{Value, json};

use super::RUN;
use super::conditions::{KINDS, can};
use super::leaves::Leaf;
use super::witness::{NOW, alone};
use crate::call::ToolCall;
use crate::json::number::Exact;
use crate::tools::explain::ChangedCall;

/// How many values are tried, or compared with as many.
const MOST: usize = 64;

/// About what it costs to say whether two comparisons [`exclude`] each other, either way round.
pub(super) fn cost(a: &Leaf<'_>, b: &Leaf<'_>) -> usize {
    let values = |leaf: &Leaf<'_>| leaf.value.as_ref().and_then(Value::as_array).map_or(1, Vec::len).min(MOST);
    match (a.op, b.op) {
        ("starts_with", "starts_with") | ("ends_with", "ends_with") => values(a) * values(b),
        ("host_in", "host_in") | ("path_within", "path_within") => 4 * RUN + 50 * (values(a) + values(b)),
        _ => [a, b].into_iter().filter(|leaf| matches!(leaf.op, "eq" | "in")).count() * RUN,
    }
}

/// Whether no value makes both true. `a` and `b` have one path, and absence makes at most one of them true.
pub(super) fn exclude(a: &Leaf<'_>, b: &Leaf<'_>, section: &str) -> bool {
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
        // An operator and its opposite.
        ("eq", "neq") | ("in", "not_in") | ("regex", "not_regex") | ("contains", "not_contains")
            if of_a == of_b && a.ignores_case == b.ignores_case =>
        {
            true
        }
        // Of few values each is tried.
        ("eq", _) => none_holds(std::slice::from_ref(of_a), a, b),
        ("in", _) => of_a.as_array().is_some_and(|values| none_holds(values, a, b)),
        ("starts_with", "starts_with") if !a.ignores_case && !b.ignores_case => {
            apart(&texts(of_a), &texts(of_b), |one, other| one.starts_with(other))
        }
        ("ends_with", "ends_with") if !a.ignores_case && !b.ignores_case => {
            apart(&texts(of_a), &texts(of_b), |one, other| one.ends_with(other))
        }
        // Disregarding case keeps the number of characters.
        ("starts_with" | "ends_with", "max_length") => {
            let least = texts(of_a).iter().map(|text| text.chars().count() as u64).min();
            least.zip(of_b.as_u64()).is_some_and(|(least, most)| least > most)
        }
        ("host_in", "host_in") => texts(of_a).len().max(texts(of_b).len()) <= MOST && hosts_apart(a, b),
        ("path_within", "path_within") if texts(of_a).len().max(texts(of_b).len()) <= MOST => {
            // What lies in two directories lies in the inner of them.
            let (own, others) = (listed(of_a), listed(of_b));
            each_holds(&own, a)
                && each_holds(&others, b)
                && none_holds(&own.into_iter().chain(others).collect::<Vec<_>>(), a, b)
        }
        _ => false,
    }
}

/// A text, or the texts of a list.
fn texts(value: &Value) -> Vec<&str> {
    let own = value.as_str().into_iter();
    own.chain(value.as_array().into_iter().flatten().filter_map(Value::as_str)).collect()
}

fn listed(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// Whether no text of the one list is, in this sense, part of one of the other, nor the other way round.
fn apart<T: AsRef<str>>(these: &[T], those: &[T], part: impl Fn(&str, &str) -> bool) -> bool {
    let lie_apart = |one: &str, other: &str| !part(one, other) && !part(other, one);
    these.len().max(those.len()) <= MOST
        && these.iter().all(|one| those.iter().all(|other| lie_apart(one.as_ref(), other.as_ref())))
}

/// Whether two lists share no host.
fn hosts_apart(a: &Leaf<'_>, b: &Leaf<'_>) -> bool {
    let (Some(of_a), Some(of_b)) = (&a.value, &b.value) else { return false };
    let split = |value| -> (Vec<&str>, Vec<&str>) { texts(value).into_iter().partition(|host| host.contains('*')) };
    let ((wide_a, named_a), (wide_b, named_b)) = (split(of_a), split(of_b));
    let urls = |hosts: &[&str]| -> Vec<Value> { hosts.iter().map(|host| json!(format!("https://{host}/"))).collect() };
    let (named_a, named_b) = (urls(&named_a), urls(&named_b));
    // Of names that need no normalising it is plain which domain lies below which.
    let plain = |domain: &&str| {
        let labels = domain.split('.').all(|label| !label.is_empty() && !label.starts_with("xn--"));
        let letters = domain.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-'));
        labels && letters && domain.ends_with(|c: char| c.is_ascii_lowercase())
    };
    let domains = |hosts: &[&'_ str]| -> Option<Vec<String>> {
        hosts.iter().map(|host| host.strip_prefix("*.").filter(plain).map(|domain| format!(".{domain}"))).collect()
    };
    let wide_apart = wide_a.is_empty() || wide_b.is_empty() || {
        let all = domains(&wide_a).zip(domains(&wide_b));
        all.is_some_and(|(these, those)| apart(&these, &those, |one, other| one.ends_with(other)))
    };
    wide_apart
        && each_holds(&named_a, a)
        && each_holds(&named_b, b)
        && none_holds(&named_a, a, b)
        && none_holds(&named_b, a, b)
}

/// Whether the engine finds both true of none of the values.
fn none_holds(values: &[Value], a: &Leaf<'_>, b: &Leaf<'_>) -> bool {
    let (Some(one), Some(two)) = (a.node.to_value(), b.node.to_value()) else { return false };
    holds_of(values, a, &json!({ "conditions": [one, two] })).is_some_and(|held| held.iter().all(|held| !held))
}

/// Whether the engine finds it true of each of the values.
fn each_holds(values: &[Value], leaf: &Leaf<'_>) -> bool {
    let Some(one) = leaf.node.to_value() else { return false };
    holds_of(values, leaf, &json!({ "conditions": [one] })).is_some_and(|held| held.into_iter().all(|held| held))
}

/// Whether a rule of `require` holds of each of a few values at the path of a comparison.
fn holds_of(values: &[Value], leaf: &Leaf<'_>, rule: &Value) -> Option<Vec<bool>> {
    let few = leaf.path.is_in_arguments() && values.len() <= 2 * MOST;
    let policy = if few { alone("require", rule)? } else { return None };
    let holds = |value: &Value| {
        let arguments = json!({});
        let mut call = ChangedCall::new(&ToolCall::new("tool", &arguments), NOW);
        call.edit(&leaf.path, Some(value)).then(|| policy.evaluate(&call.call(), NOW).is_allowed())
    };
    values.iter().map(holds).collect()
}
