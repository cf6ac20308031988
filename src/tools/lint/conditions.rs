//! Rules one by one, and of each the conditions that never hold.

use std::time::Duration;

use super::denials::STOPS;
use super::findings::{Claim, FindingCode, Found, shown};
use super::kinds::can;
use super::together::{cost, exclude};
use super::trial::alone;
use super::{Lint, RUN};
use crate::call::path::Source;
use crate::policy::Policy;
use crate::policy::ast::{Comparison, Condition, Placed, Rule, RuleSection, RulesObject};
use crate::tools::explain::{SAMPLE_TIME, Witness};

impl Lint<'_> {
    /// A policy with one rule and nothing else, if there is time for it.
    pub(super) fn alone(&mut self, section: RuleSection, rule: &Rule) -> Option<Policy> {
        let steps = RUN + 10 * rule.text().len();
        if self.spend(steps) { alone(section, rule) } else { None }
    }

    pub(super) fn all_conditions(&mut self) {
        for object in self.objects() {
            for section in RuleSection::ALL {
                let stops = STOPS.iter().find(|stops| stops.section == section).filter(|_| !object.stops_all(section));
                for (index, rule) in object.rules(section).iter().enumerate() {
                    if !self.spend(RUN) {
                        return;
                    }
                    let place = object.rule_pointer(section, index);
                    let all = rule.comparisons(&place);
                    let never = self.never(object, section, &all);
                    if let Some(never) = never {
                        self.never_holds(section, rule, never);
                    } else if let Some(stops) = stops {
                        self.leavable(stops, object, rule, &all);
                    }
                    self.literals(&all);
                    if section == RuleSection::Require {
                        self.unanchored(rule, &all);
                    }
                }
            }
        }
    }

    fn never_holds(&mut self, section: RuleSection, rule: &Rule, never: Never) {
        let Never { at, pointer, message, help } = never;
        let is_required = section == RuleSection::Require;
        let effect = if is_required { "every call is denied" } else { "the rule stops only what cannot be compared" };
        // A call without arguments shows what becomes of `require`.
        let alone = if is_required { self.alone(section, rule) } else { None };
        let witness = alone.map(|policy| shown(&policy, Witness::of_tool("tool")));
        self.found.push(Found {
            code: FindingCode::NeverHolds,
            claim: Claim::NeverHolds,
            at,
            pointer,
            message: format!("{message}: {effect}"),
            help,
            witness,
        });
    }

    /// Why the conditions can never be true together.
    fn never(&mut self, object: &RulesObject, section: RuleSection, all: &[Placed<'_>]) -> Option<Never> {
        let all: Vec<&Placed<'_>> = all.iter().filter(|comparison| comparison.is_joined).collect();
        for leaf in &all {
            let tools = object.name.as_deref().filter(|name| !name.contains('*'));
            if self.spend(RUN) && never_alone(leaf, section, tools) {
                let message = format!("`{}` can never be true", said(leaf));
                return Some(Never::of(leaf, message, holds(leaf)));
            }
        }
        for (index, a) in all.iter().enumerate() {
            for b in all.iter().skip(index + 1) {
                if !self.spend(20) {
                    return None;
                }
                // `[*]` may stand for no element at all, of which everything holds.
                if a.path != b.path || a.path.has_each() || (a.holds_if_absent(section) && b.holds_if_absent(section)) {
                    continue;
                }
                if !self.spend(cost(a, b)) {
                    return None;
                }
                if exclude(a, b, section) || exclude(b, a, section) {
                    let message = format!("`{}` and `{}` can never both be true", said(a), said(b));
                    let help = "join them by `any`, write two rules, or fix the values";
                    return Some(Never::of(b, message, help.to_owned()));
                }
            }
        }
        None
    }
}

/// Conditions that never hold: where, why, and how to fix them.
struct Never {
    at: usize,
    pointer: String,
    message: String,
    help: String,
}

impl Never {
    fn of(leaf: &Placed<'_>, message: String, help: String) -> Self {
        Self { at: leaf.at, pointer: leaf.pointer.clone(), message, help }
    }
}

/// How to fix a comparison with what its path never is.
fn holds(leaf: &Comparison) -> String {
    let path = leaf.path.to_string();
    match &*path {
        "time.hour" => format!("fix the value: `{path}` is a number from 0 to 23, in UTC"),
        "time.minute" => format!("fix the value: `{path}` is a number from 0 to 59"),
        "time.weekday" => format!("fix the value: `{path}` is a number from 1 (Monday) to 7, in UTC"),
        "time.date" => format!("fix the value: `{path}` is a text such as `2026-01-15`, in UTC"),
        _ => "fix the value, or remove the condition".to_owned(),
    }
}

fn said(leaf: &Comparison) -> String {
    let value = leaf.value.as_ref().map_or_else(String::new, |value| format!(" {value}"));
    let short: String = value.chars().take(80).collect();
    format!("{} {}{short}", leaf.path, leaf.operator.name)
}

/// Whether a comparison is true of no call: the engine is run on every value that its path can have, where these are few.
fn never_alone(leaf: &Placed<'_>, section: RuleSection, tool: Option<&str>) -> bool {
    if leaf.value.is_none() {
        return false;
    }
    let path = leaf.path.to_string();
    match leaf.path.source() {
        Source::Time if path != "time.date" => {}
        Source::Tool if tool.is_some() => {}
        // Types that the path always has: a name of the caller is a text, and so is the date.
        Source::Identity(_) | Source::Time | Source::Tool => {
            return !leaf.holds_if_absent(section) && !can(leaf, "string");
        }
        Source::Arguments | Source::Context => return false,
    }
    let rule = Rule::of(vec![Condition::Comparison((**leaf).clone())]);
    let Some(policy) = alone(RuleSection::Require, &rule) else { return false };
    let mut call = Witness::of_tool(tool.unwrap_or("tool"));
    // A week of hours, and the minutes of one: every hour, minute and weekday.
    let hours = (0..168).map(|hour| Duration::from_secs(hour * 3_600));
    let minutes = (0..60).map(|minute| Duration::from_secs(minute * 60));
    !hours.chain(minutes).any(|after| {
        call.set_time(SAMPLE_TIME.saturating_add(after));
        call.evaluate(&policy).is_allowed()
    })
}
