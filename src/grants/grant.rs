//! What a grant is, told to whoever asks.

use serde::Serialize;

use super::{Place, Record};
use crate::time::Timestamp;

/// What a grant is, at the moment of asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grant {
    id: Box<str>,
    revoked: bool,
    access: Vec<Access>,
}

/// What a grant gives on one server, or on any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Access {
    server: Option<Box<str>>,
    policy: Box<str>,
    expires_at: Option<Timestamp>,
}

impl Grant {
    pub(super) fn of<S>(record: &Record<S>) -> Self {
        let access = |place: &Place<S>| Access {
            server: place.server.clone(),
            policy: place.policy.name.clone(),
            expires_at: place.expires_at,
        };
        let access = record.places.iter().map(access).collect();
        Self { id: record.id.clone(), revoked: record.revoked, access }
    }

    /// Its name, as calls [name it](crate::ToolCall::grant).
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it has been revoked.
    pub fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// What it gives, or gave before it was revoked, in the order in which it was granted.
    pub fn access(&self) -> &[Access] {
        &self.access
    }
}

impl Access {
    /// The server; none for any that the grant has no policy of its own for.
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// The name of the policy.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// When it expires; never, if there is none.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }
}
