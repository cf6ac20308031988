//! The places of a call that conditions look at, and values for each: one of every kind that the conditions tell apart.

use std::collections::BTreeMap;

use serde_json::Value;

use super::texts;
use crate::call::path::{Path, Root, Step, TimePart};
use crate::policy::ast::Comparison;
use crate::policy::operator::{Aspect, Takes};
use crate::time::Timestamp;
use crate::tools::explain::SAMPLE_TIME;

/// What may stand at a place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Given {
    Absent,
    /// The place cannot be reached: where it would be inside, there is a text.
    Wrong,
    Value(Value),
    /// Of a path with `[*]`: a value for each element.
    Each(Vec<Value>),
    /// Of the time: an instant.
    At(Timestamp),
}

/// A place, and the values to try there. All paths into the time are one place.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) path: Path,
    pub(super) choices: Vec<Given>,
}

/// The places of some conditions.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) slots: Vec<Slot>,
    /// Whether any call is decided as one that has some of these values: then trying all of them is a proof.
    pub(super) is_complete: bool,
}

/// An array is filled at most this far to reach an index.
pub(super) const MAX_INDEX: usize = 1_000;
/// More values than that are not tried at one place.
const MANY: usize = 4_096;
/// Longer texts and lists than that are not made up.
const LONG: u64 = 2_000;
/// Numbers up to here have neighbours that a double holds.
const FINE: f64 = 1e12;

impl Slots {
    /// The places of these comparisons, and values for them.
    pub(super) fn of(tests: &[&Comparison]) -> Self {
        let mut by_path: BTreeMap<String, (&Path, Vec<&Comparison>)> = BTreeMap::new();
        let mut times: Vec<(&Path, &Comparison)> = Vec::new();
        let mut all = Self { slots: Vec::new(), is_complete: true };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for test in tests {
            let other = test.value_from.as_ref().map(|path| &path.value);
            let mut canonical = Vec::new();
            for path in [&test.path].into_iter().chain(other) {
                match path.root {
                    Root::Time(_) => times.push((path, test)),
                    Root::Tool => all.is_complete = false,
                    _ => {
                        canonical.push(path.to_string());
                        by_path.entry(path.to_string()).or_insert_with(|| (path, Vec::new())).1.push(test);
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
        all.is_complete &= are_apart(by_path.values().map(|(path, _)| *path));
        for (path, tests) in by_path.values() {
            let slot = all.slot(path, tests);
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

    /// How many calls there are with one of the values at each place.
    pub(super) fn product(&self) -> u64 {
        self.slots.iter().fold(1u64, |product, slot| product.saturating_mul(slot.choices.len() as u64))
    }

    fn slot(&mut self, path: &Path, tests: &[&Comparison]) -> Slot {
        let mut values = Values::default();
        for test in tests {
            values.add(test);
        }
        self.is_complete &= values.is_complete;
        let (scalars, is_complete) = values.finish();
        self.is_complete &= is_complete;
        let mut choices: Vec<Given> = Vec::new();
        if let Root::Identity(_) = path.root {
            choices.extend(scalars.into_iter().filter(|v| v.as_str().is_some_and(|t| !t.is_empty())).map(Given::Value));
            choices.push(Given::Absent);
        } else if path.has_each() {
            self.is_complete = false;
            choices.extend(scalars.iter().map(|value| Given::Each(vec![value.clone()])));
            choices.push(Given::Each(Vec::new()));
            let pairs = scalars.iter().zip(scalars.iter().skip(1)).take(8);
            choices.extend(pairs.map(|(one, two)| Given::Each(vec![one.clone(), two.clone()])));
            choices.extend([Given::Each(vec![Value::Null]), Given::Absent, Given::Wrong]);
        } else {
            let is_far = |step: &Step| matches!(step, Step::Index(index) if *index > MAX_INDEX);
            if path.steps.is_empty()
                || matches!(path.steps.first(), Some(Step::Index(_)))
                || path.steps.iter().any(is_far)
            {
                // All of the arguments, a step that they do not have, or one that no call made up here has.
                self.is_complete = false;
            }
            choices.extend(scalars.into_iter().map(Given::Value));
            choices.push(Given::Absent);
            if path.steps.len() > 1 {
                choices.push(Given::Wrong);
            }
        }
        if choices.len() > MANY {
            self.is_complete = false;
            choices.truncate(MANY);
        }
        Slot { path: path.clone(), choices }
    }

    /// Gives two places that are compared with each other values in common.
    fn share(&mut self, one: &str, two: &str) {
        let mut shared = vec![Given::Value(1.into()), Given::Value(2.into()), Given::Value("x".into())];
        for slot in self.slots.iter().filter(|slot| [one, two].contains(&slot.path.to_string().as_str())) {
            shared.extend(slot.choices.iter().take(16).cloned());
        }
        for slot in self.slots.iter_mut().filter(|slot| [one, two].contains(&slot.path.to_string().as_str())) {
            let is_identity = matches!(slot.path.root, Root::Identity(_));
            for given in &shared {
                let fits = match given {
                    Given::Value(Value::String(text)) => !is_identity || !text.is_empty(),
                    Given::Value(_) => !is_identity,
                    _ => false,
                };
                if !fits || slot.choices.contains(given) {
                    continue;
                }
                slot.choices.push(given.clone());
                if let (Given::Value(value), false) = (given, is_identity) {
                    slot.choices.push(Given::Value(Value::Array(vec![value.clone()])));
                }
            }
        }
    }

    /// Instants that differ in what the conditions ask of the time.
    fn instants(&mut self, tests: &[(&Path, &Comparison)]) -> Vec<Given> {
        let part = |wanted: TimePart| tests.iter().filter(move |(path, _)| path.root == Root::Time(wanted));
        let around = |wanted: TimePart, least: i64, most: i64, usual: i64| {
            let mut found = vec![usual];
            if part(wanted).next().is_some() {
                let near = part(wanted).flat_map(|(_, test)| numbers_of(test)).flat_map(|c| [c, c + 1, c - 1]);
                found.extend(near.chain([least, most]).filter(|value| (least..=most).contains(value)));
            }
            found.sort_unstable();
            found.dedup();
            found
        };
        self.is_complete &= tests.iter().all(|(path, test)| {
            let whole = |value: &Value| value.as_i64().is_some() || value.is_string() || value.is_boolean();
            let fine = test.values().iter().all(whole);
            path.root != Root::Time(TimePart::Date) && is_plain(test) && fine
        });
        let hours = around(TimePart::Hour, 0, 23, 10);
        let minutes = around(TimePart::Minute, 0, 59, 30);
        let mut days: Vec<i64> = around(TimePart::Weekday, 1, 7, 4).into_iter().map(|weekday| weekday - 4).collect();
        let base = SAMPLE_TIME.unix_seconds().div_euclid(86_400);
        for date in part(TimePart::Date).flat_map(|(_, test)| test.texts()) {
            if let Ok(then) = format!("{date}T00:00:00Z").parse::<Timestamp>() {
                let day = then.unix_seconds().div_euclid(86_400) - base;
                days.extend([day, day + 1, day - 1]);
            }
        }
        let mut choices = Vec::new();
        for day in &days {
            for hour in &hours {
                for minute in &minutes {
                    let seconds = (base + day) * 86_400 + hour * 3_600 + minute * 60;
                    choices.push(Given::At(Timestamp::from_unix_seconds(seconds)));
                }
            }
        }
        // The usual instant first.
        if let Some(usual) = choices.iter().position(|given| *given == Given::At(SAMPLE_TIME)) {
            choices.swap(0, usual);
        }
        choices
    }
}

/// Whether no place lies in another, and none makes a list of what another takes for an object.
fn are_apart<'p>(paths: impl Iterator<Item = &'p Path> + Clone) -> bool {
    let mut paths: Vec<&Path> = paths.collect();
    paths.retain(|path| matches!(path.root, Root::Arguments | Root::Context));
    if paths.len() > 64 {
        return false;
    }
    paths.iter().enumerate().all(|(index, one)| {
        paths.iter().skip(index + 1).filter(|other| other.root == one.root).all(|other| {
            let parts = one.steps.iter().zip(&other.steps).find(|(a, b)| a != b);
            matches!(parts, Some((Step::Name(_), Step::Name(_)) | (Step::Index(_), Step::Index(_))))
        })
    })
}

/// Whether the operator tells values apart by nothing but type, equality to scalars, order and length.
pub(super) fn is_plain(test: &Comparison) -> bool {
    let is_scalar = |value: &Value| !(value.is_array() || value.is_object());
    let Some(value) = &test.value else { return false };
    match test.aspect() {
        Aspect::Presence | Aspect::Type | Aspect::Order | Aspect::Length => true,
        Aspect::Equality if test.is(Takes::In) => test.values().iter().all(is_scalar),
        Aspect::Equality => is_scalar(value),
        Aspect::Content => false,
    }
}

/// The whole numbers that a comparison names.
fn numbers_of(test: &Comparison) -> Vec<i64> {
    let whole = |value: &Value| value.as_i64().filter(|v| (-100..100).contains(v));
    test.values().iter().filter_map(whole).collect()
}

/// What the comparisons of one place name.
struct Values {
    numbers: Vec<f64>,
    raw: Vec<Value>,
    texts: Vec<String>,
    lengths: Vec<u64>,
    is_complete: bool,
}

impl Default for Values {
    fn default() -> Self {
        Self { numbers: Vec::new(), raw: Vec::new(), texts: Vec::new(), lengths: vec![0], is_complete: true }
    }
}

impl Values {
    fn add(&mut self, test: &Comparison) {
        self.is_complete &= is_plain(test);
        let value = test.value.as_ref().unwrap_or(&Value::Null);
        match test.aspect() {
            Aspect::Presence | Aspect::Type => {}
            Aspect::Length => match value.as_u64() {
                Some(length) if length <= LONG => self.lengths.push(length),
                _ => self.is_complete = false,
            },
            Aspect::Equality if test.is(Takes::In) => test.values().iter().for_each(|value| self.constant(value)),
            Aspect::Equality | Aspect::Order => self.constant(value),
            Aspect::Content => {
                self.texts.extend(texts::near(test));
                if test.is(Takes::Contains) {
                    self.raw.push(Value::Array(vec![value.clone()]));
                }
            }
        }
    }

    fn constant(&mut self, value: &Value) {
        match value {
            Value::Number(number) => match number.as_f64() {
                Some(float) if float.abs() <= FINE => self.numbers.push(float),
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

    /// The values, those at which something changes first; and whether every other value is like one of them.
    fn finish(mut self) -> (Vec<Value>, bool) {
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
        // What a double does not hold, where another crate keeps numbers as texts: it compares with nothing.
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

/// A number, as an integer where it is whole.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "whole and small")]
    if value.fract() == 0.0 && value.abs() < 1e15 { Value::from(value as i64) } else { Value::from(value) }
}

/// A whole number and another one strictly between two, where there are such.
fn between(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let gap = high - low;
    let whole = low.floor() + 1.0;
    let inside = move |value: &f64| *value > low && *value < high;
    let broken = [low + gap / 2.0, low + gap / 4.0, low + gap / 8.0, whole + 0.5];
    let broken = broken.into_iter().filter(inside).find(|value| value.fract() != 0.0);
    Some(whole).filter(inside).into_iter().chain(broken)
}
