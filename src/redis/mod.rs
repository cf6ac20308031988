//! The connection to a Redis server that all stores in Redis share.

mod connection;
mod settings;

pub use settings::BuildError;

pub(crate) use connection::{
    Cause, Connection, GRACE, LARGEST_EXACT, LATEST_NOW, OutOfRange, Retry, Script, UnexpectedAnswer,
};
pub(crate) use settings::{Settings, micros, settings_methods};
