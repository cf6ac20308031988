//! The gate: decisions, permits, callers, grants, audit records and events.

mod allocations;
mod audit;
mod audit_log;
mod concurrency;
mod debug_output;
mod grants;
pub(crate) mod permits;
mod prepared_callers;
pub(crate) mod recorded_charges;
#[cfg(feature = "tracing")]
mod tracing;
