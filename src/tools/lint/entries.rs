//! Entries that never apply, and what stands in them for nothing.

use std::collections::HashSet;

use super::Lint;
use super::findings::{Claim, FindingCode, Found, shown};
use crate::policy::ast::{RuleSection, RulesObject};
use crate::policy::compiled::{Action, DefaultEffect};
use crate::policy::{Effect, Names};
use crate::tools::explain::Witness;

/// The most pairs of names and patterns that begin with a star for which coverage is worked out.
const PAIRS: usize = 4_000_000;

impl Lint<'_> {
    pub(super) fn entries(&mut self) {
        let objects = self.objects();
        let hidden_names = || self.document.hide.iter().map(|name| name.value.as_str());
        let hidden = names(hidden_names());
        let denying: Vec<(&RulesObject, String)> =
            objects.iter().filter_map(|object| Some((*object, object.denies_all()?))).collect();
        let denials = names(denying.iter().filter_map(|(object, _)| object.name.as_deref()));
        let stars = |text: &str| text.contains('*');
        let patterns = hidden_names().filter(|name| stars(name)).count()
            + denying.iter().filter(|(object, _)| object.name.as_deref().is_some_and(stars)).count();
        let covers = patterns.saturating_mul(objects.len()) <= PAIRS;
        self.complete &= covers;
        let named: Vec<&(&RulesObject, String)> = denying.iter().filter(|(object, _)| object.name.is_some()).collect();
        for object in &objects {
            self.approval(object);
            self.dead_rules(object);
            let Some(name) = object.name.as_deref() else {
                if let Some(by) = object.denies_all() {
                    let tool = objects.iter().find(|object| object.name.is_some());
                    let tool = tool.map_or("tool".into(), |object| object.tool());
                    let message = format!("{by} denies every call: the policy lets nothing through");
                    let help = "give the rule conditions, or remove it; `default` is the outcome for unknown tools";
                    self.always_denied(FindingCode::AllDenied, object, &tool, message, help);
                }
                continue;
            };
            if !covers {
                continue;
            }
            // What a name with its stars taken as characters matches covers all that the pattern matches.
            if hidden.matches(name) {
                // One that says no and why agrees with `hide`.
                if object.denies_all().is_some() {
                    continue;
                }
                let message = format!("`hide` covers `{name}`: the entry never applies");
                let help = "remove the entry, or take the name out of `hide`";
                self.always_denied(FindingCode::EntryHidden, object, &object.tool(), message, help);
                continue;
            }
            if object.denies_all().is_some() {
                continue;
            }
            let by = denials.matching(name).iter(&denials, name).next();
            if let Some((_, by)) = by.and_then(|by| named.get(by as usize)) {
                let message = format!("{by} denies every call that `{name}` matches");
                let help = "remove the entry, or narrow the denial: every entry that matches a call applies";
                self.always_denied(FindingCode::EntryShadowed, object, &object.tool(), message, help);
            }
        }
        self.unlimited(&objects);
    }

    fn always_denied(&mut self, code: FindingCode, object: &RulesObject, tool: &str, message: String, help: &str) {
        if !self.spend_whole() {
            return;
        }
        let call = Witness::of_tool(tool);
        if !matches!(call.evaluate(self.policy).effect(), Effect::Deny(_)) {
            return;
        }
        self.found.push(Found {
            code,
            claim: Claim::AlwaysDenied,
            at: object.at,
            pointer: object.pointer.clone(),
            message,
            help: help.to_owned(),
            witness: Some(shown(self.policy, call)),
        });
    }

    /// Rules that stand behind something of the same object that always stops the call.
    fn dead_rules(&mut self, object: &RulesObject) {
        let mut dead = |pointer: String, at: usize, by: &str, code: FindingCode| {
            self.found.push(Found {
                code,
                claim: Claim::NeverDecides,
                at,
                message: format!("it never decides: {by} stops the call before it"),
                help: "remove it, or what stands before it".to_owned(),
                pointer,
                witness: None,
            });
        };
        let denies = object.denies_all();
        let denied_at = denies.as_ref().and_then(|by| by.rsplit('/').next()?.parse::<usize>().ok());
        for section in RuleSection::ALL {
            let mut before: HashSet<String> = HashSet::new();
            for (index, rule) in object.rules(section).iter().enumerate() {
                let place = object.rule_pointer(section, index);
                let by = match (object.action, section) {
                    (Action::Deny, _) => denies.clone(),
                    (Action::RequireApproval, RuleSection::RequireApprovalIf) => {
                        Some(format!("{}/action", object.pointer))
                    }
                    (_, RuleSection::Require) => None,
                    (_, RuleSection::DenyIf) => denies.clone().filter(|_| denied_at.is_some_and(|at| at < index)),
                    (_, RuleSection::RequireApprovalIf) => denies.clone(),
                };
                if let Some(by) = by {
                    dead(place, rule.at, &by, FindingCode::RuleNeverDecides);
                } else if !before.insert(rule.text()) {
                    dead(place, rule.at, "a rule with the same conditions", FindingCode::RuleNeverDecides);
                }
            }
        }
        if let Some(by) = denies {
            for limit in &object.limits {
                dead(limit.pointer.clone(), limit.at, &by, FindingCode::LimitNeverDecides);
            }
        }
    }

    fn approval(&mut self, object: &RulesObject) {
        let Some(approval) = &object.approval else { return };
        let mut add = |code, key: &str, at, message: String, help: &str| {
            let pointer = format!("{}/approval/{key}", object.pointer);
            self.found.push(Found::remark(code, (at, pointer), message, help));
        };
        if let (Some(least), Some(approvers)) = (&approval.min_approvers, &approval.approvers) {
            let people: HashSet<&str> = approvers.iter().map(String::as_str).collect();
            let needed = least.value;
            if needed > people.len() as u64 {
                let message = format!("{needed} people must approve, and {} may: nobody can", people.len());
                let help = "name more approvers, or ask for fewer";
                add(FindingCode::TooFewApprovers, "min_approvers", least.at, message, help);
            }
        }
        for (index, binding) in approval.bind.iter().enumerate() {
            if binding.value.at_most && binding.value.path.is_root() {
                let message = "`args<=` bounds all arguments, which are no number".to_owned();
                let help = "name the number that may be smaller, `args.amount<=`, or write `args`";
                add(FindingCode::BoundOfArguments, &format!("bind/{index}"), binding.at, message, help);
            }
        }
    }

    /// `default: allow` with nothing that counts.
    fn unlimited(&mut self, objects: &[&RulesObject]) {
        let default = &self.document.default;
        if default.value == DefaultEffect::Deny || objects.iter().any(|object| !object.limits.is_empty()) {
            return;
        }
        let known: HashSet<&str> = objects.iter().filter_map(|object| object.name.as_deref()).collect();
        let tool = (0..).map(|number| format!("unknown_tool_{number}")).find(|tool| !known.contains(tool.as_str()));
        let call = Witness::of_tool(tool.unwrap_or_default());
        let passes = call.evaluate(self.policy).is_allowed();
        self.found.push(Found {
            code: FindingCode::Unlimited,
            claim: if passes { Claim::SlipsThrough } else { Claim::Nothing },
            at: default.at,
            pointer: "/default".to_owned(),
            message: "tools without an entry are allowed, and nothing is limited".to_owned(),
            help: "write `deny` and name the tools, or give `all_tools` a limit".to_owned(),
            witness: passes.then(|| shown(self.policy, call)),
        });
    }
}

/// Names and patterns, to be looked up.
pub(super) fn names<'n>(all: impl Iterator<Item = &'n str>) -> Names {
    let mut names = Names::default();
    for name in all {
        names.insert(name);
    }
    names.finish();
    names
}
