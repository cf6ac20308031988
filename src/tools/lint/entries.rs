//! Entries that never apply, and parts of entries that have no effect.

use std::collections::HashSet;

use super::Lint;
use super::findings::{Claim, FindingCode, UnplacedFinding, with_effect};
use crate::policy::ast::{RuleSection, RulesObject};
use crate::policy::compiled::{Action, DefaultEffect};
use crate::policy::{Effect, Names};
use crate::tools::explain::Witness;

/// The largest product of patterns and rules objects for which coverage is computed.
const MAX_COVERAGE_PAIRS: usize = 4_000_000;

impl Lint<'_> {
    pub(super) fn entries(&mut self) {
        let objects = self.objects();
        let hidden_names = || self.document.hide.iter().map(|name| name.value.as_str());
        let hidden = name_set(hidden_names());
        let denying: Vec<(&str, String)> =
            objects.iter().filter_map(|object| Some((object.name.as_deref()?, object.denies_all()?))).collect();
        let denying_names = || denying.iter().map(|(name, _)| *name);
        let denials = name_set(denying_names());
        let patterns = hidden_names().chain(denying_names()).filter(|name| name.contains('*')).count();
        let compares_coverage = patterns.saturating_mul(objects.len()) <= MAX_COVERAGE_PAIRS;
        self.is_complete &= compares_coverage;
        for object in &objects {
            self.approval(object);
            self.never_deciding_parts(object);
            let denied_by = object.denies_all();
            let Some(name) = object.name.as_deref() else {
                if let Some(by) = denied_by {
                    let tool = objects.iter().find(|object| object.name.is_some());
                    let tool = tool.map_or("tool".into(), |object| object.tool());
                    let message = format!("{by} denies every call: the policy allows nothing");
                    let help = "give the rule conditions, or remove it; `default` is the outcome for unknown tools";
                    self.always_denied(FindingCode::AllDenied, object, &tool, message, help);
                }
                continue;
            };
            // An entry that denies every call may agree with `hide`, and add the reason.
            if !compares_coverage || denied_by.is_some() {
                continue;
            }
            // A pattern that matches the name, its stars taken as characters, covers all its tools.
            if hidden.matches(name) {
                let message = format!("`hide` covers `{name}`: the entry never applies");
                let help = "remove the entry, or remove the name from `hide`";
                self.always_denied(FindingCode::EntryHidden, object, &object.tool(), message, help);
                continue;
            }
            let by = denials.matching(name).iter(&denials, name).next();
            if let Some((_, by)) = by.and_then(|by| denying.get(by as usize)) {
                let message = format!("{by} denies every call that `{name}` matches");
                let help = "remove the entry, or narrow the denial: every entry that matches a call applies";
                self.always_denied(FindingCode::EntryShadowed, object, &object.tool(), message, help);
            }
        }
        self.unlimited(&objects);
    }

    fn always_denied(&mut self, code: FindingCode, object: &RulesObject, tool: &str, message: String, help: &str) {
        if !self.spend_policy() {
            return;
        }
        let call = Witness::of_tool(tool);
        if !matches!(call.evaluate(self.policy).effect(), Effect::Deny(_)) {
            return;
        }
        self.findings.push(UnplacedFinding {
            code,
            claim: Claim::AlwaysDenied,
            at: object.at,
            pointer: object.pointer.clone(),
            message,
            help: help.to_owned(),
            witness: Some(with_effect(self.policy, call)),
        });
    }

    /// Reports rules and limits that follow a part of the same object that always stops the call.
    fn never_deciding_parts(&mut self, object: &RulesObject) {
        let mut report = |(code, part): (FindingCode, &str), pointer: String, at: usize, by: &str| {
            self.findings.push(UnplacedFinding {
                code,
                claim: Claim::NeverDecides,
                at,
                message: format!("the {part} never decides: {by} stops the call first"),
                help: format!("remove the {part}, or the part that stops the call first"),
                pointer,
                witness: None,
            });
        };
        let denied_by = object.denies_all();
        let denied_at = denied_by.as_ref().and_then(|by| by.rsplit('/').next()?.parse::<usize>().ok());
        for section in RuleSection::ALL {
            let mut texts: HashSet<String> = HashSet::new();
            for (index, rule) in object.rules(section).iter().enumerate() {
                let pointer = object.rule_pointer(section, index);
                let by = match (object.action, section) {
                    (Action::Deny, _) => denied_by.clone(),
                    (Action::RequireApproval, RuleSection::RequireApprovalIf) => {
                        Some(format!("{}/action", object.pointer))
                    }
                    (_, RuleSection::Require) => None,
                    (_, RuleSection::DenyIf) => denied_by.clone().filter(|_| denied_at.is_some_and(|at| at < index)),
                    (_, RuleSection::RequireApprovalIf) => denied_by.clone(),
                };
                let part = (FindingCode::RuleNeverDecides, "rule");
                if let Some(by) = by {
                    report(part, pointer, rule.at, &by);
                } else if !texts.insert(rule.text()) {
                    report(part, pointer, rule.at, "a rule with the same conditions");
                }
            }
        }
        if let Some(by) = denied_by {
            for limit in &object.limits {
                report((FindingCode::LimitNeverDecides, "limit"), limit.pointer.clone(), limit.at, &by);
            }
        }
    }

    fn approval(&mut self, object: &RulesObject) {
        let Some(approval) = &object.approval else { return };
        let mut report = |code, key: &str, at, message: String, help: &str| {
            let pointer = format!("{}/approval/{key}", object.pointer);
            self.findings.push(UnplacedFinding::without_claim(code, (at, pointer), message, help));
        };
        if let (Some(least), Some(approvers)) = (&approval.min_approvers, &approval.approvers) {
            let people: HashSet<&str> = approvers.iter().map(String::as_str).collect();
            let needed = least.value;
            if needed > people.len() as u64 {
                let message = format!(
                    "`min_approvers` is {needed}, but `approvers` lists only {}: the approval can never be given",
                    people.len()
                );
                let help = "name more approvers, or lower `min_approvers`";
                report(FindingCode::TooFewApprovers, "min_approvers", least.at, message, help);
            }
        }
        if let Some(at) = approval.empty_bind {
            let message = "an approval covers any arguments, not only those that people were shown".to_owned();
            let help = "name the arguments that must stay the same, or leave `bind` out to bind all of them";
            report(FindingCode::BoundToNothing, "bind", at, message, help);
        }
        for (index, binding) in approval.bind.iter().enumerate() {
            if binding.value.at_most && binding.value.path.is_root() {
                let message = "`args<=` bounds all arguments, which are not a number".to_owned();
                let help = "name the number that may be smaller, such as `args.amount<=`, or write `args`";
                report(FindingCode::BoundOfArguments, &format!("bind/{index}"), binding.at, message, help);
            }
        }
    }

    /// Reports `default: allow` in a policy without limits.
    fn unlimited(&mut self, objects: &[&RulesObject]) {
        let default = &self.document.default;
        if default.value == DefaultEffect::Deny || objects.iter().any(|object| !object.limits.is_empty()) {
            return;
        }
        let known: HashSet<&str> = objects.iter().filter_map(|object| object.name.as_deref()).collect();
        let tool = (0..).map(|number| format!("unknown_tool_{number}")).find(|tool| !known.contains(tool.as_str()));
        let call = Witness::of_tool(tool.unwrap_or_default());
        let passes = call.evaluate(self.policy).is_allowed();
        self.findings.push(UnplacedFinding {
            code: FindingCode::Unlimited,
            claim: if passes { Claim::SlipsThrough } else { Claim::Nothing },
            at: default.at,
            pointer: "/default".to_owned(),
            message: "tools without an entry are allowed, and nothing is limited".to_owned(),
            help: "write `deny` and name the tools, or give `all_tools` a limit".to_owned(),
            witness: passes.then(|| with_effect(self.policy, call)),
        });
    }
}

/// Collects names and patterns for lookups.
pub(super) fn name_set<'n>(all: impl Iterator<Item = &'n str>) -> Names {
    let mut names = Names::default();
    for name in all {
        names.insert(name);
    }
    names.finish();
    names
}
