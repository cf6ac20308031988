//! How a store is put together.

use std::time::Duration;

use super::RedisStore;
use super::wire::{Bound, Keys};
use crate::redis::{BuildError, GRACE, Known, Settings, micros, settings_verbs};

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
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct RedisStoreBuilder {
    settings: Settings,
    remember: Duration,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: String) -> Self {
        Self { settings: Settings::new(url), remember: Duration::from_secs(60) }
    }

    /// What the names of all keys begin with, in braces: `{toolgate}`, if nothing is said. Stores of one prefix share their
    /// counters. 1 to 64 visible ASCII characters, none of them a brace.
    ///
    /// The braces are the hash tag of a cluster: all keys of one prefix are on one of its nodes, which is what lets one
    /// script charge counters of several scopes at once. What should be spread over nodes needs stores with prefixes of their own.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// How far the host's clock and the server's may be apart: two seconds, if nothing is said. Past it every call is refused,
    /// [`StoreError::ClockSkew`](crate::store::StoreError::ClockSkew). See [`RedisStore`] for what clocks that are apart by
    /// less can cost. Counters are kept this much longer than they count.
    pub fn max_skew(mut self, max_skew: Duration) -> Self {
        self.settings.max_skew = max_skew;
        self
    }

    settings_verbs!();

    /// How long a decision may take in all, with its retry: one and a half seconds, if nothing is said.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.patience.deadline = deadline;
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
        let Self { settings, remember } = self;
        if remember < settings.patience.deadline * 2 || remember > Duration::from_secs(86_400) {
            return Err(BuildError::Remember);
        }
        let (link, max_skew) = (settings.link()?, settings.max_skew);
        let script = |text: &str| Known::new([LIMBS, text].concat());
        Ok(RedisStore {
            link,
            keys: Keys::new(&settings.prefix),
            prefix: settings.prefix,
            reserve: script(include_str!("reserve.lua")),
            settle: script(include_str!("settle.lua")),
            bound: Bound(max_skew.as_millis().try_into().unwrap_or(u64::MAX)),
            skew_micros: micros(max_skew),
            late_micros: micros(max_skew + GRACE),
            remember_millis: micros(remember) / 1_000,
        })
    }
}
