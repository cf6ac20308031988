//! What a store of approvals does.

use std::future::ready;
use std::sync::Arc;

use super::{Approval, ApprovalError, ApprovalId, Ask, Claim, DecideError, Verdict};
use crate::store::{InProcess, StoreFuture};
use crate::time::Timestamp;

/// A store of approvals in the process.
///
/// # Contract
/// * **One at a time.** Each verb is one atomic step.
/// * **Data.** The store reads no clock: `now` is handed in. It may be earlier than what the store has seen.
/// * **Once.** Of all claims of one approval, one succeeds; after it is handed back, one again.
/// * **Only pending can be decided, only approved can be claimed**, both before [`Approval::expires_at`]; at that instant itself it
///   has expired, and what was seen to have expired never comes back.
/// * **One request for one digest.** Calls that a pending request [fits](Approval::fits) share it. One with a smaller number below
///   an upper bound makes a request of its own, as a person who is shown the smaller number must not approve the larger.
/// * **No number twice** for requests of one digest.
/// * **A live approval is never forgotten** to make room for another: a store that is full takes no new requests.
///
/// What a wrong answer costs: a false no costs a question to a person. A false yes is somebody's money. When in doubt, fail.
///
/// All that can happen to one approval is a method of [`Approval`]: a store need only keep them, under a lock.
pub trait ApprovalStore: Send + Sync {
    /// The approval that a call can use or has to wait for: an approved one that covers it (the one it
    /// [names](Ask::named) before any other); else a pending one that [fits](Approval::fits); else, if the call names another,
    /// an approved one that it could use without; else a new one, pending from `now`.
    ///
    /// # Errors
    /// The store cannot tell, or is full.
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError>;

    /// Decides a pending approval, and gives it as it is then.
    ///
    /// # Errors
    /// It is not pending, or not for `by` to decide, or the store cannot tell.
    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError>;

    /// Takes an approved one into use; nothing if it is not approved any more.
    ///
    /// # Errors
    /// The store cannot tell: the call must not go ahead.
    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError>;

    /// Takes into use, once, what was approved elsewhere as the answer to this request, [signed](super::signed); nothing if it has
    /// been used, by whichever text, or here. Until `until` another text may hold that was signed for the same request. If the request
    /// is kept here too, it has been answered with that.
    ///
    /// # Errors
    /// The store cannot tell, or is full: the call must not go ahead.
    fn redeem(&self, id: &ApprovalId, until: Timestamp, now: Timestamp) -> Result<Option<Claim>, ApprovalError>;

    /// Gives back what was claimed or spent, because the call was certainly not made. Says whether it may be claimed again: it has not
    /// expired, and was not handed back before.
    ///
    /// # Errors
    /// The store cannot tell: it may stay consumed.
    fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError>;

    /// What waits for a person, the oldest first; a store may leave out what comes after a thousand.
    ///
    /// # Errors
    /// The store cannot tell.
    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError>;
}

/// A store of approvals across a network, shared by processes. The contract is that of [`ApprovalStore`]; one in the process
/// serves here too, as [`InProcess`].
///
/// It names no runtime; what its futures need is the store's own affair. A future that is dropped before it has answered leaves
/// open whether the request was carried out: an approval that it claimed stays used, which is the safe side.
pub trait AsyncApprovalStore: Send + Sync {
    /// The approval that a call can use or has to wait for.
    ///
    /// # Errors
    /// As for [`ApprovalStore::request`].
    fn request<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> StoreFuture<'a, Approval, ApprovalError>;

    /// Decides a pending approval, and gives it as it is then.
    ///
    /// # Errors
    /// As for [`ApprovalStore::decide`].
    fn decide<'a>(
        &'a self,
        id: &'a ApprovalId,
        verdict: Verdict,
        by: &'a str,
        now: Timestamp,
    ) -> StoreFuture<'a, Approval, DecideError>;

    /// Takes an approved one into use; nothing if it is not approved any more.
    ///
    /// # Errors
    /// As for [`ApprovalStore::claim`].
    fn claim<'a>(&'a self, id: &'a ApprovalId, now: Timestamp) -> StoreFuture<'a, Option<Claim>, ApprovalError>;

    /// Takes into use, once, what was approved elsewhere.
    ///
    /// # Errors
    /// As for [`ApprovalStore::redeem`].
    fn redeem<'a>(
        &'a self,
        id: &'a ApprovalId,
        until: Timestamp,
        now: Timestamp,
    ) -> StoreFuture<'a, Option<Claim>, ApprovalError>;

    /// Gives back what was claimed or spent.
    ///
    /// # Errors
    /// As for [`ApprovalStore::restore`].
    fn restore<'a>(&'a self, claim: &'a Claim, now: Timestamp) -> StoreFuture<'a, bool, ApprovalError>;

    /// What waits for a person, the oldest first.
    ///
    /// # Errors
    /// As for [`ApprovalStore::pending`].
    fn pending(&self, now: Timestamp) -> StoreFuture<'_, Vec<Approval>, ApprovalError>;
}

impl<S: ApprovalStore> AsyncApprovalStore for InProcess<S> {
    fn request<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> StoreFuture<'a, Approval, ApprovalError> {
        Box::pin(ready(self.0.request(ask, now)))
    }

    fn decide<'a>(
        &'a self,
        id: &'a ApprovalId,
        verdict: Verdict,
        by: &'a str,
        now: Timestamp,
    ) -> StoreFuture<'a, Approval, DecideError> {
        Box::pin(ready(self.0.decide(id, verdict, by, now)))
    }

    fn claim<'a>(&'a self, id: &'a ApprovalId, now: Timestamp) -> StoreFuture<'a, Option<Claim>, ApprovalError> {
        Box::pin(ready(self.0.claim(id, now)))
    }

    fn redeem<'a>(
        &'a self,
        id: &'a ApprovalId,
        until: Timestamp,
        now: Timestamp,
    ) -> StoreFuture<'a, Option<Claim>, ApprovalError> {
        Box::pin(ready(self.0.redeem(id, until, now)))
    }

    fn restore<'a>(&'a self, claim: &'a Claim, now: Timestamp) -> StoreFuture<'a, bool, ApprovalError> {
        Box::pin(ready(self.0.restore(claim, now)))
    }

    fn pending(&self, now: Timestamp) -> StoreFuture<'_, Vec<Approval>, ApprovalError> {
        Box::pin(ready(self.0.pending(now)))
    }
}

// A pointer to a store is a store: these pointers alone, for a wrapper that derefs to its store has an implementation of its own.
macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<S: ApprovalStore + ?Sized> ApprovalStore for $pointer {
            fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError> {
                (**self).request(ask, now)
            }

            fn decide(
                &self,
                id: &ApprovalId,
                verdict: Verdict,
                by: &str,
                now: Timestamp,
            ) -> Result<Approval, DecideError> {
                (**self).decide(id, verdict, by, now)
            }

            fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
                (**self).claim(id, now)
            }

            fn redeem(
                &self,
                id: &ApprovalId,
                until: Timestamp,
                now: Timestamp,
            ) -> Result<Option<Claim>, ApprovalError> {
                (**self).redeem(id, until, now)
            }

            fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
                (**self).restore(claim, now)
            }

            fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
                (**self).pending(now)
            }
        }

        impl<S: AsyncApprovalStore + ?Sized> AsyncApprovalStore for $pointer {
            fn request<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> StoreFuture<'a, Approval, ApprovalError> {
                (**self).request(ask, now)
            }

            fn decide<'a>(
                &'a self,
                id: &'a ApprovalId,
                verdict: Verdict,
                by: &'a str,
                now: Timestamp,
            ) -> StoreFuture<'a, Approval, DecideError> {
                (**self).decide(id, verdict, by, now)
            }

            fn claim<'a>(
                &'a self,
                id: &'a ApprovalId,
                now: Timestamp,
            ) -> StoreFuture<'a, Option<Claim>, ApprovalError> {
                (**self).claim(id, now)
            }

            fn redeem<'a>(
                &'a self,
                id: &'a ApprovalId,
                until: Timestamp,
                now: Timestamp,
            ) -> StoreFuture<'a, Option<Claim>, ApprovalError> {
                (**self).redeem(id, until, now)
            }

            fn restore<'a>(&'a self, claim: &'a Claim, now: Timestamp) -> StoreFuture<'a, bool, ApprovalError> {
                (**self).restore(claim, now)
            }

            fn pending(&self, now: Timestamp) -> StoreFuture<'_, Vec<Approval>, ApprovalError> {
                (**self).pending(now)
            }
        }
    )*};
}

forward!(&S, Box<S>, Arc<S>);
