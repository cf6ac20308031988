//! Checks of single rules, first for conditions that never hold.

use std::time::Duration;

use super::contradictions::{contradict, contradiction_steps};
use super::denials::STOPPING_SECTIONS;
use super::findings::{Claim, FindingCode, UnplacedFinding, with_effect};
use super::probe::single_rule_policy;
use super::value_types::can_hold_for;
use super::{Lint, SMALL_POLICY_STEPS};
use crate::call::path::Source;
use crate::policy::Policy;
use crate::policy::ast::{Comparison, Condition, Placed, Rule, RuleSection, RulesObject};
use crate::tools::explain::{SAMPLE_TIME, Witness};

impl Lint<'_> {
    /// Returns a policy that has only this rule, if enough steps are left.
    pub(super) fn single_rule_policy(&mut self, section: RuleSection, rule: &Rule) -> Option<Policy> {
        let steps = SMALL_POLICY_STEPS + 10 * rule.text().len();
        if self.spend(steps) { single_rule_policy(section, rule) } else { None }
    }

    pub(super) fn all_conditions(&mut self) {
        for object in self.objects() {
            for section in RuleSection::ALL {
                let stopping = STOPPING_SECTIONS.iter().find(|stopping| stopping.section == section);
                let stopping = stopping.filter(|_| !object.stops_all(section));
                for (index, rule) in object.rules(section).iter().enumerate() {
                    if !self.spend(SMALL_POLICY_STEPS) {
                        return;
                    }
                    let comparisons = rule.comparisons(&object.rule_pointer(section, index));
                    if let Some(reason) = self.unsatisfiable(object, section, &comparisons) {
                        self.never_holds(section, rule, reason);
                    } else if let Some(stopping) = stopping {
                        self.evasions(stopping, object, rule, &comparisons);
                    }
                    self.literal_values(&comparisons);
                    if section == RuleSection::Require {
                        self.unanchored(rule, &comparisons);
                    }
                }
            }
        }
    }

    fn never_holds(&mut self, section: RuleSection, rule: &Rule, reason: Unsatisfiable) {
        let Unsatisfiable { at, pointer, message, help } = reason;
        let is_required = section == RuleSection::Require;
        let effect = match is_required {
            true => "every call is denied",
            false => "the rule stops only calls whose values cannot be compared",
        };
        // A call without arguments shows the effect of a `require` that never holds.
        let policy = if is_required { self.single_rule_policy(section, rule) } else { None };
        let witness = policy.map(|policy| with_effect(&policy, Witness::of_tool("tool")));
        self.findings.push(UnplacedFinding {
            code: FindingCode::NeverHolds,
            claim: Claim::NeverHolds,
            at,
            pointer,
            message: format!("{message}: {effect}"),
            help,
            witness,
        });
    }

    /// Returns the reason why the conditions of a rule can never all hold, if there is one.
    fn unsatisfiable(
        &mut self,
        object: &RulesObject,
        section: RuleSection,
        comparisons: &[Placed<'_>],
    ) -> Option<Unsatisfiable> {
        let joined: Vec<&Placed<'_>> = comparisons.iter().filter(|comparison| comparison.is_joined).collect();
        for comparison in &joined {
            let tool = object.name.as_deref().filter(|name| !name.contains('*'));
            if self.spend(SMALL_POLICY_STEPS) && is_unsatisfiable(comparison, section, tool) {
                let message = format!("`{}` can never be true", comparison_text(comparison));
                return Some(Unsatisfiable::at(comparison, message, value_help(comparison)));
            }
        }
        for (index, a) in joined.iter().enumerate() {
            for b in joined.iter().skip(index + 1) {
                if !self.spend(20) {
                    return None;
                }
                // For an empty list, everything holds of `[*]`.
                if a.path != b.path || a.path.has_each() || (a.holds_if_absent(section) && b.holds_if_absent(section)) {
                    continue;
                }
                if !self.spend(contradiction_steps(a, b)) {
                    return None;
                }
                if contradict(a, b, section) || contradict(b, a, section) {
                    let (one, other) = (comparison_text(a), comparison_text(b));
                    let message = format!("`{one}` and `{other}` can never both be true");
                    let help = "join them with `any`, write two rules, or fix the values";
                    return Some(Unsatisfiable::at(b, message, help.to_owned()));
                }
            }
        }
        None
    }
}

/// The reason why conditions never hold: its place, its message and its help.
struct Unsatisfiable {
    at: usize,
    pointer: String,
    message: String,
    help: String,
}

impl Unsatisfiable {
    fn at(comparison: &Placed<'_>, message: String, help: String) -> Self {
        Self { at: comparison.at, pointer: comparison.pointer.clone(), message, help }
    }
}

/// Returns the help for a comparison with a value that its path never has.
fn value_help(comparison: &Comparison) -> String {
    let path = comparison.path.to_string();
    match &*path {
        "time.hour" => format!("fix the value: `{path}` is a number from 0 to 23, in UTC"),
        "time.minute" => format!("fix the value: `{path}` is a number from 0 to 59"),
        "time.weekday" => format!("fix the value: `{path}` is a number from 1 (Monday) to 7, in UTC"),
        "time.date" => format!("fix the value: `{path}` is a string such as `2026-01-15`, in UTC"),
        _ => "fix the value, or remove the condition".to_owned(),
    }
}

/// Returns a comparison as messages show it, with at most 80 characters of the value.
fn comparison_text(comparison: &Comparison) -> String {
    let value = comparison.value.as_ref().map_or_else(String::new, |value| format!(" {value}"));
    let short: String = value.chars().take(80).collect();
    format!("{} {}{short}", comparison.path, comparison.operator.name)
}

/// Returns `true` if the comparison holds for no call. If its path can have only a few values, the
/// engine is run on all of them.
fn is_unsatisfiable(comparison: &Placed<'_>, section: RuleSection, tool: Option<&str>) -> bool {
    if comparison.value.is_none() {
        return false;
    }
    let path = comparison.path.to_string();
    match comparison.path.source() {
        Source::Time if path != "time.date" => {}
        Source::Tool if tool.is_some() => {}
        // These are always strings.
        Source::Identity(_) | Source::Time | Source::Tool => {
            return !comparison.holds_if_absent(section) && !can_hold_for(comparison, "string");
        }
        Source::Task => return !comparison.holds_if_absent(section) && !can_hold_for(comparison, "boolean"),
        Source::Arguments | Source::Context | Source::Input => return false,
    }
    // None of these is ever absent, and `require` does not take each value of `absent`.
    let present = Comparison { absent: None, ..(**comparison).clone() };
    let rule = Rule::of(vec![Condition::Comparison(present)]);
    let Some(policy) = single_rule_policy(RuleSection::Require, &rule) else { return false };
    let mut call = Witness::of_tool(tool.unwrap_or("tool"));
    // The hours of a week and the minutes of an hour give every hour, weekday and minute.
    let hours = (0..168).map(|hour| Duration::from_secs(hour * 3_600));
    let minutes = (0..60).map(|minute| Duration::from_secs(minute * 60));
    !hours.chain(minutes).any(|after| {
        call.set_time(SAMPLE_TIME.saturating_add(after));
        call.evaluate(&policy).is_allowed()
    })
}
