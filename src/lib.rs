#![doc = include_str!("../README.md")]

mod amount;
pub mod analysis;
pub mod approval;
pub mod audit;
mod call;
mod canonical;
pub mod charge;
mod decision;
mod gate;
mod grants;
mod hex;
mod json;
mod limit;
mod limit_state;
mod link;
pub mod mcp;
mod number;
mod path;
mod permit;
mod pointer;
mod policy;
pub mod shadow;
pub mod store;
mod time;

pub use amount::{Amount, AmountError, Total};
pub use approval::{Approval, ApprovalId, ApprovalState, ApprovalStore, DecideError, MemoryApprovals};
pub use audit::{AuditError, AuditRecord, AuditSink};
pub use call::{Arguments, Identity, ToolCall};
pub use decision::{ApprovalRequest, Decision, Denial, RateLimited};
pub use gate::{Gate, GateBuilder, Obstacle};
pub use grants::{Access, Grant, GrantError, Grants};
pub use limit_state::LimitState;
pub use permit::{AsyncPermit, Leave, Permit, SettleError};
pub use policy::{Bounds, Code, Digest, Effect, Evaluation, Issue, IssueCode, Policy, PolicyError};
pub use time::{Clock, ManualClock, ParseTimestampError, SystemClock, Timestamp};
