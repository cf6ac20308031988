//! Reading messages, in one way or not at all.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use super::{Call, ENVELOPE, Integers, MalformedMessage, Message, NESTING, OtherMessage, PARAMS, Params, is_variant};
use crate::json::number::Exact;
use crate::json::value::{Fault, ValueReader};

/// The members of an object of the envelope.
struct Members<const N: usize> {
    /// Those that have a meaning in the protocol.
    known: [Known; N],
    others: Map<String, Value>,
    /// The first key that a reader who ignores case would take for a known one.
    variant: Option<usize>,
}

/// A member that has a meaning in the protocol.
struct Known {
    key: &'static str,
    /// The offset of the value.
    at: usize,
    value: Option<Value>,
}

impl<const N: usize> Members<N> {
    fn new(keys: [&'static str; N]) -> Self {
        let known = keys.map(|key| Known { key, at: 0, value: None });
        Self { known, others: Map::new(), variant: None }
    }

    /// Reads the value of the member whose key begins at `at`.
    fn read<R>(&mut self, reader: &mut ValueReader<'_, R>, at: usize, key: Cow<'_, str>) -> Result<(), Fault>
    where
        R: Fn(&str) -> Result<Number, &'static str>,
    {
        match self.known(&key) {
            Some(known) => {
                reader.parser.peek();
                known.at = reader.parser.offset();
                match known.value.replace(reader.value()?) {
                    None => Ok(()),
                    Some(_) => Err(Fault::twice(at)),
                }
            }
            None => {
                if self.variant.is_none() && is_variant(&key, &self.known.each_ref().map(|known| known.key)) {
                    self.variant = Some(at);
                }
                reader.member(&mut self.others, at, key.into_owned())
            }
        }
    }

    fn known(&mut self, key: &str) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.key == key)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.known.iter().find(|known| known.key == key)?.value.as_ref()
    }

    /// Returns a known member, without which the others are left.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.known(key)?.value.take()
    }

    /// Puts a value in the place of a known member.
    fn put(&mut self, key: &str, at: usize, value: Value) {
        if let Some(known) = self.known(key) {
            (known.at, known.value) = (at, Some(value));
        }
    }

    fn check(&self) -> Result<(), Fault> {
        match self.variant {
            None => Ok(()),
            Some(at) => Err(Fault::new(at, "a key that differs from one of the envelope's in case only")),
        }
    }

    /// The fault of a known member.
    fn fault(&self, key: &str, why: &str) -> Fault {
        let at = self.known.iter().find(|known| known.key == key).map_or(0, |known| known.at);
        Fault::new(at, why)
    }

    /// All members that were not taken.
    fn into_map(self) -> Map<String, Value> {
        let mut all = self.others;
        for Known { key, value, .. } in self.known {
            if let Some(value) = value {
                all.insert(key.to_owned(), value);
            }
        }
        all
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
    let (mut envelope, mut params) = (Members::new(ENVELOPE), Members::new(PARAMS));
    let mut id = None;
    reader.parser.enter_object().map_err(Fault::from)?;
    while let Some((at, key)) = reader.parser.next_key().map_err(Fault::from)? {
        let next = reader.parser.peek();
        let value_at = reader.parser.offset();
        if key == "params" && next == Some(b'{') && envelope.get("params").is_none() {
            reader.parser.enter_object().map_err(Fault::from)?;
            while let Some((at, key)) = reader.parser.next_key().map_err(Fault::from)? {
                params.read(&mut reader, at, key)?;
            }
            // Its members are in `params`.
            envelope.put("params", value_at, Value::Object(Map::new()));
            continue;
        }
        let is_id = key == "id";
        envelope.read(&mut reader, at, key)?;
        if is_id {
            id = text.get(value_at..reader.parser.offset());
        }
    }
    reader.parser.finish().map_err(Fault::from)?;
    envelope.check()?;
    if envelope.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(Fault::new(root_at, "`jsonrpc` must be \"2.0\"").into());
    }
    if let Some(Value::Array(_) | Value::Object(_) | Value::Bool(_)) = envelope.get("id") {
        return Err(envelope.fault("id", "`id` must be a string or a number").into());
    }
    let is_call = match envelope.get("method") {
        None => false,
        Some(Value::String(method)) => method == "tools/call",
        Some(_) => return Err(envelope.fault("method", "`method` must be a string").into()),
    };
    if !is_call {
        if let Some(Value::Object(_)) = envelope.get("params") {
            envelope.put("params", root_at, Value::Object(params.into_map()));
        }
        return Ok(Message::Other(OtherMessage(Value::Object(envelope.into_map()))));
    }
    match envelope.get("params") {
        None => return Err(Fault::new(root_at, "a call needs `params`").into()),
        Some(Value::Object(_)) => {}
        Some(_) => return Err(envelope.fault("params", "`params` must be an object").into()),
    }
    let params_at = envelope.known("params").map_or(root_at, |params| params.at);
    let params = call_params(params, params_at)?;
    Ok(Message::Call(Call::new(envelope.take("id"), id.map(Into::into), params, envelope.others)))
}

/// Checks the `params` of a call.
fn call_params(mut params: Members<{ PARAMS.len() }>, at: usize) -> Result<Params, Fault> {
    params.check()?;
    let Some(Value::String(name)) = params.take("name") else {
        return Err(Fault::new(at, "`name` must be a string"));
    };
    for key in ["arguments", "task", "inputResponses"] {
        if params.get(key).is_some_and(|member| !member.is_object()) {
            return Err(params.fault(key, &format!("`{key}` must be an object")));
        }
    }
    if params.get("requestState").is_some_and(|state| !state.is_string()) {
        return Err(params.fault("requestState", "`requestState` must be a string"));
    }
    let arguments = match params.take("arguments") {
        Some(Value::Object(arguments)) => Some(arguments),
        _ => None,
    };
    Ok(Params { name, arguments, others: params.into_map() })
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
