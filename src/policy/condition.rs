//! Conditions, and how they compare values.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::compare::{Keys, Pairs, Set, Values, equal, lists_text, one_of};
use super::expression::Expression;
use super::text::{Affix, Directories, Hosts, Needle};
use super::truth::Truth;
use crate::call::path::{Datum, Facts, Found, Path, Unclear, Visit};
use crate::json::number::Exact;

/// The section that a condition belongs to. It decides whether an absent value matches, and whether
/// `[*]` asks for all elements or for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stance {
    /// In `require`: an absent value does not hold, and all elements must hold.
    Require,
    /// In `deny_if` and `require_approval_if`: any element is enough.
    Match,
}

/// A condition. It has no `not`, which is pushed down to the tests and inverts them.
#[derive(Debug)]
pub(crate) enum Condition {
    Test(Box<Test>),
    All(Box<[Condition]>),
    Any(Box<[Condition]>),
}

impl Condition {
    #[inline]
    pub(crate) fn truth(&self, facts: &Facts<'_>, stance: Stance) -> Truth {
        match self {
            Self::Test(test) => test.truth(facts, stance),
            Self::All(conditions) => Truth::all(conditions.iter().map(|condition| condition.truth(facts, stance))),
            Self::Any(conditions) => Truth::any(conditions.iter().map(|condition| condition.truth(facts, stance))),
        }
    }

    /// Returns the reason why the first undecidable test in it is undecidable, if it is.
    pub(crate) fn reason(&self, facts: &Facts<'_>, stance: Stance) -> Option<Cow<'static, str>> {
        match self {
            _ if self.truth(facts, stance) != Truth::Undecidable => None,
            Self::Test(test) => test.reason(facts, stance),
            Self::All(conditions) | Self::Any(conditions) => {
                conditions.iter().find_map(|condition| condition.reason(facts, stance))
            }
        }
    }

    /// Inverts the condition: `all` and `any` change places, and each test is negated.
    /// Returns `true` if it reads what the client sends in a further round of a call.
    pub(crate) fn reads_input(&self) -> bool {
        match self {
            Self::Test(test) => test.paths().any(Path::is_in_input),
            Self::All(conditions) | Self::Any(conditions) => conditions.iter().any(Self::reads_input),
        }
    }

    pub(crate) fn not(self) -> Self {
        let each = |conditions: Box<[Self]>| conditions.into_iter().map(Self::not).collect();
        match self {
            Self::Test(mut test) => {
                test.negated = !test.negated;
                Self::Test(test)
            }
            Self::All(conditions) => Self::Any(each(conditions)),
            Self::Any(conditions) => Self::All(each(conditions)),
        }
    }
}

/// One comparison.
#[derive(Debug)]
pub(crate) struct Test {
    pub(crate) path: Path,
    pub(crate) check: Check,
    /// The operator is negative (`neq`), or below an odd number of `not`, but not both.
    pub(crate) negated: bool,
    pub(crate) absent: Option<Absent>,
}

/// The value of `absent`: what a comparison decides if its path is absent. Without it, the operator
/// and the section decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    Match,
    NoMatch,
}

impl Absent {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::NoMatch => "no_match",
        }
    }

    pub(crate) fn of_word(word: &str) -> Option<Self> {
        [Self::Match, Self::NoMatch].into_iter().find(|absent| absent.word() == word)
    }
}

/// The operator of a comparison, and its operand.
#[derive(Debug)]
pub(crate) enum Check {
    Exists,
    Equal(Operand<Value>),
    Order(Order, Operand<Exact>),
    In(Operand<Values>),
    Regex(Expression),
    Contains(Operand<Sought>, IgnoreCase),
    Affix(Affix, Operand<Box<[Needle]>>, IgnoreCase),
    MinLength(u64),
    MaxLength(u64),
    MinItems(u64),
    MaxItems(u64),
    KeysIn(Keys),
    Type(Types),
    PathWithin(Directories),
    HostIn(Hosts),
}

/// The operand of `contains`. Texts are also looked for inside texts.
#[derive(Debug)]
pub(crate) struct Sought {
    pub(crate) value: Value,
    pub(crate) needle: Option<Needle>,
}

/// The other side of a comparison: in the policy, or elsewhere in the call.
#[derive(Debug)]
pub(crate) enum Operand<T> {
    Fixed(T),
    From(Path),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    #[inline]
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IgnoreCase {
    No,
    Yes,
}

/// A set of the types that `type` accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Types {
    pub(crate) string: bool,
    pub(crate) number: bool,
    pub(crate) integer: bool,
    pub(crate) boolean: bool,
    pub(crate) array: bool,
    pub(crate) object: bool,
}

impl Test {
    /// The paths that it reads.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.path).chain(self.check.other())
    }

    pub(crate) fn truth(&self, facts: &Facts<'_>, stance: Stance) -> Truth {
        let Some(path) = self.check.other() else { return self.truth_beside(facts, &NO_OTHER, stance) };
        match self.check.usable(path.resolve(facts), self.path.has_each()) {
            Ok(other) => self.truth_beside(facts, &other, stance),
            Err(Unusable) => Truth::Undecidable,
        }
    }

    #[inline]
    fn truth_beside(&self, facts: &Facts<'_>, other: &Other<'_>, stance: Stance) -> Truth {
        let mut pairs = Pairs::new();
        let truth = if self.path.has_each() {
            self.truth_of_each(facts, other, stance, &mut pairs)
        } else {
            self.truth_of(self.path.resolve(facts), other, stance, &mut pairs)
        };
        if pairs.are_too_many() { Truth::Undecidable } else { truth }
    }

    /// Returns the reason why the test is undecidable for a call; `None` if it is not. It compares
    /// at most as many pairs as the test itself.
    pub(crate) fn reason(&self, facts: &Facts<'_>, stance: Stance) -> Option<Cow<'static, str>> {
        if self.truth(facts, stance) != Truth::Undecidable {
            return None;
        }
        let operand = match self.check.other().map(|path| self.check.usable(path.resolve(facts), self.path.has_each()))
        {
            None => Other::default(),
            Some(Ok(other)) => other,
            Some(Err(Unusable)) => return Some("no usable value to compare with".into()),
        };
        let (mut pairs, mut reason) = (Pairs::new(), None);
        let listed = self.check.listed(&operand);
        let _ = self.path.each(facts, &mut |found| {
            if !pairs.take(listed) {
                return Visit::Stop;
            }
            match found {
                Found::Unclear(Unclear::CaseVariant) => reason = Some("two members that differ in case".into()),
                Found::Unclear(Unclear::WrongContainer) => {
                    reason = Some("a value without the parts that the path names".into());
                }
                Found::Value(datum) if self.check.truth(datum, &operand, &mut pairs) == Truth::Undecidable => {
                    reason = Some(self.check.reason(datum, &operand));
                }
                Found::Value(_) | Found::Absent => {}
            }
            if reason.is_some() { Visit::Stop } else { Visit::Next }
        });
        reason.filter(|_| !pairs.are_too_many()).or(Some("more pairs of values than are compared".into()))
    }

    fn truth_of_each(&self, facts: &Facts<'_>, operand: &Other<'_>, stance: Stance, pairs: &mut Pairs) -> Truth {
        // Of many values, `require` wants all and the others any.
        let enough = match stance {
            Stance::Require => Truth::False,
            Stance::Match => Truth::True,
        };
        let listed = self.check.listed(operand);
        let mut sum = enough.not();
        let _ = self.path.each(facts, &mut |found| {
            if !pairs.take(listed) {
                return Visit::Stop;
            }
            sum = sum.with(self.truth_of(found, operand, stance, pairs), enough);
            if sum == enough { Visit::Stop } else { Visit::Next }
        });
        sum
    }

    #[inline]
    fn truth_of(&self, found: Found<'_>, operand: &Other<'_>, stance: Stance, pairs: &mut Pairs) -> Truth {
        match found {
            Found::Value(datum) if self.negated => self.check.truth(datum, operand, pairs).not(),
            Found::Value(datum) => self.check.truth(datum, operand, pairs),
            Found::Unclear(_) => Truth::Undecidable,
            Found::Absent => self.absent(stance),
        }
    }

    fn absent(&self, stance: Stance) -> Truth {
        if let Check::Exists = self.check {
            return Truth::of(self.negated);
        }
        Truth::of(match self.absent {
            Some(absent) => absent == Absent::Match,
            None => self.negated && stance == Stance::Match,
        })
    }
}

/// The other side of a comparison cannot be used: it is absent, or of a type that the operator does
/// not accept.
struct Unusable;

/// A value from elsewhere in the call, if the operator reads one.
#[derive(Default)]
struct Other<'a> {
    datum: Option<Datum<'a>>,
    /// Its texts, prepared for a comparison without regard to case: once, for all values that they
    /// are compared with.
    folded: Vec<Needle>,
    /// A list, as a set: made once, for all values that are looked for in it.
    set: Option<Set>,
}

/// The other side of an operator that reads none.
static NO_OTHER: Other<'static> = Other { datum: None, folded: Vec::new(), set: None };

/// A list from the call that is compared with has at most this many values. The agent may control
/// both sides: one list for each element of another must not take quadratic time.
const MAX_OTHERS: usize = 1_000;

impl Check {
    /// The path to the other side, if that is elsewhere in the call.
    #[inline]
    pub(crate) fn other(&self) -> Option<&Path> {
        match self {
            Self::Equal(Operand::From(path))
            | Self::Order(_, Operand::From(path))
            | Self::In(Operand::From(path))
            | Self::Contains(Operand::From(path), _)
            | Self::Affix(_, Operand::From(path), _) => Some(path),
            _ => None,
        }
    }

    /// The number of values that one value is compared with.
    fn listed(&self, other: &Other<'_>) -> usize {
        match (self, other.datum) {
            (Self::In(Operand::Fixed(values)), _) => values.len(),
            (Self::Affix(_, Operand::Fixed(needles), _), _) => needles.len(),
            (Self::KeysIn(keys), _) => keys.len(),
            (Self::PathWithin(directories), _) => directories.len(),
            (Self::HostIn(hosts), _) => hosts.len(),
            (Self::In(_) | Self::Affix(..), Some(Datum::Array(values))) => values.len(),
            _ => 1,
        }
    }

    /// Returns the value found there, if the operator accepts it. It is compared with one value, or
    /// with `many`.
    fn usable<'a>(&self, found: Found<'a>, many: bool) -> Result<Other<'a>, Unusable> {
        let Found::Value(other) = found else { return Err(Unusable) };
        let usable = match (self, other) {
            (_, Datum::Array([])) => false,
            (Self::Order(..), other) => matches!(other, Datum::Number(_)),
            (Self::In(_), Datum::Array(values)) => values.len() <= MAX_OTHERS,
            (Self::Affix(..), Datum::Text(_)) => true,
            (Self::Affix(..), Datum::Array(texts)) => texts.len() <= MAX_OTHERS && texts.iter().all(Value::is_string),
            (Self::In(_) | Self::Affix(..), _) | (_, Datum::UnclearNumber) => false,
            _ => true,
        };
        if !usable {
            return Err(Unusable);
        }
        let texts = match (self, other) {
            (Self::Contains(_, IgnoreCase::Yes) | Self::Affix(_, _, IgnoreCase::Yes), Datum::Text(text)) => vec![text],
            (Self::Affix(_, _, IgnoreCase::Yes), Datum::Array(texts)) => {
                texts.iter().filter_map(Value::as_str).collect()
            }
            _ => Vec::new(),
        };
        let set = match (self, other) {
            (Self::In(_), Datum::Array(values)) if many => Set::of(values),
            _ => None,
        };
        Needle::of_call(&texts).map(|folded| Other { datum: Some(other), folded, set }).ok_or(Unusable)
    }

    /// Returns the truth of the check for a present value, before negation.
    fn truth(&self, datum: Datum<'_>, side: &Other<'_>, pairs: &mut Pairs) -> Truth {
        let other = side.datum;
        match self {
            Self::Exists => Truth::True,
            Self::Equal(Operand::Fixed(value)) => equal(datum, value.into(), pairs),
            Self::Order(order, operand) => {
                let bound = match (operand, other) {
                    (Operand::Fixed(bound), _) => *bound,
                    (Operand::From(_), Some(Datum::Number(bound))) => bound,
                    _ => return Truth::Undecidable,
                };
                match datum {
                    Datum::Number(number) => Truth::of(order.holds(number.cmp(&bound))),
                    _ => Truth::Undecidable,
                }
            }
            Self::In(Operand::Fixed(values)) => values.has(datum, pairs),
            Self::Regex(expression) => match datum {
                Datum::Text(text) => Truth::of(expression.is_match(text)),
                _ => Truth::Undecidable,
            },
            Self::Contains(Operand::Fixed(sought), _) => {
                contains(datum, (&sought.value).into(), sought.needle.as_ref(), pairs)
            }
            Self::Affix(affix, Operand::Fixed(needles), _) => match datum {
                Datum::Text(text) => Truth::of(needles.iter().any(|needle| needle.is_affix(*affix, text))),
                _ => Truth::Undecidable,
            },
            Self::MinLength(least) => length(datum).map_or(Truth::Undecidable, |length| Truth::of(length >= *least)),
            Self::MaxLength(most) => length(datum).map_or(Truth::Undecidable, |length| Truth::of(length <= *most)),
            Self::MinItems(least) => items(datum).map_or(Truth::Undecidable, |items| Truth::of(items >= *least)),
            Self::MaxItems(most) => items(datum).map_or(Truth::Undecidable, |items| Truth::of(items <= *most)),
            Self::KeysIn(keys) => match datum {
                Datum::Object(members) => keys.name_all(members, pairs),
                _ => Truth::Undecidable,
            },
            Self::Type(types) => types.truth(datum),
            Self::PathWithin(directories) => match datum {
                Datum::Text(path) => directories.within(path).map_or(Truth::Undecidable, Truth::of),
                _ => Truth::Undecidable,
            },
            Self::HostIn(hosts) => match datum {
                Datum::Text(url) => hosts.lists(url).map_or(Truth::Undecidable, Truth::of),
                _ => Truth::Undecidable,
            },
            Self::Equal(Operand::From(_)) => other.map_or(Truth::Undecidable, |other| equal(datum, other, pairs)),
            Self::In(Operand::From(_)) => match other {
                Some(Datum::Array(values)) => one_of(datum, values, side.set.as_ref(), pairs),
                _ => Truth::Undecidable,
            },
            Self::Contains(Operand::From(_), _) => {
                other.map_or(Truth::Undecidable, |value| contains(datum, value, side.folded.first(), pairs))
            }
            Self::Affix(affix, Operand::From(_), case) => {
                let Datum::Text(text) = datum else { return Truth::Undecidable };
                let is_affix = |needle: &str| match affix {
                    Affix::Start => text.starts_with(needle),
                    Affix::End => text.ends_with(needle),
                };
                match (case, other) {
                    (IgnoreCase::Yes, _) => Truth::of(side.folded.iter().any(|needle| needle.is_affix(*affix, text))),
                    (IgnoreCase::No, Some(Datum::Text(needle))) => Truth::of(is_affix(needle)),
                    (IgnoreCase::No, Some(Datum::Array(needles))) => {
                        Truth::of(needles.iter().filter_map(Value::as_str).any(is_affix))
                    }
                    (IgnoreCase::No, _) => Truth::Undecidable,
                }
            }
        }
    }
}

impl Check {
    /// The reason why a value cannot be compared. It names types, and never the value.
    fn reason(&self, datum: Datum<'_>, other: &Other<'_>) -> Cow<'static, str> {
        let not = |types: &str| Cow::Owned(format!("{}, not {types}", datum.kind()));
        let one = match self {
            Self::Equal(Operand::Fixed(value)) => Some(Datum::from(value)),
            Self::Equal(Operand::From(_)) => other.datum,
            _ => None,
        };
        match (self, datum) {
            (_, Datum::UnclearNumber) => "a number that readers hold differently".into(),
            (Self::PathWithin(_), Datum::Text(path)) if !path.starts_with('/') => "not an absolute path".into(),
            (Self::PathWithin(_), Datum::Text(_)) => "a path that systems read differently".into(),
            (Self::HostIn(_), Datum::Text(_)) => "not a URL with one certain host".into(),
            (Self::Contains(..), Datum::Array(_)) => "a list with parts that a server may read as one text".into(),
            (Self::Contains(..), _) => not("a string or a list"),
            (Self::Order(..), _) => not("a number"),
            (Self::MinItems(_) | Self::MaxItems(_), _) => not("a list or an object"),
            (Self::KeysIn(_), _) => not("an object"),
            (Self::Regex(_) | Self::Affix(..) | Self::MinLength(_) | Self::MaxLength(_), _)
            | (Self::PathWithin(_) | Self::HostIn(_), _) => not("a string"),
            (Self::Equal(_), _) => match one {
                Some(value) if value.kind() != datum.kind() => not(value.kind()),
                _ => "parts of other types than those compared with".into(),
            },
            (Self::In(_), _) => not("of the type of each listed value"),
            (Self::Exists | Self::Type(_), _) => not("comparable"),
        }
    }
}

impl Types {
    fn truth(self, datum: Datum<'_>) -> Truth {
        Truth::of(match datum {
            Datum::Null => false,
            Datum::False | Datum::True => self.boolean,
            Datum::Number(number) => self.number || (self.integer && number.is_whole()),
            // Readers may disagree on whether it is whole.
            Datum::UnclearNumber if self.integer && !self.number => return Truth::Undecidable,
            Datum::UnclearNumber => self.number,
            Datum::Text(_) => self.string,
            Datum::Array(_) => self.array,
            Datum::Object(_) => self.object,
        })
    }
}

/// The number of characters of a string.
fn length(datum: Datum<'_>) -> Option<u64> {
    match datum {
        Datum::Text(text) => u64::try_from(text.chars().count()).ok(),
        _ => None,
    }
}

/// The number of elements of an array, or of members of an object.
fn items(datum: Datum<'_>) -> Option<u64> {
    let items = match datum {
        Datum::Array(elements) => elements.len(),
        Datum::Object(members) => members.len(),
        _ => return None,
    };
    u64::try_from(items).ok()
}

fn contains(datum: Datum<'_>, value: Datum<'_>, needle: Option<&Needle>, pairs: &mut Pairs) -> Truth {
    match (datum, value, needle) {
        (Datum::Text(text), Datum::Text(_), Some(needle)) => Truth::of(needle.is_within(text)),
        (Datum::Text(text), Datum::Text(plain), None) => Truth::of(text.contains(plain)),
        (Datum::Array(elements), Datum::Text(_), Some(needle)) => {
            lists_text(elements, &|text| needle.is_whole(text), &|text| needle.is_within(text), pairs)
        }
        (Datum::Array(elements), Datum::Text(plain), None) => {
            lists_text(elements, &|text| text == plain, &|text| text.contains(plain), pairs)
        }
        (Datum::Array(elements), value, _) if pairs.take(elements.len()) => one_of(value, elements, None, pairs),
        _ => Truth::Undecidable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Such a number exists only if `serde_json` keeps numbers as texts, which any crate of a build
    /// can enable.
    #[test]
    fn a_number_that_may_be_whole_is_undecidable() {
        let is = |types: Types, text: &str| {
            let value: Value = serde_json::from_str(text).unwrap();
            Check::Type(types).truth((&value).into(), &Other::default(), &mut Pairs::new())
        };
        let integer = Types { integer: true, ..Types::default() };
        for text in ["12345678901234567890123", "1e400", "0.30000000000000000000001"] {
            if serde_json::from_str::<Value>(text).is_ok() {
                assert_ne!(is(integer, text), Truth::of(text.contains('.')), "{text}");
                assert_eq!(is(Types { number: true, ..integer }, text), Truth::True, "{text}");
                assert_eq!(is(Types { string: true, ..Types::default() }, text), Truth::False, "{text}");
            }
        }
    }
}
