//! The MCP sessions with one server, each owned by one caller.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::header::HeaderValue;
use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use toolgate::AsyncPermit;
use toolgate::mcp::{RefusalFormat, RequestId, Session};

use crate::who::Who;

/// The longest id that a server may give to a session.
const MAX_ID_BYTES: usize = 1024;

/// One MCP session; or, with a server that keeps none, one request and its answer.
pub(super) struct Conversation {
    /// The caller. The session's name is set once the server has given an id.
    owner: Who,
    /// The id that the server gave, and the name that the gate uses: a digest of the id, the same
    /// at every gateway. Who reads it in a log cannot use it.
    id: OnceLock<(HeaderValue, String)>,
    session: Mutex<Session<AsyncPermit>>,
    /// Ends everything that waits for the server.
    pub(super) closed: CancellationToken,
    /// Ends the streams that only listen.
    pub(super) end_listeners: Notify,
    /// The requests whose answer may come on another stream than their own.
    parked: Mutex<HashMap<RequestId, oneshot::Sender<()>>>,
    used: Mutex<Instant>,
}

impl Conversation {
    pub(super) fn new(owner: Who, format: Option<RefusalFormat>) -> Arc<Self> {
        let session = format.into_iter().fold(Session::new(), Session::with_form);
        Arc::new(Self {
            owner,
            id: OnceLock::new(),
            session: Mutex::new(session),
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

    pub(super) fn session(&self) -> MutexGuard<'_, Session<AsyncPermit>> {
        self.session.lock()
    }

    pub(super) fn grant(&self) -> &str {
        self.owner.grant.as_deref().unwrap_or_default()
    }

    /// Returns the caller, with the context that its latest token gives.
    pub(super) fn who(&self, context: Option<&serde_json::Map<String, serde_json::Value>>) -> Who {
        let session = self.id.get().map(|(_, name)| name.clone());
        Who { session, context: context.cloned(), ..self.owner.clone() }
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

/// Why a new session of the server cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// The grant has as many as it may have.
    TooMany,
    /// Its id cannot be sent in a header, or belongs to another session.
    BadId,
}

/// All sessions with a server: a bounded number for each grant, and none that is idle for long.
pub(super) struct Sessions {
    per_grant: usize,
    idle: Duration,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_id: HashMap<Box<[u8]>, Arc<Conversation>>,
    count: HashMap<String, usize>,
}

impl Kept {
    fn remove(&mut self, id: &[u8]) {
        let Some(conversation) = self.by_id.remove(id) else { return };
        if let Some(count) = self.count.get_mut(conversation.grant()) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(conversation.grant());
            }
        }
        conversation.close();
    }
}

impl Sessions {
    pub(super) fn new(per_grant: usize, idle: Duration) -> Self {
        Self { per_grant, idle, kept: Mutex::default() }
    }

    /// Returns the session of this id if it belongs to the caller. The session of another caller is
    /// as unknown as one that does not exist.
    pub(super) fn find(&self, id: &HeaderValue, who: &Who) -> Option<Arc<Conversation>> {
        let kept = self.kept.lock();
        let owns = |owner: &Who| (&owner.grant, &owner.user, &owner.agent) == (&who.grant, &who.user, &who.agent);
        let found = kept.by_id.get(id.as_bytes()).filter(|found| owns(&found.owner))?;
        *found.used.lock() = Instant::now();
        Some(Arc::clone(found))
    }

    pub(super) fn has_room(&self, grant: &str) -> bool {
        self.kept.lock().count.get(grant).is_none_or(|count| *count < self.per_grant)
    }

    /// Keeps a conversation under the id that the server has given it.
    pub(super) fn keep(&self, conversation: &Arc<Conversation>, id: &HeaderValue) -> Result<(), Unusable> {
        let bytes = id.as_bytes();
        let mut kept = self.kept.lock();
        let fits = !bytes.is_empty() && bytes.len() <= MAX_ID_BYTES && bytes.iter().all(u8::is_ascii_graphic);
        if !fits || kept.by_id.contains_key(bytes) {
            return Err(Unusable::BadId);
        }
        let count = kept.count.entry(conversation.grant().to_owned()).or_default();
        if *count >= self.per_grant {
            return Err(Unusable::TooMany);
        }
        *count += 1;
        let name = Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        // Only its first answer gives a conversation an id.
        let _ = conversation.id.set((id.clone(), name));
        kept.by_id.insert(bytes.into(), Arc::clone(conversation));
        Ok(())
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
        let is_idle = |conversation: &Arc<Conversation>| {
            let mut used = conversation.used.lock();
            // A request or a stream holds it too.
            if Arc::strong_count(conversation) > 1 {
                *used = Instant::now();
            }
            used.elapsed() > self.idle
        };
        let over = kept.by_id.iter().filter(|(_, conversation)| is_idle(conversation) || is_over(conversation));
        for id in over.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            kept.remove(&id);
        }
    }

    pub(super) fn for_each(&self, act: impl Fn(&Conversation)) {
        self.kept.lock().by_id.values().for_each(|conversation| act(conversation));
    }
}
