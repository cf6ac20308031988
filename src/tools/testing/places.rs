//! The places of a policy that can affect a call, and those that a call reaches.

use crate::call::ToolCall;
use crate::json::pointer;
use crate::policy::compiled::{Action, Compiled, RuleRef, Rules, Section};
use crate::policy::{Code, Policy};

/// A place that can affect a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An entry, which matches a call or not.
    Entry(String),
    /// An action, rule or limit, which can stop a call.
    Stop(String),
    /// A limit that only counts.
    Shadow(String),
}

/// The order in which the rules of a policy are evaluated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Deny,
    Require,
    DenyIf,
    Approval,
    Limits,
}

const STAGES: [Stage; 5] = [Stage::Deny, Stage::Require, Stage::DenyIf, Stage::Approval, Stage::Limits];

impl Policy {
    /// Returns all places in document order; within an entry, in order of evaluation.
    pub(crate) fn places(&self) -> Vec<Place> {
        let compiled = self.compiled();
        let mut places = Vec::new();
        let entries = (0..compiled.names.len()).filter_map(|entry| u32::try_from(entry).ok());
        for entry in entries.map(Some).chain([None]) {
            if let Some(index) = entry {
                places.push(Place::Entry(compiled.entry_pointer(index)));
            }
            for stage in STAGES {
                compiled.each_place(entry, stage, &mut |place| places.push(place));
            }
        }
        places
    }

    /// Returns the places that a call with this decision reached: all entries that match it, and
    /// all actions, rules and limits up to the one that stopped it. (If a limit stops the call, or
    /// it needs an approval, all rules that require an approval are included.)
    pub(crate) fn reached(&self, call: &ToolCall<'_>, code: Option<Code>, rule: Option<&str>) -> Vec<String> {
        let compiled = self.compiled();
        let mut reached = Vec::new();
        if matches!(code, Some(Code::Hidden | Code::DefaultDeny | Code::MalformedCall | Code::NoPolicy)) {
            return reached;
        }
        let last = match code {
            Some(Code::ActionDeny) => Stage::Deny,
            Some(Code::Require) => Stage::Require,
            Some(Code::DenyIf) => Stage::DenyIf,
            _ => Stage::Limits,
        };
        let matching = compiled.names.matching(call.tool());
        let entries = || matching.iter(&compiled.names, call.tool());
        reached.extend(entries().map(|entry| compiled.entry_pointer(entry)));
        for stage in STAGES.into_iter().filter(|stage| *stage <= last) {
            let mut is_over = false;
            for entry in entries().map(Some).chain([None]) {
                compiled.each_place(entry, stage, &mut |place| {
                    if let (false, Place::Stop(pointer) | Place::Shadow(pointer)) = (is_over, place) {
                        is_over = stage == last && stage != Stage::Limits && Some(&*pointer) == rule;
                        reached.push(pointer);
                    }
                });
            }
        }
        reached
    }
}

impl Compiled {
    fn entry_pointer(&self, entry: u32) -> String {
        let mut text = "/tools".to_owned();
        pointer::push_key(&mut text, self.names.name(entry));
        text
    }

    /// Visits the places of one rules object (`None` is `all_tools`) in a stage, in order.
    fn each_place(&self, entry: Option<u32>, stage: Stage, visit: &mut dyn FnMut(Place)) {
        let Some(rules) = self.rules(entry) else { return };
        let mut stop = |section| visit(Place::Stop(self.pointer(RuleRef { entry, section })));
        let mut list = |count: usize, section: fn(u32) -> Section| {
            (0..count).filter_map(|index| u32::try_from(index).ok()).for_each(|index| stop(section(index)));
        };
        match stage {
            Stage::Deny if rules.action == Action::Deny => stop(Section::Action),
            Stage::Deny => {}
            Stage::Require => list(rules.require.len(), Section::Require),
            Stage::DenyIf => list(rules.deny_if.len(), Section::DenyIf),
            Stage::Approval => {
                if rules.action == Action::RequireApproval {
                    list(1, |_| Section::Action);
                }
                list(rules.require_approval_if.len(), Section::RequireApprovalIf);
            }
            Stage::Limits => self.each_limit_place(entry, rules, visit),
        }
    }

    fn each_limit_place(&self, entry: Option<u32>, rules: &Rules, visit: &mut dyn FnMut(Place)) {
        for (index, limit) in (0u32..).zip(&rules.limits) {
            let section = if limit.is_rate_limit { Section::RateLimit } else { Section::Limit(index) };
            let pointer = self.pointer(RuleRef { entry, section });
            visit(if limit.shadow { Place::Shadow(pointer) } else { Place::Stop(pointer) });
        }
    }
}
