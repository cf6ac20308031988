//! Counter stores: the contract of all of them, leased counters, and Redis.

#[cfg(feature = "conformance")]
mod contract;
#[cfg(feature = "conformance")]
mod faulty_stores;
pub(crate) mod leased;
#[cfg(feature = "redis")]
pub(crate) mod redis;
