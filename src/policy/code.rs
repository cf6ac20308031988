//! The codes of decisions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The reason for a decision. Its text is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// The caller has no policy.
    NoPolicy,
    /// `hide` matches the tool.
    Hidden,
    /// No entry matches the tool, and `default` is `deny`.
    DefaultDeny,
    /// The `action` of an entry denies the call.
    ActionDeny,
    /// A rule of `require` does not hold.
    Require,
    /// A rule of `deny_if` matches.
    DenyIf,
    /// A limit has no room.
    Limit,
    /// A person's approval is needed.
    Approval,
    /// A person has refused this call, and the refusal is in force.
    ApprovalRefused,
    /// The call lacks a part of a limit's scope, and cannot be counted.
    ScopeMissing,
    /// The call states a cost that is not a valid amount.
    AmountInvalid,
    /// The counter store or the approval store failed.
    StoreUnavailable,
    /// The call is ambiguous, or its arguments are not an object.
    MalformedCall,
    /// The call carries a `requestState` or `inputResponses` that belong to no call under way.
    UnknownState,
    /// The caller's grant has expired.
    GrantExpired,
    /// The caller's grant has been revoked.
    GrantRevoked,
    /// The tool's definition differs from the pinned one.
    ToolChanged,
    /// The decision could not be recorded, and the host
    /// [requires](crate::GateBuilder::require_audit) a record of each.
    AuditUnavailable,
}

impl Code {
    /// The text of the code, such as `default_deny`.
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
            Self::ApprovalRefused => "approval_refused",
            Self::ScopeMissing => "scope_missing",
            Self::AmountInvalid => "amount_invalid",
            Self::StoreUnavailable => "store_unavailable",
            Self::MalformedCall => "malformed_call",
            Self::UnknownState => "unknown_state",
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
