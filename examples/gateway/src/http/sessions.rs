//! The MCP sessions with one server, each owned by one caller.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::header::HeaderValue;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use toolgate::mcp::RequestId;

use crate::config::Limits;
use crate::link::Link;
use crate::who::Who;

/// The longest id that a server may give to a session.
const MAX_ID_BYTES: usize = 1024;
/// The time over which new sessions of a grant are counted.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// One MCP session; or, with a server that keeps none, one request and its answer.
pub(super) struct Conversation {
    pub(super) link: Link,
    /// The id that the server gave, and the name that the gate uses: a digest of the id, the same
    /// at every gateway. Who reads it in a log cannot use it.
    id: OnceLock<(HeaderValue, String)>,
    /// Ends everything that waits for the server.
    pub(super) closed: CancellationToken,
    /// Ends the streams that only listen.
    pub(super) end_listeners: Notify,
    /// The requests whose answer may come on another stream than their own.
    parked: Mutex<HashMap<RequestId, oneshot::Sender<()>>>,
    used: Mutex<Instant>,
}

impl Conversation {
    pub(super) fn new(link: Link) -> Arc<Self> {
        Arc::new(Self {
            link,
            id: OnceLock::new(),
            closed: CancellationToken::new(),
            end_listeners: Notify::new(),
            parked: Mutex::default(),
            used: Mutex::new(Instant::now()),
        })
    }

    /// Returns the id that the server gave.
    pub(super) fn id(&self) -> Option<&HeaderValue> {
        self.id.get().map(|(id, _)| id)
    }

    pub(super) fn grant(&self) -> &str {
        self.link.who.grant.as_deref().unwrap_or_default()
    }

    /// Returns the caller, with the context that its latest token gives.
    pub(super) fn who(&self, context: Option<&Map<String, Value>>) -> Who {
        let session = self.id.get().map(|(_, name)| name.clone());
        Who { session, context: context.cloned(), ..self.link.who.clone() }
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
        self.end_listeners.notify_waiters();
    }

    /// Waits for an answer that may come on another stream. The receiver ends when it has come.
    pub(super) fn park(&self, id: &RequestId) -> oneshot::Receiver<()> {
        let (answered, answer) = oneshot::channel();
        self.parked.lock().insert(id.clone(), answered);
        answer
    }

    /// An answer has come, or nobody waits for it any more.
    pub(super) fn unpark(&self, id: &RequestId) {
        self.parked.lock().remove(id);
    }
}

/// Returns whether nobody uses a conversation: each request and each stream holds it too.
fn is_idle(conversation: &Arc<Conversation>) -> bool {
    Arc::strong_count(conversation) == 1
}

/// Why a new session of the server cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// The grant has as many as it may have, and uses all of them.
    TooMany,
    /// Its id cannot be sent in a header, or belongs to another session.
    BadId,
}

/// All sessions with a server: a bounded number for each grant, and none that is idle for long.
pub(super) struct Sessions {
    per_grant: usize,
    per_minute: u32,
    idle: Duration,
    kept: Mutex<Kept>,
}

type Id = Box<[u8]>;

#[derive(Default)]
struct Kept {
    by_id: HashMap<Id, Arc<Conversation>>,
    of_grant: HashMap<String, OfGrant>,
}

/// The sessions of one grant.
struct OfGrant {
    ids: HashSet<Id>,
    /// The start of the minute in which new sessions are counted, and their number.
    minute: Instant,
    begun: u32,
}

impl Kept {
    fn of_grant(&mut self, grant: &str) -> &mut OfGrant {
        let new = || OfGrant { ids: HashSet::new(), minute: Instant::now(), begun: 0 };
        self.of_grant.entry(grant.to_owned()).or_insert_with(new)
    }

    /// Forgets a session, and ends what waits in it.
    fn remove(&mut self, id: &[u8]) -> Option<Arc<Conversation>> {
        let conversation = self.forget(id)?;
        conversation.close();
        Some(conversation)
    }

    fn forget(&mut self, id: &[u8]) -> Option<Arc<Conversation>> {
        let conversation = self.by_id.remove(id)?;
        self.of_grant(conversation.grant()).ids.remove(id);
        Some(conversation)
    }

    /// Returns the session of a grant that has been idle for longest.
    fn oldest_idle(&self, grant: &str) -> Option<&Arc<Conversation>> {
        let of_grant = self.of_grant.get(grant).into_iter().flat_map(|of_grant| &of_grant.ids);
        let idle = of_grant.filter_map(|id| self.by_id.get(id)).filter(|conversation| is_idle(conversation));
        idle.min_by_key(|conversation| *conversation.used.lock())
    }
}

impl Sessions {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            per_grant: usize::try_from(limits.sessions_per_grant.get()).unwrap_or(usize::MAX),
            per_minute: limits.new_sessions_per_minute.get(),
            idle: Duration::from_secs(limits.session_idle_seconds.into()),
            kept: Mutex::default(),
        }
    }

    /// Returns the session of this id if it belongs to the caller. The session of another caller is
    /// as unknown as one that does not exist.
    pub(super) fn find(&self, id: &HeaderValue, who: &Who) -> Option<Arc<Conversation>> {
        let kept = self.kept.lock();
        let owns = |owner: &Who| (&owner.grant, &owner.user, &owner.agent) == (&who.grant, &who.user, &who.agent);
        let found = kept.by_id.get(id.as_bytes()).filter(|found| owns(&found.link.who))?;
        *found.used.lock() = Instant::now();
        Some(Arc::clone(found))
    }

    /// Returns whether a grant can have one more session, if need be in place of an idle one.
    pub(super) fn has_room(&self, grant: &str) -> bool {
        let kept = self.kept.lock();
        let number = kept.of_grant.get(grant).map_or(0, |of_grant| of_grant.ids.len());
        number < self.per_grant || kept.oldest_idle(grant).is_some()
    }

    /// Counts a new session of a grant. Returns `false` if it begins too many in a minute.
    pub(super) fn may_begin(&self, grant: &str) -> bool {
        let mut kept = self.kept.lock();
        let of_grant = kept.of_grant(grant);
        if of_grant.minute.elapsed() >= MINUTE {
            (of_grant.minute, of_grant.begun) = (Instant::now(), 0);
        }
        of_grant.begun = of_grant.begun.saturating_add(1);
        of_grant.begun <= self.per_minute
    }

    /// Keeps a conversation under the id that the server has given it. Returns the session that has
    /// made room for it, if one had to.
    pub(super) fn keep(
        &self,
        conversation: &Arc<Conversation>,
        id: &HeaderValue,
    ) -> Result<Option<Arc<Conversation>>, Unusable> {
        let (bytes, grant) = (id.as_bytes(), conversation.grant());
        let mut kept = self.kept.lock();
        let fits = !bytes.is_empty() && bytes.len() <= MAX_ID_BYTES && bytes.iter().all(u8::is_ascii_graphic);
        if !fits || kept.by_id.contains_key(bytes) {
            return Err(Unusable::BadId);
        }
        let mut former = None;
        if kept.of_grant(grant).ids.len() >= self.per_grant {
            let oldest = kept.oldest_idle(grant).and_then(|oldest| oldest.id().cloned());
            former = kept.remove(oldest.ok_or(Unusable::TooMany)?.as_bytes());
        }
        let name = hex::encode(Sha256::digest(bytes).get(..16).unwrap_or_default());
        // Only its first answer gives a conversation an id.
        let _ = conversation.id.set((id.clone(), name));
        kept.of_grant(grant).ids.insert(bytes.into());
        kept.by_id.insert(bytes.into(), Arc::clone(conversation));
        Ok(former)
    }

    /// Forgets a conversation that the client has ended. Its streams that only listen end, and its
    /// requests under way go on.
    pub(super) fn forget(&self, conversation: &Conversation) {
        if let Some(id) = conversation.id() {
            self.kept.lock().forget(id.as_bytes());
        }
        conversation.end_listeners.notify_waiters();
    }

    /// Forgets a conversation, and ends what waits in it.
    pub(super) fn close(&self, conversation: &Conversation) {
        if let Some(id) = conversation.id() {
            self.kept.lock().remove(id.as_bytes());
        }
        conversation.close();
    }

    /// Closes the sessions that are idle for long, and those for which `is_over` is true.
    pub(super) fn sweep(&self, is_over: impl Fn(&Conversation) -> bool) {
        let mut kept = self.kept.lock();
        let is_idle_for_long = |conversation: &Arc<Conversation>| {
            let mut used = conversation.used.lock();
            if !is_idle(conversation) {
                *used = Instant::now();
            }
            used.elapsed() > self.idle
        };
        let over = |conversation: &Arc<Conversation>| is_idle_for_long(conversation) || is_over(conversation);
        let over: Vec<_> = kept.by_id.iter().filter(|(_, found)| over(found)).map(|(id, _)| id.clone()).collect();
        for id in over {
            kept.remove(&id);
        }
        kept.of_grant.retain(|_, of_grant| !of_grant.ids.is_empty() || of_grant.minute.elapsed() < MINUTE);
    }

    pub(super) fn for_each(&self, act: impl Fn(&Conversation)) {
        self.kept.lock().by_id.values().for_each(|conversation| act(conversation));
    }
}
