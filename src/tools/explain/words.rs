//! Comparisons and values in words.

use std::fmt;

use serde_json::Value;

use crate::json::visible::is_unseen;
use crate::policy::operator::{Aspect, Operator};

/// Writes a comparison in words, such as `args.amount at most 500`.
pub(crate) fn write_comparison(
    f: &mut impl fmt::Write,
    path: &str,
    op: &str,
    not: bool,
    value: Option<&Value>,
    value_from: Option<&str>,
) -> fmt::Result {
    let meaning = Operator::named(op).map(|operator| &operator.meaning);
    let (holds, fails) = meaning.map_or((op, "not"), |meaning| meaning.words);
    if let (Some(Aspect::Presence), Some(Value::Bool(present))) = (meaning.map(|meaning| meaning.aspect), value) {
        return write!(f, "{path} {}", if *present != not { holds } else { fails });
    }
    write!(f, "{path} {}", if not { fails } else { holds })?;
    match (value, value_from) {
        (Some(value), _) => write!(f, " {}", display_value(value)),
        (None, Some(path)) => write!(f, " {path}"),
        (None, None) => Ok(()),
    }
}

/// Formats a value for one line of a terminal: truncates a long value, and replaces control
/// characters.
pub(crate) fn display_value(value: &Value) -> String {
    const MAX_CHARACTERS: usize = 200;
    let text = value.to_string();
    let mut short: String = text.chars().take(MAX_CHARACTERS).map(printable_char).collect();
    if short.len() < text.len() && text.chars().nth(MAX_CHARACTERS).is_some() {
        short.push_str("...");
    }
    short
}

/// Replaces the characters that could control a terminal, or that nobody sees, with U+FFFD.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(printable_char).collect()
}

fn printable_char(c: char) -> char {
    if is_unseen(c) { char::REPLACEMENT_CHARACTER } else { c }
}
