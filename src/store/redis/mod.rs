//! Counters in Redis or Valkey, shared by processes.

mod answers;
mod arguments;
mod background;
mod builder;
mod partition;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;

use crate::amount::Amount;
use crate::charge::{Charge, CounterId, Meter, Subject};
use crate::redis::{Connection, Requirements, Retry, Script};
use crate::store::{
    AsyncCounterStore, ChargeChange, Generation, Outcome, ReservationId, ReserveRequest, SettleRequest, StoreError,
    StoreFuture, Tallies,
};
use crate::time::{Clock, SystemClock};
use answers::{SkewBound, unavailable};
use arguments::{Keys, Tag, encode, encode_change, encode_charge, exact_now, with_generation, with_text};

pub use crate::redis::{BuildError, Server, ServerFinding, ServerReport};
#[doc(no_inline)]
pub use ::redis as client;
use background::{InBackground, Waiting};
pub use builder::RedisStoreBuilder;
use partition::Apart;

/// The commands that the scripts call.
const COMMANDS: &[&str] = &[
    "DEL {}",
    "EXISTS {}",
    "MGET {}",
    "PEXPIREAT {} 1",
    "PEXPIRETIME {}",
    "SET {} 0 XX PX 1",
    "TIME",
    "ZADD {} XX 1 m",
    "ZCARD {}",
    "ZRANGEBYSCORE {} 0 0",
    "ZREM {} m",
    "ZSCORE {} m",
];

/// A store of counters in Redis 7 or Valkey. Processes that name the same server and prefix share
/// them.
///
/// Every decision is one round trip, whatever the number of limits: one script checks all counters
/// and charges all or none. Its arithmetic is that of [`Counter`](crate::store::Counter), exact to
/// the millionth.
///
/// ```no_run
/// use toolgate::store::redis::RedisStore;
/// use toolgate::{Gate, Policy};
///
/// # async fn run(policy: Policy) -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::builder("redis://127.0.0.1:6379").build()?;
/// let gate = Gate::builder().policy(policy.with_namespace("payments")).store_async(store).build();
/// # Ok(())
/// # }
/// ```
///
/// The store needs a tokio runtime with I/O and time (`enable_all`): in a runtime without them,
/// tokio panics. [`RedisStoreBuilder::runtime`] takes another one. The store connects when it is
/// first used, keeps one connection for all tasks, and reconnects by itself: a host may start
/// before the server does.
///
/// # When the server fails
/// Anything uncertain is [`StoreError::Unavailable`], and the gate denies the call. No request
/// takes longer than the [deadline](RedisStoreBuilder::deadline). After several failures in a row
/// no request is sent [for a time](RedisStoreBuilder::circuit_breaker).
///
/// A counter that the server has lost begins again as another [generation](crate::store::Generation):
/// releases and settlements of charges from before give it no room. Charges that are missing from a
/// counter that is still there (as after a failover) cannot be told from those that it has.
///
/// If the answer to a request is lost, the store sends the request once more, and it counts once:
/// the server remembers requests for [a minute](RedisStoreBuilder::remember), under the id of the
/// reservation and the step of the settlement. If the second answer is lost too, the charge may
/// have been made and stays: the store can count too much until the window ends, but never too
/// little.
///
/// # Requirements on the server
/// * It must not evict keys: `maxmemory-policy noeviction`, which is the default. With any other
///   policy a full server forgets live counters, and their limits start anew. If the server refuses
///   to write (`noeviction`, or a full disk), requests fail with [`StoreError::Unavailable`], and
///   nothing is charged.
/// * It must not lose data. Replication is asynchronous: after a failover the new master lacks what
///   the old one had not yet sent, and the old one admits calls until its last client has left it:
///   seconds with Sentinel, and without an end in a partition. As much as was admitted in that time
///   can be admitted again, and calls in flight that the new master does not know are not counted.
///   `min-replicas-to-write 1` with `min-replicas-max-lag` bounds that time: a master without a
///   current replica refuses to write. (What it admits in the moment in which the replica leaves
///   can still be lost.) A server without persistence restarts with empty
///   counters: up to `max` is admitted again. `appendfsync everysec` loses at most a second.
/// * In a cluster, all keys of one store are on one node, by the hash tag `{prefix}`, since the
///   counters of one call (of a grant, a user, and all) must be on one node to be charged together.
///   Use `redis+cluster://` with the address of any node: it follows failovers and resharding.
///
/// # Clocks
/// Windows follow the host's clock, which is the gate's and can be replaced. The script compares it
/// with the server's clock and refuses if they are [too far apart](RedisStoreBuilder::max_skew):
/// [`StoreError::ClockSkew`].
///
/// Two hosts with different clocks can see a window begin at moments up to twice that bound apart.
/// A counter has one window at a time, the latest in which any host charged it: a window that has
/// begun for one host has begun for all, no host opens an earlier one again, and each window admits
/// at most `max`. What can stretch is the time between two windows. In any interval as long as the
/// window, a fixed window admits up to twice `max`, as always. A sliding window or a token bucket
/// admits `max` in each interval of its length by the clock that was ahead, so it can admit more by
/// the ratio of the bound to that length. A lease can end up to the bound too early for a host
/// whose clock is ahead.
///
/// # Memory
/// A counter takes one key on the server: some 200 bytes for a fixed window or a token bucket; 150
/// bytes for a sliding window, and 24 for each slot (at most 1,700 in all); 150 bytes for calls in
/// flight, and 24 for each. A counter with 65,536 units in flight refuses more:
/// [`StoreError::Full`]. Each charge rewrites the counter, so limits of calls in flight should be
/// in the thousands at most. Every key expires by itself, when its counter is empty and the bound
/// on clocks has passed. Each reservation and each settlement takes another 150 bytes for as long
/// as it is remembered. A token bucket is kept for an hour after it is full again, so that a call
/// which took that long can still be settled at more.
///
/// One asker (the first of grant, user, agent and session) can have a [maximum of
/// counters](RedisStoreBuilder::counters_per_asker) at once; past it, only this asker gets no new
/// ones: [`StoreError::ShareFull`]. A sorted set for each asker has its counters with their ends,
/// another 60 to 200 bytes for each. Only a call that adds a counter looks at it, in the same step.
/// A counter counts until its key is gone: before one is dropped from the set, the script looks at
/// the key. The set itself is kept until the latest end that it has. So what an asker keeps alive
/// by calls alone, without new counters, for longer than a whole window is no longer counted: in
/// each further window such an asker can begin another share.
///
/// # Keys
/// `{prefix}:c:` with the counter's 16 bytes and the bytes of the [`Subject`]; `{prefix}:r:` with a
/// reservation's 20 bytes; `{prefix}:k:` with the asker. Names that callers chose come after bytes
/// of a fixed length, so different counters have different keys, and no counter has the key of
/// another entry.
///
/// A server user for the store needs `~{prefix}:*`, `+evalsha`, `+script|load`, `+mget`, `+exists`,
/// `+set`, `+del`, `+time`, `+pexpireat`, `+pexpiretime`, `+zadd`, `+zcard`, `+zrangebyscore`,
/// `+zrem`, `+zscore`. It also needs `+select` if the URL names a database other than 0,
/// `~{prefix/*}:*` with [partitions](RedisStoreBuilder::partition_by), `+cluster|slots` and
/// `+asking` in a cluster, `+role` behind sentinels, and `+info` for the whole
/// [check](RedisStore::check).
pub struct RedisStore(Arc<Counters>);

/// The counters of a store, which requests in the background share.
struct Counters {
    connection: Connection,
    keys: Keys,
    /// Refuses calls whose counters have several tags.
    strict: bool,
    reserve: Script,
    settle: Script,
    reset: Script,
    bound: SkewBound,
    max_skew: Duration,
    skew_micros: i64,
    /// How long a counter is kept after its end, in microseconds.
    late_micros: i64,
    remember_millis: i64,
    /// The largest number of counters of one asker.
    share: i64,
    in_background: InBackground,
}

impl RedisStore {
    /// Starts building a store at a URL such as `redis://user:password@host:6379/0`, or at another
    /// [`Server`]: a cluster, the master that sentinels name, or a connection of the host's own.
    pub fn builder(server: impl Into<Server>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(server.into())
    }

    /// Compares the server with the needs of the store, for the start of a host and for its
    /// readiness probe: version, role, cluster mode, eviction, clock, the permission for each
    /// command, both scripts, and a look at a counter. It charges nothing. The user needs `+info`
    /// for the first four.
    pub async fn check(&self) -> ServerReport {
        let store = &*self.0;
        let needs = Requirements {
            key: store.keys.unused(if store.keys.is_partitioned() { Tag::FIRST } else { Tag::HOME }),
            commands: COMMANDS,
            scripts: &[&store.reserve, &store.settle, &store.reset],
            max_skew: store.max_skew,
        };
        let mut report = store.connection.check(needs).await;
        let meter = Meter::Sliding { seconds: 1 };
        let charge =
            Charge { counter: CounterId::of([]), subject: Subject::default(), amount: Amount::ZERO, max: None, meter };
        let request = ReserveRequest::new(ReservationId::new(0), SystemClock.now(), std::slice::from_ref(&charge));
        if report.is_ready()
            && let Err(error) = store.run(&request, false).await
        {
            report.add_error("a look at a counter fails", &error, "see the cause");
        }
        report
    }
}

impl Counters {
    async fn run(&self, request: &ReserveRequest<'_>, charging: bool) -> Result<Outcome, StoreError> {
        let Some(first) = request.charges.first() else { return Ok(Outcome::Granted(Tallies::new())) };
        if !self.keys.is_partitioned() {
            return self.run_in(Tag::HOME, request, charging).await;
        }
        let tag = self.keys.tag(&first.subject);
        match request.charges.iter().all(|charge| self.keys.tag(&charge.subject) == tag) {
            true => self.run_in(tag, request, charging).await,
            false if self.strict => Err(StoreError::unavailable(Apart)),
            false => self.run_apart(request, charging).await,
        }
    }

    /// Sends charges whose counters all have one tag.
    async fn run_in(&self, tag: Tag, request: &ReserveRequest<'_>, charging: bool) -> Result<Outcome, StoreError> {
        let cmd = self.reserve_command(tag, request, charging)?;
        let answer = self.connection.send(Retry::Script(&self.reserve), &cmd).await.map_err(unavailable)?;
        match charging {
            true => self.bound.reserved(answer, request.charges, request.now),
            false => self.bound.peeked(answer, request.charges, request.now),
        }
    }

    fn reserve_command(&self, tag: Tag, request: &ReserveRequest<'_>, charging: bool) -> Result<Cmd, StoreError> {
        let now = exact_now(request.now)?;
        let count = request.charges.len();
        let asker = request.asker.map(|asker| self.keys.asker(tag, asker));
        let keys = count + usize::from(charging) + usize::from(asker.is_some());
        let mut cmd = self.reserve.call(keys, 1 + count);
        for charge in request.charges {
            cmd.arg(self.keys.counter(tag, charge.counter, &charge.subject));
        }
        if charging {
            cmd.arg(self.keys.record(tag, request.id, 0));
        }
        let share = if asker.is_some() { self.share } else { 0 };
        if let Some(asker) = asker {
            cmd.arg(asker);
        }
        let head = encode(&[i64::from(charging), now, self.skew_micros, self.late_micros, share]);
        cmd.arg(&*with_text(with_generation(head, Generation::by(request.id)), self.remember_millis));
        for charge in request.charges {
            cmd.arg(&*encode_charge(charge, now, self.late_micros)?);
        }
        Ok(cmd)
    }

    async fn change(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        let Some(first) = request.charges.first() else { return Ok(()) };
        if !self.keys.is_partitioned() {
            return self.change_in(Tag::HOME, request).await;
        }
        let tag = self.keys.tag(&first.charge.subject);
        match request.charges.iter().all(|change| self.keys.tag(&change.charge.subject) == tag) {
            true => self.change_in(tag, request).await,
            false => self.change_apart(request).await,
        }
    }

    /// Sends changes whose counters all have one tag.
    async fn change_in(&self, tag: Tag, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        let cmd = self.settle_command(tag, request)?;
        let answer = self.connection.send(Retry::Script(&self.settle), &cmd).await.map_err(unavailable)?;
        self.bound.settled(answer)
    }

    fn settle_command(&self, tag: Tag, request: &SettleRequest<'_>) -> Result<Cmd, StoreError> {
        let now = exact_now(request.now)?;
        let count = request.charges.len();
        let mut cmd = self.settle.call(count + 1, 1 + count);
        for ChargeChange { charge, .. } in request.charges {
            cmd.arg(self.keys.counter(tag, charge.counter, &charge.subject));
        }
        cmd.arg(self.keys.record(tag, request.id, request.step.max(1)));
        let head = encode(&[now, self.skew_micros, self.late_micros]);
        cmd.arg(&*with_text(with_generation(head, Generation::by(request.id)), self.remember_millis));
        for change in request.charges {
            cmd.arg(&*encode_change(change)?);
        }
        Ok(cmd)
    }

    async fn forget(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        let (id, tag) = (ReservationId::next(), self.keys.tag(subject));
        let mut cmd = self.reset.call(2, 2);
        cmd.arg(self.keys.counter(tag, counter, subject)).arg(self.keys.record(tag, id, 0));
        cmd.arg(&*with_generation(Vec::new(), Generation::by(id))).arg(self.remember_millis);
        let answer = self.connection.send(Retry::Script(&self.reset), &cmd).await.map_err(unavailable)?;
        self.bound.settled(answer)
    }
}

impl AsyncCounterStore for RedisStore {
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        Box::pin(async move {
            let waiting = Waiting::new(&self.0, request);
            let outcome = self.0.run(request, true).await;
            waiting.answered();
            outcome
        })
    }

    fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        Box::pin(self.0.run(request, false))
    }

    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()> {
        Box::pin(self.0.change(request))
    }

    fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> StoreFuture<'a, ()> {
        Box::pin(self.0.forget(counter, subject))
    }

    /// Frees the units in flight in the background, if there is a runtime and not too many such
    /// requests are on their way. Otherwise their leases end.
    fn abandon(&self, request: &SettleRequest<'_>) {
        self.0.abandon(request);
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("prefix", &self.0.keys.prefix()).finish_non_exhaustive()
    }
}

/// Entry points for the fuzz targets, which pass arbitrary replies. Not part of the public API.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    use redis::Value;

    use super::{Outcome, SkewBound, StoreError};
    use crate::charge::Charge;
    use crate::time::Timestamp;

    const BOUND: SkewBound = SkewBound(1_000);

    /// Reads a reply of `reserve.lua` to a reservation.
    pub fn reserved(answer: Value, charges: &[Charge], now: Timestamp) -> Result<Outcome, StoreError> {
        BOUND.reserved(answer, charges, now)
    }

    /// Reads a reply of `reserve.lua` to a peek.
    pub fn peeked(answer: Value, charges: &[Charge], now: Timestamp) -> Result<Outcome, StoreError> {
        BOUND.peeked(answer, charges, now)
    }

    /// Reads a reply of `settle.lua`.
    pub fn settled(answer: Value) -> Result<(), StoreError> {
        BOUND.settled(answer)
    }
}
