//! Paths into a call: `args.customer.id`, `args.items[*].price`, `context["x-user"]`, `call.grant`,
//! `time.hour`.

#[cfg(feature = "analysis")]
mod edit;
mod text;

use std::cell::OnceCell;
use std::ops::Deref;
use std::sync::LazyLock;

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};
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
    /// `[*]` or `.*` is among the steps.
    has_each: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Arguments,
    Context,
    /// The agent's answers to what the server has asked for.
    Input,
    Tool,
    Task,
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

impl TimePart {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Hour => "time.hour",
            Self::Minute => "time.minute",
            Self::Weekday => "time.weekday",
            Self::Date => "time.date",
        }
    }

    /// The least and the greatest number that it can be; `None` for the date, which is a text.
    pub(crate) fn numbers(self) -> Option<(u8, u8)> {
        match self {
            Self::Hour => Some((0, 23)),
            Self::Minute => Some((0, 59)),
            Self::Weekday => Some((1, 7)),
            Self::Date => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Name(Name),
    Index(usize),
    /// `[*]`: every element of an array.
    Each,
    /// `.*`: the value of every member of an object.
    EachMember,
}

impl Step {
    /// Returns `true` if the step leads to many values.
    pub(crate) fn is_each(&self) -> bool {
        matches!(self, Self::Each | Self::EachMember)
    }

    /// The name that the step takes, if it takes one.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Index(_) | Self::Each | Self::EachMember => None,
        }
    }
}

impl Path {
    /// Returns `true` if the path leads to many values (`[*]`, `.*`).
    pub(crate) fn has_each(&self) -> bool {
        self.has_each
    }

    pub(crate) fn reads_time(&self) -> bool {
        self.time_part().is_some()
    }

    pub(crate) fn time_part(&self) -> Option<TimePart> {
        match self.root {
            Root::Time(part) => Some(part),
            _ => None,
        }
    }

    /// Returns `true` if it reads the input of a further round.
    pub(crate) fn is_in_input(&self) -> bool {
        matches!(self.root, Root::Input)
    }

    pub(crate) fn is_in_arguments(&self) -> bool {
        self.root == Root::Arguments
    }

    /// Returns `true` if the agent writes the values that the path reads.
    #[cfg(feature = "analysis")]
    pub(crate) fn is_of_agent(&self) -> bool {
        self.root.written_by() == WrittenBy::Agent
    }

    /// The part of the call that the path reads, and that the host or the agent supplies.
    #[cfg(feature = "replay")]
    pub(crate) fn asks_for(&self) -> AsksFor<'_> {
        match (self.root, self.steps.first()) {
            (Root::Arguments, Some(Step::Name(name))) => AsksFor::Argument(name),
            (Root::Arguments, _) => AsksFor::Arguments,
            (Root::Context | Root::Input | Root::Task, _) => AsksFor::Unrecorded,
            (Root::Tool | Root::Identity(_) | Root::Time(_), _) => AsksFor::Nothing,
        }
    }

    /// Returns the value at the path, which must not have `[*]` or `.*`.
    pub(crate) fn resolve<'a>(&self, facts: &'a Facts<'a>) -> Found<'a> {
        let Some(members) = self.members(facts) else { return self.fact(facts) };
        let (mut reached, by) = (Reached::Members(members), self.root.written_by());
        for step in &self.steps {
            reached = match step_into(reached, step, by) {
                Ok(value) => Reached::Value(value),
                Err(stopped) => return stopped.into(),
            };
        }
        reached.into()
    }

    /// Calls `visit` for every value at the path, until it returns [`Visit::Stop`]: once for a path
    /// without `[*]` and `.*`, and else once for each element. If the array of a `[*]` or the
    /// object of a `.*` is absent, calls it once, with [`Found::Absent`].
    pub(crate) fn each<'a>(&self, facts: &'a Facts<'a>, visit: &mut impl FnMut(Found<'a>) -> Visit) -> Visit {
        match self.members(facts) {
            Some(members) => walk(Reached::Members(members), &self.steps, self.root.written_by(), visit),
            None => visit(self.fact(facts)),
        }
    }

    /// The members that the steps begin in; `None` for a root without members.
    fn members<'a>(&self, facts: &'a Facts<'a>) -> Option<&'a Map<String, Value>> {
        let members = match self.root {
            Root::Arguments => facts.call.argument_members(),
            Root::Context => facts.call.context_members(),
            // A call without answers has no such object.
            Root::Input if self.steps.is_empty() => Some(facts.call.input_members()?),
            Root::Input => facts.call.input_members(),
            Root::Tool | Root::Task | Root::Identity(_) | Root::Time(_) => return None,
        };
        Some(members.unwrap_or(&EMPTY))
    }

    /// The value of a root without members, which no step follows.
    fn fact<'a>(&self, facts: &'a Facts<'a>) -> Found<'a> {
        match self.root {
            Root::Arguments | Root::Context | Root::Input => Found::Absent,
            Root::Task if facts.call.is_task() => Found::Value(Datum::True),
            Root::Task => Found::Absent,
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
    Unclear(Unclear),
}

/// The writer of the names of members below a root.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WrittenBy {
    /// The server may read them without regard to case.
    Agent,
    Host,
}

impl Root {
    fn written_by(self) -> WrittenBy {
        match self {
            Self::Arguments | Self::Input => WrittenBy::Agent,
            Self::Context | Self::Tool | Self::Task | Self::Identity(_) | Self::Time(_) => WrittenBy::Host,
        }
    }
}

/// Takes one step other than `[*]` and `.*`.
fn step_into<'a>(reached: Reached<'a>, step: &Step, by: WrittenBy) -> Result<&'a Value, Stopped> {
    let value = match (step, reached) {
        (Step::Name(name), Reached::Members(members) | Reached::Value(Value::Object(members))) => match by {
            WrittenBy::Agent => name.only_member(members)?,
            WrittenBy::Host => name.member(members),
        },
        (Step::Index(index), Reached::Value(Value::Array(elements))) => elements.get(*index),
        (_, Reached::Value(Value::Null)) => None,
        _ => return Err(Stopped::Unclear(Unclear::WrongContainer)),
    };
    value.ok_or(Stopped::Absent)
}

/// The name of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    text: Box<str>,
    variants: Variants,
}

/// The names that equal a name by Unicode's simple case folding. They are known when the path is
/// parsed, so that a call needs no tables.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Variants {
    /// The name is ASCII without `k` and `s`: only ASCII letters fold to its letters.
    Ascii,
    /// For each character of the name, the characters that fold to the same one.
    Characters(Box<[Box<[char]>]>),
}

/// Up to this many members are compared one by one. Among a few members, this is faster than
/// hashing a name, as the map does if another crate enables `preserve_order`.
const MAX_SCANNED_MEMBERS: usize = 8;

impl Name {
    fn member<'a>(&self, members: &'a Map<String, Value>) -> Option<&'a Value> {
        if members.len() > MAX_SCANNED_MEMBERS {
            return members.get(&*self.text);
        }
        members.iter().find(|(known, _)| **known == *self.text).map(|(_, value)| value)
    }

    /// Returns the member of that name, unless another one has a name that equals it but for case.
    fn only_member<'a>(&self, members: &'a Map<String, Value>) -> Result<Option<&'a Value>, Stopped> {
        let mut found = None;
        for (known, value) in members {
            // Most names begin with another letter, whatever its case.
            if !self.begins_like(known) {
                continue;
            }
            if known.len() == self.text.len() && **known == *self.text {
                found = Some(value);
            } else if self.is_variant(known) {
                return Err(Stopped::Unclear(Unclear::CaseVariant));
            }
        }
        Ok(found)
    }

    /// Returns `false` if a name begins with another ASCII character, also but for case.
    #[inline]
    fn begins_like(&self, other: &str) -> bool {
        const CASE: u8 = 0x20;
        match (self.text.as_bytes().first(), other.as_bytes().first()) {
            (Some(own), Some(first)) => (own ^ first) & !CASE == 0 || !own.is_ascii() || !first.is_ascii(),
            _ => true,
        }
    }

    /// Returns a name that equals this one but for case.
    #[cfg(feature = "analysis")]
    pub(crate) fn variant(&self) -> Option<String> {
        let other = |character: char| case_variants(character).into_iter().find(|other| *other != character);
        let (at, found) = self.text.char_indices().find_map(|(at, character)| Some((at, other(character)?)))?;
        let (before, rest) = self.text.split_at_checked(at)?;
        Some(before.chars().chain([found]).chain(rest.chars().skip(1)).collect())
    }

    /// Returns `true` if another name equals this one but for case.
    #[inline]
    pub(crate) fn is_variant(&self, other: &str) -> bool {
        match &self.variants {
            Variants::Ascii => other.len() == self.text.len() && other.eq_ignore_ascii_case(&self.text),
            Variants::Characters(characters) => {
                let mut others = other.chars();
                characters.iter().all(|same| others.next().is_some_and(|other| same.contains(&other)))
                    && others.next().is_none()
            }
        }
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        let is_plain = text.is_ascii() && !text.contains(['k', 'K', 's', 'S']);
        let variants = match is_plain {
            true => Variants::Ascii,
            false => Variants::Characters(text.chars().map(case_variants).collect()),
        };
        Self { text: text.into(), variants }
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// The characters that equal this one by Unicode's simple case folding, itself included.
fn case_variants(character: char) -> Box<[char]> {
    let mut class = ClassUnicode::new([ClassUnicodeRange::new(character, character)]);
    match class.try_case_fold_simple() {
        Ok(()) => class.iter().flat_map(|range| range.start()..=range.end()).collect(),
        // Without the tables there are no such names to find.
        Err(_) => [character].into(),
    }
}

fn walk<'a>(
    mut reached: Reached<'a>,
    steps: &[Step],
    by: WrittenBy,
    visit: &mut impl FnMut(Found<'a>) -> Visit,
) -> Visit {
    for (index, step) in steps.iter().enumerate() {
        let rest = steps.get(index + 1..).unwrap_or_default();
        let mut each = |value: &'a Value| walk(Reached::Value(value), rest, by, visit) == Visit::Stop;
        let stopped = match (step, reached) {
            (Step::Each, Reached::Value(Value::Array(elements))) => elements.iter().any(&mut each),
            (Step::EachMember, Reached::Members(members) | Reached::Value(Value::Object(members))) => {
                members.values().any(&mut each)
            }
            _ => match step_into(reached, step, by) {
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
    Argument(&'p Name),
    /// All arguments.
    Arguments,
    /// The context, or another part that records do not have.
    Unrecorded,
}

/// The result of resolving a path.
#[derive(Clone, Copy)]
pub(crate) enum Found<'a> {
    Value(Datum<'a>),
    /// A member or an index is missing, or the value is `null`.
    Absent,
    /// A server may find another value there.
    Unclear(Unclear),
}

/// The reason why the value at a path is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unclear {
    /// A step into a value that has no such steps. It may contain one for a server that unwraps
    /// JSON text, or lists of one element.
    WrongContainer,
    /// Another member has a name that equals the one of a step but for case. A server may read
    /// names without regard to it.
    CaseVariant,
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
            Stopped::Unclear(unclear) => Self::Unclear(unclear),
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

impl Datum<'_> {
    /// The name of the value's type, with its article.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::False | Self::True => "a boolean",
            Self::Number(_) | Self::UnclearNumber => "a number",
            Self::Text(_) => "a string",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
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
        let input = json!({ "ask": { "content": { "n": 5 } } });
        let call = ToolCall::new("tool", &arguments).user("ann").task(true).input(input.as_object());
        let now = "2026-01-18T23:05:00Z".parse().unwrap();
        let facts = Facts::new(&call, now);
        let find = |text: &str| match Path::parse(text).unwrap().resolve(&facts) {
            Found::Value(Datum::Text(text)) => format!("{text:?}"),
            Found::Value(Datum::Number(Exact::Integer(integer))) => integer.to_string(),
            Found::Value(_) => "value".into(),
            Found::Absent => "absent".into(),
            Found::Unclear(Unclear::WrongContainer) => "wrong container".into(),
            Found::Unclear(Unclear::CaseVariant) => "case variant".into(),
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
            ("call.task", "value"),
            ("input", "value"),
            ("input.ask.content.n", "5"),
            ("input.Ask.content.n", "case variant"),
            ("input.none.x", "absent"),
            ("time.hour", "23"),
            ("time.minute", "5"),
            ("time.weekday", "7"),
            ("time.date", "\"2026-01-18\""),
        ] {
            assert_eq!(find(text), want, "{text}");
        }
    }
    #[test]
    fn names_that_differ_in_case_alone_are_unclear() {
        for (name, member, is_variant) in [
            ("dryRun", "dryrun", true),
            ("dryRun", "DRYRUN", true),
            ("dryRun", "dry_run", false),
            ("dryRun", "dryRuns", false),
            ("dryRun", "dryRu", false),
            ("key", "\u{212a}ey", true),
            ("names", "name\u{17f}", true),
            ("size", "s\u{131}ze", false),
            ("id", "\u{130}d", false),
            ("straße", "STRAẞE", true),
            ("straße", "strasse", false),
            ("größe", "GRÖSSE", false),
            ("größe", "GRÖßE", true),
            ("λόγος", "ΛΌΓΟΣ", true),
            ("λόγος", "λόγοσ", true),
            ("é", "e\u{301}", false),
            ("", " ", false),
        ] {
            let read = |arguments: &Value, context: &Map<String, Value>, root: &str| {
                let call = ToolCall::new("t", arguments).context(context);
                let facts = Facts::new(&call, Timestamp::UNIX_EPOCH);
                let path = Path::parse(&format!("{root}[{}]", json!(name))).unwrap();
                match path.resolve(&facts) {
                    Found::Value(_) => Some(1),
                    Found::Absent => Some(0),
                    Found::Unclear(unclear) => {
                        assert_eq!(unclear, Unclear::CaseVariant);
                        None
                    }
                }
            };
            let (alone, both) = (json!({ member: 1 }), json!({ name: 1, member: 1, "z": 1 }));
            let many: Map<_, _> =
                (0..30).map(|n| (format!("m{n}"), json!(n))).chain([(member.into(), json!(1))]).collect();
            let objects = [&alone, &both].map(|value| value.as_object().unwrap());
            for (members, found) in [(objects[0], 0), (objects[1], 1), (&many, 0)] {
                let arguments = Value::Object(members.clone());
                let want = if is_variant { None } else { Some(found) };
                assert_eq!(read(&arguments, members, "args"), want, "{name} {member}");
                assert_eq!(read(&arguments, members, "context"), Some(found), "{name} {member}");
            }
        }
    }
}
