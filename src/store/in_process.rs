//! A store in the process behind the asynchronous interface.

use std::future::ready;

use super::{AsyncCounterStore, CounterStore, Outcome, ReserveRequest, SettleRequest, StoreFuture};
use crate::charge::{CounterId, Subject};

/// Lets a store in the process serve where one across a network is expected. Its futures are ready
/// at once.
///
/// It turns a [`CounterStore`] into an [`AsyncCounterStore`], and an
/// [`ApprovalStore`](crate::approval::ApprovalStore) into an
/// [`AsyncApprovalStore`](crate::approval::AsyncApprovalStore).
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it is the store that it holds")]
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
        // A lease frees what this cannot.
        let _ = self.0.settle(request);
    }
}
