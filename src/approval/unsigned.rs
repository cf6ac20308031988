//! Replaces signed approvals if the feature `signed` is off. No value of these types exists, so the
//! gate's code is the same with the feature and without.

use super::{ApprovalError, Ask, AsyncApprovalStore, Claim};
use crate::time::Timestamp;

pub(crate) enum ApprovalKeys {}

#[derive(Clone, Copy, Debug)]
pub(crate) enum SignedError {}

#[derive(Clone, Copy)]
pub(crate) enum NoText {}

pub(crate) type SignedText<'a> = NoText;

impl NoText {
    pub(crate) fn verify(
        self,
        _: Option<&ApprovalKeys>,
        _: &Ask<'_>,
        _: Timestamp,
    ) -> Result<VerifiedApproval, SignedError> {
        match self {}
    }
}

pub(crate) enum VerifiedApproval {}

impl VerifiedApproval {
    pub(crate) async fn redeem(
        &self,
        _: &dyn AsyncApprovalStore,
        _: Timestamp,
    ) -> Result<Result<Claim, SignedError>, ApprovalError> {
        match *self {}
    }
}
