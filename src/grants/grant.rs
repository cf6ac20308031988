//! A grant, and the access that it gives.

use serde::Serialize;

use super::{NamedAccess, Record};
use crate::time::Timestamp;

/// A grant as it was when [`Grants::get`](super::Grants::get) was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grant {
    id: Box<str>,
    revoked: bool,
    access: Vec<Access>,
}

/// Access to a policy on one server, or on any, until a time or for good.
///
/// ```
/// use toolgate::Access;
///
/// let access = Access::to("reader").on("github").until("2026-02-01T00:00:00Z".parse().ok());
/// assert_eq!((access.policy(), access.server()), ("reader", Some("github")));
/// assert_eq!(Access::to("reader").on_any_server().server(), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Access {
    pub(super) server: Option<Box<str>>,
    pub(super) policy: Box<str>,
    pub(super) expires_at: Option<Timestamp>,
}

/// Access to a policy that still needs its server. [`Access::to`] returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it becomes an `Access` once its server is chosen"]
pub struct AccessTo {
    policy: Box<str>,
}

impl Grant {
    pub(super) fn of<S, A: ?Sized>(record: &Record<S, A>) -> Self {
        let access = |access: &NamedAccess<S, A>| Access {
            server: access.server.clone(),
            policy: access.policy.name.clone(),
            expires_at: access.expires_at,
        };
        let access = record.access.iter().map(access).collect();
        Self { id: record.id.clone(), revoked: record.revoked, access }
    }

    /// The name of the grant, as in [`ToolCall::grant`](crate::ToolCall::grant).
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns `true` if the grant has been revoked.
    pub fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// The access that the grant gives, or gave before it was revoked, in the order in which it was
    /// granted.
    pub fn access(&self) -> &[Access] {
        &self.access
    }
}

impl AccessTo {
    /// Gives access on this server.
    pub fn on(self, server: &str) -> Access {
        Access { server: Some(server.into()), policy: self.policy, expires_at: None }
    }

    /// Gives access on every server for which the grant has no access of its own.
    pub fn on_any_server(self) -> Access {
        Access { server: None, policy: self.policy, expires_at: None }
    }
}

impl Access {
    /// Names the policy that decides the calls. The server comes next: a grant never covers every
    /// server just because none was named.
    pub fn to(policy: &str) -> AccessTo {
        AccessTo { policy: policy.into() }
    }

    /// Ends the access at this instant: at the instant itself it has expired. `None` keeps it until
    /// the grant is revoked, which is the default.
    #[must_use = "this returns the access with its end, and does not change one that was granted"]
    pub fn until(self, end: impl Into<Option<Timestamp>>) -> Self {
        Self { expires_at: end.into(), ..self }
    }

    /// The server; `None` for every server for which the grant has no access of its own.
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// The name of the policy.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// The instant at which the access expires; `None` if it does not.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }
}
