//! The settings that all stores in Redis share: the server, the prefix of keys, the time limits.

use std::time::Duration;

use tokio::runtime::Handle;

use super::connection::Connection;
use super::server::{BuildError, Server, Timeouts};

/// The largest skew between clocks. Larger ones are of no use, as instants are not exact beyond it;
/// hosts under test, whose clocks stand still or jump, need a large one.
const MAX_SKEW: Duration = Duration::from_secs(3_000 * 86_400);
const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The settings that the builders of all stores in Redis have.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) server: Server,
    pub(crate) prefix: String,
    pub(crate) max_skew: Duration,
    pub(crate) timeouts: Timeouts,
    pub(crate) runtime: Option<Handle>,
}

impl Settings {
    pub(crate) fn new(server: Server) -> Self {
        let timeouts = Timeouts {
            connect: Duration::from_millis(500),
            response: Duration::from_millis(500),
            deadline: Duration::from_millis(1_500),
            failures: 5,
            cool_down: Duration::from_secs(1),
        };
        let (prefix, max_skew) = ("toolgate".into(), Duration::from_secs(2));
        Self { server, prefix, max_skew, timeouts, runtime: None }
    }

    /// Makes a connection to the server, which need not be up.
    pub(crate) fn connection(&self) -> Result<Connection, BuildError> {
        let Self { server, prefix, max_skew, timeouts, runtime } = self;
        let prefix_fits = (1..=64).contains(&prefix.len());
        if !prefix_fits || !prefix.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}')) {
            return Err(BuildError::Prefix);
        }
        for (name, time) in [
            ("connect_timeout", timeouts.connect),
            ("response_timeout", timeouts.response),
            ("deadline", timeouts.deadline),
            ("circuit_breaker", timeouts.cool_down),
        ] {
            if time.is_zero() || time > MAX_TIMEOUT {
                return Err(BuildError::Timeout(name));
            }
        }
        if *max_skew > MAX_SKEW {
            return Err(BuildError::Skew);
        }
        Ok(Connection::new(server.connector()?, *timeouts, runtime.clone()))
    }
}

/// Returns the microseconds of a duration of days at most.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The methods of every builder. Each builder has a field `settings`.
macro_rules! settings_methods {
    () => {
        /// Sets the time limit for connecting: half a second by default.
        pub fn connect_timeout(mut self, timeout: Duration) -> Self {
            self.settings.timeouts.connect = timeout;
            self
        }

        /// Sets the time limit for the answer to one request: half a second by default.
        pub fn response_timeout(mut self, timeout: Duration) -> Self {
            self.settings.timeouts.response = timeout;
            self
        }

        /// Sets the circuit breaker: after this many failures in a row (five by default, at least
        /// one), requests fail with `Unavailable` at once for the time `cool_down` (one second by
        /// default). Then one request is sent to see whether the server is back.
        pub fn circuit_breaker(mut self, failures: u32, cool_down: Duration) -> Self {
            (self.settings.timeouts.failures, self.settings.timeouts.cool_down) = (failures.max(1), cool_down);
            self
        }

        /// Sets the runtime that drives the connection and its time limits. By default it is the
        /// runtime of the task that makes a request, which must have I/O and time (`enable_all`):
        /// tokio panics where they are missing, and offers no way to find out before. With a
        /// runtime of its own, the store can be called from any executor, and its connection
        /// outlives the runtimes of its callers.
        pub fn runtime(mut self, runtime: tokio::runtime::Handle) -> Self {
            self.settings.runtime = Some(runtime);
            self
        }
    };
}
pub(crate) use settings_methods;
