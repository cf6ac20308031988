//! Sample values for which a comparison is likely to hold, or not to hold. A sample is a guess,
//! close to the present value. Callers verify it by evaluating the comparison.

use regex_syntax::hir::{Class, Hir, HirKind};
use serde_json::{Map, Value, json};

use crate::call::path::{Datum, Facts, Found};
use crate::json::number::Exact;
use crate::policy::ast::Comparison;
use crate::policy::condition::{Check, Operand, Order, Test, Types};
use crate::policy::operator::{Operator, Takes};
use crate::policy::text::Affix;

/// The maximum number of samples from a list of values.
const MAX_LISTED_SAMPLES: usize = 8;
/// The maximum length of a text, list or object that is made to have a given length.
const MAX_SAMPLE_LENGTH: u64 = 1_024;
/// The maximum length in bytes of a text that is made to match a regular expression. An expression
/// that needs a longer text has at least as many states, and each state may read each byte: a
/// policy with a few hundred such expressions would take hours to analyse.
const MAX_MATCH_BYTES: usize = 512;

/// A comparison that a sample should satisfy, in the terms of the policy language.
pub(super) struct Target {
    pub(super) operator: &'static Operator,
    /// `true` if the operator must not hold and has no opposite.
    pub(super) not: bool,
    /// `None` for a comparison with another value of the call.
    pub(super) value: Option<Value>,
}

/// Returns the comparison that a value must satisfy so that the check of `test` holds, or does not
/// hold, and samples to try.
pub(super) fn samples(
    test: &Test,
    comparison: &Comparison,
    holds: bool,
    present: Option<&Value>,
    facts: &Facts<'_>,
) -> Option<(Target, Vec<Value>)> {
    let compared: Option<Value> = match test.check.other() {
        None => comparison.value.clone(),
        Some(path) => match path.resolve(facts) {
            Found::Value(datum) => Some(to_value(datum)?),
            _ => return None,
        },
    };
    let operator = comparison.operator.positive();
    let opposite = operator.opposite().filter(|_| !holds);
    let mut target = Target {
        operator: opposite.unwrap_or(operator),
        not: !holds && opposite.is_none(),
        value: comparison.value.clone(),
    };
    let texts = || -> Vec<String> {
        match &compared {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(texts)) => {
                texts.iter().filter_map(Value::as_str).map(str::to_owned).take(MAX_LISTED_SAMPLES).collect()
            }
            _ => Vec::new(),
        }
    };
    let present_text = present.and_then(Value::as_str).unwrap_or_default();
    let samples = match &test.check {
        Check::Exists => {
            target = Target { operator, not: false, value: Some(json!(holds)) };
            if holds { vec![json!("x"), json!(1)] } else { Vec::new() }
        }
        Check::Equal(_) => {
            let value = compared?;
            if holds { vec![value] } else { others(&value) }
        }
        Check::Order(order, operand) => {
            let bound = match operand {
                Operand::Fixed(bound) => *bound,
                Operand::From(_) => Exact::of(compared?.as_number()?)?,
            };
            match (order, holds) {
                (Order::Less, true) | (Order::GreaterOrEqual, false) => below(bound),
                (Order::Greater, true) | (Order::LessOrEqual, false) => above(bound),
                _ => bound.to_number().map(Value::Number).into_iter().collect(),
            }
        }
        Check::In(_) => {
            let Some(Value::Array(values)) = compared else { return None };
            match holds {
                true => values.into_iter().take(MAX_LISTED_SAMPLES).collect(),
                false => values.iter().rev().take(MAX_LISTED_SAMPLES).flat_map(others).collect(),
            }
        }
        Check::Regex(regex) => {
            let common = ["", "x", "0", "-", "\u{10348}"].map(Value::from);
            matching(regex.as_str()).map(Value::from).into_iter().chain(common).collect()
        }
        Check::Contains(..) => {
            let value = compared?;
            let mut samples = Vec::new();
            match (&value, present) {
                (Value::String(text), Some(Value::String(present))) if holds => {
                    samples.push(json!(format!("{present}{text}")));
                }
                (_, Some(Value::Array(elements))) => {
                    let kept = elements.iter().filter(|element| **element != value).cloned();
                    samples.push(if holds {
                        elements.iter().cloned().chain([value.clone()]).collect()
                    } else {
                        kept.collect()
                    });
                }
                _ => {}
            }
            samples.extend(if holds { [value.clone(), json!([value])] } else { [json!(""), json!([])] });
            samples
        }
        Check::Affix(affix, ..) => {
            let samples: Vec<String> = match (holds, affix) {
                (true, Affix::Start) => texts().iter().map(|text| format!("{text}{present_text}")).collect(),
                (true, Affix::End) => texts().iter().map(|text| format!("{present_text}{text}")).collect(),
                (false, _) => ["", "x", "0", "-"].map(str::to_owned).to_vec(),
            };
            samples.into_iter().map(Value::from).collect()
        }
        Check::MinLength(bound) | Check::MaxLength(bound) if holds => vec![of_length(*bound, present_text)],
        Check::MinItems(bound) | Check::MaxItems(bound) if holds => of_items(*bound, present),
        Check::MinLength(min) => {
            let max = min.checked_sub(1)?;
            target = Target { operator: Takes::MaxLength.operator(), not: false, value: Some(json!(max)) };
            vec![of_length(max, present_text)]
        }
        Check::MaxLength(max) => {
            let min = max.checked_add(1)?;
            target = Target { operator: Takes::MinLength.operator(), not: false, value: Some(json!(min)) };
            vec![of_length(min, present_text)]
        }
        Check::MinItems(min) => {
            let max = min.checked_sub(1)?;
            target = Target { operator: Takes::MaxItems.operator(), not: false, value: Some(json!(max)) };
            of_items(max, present)
        }
        Check::MaxItems(max) => {
            let min = max.checked_add(1)?;
            target = Target { operator: Takes::MinItems.operator(), not: false, value: Some(json!(min)) };
            of_items(min, present)
        }
        Check::KeysIn(keys) => of_names(&keys.names().collect::<Vec<_>>(), holds, present),
        Check::Type(types) => of_types(*types),
        Check::PathWithin(_) => texts().into_iter().map(Value::from).chain(["/", "/-"].map(Value::from)).collect(),
        Check::HostIn(_) => {
            let url = |host: String| match host.strip_prefix("*.") {
                Some(domain) => json!(format!("https://a.{domain}/")),
                None => json!(format!("https://{host}/")),
            };
            texts().into_iter().map(url).chain([json!("https://host.invalid/")]).collect()
        }
    };
    Some((target, samples))
}

/// Returns objects with no other members than these, or with others.
fn of_names(names: &[&str], holds: bool, present: Option<&Value>) -> Vec<Value> {
    let mut members = present.and_then(Value::as_object).cloned().unwrap_or_default();
    if holds {
        members.retain(|name, _| names.contains(&name.as_str()));
        return vec![members.into(), json!({})];
    }
    let mut other = "x".to_owned();
    while names.contains(&other.as_str()) {
        other.push('x');
    }
    members.insert(other, json!(1));
    vec![members.into()]
}

/// Returns the value of a datum, or `None` for a number that is not held exactly.
pub(super) fn to_value(datum: Datum<'_>) -> Option<Value> {
    Some(match datum {
        Datum::Null => Value::Null,
        Datum::False => Value::Bool(false),
        Datum::True => Value::Bool(true),
        Datum::Number(number) => Value::Number(number.to_number()?),
        Datum::UnclearNumber => return None,
        Datum::Text(text) => text.into(),
        Datum::Array(elements) => elements.into(),
        Datum::Object(members) => members.clone().into(),
    })
}

/// Returns values of the same type that differ from `value`.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Bool(value) => vec![json!(!value)],
        Value::Number(number) => {
            Exact::of(number).map(|bound| [above(bound), below(bound)].concat()).unwrap_or_default()
        }
        Value::String(text) => vec![json!(format!("{text}-")), json!("")],
        Value::Array(elements) => vec![elements.iter().cloned().chain([json!(0)]).collect(), json!([])],
        Value::Object(members) => {
            let mut extended: Map<_, _> = members.clone();
            extended.insert("-".into(), json!(0));
            vec![extended.into(), json!({})]
        }
        Value::Null => Vec::new(),
    }
}

fn below(bound: Exact) -> Vec<Value> {
    match bound {
        Exact::Integer(integer) => vec![integer.checked_sub(1).map_or(json!(f64::MIN), Value::from)],
        Exact::Large(integer) => vec![json!(integer - 1)],
        Exact::Float(float) => [float.ceil() - 1.0, float.next_down()].map(Value::from).to_vec(),
    }
}

fn above(bound: Exact) -> Vec<Value> {
    match bound {
        Exact::Integer(integer) => vec![integer.checked_add(1).map_or(json!(f64::MAX), Value::from)],
        Exact::Large(integer) => vec![integer.checked_add(1).map_or(json!(f64::MAX), Value::from)],
        Exact::Float(float) => [float.floor() + 1.0, float.next_up()].map(Value::from).to_vec(),
    }
}

/// Returns a text of this length that begins like the present one.
fn of_length(length: u64, present: &str) -> Value {
    let length = usize::try_from(length.min(MAX_SAMPLE_LENGTH)).unwrap_or_default();
    present.chars().chain(std::iter::repeat('x')).take(length).collect::<String>().into()
}

/// Returns a list and an object of this many parts, like the present value.
fn of_items(items: u64, present: Option<&Value>) -> Vec<Value> {
    let items = usize::try_from(items.min(MAX_SAMPLE_LENGTH)).unwrap_or_default();
    let elements = present.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let list: Value = elements.iter().cloned().chain(std::iter::repeat(json!("x"))).take(items).collect();
    let members =
        present.and_then(Value::as_object).into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
    let mut object: Map<String, Value> = members.take(items).collect();
    for number in 0.. {
        if object.len() >= items {
            break;
        }
        object.insert(format!("k{number}"), json!("x"));
    }
    match present {
        Some(Value::Object(_)) => vec![object.into(), list],
        _ => vec![list, object.into()],
    }
}

/// Returns a value of each type, those of `types` first.
fn of_types(types: Types) -> Vec<Value> {
    let all = [
        (types.string, json!("x")),
        (types.integer || types.number, json!(1)),
        (types.number, json!(0.5)),
        (types.boolean, json!(true)),
        (types.array, json!([])),
        (types.object, json!({})),
    ];
    let (mut values, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(is_named, _)| *is_named);
    values.extend(others);
    values.into_iter().map(|(_, value)| value).collect()
}

/// Returns a short text that the regular expression probably matches. Anchors and word boundaries
/// are ignored.
pub(crate) fn matching(pattern: &str) -> Option<String> {
    let hir = regex_syntax::parse(pattern).ok()?;
    let mut text = Vec::new();
    write_match(&hir, &mut text, &mut 10_000)?;
    String::from_utf8(text).ok().filter(|text| text.len() <= MAX_MATCH_BYTES)
}

/// Appends a match of `hir` to `to`. The recursion is bounded, because the parser limits nesting.
fn write_match(hir: &Hir, to: &mut Vec<u8>, steps: &mut u32) -> Option<()> {
    *steps = steps.checked_sub(1).filter(|_| to.len() <= MAX_MATCH_BYTES)?;
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Some(()),
        HirKind::Literal(literal) => {
            to.extend_from_slice(&literal.0);
            Some(())
        }
        HirKind::Class(Class::Unicode(class)) => {
            // A letter or a digit is easier to read than the first character of the class.
            let ranges = || class.ranges().iter();
            let readable = "a0A".chars().find(|c| ranges().any(|range| range.start() <= *c && *c <= range.end()));
            let c = readable.or_else(|| ranges().next().map(|range| range.start()))?;
            to.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            Some(())
        }
        HirKind::Class(Class::Bytes(class)) => {
            to.push(class.ranges().first()?.start());
            Some(())
        }
        HirKind::Repetition(repetition) => {
            (0..repetition.min).try_for_each(|_| write_match(&repetition.sub, to, steps))
        }
        HirKind::Capture(capture) => write_match(&capture.sub, to, steps),
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write_match(part, to, steps)),
        HirKind::Alternation(choices) => choices.iter().find_map(|choice| {
            let length = to.len();
            let written = write_match(choice, to, steps);
            if written.is_none() {
                to.truncate(length);
            }
            written
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_texts_that_match_regular_expressions() {
        for pattern in
            ["^ORD-[0-9]{4,8}: .+$", "a|b", "", "(?i)straße", "[^a]x{3}", r"^\d{4}-\p{Greek}\b", "x*y+?", "^$"]
        {
            let text = matching(pattern).unwrap();
            assert!(regex::Regex::new(pattern).unwrap().is_match(&text), "{pattern} {text}");
        }
        assert_eq!(matching("(?:a{1000}){1000}"), None);
        assert!(matching("a{512}").is_some() && matching("a{513}").is_none());
        assert!(matching(&"a".repeat(513)).is_none());
        assert_eq!(matching("(?:a{600}|b)c").unwrap(), "bc");
        assert_eq!(matching("("), None);
    }
}
