//! Parsed JSON: a tree with positions.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Value};

use super::number::Exact;

/// A value, and the offset where it begins.
#[derive(Debug)]
pub(crate) struct Node<'t> {
    pub(crate) at: usize,
    pub(crate) json: Json<'t>,
}

#[derive(Debug)]
pub(crate) enum Json<'t> {
    Null,
    Bool(bool),
    /// As written, by the grammar of JSON; no number type may be able to hold it.
    Number(&'t str),
    /// Borrowed if it was written without escapes: then it needs none when written again.
    String(Cow<'t, str>),
    Array(Vec<Node<'t>>),
    Object(Vec<Member<'t>>),
}

/// One member of an object.
#[derive(Debug)]
pub(crate) struct Member<'t> {
    /// The offset where the key begins.
    pub(crate) at: usize,
    pub(crate) key: Cow<'t, str>,
    pub(crate) value: Node<'t>,
}

impl<'t> Node<'t> {
    /// The name of the value's type, with its article.
    pub(crate) fn kind(&self) -> &'static str {
        match self.json {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "a list",
            Json::Object(_) => "an object",
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.json {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// Converts the tree to a `serde_json` value; `None` if a 64-bit integer or a double does not
    /// hold a number in it exactly. The last of duplicate keys wins: look for them first.
    pub(crate) fn to_value(&self) -> Option<Value> {
        Some(match &self.json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(text) => Value::Number(Exact::of_text(text)?.to_number()?),
            Json::String(text) => Value::String(text.clone().into_owned()),
            Json::Array(elements) => Value::Array(elements.iter().map(Node::to_value).collect::<Option<_>>()?),
            Json::Object(members) => {
                // Inserted one by one: collecting would first sort them in a list.
                let mut object = Map::new();
                for member in members {
                    object.insert(member.key.clone().into_owned(), member.value.to_value()?);
                }
                Value::Object(object)
            }
        })
    }
}

/// Calls `found` for each member with the key of an earlier member of the object.
pub(crate) fn each_duplicate<'n, 't>(members: &'n [Member<'t>], mut found: impl FnMut(&'n Member<'t>)) {
    const MAX_COMPARED_MEMBERS: usize = 16;
    if members.len() <= MAX_COMPARED_MEMBERS {
        for (index, member) in members.iter().enumerate() {
            if members.iter().take(index).any(|before| before.key == member.key) {
                found(member);
            }
        }
    } else {
        let mut keys = HashSet::with_capacity(members.len());
        for member in members {
            if !keys.insert(&*member.key) {
                found(member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Parser;

    #[test]
    fn a_key_written_with_an_escape_is_the_same_key() {
        let node = Parser::document(r#"{"t":1,"\u0074":2,"u":3}"#, 8).unwrap();
        let Json::Object(members) = &node.json else { panic!("an object") };
        let mut found = Vec::new();
        each_duplicate(members, |member| found.push(member.at));
        assert_eq!(found, [7]);
    }

    #[test]
    fn duplicates_are_found_among_many_keys() {
        let text = format!("{{{}\"k7\":0}}", (0..40).map(|i| format!("\"k{i}\":0,")).collect::<String>());
        let node = Parser::document(&text, 8).unwrap();
        let Json::Object(members) = &node.json else { panic!("an object") };
        let mut found = Vec::new();
        each_duplicate(members, |member| found.push(member.key.clone().into_owned()));
        assert_eq!(found, ["k7"]);
    }
}
