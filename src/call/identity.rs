//! The identities of a caller, and their values.

/// An identity of a caller, which the host knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "each is a scope of the language")]
pub enum Identity {
    /// The credential that the caller uses.
    Grant,
    /// The agent session.
    Session,
    /// The agent.
    Agent,
    /// The person that the agent acts for.
    User,
    /// The server that provides the tool.
    Server,
}

impl Identity {
    pub(crate) const ALL: [Self; 5] = [Self::Grant, Self::Session, Self::Agent, Self::User, Self::Server];

    /// The word for it in policies.
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

/// Returns who asks: the first present of grant, user, agent and session.
pub(crate) fn asker<'n>(name: impl Fn(Identity) -> Option<&'n str>) -> Option<(Identity, &'n str)> {
    let asking = [Identity::Grant, Identity::User, Identity::Agent, Identity::Session];
    asking.into_iter().find_map(|identity| Some((identity, name(identity)?)))
}

/// The value of an identity: a borrowed text, or none.
///
/// Made from `&str`, `&String`, an `Option` of either, or `&Option<String>`. An empty text counts
/// as none. Pass a `String` by reference: a [`ToolCall`](crate::ToolCall) borrows its identities,
/// and a [`Caller`](crate::Caller) takes the same arguments.
///
/// ```
/// use toolgate::Caller;
///
/// let (grant, user) = (String::from("g-42"), Some(String::from("ann")));
/// let caller = Caller::new().grant(&grant).user(&user).session("s-7").agent(None::<&str>);
/// # use toolgate::Identity;
/// # assert_eq!(caller.identity(Identity::User), Some("ann"));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct IdentityValue<'a>(Option<&'a str>);

impl<'a> IdentityValue<'a> {
    pub(super) fn as_str(self) -> Option<&'a str> {
        self.0
    }
}

impl<'a> From<&'a str> for IdentityValue<'a> {
    fn from(value: &'a str) -> Self {
        Self(Some(value).filter(|value| !value.is_empty()))
    }
}

impl<'a> From<&'a String> for IdentityValue<'a> {
    fn from(value: &'a String) -> Self {
        value.as_str().into()
    }
}

impl<'a, T: ?Sized> From<Option<&'a T>> for IdentityValue<'a>
where
    &'a T: Into<IdentityValue<'a>>,
{
    fn from(value: Option<&'a T>) -> Self {
        value.map_or(Self(None), Into::into)
    }
}

impl<'a> From<&'a Option<String>> for IdentityValue<'a> {
    fn from(value: &'a Option<String>) -> Self {
        value.as_ref().into()
    }
}
