//! The contract of approval stores.

use std::future::ready;
use std::sync::Arc;

use super::{Approval, ApprovalError, ApprovalId, Ask, Claim, DecideError, Redemption, Verdict};
use crate::store::{InProcess, StoreFuture};
use crate::time::Timestamp;

/// A store of approvals in the process.
///
/// # Contract
/// * **Atomic.** Each method is one atomic step.
/// * **No clock.** The caller passes `now`. It can be earlier than an instant that the store has
///   seen.
/// * **Uses.** Of all claims of one approval, as many succeed as it has [uses](Approval::uses),
///   which is one by default; after a restore, one more.
/// * **A refusal is final** until it is lifted or has expired. A text that was signed for a refused
///   request is never used.
/// * **Only a pending approval can be decided, only an approved one claimed**, both before
///   [`Approval::expires_at`]. At that instant itself it has expired. An approval that was seen to
///   have expired never comes back.
/// * **One request per digest.** Calls that a pending request [fits](Approval::fits) share it. A
///   call with a smaller number below an upper bound makes a request of its own, because a person
///   who is shown the smaller number must not approve the larger.
/// * **No number twice** for requests of one digest.
/// * **A live approval is never evicted.** A full store takes no new requests.
///
/// A false refusal costs a question to a person. A false approval costs somebody's money. When in
/// doubt, fail.
///
/// Each change of an approval is a method of [`Approval`]. A store only has to keep approvals,
/// under a lock.
pub trait ApprovalStore: Send + Sync {
    /// Returns the approval that a call can use or has to wait for. The first of these that exists:
    ///
    /// 1. a refused one that [fits](Approval::fits): the call is denied;
    /// 2. an approved one that [covers](Approval::covers) the call; if the call
    ///    [names](Ask::named) an approval, only that one;
    /// 3. a pending one that fits;
    /// 4. any approved one that covers the call, for a call that names another;
    /// 5. a new one, pending from `now`.
    ///
    /// # Errors
    /// The store failed, or is full.
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError>;

    /// Decides a pending approval, or lifts a refusal. Returns the approval as it is afterwards.
    ///
    /// # Errors
    /// It is not pending (to lift, not refused), `by` cannot decide it, or the store failed.
    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError>;

    /// Claims an approval for one call. Returns `None` if it is not approved, or no longer.
    ///
    /// # Errors
    /// The store failed. The call must not be made.
    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError>;

    /// Returns the refusal that is in force for a call. It goes before an approval that was signed
    /// elsewhere.
    ///
    /// # Errors
    /// The store failed. The call must not be made.
    fn refusal(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Option<Approval>, ApprovalError>;

    /// Claims one of the `uses` of an approval that was [signed](super::signed) elsewhere for this
    /// request. It is spent if the request has been used so often before, by any signed texts and
    /// in this store together, and refused if a person has refused the request here. Another text
    /// that was signed for the same request can be valid until `until`. If the store has the
    /// request itself, only signed texts can use what is left of it.
    ///
    /// # Errors
    /// The store failed, or is full. The call must not be made.
    fn redeem(&self, id: &ApprovalId, uses: u32, until: Timestamp, now: Timestamp)
    -> Result<Redemption, ApprovalError>;

    /// Gives back the use that a claim holds, because the call was certainly not made.
    /// Returns `false` if it has expired, or was restored before.
    ///
    /// # Errors
    /// The store failed. The approval may stay consumed.
    fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError>;

    /// Returns the pending approvals, the oldest first. A store can stop after a thousand.
    ///
    /// # Errors
    /// The store failed.
    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError>;
}

/// A store of approvals across a network, shared by processes. The contract is that of
/// [`ApprovalStore`]. A store in the process serves here too, inside [`InProcess`].
///
/// The trait is tied to no runtime; the futures of a store may need one. If a future is dropped
/// before it is ready, the request may have been carried out: an approval that it claimed stays
/// used, which is the safe side.
pub trait AsyncApprovalStore: Send + Sync {
    /// Returns the approval that a call can use or has to wait for.
    ///
    /// # Errors
    /// As for [`ApprovalStore::request`].
    fn request<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> StoreFuture<'a, Approval, ApprovalError>;

    /// Decides a pending approval, and returns it as it is afterwards.
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

    /// Claims an approval for one call. Returns `None` if it is not approved, or no longer.
    ///
    /// # Errors
    /// As for [`ApprovalStore::claim`].
    fn claim<'a>(&'a self, id: &'a ApprovalId, now: Timestamp) -> StoreFuture<'a, Option<Claim>, ApprovalError>;

    /// Returns the refusal that is in force for a call.
    ///
    /// # Errors
    /// As for [`ApprovalStore::refusal`].
    fn refusal<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> StoreFuture<'a, Option<Approval>, ApprovalError>;

    /// Claims a use of an approval that was signed elsewhere.
    ///
    /// # Errors
    /// As for [`ApprovalStore::redeem`].
    fn redeem<'a>(
        &'a self,
        id: &'a ApprovalId,
        uses: u32,
        until: Timestamp,
        now: Timestamp,
    ) -> StoreFuture<'a, Redemption, ApprovalError>;

    /// Makes a claimed or redeemed approval usable again.
    ///
    /// # Errors
    /// As for [`ApprovalStore::restore`].
    fn restore<'a>(&'a self, claim: &'a Claim, now: Timestamp) -> StoreFuture<'a, bool, ApprovalError>;

    /// Returns the pending approvals, the oldest first.
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

    fn refusal<'a>(&'a self, ask: &'a Ask<'a>, now: Timestamp) -> StoreFuture<'a, Option<Approval>, ApprovalError> {
        Box::pin(ready(self.0.refusal(ask, now)))
    }

    fn redeem<'a>(
        &'a self,
        id: &'a ApprovalId,
        uses: u32,
        until: Timestamp,
        now: Timestamp,
    ) -> StoreFuture<'a, Redemption, ApprovalError> {
        Box::pin(ready(self.0.redeem(id, uses, until, now)))
    }

    fn restore<'a>(&'a self, claim: &'a Claim, now: Timestamp) -> StoreFuture<'a, bool, ApprovalError> {
        Box::pin(ready(self.0.restore(claim, now)))
    }

    fn pending(&self, now: Timestamp) -> StoreFuture<'_, Vec<Approval>, ApprovalError> {
        Box::pin(ready(self.0.pending(now)))
    }
}

// A pointer to a store is a store. Only these pointers: a wrapper that derefs to its store needs an
// implementation of its own.
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

            fn refusal(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Option<Approval>, ApprovalError> {
                (**self).refusal(ask, now)
            }

            fn redeem(
                &self,
                id: &ApprovalId,
                uses: u32,
                until: Timestamp,
                now: Timestamp,
            ) -> Result<Redemption, ApprovalError> {
                (**self).redeem(id, uses, until, now)
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

            fn refusal<'a>(
                &'a self,
                ask: &'a Ask<'a>,
                now: Timestamp,
            ) -> StoreFuture<'a, Option<Approval>, ApprovalError> {
                (**self).refusal(ask, now)
            }

            fn redeem<'a>(
                &'a self,
                id: &'a ApprovalId,
                uses: u32,
                until: Timestamp,
                now: Timestamp,
            ) -> StoreFuture<'a, Redemption, ApprovalError> {
                (**self).redeem(id, uses, until, now)
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
