//! The codes of decisions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a decision is what it is. Its text is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// There is no policy for the caller.
    NoPolicy,
    /// `hide` names the tool.
    Hidden,
    /// No entry names the tool, and `default` is `deny`.
    DefaultDeny,
    /// The `action` of an entry denies it.
    ActionDeny,
    /// A rule of `require` does not hold.
    Require,
    /// A rule of `deny_if` matches.
    DenyIf,
    /// A limit has no room.
    Limit,
    /// A person's approval is needed.
    Approval,
    /// A limit's scope asks for a part that the call lacks: it could not be counted.
    ScopeMissing,
    /// What the call says it costs is no amount.
    AmountInvalid,
    /// The counter store cannot tell, or the store of approvals.
    StoreUnavailable,
    /// The call could not be read in one way only, or its arguments are no object.
    MalformedCall,
    /// The caller's grant has expired.
    GrantExpired,
    /// The caller's grant has been revoked.
    GrantRevoked,
    /// The tool's definition is not the one that was pinned.
    ToolChanged,
    /// The decision could not be recorded, and the host [requires](crate::GateBuilder::require_audit) that each one is.
    AuditUnavailable,
}

impl Code {
    /// The code as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPolicy => "no_policy",
            Self::Hidden => "hidden",
            Self::DefaultDeny => "default_deny",
            Self::ActionDeny => "action_deny",
            Self::Require => "require",
            Self::DenyIf => "deny_if",
            Self::Limit => "limit",
            Self::Approval => "approval",
            Self::ScopeMissing => "scope_missing",
            Self::AmountInvalid => "amount_invalid",
            Self::StoreUnavailable => "store_unavailable",
            Self::MalformedCall => "malformed_call",
            Self::GrantExpired => "grant_expired",
            Self::GrantRevoked => "grant_revoked",
            Self::ToolChanged => "tool_changed",
            Self::AuditUnavailable => "audit_unavailable",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
