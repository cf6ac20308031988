//! Two comparisons of one value that can never both be true.

use serde_json::{Value, json};

use super::RUN;
use super::kinds::{KINDS, can};
use super::trial::alone;
use crate::json::number::Exact;
use crate::policy::ast::{Comparison, Condition, Placed, Rule, RuleSection};
use crate::policy::operator::Takes;
use crate::tools::explain::Witness;

/// How many values are tried, or compared with as many.
const LISTED: usize = 64;

/// About what it costs to say whether two comparisons [`exclude`] each other, either way round.
pub(super) fn cost(a: &Comparison, b: &Comparison) -> usize {
    let values = |comparison: &Comparison| match &comparison.value {
        Some(Value::Array(values)) => values.len().min(LISTED),
        _ => 1,
    };
    match (a.operator.takes, b.operator.takes) {
        (Takes::StartsWith, Takes::StartsWith) | (Takes::EndsWith, Takes::EndsWith) => values(a) * values(b),
        (Takes::HostIn, Takes::HostIn) | (Takes::PathWithin, Takes::PathWithin) => {
            4 * RUN + 50 * (values(a) + values(b))
        }
        _ => [a, b].into_iter().filter(|one| one.values_asked_for().is_some()).count() * RUN,
    }
}

/// Whether no value makes both true. `a` and `b` have one path, and absence makes at most one of them true.
pub(super) fn exclude(a: &Comparison, b: &Placed<'_>, section: RuleSection) -> bool {
    let (Some(of_a), Some(of_b)) = (&a.value, &b.value) else { return false };
    if a.asks_for_absence() {
        return !b.holds_if_absent(section);
    }
    if a.is(Takes::Exists) || b.is(Takes::Exists) {
        return false;
    }
    if !KINDS.iter().any(|kind| can(a, kind) && can(b, kind)) {
        return true;
    }
    // An operator and its opposite.
    if a.operator.meaning.opposite == Some(b.operator.name) && of_a == of_b && a.ignores_case() == b.ignores_case() {
        return true;
    }
    if let Some(values) = a.values_asked_for() {
        // Of few values each is tried.
        return none_holds(values, a, b);
    }
    let number = |value: &Value| value.as_number().and_then(Exact::of);
    match (a.operator.takes, b.operator.takes) {
        (above @ (Takes::Greater | Takes::GreaterOrEqual), below @ (Takes::Less | Takes::LessOrEqual)) => {
            let is_open = above == Takes::Greater || below == Takes::Less;
            let bounds = number(of_a).zip(number(of_b));
            bounds.is_some_and(|(least, most)| least > most || (least == most && is_open))
        }
        (Takes::MinLength, Takes::MaxLength) => of_a.as_u64() > of_b.as_u64(),
        (Takes::StartsWith, Takes::StartsWith) if !a.ignores_case() && !b.ignores_case() => {
            apart(&a.texts(), &b.texts(), |one, other| one.starts_with(other))
        }
        (Takes::EndsWith, Takes::EndsWith) if !a.ignores_case() && !b.ignores_case() => {
            apart(&a.texts(), &b.texts(), |one, other| one.ends_with(other))
        }
        // Disregarding case keeps the number of characters.
        (Takes::StartsWith | Takes::EndsWith, Takes::MaxLength) => {
            let least = a.texts().iter().map(|text| text.chars().count() as u64).min();
            least.zip(of_b.as_u64()).is_some_and(|(least, most)| least > most)
        }
        (Takes::HostIn, Takes::HostIn) => a.values().len().max(b.values().len()) <= LISTED && hosts_apart(a, b),
        (Takes::PathWithin, Takes::PathWithin) if a.values().len().max(b.values().len()) <= LISTED => {
            // What lies in two directories lies in the inner of them.
            let both: Vec<Value> = a.values().iter().chain(b.values()).cloned().collect();
            each_holds(a.values(), a) && each_holds(b.values(), b) && none_holds(&both, a, b)
        }
        _ => false,
    }
}

/// Whether no text of the one list is, in this sense, part of one of the other, nor the other way round.
fn apart<T: AsRef<str>>(these: &[T], those: &[T], part: impl Fn(&str, &str) -> bool) -> bool {
    let lie_apart = |one: &str, other: &str| !part(one, other) && !part(other, one);
    these.len().max(those.len()) <= LISTED
        && these.iter().all(|one| those.iter().all(|other| lie_apart(one.as_ref(), other.as_ref())))
}

/// Whether two lists share no host.
fn hosts_apart(a: &Comparison, b: &Comparison) -> bool {
    let is_wide = |host: &&str| host.contains('*');
    let (wide_a, named_a): (Vec<&str>, Vec<&str>) = a.texts().into_iter().partition(is_wide);
    let (wide_b, named_b): (Vec<&str>, Vec<&str>) = b.texts().into_iter().partition(is_wide);
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
fn none_holds(values: &[Value], a: &Comparison, b: &Comparison) -> bool {
    holds_of(values, &[a, b]).is_some_and(|held| held.iter().all(|held| !held))
}

/// Whether the engine finds it true of each of the values.
fn each_holds(values: &[Value], comparison: &Comparison) -> bool {
    holds_of(values, &[comparison]).is_some_and(|held| held.into_iter().all(|held| held))
}

/// Whether a rule of `require` with these comparisons of one path holds of each of a few values there.
fn holds_of(values: &[Value], comparisons: &[&Comparison]) -> Option<Vec<bool>> {
    let path = &comparisons.first()?.path;
    if !path.is_in_arguments() || values.len() > 2 * LISTED {
        return None;
    }
    let conditions = comparisons.iter().map(|comparison| Condition::Comparison((*comparison).clone()));
    let policy = alone(RuleSection::Require, &Rule::of(conditions.collect()))?;
    let holds = |value: &Value| {
        let mut call = Witness::of_tool("tool");
        call.edit(path, Some(value)).then(|| call.evaluate(&policy).is_allowed())
    };
    values.iter().map(holds).collect()
}
