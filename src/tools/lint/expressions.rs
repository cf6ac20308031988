//! Expressions of `require` that let more stand around what they match.

use serde_json::{Value, json};

use super::findings::FindingCode;
use super::trial::text_at;
use super::{Lint, RUN};
use crate::policy::Policy;
use crate::policy::ast::{Comparison, Condition, Placed, Rule, RuleSection};
use crate::policy::operator::Takes;
use crate::tools::explain::Witness;

/// What is tried before and after a match: another command, and another line.
const AROUND: [(&str, &str); 2] = [("; ", "; "), ("x\n", "\nx")];

impl Lint<'_> {
    /// Expressions of a rule of `require`.
    pub(super) fn unanchored(&mut self, rule: &Rule, all: &[Placed<'_>]) {
        let matches = |leaf: &Placed<'_>| leaf.is(Takes::Regex) && !leaf.is_negative();
        let mut tried = all.iter().filter(|leaf| matches(leaf) && leaf.reads_argument()).peekable();
        if tried.peek().is_none() {
            return;
        }
        let Some(policy) = self.alone(RuleSection::Require, rule) else { return };
        for leaf in tried {
            let Some(Value::String(pattern)) = &leaf.value else { continue };
            let Some((start, end)) = anchors(pattern).filter(|_| self.spend(4 * RUN)) else { continue };
            if start && end {
                continue;
            }
            let focused = rule.conditions.iter().map(|condition| focused(condition, leaf.at, false).0).collect();
            let Some(focused) = self.alone(RuleSection::Require, &Rule::of(focused)) else { continue };
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
            self.slips_through(FindingCode::RegexUnanchored, leaf, message, &help, &policy, passing);
        }
    }
}

/// A call that `policy` allows, with more around a text by which `focused` allows it.
fn around(focused: &Policy, policy: &Policy, leaf: &Comparison) -> Option<Witness> {
    let call = Witness::of_tool("tool");
    let explanation = focused.explain(&call.call(), call.at());
    let holds = explanation.reasons().next()?.changes().first()?.apply(&call.call(), call.at());
    let text = text_at(&holds, &leaf.path)?;
    let more = AROUND.into_iter().flat_map(|(before, after)| [(before, after), (before, ""), ("", after)]);
    more.into_iter().find_map(|(before, after)| {
        let mut other = holds.clone();
        let made = other.edit(&leaf.path, Some(&json!(format!("{before}{text}{after}"))));
        let passes = |policy: &Policy| other.evaluate(policy).is_allowed();
        (made && passes(focused) && passes(policy)).then_some(other)
    })
}

/// The condition in which every choice on the way to the comparison at `at` has one alternative left, the one that leads to it.
/// What it lets pass, the condition does. Says whether the comparison is in it.
fn focused(condition: &Condition, at: usize, is_negated: bool) -> (Condition, bool) {
    let (conditions, is_choice) = match condition {
        Condition::Comparison(comparison) => return (condition.clone(), comparison.at == at),
        Condition::Not(inner) => {
            let (inner, is_in) = focused(inner, at, !is_negated);
            return (Condition::Not(Box::new(inner)), is_in);
        }
        // `not` makes a choice of `all`.
        Condition::Any(conditions) => (conditions, !is_negated),
        Condition::All(conditions) => (conditions, is_negated),
    };
    let each = conditions.iter().map(|inner| focused(inner, at, is_negated));
    let (mut left, mut is_in) = (Vec::new(), false);
    for (inner, leads_to_it) in each {
        if leads_to_it && is_choice {
            left.clear();
        }
        if !(is_in && is_choice) {
            left.push(inner);
        }
        is_in |= leads_to_it;
    }
    let group = if matches!(condition, Condition::Any(_)) { Condition::Any } else { Condition::All };
    (group(left), is_in)
}

/// Whether every match of the expression begins where the text begins, and ends where it ends.
fn anchors(pattern: &str) -> Option<(bool, bool)> {
    use regex_syntax::hir::Look;
    let hir = regex_syntax::parse(pattern).ok()?;
    let properties = hir.properties();
    Some((properties.look_set_prefix().contains(Look::Start), properties.look_set_suffix().contains(Look::End)))
}
