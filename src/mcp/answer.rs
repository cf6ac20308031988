//! Refusals, as the agent's client reads them.

use serde_json::{Map, Value, json};

use super::Call;
use crate::decision::limit_state::LimitState;
use crate::decision::{ApprovalRequest, Decision, Denial, RateLimited};
use crate::policy::{Code, Digest};

/// A refusal, to be written as MCP.
///
/// Made from a [`Denial`], a [`RateLimited`], an [`ApprovalRequest`], or [of](Refusal::of) any [`Decision`].
///
/// ```
/// use toolgate::mcp::{RefusalFormat, Message, Refusal};
/// use toolgate::{Gate, Policy};
///
/// let policy: Policy = r#"{
///     "version": "1", "default": "allow",
///     "tools": { "drop_*": { "action": "deny", "reason": "Ask an owner." } }
/// }"#.parse()?;
/// let gate = Gate::new(policy);
/// let text = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"drop_all"}}"#;
/// let Message::Call(call) = Message::read(text)? else { panic!("a call") };
/// let refusal = Refusal::of(&gate.check(&call.tool_call())).unwrap();
/// assert_eq!(refusal.text(), "[POLICY DENIED] Ask an owner.");
/// assert_eq!(refusal.facts()["code"], "action_deny");
/// let answer = call.answer(&refusal, RefusalFormat::of_version("2025-06-18")).unwrap();
/// assert!(answer.starts_with(r#"{"jsonrpc":"2.0","id":7,"result":{"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Refusal {
    kind: Kind,
    message: Box<str>,
    facts: Map<String, Value>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Denied,
    RateLimited,
    ApprovalRequired,
}

/// How a refusal is written. Hosts choose one and never match on it, so that another may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalFormat {
    /// A result of the tool with `isError: true`, and the refusal as text: what every version of the protocol has. Models see
    /// it and can do otherwise.
    Text,
    /// The same, with the facts under `structuredContent`: for protocol versions from 2025-06-18 on.
    ///
    /// The facts do not follow the `outputSchema` of a tool. A client that checks them against it even in an error needs
    /// [`RefusalFormat::Text`] for the tools that declare one; a [`Session`](super::Session) sees to that.
    Structured,
    /// An error of JSON-RPC, with the facts under `data`: for hosts whose clients should stop rather than tell the model.
    ///
    /// The codes are in the range that JSON-RPC leaves to servers: -32050 denied, -32051 rate limited, -32052 approval
    /// required.
    Error,
}

impl RefusalFormat {
    /// The form of a result in a version of the protocol, as `initialize` agreed on it: [`RefusalFormat::Structured`] from 2025-06-18
    /// on. A version that is no date is taken for an old one: the text says what matters.
    pub fn of_version(version: &str) -> Self {
        // Dates of one length compare as texts.
        let is_date = version.len() == 10
            && version.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        if is_date && version >= "2025-06-18" { Self::Structured } else { Self::Text }
    }
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Denied => "POLICY DENIED",
            Self::RateLimited => "RATE LIMITED",
            Self::ApprovalRequired => "APPROVAL REQUIRED",
        }
    }

    fn decision(self) -> &'static str {
        match self {
            Self::Denied => "deny",
            Self::RateLimited => "rate_limited",
            Self::ApprovalRequired => "approval_required",
        }
    }

    fn error_code(self) -> i32 {
        match self {
            Self::Denied => -32050,
            Self::RateLimited => -32051,
            Self::ApprovalRequired => -32052,
        }
    }
}

impl Refusal {
    /// The refusal of a decision; none for a call that is allowed.
    pub fn of<P>(decision: &Decision<P>) -> Option<Self> {
        match decision {
            Decision::Allow(_) => None,
            Decision::Deny(denial) => Some(denial.into()),
            Decision::RateLimit(limited) => Some(limited.into()),
            Decision::RequireApproval(request) => Some(request.into()),
        }
    }

    fn new(kind: Kind, code: Code, rule: Option<&str>, message: &str, policy: Option<Digest>) -> Self {
        let mut facts = Map::new();
        facts.insert("decision".to_owned(), kind.decision().into());
        facts.insert("code".to_owned(), code.as_str().into());
        if let Some(rule) = rule {
            facts.insert("rule".to_owned(), rule.into());
        }
        facts.insert("message".to_owned(), message.into());
        if let Some(policy) = policy {
            facts.insert("policy".to_owned(), policy.to_string().into());
        }
        Self { kind, message: message.into(), facts }
    }

    fn with(mut self, key: &str, fact: Value) -> Self {
        self.facts.insert(key.to_owned(), fact);
        self
    }

    /// `[POLICY DENIED]`, `[RATE LIMITED]` or `[APPROVAL REQUIRED]`, and the message.
    pub fn text(&self) -> String {
        format!("[{}] {}", self.kind.label(), self.message)
    }

    /// What the decision carries: `decision`, `code`, `rule`, `message`, the `policy`'s digest, and for a rate limit
    /// `retry_after` in seconds (`null` where the call can never pass), with how the `limits` stand. What there is none of is
    /// left out.
    pub fn facts(&self) -> &Map<String, Value> {
        &self.facts
    }

    /// The `result` of the call; for [`RefusalFormat::Error`] as [`RefusalFormat::Structured`] has it.
    pub fn to_result(&self, form: RefusalFormat) -> Value {
        let mut result = json!({ "content": [{ "type": "text", "text": self.text() }], "isError": true });
        if let (RefusalFormat::Structured | RefusalFormat::Error, Some(members)) = (form, result.as_object_mut()) {
            members.insert("structuredContent".to_owned(), self.facts.clone().into());
        }
        result
    }

    /// The `error` of the call, as [`RefusalFormat::Error`] has it.
    pub fn to_error(&self) -> Value {
        json!({ "code": self.kind.error_code(), "message": self.text(), "data": self.facts })
    }

    /// The whole answer to a request that could not be read, so that its id is not known: it is `null`. To one that was read,
    /// answer with [`Call::answer`].
    pub fn to_answer_without_id(&self, form: RefusalFormat) -> String {
        self.answer("null", form, false)
    }

    fn answer(&self, id: &str, form: RefusalFormat, says_its_type: bool) -> String {
        match form {
            RefusalFormat::Error => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, self.to_error()),
            RefusalFormat::Text | RefusalFormat::Structured => {
                let mut result = self.to_result(form);
                if let (true, Some(members)) = (says_its_type, result.as_object_mut()) {
                    members.insert("resultType".to_owned(), "complete".into());
                }
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
            }
        }
    }
}

impl Call {
    /// The answer to this call that refuses it, with the call's id exactly as it was written; none for a notification, which
    /// nothing answers. To a call that [names the protocol's version](Self::protocol_version) a result says its `resultType`,
    /// without which clients of these versions take it for none.
    pub fn answer(&self, refusal: &Refusal, form: RefusalFormat) -> Option<String> {
        self.id_text().map(|id| refusal.answer(id, form, self.protocol_version().is_some()))
    }
}

impl From<&Denial> for Refusal {
    fn from(denial: &Denial) -> Self {
        Self::new(Kind::Denied, denial.code(), denial.rule(), denial.message(), denial.policy())
    }
}

impl From<&RateLimited> for Refusal {
    fn from(limited: &RateLimited) -> Self {
        let seconds = limited.retry_after().map(|wait| match wait.subsec_millis() {
            0 => Value::from(wait.as_secs()),
            _ => Value::from(wait.as_secs_f64()),
        });
        Self::new(Kind::RateLimited, limited.code(), limited.rule(), limited.message(), limited.policy())
            .with("retry_after", seconds.unwrap_or_default())
            .with("limits", states(limited.limits()))
    }
}

impl From<&ApprovalRequest> for Refusal {
    fn from(request: &ApprovalRequest) -> Self {
        Self::new(Kind::ApprovalRequired, request.code(), request.rule(), request.message(), request.policy())
            .with("limits", states(request.limits()))
    }
}

fn states(limits: &[LimitState]) -> Value {
    // A state is texts and numbers, which JSON always has.
    limits.iter().map(|state| serde_json::to_value(state).unwrap_or_default()).collect()
}
