//! The settings that all stores in Redis share: the server, the prefix of keys, the time limits.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisError};

use super::connection::{Connection, Timeouts};

/// The largest skew between clocks. Larger ones are of no use, as instants are not exact beyond it;
/// hosts under test, whose clocks stand still or jump, need a large one.
const MAX_SKEW: Duration = Duration::from_secs(3_000 * 86_400);
const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The settings that the builders of all stores in Redis have.
pub(crate) struct Settings {
    pub(crate) url: String,
    pub(crate) prefix: String,
    pub(crate) max_skew: Duration,
    pub(crate) timeouts: Timeouts,
}

/// Leaves out the URL, which may hold a password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, prefix, max_skew, timeouts } = self;
        f.debug_struct("Settings")
            .field("prefix", prefix)
            .field("max_skew", max_skew)
            .field("timeouts", timeouts)
            .finish_non_exhaustive()
    }
}

/// A store cannot be built with these settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The URL is not valid. The message does not show it, as it may hold a password.
    #[error(
        "the URL of the store is not valid; write `redis://user:password@host:6379/0`, \
         `rediss://host:6379` for TLS, or `redis+unix:///run/redis.sock`"
    )]
    #[non_exhaustive]
    Url {
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The URL begins with `rediss://`, and the feature `redis-tls` is not enabled.
    #[error("the URL of the store asks for TLS; enable the feature `redis-tls` of toolgate, or use `redis://`")]
    NoTls,
    /// The prefix is empty, too long, or has other characters.
    #[error("the prefix must be 1 to 64 visible ASCII characters without braces, such as `toolgate`")]
    Prefix,
    /// A time limit is zero or more than an hour.
    #[error("`{0}` must be more than zero and at most an hour")]
    Timeout(&'static str),
    /// The skew is more than 3000 days.
    #[error("`max_skew` must be at most 3000 days")]
    Skew,
    /// The time is too short, so that a retry could arrive after its first request was forgotten,
    /// or longer than a day.
    #[error("`remember` must be at least twice the deadline, and at most a day")]
    Remember,
}

impl Settings {
    pub(crate) fn new(url: String) -> Self {
        let timeouts = Timeouts {
            connect: Duration::from_millis(500),
            response: Duration::from_millis(500),
            deadline: Duration::from_millis(1_500),
            failures: 5,
            cool_down: Duration::from_secs(1),
        };
        Self { url, prefix: "toolgate".into(), max_skew: Duration::from_secs(2), timeouts }
    }

    /// Makes a connection to the server, which need not be up.
    pub(crate) fn connection(&self) -> Result<Connection, BuildError> {
        let Self { url, prefix, max_skew, timeouts } = self;
        let prefix_fits = (1..=64).contains(&prefix.len());
        if !prefix_fits || !prefix.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}')) {
            return Err(BuildError::Prefix);
        }
        for (name, time) in [
            ("connect_timeout", timeouts.connect),
            ("response_timeout", timeouts.response),
            ("deadline", timeouts.deadline),
            ("circuit_breaker", timeouts.cool_down),
        ] {
            if time.is_zero() || time > MAX_TIMEOUT {
                return Err(BuildError::Timeout(name));
            }
        }
        if *max_skew > MAX_SKEW {
            return Err(BuildError::Skew);
        }
        if cfg!(not(feature = "redis-tls")) && url.trim_start().starts_with("rediss:") {
            return Err(BuildError::NoTls);
        }
        #[cfg(feature = "redis-tls")]
        if url.trim_start().starts_with("rediss:") {
            install_crypto_provider();
        }
        let info: ConnectionInfo = url.as_str().into_connection_info().map_err(unreadable)?;
        // A request is one small packet: waiting for more to send only costs time.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Connection::new(Client::open(info).map_err(unreadable)?, *timeouts))
    }
}

fn unreadable(error: RedisError) -> BuildError {
    BuildError::Url { source: error.into() }
}

/// Installs a provider of cryptography for the process if there is none: the client uses the
/// default provider, and panics without one. A host that has chosen one keeps it.
#[cfg(feature = "redis-tls")]
fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails if another thread has installed one meanwhile, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Returns the microseconds of a duration of days at most.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The methods of every builder. Each builder has a field `settings`.
macro_rules! settings_methods {
    () => {
        /// Sets the time limit for connecting: half a second by default.
        pub fn connect_timeout(mut self, timeout: Duration) -> Self {
            self.settings.timeouts.connect = timeout;
            self
        }

        /// Sets the time limit for the answer to one request: half a second by default.
        pub fn response_timeout(mut self, timeout: Duration) -> Self {
            self.settings.timeouts.response = timeout;
            self
        }

        /// Sets the circuit breaker: after this many failures in a row (five by default, at least
        /// one), requests fail with `Unavailable` at once for the time `cool_down` (one second by
        /// default). Then one request is sent to see whether the server is back.
        pub fn circuit_breaker(mut self, failures: u32, cool_down: Duration) -> Self {
            (self.settings.timeouts.failures, self.settings.timeouts.cool_down) = (failures.max(1), cool_down);
            self
        }
    };
}
pub(crate) use settings_methods;
