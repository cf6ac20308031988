//! Reads and writes policies in any serde format.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::json::number::Exact;
use crate::json::{Json, Node, Parser};
use crate::policy::Policy;

/// Reads a document from any serde source, and notices duplicate keys. The text of the error has
/// every issue.
impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The document is written as JSON text, which is then read: one reader checks every source.
        let mut text = String::new();
        Transcribe { to: &mut text, nesting: NESTING }.deserialize(deserializer)?;
        Self::from_json(&text).map_err(|error| de::Error::custom(error.without_places()))
    }
}

/// The deepest nesting that is transcribed: far above the bound of documents, and far below what
/// would exhaust the stack.
const NESTING: usize = 256;

/// With its feature `arbitrary_precision`, which any crate of a build can enable, `serde_json`
/// passes a number as a map of this key and the number's text.
const NUMBER_AS_TEXT: &str = "$serde_json::private::Number";

/// Writes the value of any source as JSON text.
struct Transcribe<'s> {
    to: &'s mut String,
    nesting: usize,
}

impl Transcribe<'_> {
    fn inner<E: de::Error>(&mut self) -> Result<Transcribe<'_>, E> {
        let nesting = self.nesting.checked_sub(1).ok_or_else(|| E::custom("the document is nested too deeply"))?;
        Ok(Transcribe { to: self.to, nesting })
    }

    fn write<E>(self, value: impl Into<Value>) -> Result<(), E> {
        self.to.push_str(&value.into().to_string());
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Transcribe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Transcribe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a policy document")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.write(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        if !value.is_finite() {
            return Err(E::custom("a number in a policy must be finite"));
        }
        self.write(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.write(value)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.write(Value::Null)
    }

    fn visit_none<E>(self) -> Result<(), E> {
        self.write(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        let mut separator = '[';
        loop {
            let length = self.to.len();
            self.to.push(separator);
            if elements.next_element_seed(self.inner()?)?.is_none() {
                self.to.truncate(length);
                break;
            }
            separator = ',';
        }
        self.to.push_str(if separator == '[' { "[]" } else { "]" });
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let mut separator = '{';
        while let Some(key) = members.next_key::<String>()? {
            if key == NUMBER_AS_TEXT && separator == '{' {
                let text: String = members.next_value()?;
                return match Parser::document(&text, 0).map(|node| node.json) {
                    Ok(Json::Number(number)) => {
                        self.to.push_str(number);
                        Ok(())
                    }
                    _ => Err(de::Error::custom("not a number")),
                };
            }
            self.to.push(separator);
            self.to.push_str(&Value::String(key).to_string());
            self.to.push(':');
            members.next_value_seed(self.inner()?)?;
            separator = ',';
        }
        self.to.push_str(if separator == '{' { "{}" } else { "}" });
        Ok(())
    }
}

/// Writes the document, its members in their order.
///
/// # Errors
/// Fails for a number that a double does not hold exactly (`"max": 8999999999999.999999`), because
/// it would change. [`Policy::to_json`] writes it unchanged.
impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let node = Parser::document(self.to_json(), usize::MAX).map_err(|error| S::Error::custom(error.what))?;
        Written(&node).serialize(serializer)
    }
}

struct Written<'n>(&'n Node<'n>);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0.json {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(value) => serializer.serialize_bool(*value),
            Json::Number(text) => match Exact::of_text(text) {
                Some(Exact::Integer(integer)) => serializer.serialize_i64(integer),
                Some(Exact::Large(integer)) => serializer.serialize_u64(integer),
                Some(Exact::Float(float)) => serializer.serialize_f64(float),
                None => Err(S::Error::custom(format!("no `f64` holds {text} exactly: use `to_json`"))),
            },
            Json::String(text) => serializer.serialize_str(text),
            Json::Array(elements) => {
                let mut list = serializer.serialize_seq(Some(elements.len()))?;
                elements.iter().try_for_each(|element| list.serialize_element(&Written(element)))?;
                list.end()
            }
            Json::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|member| map.serialize_entry(&*member.key, &Written(&member.value)))?;
                map.end()
            }
        }
    }
}
