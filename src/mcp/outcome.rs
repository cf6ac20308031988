//! The outcome of a call, read from the answer of the upstream server.

use serde_json::Value;

use super::{Call, INVALID_PARAMS, RequestId, field};
use crate::decision::permit::AnyPermit;
use crate::decision::{AsyncPermit, Permit};
use crate::json::{Json, Member, Node, Parser, each_duplicate};
use crate::store::StoreError;

/// The outcome of a call according to the upstream server. It determines whether the permit can be
/// released.
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
#[expect(clippy::exhaustive_enums, reason = "it decides whether quota is released: no arm may be forgotten")]
pub enum CallOutcome {
    /// The tool ran and returned a result. Keep the quota spent, or settle it.
    Succeeded,
    /// The tool ran and failed (`isError: true`). It may have done its work in part: keep the quota
    /// spent.
    ToolFailed,
    /// The server reports that it did not run the tool. Release the permit.
    ///
    /// A server that lies about this escapes its limits. A host that does not trust the server
    /// keeps the quota spent.
    NotRun,
    /// The tool may have run: keep the quota spent. Holds the code of the JSON-RPC error, if there
    /// is one.
    Unclear(Option<i64>),
    /// The call has not ended: the server asks for input first, or runs it as a task. Keep the
    /// permit until the end is known, as a [`Session`](super::Session) does.
    Interim,
}

/// The errors for a message that reached no tool: parse error, invalid request, method not found,
/// a header that contradicts the message, a capability that the client lacks, and a version of the
/// protocol that the server does not have.
const NOT_RUN: [i64; 6] = [-32700, -32600, -32601, -32020, -32021, -32022];
/// The maximum nesting of an answer. Results are the tool's own data, and can be deeper than calls.
const NESTING: usize = 128;

impl Call {
    /// Reads the outcome of this call from the text of the upstream server's answer. Linear in the
    /// text.
    ///
    /// [`CallOutcome::NotRun`] needs an unambiguous answer: a JSON-RPC 2.0 object with this call's
    /// id as it was [forwarded](Call::to_json), an `error` and no `result`, no duplicate key in
    /// either, and one of the codes -32700 (parse error), -32600 (invalid request), -32601 (method
    /// not found), and -32020 to -32022 (a header, a capability or a version that does not fit).
    ///
    /// The code -32602 (invalid params) does not count: widely used servers also send it after a
    /// tool has run, when the *result* does not match the `outputSchema`. Neither do -32603
    /// (internal error) and codes that servers define themselves. All of these are
    /// [`CallOutcome::Unclear`] with their code, so a host that knows its server can release some
    /// of them.
    ///
    /// A result needs a list as `content`, and a boolean or no `isError`. A `resultType` of
    /// `input_required` or `task`, or a member `task`, is [`CallOutcome::Interim`]. Everything else
    /// that a server sends is unclear.
    pub fn ending(&self, answer: &str) -> CallOutcome {
        self.id().and_then(RequestId::of).map_or(CallOutcome::Unclear(None), |id| CallOutcome::of_answer(&id, answer))
    }
}

impl CallOutcome {
    /// The outcome of a call that returned a tool result, given its `isError`: for hosts that have
    /// typed messages. A result that is not complete, such as a task or a request for input, is
    /// [`CallOutcome::Interim`] instead.
    pub fn of_result(is_error: Option<bool>) -> Self {
        if is_error == Some(true) { Self::ToolFailed } else { Self::Succeeded }
    }

    /// The outcome of a call that was answered by a JSON-RPC error with this code, as
    /// [`Call::ending`] describes: for hosts that have typed messages.
    ///
    /// ```
    /// use toolgate::mcp::CallOutcome;
    ///
    /// assert_eq!(CallOutcome::of_error_code(-32601), CallOutcome::NotRun);
    /// assert_eq!(CallOutcome::of_error_code(-32603), CallOutcome::Unclear(Some(-32603)));
    /// ```
    pub fn of_error_code(code: i64) -> Self {
        if NOT_RUN.contains(&code) { Self::NotRun } else { Self::Unclear(Some(code)) }
    }

    /// The outcome if the answer came with a status of HTTP from 400 to 499: then a server that
    /// reports invalid parameters has not run the tool.
    pub(super) fn with_client_error(self) -> Self {
        if self == Self::Unclear(Some(INVALID_PARAMS.into())) { Self::NotRun } else { self }
    }

    /// Reads the outcome of the call with this id.
    pub(super) fn of_answer(id: &RequestId, answer: &str) -> Self {
        outline(answer).and_then(|root| Self::read(id, &root)).unwrap_or(Self::Unclear(None))
    }

    /// Reads the outcome from the [outline](outline()) of the answer. `None` if it is unclear.
    pub(super) fn read(id: &RequestId, root: &Node<'_>) -> Option<Self> {
        let members = object(root)?;
        let answers = field(members, "jsonrpc").and_then(Node::as_str) == Some("2.0")
            && field(members, "method").is_none()
            && field(members, "id").and_then(Node::to_value).as_ref().and_then(RequestId::of).as_ref() == Some(id);
        if !answers {
            return None;
        }
        match (field(members, "result"), field(members, "error")) {
            (Some(result), None) => {
                let result = object(result)?;
                match field(result, "resultType").map(Node::as_str) {
                    Some(Some("input_required" | "task")) => return Some(Self::Interim),
                    None | Some(Some("complete")) => {}
                    Some(_) => return None,
                }
                if field(result, "task").is_some() && field(result, "content").is_none() {
                    return Some(Self::Interim);
                }
                let Json::Array(_) = field(result, "content")?.json else { return None };
                match field(result, "isError").map(|flag| &flag.json) {
                    None | Some(Json::Bool(false)) => Some(CallOutcome::Succeeded),
                    Some(Json::Bool(true)) => Some(CallOutcome::ToolFailed),
                    Some(_) => None,
                }
            }
            (None, Some(error)) => {
                let code = field(object(error)?, "code")?.to_value().as_ref().and_then(Value::as_i64)?;
                Some(Self::of_error_code(code))
            }
            _ => None,
        }
    }
}

/// Reads an answer down to the members of its result or error.
pub(super) fn outline(answer: &str) -> Option<Node<'_>> {
    let mut parser = Parser::new(answer, NESTING);
    let root = parser.outline(2).ok()?;
    parser.finish().ok()?;
    Some(root)
}

impl Permit {
    /// Releases the permit if the call was certainly not made, else ends it. If the call goes on,
    /// its units in flight stay held until their lease ends.
    ///
    /// # Errors
    /// The store failed: the quota stays spent, and in-flight units are freed when their lease
    /// ends.
    pub fn conclude(self, outcome: CallOutcome) -> Result<(), StoreError> {
        match outcome {
            CallOutcome::NotRun => self.try_release(),
            CallOutcome::Interim => {
                AnyPermit::leave(self);
                Ok(())
            }
            CallOutcome::Succeeded | CallOutcome::ToolFailed | CallOutcome::Unclear(_) => {
                self.end();
                Ok(())
            }
        }
    }
}

impl AsyncPermit {
    /// Releases the permit if the call was certainly not made, else ends it. If the call goes on,
    /// its units in flight stay held until their lease ends.
    ///
    /// # Errors
    /// The store failed: the quota stays spent, and in-flight units are freed when their lease
    /// ends.
    pub async fn conclude(self, outcome: CallOutcome) -> Result<(), StoreError> {
        match outcome {
            CallOutcome::NotRun => self.release().await,
            CallOutcome::Interim => {
                self.leave();
                Ok(())
            }
            CallOutcome::Succeeded | CallOutcome::ToolFailed | CallOutcome::Unclear(_) => self.end().await,
        }
    }
}

/// The members of an object without duplicate keys.
fn object<'n, 't>(node: &'n Node<'t>) -> Option<&'n [Member<'t>]> {
    let Json::Object(members) = &node.json else { return None };
    let mut twice = false;
    each_duplicate(members, |_| twice = true);
    (!twice).then_some(members)
}
