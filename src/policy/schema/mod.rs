//! The JSON Schema of documents, for editors. It is made of the tables that the reader checks
//! against.

mod condition;
mod limit;
mod text;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::approval::MAX_USES;
use super::document::{
    ACTIONS, ALL_TOOLS, APPROVAL_RULE, APPROVAL_TERMS, DEFAULTS, DOCUMENT, ENTRY, Need, RULE, Shape,
};
use super::{Bounds, Policy};

/// As [`Policy::json_schema`], for a schema that contains a policy.
impl JsonSchema for Policy {
    fn schema_name() -> Cow<'static, str> {
        "Policy".into()
    }

    fn schema_id() -> Cow<'static, str> {
        concat!(module_path!(), "::Policy").into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        document(generator)
    }
}

/// Defines the parts under `$defs`, each by an empty type that names it.
macro_rules! parts {
    ($($name:ident = $schema:expr;)*) => {$(
        enum $name {}

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn schema_id() -> Cow<'static, str> {
                concat!(module_path!(), "::", stringify!($name)).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let schema: fn(&mut SchemaGenerator) -> Schema = $schema;
                schema(generator)
            }
        }
    )*};
}

parts! {
    Entry = entry;
    AllTools = all_tools;
    RequireRule = require_rule;
    DenyRule = deny_rule;
    ApprovalRule = approval_rule;
    Approval = approval;
    Condition = condition::condition;
    RequiredCondition = condition::required_condition;
    ConditionBelowNot = condition::condition_below_not;
    Comparison = condition::comparison;
    RequiredComparison = condition::required_comparison;
    ComparisonBelowNot = condition::comparison_below_not;
    ValueByOperator = condition::value_by_operator;
    ValueOfTime = condition::value_of_time;
    ComparableValue = condition::comparable_value;
    Limit = limit::limit;
    RateLimit = limit::rate_limit;
    Window = limit::window;
    Scope = limit::scope;
    Amount = |_| limit::amount();
    Duration = |_| text::duration();
    Name = |_| text::name();
    EntryName = |_| text::entry_name();
    Path = |_| text::path();
    SinglePath = text::single_path;
    ScopePath = text::scope_path;
    BoundPath = |_| text::bound_path();
}

fn document(generator: &mut SchemaGenerator) -> Schema {
    let description = "The rules for an agent's calls of the tools of a server.";
    object(&DOCUMENT, "Policy", description, |key| match key {
        "$schema" | "description" => Some(string()),
        "version" => Some(json_schema!({ "const": "1" })),
        "default" => Some(words(&DEFAULTS)),
        "hide" => Some(hide(generator)),
        "all_tools" => Some(generator.subschema_for::<AllTools>()),
        "tools" => Some(tools(generator)),
        _ => None,
    })
}

fn hide(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": Bounds::default().entries,
        "items": generator.subschema_for::<Name>(),
        "examples": [["delete_account", "admin_*"]],
    })
}

fn tools(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": Bounds::default().entries,
        "propertyNames": generator.subschema_for::<EntryName>(),
        "additionalProperties": generator.subschema_for::<Entry>(),
        "examples": [{ "get_*": {}, "delete_repo": { "action": "deny", "reason": "Ask an owner." } }],
    })
}

fn entry(generator: &mut SchemaGenerator) -> Schema {
    let description = "The rules for the tools that match the name. Without a rule, they are listed and allowed.";
    object(&ENTRY, "Entry", description, |key| rules(generator, key))
}

fn all_tools(generator: &mut SchemaGenerator) -> Schema {
    let description = "The rules for every call that `hide` or `default` does not already deny.";
    object(&ALL_TOOLS, "Rules for all tools", description, |key| rules(generator, key))
}

/// The schema of a key of a rules object.
fn rules(generator: &mut SchemaGenerator, key: &str) -> Option<Schema> {
    Some(match key {
        "description" | "reason" => string(),
        "action" => words(&ACTIONS),
        "require" => list(&generator.subschema_for::<RequireRule>()),
        "deny_if" => list(&generator.subschema_for::<DenyRule>()),
        "require_approval_if" => list(&generator.subschema_for::<ApprovalRule>()),
        "approval" => generator.subschema_for::<Approval>(),
        "limits" => list(&generator.subschema_for::<Limit>()),
        "rate_limit" => generator.subschema_for::<RateLimit>(),
        _ => return None,
    })
}

fn require_rule(generator: &mut SchemaGenerator) -> Schema {
    let conditions = some(&generator.subschema_for::<RequiredCondition>());
    rule(&RULE, "Rule of `require`", "Denies the call unless its conditions hold.", conditions)
}

fn deny_rule(generator: &mut SchemaGenerator) -> Schema {
    let conditions = list(&generator.subschema_for::<Condition>());
    rule(&RULE, "Rule of `deny_if`", "Denies the call if its conditions hold.", conditions)
}

fn approval_rule(generator: &mut SchemaGenerator) -> Schema {
    let conditions = list(&generator.subschema_for::<Condition>());
    let description = "Requires a person's approval if its conditions hold.";
    let mut schema = rule(&APPROVAL_RULE, "Rule of `require_approval_if`", description, conditions);
    schema.insert("dependentSchemas".into(), json!({ "reason": without("on_deny") }));
    schema
}

fn rule(shape: &Shape, title: &str, description: &str, conditions: Schema) -> Schema {
    object(shape, title, description, |key| match key {
        "conditions" => Some(conditions.clone()),
        "name" => Some(text::plain()),
        "on_deny" | "reason" => Some(string()),
        _ => None,
    })
}

fn approval(generator: &mut SchemaGenerator) -> Schema {
    let description = "The terms of an approval: who gives it, how long it is valid, and what it is bound to.";
    object(&APPROVAL_TERMS, "Approval", description, |key| match key {
        "ttl" => Some(generator.subschema_for::<Duration>()),
        "approvers" => Some(some(&text::plain())),
        "min_approvers" => Some(json_schema!({ "type": "integer", "minimum": 1 })),
        "bind" => Some(list(&generator.subschema_for::<BoundPath>())),
        "uses" => Some(json_schema!({ "type": "integer", "minimum": 1, "maximum": MAX_USES })),
        _ => None,
    })
}

/// An object with the keys of a table, and no others. `value` returns the schema of a key; a key
/// without one is left out.
fn object(shape: &Shape, title: &str, description: &str, mut value: impl FnMut(&str) -> Option<Schema>) -> Schema {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in shape.keys {
        let Some(mut schema) = value(key.name) else { continue };
        schema.insert("description".into(), key.description.into());
        properties.insert(key.name.into(), schema.into());
        if key.need == Need::Required {
            required.push(key.name);
        }
    }
    let mut schema = json_schema!({
        "title": title,
        "description": description,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    schema
}

/// Requires that the object does not have this key.
fn without(key: &str) -> Value {
    json!({ "properties": { key: false } })
}

fn string() -> Schema {
    json_schema!({ "type": "string" })
}

fn boolean() -> Schema {
    json_schema!({ "type": "boolean" })
}

fn words(words: &[&str]) -> Schema {
    json_schema!({ "enum": words })
}

fn list(items: &Schema) -> Schema {
    json_schema!({ "type": "array", "items": items })
}

/// A list of at least one element.
fn some(items: &Schema) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "items": items })
}

#[cfg(test)]
mod tests {
    use super::super::document::{COMPARISON, LIMIT, RATE};
    use super::*;

    #[test]
    fn every_key_of_the_tables_is_described() {
        let schema = Policy::json_schema();
        let properties = |part: &str| schema.pointer(&format!("{part}/properties")).unwrap().as_object().unwrap();
        let keys = |shape: &Shape| shape.keys.iter().map(|key| (key.name, key.description)).collect::<Vec<_>>();
        for (part, shape) in [
            ("", &DOCUMENT),
            ("/$defs/Entry", &ENTRY),
            ("/$defs/AllTools", &ALL_TOOLS),
            ("/$defs/RequireRule", &RULE),
            ("/$defs/DenyRule", &RULE),
            ("/$defs/ApprovalRule", &APPROVAL_RULE),
            ("/$defs/Approval", &APPROVAL_TERMS),
            ("/$defs/Comparison", &COMPARISON),
            ("/$defs/RequiredComparison", &COMPARISON),
            ("/$defs/Limit", &LIMIT),
            ("/$defs/RateLimit", &RATE),
        ] {
            let described = properties(part);
            for (key, description) in keys(shape) {
                assert_eq!(described.get(key).map(|schema| &schema["description"]), Some(&description.into()), "{key}");
            }
            assert_eq!(described.len(), shape.keys.len(), "{part}");
        }
        let below_not = properties("/$defs/ComparisonBelowNot");
        assert!(COMPARISON.names().all(|key| below_not.contains_key(key) == (key != "absent")));
    }
}
