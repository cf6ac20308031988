//! Tool calls: the tool, its arguments and the caller.

pub(crate) mod approval_id;
mod caller;
pub(crate) mod identity;
pub(crate) mod path;
pub(crate) mod subject;

use serde_json::{Map, Value};

use approval_id::ApprovalId;
use subject::{OwnScope, Subject};

pub use caller::Caller;
pub use identity::{Identity, IdentityValue};

/// One call of a tool. Everything is borrowed, so making one costs nothing.
///
/// The arguments come from the agent. Everything else must come from the host, which knows the
/// caller. Identities are passed as `&str`, `&String` or an `Option` of these, see
/// [`IdentityValue`]; an empty one counts as absent.
///
/// ```
/// use serde_json::json;
/// use toolgate::ToolCall;
///
/// let arguments = json!({ "prompt": "a parser" });
/// let call = ToolCall::new("code_generate", &arguments).grant("g-42").session("s-7");
/// assert_eq!(call.tool(), "code_generate");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ToolCall<'a> {
    tool: &'a str,
    arguments: Arguments<'a>,
    grant: Option<&'a str>,
    session: Option<&'a str>,
    agent: Option<&'a str>,
    user: Option<&'a str>,
    server: Option<&'a str>,
    context: Option<&'a Map<String, Value>>,
    approval: PresentedApproval<'a>,
    round: Round<'a>,
    is_task: bool,
    input: Option<&'a Map<String, Value>>,
    /// The subjects of these identities, as far as they were prepared.
    known: &'a [(OwnScope, Subject)],
}

/// The approval that a call presents. If it presents one, no other is used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum PresentedApproval<'a> {
    /// Any approval of the store will do.
    #[default]
    Any,
    Stored(&'a ApprovalId),
    #[cfg(feature = "signed")]
    Signed(&'a str),
}

/// The round of a call that takes several, because the server asks for input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Round<'a> {
    #[default]
    First,
    /// The call carries a state that belongs to no call under way.
    Unknown,
    /// A further round of a call that is allowed. If it was approved, the digest of the policy
    /// under which it was.
    Further { approved_under: Option<&'a [u8; 32]> },
}

/// The arguments of a call: a JSON object, or none, which counts as the empty object.
///
/// Made from `&Value`, `&Map`, or an `Option` of either. `null` counts as none, and so does
/// `Arguments::default()`. A value of another type makes the call malformed: every decision on it
/// is a denial with the code `malformed_call`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arguments<'a>(Shape<'a>);

#[derive(Clone, Copy, Debug, Default)]
enum Shape<'a> {
    #[default]
    Absent,
    Object(&'a Map<String, Value>),
    Malformed,
}

impl<'a> From<&'a Value> for Arguments<'a> {
    fn from(value: &'a Value) -> Self {
        Self(match value {
            Value::Null => Shape::Absent,
            Value::Object(members) => Shape::Object(members),
            _ => Shape::Malformed,
        })
    }
}

impl<'a> From<&'a Map<String, Value>> for Arguments<'a> {
    fn from(members: &'a Map<String, Value>) -> Self {
        Self(Shape::Object(members))
    }
}

impl<'a, T> From<Option<&'a T>> for Arguments<'a>
where
    &'a T: Into<Arguments<'a>>,
{
    fn from(arguments: Option<&'a T>) -> Self {
        arguments.map_or(Self(Shape::Absent), Into::into)
    }
}

impl<'a> ToolCall<'a> {
    /// Makes a call of `tool` without identities.
    pub fn new(tool: &'a str, arguments: impl Into<Arguments<'a>>) -> Self {
        Self {
            tool,
            arguments: arguments.into(),
            grant: None,
            session: None,
            agent: None,
            user: None,
            server: None,
            context: None,
            approval: PresentedApproval::Any,
            round: Round::First,
            is_task: false,
            input: None,
            known: &[],
        }
    }

    /// Sets the credential that the caller uses.
    #[must_use = "returns the call with the change"]
    pub fn grant(self, grant: impl Into<IdentityValue<'a>>) -> Self {
        Self { grant: grant.into().as_str(), known: &[], ..self }
    }

    /// Sets the agent session that the call belongs to.
    #[must_use = "returns the call with the change"]
    pub fn session(self, session: impl Into<IdentityValue<'a>>) -> Self {
        Self { session: session.into().as_str(), known: &[], ..self }
    }

    /// Sets the agent that calls.
    #[must_use = "returns the call with the change"]
    pub fn agent(self, agent: impl Into<IdentityValue<'a>>) -> Self {
        Self { agent: agent.into().as_str(), known: &[], ..self }
    }

    /// Sets the person that the agent acts for.
    #[must_use = "returns the call with the change"]
    pub fn user(self, user: impl Into<IdentityValue<'a>>) -> Self {
        Self { user: user.into().as_str(), known: &[], ..self }
    }

    /// Sets the server that provides the tool.
    #[must_use = "returns the call with the change"]
    pub fn server(self, server: impl Into<IdentityValue<'a>>) -> Self {
        Self { server: server.into().as_str(), known: &[], ..self }
    }

    /// Sets what else the host knows about the call: roles, address, tenant. Conditions read it as
    /// `context`.
    #[must_use = "returns the call with the change"]
    pub fn context(self, context: impl Into<Option<&'a Map<String, Value>>>) -> Self {
        Self { context: context.into(), ..self }
    }

    /// Sets whether the call asks the server to run it as a task. Conditions read it as
    /// `call.task`.
    #[must_use = "returns the call with the change"]
    pub fn task(self, is_task: bool) -> Self {
        Self { is_task, ..self }
    }

    /// Sets the agent's answers to what the server has asked for (`inputResponses`). Conditions
    /// read them as `input`.
    #[must_use = "returns the call with the change"]
    pub fn input(self, input: impl Into<Option<&'a Map<String, Value>>>) -> Self {
        Self { input: input.into(), ..self }
    }

    /// Presents an approval: if the call needs one, no other is used. Without this, the gate finds
    /// an approval by itself, so set it where a call must not use what was approved for another
    /// call like it. The last of `approval` and `signed` counts; `None` presents none.
    #[must_use = "returns the call with the change"]
    pub fn approval(self, approval: impl Into<Option<&'a ApprovalId>>) -> Self {
        Self { approval: approval.into().map_or(PresentedApproval::Any, PresentedApproval::Stored), ..self }
    }

    /// Presents a [signed](crate::approval::signed) approval: if the call needs one, no other is
    /// used. If the call needs none, the text is not looked at. The last of `approval` and `signed`
    /// counts.
    ///
    /// A text that is not accepted does not deny the call: the decision is the same as without it,
    /// a request for an approval, and [`signed_error`](crate::ApprovalRequest::signed_error)
    /// reports the reason to the host.
    #[cfg(feature = "signed")]
    #[must_use = "returns the call with the change"]
    pub fn signed(self, text: &'a str) -> Self {
        Self { approval: PresentedApproval::Signed(text), ..self }
    }

    pub(crate) fn presented(&self) -> PresentedApproval<'a> {
        self.approval
    }

    pub(crate) fn with_round(self, round: Round<'a>) -> Self {
        Self { round, ..self }
    }

    pub(crate) fn round(&self) -> Round<'a> {
        self.round
    }

    /// Returns `true` for a further round of a call that is allowed already.
    pub(crate) fn is_further_round(&self) -> bool {
        matches!(self.round, Round::Further { .. })
    }

    /// Sets the prepared subjects of the call's identities, so that the gate need not compute them
    /// again.
    pub(crate) fn known(self, known: &'a [(OwnScope, Subject)]) -> Self {
        Self { known, ..self }
    }

    /// Returns the prepared subject of that scope.
    pub(crate) fn known_subject(&self, scope: OwnScope) -> Option<&'a Subject> {
        self.known.iter().find(|(known, _)| *known == scope).map(|(_, subject)| subject)
    }

    /// The name of the tool.
    pub fn tool(&self) -> &'a str {
        self.tool
    }

    pub(crate) fn is_malformed(&self) -> bool {
        matches!(self.arguments.0, Shape::Malformed)
    }

    pub(crate) fn argument_members(&self) -> Option<&'a Map<String, Value>> {
        match self.arguments.0 {
            Shape::Object(members) => Some(members),
            Shape::Absent | Shape::Malformed => None,
        }
    }

    pub(crate) fn is_task(&self) -> bool {
        self.is_task
    }

    pub(crate) fn input_members(&self) -> Option<&'a Map<String, Value>> {
        self.input
    }

    pub(crate) fn context_members(&self) -> Option<&'a Map<String, Value>> {
        self.context
    }

    /// The value of an identity; `None` if it is absent.
    pub fn identity(&self, identity: Identity) -> Option<&'a str> {
        match identity {
            Identity::Grant => self.grant,
            Identity::Session => self.session,
            Identity::Agent => self.agent,
            Identity::User => self.user,
            Identity::Server => self.server,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_are_an_object_or_none() {
        let object = json!({ "a": 1 });
        assert!(ToolCall::new("t", &object).argument_members().is_some());
        assert!(ToolCall::new("t", object.as_object()).argument_members().is_some());
        for (nothing, malformed) in [(json!(null), false), (json!([]), true), (json!("{}"), true), (json!(1), true)] {
            let call = ToolCall::new("t", &nothing);
            assert!(call.argument_members().is_none());
            assert_eq!(call.is_malformed(), malformed, "{nothing}");
        }
        assert!(!ToolCall::new("t", None::<&Value>).is_malformed());
    }

    #[test]
    fn an_empty_identity_is_absent() {
        let call = ToolCall::new("t", None::<&Value>).grant("g").user("").session(None::<&str>);
        assert_eq!(call.identity(Identity::Grant), Some("g"));
        assert_eq!(call.identity(Identity::User), None);
        assert_eq!(call.identity(Identity::Session), None);
    }

    #[test]
    fn identities_are_borrowed_in_every_form() {
        let (name, none, empty) = (String::from("ann"), None::<String>, Some(String::new()));
        let some = Some(name.clone());
        for call in [
            ToolCall::new("t", None::<&Value>).user("ann"),
            ToolCall::new("t", None::<&Value>).user(&name),
            ToolCall::new("t", None::<&Value>).user(Some("ann")),
            ToolCall::new("t", None::<&Value>).user(Some(&name)),
            ToolCall::new("t", None::<&Value>).user(some.as_deref()),
            ToolCall::new("t", None::<&Value>).user(&some),
        ] {
            assert_eq!(call.identity(Identity::User), Some("ann"));
            for absent in [call.user(&none), call.user(&empty), call.user(none.as_ref()), call.user(Some(""))] {
                assert_eq!(absent.identity(Identity::User), None);
            }
        }
    }
}
