#![doc = include_str!("../README.md")]

mod amount;
pub mod approval;
pub mod audit;
mod call;
pub mod charge;
mod decision;
pub mod docs;
mod gate;
mod grants;
mod json;
pub mod mcp;
mod policy;
#[cfg(feature = "redis")]
mod redis;
pub mod store;
mod time;
mod tools;

pub use amount::{Amount, AmountError, Total};
pub use approval::{Approval, ApprovalId, ApprovalState, ApprovalStore, DecideError, MemoryApprovals};
pub use audit::{AuditError, AuditRecord, AuditSink};
pub use call::{Arguments, Caller, Identity, ToolCall};
pub use decision::{
    ApprovalRequest, AsyncPermit, Decision, Denial, Leave, LimitState, Permit, RateLimited, SettleError,
};
pub use docs::security;
pub use gate::{Gate, GateBuilder, Obstacle, shadow};
pub use grants::{Access, Grant, GrantError, Grants};
pub use policy::{Bounds, Code, Digest, Effect, Evaluation, Issue, IssueCode, Policy, PolicyError};
pub use time::{Clock, ManualClock, ParseTimestampError, SystemClock, Timestamp};
pub use tools::{analysis, explain, intercept, recommend, replay, testing, trace};
