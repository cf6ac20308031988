//! One of two policies, with its rules as they are written.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::cover::pieces;
use super::names::generic;
use super::witness::NOON;
use crate::call::ToolCall;
use crate::json::pointer;
use crate::policy::limit::Limit;
use crate::policy::{Code, Effect, Policy};

/// A policy to compare.
pub(super) struct Side<'p> {
    pub(super) policy: &'p Policy,
    /// In document order.
    pub(super) names: Vec<&'p str>,
    /// Those of each entry.
    pub(super) rules: Vec<Value>,
    pub(super) hide: Vec<&'p str>,
    pub(super) all_tools: Value,
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
    /// Nothing, if the document is nested more deeply than can be looked into.
    pub(super) fn of(policy: &'p Policy) -> Option<Self> {
        let mut document: Map<String, Value> = serde_json::from_str(policy.to_json()).ok()?;
        let mut tools = match document.remove("tools") {
            Some(Value::Object(tools)) => tools,
            _ => Map::new(),
        };
        let names: Vec<&str> = policy.entry_names().collect();
        let rules = names.iter().map(|name| tools.remove(*name).unwrap_or_default()).collect();
        let entry_of = names.iter().copied().zip(0u32..).collect();
        let all_tools = document.remove("all_tools").unwrap_or_default();
        let patterns =
            policy.entry_names().chain(policy.hidden_names()).filter(|name| name.contains('*')).count() as u64;
        let hide = policy.hidden_names().collect();
        let entries = (0u32..).zip(&names).map(|(entry, _)| Some(entry)).chain([None]);
        let limits = entries.flat_map(|entry| policy.limits_of(entry)).filter(|limit| !limit.shadow);
        let counting = limits.map(|limit| &*limit.counter).collect();
        Some(Self { policy, names, rules, hide, all_tools, entry_of, patterns, counting })
    }

    pub(super) fn rules_of(&self, entry: Option<u32>) -> &Value {
        entry.map_or(&self.all_tools, |entry| self.rules.get(entry as usize).unwrap_or(&Value::Null))
    }

    /// The rules that apply to every tool of a pattern, by its generic name: those of the entries in which it lies, then those of
    /// all tools.
    pub(super) fn rules_for(&self, name: &str) -> Vec<&Value> {
        let entries = self.policy.entries_matching(name).into_iter().map(Some);
        entries.chain([None]).map(|entry| self.rules_of(entry)).collect()
    }

    /// The limits, likewise.
    pub(super) fn limits_for(&self, name: &str) -> Vec<&Limit> {
        let entries = self.policy.entries_matching(name).into_iter().map(Some);
        entries.chain([None]).flat_map(|entry| self.policy.limits_of(entry)).collect()
    }

    pub(super) fn standing(&self, pattern: &str, fresh: char) -> Standing {
        let name = generic(pattern, fresh);
        match self.policy.evaluate(&ToolCall::new(&name, None::<&Value>), NOON).effect() {
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
                let places = pieces(self.rules_of(*entry)).into_iter().map(|(_, place)| place);
                order.extend(places.filter(|place| place.starts_with(section)).map(|place| format!("{base}{place}")));
            }
        }
        order
    }

    /// Whether anything in it ever asks for an approval.
    pub(super) fn asks(&self) -> bool {
        self.rules.iter().any(asks) || asks(&self.all_tools)
    }

    /// Whether it ever asks for an approval of a tool's calls.
    pub(super) fn asks_of(&self, tool: &str) -> bool {
        self.rules_for(tool).into_iter().any(asks)
    }

    /// The names of the entries that have terms for approvals, with them; `*` is `all_tools`.
    pub(super) fn approvals(&self) -> HashMap<&str, &Value> {
        let entries = self.names.iter().copied().zip(&self.rules).chain([("*", &self.all_tools)]);
        entries.filter_map(|(name, rules)| Some((name, rules.get("approval")?))).collect()
    }
}

fn asks(rules: &Value) -> bool {
    rules.get("action").and_then(Value::as_str) == Some("require_approval")
        || rules.get("require_approval_if").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty())
}
