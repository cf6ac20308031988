//! MCP at the edge: reads `tools/call`, filters `tools/list`, writes refusals, and reads outcomes.
//!
//! A gateway that forwards a whole connection uses a [`Session`]. For single messages, use:
//!
//! - [`Message::read`] to read a message;
//! - [`Call::tool_call`] or [`Call::by`] to make the call for the gate;
//! - [`Call::to_json`] to forward it, or [`Refusal::of`] and [`Call::answer`] to refuse it;
//! - [`Call::ending`] to read the outcome from the server's answer.

mod answer;
mod headers;
mod id;
mod outcome;
mod pins;
mod read;
mod rounds;
mod server_state;
mod session;
mod tools;

use serde_json::{Map, Value};

use crate::call::{Caller, ToolCall};
use crate::decision::{self, Denial};
use crate::json::canonical::write_text;
use crate::json::number::Exact;
use crate::json::value::{write, write_members};
use crate::json::{Json, Member, Node, each_duplicate};
use crate::policy::{Code, Policy};
use rounds::CallRound;

pub use answer::{Refusal, RefusalFormat};
pub use id::RequestId;
pub use outcome::CallOutcome;
pub use pins::{OnChange, Pin, PinError, PinSnapshot, ToolChange, ToolDigest, ToolPins};
pub use server_state::ServerState;
pub use session::{FailedRequest, FinishedCall, FromClient, FromServer, Routed, Session, too_long};

/// A JSON-RPC message that can be read in one way only.
///
/// Forward exactly what was judged: the text that [`Call::to_json`] or [`OtherMessage::to_json`]
/// writes, not the text that was received.
///
/// ```
/// use toolgate::mcp::Message;
///
/// let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"q":"x"}}}"#;
/// let Message::Call(call) = Message::read(text)? else { panic!("a call") };
/// assert_eq!(call.tool_call().grant("g-42").tool(), "search");
///
/// // Two parsers could read two different tools from this one.
/// let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete","name":"search"}}"#;
/// assert!(Message::read(text).is_err());
/// # Ok::<(), toolgate::mcp::MalformedMessage>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a host's safety depends on it: no arm may be forgotten")]
pub enum Message {
    /// A `tools/call`, to be decided.
    Call(Call),
    /// Any other request, a notification, or a response.
    Other(OtherMessage),
}

/// The integers that a message may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Integers {
    /// Those within ±(2^53 - 1), and larger ones that a double holds exactly as they are written.
    /// Servers with doubles, as in JavaScript, round all others.
    #[default]
    OfDoubles,
    /// All of 64 bits, signed or not: for servers that hold each of them exactly.
    Of64Bits,
}

/// A `tools/call` request.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The request's id; `None` for a notification.
    id: Option<Value>,
    /// The id as it was written.
    id_text: Option<Box<str>>,
    params: Params,
    /// The members of the message that are not known.
    others: Map<String, Value>,
    round: CallRound,
    /// If it needs an approval, the user may be sent to a page.
    wants_page: bool,
    /// The protocol's version that the client has named in a header.
    http_version: Option<Box<str>>,
}

/// The `params` of a call.
#[derive(Debug, Clone, PartialEq)]
struct Params {
    arguments: Option<Map<String, Value>>,
    name: String,
    others: Map<String, Value>,
}

/// A message that calls no tool.
#[derive(Debug, Clone, PartialEq)]
pub struct OtherMessage(Value);

/// A message that is not valid JSON-RPC, or that two parsers could read differently. It must not be
/// forwarded.
///
/// It converts into a decision: `Denial::from(error)` denies with `malformed_call`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message at byte {at}: {why}")]
pub struct MalformedMessage {
    at: usize,
    why: String,
}

impl MalformedMessage {
    /// The byte offset of the fault in the text.
    pub fn offset(&self) -> usize {
        self.at
    }
}

impl From<MalformedMessage> for Denial {
    fn from(error: MalformedMessage) -> Self {
        let message = format!("This call could not be read: {}.", error.why).into();
        decision::Refusal { code: Code::MalformedCall, rule: None, message, policy: None }.into()
    }
}

/// The error of JSON-RPC for invalid parameters.
const INVALID_PARAMS: i32 = -32602;
/// The first version of the protocol in which a call can take several rounds, and headers of HTTP
/// repeat parts of a message.
const FIRST_MODERN: &str = "2026-07-28";
/// The maximum nesting of arrays and objects.
const NESTING: usize = 64;
/// The keys that have a meaning in JSON-RPC and MCP.
const ENVELOPE: [&str; 4] = ["jsonrpc", "id", "method", "params"];
const PARAMS: [&str; 6] = ["name", "arguments", "_meta", "task", "inputResponses", "requestState"];

impl Message {
    /// Reads one message from the bytes of a body, as [`read`](Self::read) does.
    ///
    /// # Errors
    /// As for `read`; or the bytes are not UTF-8.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, MalformedMessage> {
        let text = str::from_utf8(bytes)
            .map_err(|error| MalformedMessage { at: error.valid_up_to(), why: "not UTF-8".to_owned() })?;
        Self::read(text)
    }

    /// Reads one message strictly. Linear in the text.
    ///
    /// # Errors
    /// Everything that two parsers could read differently: duplicate keys at any depth; a key of
    /// the envelope that differs from a known one in case only (`Method`); `arguments` that are not
    /// an object; a number that is not exact (`1e400`, `0.30000000000000000001`), also an integer
    /// that a double does not hold (`9007199254740993`); a batch, because each of its elements is a
    /// call of its own; nesting deeper than 64; text after the message. And a message that would
    /// take more than 64 MiB of memory, and more than 16 times its length, because it has many tiny
    /// values.
    pub fn read(text: &str) -> Result<Self, MalformedMessage> {
        Self::read_with(text, Integers::default())
    }

    /// Reads one message as [`read`](Self::read) does, with these integers.
    ///
    /// ```
    /// use toolgate::mcp::{Integers, Message};
    ///
    /// let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":
    ///     {"name":"get","arguments":{"id":9007199254740993}}}"#;
    /// assert!(Message::read(text).is_err());
    /// assert!(Message::read_with(text, Integers::Of64Bits).is_ok());
    /// ```
    ///
    /// # Errors
    /// As for `read`.
    pub fn read_with(text: &str, integers: Integers) -> Result<Self, MalformedMessage> {
        read::message(text, integers)
    }
}

impl Call {
    /// The call for the gate. The host adds the identities of the caller.
    ///
    /// A call with `requestState` or `inputResponses` is denied with `unknown_state`, unless a
    /// [`Session`] has found the call that it continues.
    pub fn tool_call(&self) -> ToolCall<'_> {
        self.beside_arguments(ToolCall::new(self.tool(), self.arguments()))
    }

    /// The call of this caller for the gate, as [`tool_call`](Self::tool_call) with its identities.
    pub fn by<'a>(&'a self, caller: &'a Caller) -> ToolCall<'a> {
        self.beside_arguments(caller.call(self.tool(), self.arguments()))
    }

    /// Adds what reaches the server beside the arguments.
    fn beside_arguments<'a>(&'a self, call: ToolCall<'a>) -> ToolCall<'a> {
        call.with_round(self.round.of_call()).task(self.is_task()).input(self.input_responses())
    }

    /// The name of the tool.
    pub fn tool(&self) -> &str {
        &self.params.name
    }

    /// The protocol's version, if the call names it itself in `_meta`. Clients do so from version
    /// 2026-07-28, which negotiates no version in `initialize`.
    pub fn protocol_version(&self) -> Option<&str> {
        version_in(self.meta()?)
    }

    /// The arguments; `None` if the message has none.
    pub fn arguments(&self) -> Option<&Map<String, Value>> {
        self.params.arguments.as_ref()
    }

    /// The request's id; `None` for a notification.
    pub fn id(&self) -> Option<&Value> {
        self.id.as_ref()
    }

    /// The message to forward.
    pub fn to_json(&self) -> String {
        let mut text = message_text();
        text.push('{');
        if let Some(id) = &self.id {
            text.push_str(r#""id":"#);
            write(&mut text, id);
            text.push(',');
        }
        text.push_str(r#""jsonrpc":"2.0","method":"tools/call","params":{"#);
        if let Some(arguments) = &self.params.arguments {
            text.push_str(r#""arguments":{"#);
            write_members(&mut text, arguments);
            text.push_str("},");
        }
        text.push_str(r#""name":"#);
        write_text(&mut text, &self.params.name);
        write_members(&mut text, &self.params.others);
        text.push('}');
        write_members(&mut text, &self.others);
        text.push('}');
        text
    }

    fn id_text(&self) -> Option<&str> {
        self.id_text.as_deref()
    }

    fn meta(&self) -> Option<&Value> {
        self.params.others.get("_meta")
    }
}

impl OtherMessage {
    /// The message to forward.
    pub fn to_json(&self) -> String {
        let mut text = message_text();
        write(&mut text, &self.0);
        text
    }

    /// The message.
    pub fn as_value(&self) -> &Value {
        &self.0
    }
}

/// Removes the tools that `policy` does not [list](Policy::lists) from a `tools/list` result, and
/// those without a name. Without a policy, it removes all tools. `tools` that are not a list become
/// an empty list. The rest of the result does not change.
///
/// ```
/// use serde_json::json;
/// use toolgate::{Policy, mcp};
///
/// let policy: Policy = r#"{ "version": "1", "default": "deny", "tools": { "get_*": {} } }"#.parse()?;
/// let mut result = json!({ "tools": [{ "name": "get_user" }, { "name": "drop_user" }], "nextCursor": "2" });
/// mcp::filter_tools_list(Some(&policy), &mut result);
/// assert_eq!(result, json!({ "tools": [{ "name": "get_user" }], "nextCursor": "2" }));
/// # Ok::<(), toolgate::PolicyError>(())
/// ```
pub fn filter_tools_list(policy: Option<&Policy>, result: &mut Value) {
    match result.get_mut("tools") {
        Some(Value::Array(tools)) => tools.retain(|tool| match (policy, tool.get("name")) {
            (Some(policy), Some(Value::String(name))) => policy.lists(name),
            _ => false,
        }),
        // A client might read tools from it, and the policy lists none of them.
        Some(other) => *other = Value::Array(Vec::new()),
        None => {}
    }
}

/// A text with room for a usual message.
fn message_text() -> String {
    String::with_capacity(512)
}

/// The protocol's version that `_meta` names.
fn version_in(meta: &Value) -> Option<&str> {
    meta.get("io.modelcontextprotocol/protocolVersion")?.as_str()
}

fn malformed(node: &Node<'_>, why: &str) -> MalformedMessage {
    MalformedMessage { at: node.at, why: why.to_owned() }
}

fn field<'n, 't>(members: &'n [Member<'t>], key: &str) -> Option<&'n Node<'t>> {
    members.iter().find(|member| member.key == key).map(|member| &member.value)
}

/// Checks that there are no duplicate keys and no inexact numbers, at any depth.
fn read_in_one_way(node: &Node<'_>) -> Result<(), MalformedMessage> {
    match &node.json {
        Json::Null | Json::Bool(_) | Json::String(_) => Ok(()),
        Json::Number(text) if Exact::of_text(text).is_some() => Ok(()),
        Json::Number(_) => Err(malformed(node, "a number that is exact neither as a 64-bit integer nor as a double")),
        Json::Array(elements) => elements.iter().try_for_each(read_in_one_way),
        Json::Object(members) => {
            let mut duplicate = None;
            each_duplicate(members, |member| duplicate = duplicate.or(Some(member.at)));
            match duplicate {
                Some(at) => Err(MalformedMessage { at, why: "a key appears twice in one object".to_owned() }),
                None => members.iter().try_for_each(|member| read_in_one_way(&member.value)),
            }
        }
    }
}

/// Returns `true` if a reader that ignores case would take this key for a known one.
fn is_variant(key: &str, known: &[&str]) -> bool {
    // Beyond ASCII, only these letters fold to an ASCII letter, or have one as their other case.
    let fold = |c: char| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        'ı' | 'İ' => 'i',
        c => c.to_ascii_lowercase(),
    };
    known.iter().any(|known| *known != key && key.chars().map(fold).eq(known.chars().map(fold)))
}

/// Checks that a reader that ignores case would not take another key for a known one.
fn no_variants(members: &[Member<'_>], known: &[&str]) -> Result<(), MalformedMessage> {
    match members.iter().find(|member| is_variant(&member.key, known)) {
        None => Ok(()),
        Some(member) => Err(MalformedMessage {
            at: member.at,
            why: "a key that differs from one of the envelope's in case only".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
    }

    #[test]
    fn calls_are_read_and_written() {
        let text = concat!(
            r#" {"params" : {"name":"delete\u005fx", "arguments":{"n":1E2, "ID":1, "id":2}},"#,
            r#""method":"tools\/call","id":"a","jsonrpc":"2.0"}"#,
            "\n"
        );
        let Ok(Message::Call(call)) = Message::read(text) else { panic!("a call") };
        assert_eq!(call.tool(), "delete_x");
        assert_eq!(call.id(), Some(&json!("a")));
        assert_eq!(call.arguments().map(Map::len), Some(3));
        let Ok(Message::Call(again)) = Message::read(&call.to_json()) else { panic!("a call") };
        assert_eq!(again, call);
    }

    #[test]
    fn arguments_may_be_left_out() {
        let Ok(Message::Call(call)) = Message::read(&call(r#"{"name":"t"}"#)) else { panic!("a call") };
        assert_eq!(call.arguments(), None);
    }

    #[test]
    fn other_messages_are_not_calls() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized","params":{"Name":1}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        ] {
            assert!(matches!(Message::read(text), Ok(Message::Other(_))), "{text}");
        }
    }

    #[test]
    fn ambiguous_messages_are_refused() {
        let deep = format!(r#"{{"name":"t","arguments":{{"a":{}{}}}}}"#, "[".repeat(62), "]".repeat(62));
        for text in [
            call(r#"{"name":"a","name":"b"}"#),
            call(r#"{"name":"a","arguments":{"x":{"y":1,"y":1}}}"#),
            call(r#"{"name":"a","NAME":"b"}"#),
            call(r#"{"name":"a","argumentſ":{}}"#),
            call(r#"{"name":"a","tas\u212a":{}}"#),
            call(r#"{"name":"a","arguments":[]}"#),
            call(r#"{"name":"a","arguments":null}"#),
            call(r#"{"name":"a","arguments":"{}"}"#),
            call(r#"{"name":"a","arguments":{"x":1e400}}"#),
            call(r#"{"name":"a","_meta":{"x":18446744073709551616}}"#),
            call(r#"{"name":5}"#),
            call(r#"{"arguments":{}}"#),
            call("[]"),
            call("null"),
            call(&deep),
            call(r#"{"name":"a"}"#) + "{}",
            format!("[{}]", call(r#"{"name":"a"}"#)),
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#.into(),
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#.into(),
            r#"{"jsonrpc":"2.0","id":1,"ıd":2,"method":"ping"}"#.into(),
            r#"{"jsonrpc":"2.0","id":1,"İD":2,"method":"ping"}"#.into(),
            r#"{"jsonrpc":"2.0","id":1,"method":["tools/call"]}"#.into(),
            r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#.into(),
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#.into(),
            r#"{"id":1,"method":"tools/call","params":{"name":"a"}}"#.into(),
            "nonsense".into(),
            String::new(),
        ] {
            assert!(Message::read(&text).is_err(), "{text}");
        }
        for (number, is_double) in [
            ("9007199254740991", true),
            ("-9007199254740991", true),
            ("9007199254740992", true),
            ("9007199254740994", true),
            ("10000000000000000", true),
            ("1e21", true),
            ("9007199254740993", false),
            ("-9007199254740993", false),
            ("12345678901234567000", false),
            ("9223372036854775807", false),
            ("9223372036854775808", false),
            ("18446744073709551615", false),
        ] {
            let text = call(&format!(r#"{{"name":"a","arguments":{{"x":[{number}]}}}}"#));
            assert_eq!(Message::read(&text).is_ok(), is_double, "{number}");
            assert!(Message::read_with(&text, Integers::Of64Bits).is_ok(), "{number}");
        }
        let text = call(r#"{"name":"a","name":"b"}"#);
        let error = Message::read(&text).unwrap_err();
        assert_eq!(Some(error.offset()), text.rfind("\"name\""), "{error}");
        let denial = Denial::from(error);
        assert_eq!((denial.code(), denial.rule()), (Code::MalformedCall, None));
    }

    #[test]
    fn only_listed_tools_stay() {
        let policy: Policy = r#"{"version":"1","default":"allow","hide":["x*"]}"#.parse().unwrap();
        let mut result = json!({"tools":[{"name":"a","k":[1]},{"name":"xa"},{"name":7},{}],"_meta":{"m":1}});
        filter_tools_list(Some(&policy), &mut result);
        assert_eq!(result, json!({"tools":[{"name":"a","k":[1]}],"_meta":{"m":1}}));
        filter_tools_list(None, &mut result);
        assert_eq!(result, json!({"tools":[],"_meta":{"m":1}}));
        let mut odd = json!({"tools":"none"});
        filter_tools_list(None, &mut odd);
        assert_eq!(odd, json!({"tools":[]}));
        let mut none = json!({"nextCursor":"2"});
        filter_tools_list(None, &mut none);
        assert_eq!(none, json!({"nextCursor":"2"}));
    }
}
