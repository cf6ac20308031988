//! Evaluates a policy on a call that is only partly known. A result is given only if it holds
//! whatever the unknown parts are.

use crate::call::ToolCall;
use crate::call::path::{AsksFor, Facts, Path};
use crate::policy::Policy;
use crate::policy::compiled::{Action, Compiled, DefaultEffect, Rule, RuleRef, Rules, Section};
use crate::policy::condition::{Condition, Stance};
use crate::policy::limit::{Cost, Limit, ScopePart};
use crate::policy::pattern::Matching;
use crate::policy::truth::Truth;
use crate::time::Timestamp;

/// The unknown parts of a call: the values of its arguments, and its context. The names of its
/// arguments are known.
pub(crate) struct Unknowns<'r> {
    /// The names of the arguments.
    pub(crate) names: Vec<&'r str>,
    /// `true` if the call has other arguments.
    pub(crate) has_more: bool,
}

/// A rule or limit that needs an unknown part of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Its pointer.
    pub(crate) rule: String,
    /// The paths that it needs, in the order in which it reads them.
    pub(crate) paths: Vec<String>,
}

/// The effect of the first rule that stops the call or may stop it.
enum RuleOutcome {
    /// The rule stops the call, whatever the unknown parts are.
    Stops,
    /// The rule depends on the unknown parts.
    Needs(Needs),
}

/// Evaluates one kind of rules of a rules object.
type Stage<'s> = &'s dyn Fn(Option<u32>, &Rules) -> Option<RuleOutcome>;

impl Unknowns<'_> {
    /// Returns `true` if the path has the same value whatever the unknown parts are. (An argument
    /// that is present may be `null`.)
    fn knows(&self, path: &Path) -> bool {
        match path.asks_for() {
            AsksFor::Nothing => true,
            // Another name that differs in case alone makes it undecidable.
            AsksFor::Argument(name) => {
                let is_name = |known: &&str| **known == **name || name.is_variant(known);
                !self.has_more && !self.names.iter().any(is_name)
            }
            AsksFor::Arguments => !self.has_more && self.names.is_empty(),
            AsksFor::Unrecorded => false,
        }
    }

    /// Returns the truth of a condition. Returns `None` if it depends on unknown parts, and adds
    /// their paths to `needs`.
    fn truth(
        &self,
        condition: &Condition,
        facts: &Facts<'_>,
        stance: Stance,
        needs: &mut Vec<String>,
    ) -> Option<Truth> {
        let mut join = |conditions: &[Condition], enough: Truth| {
            let mut own = Vec::new();
            let truths: Vec<_> = conditions.iter().map(|inner| self.truth(inner, facts, stance, &mut own)).collect();
            if truths.contains(&Some(enough)) {
                return Some(enough);
            }
            needs.extend(own);
            // No known truth decides it: each is the opposite one, or undecidable.
            let known: Option<Vec<Truth>> = truths.into_iter().collect();
            let known = known?.into_iter();
            Some(if enough == Truth::False { Truth::all(known) } else { Truth::any(known) })
        };
        match condition {
            Condition::All(conditions) => join(conditions, Truth::False),
            Condition::Any(conditions) => join(conditions, Truth::True),
            Condition::Test(test) => {
                let missing: Vec<_> = test.paths().filter(|path| !self.knows(path)).map(Path::to_string).collect();
                if missing.is_empty() {
                    return Some(test.truth(facts, stance));
                }
                needs.extend(missing);
                None
            }
        }
    }

    /// Returns the unknown paths that a limit needs to count the call.
    fn needs_of(&self, limit: &Limit) -> Vec<String> {
        let scope = limit.scope.parts.iter().filter_map(|part| match part {
            ScopePart::Path(path) => Some(path),
            ScopePart::Identity(_) | ScopePart::Global => None,
        });
        let cost = match &limit.cost {
            Cost::Constant(_) => None,
            Cost::From(path) => Some(path),
        };
        scope
            .chain(cost)
            .chain(limit.max_from.as_deref())
            .filter(|path| !self.knows(path))
            .map(Path::to_string)
            .collect()
    }
}

impl Policy {
    /// Returns the first rule that may or may not stop the call. Returns `None` if an earlier rule
    /// certainly stops it, or if no rule can.
    pub(crate) fn needs_of_rules(&self, call: &ToolCall<'_>, now: Timestamp, unknowns: &Unknowns<'_>) -> Option<Needs> {
        let compiled = self.compiled();
        let matching = compiled.names.matching(call.tool());
        if compiled.is_stopped_by_name(call, &matching) {
            return None;
        }
        let facts = Facts::new(call, now);
        let rules = |rules: &[Rule], entry, stance, section: fn(u32) -> Section| {
            (0u32..).zip(rules).find_map(|(index, rule)| {
                let mut needs = Vec::new();
                let whole = rule.conditions.iter().map(|one| unknowns.truth(one, &facts, stance, &mut needs));
                let truths: Vec<_> = whole.collect();
                let truth = match truths.contains(&Some(Truth::False)) {
                    true => Some(Truth::False),
                    false => truths.into_iter().collect::<Option<Vec<_>>>().map(|all| Truth::all(all.into_iter())),
                };
                let lets_pass = if stance == Stance::Require { Truth::True } else { Truth::False };
                match truth {
                    Some(truth) if truth == lets_pass => None,
                    Some(_) => Some(RuleOutcome::Stops),
                    None => {
                        let rule = compiled.pointer(RuleRef { entry, section: section(index) });
                        Some(RuleOutcome::Needs(Needs { rule, paths: needs }))
                    }
                }
            })
        };
        let action = |of: &Rules, action| (of.action == action).then_some(RuleOutcome::Stops);
        let stages: [Stage<'_>; 4] = [
            &|_, of| action(of, Action::Deny),
            &|entry, of| rules(&of.require, entry, Stance::Require, Section::Require),
            &|entry, of| rules(&of.deny_if, entry, Stance::Match, Section::DenyIf),
            &|entry, of| {
                action(of, Action::RequireApproval)
                    .or_else(|| rules(&of.require_approval_if, entry, Stance::Match, Section::RequireApprovalIf))
            },
        ];
        match stages.into_iter().find_map(|stage| compiled.first(call, &matching, stage))? {
            RuleOutcome::Stops => None,
            RuleOutcome::Needs(needs) => Some(needs),
        }
    }

    /// Returns the first applicable limit that needs unknown parts of the call to count it.
    pub(crate) fn needs_of_limits(&self, call: &ToolCall<'_>, unknowns: &Unknowns<'_>) -> Option<Needs> {
        let compiled = self.compiled();
        let matching = compiled.names.matching(call.tool());
        compiled.each_limit(call, &matching, |found, limit| {
            let needs = unknowns.needs_of(limit);
            (!needs.is_empty()).then(|| Needs { rule: self.limit_pointer(found), paths: needs })
        })
    }

    /// Returns the pointers and counters of all limits on the call, in document order.
    pub(crate) fn limits_on(&self, call: &ToolCall<'_>) -> Vec<(String, &str)> {
        let compiled = self.compiled();
        let matching = compiled.names.matching(call.tool());
        let mut limits = Vec::new();
        compiled.each_limit(call, &matching, |found, limit| {
            limits.push((self.limit_pointer(found), &*limit.counter));
            None::<()>
        });
        limits
    }
}

impl Compiled {
    fn is_stopped_by_name(&self, call: &ToolCall<'_>, matching: &Matching) -> bool {
        self.hide.matches(call.tool()) || (matching.is_empty() && self.default == DefaultEffect::Deny)
    }
}
