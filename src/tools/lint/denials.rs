//! Ways to evade a denial or an approval: an omitted argument, an empty list, another spelling,
//! another type.

use serde_json::{Value, json};

use super::findings::{Claim, FindingCode, UnplacedFinding, with_effect};
use super::probe::text_at;
use super::{Lint, SMALL_POLICY_STEPS};
use crate::policy::ast::{Comparison, Condition, Placed, Rule, RuleSection, RulesObject};
use crate::policy::condition::Absent;
use crate::policy::operator::{Aspect, Takes};
use crate::policy::{Effect, Policy};
use crate::tools::explain::Witness;

/// A section whose rules stop the calls that match, and the words for calls that evade them.
pub(super) struct StoppingSection {
    pub(super) section: RuleSection,
    left_out: FindingCode,
    respelt: FindingCode,
    retyped: FindingCode,
    /// The predicate of a call that a rule stops.
    stopped: &'static str,
    /// The predicate of a call that evades the rule.
    evaded: &'static str,
    /// Returns `true` if a call with this effect has evaded every rule of such a section.
    is_evaded: fn(Effect) -> bool,
}

/// The sections whose rules a caller may try to evade.
pub(super) static STOPPING_SECTIONS: [StoppingSection; 2] = [
    StoppingSection {
        section: RuleSection::DenyIf,
        left_out: FindingCode::DenialLeftOut,
        respelt: FindingCode::DenialRespelt,
        retyped: FindingCode::DenialRetyped,
        stopped: "is denied",
        evaded: "is not denied",
        is_evaded: |effect| !matches!(effect, Effect::Deny(_)),
    },
    StoppingSection {
        section: RuleSection::RequireApprovalIf,
        left_out: FindingCode::ApprovalLeftOut,
        respelt: FindingCode::ApprovalRespelt,
        retyped: FindingCode::ApprovalRetyped,
        stopped: "needs an approval",
        evaded: "needs no approval",
        is_evaded: |effect| effect == Effect::Allow,
    },
];

impl Lint<'_> {
    /// Reports ways to evade a rule of the section.
    pub(super) fn evasions(
        &mut self,
        stopping: &StoppingSection,
        object: &RulesObject,
        rule: &Rule,
        comparisons: &[Placed<'_>],
    ) {
        let Some(rule) = self.single_rule_policy(stopping.section, rule) else { return };
        let mut tools: Option<Vec<String>> = None;
        let reads_value = |comparison: &&Placed<'_>| comparison.reads_value_of_agent() && !comparison.is(Takes::Exists);
        for comparison in comparisons.iter().filter(reads_value) {
            let tools = tools.get_or_insert_with(|| self.reaching_tools(object));
            match comparison.absent {
                None if !comparison.is_negative() => self.left_out(stopping, tools, comparison, &rule),
                Some(Absent::Match) if comparison.path.has_each() => self.emptied(stopping, tools, comparison, &rule),
                // With `no_match`, the author has said that a call without it may pass.
                _ => {}
            }
            if comparison.is_negated() {
                continue;
            }
            if let Some(matching) = self.matching_call(comparison) {
                self.respelt(stopping, comparison, &rule, &matching);
                self.retyped(stopping, comparison, &rule, &matching);
            }
        }
    }

    /// Reports a call without the argument that evades every rule of the policy.
    fn left_out(&mut self, stopping: &StoppingSection, tools: &[String], comparison: &Placed<'_>, rule: &Policy) {
        let path = &comparison.path;
        let call = tools.iter().find_map(|tool| self.evading_call(tool, path, None, rule, stopping.is_evaded));
        let Some(call) = call else { return };
        let help = match comparison.is_below_not() {
            // `absent` is an error below `not`.
            true => "require that it exists, or write the condition without `not` and add `\"absent\": \"match\"`",
            false => {
                "add `\"absent\": \"match\"`, or require that it exists; \
                 `\"absent\": \"no_match\"` says that such a call may pass"
            }
        };
        let message = format!("a call without `{path}` {}", stopping.evaded);
        self.slips_through(stopping.left_out, comparison, message, help, self.policy, call);
    }

    /// Reports a call with an empty list, which has no element that the rule could match, that
    /// evades every rule of the policy.
    fn emptied(&mut self, stopping: &StoppingSection, tools: &[String], comparison: &Placed<'_>, rule: &Policy) {
        let Some((list, empty)) = comparison.path.before_each() else { return };
        let evading = |tool: &String| self.evading_call(tool, &list, Some(&empty), rule, stopping.is_evaded);
        let Some(call) = tools.iter().find_map(evading) else { return };
        let message = format!("a call in which `{list}` is empty {}", stopping.evaded);
        let help = format!("require `min_items` 1 for `{list}` if the server treats an empty list as everything");
        self.slips_through(stopping.left_out, comparison, message, &help, self.policy, call);
    }

    /// Returns a call for which this comparison holds by a value.
    fn matching_call(&mut self, comparison: &Placed<'_>) -> Option<Witness> {
        if comparison.path.has_each() || !self.spend(2 * SMALL_POLICY_STEPS) {
            return None;
        }
        let present = Comparison { absent: None, ..(**comparison).clone() };
        let rule = Rule::of(vec![Condition::Comparison(present)]);
        let policy = self.single_rule_policy(RuleSection::Require, &rule)?;
        let call = Witness::of_tool("tool");
        let explanation = policy.explain(&call.call(), call.at());
        let change = explanation.reasons().next()?.changes().first()?;
        Some(change.apply(&call.call(), call.at()))
    }

    /// Reports that the rule does not match the same text in the opposite case.
    fn respelt(&mut self, stopping: &StoppingSection, comparison: &Placed<'_>, rule: &Policy, matching: &Witness) {
        let is_equality = comparison.aspect() == Aspect::Equality;
        let lists_texts = !comparison.operator.negative && (is_equality || comparison.operator.ignore_case);
        if !lists_texts || comparison.ignores_case() {
            return;
        }
        let Some(text) = text_at(matching, &comparison.path) else { return };
        let swap = |c: char| if c.is_uppercase() { c.to_lowercase().next() } else { c.to_uppercase().next() };
        let other: String = text.chars().filter_map(swap).collect();
        if other == text {
            return;
        }
        let help = match is_equality {
            true => "list the allowed values in `require` instead",
            false => "add `\"ignore_case\": true`, or better, list the allowed values in `require`",
        };
        let message = format!("{} {}, but {} {}", json!(text), stopping.stopped, json!(other), stopping.evaded);
        if let Some(call) = with_value_that_evades(comparison, rule, matching, &json!(other)) {
            self.slips_through(stopping.respelt, comparison, message, help, rule, call);
        }
    }

    /// Reports a value of another type that the rule does not match.
    fn retyped(&mut self, stopping: &StoppingSection, comparison: &Placed<'_>, rule: &Policy, matching: &Witness) {
        if !comparison.is(Takes::Type) {
            return;
        }
        // Many servers convert these to the type that they expect.
        let others = [json!("1"), json!(1), json!("true"), json!(["x"])];
        let evading = |other| Some((other, with_value_that_evades(comparison, rule, matching, other)?));
        if let Some((other, call)) = others.iter().find_map(evading) {
            let StoppingSection { stopped, evaded, .. } = stopping;
            let message = format!("{other} {evaded}, but a server may convert it to a value that {stopped}");
            let help = "list the allowed types in `require` instead";
            self.slips_through(stopping.retyped, comparison, message, help, rule, call);
        }
    }

    /// Adds a finding whose witness is `call`, with its effect by `policy`.
    pub(super) fn slips_through(
        &mut self,
        code: FindingCode,
        comparison: &Placed<'_>,
        message: String,
        help: &str,
        policy: &Policy,
        call: Witness,
    ) {
        self.findings.push(UnplacedFinding {
            code,
            claim: Claim::SlipsThrough,
            at: comparison.at,
            pointer: comparison.pointer.clone(),
            message,
            help: help.to_owned(),
            witness: Some(with_effect(policy, call)),
        });
    }
}

/// Returns `matching` with another value, if the rule stops `matching` and not the changed call.
fn with_value_that_evades(
    comparison: &Placed<'_>,
    rule: &Policy,
    matching: &Witness,
    value: &Value,
) -> Option<Witness> {
    let mut other = matching.clone();
    let is_stopped = |call: &Witness| !call.evaluate(rule).is_allowed();
    let evades = is_stopped(matching) && other.edit(&comparison.path, Some(value)) && !is_stopped(&other);
    evades.then_some(other)
}
