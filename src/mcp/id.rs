//! The id of a request.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// The id of a request: a string or an integer. `Display` writes it as JSON.
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
    /// The id that this value is; `None` if it is neither a string nor an integer.
    pub fn of(id: &Value) -> Option<Self> {
        let integer = || match (id.as_u64(), id.as_i64()) {
            (Some(positive), _) => Some(Id::Positive(positive)),
            (None, negative) => negative.map(Id::Negative),
        };
        id.as_str().map(|text| Id::Text(text.into())).or_else(integer).map(Self)
    }

    /// The id, if it is a string.
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
