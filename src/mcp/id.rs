//! The id of a request.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// The id of a request under way: a text or an integer. It is written as JSON.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RequestId(Id);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
enum Id {
    Text(Box<str>),
    Negative(i64),
    Positive(u64),
}

impl RequestId {
    /// The id of a request; none for a value that can be none: a request's id is a text or an integer.
    pub fn of(id: &Value) -> Option<Self> {
        let integer = || match (id.as_u64(), id.as_i64()) {
            (Some(positive), _) => Some(Id::Positive(positive)),
            (None, negative) => negative.map(Id::Negative),
        };
        id.as_str().map(|text| Id::Text(text.into())).or_else(integer).map(Self)
    }

    /// The text, of an id that is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.0 {
            Id::Text(text) => Some(text),
            Id::Negative(_) | Id::Positive(_) => None,
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Id::Text(text) => write!(f, "{}", Value::from(&**text)),
            Id::Negative(integer) => integer.fmt(f),
            Id::Positive(integer) => integer.fmt(f),
        }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}
