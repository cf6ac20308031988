#![doc = include_str!("../README.md")]

mod amount;
mod call;
pub mod charge;
mod decision;
mod gate;
mod json;
mod limit;
pub mod mcp;
mod number;
mod path;
mod pointer;
mod policy;
pub mod store;
mod time;

pub use amount::{Amount, AmountError, Total};
pub use call::{Arguments, Identity, ToolCall};
pub use decision::{ApprovalRequest, Decision, Denial, LimitState, Permit, RateLimited};
pub use gate::{Gate, GateBuilder};
pub use policy::{Bounds, Code, Digest, Effect, Evaluation, Issue, IssueCode, Policy, PolicyError};
pub use time::{Clock, ManualClock, ParseTimestampError, SystemClock, Timestamp};
