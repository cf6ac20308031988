//! The gate: decisions, permits, callers, grants, audit records and events.

mod allocations;
mod audit;
mod audit_files;
mod audit_log;
mod concurrency;
mod counters;
mod debug_output;
mod grants;
mod host_stores;
mod permits;
mod prepared_callers;
mod previews;
pub(crate) mod recorded_charges;
#[cfg(feature = "tracing")]
mod tracing;
