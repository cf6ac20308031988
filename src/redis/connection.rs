//! The connection to a Redis server: one for all requests of a store, with timeouts, one retry and
//! a circuit breaker.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ErrorKind, RedisError, ServerErrorKind, Value};

/// How long an entry is kept after its end, to allow for rounding and for a slow server.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// The largest integer up to which an `f64` is exact.
pub(crate) const LARGEST_EXACT: i64 = 1 << 53;
/// The latest present time, in microseconds: a window, a lease or a `ttl` added to it stays exact.
pub(crate) const LATEST_NOW: i64 = LARGEST_EXACT - (1 << 46);

/// The cause of a failed request.
pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// The time limits of requests, and the settings of the circuit breaker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) response: Duration,
    pub(crate) deadline: Duration,
    /// After this many failures in a row, no request is sent for `cool_down`.
    pub(crate) failures: u32,
    pub(crate) cool_down: Duration,
}

/// A connection to one server.
pub(crate) struct Connection {
    client: Client,
    timeouts: Timeouts,
    current: Mutex<Current>,
    breaker: Breaker,
}

/// The client's connection in use, if there is one. Each has a number, so that a task drops only
/// the one that failed it.
#[derive(Default)]
struct Current {
    number: u64,
    manager: Option<ConnectionManager>,
}

/// The rule for sending a command again after its answer was lost.
#[derive(Clone, Copy)]
pub(crate) enum Retry<'s> {
    /// A call of an idempotent script. It is loaded first if the server does not know it.
    Script(&'s Script),
    /// A command that only reads, or that has the same effect when it is sent twice.
    Idempotent,
}

/// A script, called by its digest; the text is sent only to a server that does not know the digest.
pub(crate) struct Script {
    text: String,
    hash: String,
}

impl Script {
    pub(crate) fn new(text: String) -> Self {
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// Begins a call of the script. The first `keys` of its arguments are keys.
    pub(crate) fn call(&self, keys: usize, arguments: usize) -> Cmd {
        let mut cmd = Cmd::with_capacity(3 + keys + arguments, 96 + 64 * keys + 80 * arguments);
        cmd.arg("EVALSHA").arg(&*self.hash).arg(keys);
        cmd
    }
}

impl Connection {
    pub(crate) fn new(client: Client, timeouts: Timeouts) -> Self {
        Self { client, timeouts, current: Mutex::default(), breaker: Breaker::default() }
    }

    /// Sends a command and returns its answer. If the command or the answer was lost, sends it once
    /// more, as far as `retry` allows.
    pub(crate) async fn send(&self, retry: Retry<'_>, cmd: &Cmd) -> Result<Value, Cause> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Refusal::NoRuntime.into());
        }
        self.breaker.admit(&self.timeouts)?;
        match tokio::time::timeout(self.timeouts.deadline, self.try_send(retry, cmd)).await {
            Ok(Ok(value)) => {
                self.breaker.answered();
                Ok(value)
            }
            Ok(Err(error)) => {
                // An error from the server is an answer.
                match was_lost(&error) {
                    true => self.breaker.failed(&self.timeouts),
                    false => self.breaker.answered(),
                }
                Err(error.into())
            }
            Err(_) => {
                self.breaker.failed(&self.timeouts);
                self.disconnect(u64::MAX);
                Err(Refusal::TimedOut(self.timeouts.deadline).into())
            }
        }
    }

    async fn try_send(&self, retry: Retry<'_>, cmd: &Cmd) -> Result<Value, RedisError> {
        let (mut lost, mut loaded) = (false, false);
        loop {
            let (number, mut manager) = self.manager()?;
            let error = match manager.send_packed_command(cmd).await.and_then(Value::extract_error) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match (error.kind(), retry) {
                // The script was not run, so sending it again is not a retry.
                (ErrorKind::Server(ServerErrorKind::NoScript), Retry::Script(script)) if !loaded => {
                    loaded = true;
                    let mut load = Cmd::new();
                    load.arg("SCRIPT").arg("LOAD").arg(&*script.text);
                    // If loading fails, the next call fails too.
                    let _ = manager.send_packed_command(&load).await;
                }
                // The server was a master when the connection was made. Its name may resolve to
                // another one by now.
                (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
                    self.disconnect(number);
                    return Err(error);
                }
                _ if was_lost(&error) => {
                    // A late answer may never come: a connection can be dead without any error.
                    if error.is_timeout() {
                        self.disconnect(number);
                    }
                    if std::mem::replace(&mut lost, true) {
                        return Err(error);
                    }
                }
                _ => return Err(error),
            }
        }
    }

    /// Returns the connection in use, or a new one, which connects when it is first used.
    fn manager(&self) -> Result<(u64, ConnectionManager), RedisError> {
        let mut current = self.current.lock();
        if let Some(manager) = &current.manager {
            return Ok((current.number, manager.clone()));
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.timeouts.connect))
            .set_response_timeout(Some(self.timeouts.response))
            .set_number_of_retries(0);
        let manager = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        current.number += 1;
        current.manager = Some(manager.clone());
        Ok((current.number, manager))
    }

    /// Drops the connection in use if it has this number, or any number if it is [`u64::MAX`].
    fn disconnect(&self, number: u64) {
        let mut current = self.current.lock();
        if number == u64::MAX || current.number == number {
            current.manager = None;
        }
    }
}

/// Returns whether a command or its answer was lost on the way.
fn was_lost(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse)
}

/// A circuit breaker: stops sending to a server that does not answer, so that callers do not wait
/// for it one after another.
#[derive(Default)]
struct Breaker {
    failures: AtomicU32,
    retry_at: Mutex<Option<Instant>>,
}

impl Breaker {
    fn admit(&self, timeouts: &Timeouts) -> Result<(), Refusal> {
        if self.failures.load(Ordering::Relaxed) < timeouts.failures {
            return Ok(());
        }
        let mut retry_at = self.retry_at.lock();
        let now = Instant::now();
        if retry_at.is_some_and(|instant| now < instant) {
            return Err(Refusal::CoolingDown);
        }
        // One request goes ahead. If it has no result in this time, the next one does.
        *retry_at = now.checked_add(timeouts.deadline.max(timeouts.cool_down));
        Ok(())
    }

    fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    fn failed(&self, timeouts: &Timeouts) {
        let count = |failures: u32| Some(failures.saturating_add(1));
        let before =
            self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).unwrap_or_else(|same| same);
        if before.saturating_add(1) >= timeouts.failures {
            *self.retry_at.lock() = Instant::now().checked_add(timeouts.cool_down);
        }
    }
}

/// The cause of a request that was not sent, or not answered in time.
#[derive(Debug)]
enum Refusal {
    TimedOut(Duration),
    CoolingDown,
    NoRuntime,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(deadline) => write!(f, "no answer within {deadline:?}"),
            Self::CoolingDown => f.write_str("not sent: the server has failed several times in a row"),
            Self::NoRuntime => f.write_str("not called within a tokio runtime"),
        }
    }
}

impl Error for Refusal {}

/// A number that the scripts cannot hold exactly.
#[derive(Debug)]
pub(crate) struct OutOfRange(pub(crate) &'static str);

impl OutOfRange {
    /// A present time that the scripts cannot hold exactly.
    pub(crate) const CLOCK: Self = Self("the host's clock is before 1970 or after 2253");
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for OutOfRange {}

/// An answer that no script and no command of the store gives.
#[derive(Debug)]
pub(crate) struct UnexpectedAnswer;

impl fmt::Display for UnexpectedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server gave an answer that the store's scripts never give")
    }
}

impl Error for UnexpectedAnswer {}
