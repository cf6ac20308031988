//! Where the server is, and how long to wait for it: what every store in Redis is told.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisError};

use super::connection::{Link, Patience};

/// The clocks of hosts that are tested stand still or run anywhere; past this no instant is exact any more.
const MOST_SKEW: Duration = Duration::from_secs(3_000 * 86_400);
const MOST_PATIENCE: Duration = Duration::from_secs(3_600);

/// What the builders of all stores in Redis have in common.
pub(crate) struct Settings {
    pub(crate) url: String,
    pub(crate) prefix: String,
    pub(crate) max_skew: Duration,
    pub(crate) patience: Patience,
}

/// Without the URL, which may hold a password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, prefix, max_skew, patience } = self;
        f.debug_struct("Settings")
            .field("prefix", prefix)
            .field("max_skew", max_skew)
            .field("timeouts", patience)
            .finish_non_exhaustive()
    }
}

/// A store cannot be built so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// It is not said where the server is. The URL itself stays out of the message: it may hold a password.
    #[error(
        "the URL of the store cannot be read; a right one is `redis://user:password@host:6379/0`, \
         `rediss://host:6379` over TLS, or `redis+unix:///run/redis.sock`"
    )]
    #[non_exhaustive]
    Url {
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// `rediss://` without the feature `redis-tls`.
    #[error("the URL of the store asks for TLS; build toolgate with its feature `redis-tls`, or use `redis://`")]
    NoTls,
    /// An empty prefix, one with braces, or a long one.
    #[error("a prefix is 1 to 64 visible ASCII characters without braces, such as `toolgate`")]
    Prefix,
    /// No time at all, or more than an hour.
    #[error("`{0}` is more than nothing and at most an hour")]
    Timeout(&'static str),
    /// More than 3000 days.
    #[error("`max_skew` is at most 3000 days")]
    Skew,
    /// A retry could come when its first request is already forgotten.
    #[error("`remember` is at least twice the deadline, and at most a day")]
    Remember,
}

impl Settings {
    pub(crate) fn new(url: String) -> Self {
        let patience = Patience {
            connect: Duration::from_millis(500),
            response: Duration::from_millis(500),
            deadline: Duration::from_millis(1_500),
            failures: 5,
            cool_down: Duration::from_secs(1),
        };
        Self { url, prefix: "toolgate".into(), max_skew: Duration::from_secs(2), patience }
    }

    /// The way to the server, which need not be up.
    pub(crate) fn link(&self) -> Result<Link, BuildError> {
        let Self { url, prefix, max_skew, patience } = self;
        let prefix_fits = (1..=64).contains(&prefix.len());
        if !prefix_fits || !prefix.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}')) {
            return Err(BuildError::Prefix);
        }
        for (name, time) in [
            ("connect_timeout", patience.connect),
            ("response_timeout", patience.response),
            ("deadline", patience.deadline),
            ("circuit_breaker", patience.cool_down),
        ] {
            if time.is_zero() || time > MOST_PATIENCE {
                return Err(BuildError::Timeout(name));
            }
        }
        if *max_skew > MOST_SKEW {
            return Err(BuildError::Skew);
        }
        if cfg!(not(feature = "redis-tls")) && url.trim_start().starts_with("rediss:") {
            return Err(BuildError::NoTls);
        }
        #[cfg(feature = "redis-tls")]
        if url.trim_start().starts_with("rediss:") {
            have_cryptography();
        }
        let info: ConnectionInfo = url.as_str().into_connection_info().map_err(unreadable)?;
        // One small packet each way: waiting for more to send would only cost time.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Link::new(Client::open(info).map_err(unreadable)?, *patience))
    }
}

fn unreadable(error: RedisError) -> BuildError {
    BuildError::Url { source: error.into() }
}

/// The client takes the process's default, and panics where there is none. A host that has chosen one keeps it.
#[cfg(feature = "redis-tls")]
fn have_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been faster, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Of days at most.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The verbs of every builder: each has a field `settings`.
macro_rules! settings_verbs {
    () => {
        /// How long it may take to connect: half a second, if nothing is said.
        pub fn connect_timeout(mut self, timeout: Duration) -> Self {
            self.settings.patience.connect = timeout;
            self
        }

        /// How long the server may take to answer one request: half a second, if nothing is said.
        pub fn response_timeout(mut self, timeout: Duration) -> Self {
            self.settings.patience.response = timeout;
            self
        }

        /// After so many failures in a row (five, if nothing is said; at least one) the store answers `Unavailable` at once for
        /// so long (one second), and then lets one request through to see whether the server is back.
        pub fn circuit_breaker(mut self, failures: u32, cool_down: Duration) -> Self {
            (self.settings.patience.failures, self.settings.patience.cool_down) = (failures.max(1), cool_down);
            self
        }
    };
}
pub(crate) use settings_verbs;
