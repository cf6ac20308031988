//! The connection to a Redis server that all stores in Redis share.

mod check;
mod connection;
mod failure;
mod server;
mod settings;

pub use check::{ServerFinding, ServerReport};
pub use server::{BuildError, Server};

pub(crate) use check::Requirements;
pub(crate) use connection::{Connection, GRACE, LARGEST_EXACT, LATEST_NOW, Retry, Script};
pub(crate) use failure::{Cause, OutOfRange, UnexpectedAnswer};
pub(crate) use settings::{Settings, micros, settings_methods};
