//! The way to a Redis server, for every store that is kept in one: one connection for all, timeouts, one retry, and a circuit
//! breaker.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value};

/// How long a thing is kept after its end: what rounding and a slow server may need.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// The largest whole number up to which a double tells all apart.
pub(crate) const EXACT: i64 = 1 << 53;
/// The latest present: what a window, a lease or a `ttl` adds to it stays exact.
pub(crate) const LATEST: i64 = EXACT - (1 << 46);

/// Why the server could not tell.
pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) connect: Duration,
    pub(crate) response: Duration,
    pub(crate) deadline: Duration,
    /// After so many failures in a row nothing is asked for `cool_down`.
    pub(crate) failures: u32,
    pub(crate) cool_down: Duration,
}

/// The way to one server.
pub(crate) struct Link {
    client: Client,
    patience: Patience,
    connection: Mutex<Connection>,
    breaker: Breaker,
}

/// The connection in use, if there is one. Every one has a number, so that a task gives up only the one that failed it.
#[derive(Default)]
struct Connection {
    number: u64,
    manager: Option<ConnectionManager>,
}

/// What may be done again where an answer was lost.
#[derive(Clone, Copy)]
pub(crate) enum Sent<'s> {
    /// A call of a script that bears to arrive twice.
    Script(&'s Known),
    /// What only reads, or does the same thing twice.
    Harmless,
    /// Nothing.
    Once,
}

/// A script as it is sent: by its digest, or where the server does not know that, whole.
pub(crate) struct Known {
    text: String,
    hash: String,
}

impl Known {
    pub(crate) fn new(text: String) -> Self {
        let hash = Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// A call of the script with so many keys, which are the first of its arguments.
    pub(crate) fn call(&self, keys: usize, arguments: usize) -> Cmd {
        let mut cmd = Cmd::with_capacity(3 + keys + arguments, 96 + 64 * keys + 80 * arguments);
        cmd.arg("EVALSHA").arg(&*self.hash).arg(keys);
        cmd
    }
}

impl Link {
    pub(crate) fn new(client: Client, patience: Patience) -> Self {
        Self { client, patience, connection: Mutex::default(), breaker: Breaker::default() }
    }

    /// Sends a command, and once more if it was lost on the way, unless that could do harm.
    pub(crate) async fn ask(&self, sent: Sent<'_>, cmd: &Cmd) -> Result<Value, Cause> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Refusal::NoRuntime.into());
        }
        self.breaker.admit(&self.patience)?;
        match tokio::time::timeout(self.patience.deadline, self.tries(sent, cmd)).await {
            Ok(Ok(value)) => {
                self.breaker.answered();
                Ok(value)
            }
            Ok(Err(error)) => {
                // A server that says no has answered.
                match was_lost(&error) {
                    true => self.breaker.failed(&self.patience),
                    false => self.breaker.answered(),
                }
                Err(error.into())
            }
            Err(_) => {
                self.breaker.failed(&self.patience);
                self.give_up(u64::MAX);
                Err(Refusal::TimedOut(self.patience.deadline).into())
            }
        }
    }

    async fn tries(&self, sent: Sent<'_>, cmd: &Cmd) -> Result<Value, RedisError> {
        let (mut lost, mut loaded) = (false, false);
        loop {
            let (number, mut manager) = self.connection()?;
            let error = match manager.send_packed_command(cmd).await.and_then(Value::extract_error) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match (error.kind(), sent) {
                // It was not run, so this is no second time.
                (ErrorKind::Server(ServerErrorKind::NoScript), Sent::Script(script)) if !loaded => {
                    loaded = true;
                    let mut load = Cmd::new();
                    load.arg("SCRIPT").arg("LOAD").arg(&*script.text);
                    // What is wrong here is wrong with the next one too.
                    let _ = manager.send_packed_command(&load).await;
                }
                // It was a master when the connection was made; the name may lead elsewhere by now.
                (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
                    self.give_up(number);
                    return Err(error);
                }
                _ if was_lost(&error) => {
                    // An answer that is late may never come: a connection can be dead without anybody saying so.
                    if error.is_timeout() {
                        self.give_up(number);
                    }
                    if std::mem::replace(&mut lost, true) || matches!(sent, Sent::Once) {
                        return Err(error);
                    }
                }
                _ => return Err(error),
            }
        }
    }

    /// The connection in use, or one that is made when it is first used.
    fn connection(&self) -> Result<(u64, ConnectionManager), RedisError> {
        let mut connection = self.connection.lock();
        if let Some(manager) = &connection.manager {
            return Ok((connection.number, manager.clone()));
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.patience.connect))
            .set_response_timeout(Some(self.patience.response))
            .set_number_of_retries(0);
        let manager = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        connection.number += 1;
        connection.manager = Some(manager.clone());
        Ok((connection.number, manager))
    }

    /// Uses the connection of that number, or with [`u64::MAX`] whichever it is, no more.
    fn give_up(&self, number: u64) {
        let mut connection = self.connection.lock();
        if number == u64::MAX || connection.number == number {
            connection.manager = None;
        }
    }
}

/// Whether a command, or its answer, was lost on the way.
fn was_lost(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse)
}

/// Stops asking a server that does not answer: callers should not wait for it one after the other.
#[derive(Default)]
struct Breaker {
    failures: AtomicU32,
    opens_at: Mutex<Option<Instant>>,
}

impl Breaker {
    fn admit(&self, patience: &Patience) -> Result<(), Refusal> {
        if self.failures.load(Ordering::Relaxed) < patience.failures {
            return Ok(());
        }
        let mut opens_at = self.opens_at.lock();
        let now = Instant::now();
        if opens_at.is_some_and(|instant| now < instant) {
            return Err(Refusal::Resting);
        }
        // One goes ahead. If nothing is heard of it, the next.
        *opens_at = now.checked_add(patience.deadline.max(patience.cool_down));
        Ok(())
    }

    fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    fn failed(&self, patience: &Patience) {
        let count = |failures: u32| Some(failures.saturating_add(1));
        let before =
            self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).unwrap_or_else(|same| same);
        if before.saturating_add(1) >= patience.failures {
            *self.opens_at.lock() = Instant::now().checked_add(patience.cool_down);
        }
    }
}

/// Why the server was not heard.
#[derive(Debug)]
enum Refusal {
    TimedOut(Duration),
    Resting,
    NoRuntime,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(deadline) => write!(f, "no answer within {deadline:?}"),
            Self::Resting => f.write_str("it has failed several times in a row and is not asked for a moment"),
            Self::NoRuntime => f.write_str("it was not asked from within a tokio runtime"),
        }
    }
}

impl Error for Refusal {}

/// What the server could not hold exactly, or an answer that no script gives.
#[derive(Debug)]
pub(crate) struct Beyond(pub(crate) &'static str);

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Beyond {}

impl Beyond {
    /// An answer that no script gives.
    pub(crate) const NONSENSE: Self = Self("the server's answer is none that the store's scripts give");
    /// A present that is not exact in the scripts.
    pub(crate) const CLOCK: Self = Self("the host's clock is before 1970 or after 2253, which is not counted");
}
