//! Values of messages: read strictly, in bounded memory, and written.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

use super::canonical::{write_elements, write_text};
use super::node::Json;
use super::parse::{Parser, SyntaxError};

/// Bytes that are always allowed, so that usual messages are never refused.
const FREE: usize = 64 << 20;
/// The bytes that a value may take for each byte of its text, beyond those.
const BYTES_PER_BYTE: usize = 16;
/// The bytes that an element of a list takes while the list is copied to one of twice its size.
const ELEMENT: usize = 3 * size_of::<Value>();
/// The bytes that a list takes for its first element.
const LIST: usize = 4 * size_of::<Value>() + 16;
/// The bytes that a member takes in a tree that is half full.
///
/// With `preserve_order` of `serde_json`, which another crate of the build may switch on, it is an
/// entry of a table that is copied as it grows.
const MEMBER: usize = {
    let entry = size_of::<String>() + size_of::<Value>();
    if size_of::<Value>() > 32 { 3 * (entry + size_of::<u64>()) + 16 } else { 2 * entry }
};
/// The bytes that an object takes for its first member: a node of the tree, for 11 members.
const OBJECT: usize = 11 * (size_of::<String>() + size_of::<Value>()) + 16;

/// The fault of a text that is not read, and its place.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) why: String,
}

impl From<SyntaxError> for Fault {
    fn from(error: SyntaxError) -> Self {
        Self { at: error.at, why: error.what.to_string() }
    }
}

impl Fault {
    pub(crate) fn new(at: usize, why: &str) -> Self {
        Self { at, why: why.to_owned() }
    }

    /// The fault of the second of two equal keys.
    pub(crate) fn twice(at: usize) -> Self {
        Self::new(at, "a key appears twice in one object")
    }
}

/// Reads values, and refuses what two readers could read differently: duplicate keys, and numbers
/// that `number` does not take. Without bounds, a text of tiny objects takes more than 100 times
/// its length.
pub(crate) struct ValueReader<'t, N> {
    pub(crate) parser: Parser<'t>,
    left: usize,
    number: N,
}

impl<'t, N: Fn(&str) -> Result<Number, &'static str>> ValueReader<'t, N> {
    pub(crate) fn new(text: &'t str, nesting: usize, number: N) -> Self {
        let left = text.len().saturating_mul(BYTES_PER_BYTE).max(FREE);
        Self { parser: Parser::new(text, nesting), left, number }
    }

    /// Reads the next value.
    pub(crate) fn value(&mut self) -> Result<Value, Fault> {
        match self.parser.peek() {
            Some(b'{') => {
                self.parser.enter_object()?;
                let mut object = Map::new();
                while let Some((at, key)) = self.parser.next_key()? {
                    self.member(&mut object, at, key.into_owned())?;
                }
                Ok(Value::Object(object))
            }
            Some(b'[') => {
                let mut elements = Vec::new();
                let mut there = self.parser.enter_array()?;
                while there {
                    self.take(if elements.is_empty() { LIST } else { ELEMENT })?;
                    elements.push(self.value()?);
                    there = self.parser.next_element()?;
                }
                Ok(Value::Array(elements))
            }
            Some(b'"') => Ok(Value::String(self.parser.string()?.into_owned())),
            _ => self.scalar(),
        }
    }

    /// Reads the value of a member, and adds it to its object.
    pub(crate) fn member(&mut self, object: &mut Map<String, Value>, at: usize, key: String) -> Result<(), Fault> {
        self.take(if object.is_empty() { OBJECT } else { MEMBER })?;
        let value = self.value()?;
        match object.insert(key, value) {
            None => Ok(()),
            Some(_) => Err(Fault::twice(at)),
        }
    }

    fn scalar(&mut self) -> Result<Value, Fault> {
        let node = self.parser.node()?;
        Ok(match node.json {
            Json::Bool(flag) => Value::Bool(flag),
            Json::Number(text) => Value::Number((self.number)(text).map_err(|why| Fault::new(node.at, why))?),
            // Read above, except null.
            Json::Null | Json::String(_) | Json::Array(_) | Json::Object(_) => Value::Null,
        })
    }

    fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                let why = "too many values for its length: it would take more than 16 times its length in memory";
                Err(Fault::new(self.parser.offset(), why))
            }
        }
    }
}

/// Writes a value as `serde_json` does, in less time.
pub(crate) fn write(to: &mut String, value: &Value) {
    match value {
        Value::Null => to.push_str("null"),
        Value::Bool(true) => to.push_str("true"),
        Value::Bool(false) => to.push_str("false"),
        // Writing to a string does not fail.
        Value::Number(number) => drop(write!(to, "{number}")),
        Value::String(text) => write_text(to, text),
        Value::Array(elements) => write_elements(to, elements, write),
        Value::Object(members) => {
            to.push('{');
            write_members(to, members);
            to.push('}');
        }
    }
}

/// Writes members of an object, after those that are written already.
pub(crate) fn write_members(to: &mut String, members: &Map<String, Value>) {
    for (key, value) in members {
        if !to.ends_with('{') {
            to.push(',');
        }
        write_text(to, key);
        to.push(':');
        write(to, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_serde_json_writes_them() {
        let controls: String = (0..0x80u8).map(char::from).collect();
        let value = json!({
            "": [null, true, false, [], {}, [[]], [{}]], "a\"{": { "b\\": "}" },
            "more than eight bytes": "ä😀\u{7f}",
            "controls": controls, "n": [0, -1, u64::MAX, i64::MIN, 100.0, 1e300, -0.0, 5e-324, 0.1],
        });
        let mut text = String::new();
        write(&mut text, &value);
        assert_eq!(text, serde_json::to_string(&value).unwrap());
    }
}
