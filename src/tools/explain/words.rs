//! Comparisons and values in words.

use std::fmt;

use serde_json::Value;

use crate::policy::operator::{Aspect, Operator};

/// Says in words what a part of a call is to be.
pub(crate) fn say(
    f: &mut impl fmt::Write,
    path: &str,
    op: &str,
    not: bool,
    value: Option<&Value>,
    value_from: Option<&str>,
) -> fmt::Result {
    let meaning = Operator::named(op).map(|operator| &operator.meaning);
    let (yes, no) = meaning.map_or((op, "not"), |meaning| meaning.words);
    if let (Some(Aspect::Presence), Some(Value::Bool(there))) = (meaning.map(|meaning| meaning.aspect), value) {
        return write!(f, "{path} {}", if *there != not { yes } else { no });
    }
    write!(f, "{path} {}", if not { no } else { yes })?;
    match (value, value_from) {
        (Some(value), _) => write!(f, " {}", shown(value)),
        (None, Some(path)) => write!(f, " {path}"),
        (None, None) => Ok(()),
    }
}

/// A value for one line of a terminal: cut where it is long, without control characters.
pub(crate) fn shown(value: &Value) -> String {
    const LONGEST: usize = 200;
    let text = value.to_string();
    let mut short: String = text.chars().take(LONGEST).map(plain).collect();
    if short.len() < text.len() && text.chars().nth(LONGEST).is_some() {
        short.push_str("...");
    }
    short
}

/// The character, or a mark in place of one that would steer a terminal.
pub(crate) fn plain(c: char) -> char {
    let steers = c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if steers { char::REPLACEMENT_CHARACTER } else { c }
}
