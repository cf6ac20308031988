//! Counters in Redis or Valkey, shared by processes.

mod builder;
mod wire;

use std::fmt;

use redis::{Cmd, Value};

use crate::charge::{CounterId, Subject};
use crate::redis::{Known, Link, Sent};
use crate::store::{AsyncCounterStore, Outcome, ReserveRequest, SettleRequest, StoreError, StoreFuture, Tallies};
use wire::{Bound, Keys};

pub use crate::redis::BuildError;
pub use builder::RedisStoreBuilder;

/// A store of counters in Redis 7 or Valkey: processes that name the same server and prefix share them.
///
/// Every decision is one round trip, whatever the number of limits: one script that checks all counters and charges all or
/// none. The arithmetic is that of [`Counter`](crate::store::Counter), to the last millionth, on the server too.
///
/// ```no_run
/// use toolgate::store::redis::RedisStore;
/// use toolgate::{Gate, Policy};
///
/// # async fn run(policy: Policy) -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::builder("redis://127.0.0.1:6379").build()?;
/// let gate = Gate::builder().policy(policy.with_namespace("payments")).store(store).build();
/// # Ok(())
/// # }
/// ```
///
/// It needs a tokio runtime with I/O and time. It connects when it is first used, keeps one connection for all tasks, and connects
/// again by itself: a host may start before the server does.
///
/// # When the server fails
/// Whatever is not certain is [`StoreError::Unavailable`], and the gate denies. No request takes longer than the
/// [deadline](RedisStoreBuilder::deadline), and after several failures in a row none is sent [for a
/// moment](RedisStoreBuilder::circuit_breaker).
///
/// A request whose answer was lost is sent once more, and counts once: the server remembers what it has done for
/// [a minute](RedisStoreBuilder::remember), under the reservation's id and the settlement's step. If that fails too, what was
/// charged stays charged: the store never counts too little, only too much, until the window ends.
///
/// # What the server must be
/// * One that evicts nothing: `maxmemory-policy noeviction`, which is the default. With any other policy a server that is full
///   forgets live counters, and their limits begin anew. One that refuses to write (`noeviction`, or a disk that is full)
///   is [`StoreError::Unavailable`] here, and nothing is charged.
/// * One that is not lost. Replication is asynchronous: after a failover the new master lacks what the old one had not sent
///   yet, so up to as much as was admitted in that time (the replication lag, milliseconds as a rule) is admitted once more, and
///   calls in flight that it has not heard of are not counted. `min-replicas-to-write 1` with `min-replicas-max-lag` bounds
///   that time: a master without a replica that keeps up refuses. A server without persistence begins with empty counters:
///   up to `max` is admitted again. `appendfsync everysec` loses a second at most.
/// * In a cluster all keys of one store are on one node, by the hash tag `{prefix}`. This store speaks to one server and
///   follows no redirection: give it the address of the node, or of a proxy. A store for clusters would gain
///   nothing but that, since the counters of one call (of a grant, a user, and all) must be together to be charged together.
///
/// # Clocks
/// Windows are those of the host's clock: the gate's, which a host can replace. The script compares it with the server's, and
/// refuses where they are [too far apart](RedisStoreBuilder::max_skew), [`StoreError::ClockSkew`]. Two hosts whose clocks
/// differ by less see a window begin at two moments up to twice that bound apart. A counter has one window at a time, the latest that anybody charged: so a
/// window that has begun for the first host has begun for all, no host ever opens one again, and each window admits `max`
/// at most, by any clock. What stretches is the time between two windows: in any interval as long as the window a fixed window admits up to
/// twice `max` as ever; a sliding window or a token bucket admits `max` in each interval of its length by the clock that was ahead, so up to
/// that much more as the bound is part of the length. A lease may end as much too early for a host whose clock is ahead.
///
/// # Memory
/// A counter takes one key: some 200 bytes on the server for a fixed window or a token bucket of one subject, 150 and 24 for each slot
/// (1,700 at most) for a sliding window, 150 and 24 for each call in flight. A counter with 65,536 units in flight takes no more,
/// [`StoreError::Full`]; each charge rewrites the counter, so limits in flight should be thousands at most. Every key expires
/// by itself, when the counter holds nothing any more and the bound on clocks has passed. Each reservation and each settlement
/// takes another 150 bytes for the time that it is remembered.
///
/// # Keys
/// `{prefix}:c:`, the counter's 16 bytes, and the [`Subject`]'s; `{prefix}:r:`, and a reservation's 20 bytes. What callers chose
/// stands behind bytes of one length: no two counters have one name, and none has that of anything else. A user for the store needs
/// `~{prefix}:*`, `+eval`, `+evalsha`, `+script|load`, `+mget`, `+exists`, `+set`, `+del`, `+time`.
pub struct RedisStore {
    link: Link,
    keys: Keys,
    prefix: String,
    reserve: Known,
    settle: Known,
    bound: Bound,
    skew_micros: i64,
    /// How long a counter is kept after its end.
    late_micros: i64,
    remember_millis: i64,
}

impl RedisStore {
    /// A store at `redis://user:password@host:6379/0`, `rediss://…` (feature `redis-tls`) or `redis+unix:///run/redis.sock`.
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url.into())
    }

    async fn run(&self, request: &ReserveRequest<'_>, charging: bool) -> Result<Outcome, StoreError> {
        if request.charges.is_empty() {
            return Ok(Outcome::Granted(Tallies::new()));
        }
        let cmd = self.reserve_command(request, charging)?;
        let answer = self.link.ask(Sent::Script(&self.reserve), &cmd).await.map_err(wire::unavailable)?;
        match charging {
            true => self.bound.reserved(answer, request.charges, request.now),
            false => self.bound.looked(answer, request.charges, request.now),
        }
    }

    fn reserve_command(&self, request: &ReserveRequest<'_>, charging: bool) -> Result<Cmd, StoreError> {
        let now = wire::present(request.now)?;
        let count = request.charges.len();
        let mut cmd = self.reserve.call(count + usize::from(charging), 1 + count);
        for charge in request.charges {
            cmd.arg(self.keys.counter(charge.counter, &charge.subject));
        }
        if charging {
            cmd.arg(self.keys.record(request.id, 0));
        }
        let head = wire::numbers(&[i64::from(charging), now, self.skew_micros, self.late_micros]);
        cmd.arg(&*wire::with_text(head, self.remember_millis));
        for charge in request.charges {
            cmd.arg(&*wire::charged(charge, now, self.late_micros)?);
        }
        Ok(cmd)
    }

    async fn change(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
        if request.charges.is_empty() {
            return Ok(());
        }
        let cmd = self.settle_command(request)?;
        let answer = self.link.ask(Sent::Script(&self.settle), &cmd).await.map_err(wire::unavailable)?;
        self.bound.done(answer)
    }

    fn settle_command(&self, request: &SettleRequest<'_>) -> Result<Cmd, StoreError> {
        let now = wire::present(request.now)?;
        let count = request.charges.len();
        let mut cmd = self.settle.call(count + 1, 1 + count);
        for settled in request.charges {
            cmd.arg(self.keys.counter(settled.charge.counter, &settled.charge.subject));
        }
        cmd.arg(self.keys.record(request.id, request.step.max(1)));
        let head = wire::numbers(&[now, self.skew_micros, self.late_micros]);
        cmd.arg(&*wire::with_text(head, self.remember_millis));
        for settled in request.charges {
            cmd.arg(&*wire::settled(settled)?);
        }
        Ok(cmd)
    }

    async fn forget(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
        let mut cmd = Cmd::new();
        cmd.arg("DEL").arg(self.keys.counter(counter, subject));
        match self.link.ask(Sent::Once, &cmd).await.map_err(wire::unavailable)? {
            Value::Int(_) => Ok(()),
            _ => Err(wire::nonsense()),
        }
    }
}

impl AsyncCounterStore for RedisStore {
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        Box::pin(self.run(request, true))
    }

    fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        Box::pin(self.run(request, false))
    }

    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()> {
        Box::pin(self.change(request))
    }

    fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> StoreFuture<'a, ()> {
        Box::pin(self.forget(counter, subject))
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A door for the fuzz targets, which hand in what a server might answer. No part of the interface.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod door {
    use super::{Bound, Outcome, StoreError, Value};
    use crate::charge::Charge;
    use crate::time::Timestamp;

    const BOUND: Bound = Bound(1_000);

    /// What `reserve.lua` has answered when it was to charge.
    pub fn reserved(answer: Value, charges: &[Charge], now: Timestamp) -> Result<Outcome, StoreError> {
        BOUND.reserved(answer, charges, now)
    }

    /// What it has answered when it was only to look.
    pub fn looked(answer: Value, charges: &[Charge], now: Timestamp) -> Result<Outcome, StoreError> {
        BOUND.looked(answer, charges, now)
    }

    /// What `settle.lua` has answered.
    pub fn settled(answer: Value) -> Result<(), StoreError> {
        BOUND.done(answer)
    }
}
