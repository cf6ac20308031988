//! Approvals: what a person has to say before a call may be made.
//!
//! A call that needs one asks for it: an [`Approval`] is *pending*, until people *approve* or *refuse* it. One that is approved is
//! *claimed* by the call, once, before its `ttl` ends, and handed back when the call was certainly not made. An [`ApprovalStore`] keeps
//! them; [`MemoryApprovals`] does so in the process; an [`AsyncApprovalStore`] keeps them across a network, for many. The gate asks
//! it: a host needs [`Gate::approve`](crate::Gate::approve), [`Gate::refuse`](crate::Gate::refuse) and
//! [`Gate::pending`](crate::Gate::pending) alone, or their twins that end in `_async`.

mod ask;
mod group;
mod id;
mod json;
mod memory;
mod record;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "signed")]
pub mod signed;
#[cfg(not(feature = "signed"))]
#[path = "unsigned.rs"]
pub(crate) mod signed;
mod store;

use std::error::Error;

pub use ask::Ask;
pub use id::{ApprovalId, CallDigest, ParseApprovalIdError};
pub use json::ParseApprovalError;
pub use memory::MemoryApprovals;
pub use record::{Approval, ApprovalState, Claim, Verdict};
pub use store::{ApprovalStore, AsyncApprovalStore};

/// How many bytes the names of tool and caller may have together. The agent writes the tool's, and a store keeps it.
const NAME_BYTES: usize = 4096;
/// How many bytes the text may have of what an approval is bound to, to be kept.
const DETAILS_BYTES: usize = 4096;
/// How many approvals are kept at most, unless the host says otherwise.
const CAPACITY: usize = 10_000;
/// How many requests of one asker may wait at once, unless the host says otherwise.
const PENDING: usize = 100;

/// The store of approvals cannot tell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovalError {
    /// It could not be reached, did not answer in time, or gave an answer that no store gives.
    #[error("the store of approvals is unavailable")]
    #[non_exhaustive]
    Unavailable {
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It is full of live approvals, none of which may be evicted.
    #[error("the store of approvals is full: {capacity} are live")]
    Full {
        /// How many it holds at most.
        capacity: usize,
    },
    /// So many requests of the caller's grant (or who else it is counted by) wait already, as may wait at once.
    #[error("{pending} requests of this caller wait already")]
    TooManyPending {
        /// How many may wait.
        pending: usize,
    },
    /// The store is across a network, and was asked by a verb that does not wait.
    #[error(
        "the approvals are kept across a network: decide calls with `check_async`, `check_approved_async` or \
         `check_signed_async`, and use `approve_async`, `refuse_async` and `pending_async`"
    )]
    AsyncOnly,
    /// What it holds under the names of its approvals is nothing that it has written.
    #[error("the store of approvals holds something else under an approval's name")]
    Corrupt,
    /// The host's clock and the server's are further apart than the store was told to bear.
    #[error(
        "the host's clock is {skew_millis} ms away from that of the store of approvals, more than the {bound_millis} ms that are \
         allowed"
    )]
    ClockSkew {
        /// How far the host's clock is ahead; negative if it is behind.
        skew_millis: i64,
        /// How far it may be away.
        bound_millis: u64,
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

impl ApprovalError {
    /// Makes an [`Unavailable`](Self::Unavailable) error. The cause is an error or a text, for the host's log.
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { source: cause.into() }
    }
}

impl Ask<'_> {
    /// Whether the names in the call are short enough to be kept.
    fn check_names(&self) -> Result<(), ApprovalError> {
        let bytes = self.name_bytes();
        if bytes > NAME_BYTES { Err(ApprovalError::TooLong { bytes, bound: NAME_BYTES }) } else { Ok(()) }
    }
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
