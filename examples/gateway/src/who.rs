//! The identities behind a call, as far as the gateway knows them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toolgate::{Caller, ToolCall};

/// The identities that the gateway gives to every call of a connection. They come from whoever
/// starts the gateway, or from what a client has proved; never from a message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Who {
    /// The server that provides the tools.
    pub server: Option<String>,
    /// The credential of the caller.
    pub grant: Option<String>,
    /// The session, which is one connection.
    pub session: Option<String>,
    /// The agent that calls.
    pub agent: Option<String>,
    /// The person that the agent acts for.
    pub user: Option<String>,
    /// Whatever else policies may ask for with `context.`.
    #[serde(skip)]
    pub context: Option<Map<String, Value>>,
}

impl Who {
    /// Returns the call, made by this caller.
    pub fn names<'a>(&'a self, call: ToolCall<'a>) -> ToolCall<'a> {
        call.server(self.server.as_deref())
            .grant(self.grant.as_deref())
            .session(self.session.as_deref())
            .agent(self.agent.as_deref())
            .user(self.user.as_deref())
            .context(self.context.as_ref())
    }

    /// Returns the caller by the identities that do not change from call to call.
    pub fn caller(&self) -> Caller {
        let Self { server, grant, agent, user, .. } = self;
        Caller::new().server(server.as_deref()).grant(grant.as_deref()).agent(agent.as_deref()).user(user.as_deref())
    }

    /// Returns a call without a tool, for questions about the caller alone.
    pub fn without_tool(&self) -> ToolCall<'_> {
        self.names(ToolCall::new("", None::<&Value>))
    }
}
