//! Asynchronous code over stores in the process.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// A store in the process did not answer at the first poll.
#[derive(Debug, thiserror::Error)]
#[error("a store in the process did not answer at once")]
pub(crate) struct NotReady;

/// Polls a future once. All stores that it asks are in the process, so it is ready then.
///
/// # Errors
/// A store broke its contract and did not answer. The caller treats that as a failure of the store.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> Result<T, NotReady> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Ok(answer),
        Poll::Pending => Err(NotReady),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_at_the_first_poll_or_fails() {
        assert!(matches!(at_once(async { 1 }), Ok(1)));
        assert!(at_once(std::future::pending::<()>()).is_err());
    }
}
