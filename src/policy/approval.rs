//! The terms of approvals: how long they are valid, who gives them, what they are bound to.

use std::time::Duration;

use crate::call::path::Path;

/// The default of `ttl`: 10 minutes.
pub(super) const DEFAULT_TTL: Duration = Duration::from_secs(600);
/// The maximum of `uses`.
pub(crate) const MAX_USES: u32 = 1_000;

/// The key `approval` of one rules object.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct Approving {
    /// In seconds.
    pub(crate) ttl: Option<u32>,
    pub(crate) approvers: Option<Box<[Box<str>]>>,
    pub(crate) min_approvers: Option<u32>,
    pub(crate) bind: Option<Box<[Binding]>>,
    pub(crate) uses: Option<u32>,
}

/// An argument that an approval is bound to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) path: Path,
    /// A smaller number is approved, too.
    pub(crate) at_most: bool,
}

/// The terms of one call: the strictest of each key, among the rules objects that match the call
/// and have `approval`.
///
/// A key that is missing from `approval` has its default: `ttl` is `10m`, `uses` is 1, and without
/// `bind` all arguments are bound, whatever the others name. Objects without `approval` do not
/// count.
pub(crate) struct Terms<'p> {
    /// The shortest.
    pub(crate) ttl: Duration,
    /// An approver must be on each of these lists. Without one, the host decides who may approve.
    pub(crate) approvers: Vec<&'p [Box<str>]>,
    /// The largest; at least 1.
    pub(crate) min_approvers: u32,
    /// The arguments that any object binds; `None` binds all arguments.
    pub(crate) bind: Option<Vec<&'p Binding>>,
    /// The number of calls that an approval serves: the smallest.
    pub(crate) uses: u32,
}
