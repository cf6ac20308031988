//! Signed approvals as calls present them.

use super::{ApprovalKeys, SignedError};
use crate::approval::{ApprovalError, ApprovalId, Ask, AsyncApprovalStore, Claim, Redemption};
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

/// A signed approval that is valid unless it was used up before.
pub(crate) struct VerifiedApproval {
    pub(super) id: ApprovalId,
    pub(super) uses: u32,
    /// The end of the last text that may have been signed for the request.
    pub(super) until: Timestamp,
}

impl VerifiedApproval {
    /// Takes a use of the approval. Returns why it cannot be used if it was used up or refused
    /// before.
    pub(crate) async fn redeem(
        &self,
        store: &dyn AsyncApprovalStore,
        now: Timestamp,
    ) -> Result<Result<Claim, SignedError>, ApprovalError> {
        Ok(match store.redeem(&self.id, self.uses, self.until, now).await? {
            Redemption::Claimed(claim) => Ok(claim),
            Redemption::Spent => Err(SignedError::Spent),
            Redemption::Refused => Err(SignedError::Refused),
        })
    }
}
