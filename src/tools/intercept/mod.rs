//! Reads Intercept documents: the YAML policies of an earlier MCP gateway, in version 1.1.0 of
//! their format.
//!
//! [`translate`] converts such a document to this crate's own language, to review, store and edit;
//! [`read`] returns the [`Policy`] at once. Both take a [`serde_json::Value`], because this crate
//! reads no YAML. Choose a parser that refuses duplicate keys and bounds the expansion of aliases,
//! or translate a file with `toolgate translate`.
//!
//! ```
//! use serde_json::json;
//! use toolgate::{Gate, ToolCall, intercept};
//!
//! let document = json!({
//!     "version": "1",
//!     "tools": { "create_issue": { "rules": [
//!         { "name": "hourly", "rate_limit": "1/hour" },
//!         { "name": "our org", "on_deny": "Issues of acme only.",
//!           "conditions": [{ "path": "args.owner", "op": "eq", "value": "acme" }] },
//!     ] } }
//! });
//! let gate = Gate::new(intercept::read(&document)?);
//!
//! let (ours, theirs) = (json!({ "owner": "acme" }), json!({ "owner": "x" }));
//! let check = |arguments| gate.check(&ToolCall::new("create_issue", arguments));
//! assert_eq!(check(&theirs).message(), Some("Issues of acme only."));
//! assert!(check(&ours).is_allowed());
//! assert_eq!(check(&ours).message(), Some("Rate limit of 1 per hour reached. Try again later."));
//!
//! let translated = intercept::translate(&document)?;
//! let counter = &translated["tools"]["create_issue"]["limits"][0]["counter"];
//! assert_eq!(counter, "create_issue._rate_hour");
//! # Ok::<(), toolgate::PolicyError>(())
//! ```
//!
//! # Translation
//!
//! | Intercept | toolgate |
//! |---|---|
//! | `tools.<name>`, `tools.*` | an entry of `tools`, `all_tools` |
//! | `conditions` on `args.` | a rule of `require` with the same `name` and `on_deny` |
//! | `conditions` on `state.`, with or without `state` | a limit; its counter is `<tool>.<counter>` or `_global.<counter>`, its scope `global` |
//! | a bound of 0 for calls that may add nothing | a `max` of 0.5, because 0 would refuse these calls too |
//! | `rate_limit: 5/hour` | a limit, its counter `<tool>._rate_hour` |
//! | `increment_from` | `amount_from`, and a rule of `deny_if` against values that are not whole numbers |
//! | `action: deny` | `action: deny`; if it is not the first rule of its tool, a rule of `require` that never holds |
//! | `default`, `hide`, `description` | the same; a missing `default` becomes explicit |
//!
//! Rules keep their order, and a refusal has the message of Intercept: `on_deny`, or its default.
//! But a bound on a counter becomes a limit, and limits come after all rules: if both stop a call,
//! the message is that of the rule. The rule of a decision is a pointer into the translation, where
//! the original `name` (for a limit, the counter) is found.
//!
//! # Deliberate differences
//!
//! The policy allows and denies the same calls as Intercept, with the exceptions below. In each of
//! them, Intercept allows or ignores something that is denied or refused here, never the reverse.
//!
//! 1. *Coercion.* A value that is equal or unequal only after conversion to another type (`100000`
//!    and `"100000"`, `true` and `"true"`) is undecidable, so the condition does not hold.
//! 2. *Null.* An argument that is `null` is absent: only `exists: false` holds. Intercept
//!    distinguishes it from a text, so there `neq` and `not_in` hold too. A comparison with `null`
//!    is an error.
//! 3. *Paths through a text or a list.* `args.a.b` is undecidable if `a` is not a map. In
//!    Intercept, `exists: false` holds.
//! 4. *Large numbers.* An operand of 2^53 or more is an error. In Intercept, it equals its
//!    neighbours.
//! 5. *Lists and maps as operands* of `eq`, `neq`, `in`, `not_in` and `contains` are an error:
//!    Intercept compares their printed forms. A text that looks like a date is an error too:
//!    Intercept reads an instant unless it is quoted.
//! 6. *Amounts.* An amount that is negative, has a fraction or exceeds 9,000,000,000,000 is denied.
//!    In Intercept, a negative amount restores quota and a fraction is dropped. An `increment`
//!    below 0 is an error.
//! 7. *Ignored members* are an error: unknown keys, `state` without a bound on its counter
//!    (Intercept does not count it), `increment` beside `increment_from`, an `action` other than
//!    `allow` and `evaluate` beside `rate_limit`, `*` inside a name (Intercept has no patterns and
//!    matches the star itself), an empty `default`.
//! 8. *Counters that a limit cannot express* are an error: operators on `state.` other than `lt`
//!    and `lte`, a second bound on a counter with `increment_from`, a bound below 0, a rule of `*`
//!    on the counter of one tool, counters of a tool called `_global`.
//! 9. *Releases.* A release credits the window that was charged, not a later one.
//! 10. *Clocks.* A clock that steps back does not reopen an exhausted window.
//! 11. *Unreadable calls*, and arguments that are not an object, are denied. Intercept forwards
//!     them without a decision.
//! 12. *A tool called `*`* is an ordinary tool: under `default: deny`, the rules for all tools do
//!     not list it.
//! 13. *Bounds.* The [`Bounds`](crate::Bounds) of this language apply, such as 1,000 values in a
//!     list and a limit of 9,000,000,000,000.
//!
//! Messages about hidden and unlisted tools and about a failed counter store are this crate's own.
//! A filtered `tools/list` keeps all members beside `tools`, which Intercept drops if it hides a
//! tool.

mod condition;
mod path;
mod regex;
mod rule;
mod tools;
mod walk;

use serde_json::{Map, Value, json};

use crate::policy::{IssueCode, Policy, PolicyError, quote};
use tools::{ALL, Counters};
use walk::Walk;

/// Reads an Intercept document as a policy that allows and denies the same calls, except for the
/// [deliberate differences](self#deliberate-differences).
///
/// Runs in linear time. A [`Value`] has lost its duplicate keys: have the YAML parser refuse them.
///
/// # Errors
/// The document has errors, or parts that cannot be translated, such as an unknown key, an unknown
/// window, or `gte` on a counter. All issues are reported, each with its pointer into the given
/// document, but without lines and columns.
pub fn read(document: &Value) -> Result<Policy, PolicyError> {
    convert(document).map(|(_, policy)| policy)
}

/// Translates an Intercept document to this crate's own language. [`read`] returns the same policy.
///
/// # Errors
/// The same as those of [`read`].
pub fn translate(document: &Value) -> Result<Value, PolicyError> {
    convert(document).map(|(translated, _)| translated)
}

fn convert(document: &Value) -> Result<(Value, Policy), PolicyError> {
    let mut walk = Walk::default();
    let translated = self::document(&mut walk, document);
    // Parts that could not be read are left out of the translation. Other issues are still
    // reported.
    match translated.as_ref().map(Policy::try_from) {
        Some(Err(error)) => walk.take_over(&error),
        Some(Ok(policy)) if !walk.found_issues() => {
            if let Some(translated) = translated {
                return Ok((translated, policy));
            }
        }
        _ => {}
    }
    Err(walk.into_error())
}

const KEYS: [&str; 5] = ["version", "description", "default", "hide", "tools"];

fn document(walk: &mut Walk, document: &Value) -> Option<Value> {
    let members = walk.object(document, "a document", &KEYS)?;
    version(walk, members);
    let mut translated = Map::new();
    translated.insert("version".to_owned(), json!("1"));
    let description = walk.field(members, "description", |walk, value| walk.string(value, "`description`"));
    if let Some(description) = description {
        translated.insert("description".to_owned(), json!(description));
    }
    translated.insert("default".to_owned(), json!(default(walk, members)));
    let hide = walk.field(members, "hide", hide).unwrap_or_default();
    if !hide.is_empty() {
        walk.at_key("hide", |walk| walk.made("/hide"));
        translated.insert("hide".to_owned(), Value::Array(hide));
    }
    let entries = walk.field(members, "tools", |walk, value| {
        let Value::Object(tools) = value else {
            walk.wrong_type(value, "`tools` is a map");
            return None;
        };
        walk.made("/tools");
        let mut counters = Counters::default();
        let read = |walk: &mut Walk, counters: &mut Counters| -> Vec<_> {
            tools
                .iter()
                .filter_map(|(name, value)| walk.at_key(name, |walk| tools::read(walk, name, value, counters)))
                .collect()
        };
        let tools = read(walk, &mut counters);
        let mut entries = Map::new();
        for tool in &tools {
            let rules = tool.translate(walk, &counters);
            if tool.name == ALL {
                translated.insert("all_tools".to_owned(), rules);
            } else {
                entries.insert(tool.name.to_owned(), rules);
            }
        }
        // Names that are already refused, which would be refused twice.
        entries.retain(|name, _| !name.is_empty() && !name.contains('*'));
        Some(entries)
    });
    translated.insert("tools".to_owned(), Value::Object(entries.unwrap_or_default()));
    Some(Value::Object(translated))
}

fn version(walk: &mut Walk, members: &Map<String, Value>) {
    match members.get("version") {
        // Unquoted, YAML reads a number.
        Some(Value::String(version)) if version == "1" => {}
        Some(Value::Number(version)) if version.as_u64() == Some(1) => {}
        None | Some(Value::Null) => walk.missing("a document needs the key `version`", "write `version: \"1\"`"),
        Some(version) => walk.at_key("version", |walk| {
            let message = format!("{} is not a version of Intercept's language", quote(&shown(version)));
            walk.issue(IssueCode::UnknownValue, message, "write `version: \"1\"`".to_owned());
        }),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => walk::kind(other).to_owned(),
    }
}

/// Reads the effect for tools without a key. The default is `allow`.
fn default(walk: &mut Walk, members: &Map<String, Value>) -> &'static str {
    let Some(value) = members.get("default") else { return "allow" };
    walk.at_key("default", |walk| {
        match walk.string(value, "`default`") {
            Some("allow") => return "allow",
            Some("deny") | None => {}
            Some(word) => walk.unknown_word(word, "an outcome", &["allow", "deny"]),
        }
        "deny"
    })
}

fn hide(walk: &mut Walk, value: &Value) -> Option<Vec<Value>> {
    let names = walk.list(value, "`hide`")?;
    let mut hidden = std::collections::HashSet::new();
    Some(walk.each(names, |walk, value| {
        let name = walk.string(value, "the name of a tool")?;
        if name.trim().is_empty() || (name.contains('*') && name != ALL) {
            let message = format!("{} is not a valid tool name: Intercept has no pattern except `*`", quote(name));
            walk.issue(IssueCode::InvalidPattern, message, "name each tool".to_owned());
            return None;
        }
        let place = format!("/hide/{}", hidden.len());
        if !hidden.insert(name) {
            let message = format!("{} is already hidden", quote(name));
            walk.issue(IssueCode::DuplicateKey, message, "remove it".to_owned());
            return None;
        }
        walk.made(&place);
        Some(value.clone())
    }))
}
