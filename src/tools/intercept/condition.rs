//! Translates the conditions of Intercept.

use serde_json::{Number, Value, json};

use super::path::Path;
use super::regex;
use super::walk::{Place, Walk, kind};
use crate::policy::{IssueCode, quote};

pub(super) enum Condition {
    /// On an argument: the condition in this crate's language. In `require`, it holds if the
    /// original does.
    Argument { translated: Value, place: Place, value_place: Place },
    /// On a counter.
    Bound(Bound),
}

/// An upper bound on the value of a counter before the call.
pub(super) struct Bound {
    pub(super) scope: String,
    pub(super) counter: String,
    pub(super) is_strict: bool,
    pub(super) value: f64,
    pub(super) place: Place,
    pub(super) value_place: Place,
}

const OPERATORS: [&str; 11] = ["eq", "neq", "in", "not_in", "lt", "lte", "gt", "gte", "regex", "contains", "exists"];

pub(super) fn read(walk: &mut Walk, value: &Value) -> Option<Condition> {
    let place = walk.place();
    let members = walk.object(value, "a condition", &["path", "op", "value"])?;
    let (path, op) = (members.get("path"), members.get("op"));
    for (key, found) in [("path", path), ("op", op)] {
        if found.is_none_or(Value::is_null) {
            walk.missing(
                format!("a condition needs the key `{key}`"),
                "write the path, the operator and the operand: `path`, `op`, `value`",
            );
        }
    }
    let path = walk.field(members, "path", |walk, value| {
        let text = walk.string(value, "`path`")?;
        let path = Path::parse(text);
        if path.is_none() {
            let help = "begin it with `args.`, or name a counter: `state.<tool>.<counter>`, `state._global.<counter>`";
            walk.issue(IssueCode::InvalidPath, format!("{} is not a valid path", quote(text)), help.to_owned());
        }
        path
    });
    let op = walk.field(members, "op", |walk, value| {
        let text = walk.string(value, "`op`")?;
        let known = OPERATORS.into_iter().find(|known| *known == text);
        if known.is_none() {
            walk.unknown_word(text, "an operator of Intercept", &OPERATORS);
        }
        known
    });
    let Some(value) = members.get("value") else {
        walk.missing("a condition needs the key `value`", "write the operand that the path is compared with");
        return None;
    };
    let op = op?;
    walk.at_key("value", |walk| match path? {
        Path::Arguments(path) => {
            let value = operand(walk, op, value)?;
            let translated = json!({ "path": path, "op": op, "value": value });
            Some(Condition::Argument { translated, place, value_place: walk.place() })
        }
        Path::Counter(scope, counter) => {
            if op != "lt" && op != "lte" {
                let message = format!("a limit is an upper bound; `{op}` on a counter has no equivalent");
                let help = "use `lt` or `lte`, or have the host pass the fact in `context`";
                walk.issue_at(&place, IssueCode::InvalidValue, message, help);
                return None;
            }
            let Value::Number(number) = value else {
                return unfit(walk, op, "a number", value);
            };
            let value = double(walk, number)?;
            let (scope, counter) = (scope.to_owned(), counter.to_owned());
            let value_place = walk.place();
            Some(Condition::Bound(Bound { scope, counter, is_strict: op == "lt", value, place, value_place }))
        }
    })
}

/// Reads the operand, if both languages compare with it in the same way.
fn operand(walk: &mut Walk, op: &str, value: &Value) -> Option<Value> {
    match (op, value) {
        ("in" | "not_in", Value::Array(elements)) => {
            Some(Value::Array(walk.each(elements, |walk, element| scalar(walk, op, element))))
        }
        ("in" | "not_in", _) => unfit(walk, op, "a list of values", value),
        ("lt" | "lte" | "gt" | "gte", Value::Number(number)) => double(walk, number).map(|_| value.clone()),
        ("lt" | "lte" | "gt" | "gte", _) => unfit(walk, op, "a number", value),
        ("exists", Value::Bool(_)) => Some(value.clone()),
        ("exists", _) => unfit(walk, op, "`true` or `false`", value),
        ("regex", Value::String(source)) => match regex::translate(source) {
            Ok(regex) => Some(Value::String(regex)),
            Err(why) => {
                let message = format!("the regular expression cannot be translated: {why}");
                walk.issue(IssueCode::InvalidRegex, message, None);
                None
            }
        },
        ("regex", _) => unfit(walk, op, "a regular expression in a text", value),
        _ => scalar(walk, op, value),
    }
}

/// Reads one operand of `eq`, `neq`, `in`, `not_in` or `contains`.
fn scalar(walk: &mut Walk, op: &str, value: &Value) -> Option<Value> {
    let (code, message, help) = match value {
        Value::Bool(_) => return Some(value.clone()),
        Value::Number(number) => return double(walk, number).map(|_| value.clone()),
        Value::String(text) if !is_date(text) => return Some(value.clone()),
        Value::String(text) => (
            IssueCode::InvalidValue,
            format!("Intercept reads {} as an instant unless it is quoted, and it never equals a text", quote(text)),
            "compare with `regex`, which reads it as a text",
        ),
        Value::Null => (
            IssueCode::NullValue,
            format!("`{op}` with null distinguishes null from absence, which are the same here"),
            "use `exists` to test for a value",
        ),
        Value::Array(_) | Value::Object(_) => (
            IssueCode::InvalidValue,
            format!(
                "in Intercept, `{op}` compares the printed form of {}, which can be the same for different values",
                kind(value)
            ),
            "compare its parts",
        ),
    };
    walk.issue(code, message, help.to_owned());
    None
}

/// Returns the number as a double. Intercept has no other numbers: from 2^53 on, neighbouring
/// integers are equal.
fn double(walk: &mut Walk, number: &Number) -> Option<f64> {
    const FIRST_UNCLEAR: f64 = 9_007_199_254_740_992.0;
    let double = number.as_f64().filter(|double| double.abs() < FIRST_UNCLEAR);
    if double.is_none() {
        let message = format!("{} is too large for Intercept to compare exactly", quote(&number.to_string()));
        walk.issue(IssueCode::InexactNumber, message, "stay below 2^53, 9007199254740992".to_owned());
    }
    double
}

fn unfit<T>(walk: &mut Walk, op: &str, want: &str, value: &Value) -> Option<T> {
    let message = format!("`{op}` compares with {want}, not {}", kind(value));
    walk.issue(IssueCode::InvalidValue, message, None);
    None
}

/// Returns `true` if a YAML reader may read an instant: `2026-01-15`, alone or followed by a time.
fn is_date(text: &str) -> bool {
    let (date, rest) = match text.find(['T', 't', ' ']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let mut parts = date.split('-');
    let mut digits = |least: usize, most: usize| {
        parts
            .next()
            .is_some_and(|part| (least..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let is_date = digits(4, 4) && digits(1, 2) && digits(1, 2) && parts.next().is_none();
    is_date && (rest.is_empty() || rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_distinguished_from_other_texts() {
        for text in ["2026-01-15", "2026-1-5", "2026-01-15T10:30:00Z", "2026-01-15 10:30:00"] {
            assert!(is_date(text), "{text}");
        }
        for text in ["2026-01", "26-01-15", "2026-01-15-x", "usd", "", "2026-01-1x", "2026-01-15 morning", "é-1-1"] {
            assert!(!is_date(text), "{text}");
        }
    }
}
