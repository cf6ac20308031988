//! Rules run alone, and calls that come past rules.

use serde_json::{Value, json};

use crate::call::path::{Datum, Facts, Found, Path, Visit};
use crate::policy::ast::{Rule, RuleSection, RulesObject, policy_of};
use crate::policy::operator::Operator;
use crate::policy::{Effect, Policy};
use crate::tools::explain::{Asked, ConditionOutcome, Seen, StepKind, Witness};

/// A policy with one rule and nothing else, for every tool.
pub(super) fn alone(section: RuleSection, rule: &Rule) -> Option<Policy> {
    let mut all_tools = RulesObject::default();
    all_tools.rules_mut(section).push(rule.clone());
    policy_of([&all_tools])
}

/// A call that no rule of the policy denies, as near to `call` as a few changes find it.
pub(super) fn undenied(policy: &Policy, mut call: Witness) -> Option<Witness> {
    for _ in 0..24 {
        let (change, missing) = {
            let now = call.call();
            let explanation = policy.explain(&now, call.at());
            if !matches!(explanation.effect(), Effect::Deny(_)) {
                return Some(call);
            }
            let stops = |kind: StepKind| matches!(kind, StepKind::Require | StepKind::DenyIf);
            let step = explanation.decided_by().filter(|step| stops(step.kind()))?;
            let rule = step.rules().iter().find(|rule| Some(rule.pointer()) == explanation.rule())?;
            let mut missing = Vec::new();
            absent_others(rule.conditions(), &mut missing);
            (rule.changes().first().cloned(), missing)
        };
        // What a comparison with nothing cannot tell, it may tell of a value.
        let made = missing.iter().filter(|(path, value)| call.edit(path, Some(value))).count();
        if made > 0 {
            continue;
        }
        call = change?.apply(&call.call(), call.at());
    }
    None
}

/// The other parts of the call that comparisons name and that it does not have, each with a value that it may be compared with.
fn absent_others(conditions: &[ConditionOutcome], to: &mut Vec<(Path, Value)>) {
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
            Asked::Any { any: inner } | Asked::All { all: inner } => absent_others(inner, to),
            _ => {}
        }
    }
}

/// The text at a path of a call, the first if there are several.
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
