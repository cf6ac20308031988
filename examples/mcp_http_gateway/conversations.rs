//! The MCP sessions that go through the gateway, each its grant's own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use tokio::sync::{oneshot, watch};
use toolgate::AsyncPermit;
use toolgate::mcp::{RefusalFormat, RequestId, Session};

/// The longest id that a server may give to a session.
const ID: usize = 1024;

/// What still runs of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Open,
    /// It is over: whatever waits for the server waits no longer.
    Closed,
}

/// One MCP session; or, with a server that keeps none, one request and its answer.
pub(crate) struct Conversation {
    pub(crate) grant: Arc<str>,
    id: OnceLock<(HeaderValue, String)>,
    session: Mutex<Session<AsyncPermit>>,
    stage: watch::Sender<Stage>,
    /// Ends the streams that listen, but nothing else.
    listeners: watch::Sender<u64>,
    /// The requests whose answer may come on another stream than their own, each with whoever waits for it.
    parked: Mutex<HashMap<RequestId, oneshot::Sender<()>>>,
    began: Instant,
    /// Milliseconds after `began` at which it was used last.
    used: AtomicU64,
    users: AtomicUsize,
}

/// Keeps a conversation from being taken for an idle one.
pub(crate) struct Using(Arc<Conversation>);

impl Conversation {
    /// One that has no id yet. Refusals are written in this form, else as the protocol's version has it.
    pub(crate) fn new(grant: &Arc<str>, form: Option<RefusalFormat>) -> Arc<Self> {
        let session = Session::new();
        let session = match form {
            None => session,
            Some(form) => session.with_form(form),
        };
        Arc::new(Self {
            grant: Arc::clone(grant),
            id: OnceLock::new(),
            session: Mutex::new(session),
            stage: watch::Sender::new(Stage::Open),
            listeners: watch::Sender::new(0),
            parked: Mutex::default(),
            began: Instant::now(),
            used: AtomicU64::new(0),
            users: AtomicUsize::new(0),
        })
    }

    /// The id that the server gave it.
    pub(crate) fn id(&self) -> Option<&HeaderValue> {
        self.id.get().map(|(id, _)| id)
    }

    /// What the gate knows it by: a digest of its id, the same at every gateway. Whoever reads it in a log cannot speak in it.
    pub(crate) fn name(&self) -> Option<&str> {
        self.id.get().map(|(_, name)| name.as_str())
    }

    pub(crate) fn session(&self) -> MutexGuard<'_, Session<AsyncPermit>> {
        self.session.lock()
    }

    pub(crate) fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    pub(crate) fn listeners(&self) -> watch::Receiver<u64> {
        self.listeners.subscribe()
    }

    /// Ends the streams that only listen.
    pub(crate) fn end_listeners(&self) {
        self.listeners.send_modify(|ended| *ended += 1);
    }

    pub(crate) fn close(&self) {
        self.stage.send_replace(Stage::Closed);
        self.end_listeners();
    }

    /// Waits for an answer that may come on another stream. What is given back ends when it has come.
    pub(crate) fn park(&self, id: &RequestId) -> oneshot::Receiver<()> {
        let (answered, answer) = oneshot::channel();
        self.parked.lock().insert(id.clone(), answered);
        answer
    }

    /// An answer has come; or nobody waits for it any more.
    pub(crate) fn unpark(&self, id: &RequestId) {
        self.parked.lock().remove(id);
    }

    pub(crate) fn using(self: &Arc<Self>) -> Using {
        self.users.fetch_add(1, Ordering::Relaxed);
        Using(Arc::clone(self))
    }

    fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(now, Ordering::Relaxed);
    }

    fn is_idle(&self, bound: Duration) -> bool {
        let used = Duration::from_millis(self.used.load(Ordering::Relaxed));
        self.users.load(Ordering::Relaxed) == 0 && self.began.elapsed().saturating_sub(used) > bound
    }
}

impl std::ops::Deref for Using {
    type Target = Arc<Conversation>;

    fn deref(&self) -> &Arc<Conversation> {
        &self.0
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.0.touch();
        self.0.users.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a server's new session is none here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// The grant has as many as it may have.
    TooMany,
    /// Its id is none that a header can carry, or another session's.
    BadId,
}

/// All sessions. Bounded: so many for each grant, and none that has been idle for long.
pub(crate) struct Conversations {
    for_each_grant: usize,
    idle: Duration,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    by_id: HashMap<Box<[u8]>, Arc<Conversation>>,
    count: HashMap<Arc<str>, usize>,
}

impl Conversations {
    pub(crate) fn new(for_each_grant: usize, idle: Duration) -> Self {
        Self { for_each_grant, idle, held: Mutex::default() }
    }

    /// The session of this id, if it is the grant's. That of another grant is as unknown as none.
    pub(crate) fn find(&self, id: &HeaderValue, grant: &str) -> Option<Using> {
        let held = self.held.lock();
        held.by_id.get(id.as_bytes()).filter(|found| *found.grant == *grant).map(Conversation::using)
    }

    pub(crate) fn has_room(&self, grant: &str) -> bool {
        self.held.lock().count.get(grant).is_none_or(|count| *count < self.for_each_grant)
    }

    /// Keeps a conversation under the id that the server has given it.
    pub(crate) fn keep(&self, conversation: &Arc<Conversation>, id: &HeaderValue) -> Result<(), Unusable> {
        let bytes = id.as_bytes();
        if bytes.is_empty() || bytes.len() > ID || !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(Unusable::BadId);
        }
        let mut held = self.held.lock();
        let held = &mut *held;
        if held.by_id.contains_key(bytes) {
            return Err(Unusable::BadId);
        }
        let count = held.count.entry(Arc::clone(&conversation.grant)).or_default();
        if *count >= self.for_each_grant {
            return Err(Unusable::TooMany);
        }
        let name = Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        conversation.id.set((id.clone(), name)).map_err(|_| Unusable::BadId)?;
        *count += 1;
        held.by_id.insert(bytes.into(), Arc::clone(conversation));
        Ok(())
    }

    /// Forgets a conversation, and ends what waits in it.
    pub(crate) fn close(&self, conversation: &Conversation) {
        if let Some(id) = conversation.id() {
            self.held.lock().remove(id.as_bytes());
        }
        conversation.close();
    }

    /// Closes those that have been idle for long, and those that `goes` says.
    pub(crate) fn sweep(&self, goes: impl Fn(&Conversation) -> bool) {
        let mut held = self.held.lock();
        let gone = held.by_id.iter().filter(|(_, held)| held.is_idle(self.idle) || goes(held));
        let gone: Vec<_> = gone.map(|(id, _)| id.clone()).collect();
        for id in gone {
            if let Some(conversation) = held.remove(&id) {
                conversation.close();
            }
        }
    }

    /// Does something with each.
    pub(crate) fn for_each(&self, act: impl Fn(&Conversation)) {
        self.held.lock().by_id.values().for_each(|conversation| act(conversation));
    }
}

impl Held {
    fn remove(&mut self, id: &[u8]) -> Option<Arc<Conversation>> {
        let conversation = self.by_id.remove(id)?;
        if let Some(count) = self.count.get_mut(&conversation.grant) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&conversation.grant);
            }
        }
        Some(conversation)
    }
}
