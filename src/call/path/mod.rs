//! Paths into a call: `args.customer.id`, `args.items[*].price`, `context["x-user"]`, `call.grant`,
//! `time.hour`.

#[cfg(feature = "analysis")]
mod edit;
mod text;

use std::cell::OnceCell;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::call::ToolCall;
use crate::call::identity::Identity;
use crate::json::number::{Exact, ShortText};
use crate::time::Timestamp;

#[cfg(feature = "analysis")]
pub(crate) use edit::Source;
pub(crate) use text::{CALL_MEMBERS, PathError, ROOTS, TIME_MEMBERS};

/// A path: a root, and steps below it. Parsed once; resolving it allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) root: Root,
    pub(crate) steps: Box<[Step]>,
    /// `[*]` is among the steps.
    has_each: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Arguments,
    Context,
    Tool,
    Identity(Identity),
    Time(TimePart),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimePart {
    Hour,
    Minute,
    Weekday,
    Date,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Name(Box<str>),
    Index(usize),
    Each,
}

impl Path {
    /// Returns `true` if the path leads to many values (`[*]`).
    pub(crate) fn has_each(&self) -> bool {
        self.has_each
    }

    pub(crate) fn reads_time(&self) -> bool {
        matches!(self.root, Root::Time(_))
    }

    pub(crate) fn is_in_arguments(&self) -> bool {
        self.root == Root::Arguments
    }

    /// The part of the call that the path reads, and that the host or the agent supplies.
    #[cfg(feature = "replay")]
    pub(crate) fn asks_for(&self) -> AsksFor<'_> {
        match (self.root, self.steps.first()) {
            (Root::Arguments, Some(Step::Name(name))) => AsksFor::Argument(name),
            (Root::Arguments, _) => AsksFor::Arguments,
            (Root::Context, _) => AsksFor::Context,
            (Root::Tool | Root::Identity(_) | Root::Time(_), _) => AsksFor::Nothing,
        }
    }

    /// Returns the value at the path, which must not have `[*]`.
    pub(crate) fn resolve<'a>(&self, facts: &'a Facts<'a>) -> Found<'a> {
        let Some(members) = self.members(facts) else { return self.fact(facts) };
        let mut reached = Reached::Members(members);
        for step in &self.steps {
            reached = match step_into(reached, step) {
                Ok(value) => Reached::Value(value),
                Err(stopped) => return stopped.into(),
            };
        }
        reached.into()
    }

    /// Calls `visit` for every value at the path, until it returns [`Visit::Stop`]: once for a path
    /// without `[*]`, and else once for each element. If the array of a `[*]` is absent, calls it
    /// once, with [`Found::Absent`].
    pub(crate) fn each<'a>(&self, facts: &'a Facts<'a>, visit: &mut impl FnMut(Found<'a>) -> Visit) -> Visit {
        match self.members(facts) {
            Some(members) => walk(Reached::Members(members), &self.steps, visit),
            None => visit(self.fact(facts)),
        }
    }

    /// The members that the steps begin in; `None` for a root without members.
    fn members<'a>(&self, facts: &'a Facts<'a>) -> Option<&'a Map<String, Value>> {
        let members = match self.root {
            Root::Arguments => facts.call.argument_members(),
            Root::Context => facts.call.context_members(),
            Root::Tool | Root::Identity(_) | Root::Time(_) => return None,
        };
        Some(members.unwrap_or(&EMPTY))
    }

    /// The value of a root without members, which no step follows.
    fn fact<'a>(&self, facts: &'a Facts<'a>) -> Found<'a> {
        match self.root {
            Root::Arguments | Root::Context => Found::Absent,
            Root::Tool => Found::Value(Datum::Text(facts.call.tool())),
            Root::Identity(identity) => {
                facts.call.identity(identity).map_or(Found::Absent, |text| Found::Value(Datum::Text(text)))
            }
            Root::Time(part) => Found::Value(facts.time(part)),
        }
    }
}

/// The point that resolving a path has reached. Only references are followed, and the last value
/// alone becomes a [`Datum`]: a `Datum` for each step takes a fifth longer.
#[derive(Clone, Copy)]
enum Reached<'a> {
    Members(&'a Map<String, Value>),
    Value(&'a Value),
}

/// The reason why a step cannot be taken: [`Found`] without its value.
#[derive(Clone, Copy)]
enum Stopped {
    Absent,
    WrongContainer,
}

/// Takes one step other than `[*]`.
fn step_into<'a>(reached: Reached<'a>, step: &Step) -> Result<&'a Value, Stopped> {
    let value = match (step, reached) {
        (Step::Name(name), Reached::Members(members) | Reached::Value(Value::Object(members))) => member(members, name),
        (Step::Index(index), Reached::Value(Value::Array(elements))) => elements.get(*index),
        (_, Reached::Value(Value::Null)) => None,
        _ => return Err(Stopped::WrongContainer),
    };
    value.ok_or(Stopped::Absent)
}

/// Returns the member of that name. Among a few members, comparing names is faster than hashing
/// one, as the map does if another crate enables `preserve_order`.
fn member<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if members.len() > MAX_SCANNED_MEMBERS {
        return members.get(name);
    }
    for (known, value) in members {
        if known == name {
            return Some(value);
        }
    }
    None
}

/// Up to this many members are compared one by one.
const MAX_SCANNED_MEMBERS: usize = 8;

fn walk<'a>(mut reached: Reached<'a>, steps: &[Step], visit: &mut impl FnMut(Found<'a>) -> Visit) -> Visit {
    for (index, step) in steps.iter().enumerate() {
        let rest = steps.get(index + 1..).unwrap_or_default();
        let mut each = |value: &'a Value| walk(Reached::Value(value), rest, visit) == Visit::Stop;
        let stopped = match (step, reached) {
            (Step::Each, Reached::Value(Value::Array(elements))) => elements.iter().any(&mut each),
            (Step::Each, Reached::Members(members) | Reached::Value(Value::Object(members))) => {
                members.values().any(&mut each)
            }
            _ => match step_into(reached, step) {
                Ok(value) => {
                    reached = Reached::Value(value);
                    continue;
                }
                Err(stopped) => return visit(stopped.into()),
            },
        };
        return if stopped { Visit::Stop } else { Visit::Next };
    }
    visit(reached.into())
}

/// The part of a call that a path reads, other than identities and time.
#[cfg(feature = "replay")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsksFor<'p> {
    Nothing,
    Argument(&'p str),
    /// All arguments.
    Arguments,
    Context,
}

/// The result of resolving a path.
#[derive(Clone, Copy)]
pub(crate) enum Found<'a> {
    Value(Datum<'a>),
    /// A member or an index is missing, or the value is `null`.
    Absent,
    /// A step into a value that has no such steps. It may contain one for a server that unwraps
    /// JSON text, or lists of one element.
    WrongContainer,
}

impl<'a> From<Reached<'a>> for Found<'a> {
    fn from(reached: Reached<'a>) -> Self {
        match reached {
            Reached::Value(Value::Null) => Self::Absent,
            Reached::Value(value) => Self::Value(value.into()),
            Reached::Members(members) => Self::Value(Datum::Object(members)),
        }
    }
}

impl From<Stopped> for Found<'_> {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Absent => Self::Absent,
            Stopped::WrongContainer => Self::WrongContainer,
        }
    }
}

/// Continue with the next value, or stop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    Next,
    Stop,
}

/// A value of the call, as conditions compare it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Datum<'a> {
    Null,
    /// Two variants instead of a `bool`: with one, the compiler copies a `Datum` in pieces, and
    /// reading it as a whole stalls (W2 took a seventh longer).
    False,
    True,
    Number(Exact),
    /// A number that is not held exactly. It cannot be compared.
    UnclearNumber,
    Text(&'a str),
    Array(&'a [Value]),
    Object(&'a Map<String, Value>),
}

/// The value of absent arguments, and of an absent context.
static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

impl<'a> From<&'a Value> for Datum<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(false) => Self::False,
            Value::Bool(true) => Self::True,
            Value::Number(number) => Exact::of(number).map_or(Self::UnclearNumber, Self::Number),
            Value::String(text) => Self::Text(text),
            Value::Array(elements) => Self::Array(elements),
            Value::Object(members) => Self::Object(members),
        }
    }
}

/// The input of paths: a call, and the instant at which it is decided.
pub(crate) struct Facts<'a> {
    pub(crate) call: &'a ToolCall<'a>,
    pub(crate) now: Timestamp,
    moment: OnceCell<Moment>,
}

/// The parts of the instant, computed when a condition first reads one.
struct Moment {
    hour: i64,
    minute: i64,
    weekday: i64,
    date: ShortText,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(call: &'a ToolCall<'a>, now: Timestamp) -> Self {
        Self { call, now, moment: OnceCell::new() }
    }

    fn time(&self, part: TimePart) -> Datum<'_> {
        let moment = self.moment.get_or_init(|| {
            let civil = self.now.civil();
            Moment {
                hour: civil.hour,
                minute: civil.minute,
                weekday: civil.weekday,
                date: ShortText::format(format_args!("{:04}-{:02}-{:02}", civil.year, civil.month, civil.day)),
            }
        });
        let number = |value: i64| Datum::Number(Exact::Integer(value));
        match part {
            TimePart::Hour => number(moment.hour),
            TimePart::Minute => number(moment.minute),
            TimePart::Weekday => number(moment.weekday),
            TimePart::Date => Datum::Text(moment.date.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_found_absent_or_out_of_reach() {
        let many: Map<_, _> = (0..20).map(|number| (format!("m{number}"), json!(number))).collect();
        let arguments =
            json!({ "a": { "b": [1, { "c": null }] }, "t": "{\"x\":1}", "a.b": 5, "n": null, "many": many });
        let call = ToolCall::new("tool", &arguments).user("ann");
        let now = "2026-01-18T23:05:00Z".parse().unwrap();
        let facts = Facts::new(&call, now);
        let find = |text: &str| match Path::parse(text).unwrap().resolve(&facts) {
            Found::Value(Datum::Text(text)) => format!("{text:?}"),
            Found::Value(Datum::Number(Exact::Integer(integer))) => integer.to_string(),
            Found::Value(_) => "value".into(),
            Found::Absent => "absent".into(),
            Found::WrongContainer => "wrong container".into(),
        };
        for (text, want) in [
            ("args.a.b[0]", "1"),
            ("args[\"a.b\"]", "5"),
            ("args.a.b[1].c", "absent"),
            ("args.a.b[1].c.d", "absent"),
            ("args.a.b[2]", "absent"),
            ("args.n.x.y", "absent"),
            ("args.many.m0", "0"),
            ("args.many.m19", "19"),
            ("args.many.m20", "absent"),
            ("args.a.x", "absent"),
            ("args.t.x", "wrong container"),
            ("args.a[0]", "wrong container"),
            ("args.a.b.c", "wrong container"),
            ("args.a.b[0].x", "wrong container"),
            ("args[0]", "wrong container"),
            ("context.user", "absent"),
            ("call.user", "\"ann\""),
            ("call.grant", "absent"),
            ("call.tool", "\"tool\""),
            ("time.hour", "23"),
            ("time.minute", "5"),
            ("time.weekday", "7"),
            ("time.date", "\"2026-01-18\""),
        ] {
            assert_eq!(find(text), want, "{text}");
        }
    }
}
