//! The connection to Redis that both Redis stores share.

mod connection;
mod settings;

pub use settings::BuildError;

pub(crate) use connection::{Beyond, Cause, EXACT, GRACE, Known, LATEST, Link, Sent};
pub(crate) use settings::{Settings, micros, settings_verbs};
