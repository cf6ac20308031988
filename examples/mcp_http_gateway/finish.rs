//! Work that is done to its end, whether anybody waits for it or not.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Work that whoever waits for it does by the way. If they stop to wait, a task of its own does the rest: so it costs no task, and no
/// change of threads, as long as nobody goes away.
pub(crate) struct Finish<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> Finish<T> {
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(work)))
    }

    /// Goes on with it; without a word once it is done.
    pub(crate) fn go_on(&mut self, context: &mut Context<'_>) -> Option<T> {
        let work = self.0.as_mut()?;
        match work.as_mut().poll(context) {
            Poll::Pending => None,
            Poll::Ready(done) => {
                self.0 = None;
                Some(done)
            }
        }
    }
}

impl<T: Send + 'static> Future for Finish<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.go_on(context).map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T: Send + 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        // Without a runtime the gateway is at its end, and what is in flight in Redis has a lease.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}
