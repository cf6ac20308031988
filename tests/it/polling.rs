//! Polls futures without a runtime.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Polls a future once and drops it.
pub(crate) fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Returns the output of a future that is ready at the first poll.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    poll_once(future).expect("an in-process store answers at the first poll")
}

/// Polls a future until it is ready.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}
