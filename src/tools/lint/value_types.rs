//! The JSON types of values, and the types for which a comparison can hold.

use serde_json::Value;

use crate::policy::ast::Comparison;
use crate::policy::operator::{Aspect, Takes};

/// The types that a value of a call can have, except `null`.
pub(super) const VALUE_TYPES: [&str; 5] = ["string", "number", "boolean", "array", "object"];

pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Returns `true` if the comparison, without its `not`s, can hold for a value of this type, one of
/// [`VALUE_TYPES`]. A comparison with another part of the call can.
pub(super) fn can_hold_for(comparison: &Comparison, value_type: &str) -> bool {
    let Some(value) = &comparison.value else { return true };
    let has_type = |value: &Value| value_type == type_of(value);
    match comparison.aspect() {
        Aspect::Presence => true,
        Aspect::Type => {
            let is_named = |name: &Value| name == value_type || (value_type == "number" && name == "integer");
            comparison.values().iter().any(is_named)
        }
        Aspect::Order => value_type == "number",
        Aspect::Length => value_type == "string",
        Aspect::Names => value_type == "object",
        Aspect::Items => matches!(value_type, "array" | "object"),
        // `not_in` compares with every element, and a value is comparable only with its own type:
        // with elements of several types, no type is comparable with all of them.
        Aspect::Equality if comparison.is(Takes::In) && comparison.operator.negative => {
            comparison.values().iter().all(has_type)
        }
        Aspect::Equality if comparison.is(Takes::In) => comparison.values().iter().any(has_type),
        Aspect::Equality => has_type(value),
        Aspect::Content if comparison.is(Takes::Contains) => {
            value_type == "array" || (value_type == "string" && value.is_string())
        }
        Aspect::Content => value_type == "string",
    }
}
