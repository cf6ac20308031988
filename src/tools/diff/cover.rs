//! Proves that one set of rules stops all calls that another stops: by comparing the rules as
//! written, or by trying one call of each kind that they distinguish, if there are few enough.
//! `true` is a proof; `false` proves nothing.

use std::collections::HashSet;

use super::fill::call_with;
use super::slots::{Slots, is_enumerable};
use super::{Budget, strictness};
use crate::call::path::{Path, Root};
use crate::policy::Policy;
use crate::policy::ast::{Comparison, Condition, Rule, RuleSection, RulesObject, policy_of};
use crate::policy::compiled::Action;
use crate::policy::condition::Stance;
use crate::tools::explain::Witness;

/// The maximum number of calls that are tried for one proof.
const MAX_CALLS_PER_PROOF: u64 = 20_000;

/// A part of a rules object that stops calls by itself. The object stops the calls that any of its
/// clauses stops.
#[derive(Clone, Copy)]
pub(super) enum Clause<'v> {
    /// Denies all calls.
    Deny,
    /// Requires approval for all calls.
    RequireApproval,
    /// Denies a call unless the condition holds.
    Require(&'v Condition),
    /// Denies a call if all of the conditions hold.
    DenyIf(&'v [Condition]),
    /// Requires approval if all of the conditions hold.
    RequireApprovalIf(&'v [Condition]),
}

/// Returns the clauses of a rules object, each with its pointer below the object.
pub(super) fn clauses(object: &RulesObject) -> Vec<(Clause<'_>, String)> {
    let mut clauses = Vec::new();
    match object.action {
        Action::Deny => clauses.push((Clause::Deny, "/action".to_owned())),
        Action::RequireApproval => clauses.push((Clause::RequireApproval, "/action".to_owned())),
        Action::Allow => {}
    }
    for section in RuleSection::ALL {
        for (index, rule) in object.rules(section).iter().enumerate() {
            let pointer = format!("/{}/{index}", section.key());
            match section {
                RuleSection::Require => {
                    clauses.extend(rule.conditions.iter().map(|one| (Clause::Require(one), pointer.clone())));
                }
                RuleSection::DenyIf => clauses.push((Clause::DenyIf(&rule.conditions), pointer)),
                RuleSection::RequireApprovalIf => {
                    clauses.push((Clause::RequireApprovalIf(&rule.conditions), pointer));
                }
            }
        }
    }
    clauses
}

/// Returns an entry without rules.
fn entry() -> RulesObject {
    RulesObject { name: Some("t".into()), ..RulesObject::default() }
}

/// Returns an entry with one rule.
fn entry_with(section: RuleSection, conditions: &[Condition]) -> RulesObject {
    let mut entry = entry();
    entry.rules_mut(section).push(Rule::of(conditions.to_vec()));
    entry
}

impl Clause<'_> {
    /// Returns an entry with only this clause.
    fn to_entry(self) -> RulesObject {
        match self {
            Self::Deny => RulesObject { action: Action::Deny, ..entry() },
            Self::RequireApproval => RulesObject { action: Action::RequireApproval, ..entry() },
            Self::Require(condition) => entry_with(RuleSection::Require, std::slice::from_ref(condition)),
            Self::DenyIf(conditions) => entry_with(RuleSection::DenyIf, conditions),
            Self::RequireApprovalIf(conditions) => entry_with(RuleSection::RequireApprovalIf, conditions),
        }
    }
}

/// Returns `true` if these rules objects certainly stop every call that the clause stops, of any
/// tool, at least as strictly.
pub(super) fn covers(new: &[&RulesObject], clause: Clause<'_>, budget: &mut Budget) -> bool {
    budget.spend(1 + new.len() as u64 / 4)
        && (covers_as_written(new, clause, budget) || covers_all_calls(new, clause, budget))
}

/// Tries to prove that the clause is covered by comparing the rules one by one.
fn covers_as_written(new: &[&RulesObject], clause: Clause<'_>, budget: &mut Budget) -> bool {
    if new.iter().any(|object| object.action == Action::Deny) {
        return true;
    }
    let asks = matches!(clause, Clause::RequireApproval | Clause::RequireApprovalIf(_));
    if asks && new.iter().any(|object| object.action == Action::RequireApproval) {
        return true;
    }
    let old: &[Condition] = match clause {
        Clause::Require(condition) => {
            let rules = new.iter().flat_map(|object| &object.require);
            let mut required = rules.flat_map(|rule| &rule.conditions);
            if required.any(|new| implies(new, condition, Stance::Require, budget)) {
                return true;
            }
            &[]
        }
        Clause::DenyIf(conditions) | Clause::RequireApprovalIf(conditions) => conditions,
        Clause::Deny | Clause::RequireApproval => &[],
    };
    let denying = new.iter().flat_map(|object| &object.deny_if);
    let asking = new.iter().filter(|_| asks).flat_map(|object| &object.require_approval_if);
    let mut stopping = denying.chain(asking);
    stopping.any(|rule| {
        let mut each = rule.conditions.iter();
        each.all(|new| old.iter().any(|old| implies(old, new, Stance::Match, budget)))
    })
}

/// Returns `true` if every call that satisfies `old` certainly satisfies `new`. A condition is
/// satisfied if it is true (in `require`), or if it is not false (elsewhere).
fn implies(old: &Condition, new: &Condition, stance: Stance, budget: &mut Budget) -> bool {
    if !budget.spend(1) {
        return false;
    }
    if old == new {
        return true;
    }
    let (Condition::Comparison(old), Condition::Comparison(new)) = (old, new) else { return false };
    if old.path != new.path {
        return false;
    }
    if is_enumerable(old) && is_enumerable(new) {
        // An implication that holds for a single value also holds for `[*]`, which quantifies over
        // values.
        let Ok(path) = Path::parse("args.v") else { return false };
        let entry_of = |comparison: &Comparison, section| {
            let moved = Comparison { path: path.clone(), ..comparison.clone() };
            entry_with(section, &[Condition::Comparison(moved)])
        };
        let (stopped, stopping) = match stance {
            Stance::Require => (entry_of(new, RuleSection::Require), entry_of(old, RuleSection::Require)),
            Stance::Match => (entry_of(old, RuleSection::DenyIf), entry_of(new, RuleSection::DenyIf)),
        };
        return covers_entry(&stopping, &stopped, budget);
    }
    has_wider_list(old, new)
}

/// Returns `true` if both have the same operator, and the list of `new` has all texts of `old`.
/// Whether such an operator is undecidable does not depend on its list.
fn has_wider_list(old: &Comparison, new: &Comparison) -> bool {
    let options = |comparison: &Comparison| (comparison.ignore_case, comparison.absent);
    let is_listed = old.operator.meaning.any_of_texts && old.value.is_some() && new.value.is_some();
    if !is_listed || old.operator.name != new.operator.name || options(old) != options(new) {
        return false;
    }
    let new: HashSet<&str> = new.texts().into_iter().collect();
    old.texts().into_iter().all(|text| new.contains(text))
}

/// Tries to prove that the clause is covered by evaluating one call of each kind: first under only
/// those new rules that read no other paths than the clause, then under all whose comparisons are
/// enumerable.
fn covers_all_calls(new: &[&RulesObject], clause: Clause<'_>, budget: &mut Budget) -> bool {
    let old = clause.to_entry();
    let comparisons = comparisons_in(&[&old]);
    let count = new.iter().map(|object| clauses(object).len() as u64).sum::<u64>();
    if !budget.spend(1 + count / 4) {
        return false;
    }
    if !comparisons.iter().all(|comparison| is_enumerable(comparison)) {
        return false;
    }
    let reads_same_path = |new: &Comparison| is_enumerable(new) && comparisons.iter().any(|old| old.path == new.path);
    let few = rules_with(new, &reads_same_path);
    if covers_entry(&few, &old, budget) {
        return true;
    }
    let all = rules_with(new, &|new: &Comparison| is_enumerable(new) && !reads_tool_or_elements(new));
    !all.stops_as(&few) && covers_entry(&all, &old, budget)
}

fn reads_tool_or_elements(comparison: &Comparison) -> bool {
    comparison.path.root == Root::Tool || comparison.path.has_each()
}

/// Returns one entry with the rules whose comparisons all pass the filter. It stops no more calls
/// than all of the rules do, so a proof for it holds for them.
fn rules_with(new: &[&RulesObject], filter: &dyn Fn(&Comparison) -> bool) -> RulesObject {
    let mut all = entry();
    for section in RuleSection::ALL {
        let passes = |rule: &&Rule| {
            let mut comparisons = Vec::new();
            rule.conditions.iter().for_each(|condition| condition.add_comparisons(&mut comparisons));
            comparisons.iter().all(|comparison| filter(comparison))
        };
        let rules = new.iter().flat_map(|object| object.rules(section)).filter(passes);
        *all.rules_mut(section) = rules.cloned().collect();
    }
    if new.iter().any(|object| object.action == Action::RequireApproval) {
        all.action = Action::RequireApproval;
    }
    all
}

/// Returns all comparisons in these rules objects.
pub(super) fn comparisons_in<'v>(objects: &[&'v RulesObject]) -> Vec<&'v Comparison> {
    let mut comparisons = Vec::new();
    for object in objects {
        for section in RuleSection::ALL {
            let conditions = object.rules(section).iter().flat_map(|rule| &rule.conditions);
            conditions.for_each(|condition| condition.add_comparisons(&mut comparisons));
        }
    }
    comparisons
}

/// Returns `true` if `new` certainly stops every call that `old` stops, of any tool, at least as
/// strictly, which it finds by evaluating one call of each kind.
fn covers_entry(new: &RulesObject, old: &RulesObject, budget: &mut Budget) -> bool {
    let slots = Slots::of(&comparisons_in(&[old, new]));
    let product = slots.product();
    if !slots.is_complete || product > MAX_CALLS_PER_PROOF || !budget.spend(product.saturating_add(100)) {
        return false;
    }
    let (Some(old), Some(new)) = (policy_of([old]), policy_of([new])) else { return false };
    each_call("t", &slots, |call| {
        let rank = |policy: &Policy| strictness(call.evaluate(policy).effect());
        rank(&new) >= rank(&old)
    })
}

/// Calls `holds` with a call for each choice of values, until it returns `false`. Returns `true` if
/// it never does.
pub(super) fn each_call(tool: &str, slots: &Slots, mut holds: impl FnMut(&Witness) -> bool) -> bool {
    let slots = &slots.slots;
    let mut chosen = vec![0usize; slots.len()];
    loop {
        let values = slots.iter().zip(&chosen).filter_map(|(slot, index)| Some((slot, slot.choices.get(*index)?)));
        if !holds(&call_with(tool, values)) {
            return false;
        }
        let mut has_next = false;
        for (slot, index) in slots.iter().zip(&mut chosen) {
            *index += 1;
            if *index < slot.choices.len() {
                has_next = true;
                break;
            }
            *index = 0;
        }
        if !has_next {
            return true;
        }
    }
}
