//! How a store is put together.

use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisError};

use super::RedisStore;
use super::link::{Known, Link, Patience};
use super::wire::{Bound, Keys};

/// How long a counter is kept after its end: what rounding and a slow server may need.
const GRACE: Duration = Duration::from_secs(5);
/// The clocks of hosts that are tested stand still or run anywhere; past this no instant is exact any more.
const MOST_SKEW: Duration = Duration::from_secs(3_000 * 86_400);
const MOST_PATIENCE: Duration = Duration::from_secs(3_600);
const LIMBS: &str = include_str!("limbs.lua");

/// Puts a [`RedisStore`] together.
///
/// ```
/// use std::time::Duration;
/// use toolgate::store::redis::RedisStore;
///
/// let store = RedisStore::builder("redis://127.0.0.1:6379")
///     .prefix("gateway-eu")
///     .response_timeout(Duration::from_millis(200))
///     .max_skew(Duration::from_millis(500))
///     .build()?;
/// # Ok::<(), toolgate::store::redis::BuildError>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct RedisStoreBuilder {
    url: String,
    prefix: String,
    max_skew: Duration,
    remember: Duration,
    patience: Patience,
}

/// A store cannot be built so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// It is not said where the server is. The URL itself stays out of the message: it may hold a password.
    #[error(
        "the URL of the counter store cannot be read; a right one is `redis://user:password@host:6379/0`, \
         `rediss://host:6379` over TLS, or `redis+unix:///run/redis.sock`"
    )]
    Url(#[source] RedisError),
    /// `rediss://` without the feature `redis-tls`.
    #[error(
        "the URL of the counter store asks for TLS; build toolgate with its feature `redis-tls`, or use `redis://`"
    )]
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

impl RedisStoreBuilder {
    pub(super) fn new(url: String) -> Self {
        let patience = Patience {
            connect: Duration::from_millis(500),
            response: Duration::from_millis(500),
            deadline: Duration::from_millis(1_500),
            failures: 5,
            cool_down: Duration::from_secs(1),
        };
        let (max_skew, remember) = (Duration::from_secs(2), Duration::from_secs(60));
        Self { url, prefix: "toolgate".into(), max_skew, remember, patience }
    }

    /// What the names of all keys begin with, in braces: `{toolgate}`, if nothing is said. Stores of one prefix share their
    /// counters. 1 to 64 visible ASCII characters, none of them a brace.
    ///
    /// The braces are the hash tag of a cluster: all keys of one prefix are on one of its nodes, which is what lets one
    /// script charge counters of several scopes at once. What should be spread over nodes needs stores with prefixes of their own.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// How far the host's clock and the server's may be apart: two seconds, if nothing is said. Past it every call is refused,
    /// [`StoreError::ClockSkew`](crate::store::StoreError::ClockSkew). See [`RedisStore`] for what clocks that are apart by
    /// less can cost. Counters are kept this much longer than they count.
    pub fn max_skew(self, max_skew: Duration) -> Self {
        Self { max_skew, ..self }
    }

    /// How long it may take to connect: half a second, if nothing is said.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.patience.connect = timeout;
        self
    }

    /// How long the server may take to answer one request: half a second, if nothing is said.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.patience.response = timeout;
        self
    }

    /// How long a decision may take in all, with its retry: one and a half seconds, if nothing is said.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.patience.deadline = deadline;
        self
    }

    /// After so many failures in a row (five, if nothing is said; at least one) the store answers `Unavailable` at once for so
    /// long (one second), and then lets one request through to see whether the server is back.
    pub fn circuit_breaker(mut self, failures: u32, cool_down: Duration) -> Self {
        (self.patience.failures, self.patience.cool_down) = (failures.max(1), cool_down);
        self
    }

    /// How long the server remembers what it has done, so that a request that arrives again counts once: a minute, if nothing is
    /// said. At least twice the deadline; a host that settles a permit again after a failure has so long for it.
    pub fn remember(self, remember: Duration) -> Self {
        Self { remember, ..self }
    }

    /// The store. It connects when it is first used, so the server need not be up.
    ///
    /// For `rediss://`, if the process has no default provider of cryptography for `rustls`, this makes `ring` that.
    ///
    /// # Errors
    /// `localhost:6379` (no scheme), an empty prefix, a timeout of zero.
    pub fn build(self) -> Result<RedisStore, BuildError> {
        let Self { url, prefix, max_skew, remember, patience } = self;
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
        if max_skew > MOST_SKEW {
            return Err(BuildError::Skew);
        }
        if remember < patience.deadline * 2 || remember > Duration::from_secs(86_400) {
            return Err(BuildError::Remember);
        }
        if cfg!(not(feature = "redis-tls")) && url.trim_start().starts_with("rediss:") {
            return Err(BuildError::NoTls);
        }
        #[cfg(feature = "redis-tls")]
        if url.trim_start().starts_with("rediss:") {
            have_cryptography();
        }
        let info: ConnectionInfo = url.as_str().into_connection_info().map_err(BuildError::Url)?;
        // One small packet each way: waiting for more to send would only cost time.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(BuildError::Url)?;
        let script = |text: &str| Known::new([LIMBS, text].concat());
        Ok(RedisStore {
            link: Link::new(client, patience),
            keys: Keys::new(&prefix),
            prefix,
            reserve: script(include_str!("reserve.lua")),
            settle: script(include_str!("settle.lua")),
            bound: Bound(max_skew.as_millis().try_into().unwrap_or(u64::MAX)),
            skew_micros: micros(max_skew),
            late_micros: micros(max_skew + GRACE),
            remember_millis: micros(remember) / 1_000,
        })
    }
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
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
