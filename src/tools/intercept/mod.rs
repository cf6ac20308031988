//! Reads the documents of Intercept, the YAML policies of an earlier gateway for MCP, in version 1.1.0 of their format.
//!
//! [`translate`] writes such a document in this crate's own language, to be looked at, kept and edited; [`read`] gives the
//! [`Policy`] at once. Both take the document as a [`serde_json::Value`], whatever it was written in: no reader of YAML comes with
//! this crate. Choose one that refuses duplicate keys and bounds what aliases unfold to; the example `decide` shows one.
//!
//! ```
//! use serde_json::json;
//! use toolgate::{Gate, ToolCall, intercept};
//!
//! let document = json!({
//!     "version": "1",
//!     "tools": { "create_issue": { "rules": [
//!         { "name": "hourly", "rate_limit": "1/hour" },
//!         { "name": "our org", "conditions": [{ "path": "args.owner", "op": "eq", "value": "acme" }],
//!           "on_deny": "Issues of acme only." },
//!     ] } }
//! });
//! let gate = Gate::new(intercept::read(&document)?);
//!
//! let (ours, theirs) = (json!({ "owner": "acme" }), json!({ "owner": "x" }));
//! assert_eq!(gate.check(&ToolCall::new("create_issue", &theirs)).message(), Some("Issues of acme only."));
//! assert!(gate.check(&ToolCall::new("create_issue", &ours)).is_allowed());
//! assert_eq!(
//!     gate.check(&ToolCall::new("create_issue", &ours)).message(),
//!     Some("Rate limit of 1 per hour reached. Try again later.")
//! );
//!
//! let translated = intercept::translate(&document)?;
//! assert_eq!(translated["tools"]["create_issue"]["limits"][0]["counter"], "create_issue._rate_hour");
//! # Ok::<(), toolgate::PolicyError>(())
//! ```
//!
//! # What becomes of what
//!
//! | there | here |
//! |---|---|
//! | `tools.<name>`, `tools.*` | an entry of `tools`, `all_tools` |
//! | `conditions` on `args.` | a rule of `require` with the `name` and `on_deny` of theirs |
//! | `conditions` on `state.`, with or without `state` | a limit; its counter is `<tool>.<counter>` or `_global.<counter>`, its scope `global` |
//! | a bound of 0 for calls that may add nothing | a `max` of 0.5: one of 0 would refuse these too |
//! | `rate_limit: 5/hour` | a limit, its counter `<tool>._rate_hour` |
//! | `increment_from` | `amount_from`, and a rule of `deny_if` for what is no whole number |
//! | `action: deny` | `action: deny`; where it is not the first rule of its tool, a rule of `require` that never holds |
//! | `default`, `hide`, `description` | the same; `default` is written down where it was left out |
//!
//! The rules stay in their order, and a refusal gives the message that it gave there: `on_deny`, or what Intercept says without one.
//! But a bound on a counter is a limit here, and limits come after all rules: where both stop a call, the rule's message is shown.
//! The rule that it names is a place of the translation, where the `name` of the first one stands (of a limit, its counter).
//!
//! # Deliberate differences
//!
//! The policy allows and denies what Intercept allows and denies, except for what follows. In each case Intercept lets pass, or
//! passes over, what is denied or refused here; never the other way round.
//!
//! 1. *Coercion.* A value that is equal, or unequal, only when taken for another type (`100000` with `"100000"`, `true` with
//!    `"true"`) is undecidable, and does not hold.
//! 2. *Null.* An argument that is `null` is absent, and holds for `exists: false` alone; Intercept tells it from a text and so lets
//!    `neq` and `not_in` hold. To compare with `null` is an error.
//! 3. *Paths through a text or a list.* `args.a.b` where `a` is no map is undecidable; there, `exists: false` holds.
//! 4. *Large numbers.* A number of 2^53 or more to compare with is an error: there, it equals its neighbours.
//! 5. *Lists and maps as values* of `eq`, `neq`, `in`, `not_in` and `contains` are an error: Intercept compares how they are printed.
//!    So is a text that looks like a date, which is no text there unless it stands in quotes.
//! 6. *Amounts.* One that is negative or has a fraction is denied, and so is one above 9,000,000,000,000; there, the first gives
//!    quota back and the second loses its fraction. An `increment` below 0 is an error.
//! 7. *What Intercept passes over* is an error: unknown keys, `state` without a bound on its counter (nothing is counted), `increment`
//!    beside `increment_from`, an `action` other than `allow` and `evaluate` beside `rate_limit`, a `*` inside a name (it knows no
//!    patterns, and matches the star itself), an empty `default`.
//! 8. *Counters that a limit cannot ask about* are an error: other operators on `state.` than `lt` and `lte`, a second bound on
//!    a counter with `increment_from`, a bound below 0, a rule of `*` on the counter of one tool, counters of a tool called `_global`.
//! 9. *Giving back.* A release credits the window that was charged and no later one.
//! 10. *A clock that steps back* does not open a window again that was spent.
//! 11. *Calls that cannot be read*, and arguments that are no object, are denied; there, they are forwarded unjudged.
//! 12. *A tool that is called `*`* is a tool like any other: under `default: deny` the rules for all tools do not list it.
//! 13. *Bounds* of this language hold: 1,000 values in a list, a limit of 9,000,000,000,000, and the other [`Bounds`](crate::Bounds).
//!
//! Messages differ where it is this crate that speaks: of hidden and unlisted tools, and of a counter store that fails. A filtered
//! `tools/list` keeps all that stands beside `tools`; there, hiding a tool drops it.

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

/// The policy that a document of Intercept comes to: it allows and denies the same calls, but for the [deliberate
/// differences](self#deliberate-differences).
///
/// Linear in the document. Duplicate keys are gone before they could be seen: let the reader of YAML refuse them.
///
/// # Errors
/// Everything that is wrong with the document or cannot be carried over, each with its pointer into the document as it was given:
/// an unknown key, a window that there is not, `gte` on a counter. There are no lines and columns.
pub fn read(document: &Value) -> Result<Policy, PolicyError> {
    convert(document).map(|(_, policy)| policy)
}

/// The document in this crate's own language: what [`read`] reads.
///
/// # Errors
/// As for [`read`].
pub fn translate(document: &Value) -> Result<Value, PolicyError> {
    convert(document).map(|(translated, _)| translated)
}

fn convert(document: &Value) -> Result<(Value, Policy), PolicyError> {
    let mut walk = Walk::default();
    let translated = self::document(&mut walk, document);
    // A part that could not be read is left out of the translation; what else is wrong is told all the same.
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
        // A name that was refused already would be refused twice.
        entries.retain(|name, _| !name.is_empty() && !name.contains('*'));
        Some(entries)
    });
    translated.insert("tools".to_owned(), Value::Object(entries.unwrap_or_default()));
    Some(Value::Object(translated))
}

fn version(walk: &mut Walk, members: &Map<String, Value>) {
    match members.get("version") {
        // Without quotes YAML reads a number.
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

/// What becomes of a tool that no key names. Left out, it is `allow`.
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
            let message = format!("{} is no name of a tool: Intercept knows no patterns but `*` alone", quote(name));
            walk.issue(IssueCode::InvalidPattern, message, "name each tool".to_owned());
            return None;
        }
        let place = format!("/hide/{}", hidden.len());
        if !hidden.insert(name) {
            let message = format!("{} is hidden already", quote(name));
            walk.issue(IssueCode::DuplicateKey, message, "remove it".to_owned());
            return None;
        }
        walk.made(&place);
        Some(value.clone())
    }))
}
