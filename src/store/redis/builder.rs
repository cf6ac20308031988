//! The builder of a store.

use std::sync::Arc;
use std::time::Duration;

use super::answers::SkewBound;
use super::arguments::Keys;
use super::background::InBackground;
use super::{Counters, RedisStore};
use crate::call::Identity;
use crate::redis::{BuildError, GRACE, Script, Server, Settings, micros, settings_methods};

const LIMBS: &str = include_str!("limbs.lua");

/// A builder of a [`RedisStore`].
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
    counters_per_asker: u32,
    partition: Option<Identity>,
    strict: bool,
}

/// The default number of counters of one asker: a sixteenth of a million, as in memory.
const COUNTERS_PER_ASKER: u32 = 62_500;

impl RedisStoreBuilder {
    pub(super) fn new(server: Server) -> Self {
        let (settings, remember) = (Settings::new(server), Duration::from_secs(60));
        Self { settings, remember, counters_per_asker: COUNTERS_PER_ASKER, partition: None, strict: false }
    }

    /// Sets the prefix of all keys, which is written in braces: `{toolgate}` by default. Stores
    /// with the same prefix share their counters. It has 1 to 64 visible ASCII characters, without
    /// braces.
    ///
    /// The braces are the hash tag of a cluster: all keys of one prefix are on one node, so that
    /// one script can charge the counters of several scopes at once. To spread counters over nodes,
    /// use [`partition_by`](Self::partition_by), or give the stores different prefixes.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// Sets the largest skew between the host's clock and the server's: two seconds by default. If
    /// the skew is larger, every call is refused with
    /// [`StoreError::ClockSkew`](crate::store::StoreError::ClockSkew). [`RedisStore`] describes the
    /// effect of a smaller skew. Counters are kept this much longer than they count.
    pub fn max_skew(mut self, max_skew: Duration) -> Self {
        self.settings.max_skew = max_skew;
        self
    }

    settings_methods!();

    /// Sets the time limit for a whole decision with its retry: one and a half seconds by default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.timeouts.deadline = deadline;
        self
    }

    /// Sets how long the server remembers a request, so that a repeated one counts once: one minute
    /// by default, at least twice the deadline. A host that repeats a failed settlement must do so
    /// within this time.
    pub fn remember(self, remember: Duration) -> Self {
        Self { remember, ..self }
    }

    /// Sets how many counters one asker can have at once: 62,500 by default. A host with a single
    /// grant for all its callers needs more. Past it, only this asker gets no new counters:
    /// [`StoreError::ShareFull`](crate::store::StoreError::ShareFull).
    pub fn counters_per_asker(self, counters: u32) -> Self {
        Self { counters_per_asker: counters, ..self }
    }

    /// Spreads the counters over the nodes of a cluster by an identity in their scopes: those of
    /// one grant, for example, are together in one of 1,024 partitions, whose hash tags are
    /// `{prefix/0}` to `{prefix/1023}`. Counters whose scope lacks the identity, or has more than
    /// 128 bytes, are in a partition of their own, `{prefix}`. By default there is only that one.
    /// All stores of a prefix must agree: a change begins all counters anew.
    ///
    /// A call whose counters are all in one partition takes one step, as always. A call that also
    /// has counters outside of it takes one more: its partitions are charged one after another, and
    /// if a later one refuses, the earlier charges are taken back. No counter ever holds more than
    /// its `max`. But for a moment a refused call can be seen in the earlier counters, and another
    /// call can be refused because of it. If the host or the server stops in between, that charge
    /// stays until its window ends. [`Policy::counters_without`] names the counters that cause
    /// this. An asker has its [share](Self::counters_per_asker) of counters in each partition.
    ///
    /// [`Policy::counters_without`]: crate::Policy::counters_without
    pub fn partition_by(self, identity: Identity) -> Self {
        Self { partition: Some(identity), ..self }
    }

    /// With [partitions](Self::partition_by), refuses every call whose counters are in several of
    /// them, with [`StoreError::Unavailable`](crate::store::StoreError::Unavailable), so that each
    /// decision is one atomic step. Check a policy before it is put in force: no tool may have
    /// limits both with the identity and without it.
    pub fn in_one_partition(self) -> Self {
        Self { strict: true, ..self }
    }

    /// Builds the store. It connects when it is first used, so the server need not be up.
    ///
    /// For `rediss://`, if the process has no default provider of cryptography for `rustls`, this
    /// installs `ring`.
    ///
    /// # Errors
    /// Fails if a setting is not valid: a URL without a scheme such as `localhost:6379`, an empty
    /// prefix, a timeout of zero.
    pub fn build(self) -> Result<RedisStore, BuildError> {
        let Self { settings, remember, counters_per_asker, partition, strict } = self;
        if remember < settings.timeouts.deadline * 2 || remember > Duration::from_secs(86_400) {
            return Err(BuildError::Remember);
        }
        let (connection, max_skew) = (settings.connection()?, settings.max_skew);
        let script = |text: &str| Script::new([LIMBS, text].concat());
        Ok(RedisStore(Arc::new(Counters {
            connection,
            keys: Keys::new(settings.prefix, partition),
            strict,
            reserve: script(include_str!("reserve.lua")),
            settle: script(include_str!("settle.lua")),
            reset: Script::new(include_str!("reset.lua").to_owned()),
            bound: SkewBound(max_skew.as_millis().try_into().unwrap_or(u64::MAX)),
            max_skew,
            skew_micros: micros(max_skew),
            late_micros: micros(max_skew + GRACE),
            remember_millis: micros(remember) / 1_000,
            // The script takes 0 for no bound.
            share: i64::from(counters_per_asker.max(1)),
            in_background: InBackground::default(),
        })))
    }
}
