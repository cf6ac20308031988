//! Approvals: what a person has to say before a call may be made.
//!
//! A call that needs one asks for it: an [`Approval`] is *pending*, until people *approve* or *refuse* it. One that is approved is
//! *claimed* by the call, once, before its `ttl` ends, and handed back when the call was certainly not made. An [`ApprovalStore`] keeps
//! them; [`MemoryApprovals`] does so in the process. The gate asks it: a host needs [`Gate::approve`](crate::Gate::approve),
//! [`Gate::refuse`](crate::Gate::refuse) and [`Gate::pending`](crate::Gate::pending) alone.

mod ask;
mod id;
mod memory;
mod record;

use std::error::Error;
use std::sync::Arc;

use crate::time::Timestamp;

pub use ask::Ask;
pub use id::{ApprovalId, CallDigest, ParseApprovalIdError};
pub use memory::MemoryApprovals;
pub use record::{Approval, ApprovalState, Claim, Verdict};

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

    /// Gives back what was claimed, because the call was certainly not made. Says whether it may be claimed again: it has not
    /// expired, and was not handed back before.
    ///
    /// # Errors
    /// The store cannot tell: it may stay consumed.
    fn hand_back(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError>;

    /// What waits for a person, the oldest first.
    ///
    /// # Errors
    /// The store cannot tell.
    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError>;
}

impl<T: ApprovalStore + ?Sized> ApprovalStore for Arc<T> {
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError> {
        (**self).request(ask, now)
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError> {
        (**self).decide(id, verdict, by, now)
    }

    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        (**self).claim(id, now)
    }

    fn hand_back(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        (**self).hand_back(claim, now)
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        (**self).pending(now)
    }
}

/// The store of approvals cannot tell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovalError {
    /// It cannot be reached, or did not answer in time.
    #[error("the store of approvals is unavailable")]
    Unavailable(#[source] Option<Box<dyn Error + Send + Sync>>),
    /// It is full of live approvals, none of which may be evicted.
    #[error("the store of approvals is full: {capacity} are live")]
    Full {
        /// How many it holds at most.
        capacity: usize,
    },
    /// The names in the call are longer than it keeps: nobody could read them anyway.
    #[error("the names in the call have {bytes} bytes, past the bound of {bound}")]
    TooLong {
        /// How long the names of tool and caller are together.
        bytes: usize,
        /// How long they may be.
        bound: usize,
    },
}

/// An approval could not be decided. It stays as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError {
    /// There is no such request, or it has been decided, or has expired.
    #[error("the request is not pending")]
    NotPending,
    /// The policy does not let this person decide it, or the person asked for it.
    #[error("not an approver of this call")]
    NotAnApprover,
    /// This person has approved it already, and another one is needed.
    #[error("this person has approved the call already")]
    AlreadyApproved,
    /// The store cannot tell.
    #[error(transparent)]
    Store(#[from] ApprovalError),
}

impl DecideError {
    /// `not_pending`, `not_an_approver` (also for somebody who has approved already, and is no second person) or
    /// `store_unavailable`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotPending => "not_pending",
            Self::NotAnApprover | Self::AlreadyApproved => "not_an_approver",
            Self::Store(_) => "store_unavailable",
        }
    }
}
