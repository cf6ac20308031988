//! The JSON types of values, and those that a comparison can hold for.

use serde_json::Value;

use crate::policy::ast::Comparison;
use crate::policy::operator::{Aspect, Takes};

/// The types that a value of a call can have, `null` aside.
pub(super) const KINDS: [&str; 5] = ["string", "number", "boolean", "array", "object"];

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether the comparison can hold for a value of this type, one of [`KINDS`], its `not`s aside. For a comparison with another part
/// of the call it may.
pub(super) fn can(comparison: &Comparison, kind: &str) -> bool {
    let Some(value) = &comparison.value else { return true };
    let of = |value: &Value| kind == kind_of(value);
    match comparison.aspect() {
        Aspect::Presence => true,
        Aspect::Type => {
            let is = |name: &Value| name == kind || (kind == "number" && name == "integer");
            comparison.values().iter().any(is)
        }
        Aspect::Order => kind == "number",
        Aspect::Length => matches!(kind, "string" | "array" | "object"),
        // Not one of several types: of no type is a value comparable with all of them, if there is more than one.
        Aspect::Equality if comparison.is(Takes::In) && comparison.operator.negative => {
            comparison.values().iter().all(of)
        }
        Aspect::Equality if comparison.is(Takes::In) => comparison.values().iter().any(of),
        Aspect::Equality => of(value),
        Aspect::Content if comparison.is(Takes::Contains) => kind == "array" || (kind == "string" && value.is_string()),
        Aspect::Content => kind == "string",
    }
}
