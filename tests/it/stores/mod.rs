//! Counter stores: the contract of all of them, the memory store, leased counters, and Redis.

mod contract;
mod faulty_stores;
mod leased;
mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod wrappers;
