//! The same work by hand: the lower bound for the time of any policy engine.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::workload;

/// W1 by hand: one hash and one look-up.
pub(crate) struct Names(hashbrown::HashSet<Box<str>, RandomState>);

impl Names {
    pub(crate) fn new(entries: usize) -> Self {
        Self((0..entries).map(|index| workload::tool_name(index).into()).collect())
    }

    pub(crate) fn allows(&self, tool: &str) -> bool {
        self.0.contains(tool)
    }
}

/// W2 by hand: one look-up of the name, four of arguments, and the regular expression.
pub(crate) struct Conditions {
    /// `true` if the tool has conditions.
    tools: hashbrown::HashMap<Box<str>, bool, RandomState>,
    description: Regex,
}

impl Conditions {
    pub(crate) fn new() -> Self {
        let bare = (0..workload::ENTRIES - 1).map(|index| (workload::tool_name(index).into(), false));
        let tools = bare.chain([(workload::CHARGE.into(), true)]).collect();
        Self { tools, description: Regex::new(workload::DESCRIPTION).unwrap() }
    }

    pub(crate) fn allows(&self, tool: &str, arguments: &Value) -> bool {
        let Some(conditions) = self.tools.get(tool) else { return false };
        let Value::Object(arguments) = arguments else { return false };
        !conditions
            || (arguments.get("amount").and_then(Value::as_i64).is_some_and(|amount| amount <= 50_000)
                && arguments.get("currency").and_then(Value::as_str).is_some_and(|c| c == "usd" || c == "eur")
                && arguments.get("reason").is_some_and(|reason| !reason.is_null())
                && arguments
                    .get("description")
                    .and_then(Value::as_str)
                    .is_some_and(|text| self.description.is_match(text)))
    }
}

/// A document as plain structs: as `serde` deserializes it, without positions, checks or an index.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields are deserialized and never read")]
pub(crate) struct Document {
    version: String,
    default: DefaultEffect,
    #[serde(default)]
    all_tools: Rules,
    #[serde(default)]
    tools: HashMap<String, Rules>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum DefaultEffect {
    Allow,
    Deny,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields are deserialized and never read")]
struct Rules {
    #[serde(default)]
    require: Vec<Rule>,
    #[serde(default)]
    deny_if: Vec<Rule>,
    #[serde(default)]
    require_approval_if: Vec<Rule>,
    #[serde(default)]
    limits: Vec<Limit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields are deserialized and never read")]
struct Rule {
    conditions: Vec<Condition>,
    on_deny: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields are deserialized and never read")]
struct Condition {
    path: String,
    op: String,
    value: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields are deserialized and never read")]
struct Limit {
    counter: String,
    window: String,
    max: f64,
    scope: String,
    on_exceed: Option<String>,
}

/// Loads a policy by hand: deserializes the document, and compiles its regular expression if it has
/// one.
pub(crate) fn load(text: &str, regex: Option<&str>) -> (Document, Option<Regex>) {
    (serde_json::from_str(text).unwrap(), regex.map(|regex| Regex::new(regex).unwrap()))
}
