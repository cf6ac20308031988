//! Comparisons of values: equality, lists, and the bound on both.

use hashbrown::HashTable;
use serde_json::{Map, Value};

use super::truth::Truth;
use crate::call::path::Datum;
use crate::call::subject::hash_code;

/// One condition compares at most this many pairs of values. The agent may send both sides: at a
/// few nanoseconds a pair, the bound is some milliseconds of a processor.
const MAX_PAIRS: usize = 1_000_000;

/// Counts the pairs of values that a condition compares, whether or not an early match makes the
/// rest unnecessary. So the order of the values does not change what can be decided.
pub(crate) struct Pairs {
    left: Option<usize>,
}

impl Pairs {
    #[inline]
    pub(crate) fn new() -> Self {
        Self { left: Some(MAX_PAIRS) }
    }

    /// Counts this many pairs. Returns `false` if there are too many.
    #[inline]
    pub(crate) fn take(&mut self, pairs: usize) -> bool {
        self.left = self.left.and_then(|left| left.checked_sub(pairs));
        self.left.is_some()
    }

    #[inline]
    pub(crate) fn are_too_many(&self) -> bool {
        self.left.is_none()
    }
}

/// The list of `in`.
#[derive(Debug)]
pub(crate) struct Values {
    values: Box<[Value]>,
    set: Option<Set>,
}

impl Values {
    pub(crate) fn new(values: Box<[Value]>) -> Self {
        Self { set: Set::of(&values), values }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    #[inline]
    pub(crate) fn has(&self, datum: Datum<'_>, pairs: &mut Pairs) -> Truth {
        one_of(datum, &self.values, self.set.as_ref(), pairs)
    }
}

/// Returns whether a value equals one of a list. `set` is made of the same list. The pair with each
/// value of the list is counted by the caller, and what is inside them here.
#[inline]
pub(crate) fn one_of(datum: Datum<'_>, values: &[Value], set: Option<&Set>, pairs: &mut Pairs) -> Truth {
    match (datum, set) {
        // All are compared, because an early match must not hide how many pairs there are.
        (Datum::Array(_) | Datum::Object(_), _) => {
            let each = |sum: Truth, value: &Value| sum.with(equal(datum, value.into(), pairs), Truth::True);
            values.iter().fold(Truth::False, each)
        }
        (_, None) => Truth::any(values.iter().map(|value| equal(datum, value.into(), pairs))),
        (_, Some(set)) => set.has(datum, values),
    }
}

/// The names that the members of an object may have.
#[derive(Debug)]
pub(crate) struct Keys(Box<[Box<str>]>);

impl Keys {
    pub(crate) fn new(mut names: Vec<Box<str>>) -> Self {
        names.sort_unstable();
        names.dedup();
        Self(names.into())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(feature = "analysis")]
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// Returns whether every member has one of these names, byte by byte. Each member counts as a
    /// pair.
    pub(crate) fn name_all(&self, members: &Map<String, Value>, pairs: &mut Pairs) -> Truth {
        if !pairs.take(members.len()) {
            return Truth::Undecidable;
        }
        let is_named = |name: &String| self.0.binary_search_by(|known| (**known).cmp(name)).is_ok();
        Truth::of(members.keys().all(is_named))
    }
}

/// A list of values by the hashes of its scalars, to be looked up at once.
#[derive(Debug)]
pub(crate) struct Set {
    /// Indices of the list.
    scalars: HashTable<usize>,
    kinds: u8,
}

/// Up to this many values are compared one by one, which is faster than hashing one.
const MAX_SCANNED_VALUES: usize = 16;

impl Set {
    /// Returns the set of a list; `None` for a short one.
    pub(crate) fn of(values: &[Value]) -> Option<Self> {
        if values.len() <= MAX_SCANNED_VALUES {
            return None;
        }
        let hash = |index: &usize| values.get(*index).map_or(0, |value| scalar_hash(value.into()));
        let (mut scalars, mut kinds) = (HashTable::with_capacity(values.len()), 0);
        for (index, value) in values.iter().enumerate() {
            let datum = Datum::from(value);
            kinds |= kind(datum);
            scalars.insert_unique(scalar_hash(datum), index, hash);
        }
        Some(Self { scalars, kinds })
    }

    /// Returns whether a scalar equals one of the values.
    fn has(&self, datum: Datum<'_>, values: &[Value]) -> Truth {
        let is_equal = |index: &usize| {
            let value = values.get(*index);
            value.is_some_and(|value| equal(datum, value.into(), &mut Pairs::new()) == Truth::True)
        };
        if self.scalars.find(scalar_hash(datum), is_equal).is_some() {
            return Truth::True;
        }
        // A value of another type is undecidable, as in a comparison one by one.
        let others = self.kinds & !kind(datum);
        if others == 0 && !matches!(datum, Datum::UnclearNumber) { Truth::False } else { Truth::Undecidable }
    }
}

/// The type of a value, as one bit. Two values of different types are not comparable.
fn kind(datum: Datum<'_>) -> u8 {
    1 << match datum {
        Datum::Null => 0,
        Datum::False | Datum::True => 1,
        Datum::Number(_) => 2,
        Datum::UnclearNumber => 3,
        Datum::Text(_) => 4,
        Datum::Array(_) => 5,
        Datum::Object(_) => 6,
    }
}

/// A hash that is the same for equal scalars. Arrays and objects are not looked up by it.
fn scalar_hash(datum: Datum<'_>) -> u64 {
    match datum {
        Datum::Text(text) => hash_code(text.as_bytes()),
        Datum::Number(number) => match number.to_integer() {
            Ok(integer) => hash_code(&integer.to_le_bytes()),
            Err(float) => hash_code(&float.to_bits().to_le_bytes()),
        },
        other => kind(other).into(),
    }
}

/// Returns whether an array has a text as an element: undecidable if it is only a part of a text
/// inside, or if an element is a number or boolean, because a server may read the array as one
/// text.
pub(crate) fn lists_text(
    elements: &[Value],
    is_whole: &dyn Fn(&str) -> bool,
    is_within: &dyn Fn(&str) -> bool,
    pairs: &mut Pairs,
) -> Truth {
    if !pairs.take(elements.len()) {
        return Truth::Undecidable;
    }
    let truth = |element: &Value| match element {
        Value::String(text) if is_whole(text) => Truth::True,
        Value::Number(_) | Value::Bool(_) => Truth::Undecidable,
        other if mentions(other, is_within, DEEP, pairs) => Truth::Undecidable,
        _ => Truth::False,
    };
    // All are looked at, as in `one_of`.
    elements.iter().map(truth).fold(Truth::False, |sum, truth| sum.with(truth, Truth::True))
}

/// Returns `true` if a text in the value, or the name of a member, fits; or if the value is too
/// large or too deep to look at.
fn mentions(value: &Value, fits: &dyn Fn(&str) -> bool, depth: usize, pairs: &mut Pairs) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return true };
    let mut found = false;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => found = fits(text),
        Value::Array(elements) if pairs.take(elements.len()) => {
            for element in elements {
                found |= mentions(element, fits, depth, pairs);
            }
        }
        Value::Object(members) if pairs.take(members.len()) => {
            for (name, value) in members {
                found |= fits(name);
                found |= mentions(value, fits, depth, pairs);
            }
        }
        Value::Array(_) | Value::Object(_) => found = true,
    }
    found
}

/// Values are compared up to this depth. No policy and no text that is read is nested deeper.
const DEEP: usize = 128;

/// Compares two values. Undecidable if two values in the same place are of different types.
#[inline]
pub(crate) fn equal(a: Datum<'_>, b: Datum<'_>, pairs: &mut Pairs) -> Truth {
    #[cfg(test)]
    tests::COMPARED.set(tests::COMPARED.get() + 1);
    match (a, b) {
        // The most common case needs no depth.
        (Datum::Text(a), Datum::Text(b)) => Truth::of(a == b),
        _ => equal_within(a, b, DEEP, pairs),
    }
}

fn equal_within(a: Datum<'_>, b: Datum<'_>, depth: usize, pairs: &mut Pairs) -> Truth {
    let Some(depth) = depth.checked_sub(1) else { return Truth::Undecidable };
    // Arrays and objects: undecidable if anything that both have is; else equal or not.
    let both = |equal: bool, common: Truth| match (common, equal) {
        (Truth::Undecidable, _) => Truth::Undecidable,
        (Truth::True, true) => Truth::True,
        _ => Truth::False,
    };
    // Unlike in `Truth::all`, an undecidable member outweighs a different one.
    let common = |truths: &mut dyn Iterator<Item = Truth>| {
        truths.fold(Truth::True, |sum, truth| match (sum, truth) {
            (Truth::Undecidable, _) | (_, Truth::Undecidable) => Truth::Undecidable,
            (Truth::True, truth) => truth,
            (Truth::False, _) => Truth::False,
        })
    };
    match (a, b) {
        (Datum::Null, Datum::Null) => Truth::True,
        (Datum::True, Datum::True) | (Datum::False, Datum::False) => Truth::True,
        (Datum::True, Datum::False) | (Datum::False, Datum::True) => Truth::False,
        (Datum::Number(a), Datum::Number(b)) => Truth::of(a == b),
        (Datum::Text(a), Datum::Text(b)) => Truth::of(a == b),
        (Datum::Array(a), Datum::Array(b)) => {
            if !pairs.take(a.len().min(b.len())) {
                return Truth::Undecidable;
            }
            let mut truths = a.iter().zip(b).map(|(a, b)| equal_within(a.into(), b.into(), depth, pairs));
            both(a.len() == b.len(), common(&mut truths))
        }
        (Datum::Object(a), Datum::Object(b)) => {
            if !pairs.take(a.len()) {
                return Truth::Undecidable;
            }
            let mut truths =
                a.iter().filter_map(|(key, a)| Some(equal_within(a.into(), b.get(key)?.into(), depth, pairs)));
            both(a.len() == b.len() && a.keys().all(|key| b.contains_key(key)), common(&mut truths))
        }
        _ => Truth::Undecidable,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::call::ToolCall;
    use crate::policy::Policy;
    use crate::time::Timestamp;

    thread_local! {
        /// The number of comparisons on this thread.
        pub(super) static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    fn is(a: &Value, b: &Value) -> Truth {
        equal(a.into(), b.into(), &mut Pairs::new())
    }

    #[test]
    fn values_compare_by_type_first() {
        use Truth::{False, True, Undecidable};
        for (a, b, want) in [
            (json!(1), json!(1.0), True),
            (json!(9_007_199_254_740_993u64), json!(9_007_199_254_740_992.0), False),
            (json!("a"), json!("a"), True),
            (json!("1"), json!(1), Undecidable),
            (json!(true), json!(1), Undecidable),
            (json!(null), json!(null), True),
            (json!(null), json!(0), Undecidable),
            (json!([1, 2]), json!([1, 2]), True),
            (json!([1, 2]), json!([1, 3]), False),
            (json!([1]), json!([1, 2]), False),
            (json!([9, "2"]), json!([1, 2]), Undecidable),
            (json!(["1"]), json!([1, 2]), Undecidable),
            (json!([]), json!({}), Undecidable),
            (json!({"a": 1, "b": 2}), json!({"b": 2, "a": 1}), True),
            (json!({"a": 1}), json!({"a": 1, "b": 2}), False),
            (json!({"a": 1, "c": 2}), json!({"a": 1, "b": 2}), False),
            (json!({"a": "1", "c": 2}), json!({"a": 1, "b": 2}), Undecidable),
            (json!({"a": {"b": null}}), json!({"a": {"b": 1}}), Undecidable),
        ] {
            assert_eq!(is(&a, &b), want, "{a} {b}");
            assert_eq!(is(&b, &a), want, "{b} {a}");
        }
    }

    #[test]
    fn values_past_the_depth_are_undecidable() {
        let deep = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(is(&deep(100), &deep(100)), Truth::True);
        assert_eq!(is(&deep(200), &deep(200)), Truth::Undecidable);
    }

    /// Returns the truth, and the number of comparisons.
    fn is_one_of(value: &Value, values: &[Value], set: Option<&Set>) -> (Truth, usize) {
        let before = COMPARED.get();
        let truth = one_of(value.into(), values, set, &mut Pairs::new());
        (truth, COMPARED.get() - before)
    }

    #[test]
    fn a_long_list_is_compared_with_once() {
        let values: Vec<_> = (0..1_000).map(|n| json!(n)).collect();
        let set = Set::of(&values).unwrap();
        for (value, want) in [(json!(7), Truth::True), (json!(-1), Truth::False), (json!("7"), Truth::Undecidable)] {
            let (truth, compared) = is_one_of(&value, &values, Some(&set));
            assert_eq!(truth, want, "{value}");
            assert!(compared <= 8, "{compared} comparisons for {value}");
            assert_eq!(is_one_of(&value, &values, None).0, want, "{value}");
        }
        assert!(Set::of(&values[..16]).is_none(), "a few are faster to scan");
    }

    #[test]
    fn members_count_as_pairs() {
        let lists = |count: usize| vec![json!([0, 2]); count];
        let pairs_are_too_many = |count: usize| {
            let mut pairs = Pairs::new();
            for _ in 0..count {
                one_of((&json!([0, 1])).into(), &lists(1_000), None, &mut pairs);
            }
            pairs.are_too_many()
        };
        assert!(!pairs_are_too_many(500) && pairs_are_too_many(501));
        let mut pairs = Pairs::new();
        assert_eq!(
            equal((&json!({ "a": [1, 2], "b": 0 })).into(), (&json!({ "a": [1] })).into(), &mut pairs),
            Truth::False
        );
        assert_eq!(pairs.left, Some(MAX_PAIRS - 3));
        assert!(!pairs.take(MAX_PAIRS) && !pairs.take(0) && pairs.are_too_many());
    }

    /// Returns whether a rule of `deny_if` allows the arguments, and the number of comparisons.
    fn is_allowed(condition: Value, arguments: &Value) -> (bool, usize) {
        let all_tools = json!({ "deny_if": [{ "conditions": [condition] }] });
        let policy = json!({ "version": "1", "default": "allow", "all_tools": all_tools });
        let policy = Policy::try_from(&policy).unwrap();
        let before = COMPARED.get();
        let allowed = policy.evaluate(&ToolCall::new("t", arguments), Timestamp::UNIX_EPOCH).is_allowed();
        (allowed, COMPARED.get() - before)
    }

    #[test]
    fn a_condition_compares_a_bounded_number_of_pairs() {
        let listed: Vec<_> = (10..1_010).map(|n| json!(n)).collect();
        let objects = vec![json!({ "a": 1, "b": 2, "c": 3, "d": 4 }); 1_000];
        for (element, list) in [(json!(1), &listed), (json!({ "a": 1, "b": 2, "c": 3, "d": 5 }), &objects)] {
            let is_object = element.is_object();
            let fixed = json!({ "path": "args.l[*]", "op": "in", "value": list });
            let from = json!({ "path": "args.l[*]", "op": "in", "value_from": "args.other" });
            for condition in [fixed, from] {
                let run = |count: usize| {
                    let arguments = json!({ "l": vec![element.clone(); count], "other": list });
                    is_allowed(condition.clone(), &arguments)
                };
                let (allowed, compared) = run(200);
                assert!(allowed, "{element}");
                // An object is compared with every object of the list, a scalar is looked up.
                assert!(compared <= if is_object { 200_000 } else { 400 }, "{compared}");
                let (allowed, compared) = run(500_000);
                assert!(!allowed, "too many to decide: {element}");
                assert!(compared <= if is_object { 1_000_000 } else { 2_000 }, "{compared}");
            }
        }
    }

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|b| json!(b)),
            (-3i64..3).prop_map(|n| json!(n)),
            (-3i64..3).prop_map(|n| json!(n as f64 / 2.0)),
            proptest::sample::select(vec![json!(u64::MAX), json!(1e300), json!(-0.0), json!(9_007_199_254_740_993u64)]),
            "[ab]{0,2}".prop_map(|text| json!(text)),
            Just(json!([1])),
            Just(json!({})),
        ]
    }

    proptest! {
        #[test]
        fn a_set_decides_as_its_list(value in scalar(), values in proptest::collection::vec(scalar(), 17..24)) {
            let set = Set::of(&values).unwrap();
            prop_assert_eq!(is_one_of(&value, &values, Some(&set)).0, is_one_of(&value, &values, None).0);
        }
    }
}
