//! The operators: one table for the reader, the schema and the tools.

/// An operator of comparisons.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    /// It holds where its positive twin does not.
    pub(crate) negative: bool,
    /// It can compare with another part of the call.
    pub(crate) value_from: bool,
    pub(crate) ignore_case: bool,
    pub(crate) meaning: Meaning,
}

/// The kind of an operator: what its `value` must be, and how it compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Exists,
    Regex,
    Contains,
    StartsWith,
    EndsWith,
    MinLength,
    MaxLength,
    MinItems,
    MaxItems,
    KeysIn,
    Type,
    PathWithin,
    HostIn,
}

/// The properties by which the tools reason about an operator.
#[derive(Debug)]
#[cfg_attr(not(feature = "analysis"), expect(dead_code, reason = "only the tools read it"))]
pub(crate) struct Meaning {
    pub(crate) aspect: Aspect,
    /// The operator that holds for exactly the other values of the types that this one compares.
    pub(crate) opposite: Option<&'static str>,
    /// The JSON types that `value_from` must lead to; any type if the list is empty.
    pub(crate) operand_types: &'static [&'static str],
    /// The operator takes a list of texts and holds if any of them fits. A longer list only makes
    /// the operator hold for more values: it does not influence which values can be compared.
    pub(crate) any_of_texts: bool,
    /// The words between a path and a value, where the operator holds and where it does not.
    pub(crate) words: (&'static str, &'static str),
}

/// The property of a value that an operator looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aspect {
    Presence,
    Type,
    /// Equality to one or more values.
    Equality,
    /// The order of numbers.
    Order,
    Length,
    /// The number of elements or members.
    Items,
    /// The names of members.
    Names,
    /// The characters of a text; or, for `contains`, the elements of a list.
    Content,
}

impl Operator {
    const fn new(name: &'static str, takes: Takes, aspect: Aspect, words: (&'static str, &'static str)) -> Self {
        let meaning = Meaning { aspect, opposite: None, operand_types: &[], any_of_texts: false, words };
        Self { name, takes, negative: false, value_from: false, ignore_case: false, meaning }
    }

    const fn negative(mut self) -> Self {
        self.negative = true;
        self
    }

    /// Can compare with another part of the call, of one of these types.
    const fn from(mut self, types: &'static [&'static str]) -> Self {
        self.value_from = true;
        self.meaning.operand_types = types;
        self
    }

    const fn case(mut self) -> Self {
        self.ignore_case = true;
        self
    }

    const fn opposed(mut self, name: &'static str) -> Self {
        self.meaning.opposite = Some(name);
        self
    }

    const fn any_of_texts(mut self) -> Self {
        self.meaning.any_of_texts = true;
        self
    }
}

const ANY: &[&str] = &[];
const NUMBER: &[&str] = &["number"];
const LIST: &[&str] = &["array"];
const TEXTS: &[&str] = &["string", "array"];

const EQUAL: (&str, &str) = ("equal to", "other than");
const IN: (&str, &str) = ("one of", "none of");
const REGEX: (&str, &str) = ("matching", "not matching");
const CONTAINS: (&str, &str) = ("containing", "not containing");

const fn turned(words: (&'static str, &'static str)) -> (&'static str, &'static str) {
    (words.1, words.0)
}

pub(crate) static OPERATORS: [Operator; 23] = [
    Operator::new("eq", Takes::Equal, Aspect::Equality, EQUAL).from(ANY).opposed("neq"),
    Operator::new("neq", Takes::Equal, Aspect::Equality, turned(EQUAL)).negative().from(ANY).opposed("eq"),
    Operator::new("lt", Takes::Less, Aspect::Order, ("below", "at least")).from(NUMBER).opposed("gte"),
    Operator::new("lte", Takes::LessOrEqual, Aspect::Order, ("at most", "above")).from(NUMBER).opposed("gt"),
    Operator::new("gt", Takes::Greater, Aspect::Order, ("above", "at most")).from(NUMBER).opposed("lte"),
    Operator::new("gte", Takes::GreaterOrEqual, Aspect::Order, ("at least", "below")).from(NUMBER).opposed("lt"),
    Operator::new("in", Takes::In, Aspect::Equality, IN).from(LIST).opposed("not_in"),
    Operator::new("not_in", Takes::In, Aspect::Equality, turned(IN)).negative().from(LIST).opposed("in"),
    Operator::new("exists", Takes::Exists, Aspect::Presence, ("given", "left out")),
    Operator::new("regex", Takes::Regex, Aspect::Content, REGEX).case().opposed("not_regex"),
    Operator::new("not_regex", Takes::Regex, Aspect::Content, turned(REGEX)).negative().case().opposed("regex"),
    Operator::new("contains", Takes::Contains, Aspect::Content, CONTAINS).from(ANY).case().opposed("not_contains"),
    Operator::new("not_contains", Takes::Contains, Aspect::Content, turned(CONTAINS))
        .negative()
        .from(ANY)
        .case()
        .opposed("contains"),
    Operator::new("starts_with", Takes::StartsWith, Aspect::Content, ("beginning with", "not beginning with"))
        .from(TEXTS)
        .case()
        .any_of_texts(),
    Operator::new("ends_with", Takes::EndsWith, Aspect::Content, ("ending with", "not ending with"))
        .from(TEXTS)
        .case()
        .any_of_texts(),
    Operator::new("min_length", Takes::MinLength, Aspect::Length, ("with a length of at least", "with a length below")),
    Operator::new("max_length", Takes::MaxLength, Aspect::Length, ("with a length of at most", "with a length above")),
    Operator::new(
        "min_items",
        Takes::MinItems,
        Aspect::Items,
        ("with at least as many parts as", "with fewer parts than"),
    ),
    Operator::new(
        "max_items",
        Takes::MaxItems,
        Aspect::Items,
        ("with at most as many parts as", "with more parts than"),
    ),
    Operator::new(
        "keys_in",
        Takes::KeysIn,
        Aspect::Names,
        ("an object with no other members than", "an object with other members than"),
    )
    .any_of_texts(),
    Operator::new("type", Takes::Type, Aspect::Type, ("of the type", "not of the type")),
    Operator::new("path_within", Takes::PathWithin, Aspect::Content, ("a path within", "a plain path outside of"))
        .any_of_texts(),
    Operator::new("host_in", Takes::HostIn, Aspect::Content, ("a URL on", "a plain URL not on")).any_of_texts(),
];

impl Operator {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        OPERATORS.iter().find(|operator| operator.name == name)
    }

    /// The operator that holds for exactly the other values of the types that this one compares.
    #[cfg(feature = "analysis")]
    pub(crate) fn opposite(&self) -> Option<&'static Self> {
        self.meaning.opposite.and_then(Self::named)
    }

    /// Itself, or the positive twin of a negative operator.
    #[cfg(feature = "analysis")]
    pub(crate) fn positive(&'static self) -> &'static Self {
        if self.negative { self.opposite().unwrap_or(self) } else { self }
    }
}

#[cfg(feature = "analysis")]
impl Takes {
    /// The operator of this kind that is not negative.
    pub(crate) fn operator(self) -> &'static Operator {
        let [first, ..] = &OPERATORS;
        OPERATORS.iter().find(|operator| operator.takes == self && !operator.negative).unwrap_or(first)
    }
}

#[cfg(all(test, feature = "analysis"))]
mod tests {
    use super::*;

    #[test]
    fn opposites_are_mutual() {
        for operator in &OPERATORS {
            assert_eq!(operator.takes.operator().takes, operator.takes);
            assert!(!operator.positive().negative && operator.positive().takes == operator.takes, "{operator:?}");
            if let Some(opposite) = operator.opposite() {
                assert_eq!(opposite.meaning.opposite, Some(operator.name));
                assert_eq!(opposite.meaning.words, turned(operator.meaning.words));
                assert_eq!(opposite.meaning.operand_types, operator.meaning.operand_types);
            }
        }
    }
}
