//! Approvals in Redis or Valkey, shared by processes.

mod builder;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::group::{ApprovalGroup, IndexEntry, changes};
use super::{
    Approval, ApprovalError, ApprovalId, ApprovalState, Ask, AsyncApprovalStore, CallDigest, Claim, DecideError,
    Redemption, Verdict,
};
use crate::json::hex::Hex;
use crate::redis::{
    Cause, Connection, LATEST_NOW, OutOfRange, Requirements, Retry, Script, Server, ServerReport, UnexpectedAnswer,
};
use crate::store::StoreFuture;
use crate::time::Timestamp;

pub use builder::RedisApprovalsBuilder;

/// The number of tries of one change. A try fails if others have changed the same approvals between
/// its read and its write; one of the writers succeeds each time.
const MAX_TRIES: usize = 64;
/// The maximum number of requests in a list.
const MAX_LISTED: usize = 1_000;
/// The number of requests that a list reads at once.
const LIST_BATCH: usize = 100;
/// The maximum number of reads of one list, however much is added at the same time.
const MAX_LIST_BATCHES: usize = 256;
/// The commands that the script calls, and those of the store itself.
const COMMANDS: &[&str] = &[
    "DEL {}",
    "GET {}",
    "MGET {}",
    "PEXPIREAT {} 1",
    "PTTL {}",
    "SET {} 0 XX PX 1",
    "TIME",
    "ZADD {} XX 1 m",
    "ZCARD {}",
    "ZCOUNT {} 0 0",
    "ZRANGE {} 0 0",
    "ZRANGEBYSCORE {} 0 0",
    "ZREM {} m",
    "ZREMRANGEBYSCORE {} 0 0",
];
/// The length of the nonce before the text of a group.
const NONCE_BYTES: usize = 32;

/// A store of approvals in Redis 7 or Valkey, shared by all processes with the same server and
/// prefix. A request made in one process can be approved in another and used in a third.
///
/// The changes of an approval are made by the same code as in memory. A method reads all approvals
/// of a digest and changes them; a script writes them back unless somebody else has written in
/// between, in which case the method starts again. So of all calls that race for an approval, one
/// claims it.
///
/// ```no_run
/// use toolgate::approval::redis::RedisApprovals;
/// use toolgate::store::redis::RedisStore;
/// use toolgate::{Gate, Policy};
///
/// # async fn run(policy: Policy) -> Result<(), Box<dyn std::error::Error>> {
/// let gate = Gate::builder()
///     .store_async(RedisStore::builder("redis://127.0.0.1:6379").build()?)
///     .policy(policy.with_namespace("payments"))
///     .approvals(RedisApprovals::builder("redis://127.0.0.1:6379").build()?)
///     .build();
/// for request in gate.pending().await? {
///     println!("{}: {} {}", request.id(), request.tool(), request.shown());
/// }
/// # Ok(())
/// # }
/// ```
///
/// The store needs a tokio runtime with I/O and time (`enable_all`): in a runtime without them,
/// tokio panics. [`RedisApprovalsBuilder::runtime`] takes another one. The store connects on first
/// use, shares one connection between all tasks, and reconnects by itself.
///
/// # When the server fails
/// Every uncertain result is [`ApprovalError::Unavailable`], and the gate denies. A script whose
/// reply was lost is sent once more; it changes nothing twice. If that fails too, an approval that
/// was just claimed stays used, and a person has to be asked again: nothing passes twice.
///
/// A server can lose writes that it has acknowledged (no persistence, a failover to a replica that
/// lags). It then loses approvals, which is the safe side, and the record that some were used,
/// which is not. `appendfsync always`, or `min-replicas-to-write 1` with `min-replicas-max-lag`,
/// limits that. The server must not evict keys: keep `maxmemory-policy noeviction`, the default.
///
/// # Access to the server
/// Whoever can write to the server can approve: give the store a user and a password of its own.
/// Data that no store can have written is [`ApprovalError::Corrupt`].
///
/// # Clocks
/// An approval expires by the clock of the host, which is the gate's. The script compares it with
/// the server's clock, and fails if they [differ too much](RedisApprovalsBuilder::max_skew). Two
/// hosts may see an approval expire at two instants, up to twice that difference apart.
///
/// # Keys
/// The hash tag `{prefix}` keeps all keys on one node of a cluster, and each key has an expiry:
///
/// - `{prefix}:a:` and the 32 bytes of a digest: all approvals of that digest as JSON, some 600
///   bytes each, plus their [details](Approval::details);
/// - `{prefix}:al`, `{prefix}:ap`, and `{prefix}:ag:` with the asker: sorted sets of the live and
///   of the pending approvals;
/// - `{prefix}:an`: the last number.
///
/// A user for the store needs `~{prefix}:*`, `+evalsha`, `+script|load`, `+get`, `+mget`,
/// `+set`, `+del`, `+time`, `+pttl`, `+pexpireat`, `+zadd`, `+zrem`, `+zcard`, `+zcount`,
/// `+zrange`, `+zrangebyscore` and `+zremrangebyscore`. It also needs `+select` if the URL names a
/// database other than 0, `+cluster|slots` and `+asking` in a cluster, `+role` behind sentinels,
/// and `+info` for the whole [check](RedisApprovals::check).
pub struct RedisApprovals {
    connection: Connection,
    put: Script,
    deadline: Duration,
    prefix: String,
    bound_millis: u64,
    skew_micros: i64,
    /// The time for which something is kept after its end.
    late: Duration,
    capacity: usize,
    pending: usize,
    details_bytes: usize,
}

/// A group as it was read from the server.
struct StoredGroup {
    nonce: Vec<u8>,
    text: String,
    group: ApprovalGroup,
}

/// The answer of the script.
enum Put {
    Done,
    /// Somebody else has changed the group since it was read.
    Overtaken,
    /// The new number is not above this one, the last that was assigned.
    LastNumber(u64),
}

impl RedisApprovals {
    /// A builder of a store at a URL such as `redis://user:password@host:6379/0`, or at another
    /// [`Server`]: a cluster, the master that sentinels name, or a connection of the host's own.
    pub fn builder(server: impl Into<Server>) -> RedisApprovalsBuilder {
        RedisApprovalsBuilder::new(server.into())
    }

    /// Compares the server with the needs of the store, for the start of a host and for its
    /// readiness probe, as [`RedisStore::check`](crate::store::redis::RedisStore::check) does.
    pub async fn check(&self) -> ServerReport {
        let max_skew = Duration::from_millis(self.bound_millis);
        let needs = Requirements { key: self.key("check", b""), commands: COMMANDS, scripts: &[&self.put], max_skew };
        let mut report = self.connection.check(needs).await;
        if report.is_ready()
            && let Err(error) = self.read(CallDigest::new([0; 32])).await
        {
            report.add_error("a look at an approval fails", &error, "see the cause");
        }
        report
    }

    fn key(&self, letters: &str, rest: &[u8]) -> Vec<u8> {
        [format!("{{{}}}:{letters}", self.prefix).as_bytes(), rest].concat()
    }

    fn group_key(&self, digest: &CallDigest) -> Vec<u8> {
        self.key("a:", digest.as_bytes())
    }

    /// Applies a change to all approvals of a digest in one atomic step. `change` may run several
    /// times. It gets the last number that was assigned, as far as it is known.
    async fn change<T>(
        &self,
        digest: CallDigest,
        now: Timestamp,
        mut change: impl FnMut(&mut ApprovalGroup, u64) -> T + Send,
    ) -> Result<T, ApprovalError> {
        let present = now.unix_micros();
        if !(0..=LATEST_NOW).contains(&present) {
            return Err(unavailable(OutOfRange::CLOCK.into()));
        }
        let (began, mut last) = (Instant::now(), 0);
        for _ in 0..MAX_TRIES {
            let mut kept = self.read(digest).await?;
            let before = kept.group.index_entries(self.late);
            let asker = kept.group.asker();
            kept.group.sweep(now, self.late);
            let result = change(&mut kept.group, last);
            let text = kept.group.write();
            if text == kept.text {
                return Ok(result);
            }
            let asker = kept.group.asker().or(asker).unwrap_or_default();
            match self.put(digest, &kept, &before, &text, &asker, present).await? {
                Put::Done => return Ok(result),
                Put::Overtaken => {}
                Put::LastNumber(number) => last = number,
            }
            if began.elapsed() > self.deadline {
                break;
            }
        }
        Err(unavailable("the same approvals are changed by others all the time".into()))
    }

    async fn read(&self, digest: CallDigest) -> Result<StoredGroup, ApprovalError> {
        let mut cmd = Cmd::new();
        cmd.arg("GET").arg(self.group_key(&digest));
        kept(self.connection.send(Retry::Idempotent, &cmd).await.map_err(unavailable)?, digest)
    }

    async fn put(
        &self,
        digest: CallDigest,
        kept: &StoredGroup,
        before: &[IndexEntry],
        text: &str,
        asker: &str,
        present: i64,
    ) -> Result<Put, ApprovalError> {
        let after = kept.group.index_entries(self.late);
        let (gone, put) = changes(before, &after);
        let has_number = |entries: &[IndexEntry], number| entries.iter().any(|entry| entry.number == number);
        let gone: Vec<_> = gone.iter().filter(|entry| !has_number(&after, entry.number)).collect();
        let added = put.iter().find(|entry| !has_number(before, entry.number));
        let new = added.map_or_else(String::new, |entry| match entry.since {
            Some(_) => entry.number.to_string(),
            None => "s".to_owned(),
        });
        let nonce = nonce();
        let value = if text.is_empty() { String::new() } else { format!("{nonce}{text}") };
        let ends = after.iter().map(|entry| entry.ends_at).max().unwrap_or(Timestamp::UNIX_EPOCH);
        let expires = ends.saturating_add(self.late).unix_micros().max(present) / 1_000 + 1;

        let mut cmd = self.put.call(5, 9 + 3 * (gone.len() + put.len()));
        cmd.arg(self.group_key(&digest)).arg(self.key("al", b"")).arg(self.key("ap", b""));
        cmd.arg(self.key("an", b"")).arg(self.key("ag:", asker.as_bytes()));
        cmd.arg(&*kept.nonce).arg(value).arg(&nonce).arg(present).arg(self.skew_micros).arg(expires);
        cmd.arg(self.capacity).arg(self.pending).arg(new);
        for entry in gone {
            cmd.arg(member(digest, entry.number)).arg("").arg("");
        }
        for entry in put {
            let since = entry.since.map_or_else(String::new, |since| since.unix_micros().to_string());
            cmd.arg(member(digest, entry.number)).arg(entry.ends_at.unix_micros()).arg(since);
        }
        let answer = self.connection.send(Retry::Script(&self.put), &cmd).await.map_err(unavailable)?;
        let Value::Array(parts) = answer else { return Err(malformed_reply()) };
        match *parts.as_slice() {
            [Value::Int(0)] => Ok(Put::Done),
            [Value::Int(1), Value::Int(skew_millis)] => {
                Err(ApprovalError::ClockSkew { skew_millis, bound_millis: self.bound_millis })
            }
            [Value::Int(2)] => Err(ApprovalError::Corrupt),
            [Value::Int(3)] => Ok(Put::Overtaken),
            [Value::Int(4)] => Err(ApprovalError::Full { capacity: self.capacity }),
            [Value::Int(5)] => Err(ApprovalError::TooManyPending { pending: self.pending }),
            [Value::Int(6), Value::Int(last)] => {
                u64::try_from(last).map(Put::LastNumber).map_err(|_| malformed_reply())
            }
            _ => Err(malformed_reply()),
        }
    }

    /// Returns the oldest pending requests, and removes entries from the list that are no longer
    /// pending. Requests that have expired by this host's clock alone stay on the list: only the
    /// scripts compare clocks.
    async fn list(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        let index = self.key("ap", b"");
        let (mut waiting, mut skip) = (Vec::new(), 0);
        for _ in 0..MAX_LIST_BATCHES {
            let mut cmd = Cmd::new();
            cmd.arg("ZRANGE").arg(&index).arg(skip).arg(skip + LIST_BATCH - 1);
            let listed = match self.connection.send(Retry::Idempotent, &cmd).await.map_err(unavailable)? {
                Value::Array(members) => members.into_iter().map(listed).collect::<Option<Vec<_>>>(),
                _ => None,
            };
            let listed = listed.ok_or(ApprovalError::Corrupt)?;
            if listed.is_empty() || waiting.len() >= MAX_LISTED {
                break;
            }
            let groups = self.groups(&listed).await?;
            let mut stale = Cmd::new();
            stale.arg("ZREM").arg(&index);
            let mut left = 0;
            for id in &listed {
                let kept = groups.get(&id.digest()).and_then(|group| group.pending().find(|kept| kept.id() == id));
                // A request that is not pending will never be pending again.
                let Some(kept) = kept else {
                    stale.arg(member(id.digest(), id.number()));
                    continue;
                };
                left += 1;
                let mut approval = kept.clone();
                if approval.look(now) == ApprovalState::Pending {
                    waiting.push(approval);
                }
            }
            if left < listed.len() {
                self.connection.send(Retry::Idempotent, &stale).await.map_err(unavailable)?;
            }
            skip += left;
        }
        waiting.truncate(MAX_LISTED);
        Ok(waiting)
    }

    /// Reads the groups of some approvals, each once: a group can hold several of them.
    async fn groups(&self, ids: &[ApprovalId]) -> Result<BTreeMap<CallDigest, ApprovalGroup>, ApprovalError> {
        let digests: BTreeSet<CallDigest> = ids.iter().map(ApprovalId::digest).collect();
        let mut cmd = Cmd::new();
        cmd.arg("MGET");
        for digest in &digests {
            cmd.arg(self.group_key(digest));
        }
        let Value::Array(values) = self.connection.send(Retry::Idempotent, &cmd).await.map_err(unavailable)? else {
            return Err(malformed_reply());
        };
        if values.len() != digests.len() {
            return Err(malformed_reply());
        }
        let group = |(digest, value)| Ok((digest, kept(value, digest)?.group));
        digests.into_iter().zip(values).map(group).collect()
    }
}

impl AsyncApprovalStore for RedisApprovals {
    fn request<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> StoreFuture<'a, Approval, ApprovalError> {
        Box::pin(async move {
            ask.check_names()?;
            self.change(ask.digest(), now, |group, last| {
                if let Some(found) = group.find(ask) {
                    return found.clone();
                }
                let instant = u64::try_from(now.unix_micros()).unwrap_or(0);
                let mut number = instant.max(last.saturating_add(1));
                while group.has(number) {
                    number = number.saturating_add(1);
                }
                let approval = Approval::new(ask, number, now).with_details_up_to(self.details_bytes);
                group.add(approval.clone());
                approval
            })
            .await
        })
    }

    fn decide<'a>(
        &'a self,
        id: &'a ApprovalId,
        verdict: Verdict,
        by: &'a str,
        now: Timestamp,
    ) -> StoreFuture<'a, Approval, DecideError> {
        Box::pin(async move { self.change(id.digest(), now, |group, _| group.decide(id, verdict, by, now)).await? })
    }

    fn claim<'a>(&'a self, id: &'a ApprovalId, now: Timestamp) -> StoreFuture<'a, Option<Claim>, ApprovalError> {
        Box::pin(self.change(id.digest(), now, move |group, _| group.claim(id, now)))
    }

    fn refusal<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> StoreFuture<'a, Option<Approval>, ApprovalError> {
        Box::pin(self.change(ask.digest(), now, |group, _| group.refusal(ask).cloned()))
    }

    fn redeem<'a>(
        &'a self,
        id: &'a ApprovalId,
        uses: u32,
        until: Timestamp,
        now: Timestamp,
    ) -> StoreFuture<'a, Redemption, ApprovalError> {
        Box::pin(self.change(id.digest(), now, move |group, _| group.redeem(id, uses, until, now)))
    }

    fn restore<'a>(&'a self, claim: &'a Claim, now: Timestamp) -> StoreFuture<'a, bool, ApprovalError> {
        Box::pin(self.change(claim.approval().digest(), now, move |group, _| group.restore(claim, now)))
    }

    fn pending(&self, now: Timestamp) -> StoreFuture<'_, Vec<Approval>, ApprovalError> {
        Box::pin(self.list(now))
    }
}

/// Reads the value of a group's key.
fn kept(value: Value, digest: CallDigest) -> Result<StoredGroup, ApprovalError> {
    let bytes = match value {
        Value::Nil => {
            return Ok(StoredGroup { nonce: Vec::new(), text: String::new(), group: ApprovalGroup::default() });
        }
        Value::BulkString(bytes) => bytes,
        _ => return Err(malformed_reply()),
    };
    let (nonce, text) = bytes.split_at_checked(NONCE_BYTES).ok_or(ApprovalError::Corrupt)?;
    let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty()).ok_or(ApprovalError::Corrupt)?;
    let group = ApprovalGroup::read(text, digest).ok_or(ApprovalError::Corrupt)?;
    Ok(StoredGroup { nonce: nonce.to_owned(), text: text.to_owned(), group })
}

fn member(digest: CallDigest, number: u64) -> Vec<u8> {
    [&digest.as_bytes()[..], &number.to_be_bytes()].concat()
}

fn listed(member: Value) -> Option<ApprovalId> {
    let Value::BulkString(bytes) = member else { return None };
    let (digest, number) = bytes.split_first_chunk::<32>()?;
    Some(ApprovalId::new(CallDigest::new(*digest), u64::from_be_bytes(number.try_into().ok()?)))
}

/// 128 random bits, which no other writer has.
fn nonce() -> String {
    let half = || RandomState::new().build_hasher().finish().to_be_bytes();
    Hex([half(), half()].as_flattened()).to_string()
}

fn unavailable(cause: Cause) -> ApprovalError {
    ApprovalError::unavailable(cause)
}

/// The error for a reply that no script or command gives.
fn malformed_reply() -> ApprovalError {
    unavailable(UnexpectedAnswer.into())
}

impl fmt::Debug for RedisApprovals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisApprovals").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Entry points for the fuzz targets, which pass arbitrary replies. Not part of the public API.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    use super::{Approval, ApprovalError, ApprovalId, CallDigest, Value};

    /// Reads the approvals of a digest, and writes them again.
    pub fn kept(value: Value, digest: CallDigest) -> Result<(Vec<Approval>, String), ApprovalError> {
        super::kept(value, digest).map(|kept| (kept.group.approvals.clone(), kept.group.write()))
    }

    /// Reads the id in a member of a list.
    pub fn listed(member: Value) -> Option<ApprovalId> {
        super::listed(member)
    }
}
