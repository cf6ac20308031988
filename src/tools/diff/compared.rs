//! A policy of a comparison, with its document and the names in it.

use std::collections::{HashMap, HashSet};

use super::cover::clauses;
use super::names::generic_name;
use crate::json::pointer;
use crate::policy::ast::{Document, RulesObject};
use crate::policy::compiled::Action;
use crate::policy::limit::Limit;
use crate::policy::{Approving, Code, Effect, Policy};
use crate::tools::explain::Witness;

/// One of the two policies of a comparison.
pub(super) struct ComparedPolicy<'p> {
    pub(super) policy: &'p Policy,
    document: &'p Document,
    /// The names and patterns of the entries, in document order.
    pub(super) names: Vec<&'p str>,
    pub(super) hide: Vec<&'p str>,
    pub(super) entry_of: HashMap<&'p str, u32>,
    /// The number of patterns among the names of entries and of `hide`.
    pub(super) pattern_count: u64,
    /// The counters of limits that refuse calls: those that are not shadow limits.
    pub(super) enforced_counters: HashSet<&'p str>,
}

/// The effect of a policy on all tools of a pattern, as far as their names decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameEffect {
    /// All are denied.
    Denied,
    /// No entry matches all of them. Those that no entry matches are denied.
    DeniedByDefault,
    /// Their rules decide.
    Rules,
}

impl<'p> ComparedPolicy<'p> {
    pub(super) fn new(policy: &'p Policy, document: &'p Document) -> Self {
        let names: Vec<&str> = policy.entry_names().collect();
        let entry_of = names.iter().copied().zip(0u32..).collect();
        let pattern_count =
            policy.entry_names().chain(policy.hidden_names()).filter(|name| name.contains('*')).count() as u64;
        let hide = policy.hidden_names().collect();
        let entries = (0u32..).zip(&names).map(|(entry, _)| Some(entry)).chain([None]);
        let limits = entries.flat_map(|entry| policy.limits_of(entry)).filter(|limit| !limit.shadow);
        let enforced_counters = limits.map(|limit| &*limit.counter).collect();
        Self { policy, document, names, hide, entry_of, pattern_count, enforced_counters }
    }

    /// Returns the rules of an entry, or of `all_tools` for `None`.
    pub(super) fn rules_of(&self, entry: Option<u32>) -> Option<&'p RulesObject> {
        self.document.object(entry)
    }

    /// Returns the rules that apply to a tool: those of its entries, then `all_tools`. For the
    /// generic name of a pattern, returns those that apply to all of its tools.
    pub(super) fn rules_for(&self, name: &str) -> Vec<&'p RulesObject> {
        let entries = self.policy.entries_matching(name).into_iter().map(Some);
        entries.chain([None]).filter_map(|entry| self.rules_of(entry)).collect()
    }

    /// Returns the limits that apply to a tool, or to all tools of a pattern, by its generic name.
    pub(super) fn limits_for(&self, name: &str) -> Vec<&Limit> {
        let entries = self.policy.entries_matching(name).into_iter().map(Some);
        entries.chain([None]).flat_map(|entry| self.policy.limits_of(entry)).collect()
    }

    pub(super) fn name_effect(&self, pattern: &str, fresh: char) -> NameEffect {
        let name = generic_name(pattern, fresh);
        match Witness::of_tool(name).evaluate(self.policy).effect() {
            Effect::Deny(Code::Hidden | Code::ActionDeny) => NameEffect::Denied,
            Effect::Deny(Code::DefaultDeny) if pattern.contains('*') => NameEffect::DeniedByDefault,
            Effect::Deny(Code::DefaultDeny) => NameEffect::Denied,
            _ => NameEffect::Rules,
        }
    }

    /// Returns the pointer to an entry, or to `all_tools` for `None`.
    pub(super) fn pointer(&self, entry: Option<u32>) -> String {
        let Some(entry) = entry else { return "/all_tools".to_owned() };
        let mut pointer = "/tools".to_owned();
        pointer::push_key(&mut pointer, self.names.get(entry as usize).copied().unwrap_or_default());
        pointer
    }

    /// Returns the pointers to the rules that apply to a tool, in the order of evaluation. An empty
    /// one comes first, for the checks of the tool's name.
    pub(super) fn evaluation_order(&self, tool: &str) -> Vec<String> {
        let entries: Vec<Option<u32>> =
            self.policy.entries_matching(tool).into_iter().map(Some).chain([None]).collect();
        let mut order = vec![String::new()];
        for section in ["/require/", "/deny_if/", "/action", "/require_approval_if/"] {
            for entry in &entries {
                let base = self.pointer(*entry);
                let clauses = self.rules_of(*entry).map_or_else(Vec::new, clauses);
                let below = clauses.into_iter().map(|(_, pointer)| pointer);
                order.extend(below.filter(|it| it.starts_with(section)).map(|it| format!("{base}{it}")));
            }
        }
        order
    }

    /// Returns `true` if any rule requires approval.
    pub(super) fn requires_approval(&self) -> bool {
        self.document.entries.iter().chain(&self.document.all_tools).any(requires_approval)
    }

    /// Returns `true` if any rule that applies to the tool requires approval.
    pub(super) fn requires_approval_of(&self, tool: &str) -> bool {
        self.rules_for(tool).into_iter().any(requires_approval)
    }

    /// Returns the approval terms by the names of their entries. `*` is `all_tools`.
    pub(super) fn approvals(&self) -> HashMap<&str, &Approving> {
        let entries = (0u32..).zip(&self.names).map(|(entry, name)| (Some(entry), *name));
        let all = entries.chain([(None, "*")]);
        all.filter_map(|(entry, name)| Some((name, self.policy.approval_of(entry)?))).collect()
    }
}

fn requires_approval(object: &RulesObject) -> bool {
    object.action == Action::RequireApproval || !object.require_approval_if.is_empty()
}
