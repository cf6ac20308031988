//! Conditions as their author wrote them, beside the form in which they decide.

use std::fmt;

use serde_json::Value;

use crate::json::{Json, Node};
use crate::policy::document::{GROUPS, Operator};

/// A comparison of the document.
#[derive(Default)]
pub(crate) struct Comparison {
    pub(crate) op: &'static str,
    pub(crate) value: Option<Value>,
}

impl Comparison {
    /// What stands there, below any number of `not`.
    pub(crate) fn of(node: Option<&Node<'_>>) -> Self {
        let Some(node) = node.map(|node| unwrapped(node).0) else { return Self::default() };
        let op = member(node, "op").and_then(Node::as_str).and_then(Operator::named);
        Self { op: op.map_or("", |operator| operator.name), value: member(node, "value").and_then(Node::to_value) }
    }
}

/// The value of a member of an object.
pub(crate) fn member<'n, 't>(node: &'n Node<'t>, key: &str) -> Option<&'n Node<'t>> {
    match &node.json {
        Json::Object(members) => members.iter().find(|member| member.key == key).map(|member| &member.value),
        _ => None,
    }
}

/// The elements of a list.
pub(crate) fn elements<'n, 't>(node: &'n Node<'t>) -> Option<&'n [Node<'t>]> {
    match &node.json {
        Json::Array(elements) => Some(elements),
        _ => None,
    }
}

/// What stands below the `not`s of a condition, and how many there are.
pub(crate) fn unwrapped<'n, 't>(mut node: &'n Node<'t>) -> (&'n Node<'t>, usize) {
    let mut nots = 0;
    while let Some(inner) = member(node, "not") {
        node = inner;
        nots += 1;
    }
    (node, nots)
}

/// The key of a group, and its members.
pub(crate) fn group<'n, 't>(node: &'n Node<'t>) -> Option<(&'static str, &'n [Node<'t>])> {
    let [any, all, _] = GROUPS;
    [any, all].into_iter().find_map(|key| Some((key, elements(member(node, key)?)?)))
}

/// The conditions of a group.
pub(crate) fn children<'n, 't>(node: Option<&'n Node<'t>>) -> Option<&'n [Node<'t>]> {
    group(unwrapped(node?).0).map(|(_, children)| children)
}

/// Says in words what a part of a call is to be.
pub(crate) fn say(
    f: &mut impl fmt::Write,
    path: &str,
    op: &str,
    not: bool,
    value: Option<&Value>,
    value_from: Option<&str>,
) -> fmt::Result {
    let (yes, no) = match (op, value) {
        ("exists", Some(Value::Bool(there))) => {
            return write!(f, "{path} {}", if *there != not { "given" } else { "left out" });
        }
        ("eq", _) => ("equal to", "other than"),
        ("neq", _) => ("other than", "equal to"),
        ("lt", _) => ("below", "at least"),
        ("lte", _) => ("at most", "above"),
        ("gt", _) => ("above", "at most"),
        ("gte", _) => ("at least", "below"),
        ("in", _) => ("one of", "none of"),
        ("not_in", _) => ("none of", "one of"),
        ("regex", _) => ("matching", "not matching"),
        ("not_regex", _) => ("not matching", "matching"),
        ("contains", _) => ("containing", "not containing"),
        ("not_contains", _) => ("not containing", "containing"),
        ("starts_with", _) => ("beginning with", "not beginning with"),
        ("ends_with", _) => ("ending with", "not ending with"),
        ("min_length", _) => ("with a length of at least", "with a length below"),
        ("max_length", _) => ("with a length of at most", "with a length above"),
        ("type", _) => ("of the type", "not of the type"),
        ("path_within", _) => ("a path within", "a plain path outside of"),
        ("host_in", _) => ("a URL on", "a plain URL not on"),
        (other, _) => (other, "not"),
    };
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
