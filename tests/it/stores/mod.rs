//! Counter stores: the contract of all of them, the memory store, leased counters, and Redis.

#[cfg(feature = "conformance")]
mod contract;
#[cfg(feature = "conformance")]
mod faulty_stores;
mod leased;
mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod wrappers;
