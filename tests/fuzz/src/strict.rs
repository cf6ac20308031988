//! A strict reader of JSON, on top of `serde_json`'s grammar. It keeps all members of an object and
//! the text of each number.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A value as it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// All members of an object, duplicates included.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'t> Deserialize<'t> for Members<'t> {
    fn deserialize<D: Deserializer<'t>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'t> Visitor<'t> for All {
            type Value = Members<'t>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// Reads a text in which at most `depth` arrays and objects are nested.
pub fn read(text: &str, depth: usize) -> Option<Node> {
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    let text = raw.get();
    let inner = |raw: &RawValue| read(raw.get(), depth.checked_sub(1)?);
    match text.as_bytes().first()? {
        b'[' | b'{' if depth == 0 => None,
        b'[' => {
            let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            elements.into_iter().map(inner).collect::<Option<_>>().map(Node::List)
        }
        b'{' => {
            let Members(members) = serde_json::from_str(text).ok()?;
            let members = members.into_iter().map(|(key, value)| Some((key, inner(value)?)));
            members.collect::<Option<_>>().map(Node::Object)
        }
        b'"' => serde_json::from_str(text).ok().map(Node::Text),
        b'n' => Some(Node::Null),
        b't' | b'f' => Some(Node::Bool(text == "true")),
        _ => Some(Node::Number(text.to_owned())),
    }
}

impl Node {
    /// Returns true if this node and all nodes in it fulfil the condition.
    pub fn all(&self, so: &impl Fn(&Self) -> bool) -> bool {
        so(self)
            && match self {
                Self::List(elements) => elements.iter().all(|element| element.all(so)),
                Self::Object(members) => members.iter().all(|(_, value)| value.all(so)),
                _ => true,
            }
    }

    /// No key appears twice, and a 64-bit integer or a double holds each number as written.
    pub fn is_certain(&self) -> bool {
        self.all(&|node| match node {
            Self::Number(text) => is_exact(text),
            Self::Object(members) => {
                (1..members.len()).all(|at| members[..at].iter().all(|(key, _)| *key != members[at].0))
            }
            _ => true,
        })
    }

    /// The first member of that name.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// Returns true if a 64-bit integer, or a double by its shortest text, has exactly the value of a
/// number's text.
pub fn is_exact(text: &str) -> bool {
    if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
        return true;
    }
    let Some(float) = text.parse::<f64>().ok().filter(|float| float.is_finite()) else { return false };
    Decimal::of(text) == Decimal::of(ryu_js::Buffer::new().format_finite(float))
}

/// Returns true if a number is not an integer of 64 bits that a double would round, or write with
/// other digits.
pub fn is_double(text: &str) -> bool {
    let integer = text.parse::<i64>().map(i128::from).or_else(|_| text.parse::<u64>().map(i128::from));
    let Ok(integer) = integer else { return true };
    let float = integer as f64;
    float as i128 == integer && Decimal::of(text) == Decimal::of(ryu_js::Buffer::new().format_finite(float))
}

/// A decimal number, digit by digit: a sign, digits that neither begin nor end with a zero, and the
/// power of ten of the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    pub negative: bool,
    pub digits: String,
    pub power: i128,
}

impl Decimal {
    /// The value of a number's text. A power of more than 38 digits counts as the largest.
    pub fn of(text: &str) -> Self {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let far = if power.starts_with('-') { i128::MIN / 2 } else { i128::MAX / 2 };
        let power: i128 = power.parse().unwrap_or(far).clamp(i128::MIN / 2, i128::MAX / 2);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let kept = digits.trim_end_matches('0');
        if kept.is_empty() {
            return Self { negative: false, digits: String::new(), power: 0 };
        }
        let power = power - fraction.len() as i128 + (digits.len() - kept.len()) as i128;
        Self { negative, digits: kept.trim_start_matches('0').to_owned(), power }
    }
}
