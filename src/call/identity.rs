//! By which names the host knows who is calling what.

/// One of the names by which the host knows who is calling what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a scope of the language each")]
pub enum Identity {
    /// The credential under which the caller acts.
    Grant,
    /// The agent session.
    Session,
    /// The agent.
    Agent,
    /// The person.
    User,
    /// The server that has the tool.
    Server,
}

impl Identity {
    pub(crate) const ALL: [Self; 5] = [Self::Grant, Self::Session, Self::Agent, Self::User, Self::Server];

    /// The word of the language.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Session => "session",
            Self::Agent => "agent",
            Self::User => "user",
            Self::Server => "server",
        }
    }
}
