//! Calls that reach a rule: no other part of the policy hides or denies them first.

use serde_json::Value;

use super::probe::undenied_call;
use super::{Lint, SMALL_POLICY_STEPS};
use crate::call::path::Path;
use crate::policy::ast::{Condition, RulesObject, text_of};
use crate::policy::condition::Absent;
use crate::policy::{Effect, Policy};
use crate::tools::explain::Witness;

/// The texts to try in place of the stars of a pattern.
const STAR_TEXTS: [&str; 8] = ["", "x", "a", "0", "_", "-x", "tool", "q7"];
/// The number of entries whose names are tried for `all_tools`.
const MAX_ENTRIES_TRIED: usize = 64;
/// The number of tools with which a rule is tried.
const MAX_REACHING_TOOLS: usize = 3;

impl Lint<'_> {
    /// Returns the names of a few tools that a rules object matches, and whose calls `hide`,
    /// `default` or an entry that denies every call does not stop.
    pub(super) fn reaching_tools(&mut self, object: &RulesObject) -> Vec<String> {
        if let Some(known) = self.reaching_tools.get(&object.pointer) {
            return known.clone();
        }
        let mut tools: Vec<String> = Vec::new();
        for name in self.candidate_tools(object) {
            if !self.spend_policy() {
                break;
            }
            if self.policy.lists(&name) && !self.denying_names.matches(&name) && !tools.contains(&name) {
                tools.push(name);
            }
            if tools.len() == MAX_REACHING_TOOLS {
                break;
            }
        }
        self.reaching_tools.insert(object.pointer.clone(), tools.clone());
        tools
    }

    fn candidate_tools(&self, object: &RulesObject) -> Vec<String> {
        let filled = |name: &str, texts: &[&str]| -> Vec<String> {
            match name.contains('*') {
                true => texts.iter().map(|text| name.replace('*', text)).collect(),
                false => vec![name.to_owned()],
            }
        };
        let Some(name) = object.name.as_deref() else {
            // Under `default: allow`, a tool without an entry is subject to `all_tools` alone.
            let unknown = ["tool", "x", "q7"].map(str::to_owned);
            let entries = self.document.entries.iter().take(MAX_ENTRIES_TRIED);
            let known = entries.filter_map(|entry| entry.name.as_deref());
            let texts = STAR_TEXTS.get(..2).unwrap_or_default();
            return unknown.into_iter().chain(known.flat_map(|name| filled(name, texts))).collect();
        };
        filled(name, &STAR_TEXTS)
    }

    /// Returns the rules that can deny a call of the tool, without actions.
    fn denying_rules(&self, tool: &str) -> Vec<RulesObject> {
        let matching = self.entry_names.matching(tool);
        let entries = matching.iter(&self.entry_names, tool).map(Some).chain([None]);
        let rules = |object: &RulesObject| RulesObject {
            name: object.name.clone(),
            require: object.require.clone(),
            deny_if: object.deny_if.clone(),
            ..RulesObject::default()
        };
        entries.filter_map(|entry| self.document.object(entry)).map(rules).collect()
    }

    /// Returns a call of the tool that a document does not deny, if one is found and enough steps
    /// are left. The search starts from a call without arguments, context and identities.
    fn call_undenied_by(&mut self, document: &str, tool: &str) -> Option<Witness> {
        if !self.spend(2 * document.len() + SMALL_POLICY_STEPS) {
            return None;
        }
        undenied_call(&document.parse().ok()?, Witness::of_tool(tool))
    }

    /// Returns a call of the tool that its rules do not deny, and the size of these rules in bytes.
    pub(super) fn passing_call(&mut self, tool: &str) -> (Option<Witness>, usize) {
        if let Some(known) = self.passing_calls.get(tool) {
            return known.clone();
        }
        if !self.spend_policy() {
            return (None, 0);
        }
        let document = text_of(&self.denying_rules(tool));
        let found = (self.call_undenied_by(&document, tool), document.len());
        self.passing_calls.insert(tool.to_owned(), found.clone());
        found
    }

    /// Returns a call that has `value` at the path, or nothing there if it is `None`, that `rule`
    /// does not stop, and whose effect by the whole policy satisfies `is_evaded`.
    pub(super) fn evading_call(
        &mut self,
        tool: &str,
        path: &Path,
        value: Option<&Value>,
        rule: &Policy,
        is_evaded: fn(Effect) -> bool,
    ) -> Option<Witness> {
        let policy = self.policy;
        let edited = |mut call: Witness| {
            let has_value = call.edit(path, value) || value.is_none();
            let evades = is_evaded(call.evaluate(policy).effect()) && call.evaluate(rule).is_allowed();
            (has_value && evades).then_some(call)
        };
        let (passing, bytes) = self.passing_call(tool);
        if !self.spend(self.policy_steps + bytes / 4) {
            return None;
        }
        if let Some(call) = passing.and_then(edited) {
            return Some(call);
        }
        // `require` may have been satisfied by this very argument, where an alternative exists.
        if value.is_some() || !self.spend(self.policy_steps + bytes) {
            return None;
        }
        let mut objects = self.denying_rules(tool);
        let mut is_changed = false;
        let rules = objects.iter_mut().flat_map(|object| &mut object.require);
        for condition in rules.flat_map(|rule| &mut rule.conditions) {
            is_changed |= remove_alternatives(condition, path);
        }
        if !is_changed {
            return None;
        }
        self.call_undenied_by(&text_of(&objects), tool).and_then(edited)
    }
}

/// Removes the alternatives that require the path from every `any` in a condition of `require`, if
/// others are left. Returns `true` if it removed some.
fn remove_alternatives(condition: &mut Condition, path: &Path) -> bool {
    let mut is_changed = false;
    if let Condition::Any(alternatives) = condition {
        let is_other = |condition: &Condition| !requires_path(condition, path);
        if alternatives.iter().any(is_other) {
            let before = alternatives.len();
            alternatives.retain(is_other);
            is_changed |= alternatives.len() < before;
        }
    }
    if let Condition::Any(conditions) | Condition::All(conditions) = condition {
        for inner in conditions {
            is_changed |= remove_alternatives(inner, path);
        }
    }
    is_changed
}

/// Returns `true` if a comparison in a condition of `require` requires the path, or a path below
/// it.
fn requires_path(condition: &Condition, path: &Path) -> bool {
    match condition {
        Condition::Any(conditions) | Condition::All(conditions) => {
            conditions.iter().any(|inner| requires_path(inner, path))
        }
        Condition::Not(inner) => requires_path(inner, path),
        Condition::Comparison(own) => {
            let is_optional = own.absent == Some(Absent::Match) || own.asks_for_absence();
            own.path.is_in_arguments() && own.path.steps().starts_with(path.steps()) && !is_optional
        }
    }
}
