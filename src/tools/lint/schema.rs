//! Looks up arguments in the `inputSchema` of a tool. If a schema is not understood, the result is
//! [`Declared::Unknown`].

use serde_json::{Map, Value};

use super::value_types::type_of;
use crate::call::path::{Path, Step};

/// The number of schemas, targets of `$ref` included, that are read for one argument.
const MAX_SCHEMAS_READ: usize = 200;

/// The declaration of an argument in a schema.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Declared<'s> {
    /// The argument is declared, with these types and values. `None` if these are unknown or not
    /// restricted.
    Argument { optional: bool, types: Option<Vec<&'s str>>, values: Option<&'s [Value]> },
    /// The argument is not among the declared ones, which are `known`, or its parent has a type
    /// without parts. `closed` if additional arguments are refused.
    Undeclared { known: Vec<&'s str>, closed: bool },
    /// The schema does not decide it, or is not understood.
    Unknown,
}

/// Returns the declaration of the argument at a path.
pub(super) fn declared<'s>(schema: &'s Value, path: &Path) -> Declared<'s> {
    let mut resolver = Resolver { root: schema, schemas_left: MAX_SCHEMAS_READ };
    let Some(mut here) = resolver.resolve(schema) else { return Declared::Unknown };
    let mut optional = false;
    for step in path.steps() {
        // Any of the combined schemas may declare the argument.
        if is_combined(here) {
            return Declared::Unknown;
        }
        if !may_contain(here, step) {
            return Declared::Undeclared { known: Vec::new(), closed: false };
        }
        let next = match step {
            Step::Name(name) => {
                let Some(Value::Object(properties)) = here.get("properties") else { return Declared::Unknown };
                let Some(next) = properties.get(&**name) else {
                    if here.contains_key("patternProperties") {
                        return Declared::Unknown;
                    }
                    let closed = here.get("additionalProperties") == Some(&Value::Bool(false));
                    return Declared::Undeclared { known: properties.keys().map(String::as_str).collect(), closed };
                };
                let required = here.get("required").and_then(Value::as_array);
                optional |= !required.is_some_and(|names| names.iter().any(|known| known == &**name));
                next
            }
            // A schema describes the members by their names.
            Step::EachMember => return Declared::Unknown,
            Step::Each | Step::Index(_) => {
                let Some(items @ Value::Object(_)) = here.get("items") else { return Declared::Unknown };
                // The array may be too short.
                optional |= matches!(step, Step::Index(_));
                items
            }
        };
        let Some(next) = resolver.resolve(next) else { return Declared::Unknown };
        here = next;
    }
    let values = here.get("enum").and_then(Value::as_array).map(Vec::as_slice).filter(|values| !values.is_empty());
    Declared::Argument { optional, types: resolver.types(here), values }
}

/// Returns `true` if a value of the declared type may have the part that a step names. `true` if
/// the type is unknown.
fn may_contain(schema: &Map<String, Value>, step: &Step) -> bool {
    let excludes = |name: &Value| match (name.as_str(), step) {
        (Some("object"), step) => matches!(step, Step::Index(_) | Step::Each),
        (Some("array"), step) => matches!(step, Step::Name(_) | Step::EachMember),
        (name, _) => matches!(name, Some("string" | "number" | "integer" | "boolean" | "null")),
    };
    match schema.get("type") {
        None => true,
        Some(Value::Array(names)) => !names.iter().all(excludes),
        Some(name) => !excludes(name),
    }
}

/// Returns `true` if the schema combines several schemas.
fn is_combined(schema: &Map<String, Value>) -> bool {
    ["anyOf", "oneOf", "allOf", "if", "$dynamicRef", "dependentSchemas"].iter().any(|key| schema.contains_key(*key))
}

/// Follows the references in a schema, up to a bound.
struct Resolver<'s> {
    root: &'s Value,
    schemas_left: usize,
}

impl<'s> Resolver<'s> {
    /// Returns the members of a schema, or of the schema to which its `$ref`s lead. `None` if a
    /// reference leaves the document, or after too many schemas.
    fn resolve(&mut self, mut schema: &'s Value) -> Option<&'s Map<String, Value>> {
        loop {
            self.schemas_left = self.schemas_left.checked_sub(1)?;
            let members = schema.as_object()?;
            let Some(reference) = members.get("$ref") else { return Some(members) };
            let pointer = reference.as_str()?.strip_prefix('#')?;
            schema = self.root.pointer(pointer)?;
        }
    }

    /// Returns the types that values may have, or `None` if these are unknown.
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
            to.push(type_of(value));
            return Some(());
        }
        if let Some(Value::Array(values)) = schema.get("enum") {
            to.extend(values.iter().map(|value| -> &'s str { type_of(value) }));
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
    fn arguments_are_looked_up_in_schemas() {
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
        let argument = |optional, types: &[&'static str]| {
            let types = Some(types.to_vec());
            Declared::Argument { optional, types, values: None }
        };
        assert_eq!(look("args.a"), argument(false, &["string"]));
        assert_eq!(look("args.b"), argument(true, &["integer", "null"]));
        assert!(matches!(look("args.l[*].x"), Declared::Argument { optional: true, values: Some([_, _]), .. }));
        assert!(matches!(look("args.c"), Declared::Undeclared { closed: true, .. }));
        for scalar in ["args.a.x", "args.a[0]", "args.a[*].x", "args.l.x", "args[0]"] {
            assert!(matches!(look(scalar), Declared::Undeclared { closed: false, .. }), "{scalar}");
        }
        for unknown in ["args.n", "args.f", "args.b.x", "args.l[*].x.y"] {
            assert_eq!(look(unknown), Declared::Unknown, "{unknown}");
        }
        assert_eq!(declared(&json!(true), &Path::parse("args.a").unwrap()), Declared::Unknown);
    }
}
