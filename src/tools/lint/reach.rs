//! Calls that reach a rule: of a tool that it is about and that nothing hides or denies, past all that stands before it.

use serde_json::{Map, Value, json};

use super::witness::undenied;
use super::{Lint, Object, RUN, entries, member};
use crate::call::ToolCall;
use crate::call::path::Path;
use crate::json::Node;
use crate::policy::{Effect, Policy};
use crate::tools::explain::ChangedCall;

/// What the stars of a pattern are tried to stand for.
const FILLS: [&str; 8] = ["", "x", "a", "0", "_", "-x", "tool", "q7"];
/// Of how many entries `all_tools` tries the names.
const ENTRIES: usize = 64;
/// How many tools a rule is tried with.
const TOOLS: usize = 3;

impl Lint<'_> {
    /// Names of tools that a rules object is about, and that neither `hide`, `default` nor an entry that denies all keeps from
    /// it: the first few of a few that are tried.
    pub(super) fn reaching(&mut self, object: &Object<'_>) -> Vec<String> {
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

    fn candidates(&self, object: &Object<'_>) -> Vec<String> {
        let filled = |name: &str, fills: &[&str]| -> Vec<String> {
            match name.contains('*') {
                true => fills.iter().map(|fill| name.replace('*', fill)).collect(),
                false => vec![name.to_owned()],
            }
        };
        let Some(name) = object.name else {
            // Under `default: allow` one that has no rules of its own shows those of `all_tools` best.
            let unknown = ["tool", "x", "q7"].map(str::to_owned);
            let known = member(self.document, "tools").map_or(&[][..], entries::keys).iter().take(ENTRIES);
            let few = FILLS.get(..2).unwrap_or_default();
            return unknown.into_iter().chain(known.flat_map(|entry| filled(&entry.key, few))).collect();
        };
        filled(name, &FILLS)
    }

    /// The rules that a call of the tool comes to, in a document of their own.
    fn about(&self, tool: &str) -> Value {
        let rules = |rules: &Node<'_>| -> Value {
            let kept = ["require", "deny_if"].into_iter();
            kept.filter_map(|key| Some((key.to_owned(), member(rules, key)?.to_value()?))).collect::<Map<_, _>>().into()
        };
        let entries = member(self.document, "tools").map_or(&[][..], entries::keys);
        let matching = self.names.matching(tool);
        let own = matching.iter(&self.names, tool).filter_map(|entry| entries.get(entry as usize));
        let tools: Map<_, _> = own.map(|entry| (entry.key.to_string(), rules(&entry.value))).collect();
        let all_tools = member(self.document, "all_tools").map_or_else(|| json!({}), rules);
        json!({ "version": "1", "default": "allow", "all_tools": all_tools, "tools": tools })
    }

    /// A call of the tool that a document does not deny, near to one without anything, if there is time to look for it.
    fn undenied_by(&mut self, document: &str, tool: &str) -> Option<ChangedCall> {
        if !self.spend(2 * document.len() + RUN) {
            return None;
        }
        undenied(&document.parse().ok()?, &ToolCall::new(tool, &json!({})))
    }

    /// A call of the tool that its rules do not deny, and how many bytes these have.
    pub(super) fn passing(&mut self, tool: &str) -> (Option<ChangedCall>, usize) {
        if let Some(known) = self.passing.get(tool) {
            return known.clone();
        }
        if !self.spend_whole() {
            return (None, 0);
        }
        let document = self.about(tool).to_string();
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
    ) -> Option<ChangedCall> {
        let policy = self.policy;
        let with = |mut call: ChangedCall| {
            let made = call.edit(path, to) || to.is_none();
            let passes = left(policy.evaluate(&call.call(), call.now()).effect())
                && rule.evaluate(&call.call(), call.now()).is_allowed();
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
        let mut document = self.about(tool);
        if !narrow(&mut document, path) {
            return None;
        }
        self.undenied_by(&document.to_string(), tool).and_then(with)
    }
}

/// Takes those alternatives out of every `any` of `require` that ask for what is at the path. Says whether there were any.
fn narrow(document: &mut Value, path: &Path) -> bool {
    let Some(document) = document.as_object_mut() else { return false };
    let mut narrowed = false;
    let mut own = |rules: &mut Value| {
        for rule in rules.get_mut("require").and_then(Value::as_array_mut).into_iter().flatten() {
            for condition in rule.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
                narrowed |= narrow_group(condition, path);
            }
        }
    };
    document.get_mut("all_tools").into_iter().for_each(&mut own);
    document.get_mut("tools").and_then(Value::as_object_mut).into_iter().flatten().for_each(|(_, rules)| own(rules));
    narrowed
}

fn narrow_group(condition: &mut Value, path: &Path) -> bool {
    let mut narrowed = false;
    if let Some(any) = condition.get_mut("any").and_then(Value::as_array_mut) {
        let others = |condition: &Value| !asks_for(condition, path);
        if any.iter().any(others) {
            let before = any.len();
            any.retain(others);
            narrowed |= any.len() < before;
        }
    }
    for key in ["any", "all"] {
        for inner in condition.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            narrowed |= narrow_group(inner, path);
        }
    }
    narrowed
}

/// Whether a condition of `require` asks, among other things, for what is at the path or below it.
fn asks_for(condition: &Value, path: &Path) -> bool {
    let inner = ["any", "all"].into_iter().filter_map(|key| condition.get(key)?.as_array()).flatten();
    if inner.chain(condition.get("not")).any(|inner| asks_for(inner, path)) {
        return true;
    }
    let own = condition.get("path").and_then(Value::as_str).and_then(|text| Path::parse(text).ok());
    let left_out = condition.get("op") == Some(&json!("exists")) && condition.get("value") == Some(&json!(false));
    let optional = condition.get("absent").is_some() || left_out;
    own.is_some_and(|own| own.is_in_arguments() && own.steps().starts_with(path.steps())) && !optional
}
