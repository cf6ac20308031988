//! Expressions of `require` that let more stand around what they match.

use serde_json::{Value, json};

use super::findings::FindingCode;
use super::leaves::Leaf;
use super::witness::{NOW, text_at};
use super::{Lint, RUN};
use crate::call::ToolCall;
use crate::json::Node;
use crate::policy::Policy;
use crate::tools::explain::ChangedCall;

/// What is tried before and after a match: another command, and another line.
const AROUND: [(&str, &str); 2] = [("; ", "; "), ("x\n", "\nx")];

impl Lint<'_> {
    /// Expressions of a rule of `require`; `place` is its pointer.
    pub(super) fn unanchored(&mut self, rule: &Node<'_>, place: &str, all: &[Leaf<'_>]) {
        let matches = |leaf: &Leaf<'_>| leaf.op == if leaf.turned { "not_regex" } else { "regex" };
        let mut tried = all.iter().filter(|leaf| matches(leaf) && leaf.reads_argument()).peekable();
        if tried.peek().is_none() {
            return;
        }
        let Some(rule) = rule.to_value() else { return };
        let Some(policy) = self.alone("require", &rule) else { return };
        for leaf in tried {
            let Some(Value::String(pattern)) = &leaf.value else { continue };
            let Some((start, end)) = anchors(pattern).filter(|_| self.spend(4 * RUN)) else { continue };
            if start && end {
                continue;
            }
            let focused = focused(&rule, leaf.pointer.strip_prefix(place).unwrap_or_default());
            let Some(focused) = focused.and_then(|rule| self.alone("require", &rule)) else { continue };
            let Some(passing) = around(&focused, &policy, leaf) else { continue };
            let open = match (start, end) {
                (false, false) => "around",
                (false, true) => "before",
                _ => "after",
            };
            let message = format!("anything may stand {open} what `{pattern}` matches");
            let help = format!(
                "write {}; where anything may stand there, say so by `(?s:.*)`",
                json!(format!("^(?:{pattern})$"))
            );
            self.slips_through(FindingCode::RegexUnanchored, leaf, message, &help, &policy, &passing);
        }
    }
}

/// A call that `policy` allows, with more around a text by which `focused` allows it.
fn around(focused: &Policy, policy: &Policy, leaf: &Leaf<'_>) -> Option<ChangedCall> {
    let arguments = json!({});
    let call = ToolCall::new("tool", &arguments);
    let explanation = focused.explain(&call, NOW);
    let holds = explanation.reasons().next()?.changes().first()?.apply(&call, NOW);
    let text = text_at(&holds, &leaf.path)?;
    let more = AROUND.into_iter().flat_map(|(before, after)| [(before, after), (before, ""), ("", after)]);
    more.into_iter().find_map(|(before, after)| {
        let mut other = holds.clone();
        let made = other.edit(&leaf.path, Some(&json!(format!("{before}{text}{after}"))));
        let passes = |policy: &Policy| policy.evaluate(&other.call(), other.now()).is_allowed();
        (made && passes(focused) && passes(policy)).then_some(other)
    })
}

/// The rule in which of every choice on the way to a condition that one is left that leads to it. What it lets pass, the rule does.
fn focused(rule: &Value, pointer: &str) -> Option<Value> {
    let mut rule = rule.clone();
    let mut here = &mut rule;
    let mut turned = false;
    let mut steps = pointer.split('/').skip(1);
    while let Some(step) = steps.next() {
        here = here.get_mut(step)?;
        turned ^= step == "not";
        let Value::Array(conditions) = here else { continue };
        let mut index: usize = steps.next()?.parse().ok()?;
        // `not` makes a choice of `all`.
        if step == if turned { "all" } else { "any" } {
            *conditions = vec![conditions.get(index)?.clone()];
            index = 0;
        }
        here = conditions.get_mut(index)?;
    }
    Some(rule)
}

/// Whether every match of the expression begins where the text begins, and ends where it ends.
fn anchors(pattern: &str) -> Option<(bool, bool)> {
    use regex_syntax::hir::Look;
    let hir = regex_syntax::parse(pattern).ok()?;
    let properties = hir.properties();
    Some((properties.look_set_prefix().contains(Look::Start), properties.look_set_suffix().contains(Look::End)))
}
