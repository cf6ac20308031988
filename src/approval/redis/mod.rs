//! Approvals in Redis or Valkey, shared by processes.

mod builder;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::group::{Place, Shelf, changes};
use super::{
    Approval, ApprovalError, ApprovalId, ApprovalState, Ask, AsyncApprovalStore, CallDigest, Claim, DecideError,
    Verdict,
};
use crate::json::hex::Hex;
use crate::redis::{Beyond, Cause, Known, LATEST, Link, Sent};
use crate::store::StoreFuture;
use crate::time::Timestamp;

pub use builder::RedisApprovalsBuilder;

/// How often a verb tries again because others have changed the same approvals between its reading and its writing. One of them
/// succeeds each time.
const TRIES: usize = 64;
/// How many requests are listed at most, and how many are read at once.
const LISTED: usize = 1_000;
const READ_AT_ONCE: usize = 100;
/// How often a listing reads, however much is added meanwhile.
const READS: usize = 256;
/// Of the nonce before a shelf's text.
const NONCE_BYTES: usize = 32;

/// A store of approvals in Redis 7 or Valkey: processes that name the same server and prefix share them. What is asked of one
/// may be approved at another and used at a third.
///
/// What can happen to an approval is decided here, by the same code as in memory: a verb reads all approvals of a digest, changes them,
/// and a script puts them back if nobody else has done so meanwhile; else it begins again. So of all calls that race for an approval
/// one claims it.
///
/// ```no_run
/// use toolgate::approval::redis::RedisApprovals;
/// use toolgate::store::redis::RedisStore;
/// use toolgate::{Gate, Policy};
///
/// # async fn run(policy: Policy) -> Result<(), Box<dyn std::error::Error>> {
/// let gate = Gate::builder()
///     .policy(policy.with_namespace("payments"))
///     .store(RedisStore::builder("redis://127.0.0.1:6379").build()?)
///     .approvals_async(RedisApprovals::builder("redis://127.0.0.1:6379").build()?)
///     .build();
/// for request in gate.pending_async().await? {
///     println!("{}: {} {}", request.id(), request.tool(), request.details().unwrap_or_default());
/// }
/// # Ok(())
/// # }
/// ```
///
/// It needs a tokio runtime with I/O and time, connects when it is first used, keeps one connection for all tasks, and connects again by
/// itself.
///
/// # When the server fails
/// Whatever is not certain is [`ApprovalError::Unavailable`], and the gate denies. A script whose answer was lost is sent once more, and
/// changes nothing twice. If that fails too, an approval that was just claimed stays used, and a person has to be asked again:
/// nothing passes twice. A server that loses what it was told (no persistence, a failover to a replica that lags) forgets
/// approvals, which errs on the safe side, and that some were used, which does not: `appendfsync always`, or `min-replicas-to-write 1`
/// with `min-replicas-max-lag`, bound that. It must evict nothing: `maxmemory-policy noeviction`, which is the default.
///
/// # Who may write there
/// Whoever can write to the server can approve: give it a user and a password of its own. What cannot have been written by a store is
/// [`ApprovalError::Corrupt`].
///
/// # Clocks
/// The host's clock decides when an approval expires: the gate's. The script compares it with the server's, and refuses where they are
/// too far [apart](RedisApprovalsBuilder::max_skew). Two hosts see an end at two moments, up to twice that bound apart.
///
/// # Keys
/// All keys are on one node of a cluster, by the hash tag `{prefix}`: `{prefix}:a:` and a digest's 32 bytes, all approvals of that
/// digest as JSON, some 600 bytes for each, and its [details](Approval::details); `{prefix}:al`, `{prefix}:ap` and `{prefix}:ag:`
/// with who asked, sorted sets that find what lives and what waits; `{prefix}:an`, the last number. All of them expire by
/// themselves. A user for the store needs `~{prefix}:*`, `+eval`, `+evalsha`, `+script|load`, `+get`, `+mget`, `+set`, `+del`, `+time`,
/// `+pttl`, `+pexpireat`, `+zadd`, `+zrem`, `+zcard`, `+zcount`, `+zrange`, `+zrangebyscore`, `+zremrangebyscore`.
pub struct RedisApprovals {
    link: Link,
    put: Known,
    deadline: Duration,
    prefix: String,
    bound_millis: u64,
    skew_micros: i64,
    /// How long something is kept after its end.
    late: Duration,
    capacity: usize,
    pending: usize,
    details_bytes: usize,
}

/// A shelf as it was read.
struct Kept {
    nonce: Vec<u8>,
    text: String,
    shelf: Shelf,
}

/// What a script has answered.
enum Put {
    Done,
    /// Somebody else has changed the shelf meanwhile.
    Overtaken,
    /// The last number that was given.
    NumberGiven(u64),
}

impl RedisApprovals {
    /// A store at `redis://user:password@host:6379/0`, `rediss://…` (feature `redis-tls`) or `redis+unix:///run/redis.sock`.
    pub fn builder(url: impl Into<String>) -> RedisApprovalsBuilder {
        RedisApprovalsBuilder::new(url.into())
    }

    fn key(&self, letters: &str, rest: &[u8]) -> Vec<u8> {
        [format!("{{{}}}:{letters}", self.prefix).as_bytes(), rest].concat()
    }

    fn shelf_key(&self, digest: &CallDigest) -> Vec<u8> {
        self.key("a:", digest.as_bytes())
    }

    /// Lets something happen to all approvals of a digest, in one step, whoever else does. It may be tried several times; it is
    /// told the last number that was given, where it has to know.
    async fn change<T>(
        &self,
        digest: CallDigest,
        now: Timestamp,
        mut happen: impl FnMut(&mut Shelf, u64) -> T + Send,
    ) -> Result<T, ApprovalError> {
        let present = now.unix_micros();
        if !(0..=LATEST).contains(&present) {
            return Err(unavailable(Beyond::CLOCK.into()));
        }
        let (began, mut last) = (Instant::now(), 0);
        for _ in 0..TRIES {
            let mut kept = self.read(digest).await?;
            let before = kept.shelf.places(self.late);
            let asker = kept.shelf.asker();
            kept.shelf.sweep(now, self.late);
            let result = happen(&mut kept.shelf, last);
            let text = kept.shelf.write();
            if text == kept.text {
                return Ok(result);
            }
            let asker = kept.shelf.asker().or(asker).unwrap_or_default();
            match self.put(digest, &kept, &before, &text, &asker, present).await? {
                Put::Done => return Ok(result),
                Put::Overtaken => {}
                Put::NumberGiven(number) => last = number,
            }
            if began.elapsed() > self.deadline {
                break;
            }
        }
        Err(unavailable(Beyond("others have changed the same approvals for too long").into()))
    }

    async fn read(&self, digest: CallDigest) -> Result<Kept, ApprovalError> {
        let mut cmd = Cmd::new();
        cmd.arg("GET").arg(self.shelf_key(&digest));
        kept(self.link.ask(Sent::Harmless, &cmd).await.map_err(unavailable)?, digest)
    }

    async fn put(
        &self,
        digest: CallDigest,
        kept: &Kept,
        before: &[Place],
        text: &str,
        asker: &str,
        present: i64,
    ) -> Result<Put, ApprovalError> {
        let after = kept.shelf.places(self.late);
        let (gone, put) = changes(before, &after);
        let number_is_in = |places: &[Place], number| places.iter().any(|place| place.number == number);
        let gone: Vec<_> = gone.iter().filter(|place| !number_is_in(&after, place.number)).collect();
        let added = put.iter().find(|place| !number_is_in(before, place.number));
        let new = added.map_or_else(String::new, |place| match place.since {
            Some(_) => place.number.to_string(),
            None => "s".to_owned(),
        });
        let nonce = nonce();
        let value = if text.is_empty() { String::new() } else { format!("{nonce}{text}") };
        let ends = after.iter().map(|place| place.ends_at).max().unwrap_or(Timestamp::UNIX_EPOCH);
        let expires = ends.saturating_add(self.late).unix_micros().max(present) / 1_000 + 1;

        let mut cmd = self.put.call(5, 9 + 3 * (gone.len() + put.len()));
        cmd.arg(self.shelf_key(&digest)).arg(self.key("al", b"")).arg(self.key("ap", b""));
        cmd.arg(self.key("an", b"")).arg(self.key("ag:", asker.as_bytes()));
        cmd.arg(&*kept.nonce).arg(value).arg(&nonce).arg(present).arg(self.skew_micros).arg(expires);
        cmd.arg(self.capacity).arg(self.pending).arg(new);
        for place in gone {
            cmd.arg(member(digest, place.number)).arg("").arg("");
        }
        for place in put {
            let since = place.since.map_or_else(String::new, |since| since.unix_micros().to_string());
            cmd.arg(member(digest, place.number)).arg(place.ends_at.unix_micros()).arg(since);
        }
        let answer = self.link.ask(Sent::Script(&self.put), &cmd).await.map_err(unavailable)?;
        let Value::Array(parts) = answer else { return Err(nonsense()) };
        match *parts.as_slice() {
            [Value::Int(0)] => Ok(Put::Done),
            [Value::Int(1), Value::Int(skew_millis)] => {
                Err(ApprovalError::ClockSkew { skew_millis, bound_millis: self.bound_millis })
            }
            [Value::Int(2)] => Err(ApprovalError::Corrupt),
            [Value::Int(3)] => Ok(Put::Overtaken),
            [Value::Int(4)] => Err(ApprovalError::Full { capacity: self.capacity }),
            [Value::Int(5)] => Err(ApprovalError::TooManyPending { pending: self.pending }),
            [Value::Int(6), Value::Int(last)] => u64::try_from(last).map(Put::NumberGiven).map_err(|_| nonsense()),
            _ => Err(nonsense()),
        }
    }

    /// The oldest that wait. What is listed and does not wait any more is taken off the list. (What has expired by the clock of this
    /// host alone stays on it: the scripts compare clocks, and this does not.)
    async fn list(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        let index = self.key("ap", b"");
        let (mut waiting, mut skip) = (Vec::new(), 0);
        for _ in 0..READS {
            let mut cmd = Cmd::new();
            cmd.arg("ZRANGE").arg(&index).arg(skip).arg(skip + READ_AT_ONCE - 1);
            let listed = match self.link.ask(Sent::Harmless, &cmd).await.map_err(unavailable)? {
                Value::Array(members) => members.into_iter().map(listed).collect::<Option<Vec<_>>>(),
                _ => None,
            };
            let listed = listed.ok_or(ApprovalError::Corrupt)?;
            if listed.is_empty() || waiting.len() >= LISTED {
                break;
            }
            let shelves = self.shelves(&listed).await?;
            let mut stale = Cmd::new();
            stale.arg("ZREM").arg(&index);
            let mut left = 0;
            for id in &listed {
                let kept = shelves.get(&id.digest()).and_then(|shelf| shelf.pending().find(|kept| kept.id() == id));
                // One that does not wait will never wait again.
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
                self.link.ask(Sent::Harmless, &stale).await.map_err(unavailable)?;
            }
            skip += left;
        }
        waiting.truncate(LISTED);
        Ok(waiting)
    }

    /// The shelves of some approvals, each read once: one shelf may hold many.
    async fn shelves(&self, ids: &[ApprovalId]) -> Result<BTreeMap<CallDigest, Shelf>, ApprovalError> {
        let digests: BTreeSet<CallDigest> = ids.iter().map(ApprovalId::digest).collect();
        let mut cmd = Cmd::new();
        cmd.arg("MGET");
        for digest in &digests {
            cmd.arg(self.shelf_key(digest));
        }
        let Value::Array(values) = self.link.ask(Sent::Harmless, &cmd).await.map_err(unavailable)? else {
            return Err(nonsense());
        };
        if values.len() != digests.len() {
            return Err(nonsense());
        }
        let shelf = |(digest, value)| Ok((digest, kept(value, digest)?.shelf));
        digests.into_iter().zip(values).map(shelf).collect()
    }
}

impl AsyncApprovalStore for RedisApprovals {
    fn request<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> StoreFuture<'a, Approval, ApprovalError> {
        Box::pin(async move {
            ask.check_names()?;
            self.change(ask.digest(), now, |shelf, last| {
                if let Some(found) = shelf.find(ask) {
                    return found.clone();
                }
                let instant = u64::try_from(now.unix_micros()).unwrap_or(0);
                let mut number = instant.max(last.saturating_add(1));
                while shelf.has(number) {
                    number = number.saturating_add(1);
                }
                let approval = Approval::new(ask, number, now).with_details_up_to(self.details_bytes);
                shelf.add(approval.clone());
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
        Box::pin(async move { self.change(id.digest(), now, |shelf, _| shelf.decide(id, verdict, by, now)).await? })
    }

    fn claim<'a>(&'a self, id: &'a ApprovalId, now: Timestamp) -> StoreFuture<'a, Option<Claim>, ApprovalError> {
        Box::pin(self.change(id.digest(), now, move |shelf, _| shelf.claim(id, now)))
    }

    fn redeem<'a>(
        &'a self,
        id: &'a ApprovalId,
        until: Timestamp,
        now: Timestamp,
    ) -> StoreFuture<'a, Option<Claim>, ApprovalError> {
        Box::pin(self.change(id.digest(), now, move |shelf, _| shelf.redeem(id, until, now)))
    }

    fn restore<'a>(&'a self, claim: &'a Claim, now: Timestamp) -> StoreFuture<'a, bool, ApprovalError> {
        Box::pin(self.change(claim.approval().digest(), now, move |shelf, _| shelf.restore(claim, now)))
    }

    fn pending(&self, now: Timestamp) -> StoreFuture<'_, Vec<Approval>, ApprovalError> {
        Box::pin(self.list(now))
    }
}

/// What a key holds.
fn kept(value: Value, digest: CallDigest) -> Result<Kept, ApprovalError> {
    let bytes = match value {
        Value::Nil => return Ok(Kept { nonce: Vec::new(), text: String::new(), shelf: Shelf::default() }),
        Value::BulkString(bytes) => bytes,
        _ => return Err(nonsense()),
    };
    let (nonce, text) = bytes.split_at_checked(NONCE_BYTES).ok_or(ApprovalError::Corrupt)?;
    let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty()).ok_or(ApprovalError::Corrupt)?;
    let shelf = Shelf::read(text, digest).ok_or(ApprovalError::Corrupt)?;
    Ok(Kept { nonce: nonce.to_owned(), text: text.to_owned(), shelf })
}

fn member(digest: CallDigest, number: u64) -> Vec<u8> {
    [&digest.as_bytes()[..], &number.to_be_bytes()].concat()
}

fn listed(member: Value) -> Option<ApprovalId> {
    let Value::BulkString(bytes) = member else { return None };
    let (digest, number) = bytes.split_first_chunk::<32>()?;
    Some(ApprovalId::new(CallDigest::new(*digest), u64::from_be_bytes(number.try_into().ok()?)))
}

/// What no other writer has: 128 bits at random.
fn nonce() -> String {
    let half = || RandomState::new().build_hasher().finish().to_be_bytes();
    Hex([half(), half()].as_flattened()).to_string()
}

fn unavailable(cause: Cause) -> ApprovalError {
    ApprovalError::unavailable(cause)
}

/// An answer that no script gives.
fn nonsense() -> ApprovalError {
    unavailable(Beyond::NONSENSE.into())
}

impl fmt::Debug for RedisApprovals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisApprovals").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A door for the fuzz targets, which hand in what a key might hold. No part of the interface.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod door {
    use super::{Approval, ApprovalError, ApprovalId, CallDigest, Value};

    /// The approvals of a digest, and the text that they would be written as.
    pub fn kept(value: Value, digest: CallDigest) -> Result<(Vec<Approval>, String), ApprovalError> {
        super::kept(value, digest).map(|kept| (kept.shelf.approvals.clone(), kept.shelf.write()))
    }

    /// The approval that a member of a list names.
    pub fn listed(member: Value) -> Option<ApprovalId> {
        super::listed(member)
    }
}
