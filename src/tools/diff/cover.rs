//! Whether one set of rules stops all that another stops: by what they say where that is plain, else by trying a call of every
//! kind that they tell apart, where there are few enough. A yes is a proof; anything else is no answer.

use std::collections::HashSet;

use super::fill::call_with;
use super::slots::{Slots, is_plain};
use super::{Budget, strictness};
use crate::call::path::{Path, Root};
use crate::policy::Policy;
use crate::policy::ast::{Comparison, Condition, Rule, RuleSection, RulesObject, policy_of};
use crate::policy::compiled::Action;
use crate::policy::condition::Stance;
use crate::tools::explain::Witness;

/// The most calls that are tried for one proof.
const TRIES: u64 = 20_000;

/// What a rules object says, piece by piece: each alone stops calls, and the object stops what any of them stops.
#[derive(Clone, Copy)]
pub(super) enum Piece<'v> {
    /// Denies everything.
    Deny,
    /// Asks for an approval of everything.
    Ask,
    /// A condition that must hold.
    Require(&'v Condition),
    /// Conditions that deny together.
    DenyIf(&'v [Condition]),
    /// Conditions that ask together.
    AskIf(&'v [Condition]),
}

/// The pieces of a rules object, each with its place below the object.
pub(super) fn pieces(object: &RulesObject) -> Vec<(Piece<'_>, String)> {
    let mut pieces = Vec::new();
    match object.action {
        Action::Deny => pieces.push((Piece::Deny, "/action".to_owned())),
        Action::RequireApproval => pieces.push((Piece::Ask, "/action".to_owned())),
        Action::Allow => {}
    }
    for section in RuleSection::ALL {
        for (index, rule) in object.rules(section).iter().enumerate() {
            let place = format!("/{}/{index}", section.key());
            match section {
                RuleSection::Require => {
                    pieces.extend(rule.conditions.iter().map(|one| (Piece::Require(one), place.clone())));
                }
                RuleSection::DenyIf => pieces.push((Piece::DenyIf(&rule.conditions), place)),
                RuleSection::RequireApprovalIf => pieces.push((Piece::AskIf(&rule.conditions), place)),
            }
        }
    }
    pieces
}

/// An entry without rules.
fn entry() -> RulesObject {
    RulesObject { name: Some("t".into()), ..RulesObject::default() }
}

/// An entry with one rule.
fn entry_with(section: RuleSection, conditions: &[Condition]) -> RulesObject {
    let mut entry = entry();
    entry.rules_mut(section).push(Rule::of(conditions.to_vec()));
    entry
}

impl Piece<'_> {
    /// An entry that says this alone.
    fn alone(self) -> RulesObject {
        match self {
            Self::Deny => RulesObject { action: Action::Deny, ..entry() },
            Self::Ask => RulesObject { action: Action::RequireApproval, ..entry() },
            Self::Require(condition) => entry_with(RuleSection::Require, std::slice::from_ref(condition)),
            Self::DenyIf(conditions) => entry_with(RuleSection::DenyIf, conditions),
            Self::AskIf(conditions) => entry_with(RuleSection::RequireApprovalIf, conditions),
        }
    }
}

/// Whether a call that `piece` stops is stopped as strictly by one of these rules objects, whatever the call is, by any name.
pub(super) fn covers(new: &[&RulesObject], piece: Piece<'_>, budget: &mut Budget) -> bool {
    budget.spend(1 + new.len() as u64 / 4) && (plainly_covers(new, piece, budget) || exactly_covers(new, piece, budget))
}

/// By comparing the rules one by one.
fn plainly_covers(new: &[&RulesObject], piece: Piece<'_>, budget: &mut Budget) -> bool {
    if new.iter().any(|object| object.action == Action::Deny) {
        return true;
    }
    let asks = matches!(piece, Piece::Ask | Piece::AskIf(_));
    if asks && new.iter().any(|object| object.action == Action::RequireApproval) {
        return true;
    }
    let old: &[Condition] = match piece {
        Piece::Require(condition) => {
            let rules = new.iter().flat_map(|object| &object.require);
            let mut required = rules.flat_map(|rule| &rule.conditions);
            if required.any(|new| implies(new, condition, Stance::Require, budget)) {
                return true;
            }
            &[]
        }
        Piece::DenyIf(conditions) | Piece::AskIf(conditions) => conditions,
        Piece::Deny | Piece::Ask => &[],
    };
    let denying = new.iter().flat_map(|object| &object.deny_if);
    let asking = new.iter().filter(|_| asks).flat_map(|object| &object.require_approval_if);
    let mut stopping = denying.chain(asking);
    stopping.any(|rule| {
        let mut each = rule.conditions.iter();
        each.all(|new| old.iter().any(|old| implies(old, new, Stance::Match, budget)))
    })
}

/// Whether `new` is fulfilled wherever `old` is: true in `require`, and not false elsewhere.
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
    if is_plain(old) && is_plain(new) {
        // What holds for every single value holds for all and for any of many.
        let Ok(path) = Path::parse("args.v") else { return false };
        let moved = |comparison: &Comparison, section| {
            let moved = Comparison { path: path.clone(), ..comparison.clone() };
            entry_with(section, &[Condition::Comparison(moved)])
        };
        let (stops, also) = match stance {
            Stance::Require => (moved(new, RuleSection::Require), moved(old, RuleSection::Require)),
            Stance::Match => (moved(old, RuleSection::DenyIf), moved(new, RuleSection::DenyIf)),
        };
        return is_covered(&stops, &also, budget);
    }
    lists_more(old, new)
}

/// The same operator, with a list that has all of the other's. What these operators cannot decide does not hang on the list.
fn lists_more(old: &Comparison, new: &Comparison) -> bool {
    let says = |comparison: &Comparison| (comparison.ignore_case, comparison.absent_matches);
    let is_listed = old.operator.meaning.any_of_texts && old.value.is_some() && new.value.is_some();
    if !is_listed || old.operator.name != new.operator.name || says(old) != says(new) {
        return false;
    }
    let new: HashSet<&str> = new.texts().into_iter().collect();
    old.texts().into_iter().all(|text| new.contains(text))
}

/// By trying calls of every kind: first with those new rules alone that ask for nothing else than the piece does, then with all
/// whose operators are plain.
fn exactly_covers(new: &[&RulesObject], piece: Piece<'_>, budget: &mut Budget) -> bool {
    let old = piece.alone();
    let tests = tests_of(&[&old]);
    let count = new.iter().map(|object| pieces(object).len() as u64).sum::<u64>();
    if !budget.spend(1 + count / 4) {
        return false;
    }
    if !tests.iter().all(|test| is_plain(test)) {
        return false;
    }
    let asked_by_both = |test: &Comparison| is_plain(test) && tests.iter().any(|known| known.path == test.path);
    let few = plain_rules(new, &asked_by_both);
    if is_covered(&old, &few, budget) {
        return true;
    }
    let all = plain_rules(new, &|test: &Comparison| is_plain(test) && !asks_tool(test));
    !all.stops_as(&few) && is_covered(&old, &all, budget)
}

fn asks_tool(test: &Comparison) -> bool {
    test.path.root == Root::Tool || test.path.has_each()
}

/// The rules all of whose comparisons are fit, as one entry. Leaving rules out lets more through, which is safe here.
fn plain_rules(new: &[&RulesObject], is_fit: &dyn Fn(&Comparison) -> bool) -> RulesObject {
    let mut all = entry();
    for section in RuleSection::ALL {
        let fit = |rule: &&Rule| {
            let mut tests = Vec::new();
            rule.conditions.iter().for_each(|condition| condition.add_comparisons(&mut tests));
            tests.iter().all(|test| is_fit(test))
        };
        let rules = new.iter().flat_map(|object| object.rules(section)).filter(fit);
        *all.rules_mut(section) = rules.cloned().collect();
    }
    if new.iter().any(|object| object.action == Action::RequireApproval) {
        all.action = Action::RequireApproval;
    }
    all
}

/// Every comparison of some rules objects.
pub(super) fn tests_of<'v>(all: &[&'v RulesObject]) -> Vec<&'v Comparison> {
    let mut tests = Vec::new();
    for object in all {
        for section in RuleSection::ALL {
            let conditions = object.rules(section).iter().flat_map(|rule| &rule.conditions);
            conditions.for_each(|condition| condition.add_comparisons(&mut tests));
        }
    }
    tests
}

/// Whether whatever `old` stops `new` stops as strictly, for calls of any tool: tried on a call of every kind.
fn is_covered(old: &RulesObject, new: &RulesObject, budget: &mut Budget) -> bool {
    let slots = Slots::of(&tests_of(&[old, new]));
    let product = slots.product();
    if !slots.is_complete || product > TRIES || !budget.spend(product.saturating_add(100)) {
        return false;
    }
    let (Some(old), Some(new)) = (policy_of([old]), policy_of([new])) else { return false };
    each_call("t", &slots, |call| {
        let judge = |policy: &Policy| strictness(call.evaluate(policy).effect());
        judge(&new) >= judge(&old)
    })
}

/// Calls `holds` with a call for every choice of values, until one fails it; whether none does.
pub(super) fn each_call(tool: &str, slots: &Slots, mut holds: impl FnMut(&Witness) -> bool) -> bool {
    let slots = &slots.slots;
    let mut chosen = vec![0usize; slots.len()];
    loop {
        let given = slots.iter().zip(&chosen).filter_map(|(slot, index)| Some((slot, slot.choices.get(*index)?)));
        if !holds(&call_with(tool, given)) {
            return false;
        }
        let mut turned = false;
        for (slot, index) in slots.iter().zip(&mut chosen) {
            *index += 1;
            if *index < slot.choices.len() {
                turned = true;
                break;
            }
            *index = 0;
        }
        if !turned {
            return true;
        }
    }
}
