//! The evidence in the arguments of a tool.

use serde_json::{Map, Value};

use super::evidence::{Evidence, Source};
use super::split::{name_words, phrases};
use super::words::{self, among};
use super::{RiskClass, evidence};

/// The evidence in an input schema.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) evidence: Vec<Evidence>,
    /// The first word, in alphabetical order, of an argument that is an amount of money.
    pub(super) money: Option<&'static str>,
    /// `true` if every part of the schema that is read has the right type.
    pub(super) well_formed: bool,
}

/// A part of a schema that has not been read yet.
enum Part<'v> {
    Schema(&'v Value),
    Properties(&'v Map<String, Value>),
}

/// Reads an input schema at any depth, and every definition in it once, in linear time. References
/// are not followed: their targets inside the schema are read in place, and nothing is fetched.
pub(super) fn arguments(schema: Option<&Value>) -> Arguments {
    let mut read = Arguments { well_formed: schema.is_none_or(Value::is_object), ..Arguments::default() };
    let mut parts: Vec<_> = schema.into_iter().map(Part::Schema).collect();
    while let Some(part) = parts.pop() {
        match part {
            Part::Schema(Value::Array(schemas)) => parts.extend(schemas.iter().map(Part::Schema)),
            Part::Schema(Value::Object(members)) => {
                for (key, value) in members {
                    match (&**key, value) {
                        ("properties", Value::Object(properties)) => parts.push(Part::Properties(properties)),
                        ("properties", _) => read.well_formed = false,
                        ("enum" | "const" | "default" | "examples", _) => {}
                        (
                            "$defs" | "definitions" | "dependentSchemas" | "patternProperties",
                            Value::Object(schemas),
                        ) => {
                            parts.extend(schemas.values().map(Part::Schema));
                        }
                        _ => parts.push(Part::Schema(value)),
                    }
                }
            }
            Part::Schema(_) => {}
            Part::Properties(properties) => {
                for (name, schema) in properties {
                    read.well_formed &= schema.is_object() || schema.is_boolean();
                    argument(&mut read, name, schema);
                    parts.push(Part::Schema(schema));
                }
            }
        }
    }
    read
}

fn argument(read: &mut Arguments, name: &str, schema: &Value) {
    let name_words = name_words(name);
    let choices = choices(schema);
    let mut add = |word, class, why| {
        evidence::add(&mut read.evidence, Evidence::new(Source::Arguments, word, Some(class), why));
    };
    let only_about = name_words.last().is_some_and(|last| among(words::ABOUT, last).is_some());
    for word in &name_words {
        if choices.is_empty()
            && !only_about
            && let Some(word) = among(words::CODE_ARGUMENTS, word)
        {
            add(word, RiskClass::Execute, words::CODE_WHY);
        }
        if let Some(word) = among(words::DESTROYING_ARGUMENTS, word) {
            add(word, RiskClass::Destructive, words::DESTROYING_WHY);
        }
        if let Some(word) = among(words::MONEY_ARGUMENTS, word) {
            read.money = read.money.min(Some(word)).or(Some(word));
        }
    }
    if name_words.iter().any(|word| among(words::CHOICES, word).is_some()) {
        for choice in choices {
            if let Some((word, row)) = self::name_words(choice).iter().find_map(|word| words::verb(word)) {
                add(word, row.class, words::CHOICE_WHY);
            }
        }
    }
    if let Some(Value::String(description)) = schema.get("description") {
        for (phrase, class, why) in phrases(description) {
            add(phrase, class, why);
        }
    }
}

/// Returns the texts that an argument can be, if the schema lists them.
fn choices(schema: &Value) -> Vec<&str> {
    let mut texts = Vec::new();
    let mut schemas = vec![schema];
    schemas.extend(schema.get("items"));
    for key in ["anyOf", "oneOf"] {
        schemas.extend(schema.get(key).and_then(Value::as_array).into_iter().flatten());
    }
    for schema in schemas {
        let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
        texts.extend(listed.chain(schema.get("const")).filter_map(Value::as_str));
    }
    texts
}
