//! Pairs of comparisons of one path that can never both be true.

use serde_json::{Value, json};

use super::SMALL_POLICY_STEPS;
use super::probe::single_rule_policy;
use super::value_types::{VALUE_TYPES, can_hold_for};
use crate::json::number::Exact;
use crate::policy::ast::{Comparison, Condition, Placed, Rule, RuleSection};
use crate::policy::operator::Takes;
use crate::tools::explain::Witness;

/// The largest number of values of a comparison that are tried, or compared with those of another.
const MAX_VALUES_TRIED: usize = 64;

/// Returns the approximate number of steps of [`contradict`], in both orders.
pub(super) fn contradiction_steps(a: &Comparison, b: &Comparison) -> usize {
    let values = |comparison: &Comparison| match &comparison.value {
        Some(Value::Array(values)) => values.len().min(MAX_VALUES_TRIED),
        _ => 1,
    };
    match (a.operator.takes, b.operator.takes) {
        (Takes::StartsWith, Takes::StartsWith) | (Takes::EndsWith, Takes::EndsWith) => values(a) * values(b),
        (Takes::HostIn, Takes::HostIn) | (Takes::PathWithin, Takes::PathWithin) => {
            4 * SMALL_POLICY_STEPS + 50 * (values(a) + values(b))
        }
        _ => [a, b].into_iter().filter(|one| one.values_asked_for().is_some()).count() * SMALL_POLICY_STEPS,
    }
}

/// Returns `true` if no value makes both comparisons true. They have the same path, and at most one
/// of them is true if it is absent. Call it in both orders: most cases are found in one order only.
pub(super) fn contradict(a: &Comparison, b: &Placed<'_>, section: RuleSection) -> bool {
    let (Some(value_of_a), Some(value_of_b)) = (&a.value, &b.value) else { return false };
    if a.asks_for_absence() {
        return !b.holds_if_absent(section);
    }
    if a.is(Takes::Exists) || b.is(Takes::Exists) {
        return false;
    }
    if !VALUE_TYPES.iter().any(|value_type| can_hold_for(a, value_type) && can_hold_for(b, value_type)) {
        return true;
    }
    let is_opposite = a.operator.meaning.opposite == Some(b.operator.name);
    if is_opposite && value_of_a == value_of_b && a.ignores_case() == b.ignores_case() {
        return true;
    }
    if let Some(values) = a.values_asked_for() {
        return holds_for_none(values, &[a, b]);
    }
    let number = |value: &Value| value.as_number().and_then(Exact::of);
    match (a.operator.takes, b.operator.takes) {
        (above @ (Takes::Greater | Takes::GreaterOrEqual), below @ (Takes::Less | Takes::LessOrEqual)) => {
            let is_open = above == Takes::Greater || below == Takes::Less;
            let bounds = number(value_of_a).zip(number(value_of_b));
            bounds.is_some_and(|(least, most)| least > most || (least == most && is_open))
        }
        (Takes::MinLength, Takes::MaxLength) | (Takes::MinItems, Takes::MaxItems) => {
            value_of_a.as_u64() > value_of_b.as_u64()
        }
        (Takes::StartsWith, Takes::StartsWith) if !a.ignores_case() && !b.ignores_case() => {
            are_disjoint(&a.texts(), &b.texts(), |one, other| one.starts_with(other))
        }
        (Takes::EndsWith, Takes::EndsWith) if !a.ignores_case() && !b.ignores_case() => {
            are_disjoint(&a.texts(), &b.texts(), |one, other| one.ends_with(other))
        }
        // Ignoring case does not change the number of characters.
        (Takes::StartsWith | Takes::EndsWith, Takes::MaxLength) => {
            let least = a.texts().iter().map(|text| text.chars().count() as u64).min();
            least.zip(value_of_b.as_u64()).is_some_and(|(least, most)| least > most)
        }
        (Takes::HostIn, Takes::HostIn) => {
            a.values().len().max(b.values().len()) <= MAX_VALUES_TRIED && share_no_host(a, b)
        }
        (Takes::PathWithin, Takes::PathWithin) if a.values().len().max(b.values().len()) <= MAX_VALUES_TRIED => {
            // A path in two directories is in the inner one of them.
            let both: Vec<Value> = a.values().iter().chain(b.values()).cloned().collect();
            holds_for_each(a.values(), a) && holds_for_each(b.values(), b) && holds_for_none(&both, &[a, b])
        }
        _ => false,
    }
}

/// Returns `true` if `contains` is false for every pair of texts of the two lists, in both orders.
fn are_disjoint<T: AsRef<str>>(these: &[T], those: &[T], contains: impl Fn(&str, &str) -> bool) -> bool {
    let differ = |one: &str, other: &str| !contains(one, other) && !contains(other, one);
    these.len().max(those.len()) <= MAX_VALUES_TRIED
        && these.iter().all(|one| those.iter().all(|other| differ(one.as_ref(), other.as_ref())))
}

/// Returns `true` if no host is in both lists of `host_in`.
fn share_no_host(a: &Comparison, b: &Comparison) -> bool {
    let is_wildcard = |host: &&str| host.contains('*');
    let (wildcards_a, hosts_a): (Vec<&str>, Vec<&str>) = a.texts().into_iter().partition(is_wildcard);
    let (wildcards_b, hosts_b): (Vec<&str>, Vec<&str>) = b.texts().into_iter().partition(is_wildcard);
    let urls = |hosts: &[&str]| -> Vec<Value> { hosts.iter().map(|host| json!(format!("https://{host}/"))).collect() };
    let (urls_a, urls_b) = (urls(&hosts_a), urls(&hosts_b));
    // Only domains that are already normalised can be compared as texts.
    let is_normalised = |domain: &&str| {
        let labels = domain.split('.').all(|label| !label.is_empty() && !label.starts_with("xn--"));
        let letters = domain.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-'));
        labels && letters && domain.ends_with(|c: char| c.is_ascii_lowercase())
    };
    let suffixes = |wildcards: &[&'_ str]| -> Option<Vec<String>> {
        let domain = |host: &&str| host.strip_prefix("*.").filter(is_normalised).map(|domain| format!(".{domain}"));
        wildcards.iter().map(domain).collect()
    };
    let wildcards_are_disjoint = wildcards_a.is_empty() || wildcards_b.is_empty() || {
        let both = suffixes(&wildcards_a).zip(suffixes(&wildcards_b));
        both.is_some_and(|(these, those)| are_disjoint(&these, &those, |one, other| one.ends_with(other)))
    };
    wildcards_are_disjoint
        && holds_for_each(&urls_a, a)
        && holds_for_each(&urls_b, b)
        && holds_for_none(&urls_a, &[a, b])
        && holds_for_none(&urls_b, &[a, b])
}

/// Returns `true` if the comparisons hold together for none of the values, according to the engine.
fn holds_for_none(values: &[Value], comparisons: &[&Comparison]) -> bool {
    results(values, comparisons).is_some_and(|results| !results.contains(&true))
}

/// Returns `true` if the comparison holds for each of the values, according to the engine.
fn holds_for_each(values: &[Value], comparison: &Comparison) -> bool {
    results(values, &[comparison]).is_some_and(|results| !results.contains(&false))
}

/// Runs a rule of `require` with these comparisons, which have the same path, on each of the
/// values. Returns `None` if there are too many values or the path is not in the arguments.
fn results(values: &[Value], comparisons: &[&Comparison]) -> Option<Vec<bool>> {
    let path = &comparisons.first()?.path;
    if !path.is_in_arguments() || values.len() > 2 * MAX_VALUES_TRIED {
        return None;
    }
    let conditions = comparisons.iter().map(|comparison| Condition::Comparison((*comparison).clone()));
    let policy = single_rule_policy(RuleSection::Require, &Rule::of(conditions.collect()))?;
    let holds = |value: &Value| {
        let mut call = Witness::of_tool("tool");
        call.edit(path, Some(value)).then(|| call.evaluate(&policy).is_allowed())
    };
    values.iter().map(holds).collect()
}
