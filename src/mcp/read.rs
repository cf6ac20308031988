//! Reading messages, in one way or not at all.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use super::{Call, ENVELOPE, Integers, MalformedMessage, Message, NESTING, OtherMessage, PARAMS, is_variant};
use crate::json::number::Exact;
use crate::json::value::{Fault, ValueReader};

/// The members of an object that have a meaning in the protocol.
struct Known {
    /// Each with the offset of its value.
    found: Vec<(&'static str, usize)>,
    /// The first key that a reader who ignores case would take for a known one.
    variant: Option<usize>,
}

impl Known {
    fn new() -> Self {
        Self { found: Vec::new(), variant: None }
    }

    fn note(&mut self, known: &[&'static str], key: &str, at: usize, value_at: usize) {
        match known.iter().find(|known| **known == key) {
            Some(known) => self.found.push((known, value_at)),
            None if self.variant.is_none() && is_variant(key, known) => self.variant = Some(at),
            None => {}
        }
    }

    fn at(&self, key: &str) -> Option<usize> {
        self.found.iter().find(|(known, _)| *known == key).map(|(_, at)| *at)
    }

    fn check(&self) -> Result<(), Fault> {
        match self.variant {
            None => Ok(()),
            Some(at) => Err(Fault::new(at, "a key that differs from one of the envelope's in case only")),
        }
    }
}

impl From<Fault> for MalformedMessage {
    fn from(Fault { at, why }: Fault) -> Self {
        Self { at, why }
    }
}

/// Reads a message.
pub(super) fn message(text: &str, integers: Integers) -> Result<Message, MalformedMessage> {
    let mut reader = ValueReader::new(text, NESTING, |number| exact_number(number, integers));
    let first = reader.parser.peek();
    let root_at = reader.parser.offset();
    if first != Some(b'{') {
        reader.parser.skip().and_then(|()| reader.parser.finish()).map_err(Fault::from)?;
        let is_batch = first == Some(b'[');
        let batch = "a batch is not supported: send each message by itself";
        return Err(Fault::new(root_at, if is_batch { batch } else { "a message must be an object" }).into());
    }
    let (mut envelope, mut params) = (Known::new(), Known::new());
    let mut message = Map::new();
    let mut id = None;
    reader.parser.enter_object().map_err(Fault::from)?;
    while let Some((at, key)) = reader.parser.next_key().map_err(Fault::from)? {
        let next = reader.parser.peek();
        let value_at = reader.parser.offset();
        envelope.note(&ENVELOPE, &key, at, value_at);
        if key == "params" && next == Some(b'{') && !message.contains_key("params") {
            message.insert("params".to_owned(), read_params(&mut reader, &mut params)?);
            continue;
        }
        let is_id = key == "id";
        reader.member(&mut message, at, key.into_owned())?;
        if is_id {
            id = text.get(value_at..reader.parser.offset());
        }
    }
    reader.parser.finish().map_err(Fault::from)?;
    envelope.check()?;
    let fault = |key: &str, why: &str| MalformedMessage::from(Fault::new(envelope.at(key).unwrap_or(root_at), why));
    if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(Fault::new(root_at, "`jsonrpc` must be \"2.0\"").into());
    }
    if let Some(Value::Array(_) | Value::Object(_) | Value::Bool(_)) = message.get("id") {
        return Err(fault("id", "`id` must be a string or a number"));
    }
    let is_call = match message.get("method") {
        None => false,
        Some(method) => method.as_str().ok_or_else(|| fault("method", "`method` must be a string"))? == "tools/call",
    };
    if !is_call {
        return Ok(Message::Other(OtherMessage(Value::Object(message))));
    }
    match message.get("params") {
        None => return Err(Fault::new(root_at, "a call needs `params`").into()),
        Some(Value::Object(members)) => {
            let at = envelope.at("params").unwrap_or(root_at);
            check_params(members, &params, at)?;
        }
        Some(_) => return Err(fault("params", "`params` must be an object")),
    }
    Ok(Message::Call(Call::new(Value::Object(message), id.map(Into::into))))
}

/// Reads `params`, and notes the known members.
fn read_params<N>(reader: &mut ValueReader<'_, N>, known: &mut Known) -> Result<Value, Fault>
where
    N: Fn(&str) -> Result<Number, &'static str>,
{
    let mut members = Map::new();
    reader.parser.enter_object()?;
    while let Some((at, key)) = reader.parser.next_key()? {
        reader.parser.peek();
        known.note(&PARAMS, &key, at, reader.parser.offset());
        reader.member(&mut members, at, Cow::into_owned(key))?;
    }
    Ok(Value::Object(members))
}

/// Checks the `params` of a call.
fn check_params(members: &Map<String, Value>, known: &Known, at: usize) -> Result<(), Fault> {
    known.check()?;
    let fault = |key: &str, why: &str| Err(Fault::new(known.at(key).unwrap_or(at), why));
    if !members.get("name").is_some_and(Value::is_string) {
        return Err(Fault::new(at, "`name` must be a string"));
    }
    for key in ["arguments", "task", "inputResponses"] {
        if members.get(key).is_some_and(|member| !member.is_object()) {
            return fault(key, &format!("`{key}` must be an object"));
        }
    }
    match members.get("requestState") {
        None | Some(Value::String(_)) => Ok(()),
        Some(_) => fault("requestState", "`requestState` must be a string"),
    }
}

fn exact_number(text: &str, integers: Integers) -> Result<Number, &'static str> {
    let number = Exact::of_text(text);
    if integers == Integers::OfDoubles && number.is_some_and(|number| !number.is_double()) {
        return Err("an integer beyond 2^53 - 1, which servers with doubles round: send it as a string, or let the \
                    gateway allow 64-bit integers");
    }
    let number = number.and_then(Exact::to_number);
    number.ok_or("a number that is exact neither as a 64-bit integer nor as a double")
}
