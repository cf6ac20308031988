//! The search for a call that two policies decide otherwise.

use serde_json::Value;

use super::cover::each_call;
use super::fill::call_with;
use super::report::Boundary;
use super::slots::{Given, Slots};
use super::{Budget, strictness};
use crate::call::path::{Path, Root};
use crate::policy::Policy;
use crate::policy::ast::Comparison;
use crate::tools::explain::{RuleEffect, Witness};

/// The most calls of which all are tried.
const ALL: u64 = 2_000;
/// So many times a search begins anew.
const STARTS: usize = 12;
/// So many steps each takes.
const STEPS: usize = 12;
/// So many values of one place are tried in one step.
const CHOICES: usize = 96;

/// What is looked for: calls of one tool that `new` lets through further than `old`.
pub(super) struct Search<'p> {
    pub(super) old: &'p Policy,
    pub(super) new: &'p Policy,
    pub(super) tool: &'p str,
    /// The comparisons of both that apply to the tool.
    pub(super) tests: Vec<&'p Comparison>,
    /// The place of the rule that should be the one which stops the call in `old`; others are second best.
    pub(super) rule: &'p str,
    /// The places of the rules of `new` that apply, in the order in which they stop calls.
    pub(super) order: Vec<String>,
}

/// A call that was found.
pub(super) struct FoundCall {
    pub(super) witness: Witness,
    /// Whether it was the rule looked for that stopped it.
    pub(super) is_by_rule: bool,
}

impl Search<'_> {
    /// A call, each verified by both policies.
    pub(super) fn run(&self, budget: &mut Budget) -> Option<FoundCall> {
        if !budget.spend(1 + self.tests.len() as u64) {
            return None;
        }
        let slots = Slots::of(&self.tests);
        // What evaluating one call takes.
        let price = 1 + (slots.slots.len() + self.tests.len() + self.order.len()) as u64 / 16;
        let mut best: Option<Witness> = None;
        let mut by_rule: Option<Witness> = None;
        let product = slots.product();
        if product <= ALL {
            if !budget.spend(product.saturating_mul(price)) {
                return None;
            }
            each_call(self.tool, &slots, |call| {
                match self.score(call) {
                    Score::Changed { is_by_rule: true } => by_rule = Some(call.clone()),
                    Score::Changed { is_by_rule: false } if best.is_none() => best = Some(call.clone()),
                    _ => {}
                }
                by_rule.is_none()
            });
        } else {
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            for start in 0..STARTS {
                match self.climb(&slots, start, &mut random, (&mut *budget, price)) {
                    Some((call, true)) => {
                        by_rule = Some(call);
                        break;
                    }
                    Some((call, false)) => best = best.or(Some(call)),
                    None => {}
                }
            }
        }
        let is_by_rule = by_rule.is_some();
        by_rule.or(best).map(|witness| FoundCall { witness, is_by_rule })
    }

    /// Goes from call to call, each with one value changed, so that `new` stops it later and later while `old` still does.
    fn climb(
        &self,
        slots: &Slots,
        start: usize,
        random: &mut Random,
        (budget, price): (&mut Budget, u64),
    ) -> Option<(Witness, bool)> {
        let mut chosen: Vec<usize> = slots
            .slots
            .iter()
            .map(|slot| match start {
                0 => slot.choices.iter().position(|given| *given == Given::Absent).unwrap_or_default(),
                1 => 0,
                _ => random.below(slot.choices.len()),
            })
            .collect();
        let call_of = |chosen: &[usize]| {
            let given =
                slots.slots.iter().zip(chosen).filter_map(|(slot, index)| Some((slot, slot.choices.get(*index)?)));
            call_with(self.tool, given)
        };
        let mut call = call_of(&chosen);
        let mut score = self.score(&call);
        for _ in 0..STEPS {
            let mut better: Option<(Score, usize, usize, Witness)> = None;
            for (place, slot) in slots.slots.iter().enumerate() {
                let count = slot.choices.len();
                let first = if count > CHOICES { random.below(count) } else { 0 };
                for offset in 0..count.min(CHOICES) {
                    let choice = (first + offset) % count;
                    if !budget.spend(price) {
                        return None;
                    }
                    let mut other = chosen.clone();
                    if let Some(chosen) = other.get_mut(place) {
                        *chosen = choice;
                    }
                    let call = call_of(&other);
                    let found = self.score(&call);
                    if found > better.as_ref().map_or(score, |(best, ..)| *best) {
                        better = Some((found, place, choice, call));
                    }
                }
            }
            let Some((found, place, choice, found_call)) = better else { break };
            (score, call) = (found, found_call);
            if let Some(chosen) = chosen.get_mut(place) {
                *chosen = choice;
            }
            if let Score::Changed { is_by_rule: true } = score {
                break;
            }
        }
        match score {
            Score::Changed { is_by_rule } => Some((call, is_by_rule)),
            _ => None,
        }
    }

    fn score(&self, call: &Witness) -> Score {
        let (old, new) = (call.evaluate(self.old), call.evaluate(self.new));
        let (before, after) = (strictness(old.effect()), strictness(new.effect()));
        let is_by_rule = old.rule().is_some_and(|rule| rule == self.rule);
        if after < before {
            return Score::Changed { is_by_rule };
        }
        if before == 0 {
            return Score::LetThrough;
        }
        let rule = new.rule().unwrap_or_default();
        let progress = self.order.iter().position(|place| **place == *rule).unwrap_or_default();
        Score::Stopped { progress, is_by_rule }
    }
}

/// How near a call is to one that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Score {
    /// The old policy lets it through: there is nothing to widen.
    LetThrough,
    /// Both stop it; the new one at so late a rule.
    Stopped {
        progress: usize,
        is_by_rule: bool,
    },
    Changed {
        is_by_rule: bool,
    },
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (bound.max(1) as u64)).unwrap_or_default()
    }
}

/// The number of a call at which the decision turns: of the arguments and the context, the first number whose neighbour, one above
/// or one below, is decided by both policies alike.
pub(super) fn boundary(old: &Policy, new: &Policy, call: &Witness) -> Option<Boundary> {
    for root in [Root::Arguments, Root::Context] {
        for (key, value) in call.object(root)?.as_object()? {
            for neighbour in value.as_i64().into_iter().flat_map(|n| [n.saturating_sub(1), n.saturating_add(1)]) {
                let path = Path::of_member(root, key);
                let (mut other, alike) = (call.clone(), Value::from(neighbour));
                let decided = |other: &Witness, policy| RuleEffect::of(policy, other).decision();
                if other.edit(&path, Some(&alike)) && decided(&other, old) == decided(&other, new) {
                    return Some(Boundary { path: path.to_string(), alike, changed: value.clone() });
                }
            }
        }
    }
    None
}
