//! What a rules object says of every call that it matches.

use crate::policy::ast::{RuleSection, RulesObject};
use crate::policy::compiled::Action;

impl RulesObject {
    /// A tool that it is about, whatever else is said of it; [`Lint::reaching`](super::Lint::reaching) has those that come to its
    /// rules.
    pub(super) fn tool(&self) -> String {
        self.name.as_ref().map_or_else(|| "tool".to_owned(), |name| name.replace('*', ""))
    }

    /// Which of its rules denies every call: its action, or a rule of `deny_if` without conditions.
    pub(super) fn denies_all(&self) -> Option<String> {
        self.always(Action::Deny, RuleSection::DenyIf)
    }

    /// Whether something stops every call before, or as, the rules of `section` do: `deny_if` or `require_approval_if`.
    pub(super) fn stops_all(&self, section: RuleSection) -> bool {
        let asks = || self.always(Action::RequireApproval, RuleSection::RequireApprovalIf).is_some();
        self.denies_all().is_some() || (section == RuleSection::RequireApprovalIf && asks())
    }

    /// The action, if it is this one, or a rule of the section without conditions.
    fn always(&self, action: Action, section: RuleSection) -> Option<String> {
        if self.action == action {
            return Some(format!("{}/action", self.pointer));
        }
        let index = self.rules(section).iter().position(|rule| rule.conditions.is_empty())?;
        Some(self.rule_pointer(section, index))
    }
}
