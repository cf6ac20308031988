//! The texts of a session: envelopes, lists of tools, and errors.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Value, json};

use super::super::outcome::outline;
use super::super::{NESTING, RequestId, field, is_variant, no_variants, read_in_one_way};
use super::{INVALID_REQUEST, PARSE_ERROR};
use crate::json::object::Object;
use crate::json::{Json, Member, Node, Parser, SyntaxError};

/// The maximum nesting of a list of tools. It can have schemas, which are deeper than calls.
const LIST_NESTING: usize = 128;

/// The envelope of a server's message, without its content. A duplicate key is an error.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    pub(super) id: Option<Value>,
    pub(super) method: Option<Cow<'a, str>>,
    pub(super) result: bool,
    pub(super) error: bool,
    /// `true` if a client that ignores case would take another key for one of these, and so could
    /// read another message.
    pub(super) has_variant: bool,
    /// The [outline](outline()) of the message; `None` if it is nested too deeply for one, or has a
    /// surrogate without its pair.
    pub(super) outline: Option<Node<'a>>,
}

impl<'a> Envelope<'a> {
    /// Reads the envelope of a message.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let strict = outline(text).and_then(Self::of_outline);
        strict.or_else(|| serde_json::from_str::<Object<Self>>(text).ok().map(|Object(envelope)| envelope))
    }

    fn of_outline(root: Node<'a>) -> Option<Self> {
        let Json::Object(members) = &root.json else { return None };
        let mut envelope = Self::default();
        for Member { key, value, .. } in members {
            let is_twice = match (&**key, &value.json) {
                ("id", Json::Number(text)) => envelope.id.replace(serde_json::from_str(text).ok()?).is_some(),
                ("id", _) => envelope.id.replace(value.to_value()?).is_some(),
                ("method", Json::String(text)) => envelope.method.replace(text.clone()).is_some(),
                ("method", _) => return None,
                ("result", _) => std::mem::replace(&mut envelope.result, true),
                ("error", _) => std::mem::replace(&mut envelope.error, true),
                (other, _) => {
                    envelope.has_variant |= is_variant(other, &["id", "method", "result", "error"]);
                    false
                }
            };
            if is_twice {
                return None;
            }
        }
        envelope.outline = Some(root);
        Some(envelope)
    }
}

/// A text, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A key of a message.
enum Key {
    Id,
    Method,
    Result,
    Error,
    Variant,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "id" => Key::Id,
                    "method" => Key::Method,
                    "result" => Key::Result,
                    "error" => Key::Error,
                    other if is_variant(other, &["id", "method", "result", "error"]) => Key::Variant,
                    _ => Key::Other,
                })
            }
        }

        from.deserialize_identifier(Name)
    }
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Envelope<'de>, A::Error> {
                let mut envelope = Envelope::default();
                while let Some(key) = members.next_key()? {
                    let there = match key {
                        Key::Id => {
                            if envelope.id.replace(members.next_value()?).is_some() {
                                return Err(A::Error::duplicate_field("id"));
                            }
                            continue;
                        }
                        Key::Method => {
                            if envelope.method.replace(members.next_value::<Text<'_>>()?.0).is_some() {
                                return Err(A::Error::duplicate_field("method"));
                            }
                            continue;
                        }
                        Key::Result => Some(&mut envelope.result),
                        Key::Error => Some(&mut envelope.error),
                        Key::Variant => {
                            envelope.has_variant = true;
                            None
                        }
                        Key::Other => None,
                    };
                    if there.is_some_and(|there| std::mem::replace(there, true)) {
                        return Err(A::Error::custom("a key appears twice"));
                    }
                    members.next_value::<IgnoredAny>()?;
                }
                Ok(envelope)
            }
        }

        from.deserialize_map(Members)
    }
}

pub(super) fn error(id: &str, code: i32, message: &str, data: Option<Value>) -> String {
    let mut error = json!({ "code": code, "message": message });
    if let (Some(data), Some(members)) = (data, error.as_object_mut()) {
        members.insert("data".to_owned(), data);
    }
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// The JSON id and the error code for the answer to a refused message. The id is `None` if the
/// message is itself an answer.
pub(super) fn answerable(text: &str) -> (Option<String>, i32) {
    let unknown = || Some("null".to_owned());
    match top_level(text) {
        Err(_) => (unknown(), PARSE_ERROR),
        Ok(None) => (unknown(), INVALID_REQUEST),
        Ok(Some(TopLevel { is_answer: true, .. })) => (None, INVALID_REQUEST),
        Ok(Some(TopLevel { id, .. })) => (id.map_or_else(unknown, |id| Some(id.to_string())), INVALID_REQUEST),
    }
}

/// The parts of a refused message that its answer depends on.
struct TopLevel {
    /// `None` if it is not certain.
    id: Option<RequestId>,
    is_answer: bool,
}

/// Reads these parts, and keeps nothing of the rest. `None` if the text is not an object.
fn top_level(text: &str) -> Result<Option<TopLevel>, SyntaxError> {
    let mut parser = Parser::new(text, NESTING);
    if parser.peek() != Some(b'{') {
        parser.skip()?;
        parser.finish()?;
        return Ok(None);
    }
    let (mut id, mut ids, mut has_method, mut has_answer) = (None, 0, false, false);
    parser.enter_object()?;
    while let Some((_, key)) = parser.next_key()? {
        match &*key {
            "method" => has_method = true,
            "result" | "error" => has_answer = true,
            _ => {}
        }
        ids += usize::from(key == "id" || is_variant(&key, &["id"]));
        match parser.peek() {
            Some(b'{' | b'[') => parser.skip()?,
            _ if key == "id" => id = parser.node()?.to_value().as_ref().and_then(RequestId::of),
            _ => parser.skip()?,
        }
    }
    parser.finish()?;
    Ok(Some(TopLevel { id: id.filter(|_| ids == 1), is_answer: has_answer && !has_method }))
}

/// Reads a message of the server. Returns `None` if two parsers could read it differently.
pub(super) fn read_answer(text: &str) -> Option<Value> {
    let root = Parser::document(text, LIST_NESTING).ok()?;
    read_in_one_way(&root).ok()?;
    root.to_value()
}

/// Reads an answer to `tools/list`. Returns `None` if two parsers could read it differently.
pub(super) fn read_list(text: &str) -> Option<Value> {
    let root = Parser::document(text, LIST_NESTING).ok()?;
    read_in_one_way(&root).ok()?;
    let Json::Object(members) = &root.json else { return None };
    no_variants(members, &["jsonrpc", "id", "result", "error"]).ok()?;
    if let Some(Json::Object(members)) = field(members, "result").map(|result| &result.json) {
        no_variants(members, &["tools"]).ok()?;
        if let Some(Json::Array(tools)) = field(members, "tools").map(|tools| &tools.json) {
            for tool in tools {
                let Json::Object(members) = &tool.json else { continue };
                no_variants(members, &["name"]).ok()?;
            }
        }
    }
    root.to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_the_same_with_and_without_an_outline() {
        let deep = format!(r#"{{"id":1,"result":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        for (text, has_outline) in [
            (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#, true),
            (r#"{"id":"\u0061","error":{"code":1}}"#, true),
            (r#"{"id":-0,"result":1}"#, true),
            (r#"{"id":1.0,"result":{},"Result":{}}"#, true),
            (r#"{"id":null,"error":{"a":1,"a":2}}"#, true),
            (r#" {"\u006dethod" : "m\n", "x": 1e999, "x": 2} "#, true),
            (r#"{"id":1,"result":"\ud800"}"#, false),
            (&deep, false),
            (r#"{"id":[1],"method":"m"}"#, true),
        ] {
            let read = Envelope::read(text).unwrap();
            let Object(lenient) = serde_json::from_str::<Object<Envelope<'_>>>(text).unwrap();
            let parts = |envelope: &Envelope<'_>| {
                let id = envelope.id.as_ref().and_then(RequestId::of);
                (
                    id,
                    envelope.method.as_deref().map(str::to_owned),
                    envelope.result,
                    envelope.error,
                    envelope.has_variant,
                )
            };
            assert_eq!(parts(&read), parts(&lenient), "{text}");
            assert_eq!(read.outline.is_some(), has_outline, "{text}");
        }
        for text in ["[]", "1", "", r#"{"id":1,"id":1}"#, r#"{"method":1}"#, r#"{"result":1,"result":1}"#, "{}{}"] {
            assert!(Envelope::read(text).is_none(), "{text}");
        }
    }
}
