//! Values that a comparison holds for, and values that it does not: what an explanation or a finding tries out. A sample is a
//! guess, near what is there now; whether it serves is for the comparison itself to say.

use regex_syntax::hir::{Class, Hir, HirKind};
use serde_json::{Map, Value, json};

use crate::call::path::{Datum, Facts, Found};
use crate::json::number::Exact;
use crate::policy::ast::Comparison;
use crate::policy::condition::{Check, Operand, Order, Test, Types};
use crate::policy::operator::{Operator, Takes};
use crate::policy::text::Affix;

/// At most this many values of a list are tried.
const LISTED: usize = 8;
/// The longest text that is made for its length.
const LONGEST: u64 = 1_024;
/// The longest text that is made for an expression, in bytes. One that needs a longer text has as many states, and each of them
/// may look at each byte: a policy with a few hundred such expressions would keep whoever tries their texts for hours.
const LONGEST_MATCH: usize = 512;

/// A comparison that a value is to meet, in the words of the language.
pub(super) struct Aim {
    pub(super) operator: &'static Operator,
    /// The operator has no opposite, and must not hold.
    pub(super) not: bool,
    /// `None` for a comparison with another part of the call.
    pub(super) value: Option<Value>,
}

/// What a value has to be, so that the check of `test` holds or does not, and values to try.
pub(super) fn samples(
    test: &Test,
    comparison: &Comparison,
    holds: bool,
    now: Option<&Value>,
    facts: &Facts<'_>,
) -> Option<(Aim, Vec<Value>)> {
    let compared: Option<Value> = match test.check.other() {
        None => comparison.value.clone(),
        Some(path) => match path.resolve(facts) {
            Found::Value(datum) => Some(to_value(datum)?),
            _ => return None,
        },
    };
    let operator = comparison.operator.positive();
    let opposite = operator.opposite().filter(|_| !holds);
    let mut aim = Aim {
        operator: opposite.unwrap_or(operator),
        not: !holds && opposite.is_none(),
        value: comparison.value.clone(),
    };
    let texts = || -> Vec<String> {
        match &compared {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(texts)) => {
                texts.iter().filter_map(Value::as_str).map(str::to_owned).take(LISTED).collect()
            }
            _ => Vec::new(),
        }
    };
    let present = now.and_then(Value::as_str).unwrap_or_default();
    let tried = match &test.check {
        Check::Exists => {
            aim = Aim { operator, not: false, value: Some(json!(holds)) };
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
                true => values.into_iter().take(LISTED).collect(),
                false => values.iter().rev().take(LISTED).flat_map(others).collect(),
            }
        }
        Check::Regex(regex) => {
            let plain = ["", "x", "0", "-", "\u{10348}"].map(Value::from);
            let mut tried: Vec<Value> = matching(regex.as_str()).map(Value::from).into_iter().collect();
            tried.extend(plain);
            tried
        }
        Check::Contains(..) => {
            let value = compared?;
            let mut tried = Vec::new();
            match (&value, now) {
                (Value::String(text), Some(Value::String(present))) if holds => {
                    tried.push(json!(format!("{present}{text}")));
                }
                (_, Some(Value::Array(elements))) => {
                    let kept = elements.iter().filter(|element| **element != value).cloned();
                    tried.push(if holds {
                        elements.iter().cloned().chain([value.clone()]).collect()
                    } else {
                        kept.collect()
                    });
                }
                _ => {}
            }
            tried.extend(if holds { [value.clone(), json!([value])] } else { [json!(""), json!([])] });
            tried
        }
        Check::Affix(affix, ..) => {
            let tried: Vec<String> = match (holds, affix) {
                (true, Affix::Start) => texts().iter().map(|text| format!("{text}{present}")).collect(),
                (true, Affix::End) => texts().iter().map(|text| format!("{present}{text}")).collect(),
                (false, _) => ["", "x", "0", "-"].map(str::to_owned).to_vec(),
            };
            tried.into_iter().map(Value::from).collect()
        }
        Check::MinLength(least) if holds => of_length(*least, now),
        Check::MaxLength(most) if holds => of_length(*most, now),
        Check::MinLength(least) => {
            let most = least.checked_sub(1)?;
            aim = Aim { operator: Takes::MaxLength.operator(), not: false, value: Some(json!(most)) };
            of_length(most, now)
        }
        Check::MaxLength(most) => {
            let least = most.checked_add(1)?;
            aim = Aim { operator: Takes::MinLength.operator(), not: false, value: Some(json!(least)) };
            of_length(least, now)
        }
        Check::Type(types) => typed(*types),
        Check::PathWithin(_) => {
            let mut tried: Vec<Value> = texts().into_iter().map(Value::from).collect();
            tried.extend(["/", "/-"].map(Value::from));
            tried
        }
        Check::HostIn(_) => {
            let url = |host: String| match host.strip_prefix("*.") {
                Some(domain) => json!(format!("https://a.{domain}/")),
                None => json!(format!("https://{host}/")),
            };
            let mut tried: Vec<Value> = texts().into_iter().map(url).collect();
            tried.push(json!("https://host.invalid/"));
            tried
        }
    };
    Some((aim, tried))
}

/// The value that a datum shows; nothing for a number that is not held exactly.
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

/// Values of the same type that are not `value`.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Bool(value) => vec![json!(!value)],
        Value::Number(number) => {
            Exact::of(number).map(|bound| [above(bound), below(bound)].concat()).unwrap_or_default()
        }
        Value::String(text) => vec![json!(format!("{text}-")), json!("")],
        Value::Array(elements) => vec![elements.iter().cloned().chain([json!(0)]).collect(), json!([])],
        Value::Object(members) => {
            let mut more: Map<_, _> = members.clone();
            more.insert("-".into(), json!(0));
            vec![more.into(), json!({})]
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

/// Values of that length, like the one that is there.
fn of_length(length: u64, now: Option<&Value>) -> Vec<Value> {
    let Some(length) = usize::try_from(length.min(LONGEST)).ok() else { return Vec::new() };
    let text = |text: &str| text.chars().chain(std::iter::repeat('x')).take(length).collect::<String>().into();
    let list = |elements: &[Value]| -> Value {
        elements.iter().cloned().chain(std::iter::repeat(json!("x"))).take(length).collect()
    };
    match now {
        Some(Value::Array(elements)) => vec![list(elements), text("")],
        Some(Value::String(present)) => vec![text(present), list(&[])],
        _ => vec![text(""), list(&[])],
    }
}

/// Values of each type, those of the named types first.
fn typed(types: Types) -> Vec<Value> {
    let all = [
        (types.string, json!("x")),
        (types.integer || types.number, json!(1)),
        (types.number, json!(0.5)),
        (types.boolean, json!(true)),
        (types.array, json!([])),
        (types.object, json!({})),
    ];
    let (mut named, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(named, _)| *named);
    named.extend(others);
    named.into_iter().map(|(_, value)| value).collect()
}

/// A short text that the expression matches, as far as it goes without looking around.
pub(crate) fn matching(pattern: &str) -> Option<String> {
    let hir = regex_syntax::parse(pattern).ok()?;
    let mut text = Vec::new();
    write_match(&hir, &mut text, &mut 10_000)?;
    String::from_utf8(text).ok().filter(|text| text.len() <= LONGEST_MATCH)
}

/// Expressions come with a bound on their nesting from their parser.
fn write_match(hir: &Hir, to: &mut Vec<u8>, steps: &mut u32) -> Option<()> {
    *steps = steps.checked_sub(1).filter(|_| to.len() <= LONGEST_MATCH)?;
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Some(()),
        HirKind::Literal(literal) => {
            to.extend_from_slice(&literal.0);
            Some(())
        }
        HirKind::Class(Class::Unicode(class)) => {
            // A letter or digit reads better than whatever comes first.
            let ranges = || class.ranges().iter();
            let plain = "a0A".chars().find(|c| ranges().any(|range| range.start() <= *c && *c <= range.end()));
            let c = plain.or_else(|| ranges().next().map(|range| range.start()))?;
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
    fn expressions_have_texts_that_they_match() {
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
