//! Callers, which can be prepared once for all their calls.

use serde_json::{Map, Value};

use crate::call::subject::{OwnScope, Subject};
use crate::call::{Arguments, Identity, IdentityValue, ToolCall};

/// A caller, for the many calls of a session: its identities, and what else the host knows.
///
/// A [call](Self::call) of it is decided like a [`ToolCall::new`] with the same identities. After
/// [`Gate::caller`](crate::Gate::caller) has prepared the caller, its calls are decided faster: the
/// subjects of the counters are computed once, and not at each call.
///
/// ```
/// use serde_json::json;
/// use toolgate::{Caller, Gate, Policy};
///
/// let policy = r#"{ "version": "1", "default": "allow", "all_tools":
///     { "limits": [{ "counter": "calls", "window": "minute", "scope": "session", "max": 1 }] } }"#;
/// let gate = Gate::new(policy.parse()?);
///
/// let caller = gate.caller(Caller::new().grant("g-42").session("s-7"));
/// let arguments = json!({ "query": "rust" });
/// assert!(gate.check(&caller.call("search", &arguments)).is_allowed());
/// assert_eq!(gate.check(&caller.call("fetch", &arguments)).as_str(), "rate_limited");
/// # Ok::<(), toolgate::PolicyError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Caller {
    grant: Option<Box<str>>,
    session: Option<Box<str>>,
    agent: Option<Box<str>>,
    user: Option<Box<str>>,
    server: Option<Box<str>>,
    context: Option<Map<String, Value>>,
    /// The prepared subjects of these identities.
    known: Vec<(OwnScope, Subject)>,
}

/// A caller is prepared for at most this many scopes: each takes 64 bytes, and a policy may have
/// thousands.
const MAX_PREPARED_SCOPES: usize = 16;

impl Caller {
    /// Makes a caller without identities.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the credential that the caller uses. As for every identity, an empty text counts as
    /// absent.
    #[must_use = "returns the caller with the change"]
    pub fn grant<'a>(self, grant: impl Into<IdentityValue<'a>>) -> Self {
        Self { grant: owned(grant), known: Vec::new(), ..self }
    }

    /// Sets the agent session that the calls belong to.
    #[must_use = "returns the caller with the change"]
    pub fn session<'a>(self, session: impl Into<IdentityValue<'a>>) -> Self {
        Self { session: owned(session), known: Vec::new(), ..self }
    }

    /// Sets the agent that calls.
    #[must_use = "returns the caller with the change"]
    pub fn agent<'a>(self, agent: impl Into<IdentityValue<'a>>) -> Self {
        Self { agent: owned(agent), known: Vec::new(), ..self }
    }

    /// Sets the person that the agent acts for.
    #[must_use = "returns the caller with the change"]
    pub fn user<'a>(self, user: impl Into<IdentityValue<'a>>) -> Self {
        Self { user: owned(user), known: Vec::new(), ..self }
    }

    /// Sets the server that provides the tools.
    #[must_use = "returns the caller with the change"]
    pub fn server<'a>(self, server: impl Into<IdentityValue<'a>>) -> Self {
        Self { server: owned(server), known: Vec::new(), ..self }
    }

    /// Sets what else the host knows about all calls: roles, address, tenant.
    #[must_use = "returns the caller with the change"]
    pub fn context(self, context: impl Into<Option<Map<String, Value>>>) -> Self {
        Self { context: context.into(), ..self }
    }

    /// The value of an identity; `None` if it is absent.
    pub fn identity(&self, identity: Identity) -> Option<&str> {
        match identity {
            Identity::Grant => self.grant.as_deref(),
            Identity::Session => self.session.as_deref(),
            Identity::Agent => self.agent.as_deref(),
            Identity::User => self.user.as_deref(),
            Identity::Server => self.server.as_deref(),
        }
    }

    /// Makes a call of `tool`. Everything is borrowed, so making one costs nothing. Identities can
    /// be set on a single call, which then loses what was prepared.
    pub fn call<'a>(&'a self, tool: &'a str, arguments: impl Into<Arguments<'a>>) -> ToolCall<'a> {
        ToolCall::new(tool, arguments)
            .grant(self.grant.as_deref())
            .session(self.session.as_deref())
            .agent(self.agent.as_deref())
            .user(self.user.as_deref())
            .server(self.server.as_deref())
            .context(self.context.as_ref())
            .known(&self.known)
    }

    /// Prepares the subjects of these scopes, and drops all others.
    pub(crate) fn ready_for(self, scopes: impl Iterator<Item = OwnScope>) -> Self {
        let mut known: Vec<(OwnScope, Subject)> = Vec::new();
        // All its calls have the same subjects.
        let call = ToolCall::from(&self);
        for scope in scopes {
            if known.len() < MAX_PREPARED_SCOPES
                && known.iter().all(|(other, _)| *other != scope)
                && let Some(subject) = scope.subject(|identity| call.identity(identity))
            {
                known.push((scope, subject));
            }
        }
        Self { known, ..self }
    }
}

/// A call without a tool and arguments: for what depends on the caller, such as
/// [`Gate::usage`](crate::Gate::usage).
impl<'a> From<&'a Caller> for ToolCall<'a> {
    fn from(caller: &'a Caller) -> Self {
        caller.call("", Arguments::default())
    }
}

impl<'a> From<&ToolCall<'a>> for ToolCall<'a> {
    fn from(call: &ToolCall<'a>) -> Self {
        *call
    }
}

fn owned<'a>(value: impl Into<IdentityValue<'a>>) -> Option<Box<str>> {
    value.into().as_str().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(identity: Identity) -> OwnScope {
        OwnScope::of([Some(identity)].into_iter()).unwrap()
    }

    #[test]
    fn another_identity_drops_what_was_prepared() {
        let caller = || Caller::new().grant("g").user("u").ready_for([scope(Identity::Grant)].into_iter());
        let ready = caller();
        let is_ready = |call: &ToolCall<'_>| call.known_subject(scope(Identity::Grant)).is_some();
        assert!(is_ready(&ready.call("t", None::<&Value>)));
        for change in [Caller::grant, Caller::session, Caller::agent, Caller::user, Caller::server] {
            assert!(!is_ready(&change(caller(), Some("other")).call("t", None::<&Value>)));
        }
        for change in [ToolCall::grant, ToolCall::session, ToolCall::agent, ToolCall::user, ToolCall::server] {
            assert!(!is_ready(&change(ready.call("t", None::<&Value>), Some("other"))));
        }
        let context = Map::new();
        assert!(is_ready(&ready.call("t", None::<&Value>).context(&context)), "no identity");
    }

    #[test]
    fn a_caller_knows_its_identities() {
        let (agent, user) = (String::from("a"), Some(String::from("u")));
        let caller = Caller::new().grant("g").session("").agent(&agent).user(&user).server(None::<&str>);
        let identities = Identity::ALL.map(|identity| caller.identity(identity));
        assert_eq!(identities, [Some("g"), None, Some("a"), Some("u"), None]);
        let call = caller.call("t", None::<&Value>);
        assert_eq!(Identity::ALL.map(|identity| call.identity(identity)), identities);
    }

    #[test]
    fn a_scope_with_an_absent_part_is_not_prepared() {
        let caller = Caller::new().grant("g").user("").ready_for([scope(Identity::User)].into_iter());
        let call = caller.call("t", None::<&Value>);
        assert!(call.known_subject(scope(Identity::User)).is_none());
        assert!(call.identity(Identity::User).is_none());
    }

    #[test]
    fn a_bounded_number_of_scopes_is_prepared() {
        let scopes = |length| OwnScope::of(std::iter::repeat_n(Some(Identity::Grant), length));
        let caller = Caller::new().grant("g").ready_for((1..=10).chain(1..=10).filter_map(scopes));
        assert_eq!(caller.known.len(), 10, "each once");
        let pairs = Identity::ALL.into_iter().flat_map(|a| Identity::ALL.map(|b| [Some(a), Some(b)].into_iter()));
        let all = Caller::new().grant("g").session("s").agent("a").user("u").server("m");
        assert_eq!(all.ready_for(pairs.filter_map(OwnScope::of)).known.len(), MAX_PREPARED_SCOPES);
    }
}
