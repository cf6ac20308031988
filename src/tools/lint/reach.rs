//! Calls that reach a rule: of a tool that it is about and that nothing hides or denies, past all that stands before it.

use serde_json::Value;

use super::trial::undenied;
use super::{Lint, RUN};
use crate::call::path::Path;
use crate::policy::ast::{Condition, RulesObject, text_of};
use crate::policy::{Effect, Policy};
use crate::tools::explain::Witness;

/// What the stars of a pattern are tried to stand for.
const FILLS: [&str; 8] = ["", "x", "a", "0", "_", "-x", "tool", "q7"];
/// Of how many entries `all_tools` tries the names.
const ENTRIES: usize = 64;
/// How many tools a rule is tried with.
const TOOLS: usize = 3;

impl Lint<'_> {
    /// Names of tools that a rules object is about, and that neither `hide`, `default` nor an entry that denies all keeps from
    /// it: the first few of a few that are tried.
    pub(super) fn reaching(&mut self, object: &RulesObject) -> Vec<String> {
        if let Some(known) = self.reaching.get(&object.pointer) {
            return known.clone();
        }
        let mut reaching: Vec<String> = Vec::new();
        for name in self.candidates(object) {
            if !self.spend_whole() {
                break;
            }
            if self.policy.lists(&name) && !self.denials.matches(&name) && !reaching.contains(&name) {
                reaching.push(name);
            }
            if reaching.len() == TOOLS {
                break;
            }
        }
        self.reaching.insert(object.pointer.clone(), reaching.clone());
        reaching
    }

    fn candidates(&self, object: &RulesObject) -> Vec<String> {
        let filled = |name: &str, fills: &[&str]| -> Vec<String> {
            match name.contains('*') {
                true => fills.iter().map(|fill| name.replace('*', fill)).collect(),
                false => vec![name.to_owned()],
            }
        };
        let Some(name) = object.name.as_deref() else {
            // Under `default: allow` one that has no rules of its own shows those of `all_tools` best.
            let unknown = ["tool", "x", "q7"].map(str::to_owned);
            let known = self.document.entries.iter().take(ENTRIES).filter_map(|entry| entry.name.as_deref());
            let few = FILLS.get(..2).unwrap_or_default();
            return unknown.into_iter().chain(known.flat_map(|name| filled(name, few))).collect();
        };
        filled(name, &FILLS)
    }

    /// The rules that can deny a call of the tool, without actions.
    fn about(&self, tool: &str) -> Vec<RulesObject> {
        let matching = self.names.matching(tool);
        let own = matching.iter(&self.names, tool).map(Some).chain([None]);
        let rules = |object: &RulesObject| RulesObject {
            name: object.name.clone(),
            require: object.require.clone(),
            deny_if: object.deny_if.clone(),
            ..RulesObject::default()
        };
        own.filter_map(|entry| self.document.object(entry)).map(rules).collect()
    }

    /// A call of the tool that a document does not deny, near to one without anything, if there is time to look for it.
    fn undenied_by(&mut self, document: &str, tool: &str) -> Option<Witness> {
        if !self.spend(2 * document.len() + RUN) {
            return None;
        }
        undenied(&document.parse().ok()?, Witness::of_tool(tool))
    }

    /// A call of the tool that its rules do not deny, and how many bytes these have.
    pub(super) fn passing(&mut self, tool: &str) -> (Option<Witness>, usize) {
        if let Some(known) = self.passing.get(tool) {
            return known.clone();
        }
        if !self.spend_whole() {
            return (None, 0);
        }
        let document = text_of(&self.about(tool));
        let found = (self.undenied_by(&document, tool), document.len());
        self.passing.insert(tool.to_owned(), found.clone());
        found
    }

    /// A call of whose outcome by the whole policy `left` says yes and that `rule` does not stop, with `to` at the path, or
    /// nothing there.
    pub(super) fn passing_with(
        &mut self,
        tool: &str,
        path: &Path,
        to: Option<&Value>,
        rule: &Policy,
        left: fn(Effect) -> bool,
    ) -> Option<Witness> {
        let policy = self.policy;
        let with = |mut call: Witness| {
            let made = call.edit(path, to) || to.is_none();
            let passes = left(call.evaluate(policy).effect()) && call.evaluate(rule).is_allowed();
            (made && passes).then_some(call)
        };
        let (passing, bytes) = self.passing(tool);
        if !self.spend(self.whole + bytes / 4) {
            return None;
        }
        if let Some(found) = passing.and_then(with) {
            return Some(found);
        }
        // What `require` asks for may have been given by the very argument, where another would have done.
        if to.is_some() || !self.spend(self.whole + bytes) {
            return None;
        }
        let mut objects = self.about(tool);
        if !narrow(&mut objects, path) {
            return None;
        }
        self.undenied_by(&text_of(&objects), tool).and_then(with)
    }
}

/// Takes those alternatives out of every `any` of `require` that ask for what is at the path. Says whether there were any.
fn narrow(objects: &mut [RulesObject], path: &Path) -> bool {
    let mut narrowed = false;
    for condition in objects.iter_mut().flat_map(|object| &mut object.require).flat_map(|rule| &mut rule.conditions) {
        narrowed |= narrow_group(condition, path);
    }
    narrowed
}

fn narrow_group(condition: &mut Condition, path: &Path) -> bool {
    let mut narrowed = false;
    if let Condition::Any(any) = condition {
        let others = |condition: &Condition| !asks_for(condition, path);
        if any.iter().any(others) {
            let before = any.len();
            any.retain(others);
            narrowed |= any.len() < before;
        }
    }
    if let Condition::Any(conditions) | Condition::All(conditions) = condition {
        for inner in conditions {
            narrowed |= narrow_group(inner, path);
        }
    }
    narrowed
}

/// Whether a condition of `require` asks, among other things, for what is at the path or below it.
fn asks_for(condition: &Condition, path: &Path) -> bool {
    match condition {
        Condition::Any(conditions) | Condition::All(conditions) => conditions.iter().any(|inner| asks_for(inner, path)),
        Condition::Not(inner) => asks_for(inner, path),
        Condition::Comparison(own) => {
            let is_optional = own.absent_matches || own.asks_for_absence();
            own.path.is_in_arguments() && own.path.steps().starts_with(path.steps()) && !is_optional
        }
    }
}
