//! One of two policies, with its rules as they are written.

use std::collections::{HashMap, HashSet};

use super::cover::pieces;
use super::names::generic;
use crate::json::pointer;
use crate::policy::ast::{Document, RulesObject};
use crate::policy::compiled::Action;
use crate::policy::limit::Limit;
use crate::policy::{Approving, Code, Effect, Policy};
use crate::tools::explain::Witness;

/// A policy to compare.
pub(super) struct Side<'p> {
    pub(super) policy: &'p Policy,
    document: &'p Document,
    /// In document order.
    pub(super) names: Vec<&'p str>,
    pub(super) hide: Vec<&'p str>,
    pub(super) entry_of: HashMap<&'p str, u32>,
    /// How many of its names and hidden names are patterns.
    pub(super) patterns: u64,
    /// The counters that limits have which refuse calls.
    pub(super) counting: HashSet<&'p str>,
}

/// How a policy stops the calls of every tool that a pattern names, before it looks at the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// All are denied.
    Denied,
    /// No entry names all of them: those that none names are denied.
    Unnamed,
    /// Rules decide.
    Ruled,
}

impl<'p> Side<'p> {
    pub(super) fn of(policy: &'p Policy, document: &'p Document) -> Self {
        let names: Vec<&str> = policy.entry_names().collect();
        let entry_of = names.iter().copied().zip(0u32..).collect();
        let patterns =
            policy.entry_names().chain(policy.hidden_names()).filter(|name| name.contains('*')).count() as u64;
        let hide = policy.hidden_names().collect();
        let entries = (0u32..).zip(&names).map(|(entry, _)| Some(entry)).chain([None]);
        let limits = entries.flat_map(|entry| policy.limits_of(entry)).filter(|limit| !limit.shadow);
        let counting = limits.map(|limit| &*limit.counter).collect();
        Self { policy, document, names, hide, entry_of, patterns, counting }
    }

    /// The rules of an entry, or of `all_tools` if it is there.
    pub(super) fn rules_of(&self, entry: Option<u32>) -> Option<&'p RulesObject> {
        self.document.object(entry)
    }

    /// The rules that apply to every tool of a pattern, by its generic name: those of the entries in which it lies, then those of
    /// all tools.
    pub(super) fn rules_for(&self, name: &str) -> Vec<&'p RulesObject> {
        let entries = self.policy.entries_matching(name).into_iter().map(Some);
        entries.chain([None]).filter_map(|entry| self.rules_of(entry)).collect()
    }

    /// The limits, likewise.
    pub(super) fn limits_for(&self, name: &str) -> Vec<&Limit> {
        let entries = self.policy.entries_matching(name).into_iter().map(Some);
        entries.chain([None]).flat_map(|entry| self.policy.limits_of(entry)).collect()
    }

    pub(super) fn standing(&self, pattern: &str, fresh: char) -> Standing {
        let name = generic(pattern, fresh);
        match Witness::of_tool(name).evaluate(self.policy).effect() {
            Effect::Deny(Code::Hidden | Code::ActionDeny) => Standing::Denied,
            Effect::Deny(Code::DefaultDeny) if pattern.contains('*') => Standing::Unnamed,
            Effect::Deny(Code::DefaultDeny) => Standing::Denied,
            _ => Standing::Ruled,
        }
    }

    /// The place of an entry, or of `all_tools`.
    pub(super) fn place(&self, entry: Option<u32>) -> String {
        let Some(entry) = entry else { return "/all_tools".to_owned() };
        let mut place = "/tools".to_owned();
        pointer::push_key(&mut place, self.names.get(entry as usize).copied().unwrap_or_default());
        place
    }

    /// The places of the rules that apply to a tool, in the order in which they stop calls. The first is that of the tool itself.
    pub(super) fn order(&self, tool: &str) -> Vec<String> {
        let entries: Vec<Option<u32>> =
            self.policy.entries_matching(tool).into_iter().map(Some).chain([None]).collect();
        let mut order = vec![String::new()];
        for section in ["/require/", "/deny_if/", "/action", "/require_approval_if/"] {
            for entry in &entries {
                let base = self.place(*entry);
                let pieces = self.rules_of(*entry).map_or_else(Vec::new, pieces);
                let places = pieces.into_iter().map(|(_, place)| place);
                order.extend(places.filter(|place| place.starts_with(section)).map(|place| format!("{base}{place}")));
            }
        }
        order
    }

    /// Whether anything in it ever asks for an approval.
    pub(super) fn asks(&self) -> bool {
        self.document.entries.iter().chain(&self.document.all_tools).any(asks)
    }

    /// Whether it ever asks for an approval of a tool's calls.
    pub(super) fn asks_of(&self, tool: &str) -> bool {
        self.rules_for(tool).into_iter().any(asks)
    }

    /// The names of the entries that have terms for approvals, with them; `*` is `all_tools`.
    pub(super) fn approvals(&self) -> HashMap<&str, &Approving> {
        let entries = (0u32..).zip(&self.names).map(|(entry, name)| (Some(entry), *name));
        let all = entries.chain([(None, "*")]);
        all.filter_map(|(entry, name)| Some((name, self.policy.approval_of(entry)?))).collect()
    }
}

fn asks(object: &RulesObject) -> bool {
    object.action == Action::RequireApproval || !object.require_approval_if.is_empty()
}
