//! Tools for people who write policies. Each is behind a feature, so that an enforcement build
//! neither compiles nor links them.

pub mod analysis;
pub mod diff;
pub mod explain;
pub mod intercept;
pub mod lint;
pub mod recommend;
pub mod replay;
pub mod testing;
pub mod trace;
