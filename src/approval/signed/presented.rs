//! Signed approvals as calls present them.

use super::{ApprovalKeys, SignedError};
use crate::approval::{ApprovalError, ApprovalId, Ask, AsyncApprovalStore, Claim};
use crate::store::StoreFuture;
use crate::time::Timestamp;

/// The text that a call presents.
#[derive(Clone, Copy)]
pub(crate) struct SignedText<'a>(pub(crate) &'a str);

impl SignedText<'_> {
    /// Checks that the text allows this call now. Only a store knows if it was used before.
    pub(crate) fn verify(
        self,
        keys: Option<&ApprovalKeys>,
        ask: &Ask<'_>,
        now: Timestamp,
    ) -> Result<VerifiedApproval, SignedError> {
        keys.ok_or(SignedError::UnknownKey)?.verify(self.0, ask, now)
    }
}

/// A signed approval that is valid unless it was used before.
pub(crate) struct VerifiedApproval {
    pub(super) id: ApprovalId,
    /// The end of the last text that may have been signed for the request.
    pub(super) until: Timestamp,
}

impl VerifiedApproval {
    /// Uses the approval, once.
    pub(crate) fn redeem<'a>(
        &'a self,
        store: &'a dyn AsyncApprovalStore,
        now: Timestamp,
    ) -> StoreFuture<'a, Option<Claim>, ApprovalError> {
        store.redeem(&self.id, self.until, now)
    }

    /// Returns the error for an approval that was used before.
    pub(crate) fn spent(&self) -> SignedError {
        SignedError::Spent
    }
}
