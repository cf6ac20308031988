//! What of a policy applies to whom, for tools over the policy alone.

use super::{DefaultEffect, Policy};
use crate::limit::Limit;

impl Policy {
    /// Whether a tool that no entry matches is denied.
    pub(crate) fn denies_by_default(&self) -> bool {
        self.compiled().default == DefaultEffect::Deny
    }

    /// The names and patterns of the entries, in document order.
    pub(crate) fn entry_names(&self) -> impl Iterator<Item = &str> {
        let names = &self.compiled().names;
        (0u32..).take(names.len()).map(|entry| names.name(entry))
    }

    /// The names and patterns of `hide`, in document order.
    pub(crate) fn hidden_names(&self) -> impl Iterator<Item = &str> {
        let names = &self.compiled().hide;
        (0u32..).take(names.len()).map(|entry| names.name(entry))
    }

    /// The entries that match a tool, in document order.
    pub(crate) fn entries_matching(&self, tool: &str) -> Vec<u32> {
        let names = &self.compiled().names;
        names.matching(tool).iter(names, tool).collect()
    }

    /// The limits of an entry, or of `all_tools`; `rate_limit` is the last of them.
    pub(crate) fn limits_of(&self, entry: Option<u32>) -> &[Limit] {
        self.compiled().rules(entry).map_or(&[], |rules| &rules.limits)
    }
}
