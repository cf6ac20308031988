//! The JSON Schema, run by an independent validator, accepts and refuses the same documents as the
//! parser.

mod changes;
mod conditions;
mod documents;
mod limits;
mod parts;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Map, Value, json};
use toolgate::{Issue, IssueCode, Policy};

use self::documents::{documents, inexpressible};
use self::parts::policy;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| Policy::json_schema().to_value());

pub(crate) static VALIDATOR: LazyLock<Validator> =
    LazyLock::new(|| jsonschema::draft202012::new(&SCHEMA).expect("a schema"));

/// Returns the issues that the parser reports; none if it accepts the document.
fn issues(text: &str) -> Vec<Issue> {
    Policy::from_json(text).err().map_or_else(Vec::new, |error| error.issues().to_vec())
}

#[test]
fn the_schema_is_valid_draft_2020_12() {
    assert_eq!(SCHEMA["$schema"], "https://json-schema.org/draft/2020-12/schema");
    jsonschema::draft202012::meta::validate(&SCHEMA).unwrap();
}

#[test]
fn the_schema_file_for_editors_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/policy.schema.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let write = "cargo run --features cli -- schema > examples/data/policy.schema.json";
    assert_eq!(file, *SCHEMA, "the file is not current: {write}");
    assert_eq!((&file["$id"], &file["title"]), (&json!("urn:toolgate:policy:1"), &json!("Policy")));
}

/// Editors find the schema by the key `$schema`, which has no effect on decisions.
#[test]
fn a_document_may_name_its_schema() {
    let named = json!({ "$schema": "./policy.schema.json", "version": "1", "default": "deny" });
    assert_eq!(issues(&named.to_string()), []);
    assert!(VALIDATOR.is_valid(&named));
}

#[test]
fn schema_and_parser_accept_valid_documents() {
    for (what, document) in documents().valid {
        assert_eq!(issues(&document.to_string()), [], "{what}: {document}");
        if let Err(error) = VALIDATOR.validate(&document) {
            panic!("{what}: {error} at {}: {document}", error.instance_path());
        }
    }
}

#[test]
fn schema_and_parser_refuse_invalid_documents() {
    let documents = documents().invalid;
    assert!(documents.len() > 1_500, "{}", documents.len());
    for (what, document) in documents {
        let issues = issues(&document.to_string());
        // A key in place of another is two issues: one key is misplaced, the other is missing.
        let replaces = issues.len() == 2 && issues[1].code() == IssueCode::MisplacedKey;
        let relevant = if replaces && issues[0].code() == IssueCode::MissingKey { &issues[1..] } else { &issues };
        let places: BTreeSet<_> = relevant.iter().map(Issue::pointer).collect();
        assert_eq!(places.len(), 1, "one mistake in each: {what}: {document}: {issues:?}");
        assert!(!is_inexpressible(&issues[0], &document), "{what}: {document}: {issues:?}");
        assert!(!VALIDATOR.is_valid(&document), "{what}: {document}");
    }
}

#[test]
fn schema_and_parser_have_the_same_bounds() {
    for (count, fits) in [(100_000, true), (100_001, false)] {
        let names = || (0..count).map(|number| format!("t{number}"));
        let tools: Map<String, Value> = names().map(|name| (name, json!({}))).collect();
        for document in [policy(json!({ "hide": names().collect::<Vec<_>>() })), policy(json!({ "tools": tools }))] {
            assert_eq!(Policy::from_json(&document.to_string()).is_ok(), fits, "{count}");
            assert_eq!(VALIDATOR.is_valid(&document), fits, "{count}");
        }
    }
}

#[test]
fn the_docs_list_all_that_the_schema_cannot_express() {
    for (what, text, code) in inexpressible() {
        let codes: Vec<_> = issues(&text).iter().map(Issue::code).collect();
        assert_eq!(codes, [code], "{what}: {text}");
        let document = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
        assert!(VALIDATOR.is_valid(&document), "{what}: {text}");
    }
}

#[test]
fn every_object_is_closed_and_described() {
    let (mut objects, mut keys) = (0, 0);
    each_schema(&SCHEMA, &mut |schema| {
        if schema.get("type") != Some(&json!("object")) || !schema.contains_key("properties") {
            return;
        }
        objects += 1;
        assert_eq!(schema.get("additionalProperties"), Some(&json!(false)), "{schema:?}");
        for key in ["title", "description"] {
            assert!(schema.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty()), "{key}: {schema:?}");
        }
        for (key, property) in schema["properties"].as_object().unwrap() {
            keys += 1;
            let description = property["description"].as_str().unwrap_or_default();
            assert!(description.len() > 10 && description.ends_with('.'), "{key}: {property}");
        }
    });
    assert!(objects >= 15 && keys >= 70, "{objects} {keys}");
}

/// Editors compile patterns with the flag `u`, which allows no other escapes, and without inline
/// flags. Patterns without look-around work in every engine.
#[test]
fn every_pattern_is_valid_ecma_262() {
    let mut patterns = 0;
    each_schema(&SCHEMA, &mut |schema| {
        let Some(pattern) = schema.get("pattern") else { return };
        patterns += 1;
        let pattern = pattern.as_str().unwrap();
        let mut rest = pattern;
        while let Some((_, escape)) = rest.split_once('\\') {
            let escaped = escape.chars().next().unwrap();
            let is_code = escaped == 'u' && escape[1..5].bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(is_code || r"^$\.*+?()[]{}|/".contains(escaped), "{escaped}: {pattern}");
            rest = &escape[escaped.len_utf8()..];
        }
        assert!(pattern.match_indices("(?").all(|(at, _)| pattern[at..].starts_with("(?:")), "{pattern}");
    });
    assert!(patterns > 7, "{patterns}");
}

/// Visits every object of the schema, also those that are not schemas themselves.
fn each_schema(value: &Value, visit: &mut impl FnMut(&Map<String, Value>)) {
    match value {
        Value::Object(members) => {
            visit(members);
            members.values().for_each(|member| each_schema(member, visit));
        }
        Value::Array(elements) => elements.iter().for_each(|element| each_schema(element, visit)),
        _ => {}
    }
}

/// Returns whether an issue is one of those that, as [`Policy::json_schema`] lists, a schema cannot
/// express.
pub(crate) fn is_inexpressible(issue: &Issue, document: &Value) -> bool {
    let value = document.pointer(issue.pointer());
    let (parent, key) = issue.pointer().rsplit_once('/').unwrap_or_default();
    match issue.code() {
        IssueCode::DuplicateKey
        | IssueCode::TooDeep
        | IssueCode::DocumentTooLarge
        | IssueCode::InvalidRegex
        | IssueCode::RegexTooLarge
        | IssueCode::InexactNumber
        | IssueCode::CounterDisagrees => true,
        // More than six decimals.
        IssueCode::InvalidAmount => value.and_then(Value::as_f64).is_some_and(|amount| (0.0..=9e12).contains(&amount)),
        // The bound counts bytes, and a schema counts characters.
        IssueCode::TooLong => {
            let (text, bound) = match value.and_then(Value::as_str) {
                Some(text) if parent == "/hide" => (text, 256),
                Some(text) => (text, 4096),
                None => (&*key.replace("~1", "/").replace("~0", "~"), 256),
            };
            text.chars().count() <= bound
        }
        IssueCode::InvalidValue => {
            let condition = parent.strip_suffix("/value").and_then(|parent| document.pointer(parent));
            condition.is_some_and(|condition| condition["op"] == "host_in")
                && value.and_then(Value::as_str).is_some_and(may_be_host)
        }
        _ => false,
    }
}

/// Returns whether the schema accepts a text as a host.
fn may_be_host(text: &str) -> bool {
    let host = text.strip_prefix("*.").unwrap_or(text);
    !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || "*/?#@\\".contains(c))
}
