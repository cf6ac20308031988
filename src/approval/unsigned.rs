//! Replaces signed approvals if the feature `signed` is off. No value of these types exists.

pub(crate) enum ApprovalKeys {}

#[derive(Clone, Copy, Debug)]
pub(crate) enum SignedError {}

#[derive(Clone, Copy)]
pub(crate) enum NoText {}

pub(crate) type SignedText<'a> = NoText;
