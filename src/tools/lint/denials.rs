//! Ways around a denial, or around a person's approval: leaving the argument out, an empty list, another spelling, another type.

use serde_json::{Value, json};

use super::findings::{Claim, FindingCode, Found, shown};
use super::trial::text_at;
use super::{Lint, RUN};
use crate::policy::ast::{Comparison, Condition, Placed, Rule, RuleSection, RulesObject};
use crate::policy::operator::{Aspect, Takes};
use crate::policy::{Effect, Policy};
use crate::tools::explain::Witness;

/// A section whose rules stop a call that they match: what is said of a call that leaves one.
pub(super) struct Stops {
    pub(super) section: RuleSection,
    left_out: FindingCode,
    respelt: FindingCode,
    retyped: FindingCode,
    /// Of a call that is stopped, and of one that is not.
    stopped: &'static str,
    unstopped: &'static str,
    /// Whether a call with this outcome has left every rule of the kind.
    left: fn(Effect) -> bool,
}

/// The sections of which the ways around are looked for.
pub(super) static STOPS: [Stops; 2] = [
    Stops {
        section: RuleSection::DenyIf,
        left_out: FindingCode::DenialLeftOut,
        respelt: FindingCode::DenialRespelt,
        retyped: FindingCode::DenialRetyped,
        stopped: "is denied",
        unstopped: "is not denied",
        left: |effect| !matches!(effect, Effect::Deny(_)),
    },
    Stops {
        section: RuleSection::RequireApprovalIf,
        left_out: FindingCode::ApprovalLeftOut,
        respelt: FindingCode::ApprovalRespelt,
        retyped: FindingCode::ApprovalRetyped,
        stopped: "needs an approval",
        unstopped: "needs no approval",
        left: |effect| effect == Effect::Allow,
    },
];

impl Lint<'_> {
    /// The ways around a rule of the section.
    pub(super) fn leavable(&mut self, stops: &Stops, object: &RulesObject, rule: &Rule, all: &[Placed<'_>]) {
        let Some(rule) = self.alone(stops.section, rule) else { return };
        let mut tools: Option<Vec<String>> = None;
        for leaf in all.iter().filter(|leaf| leaf.reads_argument() && !leaf.is(Takes::Exists)) {
            let tools = tools.get_or_insert_with(|| self.reaching(object));
            if !leaf.is_negative() && !leaf.absent_matches {
                self.left_out(stops, tools, leaf, &rule);
            } else if leaf.absent_matches && leaf.path.has_each() {
                self.emptied(stops, tools, leaf, &rule);
            }
            if leaf.is_negated() {
                continue;
            }
            if let Some(hit) = self.hit(leaf) {
                self.respelt(stops, leaf, &rule, &hit);
                self.retyped(stops, leaf, &rule, &hit);
            }
        }
    }

    /// A call that passes the whole policy without the argument.
    fn left_out(&mut self, stops: &Stops, tools: &[String], leaf: &Placed<'_>, rule: &Policy) {
        let passes = tools.iter().find_map(|tool| self.passing_with(tool, &leaf.path, None, rule, stops.left));
        let Some(passes) = passes else { return };
        let help = match leaf.is_below_not() {
            // `absent` is an error there.
            true => "require that it exists, or write the condition without `not` and add `\"absent\": \"match\"`",
            false => "add `\"absent\": \"match\"`, or require that it exists",
        };
        let message = format!("a call without `{}` {}", leaf.path, stops.unstopped);
        self.slips_through(stops.left_out, leaf, message, help, self.policy, passes);
    }

    /// A call that passes the whole policy with an empty list, which has no element that could be what is denied.
    fn emptied(&mut self, stops: &Stops, tools: &[String], leaf: &Placed<'_>, rule: &Policy) {
        let Some(list) = leaf.path.before_each() else { return };
        let empty = json!([]);
        let passes = tools.iter().find_map(|tool| self.passing_with(tool, &list, Some(&empty), rule, stops.left));
        let Some(passes) = passes else { return };
        let message = format!("a call in which `{list}` is empty {}", stops.unstopped);
        let help = format!("require a `min_length` of 1 of `{list}`, if a server may take an empty list for all");
        self.slips_through(stops.left_out, leaf, message, &help, self.policy, passes);
    }

    /// A call of which this comparison alone is true.
    fn hit(&mut self, leaf: &Placed<'_>) -> Option<Witness> {
        if leaf.path.has_each() || !self.spend(2 * RUN) {
            return None;
        }
        // What is wanted is a value.
        let present = Comparison { absent_matches: false, ..(**leaf).clone() };
        let holds = self.alone(RuleSection::Require, &Rule::of(vec![Condition::Comparison(present)]))?;
        let call = Witness::of_tool("tool");
        let explanation = holds.explain(&call.call(), call.at());
        let change = explanation.reasons().next()?.changes().first()?;
        Some(change.apply(&call.call(), call.at()))
    }

    fn respelt(&mut self, stops: &Stops, leaf: &Placed<'_>, rule: &Policy, hit: &Witness) {
        let is_equality = leaf.aspect() == Aspect::Equality;
        let is_spelt = !leaf.operator.negative && (is_equality || leaf.operator.ignore_case);
        let Some(text) = text_at(hit, &leaf.path).filter(|_| is_spelt && !leaf.ignores_case()) else { return };
        let swap = |c: char| if c.is_uppercase() { c.to_lowercase().next() } else { c.to_uppercase().next() };
        let other: String = text.chars().filter_map(swap).collect();
        if other == text {
            return;
        }
        let help = match is_equality {
            true => "list what is allowed in `require` instead",
            false => "add `\"ignore_case\": true`, or better list what is allowed in `require`",
        };
        let message = format!("{} {}, and {} {}", json!(text), stops.stopped, json!(other), stops.unstopped);
        if let Some(passes) = slips(leaf, rule, hit, &json!(other)) {
            self.slips_through(stops.respelt, leaf, message, help, rule, passes);
        }
    }

    fn retyped(&mut self, stops: &Stops, leaf: &Placed<'_>, rule: &Policy, hit: &Witness) {
        if !leaf.is(Takes::Type) {
            return;
        }
        // Servers take one for the other.
        let others = [json!("1"), json!(1), json!("true"), json!(["x"])];
        let passing = others.iter().find_map(|other| Some((other, slips(leaf, rule, hit, other)?)));
        if let Some((other, passes)) = passing {
            let message = format!("{other} {}, and a server may take it for what {}", stops.unstopped, stops.stopped);
            let help = "name the types that are allowed in `require` instead";
            self.slips_through(stops.retyped, leaf, message, help, rule, passes);
        }
    }

    /// A finding, shown by what `policy` says of a call.
    pub(super) fn slips_through(
        &mut self,
        code: FindingCode,
        leaf: &Placed<'_>,
        message: String,
        help: &str,
        policy: &Policy,
        call: Witness,
    ) {
        self.found.push(Found {
            code,
            claim: Claim::SlipsThrough,
            at: leaf.at,
            pointer: leaf.pointer.clone(),
            message,
            help: help.to_owned(),
            witness: Some(shown(policy, call)),
        });
    }
}

/// The same call with another value, if the rule stops `hit` and not it.
fn slips(leaf: &Placed<'_>, rule: &Policy, hit: &Witness, to: &Value) -> Option<Witness> {
    let mut other = hit.clone();
    let stopped = |call: &Witness| !call.evaluate(rule).is_allowed();
    (stopped(hit) && other.edit(&leaf.path, Some(to)) && !stopped(&other)).then_some(other)
}
