//! The entries of a policy and what they contain, for the comparison.

use crate::policy::compiled::DefaultEffect;
use crate::policy::limit::Limit;
use crate::policy::{Approving, Policy};

impl Policy {
    /// Returns `true` if a tool that no entry matches is denied.
    pub(crate) fn denies_by_default(&self) -> bool {
        self.compiled().default == DefaultEffect::Deny
    }

    /// Returns the names and patterns of the entries, in document order.
    pub(crate) fn entry_names(&self) -> impl Iterator<Item = &str> {
        let names = &self.compiled().names;
        (0u32..).take(names.len()).map(|entry| names.name(entry))
    }

    /// Returns the names and patterns of `hide`, in document order.
    pub(crate) fn hidden_names(&self) -> impl Iterator<Item = &str> {
        let names = &self.compiled().hide;
        (0u32..).take(names.len()).map(|entry| names.name(entry))
    }

    /// Returns the entries that match a tool, in document order.
    pub(crate) fn entries_matching(&self, tool: &str) -> Vec<u32> {
        let names = &self.compiled().names;
        names.matching(tool).iter(names, tool).collect()
    }

    /// Returns the limits of an entry, or of `all_tools` for `None`. `rate_limit` is the last of
    /// them.
    pub(crate) fn limits_of(&self, entry: Option<u32>) -> &[Limit] {
        self.compiled().rules(entry).map_or(&[], |rules| &rules.limits)
    }

    /// Returns the approval terms of an entry, or of `all_tools` for `None`.
    pub(crate) fn approval_of(&self, entry: Option<u32>) -> Option<&Approving> {
        self.compiled().rules(entry)?.approval.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_limits_are_found_by_index() {
        let limit = r#"{"counter":"c","window":"day","max":1,"scope":"global"}"#;
        let rate = r#"{"max":2,"window":60}"#;
        let document = format!(
            r#"{{"version":"1","default":"deny","hide":["h","z*"],"all_tools":{{"limits":[{limit}]}},
                "tools":{{"b*":{{}},"a":{{}},"ba":{{"limits":[{limit}],"rate_limit":{rate}}}}}}}"#
        );
        let policy = Policy::from_json(&document).unwrap();
        assert!(policy.denies_by_default());
        assert!(!Policy::from_json(&document.replace("deny", "allow")).unwrap().denies_by_default());
        assert_eq!(policy.entry_names().collect::<Vec<_>>(), ["b*", "a", "ba"]);
        assert_eq!(policy.hidden_names().collect::<Vec<_>>(), ["h", "z*"]);
        assert_eq!(
            ["a", "ba", "bb", "c"].map(|tool| policy.entries_matching(tool)),
            [vec![1], vec![0, 2], vec![0], vec![]]
        );
        let counters = |entry| policy.limits_of(entry).iter().map(|limit| &*limit.counter).collect::<Vec<_>>();
        assert_eq!([Some(0), Some(2), None].map(counters), [vec![], vec!["c", "ba_rate"], vec!["c"]]);
    }
}
