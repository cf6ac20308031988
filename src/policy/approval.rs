//! What a policy says of approvals: how long they hold, who gives them, what they are bound to.

use std::time::Duration;

use crate::call::path::Path;

/// How long an approval holds where `approval` does not say.
pub(super) const DEFAULT_TTL: Duration = Duration::from_secs(600);

/// `approval` of one rules object.
#[derive(Default)]
pub(crate) struct Approving {
    /// In seconds.
    pub(crate) ttl: Option<u32>,
    pub(crate) approvers: Option<Box<[Box<str>]>>,
    pub(crate) min_approvers: Option<u32>,
    pub(crate) bind: Option<Box<[Binding]>>,
}

/// An argument that an approval is bound to.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) path: Path,
    /// A smaller number will do as well.
    pub(crate) at_most: bool,
}

/// The terms of one call: those of every rules object that matches it and has `approval`, the strictest of each.
///
/// An object that leaves a key of its `approval` out says its default: `ttl` is `10m` then, and without `bind` all
/// arguments are bound, whatever the others name. Objects without `approval` say nothing of it.
pub(crate) struct Terms<'p> {
    /// The shortest.
    pub(crate) ttl: Duration,
    /// Lists of each of which an approver must be; none lets anyone approve whom the host lets.
    pub(crate) approvers: Vec<&'p [Box<str>]>,
    /// The largest; at least 1.
    pub(crate) min_approvers: u32,
    /// What is bound in place of all arguments: all that any object names.
    pub(crate) bind: Option<Vec<&'p Binding>>,
}
