//! The slots of a call: the paths that conditions read, each with one value of every kind that the
//! conditions distinguish.

use std::collections::BTreeMap;

use serde_json::Value;

use super::texts;
use crate::call::path::{Path, Root, Step, TimePart};
use crate::policy::ast::Comparison;
use crate::policy::operator::{Aspect, Takes};
use crate::time::Timestamp;
use crate::tools::explain::SAMPLE_TIME;

/// A value to try in a slot.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SlotValue {
    Absent,
    /// The path cannot be resolved: its container is a text, or the arguments have another member
    /// whose name differs in case alone.
    Unreachable,
    Value(Value),
    /// For a path with `[*]` or `.*`: a value for each element.
    Elements(Vec<Value>),
    /// For the time.
    Instant(Timestamp),
}

/// A path, and the values to try for it. All paths into the time share one slot.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) path: Path,
    pub(super) choices: Vec<SlotValue>,
}

/// The slots for some comparisons.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) slots: Vec<Slot>,
    /// `true` if these values represent every call, so that trying all combinations is a proof.
    pub(super) is_complete: bool,
}

/// The maximum index up to which an array is filled.
pub(super) const MAX_INDEX: usize = 1_000;
/// The maximum number of values that are tried in one slot.
const MAX_CHOICES: usize = 4_096;
/// The maximum length of texts and lists that are tried.
const MAX_LENGTH: u64 = 2_000;
/// The maximum magnitude of a number whose neighbouring values an `f64` holds exactly.
const MAX_NUMBER: f64 = 1e12;

impl Slots {
    /// Returns the slots for these comparisons.
    pub(super) fn of(comparisons: &[&Comparison]) -> Self {
        let mut by_path: BTreeMap<String, (&Path, Vec<&Comparison>)> = BTreeMap::new();
        let mut times: Vec<(&Path, &Comparison)> = Vec::new();
        let mut all = Self { slots: Vec::new(), is_complete: true };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for comparison in comparisons {
            let other = comparison.value_from.as_ref().map(|path| &path.value);
            let mut canonical = Vec::new();
            for path in [&comparison.path].into_iter().chain(other) {
                match path.root {
                    Root::Time(_) => times.push((path, comparison)),
                    Root::Tool => all.is_complete = false,
                    _ => {
                        canonical.push(path.to_string());
                        by_path.entry(path.to_string()).or_insert_with(|| (path, Vec::new())).1.push(comparison);
                    }
                }
            }
            if other.is_some() {
                all.is_complete = false;
                if let [one, two] = canonical.as_slice() {
                    pairs.push((one.clone(), two.clone()));
                }
            }
        }
        all.is_complete &= are_independent(by_path.values().map(|(path, _)| *path));
        for (path, comparisons) in by_path.values() {
            let slot = all.slot(path, comparisons);
            all.slots.push(slot);
        }
        for (one, two) in pairs {
            all.share(&one, &two);
        }
        if let Some((path, _)) = times.first() {
            let choices = all.instants(&times);
            all.slots.push(Slot { path: (*path).clone(), choices });
        }
        all
    }

    /// Returns the number of combinations of values.
    pub(super) fn product(&self) -> u64 {
        self.slots.iter().fold(1u64, |product, slot| product.saturating_mul(slot.choices.len() as u64))
    }

    fn slot(&mut self, path: &Path, comparisons: &[&Comparison]) -> Slot {
        let mut operands = Operands::default();
        for comparison in comparisons {
            operands.add(comparison);
        }
        self.is_complete &= operands.is_complete;
        let (values, is_complete) = operands.values();
        self.is_complete &= is_complete;
        let mut choices: Vec<SlotValue> = Vec::new();
        if let Root::Identity(_) = path.root {
            let is_name = |value: &Value| value.as_str().is_some_and(|name| !name.is_empty());
            choices.extend(values.into_iter().filter(is_name).map(SlotValue::Value));
            choices.push(SlotValue::Absent);
        } else if path.root == Root::Task {
            choices.extend([SlotValue::Value(Value::Bool(true)), SlotValue::Absent]);
        } else if path.has_each() {
            self.is_complete = false;
            choices.extend(values.iter().map(|value| SlotValue::Elements(vec![value.clone()])));
            choices.push(SlotValue::Elements(Vec::new()));
            let pairs = values.iter().zip(values.iter().skip(1)).take(8);
            choices.extend(pairs.map(|(one, two)| SlotValue::Elements(vec![one.clone(), two.clone()])));
            choices.extend([SlotValue::Elements(vec![Value::Null]), SlotValue::Absent, SlotValue::Unreachable]);
        } else {
            let is_far = |step: &Step| matches!(step, Step::Index(index) if *index > MAX_INDEX);
            if path.steps.is_empty()
                || matches!(path.steps.first(), Some(Step::Index(_)))
                || path.steps.iter().any(is_far)
            {
                // The path is all of the arguments, begins with an index, which no object has, or
                // has an index that is not filled.
                self.is_complete = false;
            }
            choices.extend(values.into_iter().map(SlotValue::Value));
            choices.push(SlotValue::Absent);
            if path.steps.len() > 1 || variant_of(path).is_some() {
                choices.push(SlotValue::Unreachable);
            }
        }
        if choices.len() > MAX_CHOICES {
            self.is_complete = false;
            choices.truncate(MAX_CHOICES);
        }
        Slot { path: path.clone(), choices }
    }

    /// Adds common values to two slots that are compared with each other.
    fn share(&mut self, one: &str, two: &str) {
        let mut shared = vec![SlotValue::Value(1.into()), SlotValue::Value(2.into()), SlotValue::Value("x".into())];
        for slot in self.slots.iter().filter(|slot| [one, two].contains(&slot.path.to_string().as_str())) {
            shared.extend(slot.choices.iter().take(16).cloned());
        }
        for slot in self.slots.iter_mut().filter(|slot| [one, two].contains(&slot.path.to_string().as_str())) {
            let is_identity = matches!(slot.path.root, Root::Identity(_));
            for shared in &shared {
                let SlotValue::Value(value) = shared else { continue };
                let is_valid = !is_identity || value.as_str().is_some_and(|name| !name.is_empty());
                if !is_valid || slot.choices.contains(shared) {
                    continue;
                }
                slot.choices.push(shared.clone());
                if !is_identity {
                    slot.choices.push(SlotValue::Value(Value::Array(vec![value.clone()])));
                }
            }
        }
    }

    /// Returns one instant of each kind that the comparisons distinguish.
    fn instants(&mut self, comparisons: &[(&Path, &Comparison)]) -> Vec<SlotValue> {
        let of_part = |part: TimePart| comparisons.iter().filter(move |(path, _)| path.root == Root::Time(part));
        let values_of = |part: TimePart, least: i64, most: i64, usual: i64| {
            let mut found = vec![usual];
            if of_part(part).next().is_some() {
                let numbers = of_part(part).flat_map(|(_, comparison)| integers_of(comparison));
                let near = numbers.flat_map(|n| [n, n + 1, n - 1]);
                found.extend(near.chain([least, most]).filter(|value| (least..=most).contains(value)));
            }
            found.sort_unstable();
            found.dedup();
            found
        };
        self.is_complete &= comparisons.iter().all(|(path, comparison)| {
            let is_exact = |value: &Value| value.as_i64().is_some() || value.is_string() || value.is_boolean();
            let are_exact = comparison.values().iter().all(is_exact);
            path.root != Root::Time(TimePart::Date) && is_enumerable(comparison) && are_exact
        });
        let hours = values_of(TimePart::Hour, 0, 23, 10);
        let minutes = values_of(TimePart::Minute, 0, 59, 30);
        let mut days: Vec<i64> = values_of(TimePart::Weekday, 1, 7, 4).into_iter().map(|weekday| weekday - 4).collect();
        let base = SAMPLE_TIME.unix_seconds().div_euclid(86_400);
        for date in of_part(TimePart::Date).flat_map(|(_, comparison)| comparison.texts()) {
            if let Ok(midnight) = format!("{date}T00:00:00Z").parse::<Timestamp>() {
                let day = midnight.unix_seconds().div_euclid(86_400) - base;
                days.extend([day, day + 1, day - 1]);
            }
        }
        let mut choices = Vec::new();
        for day in &days {
            for hour in &hours {
                for minute in &minutes {
                    let seconds = (base + day) * 86_400 + hour * 3_600 + minute * 60;
                    choices.push(SlotValue::Instant(Timestamp::from_unix_seconds(seconds)));
                }
            }
        }
        // The sample time comes first.
        if let Some(usual) = choices.iter().position(|value| *value == SlotValue::Instant(SAMPLE_TIME)) {
            choices.swap(0, usual);
        }
        choices
    }
}

/// Returns a name that a member of the arguments may have in place of the one that the path names,
/// if it names one.
pub(super) fn variant_of(path: &Path) -> Option<String> {
    match (path.root, &*path.steps) {
        (Root::Arguments | Root::Input, [Step::Name(name)]) => name.variant(),
        _ => None,
    }
}

/// Returns `true` if any values can be set for these paths at once: no path is inside another, none
/// needs an array where another needs an object, and no names differ in case alone.
fn are_independent<'p>(paths: impl Iterator<Item = &'p Path> + Clone) -> bool {
    let mut paths: Vec<&Path> = paths.collect();
    paths.retain(|path| matches!(path.root, Root::Arguments | Root::Context | Root::Input));
    if paths.len() > 64 {
        return false;
    }
    paths.iter().enumerate().all(|(index, one)| {
        paths.iter().skip(index + 1).filter(|other| other.root == one.root).all(|other| {
            let first_difference = one.steps.iter().zip(&other.steps).find(|(a, b)| a != b);
            match first_difference {
                Some((Step::Name(name), Step::Name(other))) => !name.is_variant(other),
                difference => matches!(difference, Some((Step::Index(_), Step::Index(_)))),
            }
        })
    })
}

/// Returns `true` if a few values represent all: the comparison distinguishes values only by type,
/// equality with scalars, order and length.
pub(super) fn is_enumerable(comparison: &Comparison) -> bool {
    let is_scalar = |value: &Value| !(value.is_array() || value.is_object());
    let Some(value) = &comparison.value else { return false };
    match comparison.aspect() {
        Aspect::Presence | Aspect::Type | Aspect::Order | Aspect::Length | Aspect::Items => true,
        Aspect::Equality if comparison.is(Takes::In) => comparison.values().iter().all(is_scalar),
        Aspect::Equality => is_scalar(value),
        Aspect::Names | Aspect::Content => false,
    }
}

/// Returns the small integers among the operands of a comparison.
fn integers_of(comparison: &Comparison) -> Vec<i64> {
    let integer = |value: &Value| value.as_i64().filter(|n| (-100..100).contains(n));
    comparison.values().iter().filter_map(integer).collect()
}

/// The operands of the comparisons of one path.
struct Operands {
    numbers: Vec<f64>,
    raw: Vec<Value>,
    texts: Vec<String>,
    lengths: Vec<u64>,
    is_complete: bool,
}

impl Default for Operands {
    fn default() -> Self {
        Self { numbers: Vec::new(), raw: Vec::new(), texts: Vec::new(), lengths: vec![0], is_complete: true }
    }
}

impl Operands {
    fn add(&mut self, comparison: &Comparison) {
        self.is_complete &= is_enumerable(comparison);
        let value = comparison.value.as_ref().unwrap_or(&Value::Null);
        match comparison.aspect() {
            Aspect::Presence | Aspect::Type => {}
            Aspect::Length | Aspect::Items => match value.as_u64() {
                Some(length) if length <= MAX_LENGTH => self.lengths.push(length),
                _ => self.is_complete = false,
            },
            Aspect::Equality if comparison.is(Takes::In) => {
                comparison.values().iter().for_each(|value| self.add_value(value));
            }
            Aspect::Equality | Aspect::Order => self.add_value(value),
            Aspect::Names => {
                let named =
                    |names: &[&str]| -> Value { names.iter().map(|name| ((*name).to_owned(), number(1.0))).collect() };
                let listed = comparison.texts();
                self.raw.extend([named(&[]), named(&listed), named(&[&listed[..], &["other"]].concat())]);
                self.raw.extend(listed.iter().take(8).map(|name| named(&[name])));
            }
            Aspect::Content => {
                self.texts.extend(texts::candidates(comparison));
                if comparison.is(Takes::Contains) {
                    self.raw.push(Value::Array(vec![value.clone()]));
                }
            }
        }
    }

    fn add_value(&mut self, value: &Value) {
        match value {
            Value::Number(number) => match number.as_f64() {
                Some(float) if float.abs() <= MAX_NUMBER => self.numbers.push(float),
                _ => {
                    self.is_complete = false;
                    self.raw.push(value.clone());
                    let near = number.as_i64().map(|whole| [whole.saturating_add(1), whole.saturating_sub(1)]);
                    self.raw.extend(near.into_iter().flatten().map(Value::from));
                    let near = number.as_u64().map(|whole| [whole.saturating_add(1), whole.saturating_sub(1)]);
                    self.raw.extend(near.into_iter().flatten().map(Value::from));
                }
            },
            Value::String(text) => self.texts.push(text.clone()),
            Value::Array(_) | Value::Object(_) => {
                self.raw.push(value.clone());
                if let Value::Array(elements) = value {
                    self.raw.extend(elements.iter().take(4).cloned());
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Returns the values to try, the operands first, and `true` if they represent all values.
    fn values(mut self) -> (Vec<Value>, bool) {
        let mut is_complete = true;
        let mut all: Vec<Value> = Vec::new();
        self.numbers.sort_unstable_by(f64::total_cmp);
        self.numbers.dedup_by(|a, b| *a == *b);
        all.extend(self.numbers.iter().flat_map(|c| [*c, c + 1.0, c - 1.0]).map(number));
        all.extend(std::mem::take(&mut self.raw));
        if self.numbers.is_empty() {
            all.extend([number(1.0), number(1.5)]);
        }
        let bounds = self.numbers.first().map(|c| c - 4.0).into_iter().chain(self.numbers.iter().copied());
        let bounds: Vec<f64> = bounds.chain(self.numbers.last().map(|c| c + 4.0)).collect();
        for (low, high) in bounds.iter().zip(bounds.iter().skip(1)) {
            all.extend(between(*low, *high).map(number));
        }
        // No `f64` holds this number, so it cannot be compared. It exists only if some crate
        // enables the feature `arbitrary_precision` of `serde_json`.
        all.extend(serde_json::from_str::<Value>("1e400").ok());
        self.lengths.sort_unstable();
        self.lengths.dedup();
        let mut lengths: Vec<u64> = self.lengths.iter().flat_map(|n| [n.saturating_sub(1), *n, n + 1]).collect();
        lengths.sort_unstable();
        lengths.dedup();
        self.texts.sort_unstable();
        self.texts.dedup();
        all.extend(self.texts.iter().map(|text| Value::from(&**text)));
        for length in &lengths {
            let length = usize::try_from(*length).unwrap_or_default();
            let is_new = |text: &String| self.texts.binary_search(text).is_err();
            let fresh = "xzqkvwyj¤".chars().chain('\u{e000}'..'\u{e800}').map(|c| c.to_string().repeat(length));
            match fresh.take(if length == 0 { 1 } else { usize::MAX }).find(is_new) {
                Some(text) => all.push(text.into()),
                None => is_complete &= length == 0,
            }
        }
        all.extend([Value::Bool(true), Value::Bool(false)]);
        for length in lengths {
            let length = usize::try_from(length).unwrap_or_default();
            all.push(Value::Array(vec![Value::Null; length]));
            all.push((0..length).map(|index| (format!("k{index}"), Value::Null)).collect::<Value>());
        }
        let mut seen = std::collections::HashSet::new();
        all.retain(|value| seen.insert(value.to_string()));
        (all, is_complete)
    }
}

/// Returns the number as JSON: an integer if it is whole.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "the value is whole and below 1e15")]
    if value.fract() == 0.0 && value.abs() < 1e15 { Value::from(value as i64) } else { Value::from(value) }
}

/// Returns a whole number and a fraction strictly between two numbers, if there are such.
fn between(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let gap = high - low;
    let whole = low.floor() + 1.0;
    let inside = move |value: &f64| *value > low && *value < high;
    let fractions = [low + gap / 2.0, low + gap / 4.0, low + gap / 8.0, whole + 0.5];
    let fraction = fractions.into_iter().filter(inside).find(|value| value.fract() != 0.0);
    Some(whole).filter(inside).into_iter().chain(fraction)
}
