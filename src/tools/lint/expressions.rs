//! Regular expressions of `require` that also match within a longer text.

use serde_json::{Value, json};

use super::findings::FindingCode;
use super::probe::text_at;
use super::{Lint, SMALL_POLICY_STEPS};
use crate::policy::Policy;
use crate::policy::ast::{Comparison, Condition, Placed, Rule, RuleSection};
use crate::policy::operator::Takes;
use crate::tools::explain::Witness;

/// The texts to add before and after a match: another command, and another line.
const ADDITIONS: [(&str, &str); 2] = [("; ", "; "), ("x\n", "\nx")];

impl Lint<'_> {
    /// Reports the unanchored expressions of a rule of `require`.
    pub(super) fn unanchored(&mut self, rule: &Rule, comparisons: &[Placed<'_>]) {
        let matches_text = |comparison: &Placed<'_>| comparison.is(Takes::Regex) && !comparison.is_negative();
        let is_checked = |comparison: &&Placed<'_>| matches_text(comparison) && comparison.reads_value_of_agent();
        let mut checked = comparisons.iter().filter(is_checked).peekable();
        if checked.peek().is_none() {
            return;
        }
        let Some(policy) = self.single_rule_policy(RuleSection::Require, rule) else { return };
        for comparison in checked {
            let Some(Value::String(pattern)) = &comparison.value else { continue };
            let Some((at_start, at_end)) = anchors(pattern) else { continue };
            if !self.spend(4 * SMALL_POLICY_STEPS) {
                continue;
            }
            let verb = match (at_start, at_end) {
                (true, true) => continue,
                (false, false) => "surround",
                (false, true) => "precede",
                (true, false) => "follow",
            };
            let narrowed = |condition| path_to(condition, comparison.at, false).0;
            let rule = Rule::of(rule.conditions.iter().map(narrowed).collect());
            let Some(focused) = self.single_rule_policy(RuleSection::Require, &rule) else { continue };
            let Some(call) = call_with_longer_text(&focused, &policy, comparison) else { continue };
            let message = format!("any text may {verb} the match of `{pattern}`");
            let help = format!("write {}, with `(?s:.*)` where any text is allowed", json!(format!("^(?:{pattern})$")));
            self.slips_through(FindingCode::RegexUnanchored, comparison, message, &help, &policy, call);
        }
    }
}

/// Returns a call that both policies allow, with text added around one by which `focused` allows
/// it.
fn call_with_longer_text(focused: &Policy, policy: &Policy, comparison: &Comparison) -> Option<Witness> {
    let call = Witness::of_tool("tool");
    let explanation = focused.explain(&call.call(), call.at());
    let matching = explanation.reasons().next()?.changes().first()?.apply(&call.call(), call.at());
    let text = text_at(&matching, &comparison.path)?;
    let additions = ADDITIONS.into_iter().flat_map(|(before, after)| [(before, after), (before, ""), ("", after)]);
    additions.into_iter().find_map(|(before, after)| {
        let mut longer = matching.clone();
        let is_edited = longer.edit(&comparison.path, Some(&json!(format!("{before}{text}{after}"))));
        let allows = |policy: &Policy| longer.evaluate(policy).is_allowed();
        (is_edited && allows(focused) && allows(policy)).then_some(longer)
    })
}

/// Returns the condition with a single alternative left in every choice above the comparison at
/// `at`: the one that contains it. The result implies the condition. Also returns `true` if the
/// comparison is in the condition.
fn path_to(condition: &Condition, at: usize, is_negated: bool) -> (Condition, bool) {
    let (conditions, is_choice) = match condition {
        Condition::Comparison(comparison) => return (condition.clone(), comparison.at == at),
        Condition::Not(inner) => {
            let (inner, is_inside) = path_to(inner, at, !is_negated);
            return (Condition::Not(Box::new(inner)), is_inside);
        }
        // Below `not`, `all` is a choice and `any` is not.
        Condition::Any(conditions) => (conditions, !is_negated),
        Condition::All(conditions) => (conditions, is_negated),
    };
    let (mut kept, mut is_inside) = (Vec::new(), false);
    for condition in conditions {
        let (inner, contains_it) = path_to(condition, at, is_negated);
        if contains_it && is_choice {
            kept.clear();
        }
        if !(is_inside && is_choice) {
            kept.push(inner);
        }
        is_inside |= contains_it;
    }
    let group = if matches!(condition, Condition::Any(_)) { Condition::Any } else { Condition::All };
    (group(kept), is_inside)
}

/// Returns whether every match of the expression begins at the start of the text, and ends at its
/// end. `None` if the expression cannot be parsed.
fn anchors(pattern: &str) -> Option<(bool, bool)> {
    use regex_syntax::hir::Look;
    let hir = regex_syntax::parse(pattern).ok()?;
    let properties = hir.properties();
    Some((properties.look_set_prefix().contains(Look::Start), properties.look_set_suffix().contains(Look::End)))
}
