//! The schema of conditions.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::super::Bounds;
use super::super::condition::Absent;
use super::super::document::{ALL, ANY, COMPARISON, Key, NOT, TYPES};
use super::super::operator::{OPERATORS, Operator, Takes};
use super::{
    ComparableValue, Comparison, ComparisonBelowNot, Condition, ConditionBelowNot, Path, RequiredComparison,
    RequiredCondition, SinglePath, ValueByOperator, ValueOfTime, boolean, object, some, text, without, words,
};
use crate::call::path::{TIME_MEMBERS, TimePart};

pub(super) fn condition(generator: &mut SchemaGenerator) -> Schema {
    comparison_or_group::<Comparison, Condition>(generator)
}

pub(super) fn required_condition(generator: &mut SchemaGenerator) -> Schema {
    comparison_or_group::<RequiredComparison, RequiredCondition>(generator)
}

/// A condition without `absent` at any depth.
pub(super) fn condition_below_not(generator: &mut SchemaGenerator) -> Schema {
    comparison_or_group::<ComparisonBelowNot, ConditionBelowNot>(generator)
}

fn comparison_or_group<C: JsonSchema, Element: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let elements = some(&generator.subschema_for::<Element>());
    let negated = generator.subschema_for::<ConditionBelowNot>();
    json_schema!({
        "title": "Condition",
        "description": "A comparison, or a group of conditions.",
        "type": "object",
        "anyOf": [
            generator.subschema_for::<C>(),
            group(&ANY, "Any of several conditions", elements.clone()),
            group(&ALL, "All of several conditions", elements),
            group(&NOT, "Negated condition", negated),
        ],
    })
}

fn group(key: &Key, title: &str, mut value: Schema) -> Schema {
    value.insert("description".into(), key.description.into());
    json_schema!({
        "title": title,
        "description": "A group of conditions. It has no other key.",
        "type": "object",
        "properties": { key.name: value },
        "required": [key.name],
        "additionalProperties": false,
    })
}

pub(super) fn comparison(generator: &mut SchemaGenerator) -> Schema {
    compare(generator, Some(&words(&[Absent::Match.word(), Absent::NoMatch.word()])))
}

pub(super) fn required_comparison(generator: &mut SchemaGenerator) -> Schema {
    compare(generator, Some(&json_schema!({ "const": Absent::Match.word() })))
}

pub(super) fn comparison_below_not(generator: &mut SchemaGenerator) -> Schema {
    compare(generator, None)
}

fn compare(generator: &mut SchemaGenerator, absent: Option<&Schema>) -> Schema {
    let operators = OPERATORS.each_ref().map(|operator| operator.name);
    let description = "Compares a value of the call with a given value, or with another value of the call.";
    let mut schema = object(&COMPARISON, "Comparison", description, |key| match key {
        "path" => Some(generator.subschema_for::<Path>()),
        "op" => Some(words(&operators)),
        "value" => Some(json_schema!({})),
        "value_from" => Some(generator.subschema_for::<SinglePath>()),
        "ignore_case" => Some(boolean()),
        "absent" => absent.cloned(),
        _ => None,
    });
    schema.insert("anyOf".into(), json!([{ "required": ["value"] }, { "required": ["value_from"] }]));
    schema.insert("dependentSchemas".into(), json!({ "value": without("value_from") }));
    schema.insert(
        "allOf".into(),
        json!([generator.subschema_for::<ValueByOperator>(), generator.subschema_for::<ValueOfTime>()]),
    );
    schema
}

/// For each kind of operator, the schema of its `value` and the keys that it does not have.
pub(super) fn value_by_operator(generator: &mut SchemaGenerator) -> Schema {
    let mut kinds: Vec<(Vec<&str>, Schema)> = Vec::new();
    for operator in &OPERATORS {
        let terms = terms(generator, operator);
        match kinds.iter_mut().find(|(_, known)| *known == terms) {
            Some((names, _)) => names.push(operator.name),
            None => kinds.push((vec![operator.name], terms)),
        }
    }
    let each = kinds.into_iter().map(|(names, terms)| {
        json!({ "if": { "properties": { "op": { "enum": names } }, "required": ["op"] }, "then": terms })
    });
    json_schema!({ "title": "Value by operator", "allOf": each.collect::<Vec<_>>() })
}

/// For each part of the time, the values that it can have.
pub(super) fn value_of_time(_: &mut SchemaGenerator) -> Schema {
    let operators = |is: fn(Takes) -> bool| -> Vec<_> {
        OPERATORS.iter().filter(|operator| is(operator.takes)).map(|operator| operator.name).collect()
    };
    let single = operators(|takes| {
        use Takes::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
        matches!(takes, Equal | Less | LessOrEqual | Greater | GreaterOrEqual)
    });
    let lists = operators(|takes| takes == Takes::In);
    let parts = [TimePart::Hour, TimePart::Minute, TimePart::Weekday, TimePart::Date];
    let each = parts.into_iter().zip(TIME_MEMBERS).flat_map(|(part, member)| {
        let value = match part.numbers() {
            Some((least, most)) => json_schema!({ "type": "integer", "minimum": least, "maximum": most }),
            None => text::date(),
        };
        let when = |operators: &[&str], value: Value| {
            let path = json!({ "pattern": text::time_path(member) });
            let asked =
                json!({ "properties": { "path": path, "op": { "enum": operators } }, "required": ["path", "op"] });
            json!({ "if": asked, "then": { "properties": { "value": value } } })
        };
        [when(&single, json!(value)), when(&lists, json!({ "items": value }))]
    });
    json_schema!({ "title": "Value of the time", "allOf": each.collect::<Vec<_>>() })
}

fn terms(generator: &mut SchemaGenerator, operator: &Operator) -> Schema {
    let mut properties = Map::new();
    properties.insert("value".into(), value(generator, operator.takes).into());
    if !operator.value_from {
        properties.insert("value_from".into(), false.into());
    }
    if !operator.ignore_case {
        properties.insert("ignore_case".into(), false.into());
    }
    if operator.takes == Takes::Exists {
        properties.insert("absent".into(), false.into());
    }
    let mut terms = json_schema!({ "properties": properties });
    if let Some(folded) = folded(operator.takes) {
        let is_folded = json!({ "properties": { "ignore_case": { "const": true } }, "required": ["ignore_case"] });
        terms.insert("if".into(), is_folded);
        terms.insert("then".into(), json!({ "properties": { "value": folded } }));
    }
    terms
}

/// The schema of an operator's `value`.
fn value(generator: &mut SchemaGenerator, takes: Takes) -> Schema {
    match takes {
        Takes::Equal | Takes::Contains => generator.subschema_for::<ComparableValue>(),
        Takes::Less | Takes::LessOrEqual | Takes::Greater | Takes::GreaterOrEqual => {
            json_schema!({ "type": "number" })
        }
        Takes::In => values(&generator.subschema_for::<ComparableValue>()),
        Takes::Exists => boolean(),
        Takes::Regex => text::regex(),
        Takes::StartsWith | Takes::EndsWith => one_or_more(&text::plain()),
        Takes::MinLength | Takes::MaxLength | Takes::MinItems | Takes::MaxItems => {
            json_schema!({ "type": "integer", "minimum": 0 })
        }
        Takes::KeysIn => {
            json_schema!({ "type": "array", "maxItems": Bounds::default().list_values, "items": text::plain() })
        }
        Takes::Type => one_or_more(&words(&TYPES)),
        Takes::PathWithin => values(&text::directory()),
        Takes::HostIn => values(&text::host()),
    }
}

/// The bound of a `value` that is compared without regard to case: it becomes a regular expression,
/// and is bounded like one.
fn folded(takes: Takes) -> Option<Value> {
    let bound = Bounds::default().regex_bytes;
    match takes {
        Takes::Contains => Some(json!({ "maxLength": bound })),
        Takes::StartsWith | Takes::EndsWith => Some(json!({ "maxLength": bound, "items": { "maxLength": bound } })),
        _ => None,
    }
}

fn one_or_more(one: &Schema) -> Schema {
    json_schema!({ "anyOf": [one, values(one)] })
}

/// A list that an operator compares with.
fn values(items: &Schema) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "maxItems": Bounds::default().list_values, "items": items })
}

/// Any value except `null`, and without `null` inside.
pub(super) fn comparable_value(generator: &mut SchemaGenerator) -> Schema {
    let inner = generator.subschema_for::<ComparableValue>();
    json_schema!({
        "title": "Value",
        "type": ["string", "number", "boolean", "array", "object"],
        "pattern": text::no_control(),
        "items": inner,
        "maxItems": Bounds::default().list_values,
        "propertyNames": { "pattern": text::no_control() },
        "additionalProperties": inner,
    })
}
