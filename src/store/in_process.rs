//! In-process stores behind the asynchronous interface.

use std::future::ready;

use super::{AsyncCounterStore, CounterStore, Outcome, ReserveRequest, SettleRequest, StoreFuture};
use crate::charge::{CounterId, Subject};

/// An adapter from an in-process store to the asynchronous interface. Its futures are ready at
/// once.
///
/// It makes a [`CounterStore`] into an [`AsyncCounterStore`], and an
/// [`ApprovalStore`](crate::approval::ApprovalStore) into an
/// [`AsyncApprovalStore`](crate::approval::AsyncApprovalStore).
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "a plain wrapper, for patterns too")]
pub struct InProcess<S>(pub S);

impl<S: CounterStore> AsyncCounterStore for InProcess<S> {
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        Box::pin(ready(self.0.reserve(request)))
    }

    fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        Box::pin(ready(self.0.peek(request)))
    }

    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()> {
        Box::pin(ready(self.0.settle(request)))
    }

    fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> StoreFuture<'a, ()> {
        Box::pin(ready(self.0.reset(counter, subject)))
    }

    fn abandon(&self, request: &SettleRequest<'_>) {
        // If this fails, the units stay in flight until their leases end.
        let _ = self.0.settle(request);
    }
}
