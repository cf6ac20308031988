//! What a tool's `inputSchema` says of an argument. What is not understood is not claimed.

use serde_json::{Map, Value};

use super::kinds::kind_of;
use crate::call::path::{Path, Step};

/// How many `$ref`s and schemas of `anyOf` are gone through for one argument.
const STEPS: usize = 200;

/// What a schema says of an argument.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Declared<'s> {
    /// It may be there, with one of these types or values.
    There { optional: bool, types: Option<Vec<&'s str>>, values: Option<&'s [Value]> },
    /// No such argument is named, or none can be as what holds it is of another type; these are.
    Unnamed { known: Vec<&'s str>, closed: bool },
    /// It cannot be told.
    Unknown,
}

/// Looks an argument up.
pub(super) fn declared<'s>(schema: &'s Value, path: &Path) -> Declared<'s> {
    let mut walk = Walk { root: schema, left: STEPS };
    let Some(mut here) = walk.resolve(schema) else { return Declared::Unknown };
    let mut optional = false;
    for step in path.steps() {
        // A schema that joins others may name the argument in any of them.
        if joins(here) {
            return Declared::Unknown;
        }
        if !is_entered(here, step) {
            return Declared::Unnamed { known: Vec::new(), closed: false };
        }
        let next = match step {
            Step::Name(name) => {
                let Some(Value::Object(properties)) = here.get("properties") else { return Declared::Unknown };
                let Some(next) = properties.get(&**name) else {
                    if here.contains_key("patternProperties") {
                        return Declared::Unknown;
                    }
                    let closed = here.get("additionalProperties") == Some(&Value::Bool(false));
                    return Declared::Unnamed { known: properties.keys().map(String::as_str).collect(), closed };
                };
                let required = here.get("required").and_then(Value::as_array);
                optional |= !required.is_some_and(|names| names.iter().any(|known| known == &**name));
                next
            }
            Step::Each | Step::Index(_) => {
                let Some(items @ Value::Object(_)) = here.get("items") else { return Declared::Unknown };
                // A list may be empty, or too short.
                optional |= matches!(step, Step::Index(_));
                items
            }
        };
        let Some(next) = walk.resolve(next) else { return Declared::Unknown };
        here = next;
    }
    let values = here.get("enum").and_then(Value::as_array).map(Vec::as_slice).filter(|values| !values.is_empty());
    Declared::There { optional, types: walk.types(here), values }
}

/// Whether a value of the type that a schema says may have what a step asks for; so it may if the type cannot be told.
fn is_entered(schema: &Map<String, Value>, step: &Step) -> bool {
    let closed = |name: &Value| match (name.as_str(), step) {
        (Some("object"), step) => matches!(step, Step::Index(_)),
        (Some("array"), step) => matches!(step, Step::Name(_)),
        (name, _) => matches!(name, Some("string" | "number" | "integer" | "boolean" | "null")),
    };
    match schema.get("type") {
        None => true,
        Some(Value::Array(names)) => !names.iter().all(closed),
        Some(name) => !closed(name),
    }
}

fn joins(schema: &Map<String, Value>) -> bool {
    ["anyOf", "oneOf", "allOf", "if", "$dynamicRef", "dependentSchemas"].iter().any(|key| schema.contains_key(*key))
}

/// Follows references, not for ever.
struct Walk<'s> {
    root: &'s Value,
    left: usize,
}

impl<'s> Walk<'s> {
    /// What a schema says, after its `$ref`s; nothing for one that refers elsewhere, or to itself.
    fn resolve(&mut self, mut schema: &'s Value) -> Option<&'s Map<String, Value>> {
        loop {
            self.left = self.left.checked_sub(1)?;
            let members = schema.as_object()?;
            let Some(reference) = members.get("$ref") else { return Some(members) };
            let pointer = reference.as_str()?.strip_prefix('#')?;
            schema = self.root.pointer(pointer)?;
        }
    }

    /// The types that values may have; nothing where that cannot be told.
    fn types(&mut self, schema: &'s Map<String, Value>) -> Option<Vec<&'s str>> {
        let mut types = Vec::new();
        self.add_types(schema, &mut types, 8)?;
        types.sort_unstable();
        types.dedup();
        Some(types)
    }

    fn add_types(&mut self, schema: &'s Map<String, Value>, to: &mut Vec<&'s str>, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        if let Some(types) = schema.get("type") {
            match types {
                Value::String(name) => to.push(name),
                Value::Array(names) => names.iter().try_for_each(|name| {
                    to.push(name.as_str()?);
                    Some(())
                })?,
                _ => return None,
            }
            return Some(());
        }
        if let Some(value) = schema.get("const") {
            to.push(kind_of(value));
            return Some(());
        }
        if let Some(Value::Array(values)) = schema.get("enum") {
            to.extend(values.iter().map(|value| -> &'s str { kind_of(value) }));
            return Some(());
        }
        let choices = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key)?.as_array())?;
        for choice in choices {
            let choice = self.resolve(choice)?;
            self.add_types(choice, to, depth)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_are_looked_up() {
        let schema = json!({
            "type": "object", "required": ["a", "n"], "additionalProperties": false,
            "properties": {
                "a": { "type": "string" },
                "b": { "anyOf": [{ "type": "integer" }, { "$ref": "#/$defs/none" }] },
                "l": { "type": "array", "items": { "properties": { "x": { "enum": [1, 2] } } } },
                "n": { "$ref": "#/properties/n" },
                "f": { "$ref": "https://example.com/schema" },
            },
            "$defs": { "none": { "type": "null" } },
        });
        let look = |path: &str| declared(&schema, &Path::parse(path).unwrap());
        let there =
            |optional, types: &[&'static str]| Declared::There { optional, types: Some(types.to_vec()), values: None };
        assert_eq!(look("args.a"), there(false, &["string"]));
        assert_eq!(look("args.b"), there(true, &["integer", "null"]));
        assert!(matches!(look("args.l[*].x"), Declared::There { optional: true, values: Some([_, _]), .. }));
        assert!(matches!(look("args.c"), Declared::Unnamed { closed: true, .. }));
        for scalar in ["args.a.x", "args.a[0]", "args.a[*].x", "args.l.x", "args[0]"] {
            assert!(matches!(look(scalar), Declared::Unnamed { closed: false, .. }), "{scalar}");
        }
        for unknown in ["args.n", "args.f", "args.b.x", "args.l[*].x.y"] {
            assert_eq!(look(unknown), Declared::Unknown, "{unknown}");
        }
        assert_eq!(declared(&json!(true), &Path::parse("args.a").unwrap()), Declared::Unknown);
    }
}
