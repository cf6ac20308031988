//! Parts of a rules object that apply to every call that it matches.

use crate::policy::ast::{RuleSection, RulesObject};
use crate::policy::compiled::Action;

impl RulesObject {
    /// Returns the name of a tool that the object matches, even if no call of the tool reaches its
    /// rules. For tools whose calls do, see [`Lint::reaching_tools`](super::Lint::reaching_tools).
    pub(super) fn tool(&self) -> String {
        self.name.as_ref().map_or_else(|| "tool".to_owned(), |name| name.replace('*', ""))
    }

    /// Returns the pointer of the part that denies every call: the action, or a rule of `deny_if`
    /// without conditions.
    pub(super) fn denies_all(&self) -> Option<String> {
        self.applies_to_all(Action::Deny, RuleSection::DenyIf)
    }

    /// Returns `true` if a part of the object stops every call before the rules of `section`, or
    /// in the same way. `section` is `deny_if` or `require_approval_if`.
    pub(super) fn stops_all(&self, section: RuleSection) -> bool {
        let asks = || self.applies_to_all(Action::RequireApproval, RuleSection::RequireApprovalIf).is_some();
        self.denies_all().is_some() || (section == RuleSection::RequireApprovalIf && asks())
    }

    /// Returns the pointer of the action if it is `action`, or else that of the first rule of the
    /// section without conditions.
    fn applies_to_all(&self, action: Action, section: RuleSection) -> Option<String> {
        if self.action == action {
            return Some(format!("{}/action", self.pointer));
        }
        let index = self.rules(section).iter().position(|rule| rule.conditions.is_empty())?;
        Some(self.rule_pointer(section, index))
    }
}
