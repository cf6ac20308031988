//! A second, naive implementation of the policy language, random policies and histories, and the
//! properties that compare the two.
//!
//! A fuzz target mounts this module too: it uses nothing of the other rooms.

mod coverage;
pub(crate) mod generate;
mod interpreter;
pub(crate) mod properties;
pub(crate) mod recording_sink;
pub(crate) mod world;
