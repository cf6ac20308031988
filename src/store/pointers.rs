//! References, boxes and arcs of stores are stores.
//!
//! There is no implementation for everything that derefs to a store: a wrapper that counts
//! requests, for example, can deref to its store and implement the trait itself.

use std::sync::Arc;

use super::{AsyncCounterStore, CounterStore, Outcome, ReserveRequest, SettleRequest, StoreError, StoreFuture};
use crate::charge::{CounterId, Subject};

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<S: CounterStore + ?Sized> CounterStore for $pointer {
            fn reserve(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
                (**self).reserve(request)
            }

            fn peek(&self, request: &ReserveRequest<'_>) -> Result<Outcome, StoreError> {
                (**self).peek(request)
            }

            fn settle(&self, request: &SettleRequest<'_>) -> Result<(), StoreError> {
                (**self).settle(request)
            }

            fn reset(&self, counter: CounterId, subject: &Subject) -> Result<(), StoreError> {
                (**self).reset(counter, subject)
            }
        }

        impl<S: AsyncCounterStore + ?Sized> AsyncCounterStore for $pointer {
            fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
                (**self).reserve(request)
            }

            fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
                (**self).peek(request)
            }

            fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()> {
                (**self).settle(request)
            }

            fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> StoreFuture<'a, ()> {
                (**self).reset(counter, subject)
            }

            fn abandon(&self, request: &SettleRequest<'_>) {
                (**self).abandon(request);
            }
        }
    )*};
}

forward!(&S, Box<S>, Arc<S>);
