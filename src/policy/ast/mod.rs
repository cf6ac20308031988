//! A document as it is written, typed, with its positions: what the tools read.
//!
//! The compiled form says how a policy decides; it has no positions and no `not`. This form is
//! made on demand, from a text that compiles.

mod read;
mod write;

use std::ops::Deref;

use serde_json::Value;

use super::Policy;
use super::approval::Binding;
use super::compiled::{Action, DefaultEffect, Section};
use super::condition::{Absent, Stance};
use super::document::{ALL, ANY};
use super::limit::{Cost, ScopePart};
use super::operator::{Aspect, Operator, Takes};
use crate::amount::Amount;
use crate::call::path::Path;
use crate::json::pointer;

pub(crate) use write::{policy_of, text_of};

/// A document.
pub(crate) struct Document {
    pub(crate) default: Located<DefaultEffect>,
    pub(crate) hide: Vec<Located<String>>,
    /// In document order.
    pub(crate) entries: Vec<RulesObject>,
    pub(crate) all_tools: Option<RulesObject>,
}

/// Something, and the byte offset at which it begins.
#[derive(Clone)]
pub(crate) struct Located<T> {
    pub(crate) at: usize,
    pub(crate) value: T,
}

/// A rules object: an entry of `tools`, or `all_tools`.
#[derive(Default)]
pub(crate) struct RulesObject {
    /// The key of the entry in `tools`; `None` for `all_tools`.
    pub(crate) name: Option<Box<str>>,
    /// The offset of its key.
    pub(crate) at: usize,
    pub(crate) pointer: String,
    pub(crate) action: Action,
    pub(crate) require: Vec<Rule>,
    pub(crate) deny_if: Vec<Rule>,
    pub(crate) require_approval_if: Vec<Rule>,
    /// The last one is `rate_limit`, if there is one.
    pub(crate) limits: Vec<Limit>,
    pub(crate) approval: Option<Approval>,
}

/// A list of rules in a rules object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleSection {
    Require,
    DenyIf,
    RequireApprovalIf,
}

/// A rule: conditions that are joined by `and`.
#[derive(Clone)]
pub(crate) struct Rule {
    pub(crate) at: usize,
    pub(crate) name: Option<Box<str>>,
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Condition {
    Comparison(Comparison),
    Any(Vec<Condition>),
    All(Vec<Condition>),
    Not(Box<Condition>),
}

/// A comparison of a part of the call with a value, or with another part.
#[derive(Clone)]
pub(crate) struct Comparison {
    pub(crate) at: usize,
    pub(crate) path: Path,
    pub(crate) operator: &'static Operator,
    /// `None` for a comparison with another part of the call.
    pub(crate) value: Option<Value>,
    pub(crate) value_from: Option<Located<Path>>,
    pub(crate) ignore_case: Option<bool>,
    pub(crate) absent: Option<Absent>,
}

/// A comparison, its place in the document, and the groups around it.
pub(crate) struct Placed<'r> {
    comparison: &'r Comparison,
    pub(crate) pointer: String,
    /// The rule needs it to hold: every group around it is `all`.
    pub(crate) is_joined: bool,
    /// The number of `not`s around it.
    nots: usize,
}

/// A limit, as far as the tools read it.
pub(crate) struct Limit {
    pub(crate) at: usize,
    pub(crate) pointer: String,
    /// The counter's name. Its offset is `None` for `rate_limit`, whose counter is named after the
    /// entry.
    pub(crate) counter: String,
    pub(crate) counter_at: Option<usize>,
    pub(crate) max: Amount,
    /// `max_from` can lower its maximum.
    pub(crate) has_host_max: bool,
    pub(crate) cost: Located<Cost>,
    /// `None` for a `rate_limit` that leaves it out.
    pub(crate) scope: Option<Located<Vec<Located<ScopePart>>>>,
    /// The length of the window, in seconds; 0 for calls in flight.
    pub(crate) seconds: u32,
    /// The length of windows that are aligned to the Unix epoch, if it is a duration.
    pub(crate) aligned: Option<Located<u32>>,
    /// In minutes east of UTC.
    pub(crate) utc_offset: Option<Located<i32>>,
    pub(crate) is_token_bucket: bool,
    pub(crate) is_shadow: bool,
}

/// `approval` of a rules object, as far as the tools read it.
pub(crate) struct Approval {
    pub(crate) approvers: Option<Vec<String>>,
    pub(crate) min_approvers: Option<Located<u64>>,
    pub(crate) bind: Vec<Located<Binding>>,
    /// The offset of a `bind` that is empty.
    pub(crate) empty_bind: Option<usize>,
}

impl Policy {
    /// Returns the typed document. Its offsets are those of [`Policy::to_json`]. `None` if lists
    /// and objects are nested more than `nesting` deep.
    pub(crate) fn document(&self, nesting: usize) -> Option<Document> {
        Document::read(self.to_json(), nesting)
    }
}

impl Document {
    /// The entries and `all_tools`, in document order.
    pub(crate) fn objects(&self) -> Vec<&RulesObject> {
        let mut objects: Vec<_> = self.entries.iter().chain(&self.all_tools).collect();
        objects.sort_by_key(|object| object.at);
        objects
    }

    /// An entry by its number, or `all_tools`.
    pub(crate) fn object(&self, entry: Option<u32>) -> Option<&RulesObject> {
        entry.map_or(self.all_tools.as_ref(), |entry| self.entries.get(entry as usize))
    }
}

impl RulesObject {
    /// Returns `true` if it is written to stop the same calls for the same reasons, limits aside.
    pub(crate) fn stops_as(&self, other: &Self) -> bool {
        let same = |section| {
            let (one, other) = (self.rules(section), other.rules(section));
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.conditions == other.conditions)
        };
        self.action == other.action && RuleSection::ALL.into_iter().all(same)
    }

    pub(crate) fn rules(&self, section: RuleSection) -> &[Rule] {
        match section {
            RuleSection::Require => &self.require,
            RuleSection::DenyIf => &self.deny_if,
            RuleSection::RequireApprovalIf => &self.require_approval_if,
        }
    }

    pub(crate) fn rules_mut(&mut self, section: RuleSection) -> &mut Vec<Rule> {
        match section {
            RuleSection::Require => &mut self.require,
            RuleSection::DenyIf => &mut self.deny_if,
            RuleSection::RequireApprovalIf => &mut self.require_approval_if,
        }
    }

    /// The JSON Pointer of a rule.
    pub(crate) fn rule_pointer(&self, section: RuleSection, index: usize) -> String {
        let mut pointer = format!("{}/{}", self.pointer, section.key());
        pointer::push_index(&mut pointer, index);
        pointer
    }
}

impl RuleSection {
    /// In the order of their keys in this project's documents.
    pub(crate) const ALL: [Self; 3] = [Self::Require, Self::DenyIf, Self::RequireApprovalIf];

    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::DenyIf => "deny_if",
            Self::RequireApprovalIf => "require_approval_if",
        }
    }

    pub(crate) fn stance(self) -> Stance {
        match self {
            Self::Require => Stance::Require,
            Self::DenyIf | Self::RequireApprovalIf => Stance::Match,
        }
    }

    /// The place of a rule, as decisions name it.
    pub(crate) fn place(self, index: u32) -> Section {
        match self {
            Self::Require => Section::Require(index),
            Self::DenyIf => Section::DenyIf(index),
            Self::RequireApprovalIf => Section::RequireApprovalIf(index),
        }
    }
}

impl Limit {
    /// The cost of a call, unless the call names it.
    pub(crate) fn constant_cost(&self) -> Option<Amount> {
        match self.cost.value {
            Cost::Constant(amount) => Some(amount),
            Cost::From(_) => None,
        }
    }
}

impl Rule {
    /// A rule that is not in a document.
    pub(crate) fn of(conditions: Vec<Condition>) -> Self {
        Self { at: 0, name: None, conditions }
    }

    /// Its comparisons, those in groups included. `pointer` is that of the rule.
    pub(crate) fn comparisons(&self, pointer: &str) -> Vec<Placed<'_>> {
        let mut all = Vec::new();
        place_list(&self.conditions, &format!("{pointer}/conditions"), (true, 0), &mut all);
        all
    }
}

fn place_list<'r>(conditions: &'r [Condition], pointer: &str, groups: (bool, usize), to: &mut Vec<Placed<'r>>) {
    for (index, condition) in conditions.iter().enumerate() {
        let mut pointer = pointer.to_owned();
        pointer::push_index(&mut pointer, index);
        place(condition, pointer, groups, to);
    }
}

fn place<'r>(condition: &'r Condition, pointer: String, (is_joined, nots): (bool, usize), to: &mut Vec<Placed<'r>>) {
    match condition {
        Condition::Comparison(comparison) => to.push(Placed { comparison, pointer, is_joined, nots }),
        Condition::All(conditions) => place_list(conditions, &format!("{pointer}/all"), (is_joined, nots), to),
        Condition::Any(conditions) => place_list(conditions, &format!("{pointer}/any"), (false, nots), to),
        Condition::Not(inner) => place(inner, format!("{pointer}/not"), (false, nots + 1), to),
    }
}

impl Condition {
    /// The key and the conditions of an `any` or `all`.
    pub(crate) fn group(&self) -> Option<(&'static str, &[Self])> {
        match self {
            Self::Any(conditions) => Some((ANY.name, conditions)),
            Self::All(conditions) => Some((ALL.name, conditions)),
            Self::Comparison(_) | Self::Not(_) => None,
        }
    }

    /// Adds its comparisons to a list.
    pub(crate) fn add_comparisons<'c>(&'c self, to: &mut Vec<&'c Comparison>) {
        match self {
            Self::Comparison(comparison) => to.push(comparison),
            Self::All(conditions) | Self::Any(conditions) => {
                conditions.iter().for_each(|condition| condition.add_comparisons(to));
            }
            Self::Not(inner) => inner.add_comparisons(to),
        }
    }

    /// The condition inside its `not`s, and their number.
    pub(crate) fn without_nots(&self) -> (&Self, usize) {
        let (mut inner, mut nots) = (self, 0);
        while let Self::Not(condition) = inner {
            (inner, nots) = (condition, nots + 1);
        }
        (inner, nots)
    }
}

impl Comparison {
    /// The values that it compares with: the elements of a list, or the one value. Empty if it
    /// compares with another part of the call.
    pub(crate) fn values(&self) -> &[Value] {
        match &self.value {
            Some(Value::Array(values)) => values,
            Some(value) => std::slice::from_ref(value),
            None => &[],
        }
    }

    /// The values to one of which it asks that a value is equal, if that is what it asks.
    pub(crate) fn values_asked_for(&self) -> Option<&[Value]> {
        let value = self.value.as_ref().filter(|_| !self.operator.negative)?;
        match self.operator.takes {
            Takes::Equal => Some(std::slice::from_ref(value)),
            Takes::In => Some(self.values()),
            _ => None,
        }
    }

    /// The texts among them.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.values().iter().filter_map(Value::as_str).collect()
    }

    /// Returns `true` if it reads one argument, not all of them.
    pub(crate) fn reads_argument(&self) -> bool {
        self.path.is_in_arguments() && !self.path.is_root()
    }

    /// Returns `true` if it reads a value that the agent writes, not all of them.
    pub(crate) fn reads_value_of_agent(&self) -> bool {
        self.path.is_of_agent() && !self.path.is_root()
    }

    pub(crate) fn is(&self, takes: Takes) -> bool {
        self.operator.takes == takes
    }

    pub(crate) fn aspect(&self) -> Aspect {
        self.operator.meaning.aspect
    }

    pub(crate) fn ignores_case(&self) -> bool {
        self.ignore_case == Some(true)
    }

    /// Returns `true` if it requires that its path is absent.
    pub(crate) fn asks_for_absence(&self) -> bool {
        self.is(Takes::Exists) && self.value == Some(Value::Bool(false))
    }
}

/// By what it says, not by where it is written.
impl PartialEq for Comparison {
    fn eq(&self, other: &Self) -> bool {
        let parts = |comparison: &Self| (comparison.ignore_case, comparison.absent);
        let from = |comparison: &Self| comparison.value_from.as_ref().map(|from| from.value.clone());
        self.operator.name == other.operator.name
            && self.path == other.path
            && self.value == other.value
            && parts(self) == parts(other)
            && from(self) == from(other)
    }
}

impl Deref for Placed<'_> {
    type Target = Comparison;

    fn deref(&self) -> &Comparison {
        self.comparison
    }
}

impl Placed<'_> {
    /// Returns `true` if it is below a `not`, at any depth.
    pub(crate) fn is_below_not(&self) -> bool {
        self.nots > 0
    }

    /// Returns `true` if it is below an odd number of `not`s.
    pub(crate) fn is_negated(&self) -> bool {
        self.nots % 2 == 1
    }

    /// Returns `true` if it requires that something does not hold, its `not`s included.
    pub(crate) fn is_negative(&self) -> bool {
        self.operator.negative != self.is_negated()
    }

    /// Returns `true` if it holds when its path is absent.
    pub(crate) fn holds_if_absent(&self, section: RuleSection) -> bool {
        if self.is(Takes::Exists) {
            return self.asks_for_absence() != self.is_negated();
        }
        match self.absent {
            Some(absent) => absent == Absent::Match,
            None => section != RuleSection::Require && self.is_negative(),
        }
    }
}
