//! The state that all sessions with one server share: calls that go on after an answer, and what
//! the server's lists of tools have shown.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::Call;
use super::tools::Tools;
use crate::call::Caller;
use crate::call::identity::Identity;
use crate::decision::permit::{AnyPermit, Permit};
use crate::json::canonical;
use crate::json::hex::Hex;
use crate::policy::Policy;
use crate::time::{Clock, SystemClock, Timestamp};

/// The state that all sessions with one server share. Clones are the same state.
///
/// It keeps the permits of calls that go on after an answer: the server asks for input before it
/// continues, or runs the call as a task. The client may go on in another session, or without any
/// session, as over HTTP from protocol version 2026-07-28. It also keeps what the server's lists
/// of tools have shown, without which neither refusals nor headers can be written as clients and
/// servers expect them.
///
/// A host with one session for each connection (stdio) need not make one: every
/// [`Session::new`](super::Session::new) has its own. A host with many sessions makes one for each
/// server, and joins each session to it with
/// [`Session::sharing`](super::Session::sharing). What it keeps is bounded to 64 MiB, and to a
/// sixteenth of that for each caller.
///
/// A gateway of several processes sends the rounds of a call to the same process: another process
/// refuses them with the code `unknown_state`.
pub struct ServerState<P = Permit>(Arc<Shared<P>>);

struct Shared<P> {
    clock: Arc<dyn Clock>,
    input_timeout: Duration,
    held: Mutex<Held<P>>,
    tools: Mutex<Tools>,
}

/// The bytes that held calls may take in all.
const CAPACITY: usize = 64 << 20;
/// The bytes that each caller may take.
const SHARE: usize = CAPACITY / 16;
/// The bytes that a held call takes beside its texts.
const CALL_BYTES: usize = 512;
/// The maximum length of a task's id in bytes.
const MAX_TASK_ID_BYTES: usize = 1_024;
/// The time for which a task is held whose permit holds no unit in flight.
const TASK_TIME: Duration = Duration::from_secs(3_600);
/// The rounds that a call may take.
pub(super) const MAX_ROUNDS: u8 = 16;
const INPUT_TIMEOUT: Duration = Duration::from_secs(600);

/// A call that goes on.
#[derive(Debug)]
pub(super) struct HeldCall<P> {
    pub(super) permit: P,
    /// The caller, the tool and the arguments.
    pub(super) binding: Binding,
    asker: Arc<str>,
    /// The state that the server gave.
    pub(super) server_state: Option<Box<str>>,
    /// The number of the round that the server has answered.
    pub(super) round: u8,
    /// The digest of the policy under which the call was approved.
    pub(super) approved_under: Option<[u8; 32]>,
    until: Timestamp,
}

/// A SHA-256 over the caller, the tool and the arguments of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Binding([u8; 32]);

impl Binding {
    /// The binding of a call that is never continued by its state.
    pub(super) fn none() -> Self {
        Self([0; 32])
    }

    pub(super) fn of(asker: &str, call: &Call) -> Self {
        let mut text = String::from(asker);
        canonical::write_text(&mut text, call.tool());
        canonical::write_object(&mut text, call.arguments().unwrap_or(&Map::new()));
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    /// A call that waits for input, by the state that the client has.
    State(Box<str>),
    /// A call that runs as a task, by the task's id.
    Task(Box<str>),
}

struct Held<P> {
    calls: HashMap<Key, HeldCall<P>>,
    by_time: BTreeSet<(Timestamp, Key)>,
    bytes: usize,
    bytes_of: HashMap<Arc<str>, usize>,
}

impl<P> ServerState<P> {
    /// A state without calls, with the clock of the system.
    pub fn new() -> Self {
        Self::with_clock(SystemClock)
    }

    /// A state without calls, with another clock.
    pub fn with_clock(clock: impl Clock + 'static) -> Self {
        Self::of(Arc::new(clock), INPUT_TIMEOUT)
    }

    /// Waits this long for the client's next round of a call, in place of 10 minutes. Until then
    /// the call keeps its permit.
    #[must_use = "returns the state with the change"]
    pub fn with_input_timeout(self, input_timeout: Duration) -> Self {
        Self::of(Arc::clone(&self.0.clock), input_timeout)
    }

    fn of(clock: Arc<dyn Clock>, input_timeout: Duration) -> Self {
        let held = Held { calls: HashMap::new(), by_time: BTreeSet::new(), bytes: 0, bytes_of: HashMap::new() };
        Self(Arc::new(Shared { clock, input_timeout, held: Mutex::new(held), tools: Mutex::default() }))
    }

    /// The number of calls that wait for input or run as a task.
    pub fn held_calls(&self) -> usize {
        self.0.held.lock().calls.len()
    }

    /// Returns `true` if the policies list different tools of those that the server has listed.
    /// Connected clients must then [learn](super::Session::list_changed) that their list has
    /// changed. O(tools).
    pub fn lists_differ(&self, before: Option<&Policy>, after: Option<&Policy>) -> bool {
        let lists = |policy: Option<&Policy>, tool: &str| policy.is_some_and(|policy| policy.lists(tool));
        self.0.tools.lock().names().any(|tool| lists(before, tool) != lists(after, tool))
    }

    pub(super) fn tools(&self) -> parking_lot::MutexGuard<'_, Tools> {
        self.0.tools.lock()
    }
}

#[expect(private_bounds, reason = "for the two kinds of permits")]
impl<P: AnyPermit> ServerState<P> {
    /// Holds a call that waits for input, and returns the state for the client. `None` if there is
    /// no room.
    pub(super) fn hold_for_input(&self, call: HeldCall<P>) -> Result<String, HeldCall<P>> {
        let mut random = [0; 16];
        if getrandom::fill(&mut random).is_err() {
            return Err(call);
        }
        let state = Hex(&random).to_string();
        self.put(Key::State(state.as_str().into()), call).map(|()| state)
    }

    /// Returns the call that waits for input under this state. Each state serves once.
    pub(super) fn take(&self, state: &str, binding: Binding) -> Option<HeldCall<P>> {
        let key = Key::State(state.into());
        let mut held = self.0.held.lock();
        held.forget_before(self.0.clock.now());
        if held.calls.get(&key)?.binding != binding {
            return None;
        }
        held.remove(&key)
    }

    /// Holds a call again under the state that the client has, because this round of it was
    /// refused.
    pub(super) fn put_back(&self, state: &str, call: HeldCall<P>) {
        if let Err(call) = self.put(Key::State(state.into()), call) {
            call.permit.leave();
        }
    }

    /// Holds a call that runs as a task until the lease of its units in flight ends.
    pub(super) fn hold_task(&self, id: &str, mut call: HeldCall<P>) -> Result<(), HeldCall<P>> {
        if id.is_empty() || id.len() > MAX_TASK_ID_BYTES {
            return Err(call);
        }
        call.until = self.0.clock.now().saturating_add(call.permit.lease().unwrap_or(TASK_TIME));
        self.put(Key::Task(id.into()), call)
    }

    /// Returns the permit of a task that has ended.
    pub(super) fn end_task(&self, id: &str) -> Option<P> {
        self.0.held.lock().remove(&Key::Task(id.into())).map(|call| call.permit)
    }

    /// A call of this asker that is about to be held.
    pub(super) fn call(&self, permit: P, binding: Binding, asker: &Arc<str>) -> HeldCall<P> {
        let until = self.0.clock.now().saturating_add(self.0.input_timeout);
        let approved_under = permit.approved_under();
        HeldCall { permit, binding, asker: Arc::clone(asker), server_state: None, round: 1, approved_under, until }
    }

    fn put(&self, key: Key, call: HeldCall<P>) -> Result<(), HeldCall<P>> {
        let mut held = self.0.held.lock();
        held.forget_before(self.0.clock.now());
        let bytes = call.bytes(&key);
        let used = held.bytes_of.get(&call.asker).copied().unwrap_or_default();
        // A server that gives two tasks one id could end the one by the other.
        if used + bytes > SHARE || held.bytes + bytes > CAPACITY || held.calls.contains_key(&key) {
            return Err(call);
        }
        held.bytes += bytes;
        held.bytes_of.insert(Arc::clone(&call.asker), used + bytes);
        held.by_time.insert((call.until, key.clone()));
        held.calls.insert(key, call);
        Ok(())
    }
}

impl<P> HeldCall<P> {
    fn bytes(&self, key: &Key) -> usize {
        let (Key::State(name) | Key::Task(name)) = key;
        CALL_BYTES + 2 * name.len() + self.server_state.as_deref().map_or(0, str::len)
    }
}

impl<P> Held<P> {
    fn remove(&mut self, key: &Key) -> Option<HeldCall<P>> {
        let (key, call) = self.calls.remove_entry(key)?;
        let bytes = call.bytes(&key);
        self.bytes -= bytes;
        if let Some(used) = self.bytes_of.get_mut(&call.asker) {
            *used -= bytes;
            if *used == 0 {
                self.bytes_of.remove(&call.asker);
            }
        }
        self.by_time.remove(&(call.until, key));
        Some(call)
    }

    /// Drops the permits of calls that are held for too long: their quota stays spent.
    fn forget_before(&mut self, now: Timestamp) {
        while let Some((until, key)) = self.by_time.first().filter(|(until, _)| *until <= now).cloned() {
            if self.remove(&key).is_none() {
                self.by_time.remove(&(until, key));
            }
        }
    }
}

/// The name of a caller in bindings: its identities without the session, which it may not have.
pub(super) fn asker(caller: &Caller) -> Arc<str> {
    let parts = [Identity::Grant, Identity::User, Identity::Agent, Identity::Server];
    let parts = parts.map(|identity| caller.identity(identity).map_or(Value::Null, Value::from));
    let mut text = String::new();
    canonical::write_array(&mut text, &parts);
    text.into()
}

impl<P> Clone for ServerState<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P> Default for ServerState<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> fmt::Debug for ServerState<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerState").field("held_calls", &self.held_calls()).finish_non_exhaustive()
    }
}
