#![cfg_attr(doc, doc = include_str!("docs.links"))]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod amount;
pub mod approval;
pub mod audit;
mod call;
pub mod charge;
mod decision;
#[cfg(doc)]
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
pub use call::{Arguments, Caller, Identity, IdentityValue, ToolCall};
pub use decision::{
    ApprovalRequest, AsyncPermit, Decision, Denial, LimitState, Permit, RateLimited, Refused, RenewError, SettleError,
};
pub use gate::{AsyncGate, FirstRefusal, Gate, GateBuilder, shadow};
pub use grants::{Access, AccessTo, AsyncGrants, Grant, GrantError, Grants};
pub use json::visible::{visible, visible_json};
pub use policy::{Bounds, Code, Digest, Effect, Evaluation, Issue, IssueCode, Policy, PolicyError};
pub use time::{Clock, ManualClock, ParseTimestampError, SystemClock, Timestamp};
#[cfg(feature = "intercept")]
pub use tools::intercept;
#[cfg(feature = "recommend")]
pub use tools::recommend;
#[cfg(feature = "replay")]
pub use tools::replay;
#[cfg(feature = "analysis")]
pub use tools::{analysis, explain};
#[cfg(feature = "testing")]
pub use tools::{testing, trace};
