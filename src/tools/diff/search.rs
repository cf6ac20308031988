//! Searches for a call that one policy stops and the other decides less strictly.

use serde_json::Value;

use super::cover::each_call;
use super::fill::call_with;
use super::report::Boundary;
use super::slots::{SlotValue, Slots};
use super::{Budget, strictness};
use crate::call::path::{Path, Root};
use crate::policy::Policy;
use crate::policy::ast::Comparison;
use crate::tools::explain::{RuleEffect, Witness};

/// The maximum number of combinations of values that are all tried. If there are more, the search
/// climbs.
const MAX_EXHAUSTIVE: u64 = 2_000;
/// The number of starting points of the climb.
const STARTS: usize = 12;
/// The maximum number of steps from each starting point.
const MAX_STEPS: usize = 12;
/// The maximum number of values of one slot that are tried in one step.
const MAX_CHOICES_PER_STEP: usize = 96;

/// A search for a call of one tool that `new` decides less strictly than `old`.
pub(super) struct Search<'p> {
    pub(super) old: &'p Policy,
    pub(super) new: &'p Policy,
    pub(super) tool: &'p str,
    /// The comparisons in the rules of both policies that apply to the tool.
    pub(super) comparisons: Vec<&'p Comparison>,
    /// The pointer of the rule that should stop the call in `old`. A call that another rule stops
    /// is second best.
    pub(super) rule: &'p str,
    /// The pointers to the rules of `new` that apply to the tool, in the order of evaluation.
    pub(super) order: Vec<String>,
}

/// A call that was found.
pub(super) struct FoundCall {
    pub(super) witness: Witness,
    /// `true` if the rule of the search stopped it.
    pub(super) is_by_rule: bool,
}

impl Search<'_> {
    /// Returns a call that the new policy decides less strictly, if one is found. Both policies
    /// have evaluated it.
    pub(super) fn run(&self, budget: &mut Budget) -> Option<FoundCall> {
        if !budget.spend(1 + self.comparisons.len() as u64) {
            return None;
        }
        let slots = Slots::of(&self.comparisons);
        let steps_per_call = 1 + (slots.slots.len() + self.comparisons.len() + self.order.len()) as u64 / 16;
        let mut best: Option<Witness> = None;
        let mut by_rule: Option<Witness> = None;
        let product = slots.product();
        if product <= MAX_EXHAUSTIVE {
            if !budget.spend(product.saturating_mul(steps_per_call)) {
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
                match self.climb(&slots, start, &mut random, (&mut *budget, steps_per_call)) {
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

    /// Climbs: changes one value at a time, so that `new` stops the call at an ever later rule
    /// while `old` still stops it.
    fn climb(
        &self,
        slots: &Slots,
        start: usize,
        random: &mut Random,
        (budget, steps_per_call): (&mut Budget, u64),
    ) -> Option<(Witness, bool)> {
        let mut chosen: Vec<usize> = slots
            .slots
            .iter()
            .map(|slot| match start {
                0 => slot.choices.iter().position(|value| *value == SlotValue::Absent).unwrap_or_default(),
                1 => 0,
                _ => random.below(slot.choices.len()),
            })
            .collect();
        let call_of = |chosen: &[usize]| {
            let values =
                slots.slots.iter().zip(chosen).filter_map(|(slot, index)| Some((slot, slot.choices.get(*index)?)));
            call_with(self.tool, values)
        };
        let mut call = call_of(&chosen);
        let mut score = self.score(&call);
        for _ in 0..MAX_STEPS {
            let mut better: Option<(Score, usize, usize, Witness)> = None;
            for (position, slot) in slots.slots.iter().enumerate() {
                let count = slot.choices.len();
                let first = if count > MAX_CHOICES_PER_STEP { random.below(count) } else { 0 };
                for offset in 0..count.min(MAX_CHOICES_PER_STEP) {
                    let choice = (first + offset) % count;
                    if !budget.spend(steps_per_call) {
                        return None;
                    }
                    let mut other = chosen.clone();
                    if let Some(chosen) = other.get_mut(position) {
                        *chosen = choice;
                    }
                    let call = call_of(&other);
                    let found = self.score(&call);
                    if found > better.as_ref().map_or(score, |(best, ..)| *best) {
                        better = Some((found, position, choice, call));
                    }
                }
            }
            let Some((found, position, choice, found_call)) = better else { break };
            (score, call) = (found, found_call);
            if let Some(chosen) = chosen.get_mut(position) {
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
        let progress = self.order.iter().position(|pointer| **pointer == *rule).unwrap_or_default();
        Score::Stopped { progress, is_by_rule }
    }
}

/// The progress of a climb: a higher score is nearer to a call that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Score {
    /// The old policy lets the call through, so it cannot become wider.
    LetThrough,
    /// Both policies stop the call; `progress` is the position of the rule at which the new one
    /// does.
    Stopped { progress: usize, is_by_rule: bool },
    /// The new policy decides the call less strictly.
    Changed { is_by_rule: bool },
}

/// A xorshift generator with a fixed seed, so that a comparison is reproducible.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (bound.max(1) as u64)).unwrap_or_default()
    }
}

/// Returns the first number in the arguments or the context for which both policies decide alike if
/// it is one lower or one higher.
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
