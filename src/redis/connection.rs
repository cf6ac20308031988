//! The connection to a Redis server: one for all requests of a store, with timeouts, one retry and
//! a circuit breaker.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::runtime::Handle;

use super::failure::{Cause, Refusal, RequestError, is_misdirected, was_lost};
use super::server::{Connector, SharedConnection, Timeouts};

/// How long an entry is kept after its end, to allow for rounding and for a slow server.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// The largest integer up to which an `f64` is exact.
pub(crate) const LARGEST_EXACT: i64 = 1 << 53;
/// The latest present time, in microseconds: a window, a lease or a `ttl` added to it stays exact.
pub(crate) const LATEST_NOW: i64 = LARGEST_EXACT - (1 << 46);

/// The connection to a server.
pub(crate) struct Connection {
    connector: Connector,
    timeouts: Timeouts,
    /// The runtime that drives the connection and the time limits, if it is not the caller's.
    runtime: Option<Handle>,
    current: Mutex<Current>,
    /// Held by the task that makes a connection, while others wait for it.
    connecting: tokio::sync::Mutex<()>,
    breaker: Breaker,
}

/// The client's connection in use, if there is one. Each has a number, so that a task drops only
/// the one that failed it.
#[derive(Default)]
struct Current {
    number: u64,
    connection: Option<Box<dyn SharedConnection>>,
    /// It has failed, and is replaced if a new one can be made.
    suspect: bool,
    /// The number of tries to make a connection that failed, and the last error.
    failed: u64,
    error: Option<RequestError>,
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

    /// Returns the command that loads the script.
    pub(super) fn loading(&self) -> Cmd {
        let mut cmd = Cmd::new();
        cmd.arg("SCRIPT").arg("LOAD").arg(&*self.text);
        cmd
    }

    async fn load(&self, connection: &mut dyn SharedConnection) -> Result<Value, RedisError> {
        connection.request(&self.loading()).await.and_then(Value::extract_error)
    }
}

impl Connection {
    pub(crate) fn new(connector: Connector, timeouts: Timeouts, runtime: Option<Handle>) -> Self {
        let (current, connecting, breaker) = Default::default();
        Self { connector, timeouts, runtime, current, connecting, breaker }
    }

    /// Returns the runtime that requests in the background use, if there is one.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.runtime.clone().or_else(|| Handle::try_current().ok())
    }

    /// Sends a command and returns its answer. If the command or the answer was lost, sends it once
    /// more, as far as `retry` allows.
    pub(crate) async fn send(&self, retry: Retry<'_>, cmd: &Cmd) -> Result<Value, Cause> {
        Ok(self.request(retry, cmd).await?)
    }

    /// As [`send`](Self::send), with an error that can be examined.
    pub(super) async fn request(&self, retry: Retry<'_>, cmd: &Cmd) -> Result<Value, RequestError> {
        match &self.runtime {
            None if Handle::try_current().is_err() => Err(Refusal::NoRuntime.into()),
            None => self.bounded(retry, cmd).await,
            Some(runtime) => InRuntime { runtime, future: Box::pin(self.bounded(retry, cmd)) }.await,
        }
    }

    /// Sends a command within the deadline, unless the circuit breaker is open.
    async fn bounded(&self, retry: Retry<'_>, cmd: &Cmd) -> Result<Value, RequestError> {
        self.breaker.admit(&self.timeouts)?;
        match tokio::time::timeout(self.timeouts.deadline, self.try_send(retry, cmd)).await {
            Ok(Ok(value)) => {
                self.breaker.answered();
                Ok(value)
            }
            Ok(Err(error)) => {
                // An error from the right server is an answer.
                match error.is_answer() {
                    true => self.breaker.answered(),
                    false => self.breaker.failed(&self.timeouts, &error),
                }
                Err(error)
            }
            Err(_) => {
                let error = RequestError::from(Refusal::TimedOut(self.timeouts.deadline));
                self.breaker.failed(&self.timeouts, &error);
                self.disconnect(u64::MAX);
                Err(error)
            }
        }
    }

    async fn try_send(&self, retry: Retry<'_>, cmd: &Cmd) -> Result<Value, RequestError> {
        let (mut again, mut load) = (true, None);
        loop {
            let (number, mut connection) = match self.connection().await {
                Ok(found) => found,
                // Nothing was sent yet.
                Err(_) if std::mem::replace(&mut again, false) => continue,
                Err(error) => return Err(error),
            };
            let error = match connection.request(cmd).await.and_then(Value::extract_error) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match (error.kind(), retry) {
                // The script was not run, so sending it again is not a retry.
                (ErrorKind::Server(ServerErrorKind::NoScript), Retry::Script(script)) if load.is_none() => {
                    // In a cluster, every master loads the script. Only the one that has the keys
                    // matters, which the next call shows.
                    load = Some(script.load(&mut *connection).await);
                }
                (ErrorKind::Server(ServerErrorKind::NoScript), _) => {
                    return Err(match load {
                        Some(Err(refused)) => RequestError::of_load(refused),
                        _ => error.into(),
                    });
                }
                // The command was not run. Another connection may lead to the right server, with
                // the password that is valid now.
                _ if is_misdirected(&error) => {
                    self.disconnect(number);
                    if !std::mem::replace(&mut again, false) {
                        return Err(error.into());
                    }
                }
                _ if was_lost(&error) => {
                    self.disconnect(number);
                    if !std::mem::replace(&mut again, false) {
                        return Err(match error.kind() {
                            ErrorKind::Parse => self.explain_nonsense(error).await,
                            _ => error.into(),
                        });
                    }
                }
                _ => return Err(error.into()),
            }
        }
    }

    /// Returns why an answer cannot be read. A server that does not know a command repeats its
    /// arguments in the error. Those of a script are bytes, which the client cannot read as text.
    async fn explain_nonsense(&self, error: RedisError) -> RequestError {
        let Ok((number, mut connection)) = self.connection().await else { return error.into() };
        let mut cmd = Cmd::new();
        cmd.arg("EVALSHA").arg("0".repeat(40)).arg(0);
        match connection.request(&cmd).await.and_then(Value::extract_error) {
            Err(told) if told.kind() == ErrorKind::Server(ServerErrorKind::ResponseError) => {
                RequestError::of_scripts(told)
            }
            _ => {
                self.disconnect(number);
                error.into()
            }
        }
    }

    /// Returns the connection in use, or a new one.
    async fn connection(&self) -> Result<(u64, Box<dyn SharedConnection>), RequestError> {
        let failed = {
            let current = self.current.lock();
            match &current.connection {
                Some(connection) if !current.suspect => return Ok((current.number, connection.duplicate())),
                _ => current.failed,
            }
        };
        let _turn = self.connecting.lock().await;
        {
            let current = self.current.lock();
            match (&current.connection, &current.error) {
                (Some(connection), _) if !current.suspect => return Ok((current.number, connection.duplicate())),
                // Another task has just tried: all that have waited for it share its error.
                (None, Some(error)) if current.failed != failed => return Err(error.clone()),
                _ => {}
            }
        }
        let made = self.connector.connect(self.timeouts).await;
        let mut current = self.current.lock();
        current.suspect = false;
        match made {
            Ok(connection) => {
                current.number += 1;
                let shared = connection.duplicate();
                (current.connection, current.error) = (Some(connection), None);
                Ok((current.number, shared))
            }
            Err(error) => {
                if let Some(old) = &current.connection {
                    return Ok((current.number, old.duplicate()));
                }
                let error = RequestError::of_connecting(error);
                current.failed += 1;
                current.error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Drops the connection in use if it has this number, or any number if it is [`u64::MAX`].
    fn disconnect(&self, number: u64) {
        let mut current = self.current.lock();
        if number == u64::MAX || current.number == number {
            // A connection to a cluster knows nodes that the host may not have named.
            match self.connector.is_cluster {
                true => current.suspect = true,
                false => current.connection = None,
            }
        }
    }
}

/// Polls a future in the context of a runtime, so that its timers and sockets are of that runtime.
struct InRuntime<'f, T> {
    runtime: &'f Handle,
    future: Pin<Box<dyn Future<Output = T> + Send + 'f>>,
}

impl<T> Future for InRuntime<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let _entered = self.runtime.enter();
        self.future.as_mut().poll(context)
    }
}

/// A circuit breaker: stops sending to a server that does not answer, so that callers do not wait
/// for it one after another.
#[derive(Default)]
struct Breaker {
    failures: AtomicU32,
    open: Mutex<Open>,
}

/// The state of a breaker that is open.
#[derive(Default)]
struct Open {
    retry_at: Option<Instant>,
    /// The last failure.
    error: Option<RequestError>,
}

impl Breaker {
    fn admit(&self, timeouts: &Timeouts) -> Result<(), RequestError> {
        if self.failures.load(Ordering::Relaxed) < timeouts.failures {
            return Ok(());
        }
        let mut open = self.open.lock();
        let now = Instant::now();
        if open.retry_at.is_some_and(|instant| now < instant) {
            return Err(Refusal::CoolingDown(open.error.clone()).into());
        }
        // One request goes ahead. If it has no result in this time, the next one does.
        open.retry_at = now.checked_add(timeouts.deadline.max(timeouts.cool_down));
        Ok(())
    }

    fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    fn failed(&self, timeouts: &Timeouts, error: &RequestError) {
        let count = |failures: u32| Some(failures.saturating_add(1));
        let before =
            self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).unwrap_or_else(|same| same);
        if before.saturating_add(1) >= timeouts.failures {
            let retry_at = Instant::now().checked_add(timeouts.cool_down);
            *self.open.lock() = Open { retry_at, error: Some(error.clone()) };
        }
    }
}
