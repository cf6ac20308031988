//! Refusals in the form that MCP clients read.

use serde_json::{Map, Value, json};

use super::{Call, INVALID_PARAMS};
use crate::decision::limit_state::LimitState;
use crate::decision::{ApprovalRequest, Decision, Denial, RateLimited, Refused};
use crate::policy::{Code, Digest};

/// A refusal of a call, to be written as an MCP message.
///
/// It is made from a [`Refused`] ([`Decision::into_result`]), a [`Denial`], a [`RateLimited`] or an
/// [`ApprovalRequest`], or from any [`Decision`] by [`Refusal::of`].
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
    kind: RefusalKind,
    code: Code,
    message: Box<str>,
    /// For a rate limit: how long the call must wait.
    wait: Option<Wait>,
    facts: Map<String, Value>,
}

#[derive(Debug, Clone, Copy)]
enum RefusalKind {
    Denied,
    RateLimited,
    ApprovalRequired,
}

/// The format of a refusal. Hosts choose one and need not match on it, so formats can be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalFormat {
    /// A tool result with `isError: true` and the refusal as text, which every version of the
    /// protocol has. Models see it and can change their plan.
    Text,
    /// The same, with the facts as `structuredContent`, for protocol versions from 2025-06-18.
    ///
    /// The facts do not match the `outputSchema` of a tool. A client that validates them even in an
    /// error needs [`RefusalFormat::Text`] for tools that declare one; a
    /// [`Session`](super::Session) chooses it.
    Structured,
    /// A JSON-RPC error with the facts as `data`, for clients that should stop instead of informing
    /// the model.
    ///
    /// The codes are in the range that JSON-RPC reserves for servers: -32050 denied, -32051 rate
    /// limited, -32052 approval required.
    Error,
}

impl RefusalFormat {
    /// The format for a version of the protocol, as `initialize` negotiated it:
    /// [`RefusalFormat::Structured`] from 2025-06-18, else [`RefusalFormat::Text`]. A version that
    /// is not a date counts as old, because the text is enough.
    pub fn of_version(version: &str) -> Self {
        // Dates of equal length sort as strings.
        let is_date = version.len() == 10
            && version.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        if is_date && version >= "2025-06-18" { Self::Structured } else { Self::Text }
    }
}

impl RefusalKind {
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

/// How long a call must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Secs(u64),
    ForCalls,
    Never,
}

impl Refusal {
    /// The refusal of a decision; `None` if the call is allowed.
    pub fn of<P>(decision: &Decision<P>) -> Option<Self> {
        match decision {
            Decision::Allow(_) => None,
            Decision::Deny(denial) => Some(denial.into()),
            Decision::RateLimit(limited) => Some(limited.into()),
            Decision::RequireApproval(request) => Some(request.into()),
        }
    }

    fn new(kind: RefusalKind, code: Code, rule: Option<&str>, message: &str, policy: Option<Digest>) -> Self {
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
        Self { kind, code, message: message.into(), wait: None, facts }
    }

    fn with(mut self, key: &str, fact: Value) -> Self {
        self.facts.insert(key.to_owned(), fact);
        self
    }

    /// `[POLICY DENIED]`, `[RATE LIMITED]` or `[APPROVAL REQUIRED]`, followed by the message. The
    /// text of a rate limit ends with the wait, such as `Try again in 24 s.`
    pub fn text(&self) -> String {
        let mut text = format!("[{}] {}", self.kind.label(), self.message);
        match self.wait {
            None => {}
            Some(Wait::Never) => text.push_str(" This call can never pass."),
            Some(Wait::ForCalls) => text.push_str(" Try again when another call has ended."),
            Some(Wait::Secs(secs)) => {
                let (number, unit) = match secs {
                    0..=120 => (secs, "s"),
                    121..=7200 => (secs.div_ceil(60), "min"),
                    _ => (secs.div_ceil(3600), "h"),
                };
                text.push_str(&format!(" Try again in {number} {unit}."));
            }
        }
        text
    }

    /// The facts of the decision: `decision`, `code`, `rule`, `message`, the digest of the
    /// `policy`, for a rate limit `retry_after` in seconds (`null` if the call can never pass, or
    /// waits for calls in flight), and for a missing part of a scope `missing`, its name. A rule of
    /// `require` or `deny_if` has the pointer of the `condition` that decided, and why it is
    /// `undecidable`, if it is.
    /// Rate limits and approval requests have the states of the `limits`. Absent facts are left
    /// out.
    pub fn facts(&self) -> &Map<String, Value> {
        &self.facts
    }

    /// The `result` of the call. [`RefusalFormat::Error`] has the same result as
    /// [`RefusalFormat::Structured`].
    ///
    /// It always has a `resultType`: clients of the protocol from 2026-07-28 require it, and older
    /// ones ignore members that they do not know.
    pub fn to_result(&self, form: RefusalFormat) -> Value {
        let content = json!([{ "type": "text", "text": self.text() }]);
        let mut result = json!({ "resultType": "complete", "content": content, "isError": true });
        if let (RefusalFormat::Structured | RefusalFormat::Error, Some(members)) = (form, result.as_object_mut()) {
            members.insert("structuredContent".to_owned(), self.facts.clone().into());
        }
        result
    }

    /// The `error` of the call for [`RefusalFormat::Error`].
    pub fn to_error(&self) -> Value {
        let code = if self.is_error() { INVALID_PARAMS } else { self.kind.error_code() };
        json!({ "code": code, "message": self.text(), "data": self.facts })
    }

    /// The whole answer to a request that could not be read, with `null` in place of the unknown
    /// id. For a request that was read, use [`Call::answer`].
    pub fn to_answer_without_id(&self, form: RefusalFormat) -> String {
        self.answer("null", form)
    }

    /// Returns `true` for a call that is an error of the protocol: no model can change it.
    fn is_error(&self) -> bool {
        self.code == Code::UnknownState
    }

    fn answer(&self, id: &str, form: RefusalFormat) -> String {
        match form {
            _ if self.is_error() => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, self.to_error()),
            RefusalFormat::Error => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, self.to_error()),
            RefusalFormat::Text | RefusalFormat::Structured => {
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{}}}"#, self.to_result(form))
            }
        }
    }
}

impl Call {
    /// The answer that refuses this call, with the call's id exactly as it was written. `None` for
    /// a notification, which has no answer. The code `unknown_state` is in every form an error with
    /// the code -32602: it is for the client, and no model can change the call.
    pub fn answer(&self, refusal: &Refusal, form: RefusalFormat) -> Option<String> {
        self.id_text().map(|id| refusal.answer(id, form))
    }
}

impl From<&Refused> for Refusal {
    fn from(refused: &Refused) -> Self {
        match refused {
            Refused::Deny(denial) => denial.into(),
            Refused::RateLimit(limited) => limited.into(),
            Refused::RequireApproval(request) => request.into(),
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::from(&refused)
    }
}

impl From<&Denial> for Refusal {
    fn from(denial: &Denial) -> Self {
        let refusal = Self::new(RefusalKind::Denied, denial.code(), denial.rule(), denial.message(), denial.policy());
        let facts = [
            ("missing", denial.missing()),
            ("invalid_amount", denial.invalid_amount()),
            ("condition", denial.condition()),
            ("undecidable", denial.undecidable()),
        ];
        let there = facts.into_iter().filter_map(|(key, fact)| Some((key, fact?)));
        there.fold(refusal, |refusal, (key, fact)| refusal.with(key, fact.into()))
    }
}

impl From<&RateLimited> for Refusal {
    fn from(limited: &RateLimited) -> Self {
        let seconds = limited.retry_after().map(|wait| match wait.subsec_millis() {
            0 => Value::from(wait.as_secs()),
            _ => Value::from(wait.as_secs_f64()),
        });
        let kind = RefusalKind::RateLimited;
        let refusal = Self::new(kind, limited.code(), limited.rule(), limited.message(), limited.policy())
            .with("retry_after", seconds.unwrap_or_default())
            .with("limits", states(limited.limits()));
        let wait = match limited.retry_after_secs() {
            Some(secs) => Wait::Secs(secs),
            None if limited.waits_for_calls() => Wait::ForCalls,
            None => Wait::Never,
        };
        Self { wait: Some(wait), ..refusal }
    }
}

impl From<&ApprovalRequest> for Refusal {
    fn from(request: &ApprovalRequest) -> Self {
        Self::new(RefusalKind::ApprovalRequired, request.code(), request.rule(), request.message(), request.policy())
            .with("limits", states(request.limits()))
    }
}

fn states(limits: &[LimitState]) -> Value {
    // A state consists of strings and numbers, which always serialise.
    limits.iter().map(|state| serde_json::to_value(state).unwrap_or_default()).collect()
}
