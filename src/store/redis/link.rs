//! The way to the server: one connection for all, timeouts, one retry, and a circuit breaker.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value};

use crate::store::StoreError;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) connect: Duration,
    pub(super) response: Duration,
    pub(super) deadline: Duration,
    /// After so many failures in a row nothing is asked for `cool_down`.
    pub(super) failures: u32,
    pub(super) cool_down: Duration,
}

pub(super) struct Link {
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

/// A script as it is sent: by its digest, or where the server does not know that, whole.
pub(super) struct Known {
    text: String,
    hash: String,
}

impl Known {
    pub(super) fn new(text: String) -> Self {
        let hash = Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// A call of the script with so many keys, which are the first of its arguments.
    pub(super) fn call(&self, keys: usize, arguments: usize) -> Cmd {
        let mut cmd = Cmd::with_capacity(3 + keys + arguments, 96 + 64 * keys + 80 * arguments);
        cmd.arg("EVALSHA").arg(&*self.hash).arg(keys);
        cmd
    }
}

impl Link {
    pub(super) fn new(client: Client, patience: Patience) -> Self {
        Self { client, patience, connection: Mutex::default(), breaker: Breaker::default() }
    }

    /// Sends a call of a script, and once more if it was lost on the way: the scripts bear that it arrives twice. What is no
    /// script's is sent once.
    pub(super) async fn ask(&self, script: Option<&Known>, cmd: &Cmd) -> Result<Value, StoreError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(StoreError::Unavailable(Some(Box::new(Refusal::NoRuntime))));
        }
        self.breaker.admit(&self.patience)?;
        match tokio::time::timeout(self.patience.deadline, self.tries(script, cmd)).await {
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
                Err(StoreError::Unavailable(Some(Box::new(error))))
            }
            Err(_) => {
                self.breaker.failed(&self.patience);
                self.give_up(u64::MAX);
                Err(StoreError::Unavailable(Some(Box::new(Refusal::TimedOut(self.patience.deadline)))))
            }
        }
    }

    async fn tries(&self, script: Option<&Known>, cmd: &Cmd) -> Result<Value, RedisError> {
        let (mut lost, mut loaded) = (false, false);
        loop {
            let (number, mut manager) = self.connection()?;
            let error = match manager.send_packed_command(cmd).await.and_then(Value::extract_error) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match (error.kind(), script) {
                // It was not run, so this is no second time.
                (ErrorKind::Server(ServerErrorKind::NoScript), Some(script)) if !loaded => {
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
                    if std::mem::replace(&mut lost, true) || script.is_none() {
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
    fn admit(&self, patience: &Patience) -> Result<(), StoreError> {
        if self.failures.load(Ordering::Relaxed) < patience.failures {
            return Ok(());
        }
        let mut opens_at = self.opens_at.lock();
        let now = Instant::now();
        if opens_at.is_some_and(|instant| now < instant) {
            return Err(StoreError::Unavailable(Some(Box::new(Refusal::Resting))));
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

impl std::error::Error for Refusal {}
