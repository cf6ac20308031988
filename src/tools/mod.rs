//! Tools for people who write policies. Each is behind a feature, so that an enforcement build
//! neither compiles nor links them.

#[cfg(feature = "analysis")]
pub mod analysis;
#[cfg(feature = "analysis")]
pub mod diff;
#[cfg(feature = "analysis")]
pub mod explain;
#[cfg(feature = "intercept")]
pub mod intercept;
#[cfg(feature = "analysis")]
pub mod lint;
#[cfg(feature = "recommend")]
pub mod recommend;
#[cfg(feature = "replay")]
pub mod replay;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "testing")]
pub mod trace;
