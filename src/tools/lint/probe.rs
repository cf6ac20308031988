//! Policies of a single rule, and calls that rules do not deny.

use serde_json::{Value, json};

use crate::call::path::{Datum, Facts, Found, Path, Visit};
use crate::policy::ast::{Rule, RuleSection, RulesObject, policy_of};
use crate::policy::operator::Operator;
use crate::policy::{Effect, Policy};
use crate::tools::explain::{Asked, ConditionOutcome, Seen, StepKind, Witness};

/// The number of times that a call is changed before the search for an undenied one ends.
const MAX_CHANGES: usize = 24;

/// Returns a policy that has only this rule, for every tool.
pub(super) fn single_rule_policy(section: RuleSection, rule: &Rule) -> Option<Policy> {
    let mut all_tools = RulesObject::default();
    all_tools.rules_mut(section).push(rule.clone());
    policy_of([&all_tools])
}

/// Changes `call` step by step, as explanations suggest, until no rule of the policy denies it.
/// Returns `None` if that does not succeed in [`MAX_CHANGES`] steps.
pub(super) fn undenied_call(policy: &Policy, mut call: Witness) -> Option<Witness> {
    for _ in 0..MAX_CHANGES {
        let (change, missing) = {
            let now = call.call();
            let explanation = policy.explain(&now, call.at());
            if !matches!(explanation.effect(), Effect::Deny(_)) {
                return Some(call);
            }
            let denies = |kind: StepKind| matches!(kind, StepKind::Require | StepKind::DenyIf);
            let step = explanation.decided_by().filter(|step| denies(step.kind()))?;
            let rule = step.rules().iter().find(|rule| Some(rule.pointer()) == explanation.rule())?;
            let mut missing = Vec::new();
            add_absent_operands(rule.conditions(), &mut missing);
            (rule.changes().first().cloned(), missing)
        };
        // A comparison with an absent operand is unknown. With the operand it may be known.
        let added = missing.iter().filter(|(path, value)| call.edit(path, Some(value))).count();
        if added > 0 {
            continue;
        }
        call = change?.apply(&call.call(), call.at());
    }
    None
}

/// Adds the paths of `value_from` that are absent from the call, each with a value that is
/// comparable.
fn add_absent_operands(conditions: &[ConditionOutcome], to: &mut Vec<(Path, Value)>) {
    for condition in conditions {
        match condition.asked() {
            Asked::Comparison { op, value_from: Some((path, Seen::Absent)), .. } => {
                let types = Operator::named(op).map_or(&[][..], |operator| operator.meaning.operand_types);
                let value = match types {
                    ["number", ..] => json!(5),
                    ["array", ..] => json!(["x"]),
                    _ => json!("x"),
                };
                to.extend(Path::parse(path).ok().map(|path| (path, value)));
            }
            Asked::Any { any: inner } | Asked::All { all: inner } => add_absent_operands(inner, to),
            _ => {}
        }
    }
}

/// Returns the first value at a path of a call, if it is a text.
pub(super) fn text_at(call: &Witness, path: &Path) -> Option<String> {
    let (tool_call, mut text) = (call.call(), None);
    let _ = path.each(&Facts::new(&tool_call, call.at()), &mut |found| {
        if let Found::Value(Datum::Text(found)) = found {
            text = Some(found.to_owned());
        }
        Visit::Stop
    });
    text
}
