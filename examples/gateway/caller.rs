//! Who calls, as far as the gateway knows it.

use toolgate::ToolCall;

/// The names that a gateway puts to every call of a connection. They come from whoever starts the gateway, or from what a client
/// has proved; never from a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) server: Option<String>,
    pub(crate) grant: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) agent: Option<String>,
    pub(crate) user: Option<String>,
}

impl Caller {
    /// The call, made by this caller.
    pub(crate) fn names<'a>(&'a self, call: ToolCall<'a>) -> ToolCall<'a> {
        call.server(self.server.as_deref())
            .grant(self.grant.as_deref())
            .session(self.session.as_deref())
            .agent(self.agent.as_deref())
            .user(self.user.as_deref())
    }

    /// The name behind an option such as `--grant`.
    pub(crate) fn by_option(&mut self, option: &str) -> Option<&mut Option<String>> {
        match option {
            "--server" => Some(&mut self.server),
            "--grant" => Some(&mut self.grant),
            "--session" => Some(&mut self.session),
            "--agent" => Some(&mut self.agent),
            "--user" => Some(&mut self.user),
            _ => None,
        }
    }
}
