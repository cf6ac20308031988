//! The texts of a session: what a message is, before and after it is read whole, and errors.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use serde_json::{Value, json};

use super::super::{NESTING, RequestId, field, no_variants, read_in_one_way};
use super::{NO_JSON, NO_REQUEST};
use crate::json::{Json, Member, Node, Parser, each_duplicate};

/// A list of tools may hold schemas, which stand deeper than calls.
const LIST_NESTING: usize = 128;

/// What a server's message is, and nothing of what is in it. A key that stands twice is an error.
#[derive(Deserialize)]
pub(super) struct Envelope {
    #[serde(default, deserialize_with = "id")]
    pub(super) id: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pub(super) method: bool,
    #[serde(default, deserialize_with = "present")]
    pub(super) result: bool,
    #[serde(default, deserialize_with = "present")]
    pub(super) error: bool,
}

fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|IgnoredAny| true)
}

pub(super) fn error(id: &str, code: i32, message: &str, data: Option<Value>) -> String {
    let mut error = json!({ "code": code, "message": message });
    if let (Some(data), Some(members)) = (data, error.as_object_mut()) {
        members.insert("data".to_owned(), data);
    }
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// Whom an answer to a refused message goes to, the id as JSON, and its code: nobody, if it is an answer itself.
pub(super) fn answerable(text: &str) -> (Option<String>, i32) {
    let unknown = || Some("null".to_owned());
    let Ok(root) = Parser::document(text, NESTING) else { return (unknown(), NO_JSON) };
    let Json::Object(members) = &root.json else { return (unknown(), NO_REQUEST) };
    let mut twice = false;
    each_duplicate(members, |member| twice |= member.key == "id");
    let id = field(members, "id").and_then(Node::to_value);
    let certain = !twice && no_variants(members, &["id"]).is_ok();
    let is_answer = |members: &[Member<'_>]| {
        field(members, "method").is_none() && (field(members, "result").is_some() || field(members, "error").is_some())
    };
    let answer = match id.as_ref().and_then(RequestId::of).filter(|_| certain) {
        _ if is_answer(members) => None,
        Some(id) => Some(id.to_string()),
        None => unknown(),
    };
    (answer, NO_REQUEST)
}

/// An answer to `tools/list` that can be read in one way only.
pub(super) fn read_list(text: &str) -> Option<Value> {
    let root = Parser::document(text, LIST_NESTING).ok()?;
    read_in_one_way(&root).ok()?;
    let Json::Object(members) = &root.json else { return None };
    no_variants(members, &["jsonrpc", "id", "result", "error"]).ok()?;
    if let Some(Json::Object(members)) = field(members, "result").map(|result| &result.json) {
        no_variants(members, &["tools"]).ok()?;
    }
    root.to_value()
}
