//! The schema of limits.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

use super::super::document::{LIMIT, RATE};
use super::{
    Amount, Duration, Scope, ScopePath, SinglePath, Window, boolean, object, some, string, text, without, words,
};
use crate::policy::limit::{self, ALGORITHMS, SCOPES, WINDOWS};

pub(super) fn limit(generator: &mut SchemaGenerator) -> Schema {
    let description = "How much may pass in a window, and for whom.";
    let mut schema = object(&LIMIT, "Limit", description, |key| match key {
        "counter" => Some(json_schema!({
            "type": "string",
            "pattern": text::no_control(),
            "minLength": 1,
            "examples": ["spend"],
        })),
        "window" => Some(generator.subschema_for::<Window>()),
        "max" | "amount" | "burst" => Some(generator.subschema_for::<Amount>()),
        "scope" => Some(generator.subschema_for::<Scope>()),
        "max_from" => Some(text::context_path()),
        "amount_from" => Some(generator.subschema_for::<SinglePath>()),
        "algorithm" => Some(words(&ALGORITHMS)),
        "utc_offset" => Some(text::utc_offset()),
        "lease" => Some(generator.subschema_for::<Duration>()),
        "shadow" => Some(boolean()),
        "on_exceed" => Some(string()),
        _ => None,
    });
    // The keys that depend on other keys.
    let neighbours = json!({
        "algorithm": { "anyOf": [
            { "properties": { "window": { "not": words(&windows(|one| is_in_flight(one) || is_lifetime(one))) } } },
            { "properties": { "window": words(&windows(is_lifetime)), "algorithm": { "const": "fixed" } } },
        ] },
        "amount": without("amount_from"),
        "burst": { "properties": { "algorithm": { "const": "token_bucket" } }, "required": ["algorithm"] },
        "lease": { "properties": { "window": words(&windows(is_in_flight)) } },
        "utc_offset": {
            "properties": { "window": words(&windows(limit::Window::is_calendar)), "algorithm": { "const": "fixed" } },
        },
    });
    schema.insert("dependentSchemas".into(), neighbours);
    schema
}

pub(super) fn rate_limit(generator: &mut SchemaGenerator) -> Schema {
    let description = "How many calls may pass in a window, and for whom.";
    object(&RATE, "Rate limit", description, |key| match key {
        "max" => Some(generator.subschema_for::<Amount>()),
        "window" => Some(generator.subschema_for::<Window>()),
        "scope" => Some(generator.subschema_for::<Scope>()),
        _ => None,
    })
}

pub(super) fn window(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": "Window",
        "anyOf": [words(&windows(|_| true)), generator.subschema_for::<Duration>()],
    })
}

/// The names of the windows that satisfy `are`.
fn windows(are: impl Fn(limit::Window) -> bool) -> Vec<&'static str> {
    WINDOWS.iter().filter(|(_, window)| are(*window)).map(|(name, _)| *name).collect()
}

fn is_in_flight(window: limit::Window) -> bool {
    window == limit::Window::InFlight
}

fn is_lifetime(window: limit::Window) -> bool {
    window == limit::Window::Lifetime
}

pub(super) fn scope(generator: &mut SchemaGenerator) -> Schema {
    let part = json_schema!({ "anyOf": [words(&SCOPES), generator.subschema_for::<ScopePath>()] });
    json_schema!({
        "title": "Scope",
        "anyOf": [words(&SCOPES), some(&part)],
        "examples": ["grant", ["grant", "args.customer_id"]],
    })
}

pub(super) fn amount() -> Schema {
    json_schema!({ "title": "Amount", "type": "number", "minimum": 0, "maximum": crate::Amount::MAX })
}
