//! The errors of requests to a Redis server, with advice where the server's own words mislead.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// The cause of a failed request.
pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// A request failed. Clones share the cause: all tasks that waited for the same connection get it.
#[derive(Clone, Debug)]
pub(crate) struct RequestError(Arc<Failure>);

#[derive(Debug)]
struct Failure {
    /// The meaning of the cause for a store, and a remedy; `None` if the cause says enough.
    help: Option<&'static str>,
    cause: Cause,
    is_answer: bool,
}

impl RequestError {
    fn of(help: Option<&'static str>, cause: Cause, is_answer: bool) -> Self {
        Self(Arc::new(Failure { help, cause, is_answer }))
    }

    fn of_server(help: Option<&'static str>, error: RedisError) -> Self {
        let is_answer = !was_lost(&error) && !is_misdirected(&error);
        Self::of(help, error.into(), is_answer)
    }

    /// The error of a script that could not be loaded.
    pub(super) fn of_load(error: RedisError) -> Self {
        Self::of_server(Some("the server does not load a script; its user may lack `+script|load`"), error)
    }

    /// The error of a server that does not know scripts.
    pub(super) fn of_scripts(error: RedisError) -> Self {
        Self::of_server(Some("the server cannot run scripts; it may be a Sentinel or a proxy"), error)
    }

    /// The error of a connection that could not be made.
    pub(super) fn of_connecting(cause: Cause) -> Self {
        let help = cause.downcast_ref().and_then(help);
        Self::of(help, cause, false)
    }

    /// Returns whether the server that has the keys has answered.
    pub(super) fn is_answer(&self) -> bool {
        self.0.is_answer
    }

    /// Returns the error of the client.
    pub(super) fn of_client(&self) -> Option<&RedisError> {
        self.0.cause.downcast_ref()
    }
}

impl From<RedisError> for RequestError {
    fn from(error: RedisError) -> Self {
        Self::of_server(help(&error), error)
    }
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        Self::of(None, refusal.into(), false)
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.help {
            Some(help) => f.write_str(help),
            None => self.0.cause.fmt(f),
        }
    }
}

impl Error for RequestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.0.help {
            Some(_) => Some(&*self.0.cause),
            None => self.0.cause.source(),
        }
    }
}

/// Returns whether a command or its answer was lost on the way.
pub(super) fn was_lost(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse | ErrorKind::ClusterConnectionNotFound)
}

/// Returns whether the connection leads to the wrong server, or its login is not valid. The command
/// was not run.
pub(super) fn is_misdirected(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::Moved)
    ) || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

/// Returns whether the server's user must not send a command, or call one in a script.
pub(super) fn is_forbidden(error: &RedisError) -> bool {
    // An error inside a script has no code of its own.
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || error.detail().is_some_and(|detail| detail.contains("The user executing the script"))
}

fn help(error: &RedisError) -> Option<&'static str> {
    Some(match error.kind() {
        _ if is_forbidden(error) => {
            "the server's user lacks a permission; the documentation of the store lists them, and `check` names it"
        }
        ErrorKind::Server(ServerErrorKind::Moved) => {
            "the server is a node of a cluster, and another node has these keys; use `redis+cluster://`"
        }
        ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            "the server is a replica; use the address of the master, `redis+sentinel://` or `redis+cluster://`"
        }
        _ if is_misdirected(error) => "the server refuses the login; use `Server::url_with` if the password changes",
        ErrorKind::MasterNameNotFoundBySentinel => {
            "no sentinel names a master that answers; compare the name with `sentinel monitor`"
        }
        _ => return None,
    })
}

/// The cause of a request that was not sent, or not answered in time.
#[derive(Debug)]
pub(super) enum Refusal {
    TimedOut(Duration),
    /// With the failure that opened the circuit breaker.
    CoolingDown(Option<RequestError>),
    NoRuntime,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(deadline) => write!(f, "no answer within {deadline:?}"),
            Self::CoolingDown(_) => f.write_str("not sent: the server has failed several times in a row"),
            Self::NoRuntime => f.write_str("not called within a tokio runtime"),
        }
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::CoolingDown(Some(last)) => Some(last),
            _ => None,
        }
    }
}

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
