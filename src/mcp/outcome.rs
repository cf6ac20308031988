//! What became of a call, by the upstream server's answer.

use serde_json::Value;

use super::{Call, RequestId, field};
use crate::json::{Json, Member, Node, Parser, each_duplicate};

/// What an upstream server says became of a call: whether its permit may be released.
///
/// ```
/// use toolgate::mcp::{CallOutcome, Message};
///
/// let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}"#;
/// let Message::Call(call) = Message::read(text)? else { panic!("a call") };
/// let ended = |answer| call.ending(answer);
/// assert_eq!(ended(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#), CallOutcome::Succeeded);
/// assert_eq!(ended(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}"#), CallOutcome::ToolFailed);
/// assert_eq!(ended(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"?"}}"#), CallOutcome::NotRun);
/// assert_eq!(ended("502 Bad Gateway"), CallOutcome::Unclear(None));
/// # Ok::<(), toolgate::mcp::MalformedMessage>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "whether quota is given back hangs on it: no arm may be forgotten")]
pub enum CallOutcome {
    /// The tool ran and gave a result. Keep the quota spent, or settle it.
    Succeeded,
    /// The tool ran and failed (`isError: true`). It may have done its work, or a part of it: keep the quota spent.
    ToolFailed,
    /// The server says that it did not run the tool. Release the permit.
    ///
    /// It is the server's word: one that lies about it is not held to its limits. A host that does not trust it so far keeps the
    /// quota spent.
    NotRun,
    /// The tool may have run: keep the quota spent. With the code of the error of JSON-RPC, if there is one.
    Unclear(Option<i64>),
}

/// Refused before any tool was looked for: the text is not JSON, it is no request, there is no such method.
const NOT_RUN: [i64; 3] = [-32700, -32600, -32601];
/// Results are data of the tool's own, and may be deeper than calls.
const NESTING: usize = 128;

impl Call {
    /// What became of this call, by the text of the upstream server's answer. Linear in the text.
    ///
    /// Only an answer that says so in one way only is [`CallOutcome::NotRun`]: an object of JSON-RPC 2.0 with this call's id as it was
    /// [forwarded](Call::to_json), an `error` and no `result`, no key twice in either, and one of the codes -32700 (no JSON),
    /// -32600 (no request) and -32601 (no such method).
    ///
    /// Not the code -32602, invalid params: servers in wide use answer with it after a tool has run, when its *result* does not
    /// follow its `outputSchema`. Nor -32603, an internal error, nor what servers define themselves. They are
    /// [`CallOutcome::Unclear`] with their code, so that a host that knows its server can release some of them.
    ///
    /// A result has a list as `content`, and `isError` is a boolean or absent; whatever else a server sends, such as a task that
    /// still runs, is unclear.
    pub fn ending(&self, answer: &str) -> CallOutcome {
        self.id().and_then(RequestId::of).map_or(CallOutcome::Unclear(None), |id| CallOutcome::of_answer(&id, answer))
    }
}

impl CallOutcome {
    /// What became of the call with this id.
    pub(super) fn of_answer(id: &RequestId, answer: &str) -> Self {
        Self::read(id, answer).unwrap_or(Self::Unclear(None))
    }

    fn read(id: &RequestId, answer: &str) -> Option<Self> {
        let root = Parser::document(answer, NESTING).ok()?;
        let members = object(&root)?;
        let answers = field(members, "jsonrpc").and_then(Node::as_str) == Some("2.0")
            && field(members, "method").is_none()
            && field(members, "id").and_then(Node::to_value).as_ref().and_then(RequestId::of).as_ref() == Some(id);
        if !answers {
            return None;
        }
        match (field(members, "result"), field(members, "error")) {
            (Some(result), None) => {
                let result = object(result)?;
                let Json::Array(_) = field(result, "content")?.json else { return None };
                match field(result, "isError").map(|flag| &flag.json) {
                    None | Some(Json::Bool(false)) => Some(CallOutcome::Succeeded),
                    Some(Json::Bool(true)) => Some(CallOutcome::ToolFailed),
                    Some(_) => None,
                }
            }
            (None, Some(error)) => {
                let code = field(object(error)?, "code")?.to_value().as_ref().and_then(Value::as_i64)?;
                Some(if NOT_RUN.contains(&code) { CallOutcome::NotRun } else { CallOutcome::Unclear(Some(code)) })
            }
            _ => None,
        }
    }
}

/// The members of an object in which no key stands twice.
fn object<'n, 't>(node: &'n Node<'t>) -> Option<&'n [Member<'t>]> {
    let Json::Object(members) = &node.json else { return None };
    let mut twice = false;
    each_duplicate(members, |_| twice = true);
    (!twice).then_some(members)
}
