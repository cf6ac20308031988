//! Approvals: permissions by people for calls that need one.
//!
//! A call that needs an approval requests one. The [`Approval`] is *pending* until people *approve*
//! or *refuse* it. An approved one is *claimed* by the call before its `ttl` ends, once or as often
//! as the policy's `uses` says, and *restored* if the call was certainly not made. A refusal is an
//! answer too: until its `ttl` ends, the same call is denied and asks nobody, unless the refusal is
//! *lifted*.
//!
//! An [`ApprovalStore`] keeps approvals: [`MemoryApprovals`] in the process, an
//! [`AsyncApprovalStore`] across a network, for many processes. The gate calls the store. A host
//! needs only [`Gate::approve`](crate::Gate::approve), [`Gate::refuse`](crate::Gate::refuse) and
//! [`Gate::pending`](crate::Gate::pending), or the same methods of
//! [`AsyncGate`](crate::AsyncGate).

mod ask;
mod group;
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
mod uses;

use std::error::Error;

pub use crate::call::approval_id::{ApprovalId, CallDigest, ParseApprovalIdError};
pub use ask::{Ask, ShownArgument};
pub use json::ParseApprovalError;
pub use memory::MemoryApprovals;
pub use record::{Approval, ApprovalState, Claim, Redemption, Verdict};
pub use store::{ApprovalStore, AsyncApprovalStore};

/// The maximum length of the names of tool and caller together, in bytes. The agent writes the
/// tool's name, and a store keeps it.
const NAME_BYTES: usize = 4096;
/// The maximum length of the values that a store keeps of one request, in bytes.
const DETAILS_BYTES: usize = 16_384;
/// The maximum length of the names beside values that are cut, in bytes.
const DETAIL_NAMES_BYTES: usize = 4096;
/// The default number of approvals that a store has room for.
const CAPACITY: usize = 10_000;
/// The default number of requests of one asker that can be pending at once.
const PENDING_PER_ASKER: usize = 100;

/// The approval store failed, or refused the request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovalError {
    /// It could not be reached, did not answer in time, or gave an answer that no store gives.
    #[error("the approval store is unavailable")]
    #[non_exhaustive]
    Unavailable {
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It is full of live approvals, and these are never evicted.
    #[error("the approval store is full: it has {capacity} live approvals")]
    Full {
        /// The number of approvals that it has room for.
        capacity: usize,
    },
    /// The caller's [asker](Ask::asker) has as many pending requests as it can have at once.
    #[error("this caller already has {pending} pending requests")]
    TooManyPending {
        /// The number of requests that can be pending.
        pending: usize,
    },
    /// It holds data that was not written by this crate.
    #[error("the approval store holds data that was not written by toolgate")]
    Corrupt,
    /// The clocks of host and server differ by more than the store allows.
    #[error(
        "the host's clock differs by {skew_millis} ms from that of the approval store; \
         at most {bound_millis} ms are allowed"
    )]
    ClockSkew {
        /// How far the host's clock is ahead, in milliseconds; negative if it is behind.
        skew_millis: i64,
        /// The maximum difference, in milliseconds.
        bound_millis: u64,
    },
    /// The names in the call are too long to be kept. People could not read them anyway.
    #[error("the names in the call have {bytes} bytes; at most {bound} are allowed")]
    TooLong {
        /// The length of the names of tool and caller together.
        bytes: usize,
        /// The maximum length.
        bound: usize,
    },
}

/// An approval could not be decided. It has not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError {
    /// The request does not exist, has been decided, or has expired.
    #[error("the request is not pending")]
    NotPending,
    /// The policy does not let this person decide it, or this person made the request.
    #[error("not an approver of this call")]
    NotAnApprover,
    /// This person has approved it already, and another person is needed.
    #[error("this person has approved the call already")]
    AlreadyApproved,
    /// The request is too long to be shown [in full](Approval::is_shown), and the host does not let
    /// people approve what they cannot see.
    #[error("a part of the call's arguments is not shown, so nobody can approve it")]
    NotShown,
    /// No refusal of this request is in force.
    #[error("the request has not been refused, or the refusal has ended")]
    NotRefused,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ApprovalError),
}

impl ApprovalError {
    /// Makes an [`Unavailable`](Self::Unavailable) error. The cause is an error or a text, for the
    /// host's log.
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { source: cause.into() }
    }
}

impl Ask<'_> {
    /// Checks that the names in the call are short enough to be kept.
    fn check_names(&self) -> Result<(), ApprovalError> {
        let bytes = self.name_bytes();
        if bytes > NAME_BYTES { Err(ApprovalError::TooLong { bytes, bound: NAME_BYTES }) } else { Ok(()) }
    }
}

impl DecideError {
    /// `not_pending`, `not_an_approver` (also for a second approval by the same person),
    /// `not_shown`, `not_refused` or `store_unavailable`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotPending => "not_pending",
            Self::NotAnApprover | Self::AlreadyApproved => "not_an_approver",
            Self::NotShown => "not_shown",
            Self::NotRefused => "not_refused",
            Self::Store(_) => "store_unavailable",
        }
    }
}
