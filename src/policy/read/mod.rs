//! Reads a tree of JSON, and notes all its issues.

mod regexes;
mod source;
pub(crate) mod suggest;

use std::collections::HashMap;

use crate::amount::{Amount, AmountError};
use crate::call::path::{Path, PathError, ROOTS, Step};
use crate::json::number::{Decimal, Exact};
use crate::json::pointer;
use crate::json::{Json, Member, Node, each_duplicate};
use crate::policy::bounds::Bounds;
use crate::policy::document::{Need, Shape};
use crate::policy::error::{IssueCode, Issues, is_unsafe_to_print};
use crate::policy::expression::Expression;
use crate::policy::limit::{MAX_DURATION, parse_duration};
#[cfg(feature = "analysis")]
pub(crate) use suggest::edits;
#[cfg(feature = "intercept")]
pub(crate) use suggest::suggest;
use suggest::{Want, listed, nearest, nearest_path, retype, suggest_key};

/// Reads nodes, and keeps the current pointer, the issues, and what regular expressions have cost.
pub(crate) struct Reader<'b> {
    pub(crate) bounds: &'b Bounds,
    pub(crate) issues: Issues,
    pub(crate) pointer: String,
    regexes: HashMap<(String, bool), Option<Expression>>,
    regex_bytes: usize,
    /// A key occurs twice somewhere in the tree that is being read.
    has_twice: bool,
}

/// The members of an object whose shape has been checked.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'n, 't> {
    pub(crate) at: usize,
    pub(crate) members: &'n [Member<'t>],
}

impl<'n, 't> Fields<'n, 't> {
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        self.members.iter().find(|member| member.key == key).map(|member| &member.value)
    }
}

impl<'b> Reader<'b> {
    pub(crate) fn new(bounds: &'b Bounds) -> Self {
        Self {
            bounds,
            issues: Issues::default(),
            pointer: String::new(),
            regexes: HashMap::new(),
            regex_bytes: 0,
            has_twice: false,
        }
    }

    /// Notes an issue at the current pointer.
    pub(crate) fn issue(
        &mut self,
        code: IssueCode,
        at: usize,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        self.issues.add(code, at, &self.pointer, message.into(), help.into());
    }

    /// Reads a member, with its key added to the pointer.
    pub(crate) fn at_key<R>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> R) -> R {
        let length = self.pointer.len();
        pointer::push_key(&mut self.pointer, key);
        let result = read(self);
        self.pointer.truncate(length);
        result
    }

    /// Reads an element, with its index added to the pointer.
    pub(crate) fn at_index<R>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> R) -> R {
        let length = self.pointer.len();
        pointer::push_index(&mut self.pointer, index);
        let result = read(self);
        self.pointer.truncate(length);
        result
    }

    /// Reads the member `key`, if it is present. If it occurs twice, the first one counts, and the
    /// others are read only for their issues.
    pub(crate) fn field<'n, 't, R>(
        &mut self,
        fields: Fields<'n, 't>,
        key: &str,
        mut read: impl FnMut(&mut Self, &'n Node<'t>) -> Option<R>,
    ) -> Option<R> {
        let mut nodes = fields.members.iter().filter(|member| member.key == key).map(|member| &member.value);
        let first = nodes.next()?;
        self.at_key(key, |reader| {
            let result = read(reader, first);
            if reader.has_twice {
                nodes.for_each(|node| drop(read(reader, node)));
            }
            result
        })
    }

    /// Returns the members of an object of that shape. Notes unknown and missing keys.
    pub(crate) fn object<'n, 't>(&mut self, node: &'n Node<'t>, shape: &'static Shape) -> Option<Fields<'n, 't>> {
        let Json::Object(members) = &node.json else {
            self.wrong_type(node, &Want::Object(shape), &format!("{} must be an object", shape.name));
            return None;
        };
        for member in members {
            self.known_key(&member.key, member.at, shape);
        }
        self.missing(node.at, shape, |key| members.iter().any(|member| member.key == key));
        Some(Fields { at: node.at, members })
    }

    /// Notes every duplicate key of a tree.
    pub(crate) fn duplicates(&mut self, node: &Node<'_>) {
        // Almost always there are none, and no pointer has to be built.
        self.has_twice = has_duplicates(node);
        if self.has_twice {
            self.note_duplicates(node);
        }
    }

    fn note_duplicates(&mut self, node: &Node<'_>) {
        match &node.json {
            Json::Object(members) => {
                each_duplicate(members, |member| self.duplicate_key(&member.key, member.at));
                for member in members {
                    if let Json::Object(_) | Json::Array(_) = member.value.json {
                        self.at_key(&member.key, |reader| reader.note_duplicates(&member.value));
                    }
                }
            }
            Json::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    if let Json::Object(_) | Json::Array(_) = element.json {
                        self.at_index(index, |reader| reader.note_duplicates(element));
                    }
                }
            }
            _ => {}
        }
    }

    pub(crate) fn duplicate_key(&mut self, key: &str, at: usize) {
        self.at_key(key, |reader| {
            let help = "keep one of the two: readers of JSON disagree on which one counts";
            reader.issue(IssueCode::DuplicateKey, at, format!("duplicate key {}", quote(key)), help.to_owned());
        });
    }

    pub(crate) fn known_key(&mut self, key: &str, at: usize, shape: &'static Shape) {
        if !shape.has(key) {
            self.at_key(key, |reader| {
                let message = format!("{} has no key {}", shape.name, quote(key));
                // The help costs more than all else, and an issue that is not kept needs none.
                let help = (!reader.issues.is_full()).then(|| suggest_key(key, shape));
                reader.issue(IssueCode::UnknownKey, at, message, help);
            });
        }
    }

    pub(crate) fn missing(&mut self, at: usize, shape: &'static Shape, has: impl Fn(&str) -> bool) {
        for key in shape.keys.iter().filter(|key| key.need == Need::Required && !has(key.name)) {
            let message = format!("{} needs the key `{}`", shape.name, key.name);
            self.issue(IssueCode::MissingKey, at, message, lower_first(key.description));
        }
    }

    /// Notes a known key that does not fit its neighbours.
    pub(crate) fn misplaced(&mut self, fields: Fields<'_, '_>, key: &str, why: &str) {
        if let Some(member) = fields.members.iter().find(|member| member.key == key) {
            self.at_key(key, |reader| {
                let message = format!("`{key}` does not belong here: {why}");
                reader.issue(IssueCode::MisplacedKey, member.at, message, "remove it".to_owned());
            });
        }
    }

    /// Notes a value of another type than `want`, which `must` describes.
    pub(crate) fn wrong_type(&mut self, node: &Node<'_>, want: &Want, must: &str) {
        self.issue(IssueCode::WrongType, node.at, format!("{must}, not {}", node.kind()), retype(node, want));
    }

    pub(crate) fn string<'n>(&mut self, node: &'n Node<'_>, what: &str) -> Option<&'n str> {
        if node.as_str().is_none() {
            self.wrong_type(node, &Want::Text, &format!("{what} must be a string"));
        }
        node.as_str()
    }

    pub(crate) fn text(&mut self, node: &Node<'_>, what: &str) -> Option<Box<str>> {
        self.string(node, what).map(Into::into)
    }

    pub(crate) fn boolean(&mut self, node: &Node<'_>, what: &str) -> Option<bool> {
        if let Json::Bool(value) = node.json {
            return Some(value);
        }
        self.wrong_type(node, &Want::Boolean, &format!("{what} must be `true` or `false`"));
        None
    }

    pub(crate) fn list<'n, 't>(&mut self, node: &'n Node<'t>, what: &str) -> Option<&'n [Node<'t>]> {
        if let Json::Array(elements) = &node.json {
            return Some(elements);
        }
        self.wrong_type(node, &Want::List, &format!("{what} must be a list"));
        None
    }

    /// Reads every element. Those that cannot be read are noted and left out.
    pub(crate) fn each<'n, 't, R>(
        &mut self,
        elements: &'n [Node<'t>],
        mut read: impl FnMut(&mut Self, &'n Node<'t>) -> Option<R>,
    ) -> Vec<R> {
        let mut all = Vec::with_capacity(elements.len());
        for (index, node) in elements.iter().enumerate() {
            all.extend(self.at_index(index, |reader| read(reader, node)));
        }
        all
    }

    /// Reads one of a few words.
    pub(crate) fn word<'n>(&mut self, node: &'n Node<'_>, what: &str, words: &[&'static str]) -> Option<&'n str> {
        let Some(text) = node.as_str() else {
            self.wrong_type(node, &Want::Any, &format!("{what} must be one of {}", listed(words)));
            return None;
        };
        if words.contains(&text) {
            return Some(text);
        }
        self.unknown_word(node, text, what, words);
        None
    }

    pub(crate) fn unknown_word(&mut self, node: &Node<'_>, text: &str, what: &str, words: &[&'static str]) {
        self.unknown_word_or(node, text, what, words, "");
    }

    /// As [`Self::unknown_word`], if something other than a word is also valid, as described by
    /// `or`.
    pub(crate) fn unknown_word_or(
        &mut self,
        node: &Node<'_>,
        text: &str,
        what: &str,
        words: &[&'static str],
        or: &str,
    ) {
        let near = nearest(text, words).map_or(String::new(), |near| format!("did you mean `{near}`? "));
        let help = format!("{near}expected one of {}{or}", listed(words));
        self.issue(IssueCode::UnknownValue, node.at, format!("{} is not {what}", quote(text)), help);
    }

    pub(crate) fn amount(&mut self, node: &Node<'_>, what: &str) -> Option<Amount> {
        let Json::Number(text) = node.json else {
            self.wrong_type(node, &Want::Number, &format!("{what} must be a number"));
            return None;
        };
        let amount = Decimal::of_text(text).ok_or(AmountError::NotANumber);
        match amount.and_then(|decimal| Amount::from_decimal(&decimal)) {
            Ok(amount) => Some(amount),
            Err(error) => {
                let help = "write a number from 0 to 9000000000000 with at most six decimals";
                self.issue(
                    IssueCode::InvalidAmount,
                    node.at,
                    format!("{what} cannot be {}: {error}", cut(text)),
                    help.to_owned(),
                );
                None
            }
        }
    }

    /// Reads a whole number that is not negative; it saturates at `u64::MAX`. `least` appears only
    /// in the help text.
    pub(crate) fn count(&mut self, node: &Node<'_>, what: &str, least: u8) -> Option<u64> {
        let Json::Number(text) = node.json else {
            self.wrong_type(node, &Want::Number, &format!("{what} must be a whole number"));
            return None;
        };
        let decimal = Decimal::of_text(text).filter(|decimal| !decimal.negative && decimal.scale >= 0);
        let Some(decimal) = decimal else {
            let message = format!("{what} cannot be {}", cut(text));
            self.issue(IssueCode::InvalidValue, node.at, message, format!("write a whole number of at least {least}"));
            return None;
        };
        if !text.parse::<f64>().is_ok_and(f64::is_finite) {
            let message = format!("{what} cannot be {}: it exceeds the range of an `f64`", cut(text));
            self.issue(IssueCode::InexactNumber, node.at, message, "write a smaller number".to_owned());
            return None;
        }
        let digits = decimal.digits().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(digit.into()));
        Some((0..decimal.scale.min(20)).fold(digits, |sum, _| sum.saturating_mul(10)))
    }

    /// Reads a duration: a number of seconds, or a text.
    pub(crate) fn duration(&mut self, node: &Node<'_>, what: &str) -> Option<u32> {
        let seconds = match &node.json {
            Json::String(text) => parse_duration(text),
            Json::Number(text) => whole_seconds(text),
            _ => {
                self.wrong_type(
                    node,
                    &Want::Any,
                    &format!("{what} must be a number of seconds or a duration such as `15m`"),
                );
                return None;
            }
        };
        if seconds.is_none() {
            let quoted = node.as_str().is_some_and(|text| whole_seconds(text).is_some());
            let help = if quoted {
                "write seconds without quotes, or add a unit: `s`, `m`, `h` or `d`"
            } else {
                "write a number of seconds, or digits with a unit `s`, `m`, `h` or `d`: from 1 second to 400 days"
            };
            let message = format!("invalid duration {}", shown(node));
            self.issue(IssueCode::InvalidDuration, node.at, message, help.to_owned());
        }
        seconds
    }

    /// Reads a path into a call.
    pub(crate) fn path(&mut self, node: &Node<'_>, what: &str) -> Option<Path> {
        let text = self.string(node, what)?;
        self.path_text(node.at, text)
    }

    pub(crate) fn path_text(&mut self, at: usize, text: &str) -> Option<Path> {
        let error = match Path::parse(text) {
            Ok(path) => {
                let mut names = path.steps.iter().filter_map(Step::name);
                return names.all(|name| self.no_control(at, name)).then_some(path);
            }
            Err(error) => error,
        };
        let (why, help) = match error {
            PathError::Root(_) => {
                let near = nearest_path(text).map_or(String::new(), |near| format!("did you mean {}? ", quote(&near)));
                ("unknown root".to_owned(), format!("{near}a path begins with one of {}", listed(&ROOTS)))
            }
            PathError::Member { root, found, known } => {
                let near =
                    nearest(found, known).map_or(String::new(), |near| format!("did you mean `{root}.{near}`? "));
                let holds = if root == "time" { TIME_HOLDS } else { "" };
                let help = format!("{near}expected one of {}{holds}", listed(known));
                (format!("`{root}` has no member {}", quote(found)), help)
            }
            PathError::StepIntoText(step) => {
                (format!("{} steps into a text or a number", quote(step)), "end the path before that step".to_owned())
            }
            PathError::EmptyName => {
                ("empty step".to_owned(), "write a name after each dot; the empty name is `[\"\"]`".to_owned())
            }
            PathError::Name(name) => (
                format!("{} is not a bare name", quote(name)),
                "write `[*]` for every element, `.*` for every member, and a name with other characters in \
                 brackets: `[\"a name\"]`"
                    .to_owned(),
            ),
            PathError::Brackets => (
                "invalid step in brackets".to_owned(),
                "write `[\"name\"]`, an index such as `[0]`, or `[*]` for every element".to_owned(),
            ),
            PathError::Step(step) => {
                (format!("invalid step {}", quote(step)), "write `.name` or a bracket after a bracket".to_owned())
            }
        };
        self.issue(IssueCode::InvalidPath, at, format!("invalid path {}: {why}", quote(text)), help);
        None
    }

    /// Reads a path to one value.
    pub(crate) fn single_path(&mut self, node: &Node<'_>, what: &str) -> Option<Path> {
        let path = self.path(node, what)?;
        if path.has_each() {
            let message = format!("{what} must lead to one value, and `[*]` and `.*` lead to many");
            self.issue(IssueCode::InvalidPath, node.at, message, "write an index such as `[0]`, or a name".to_owned());
            return None;
        }
        Some(path)
    }

    /// Notes the issues of a value that conditions compare with: `null` inside it, inexact numbers,
    /// and long lists.
    pub(crate) fn comparable(&mut self, node: &Node<'_>) {
        match &node.json {
            Json::Null => {
                let help = "use `exists`: a missing value and `null` are the same".to_owned();
                self.issue(IssueCode::NullValue, node.at, "`null` cannot be compared", help);
            }
            Json::Bool(_) => {}
            Json::String(text) => drop(self.no_control(node.at, text)),
            Json::Number(text) => {
                if Exact::of_text(text).is_none() {
                    let message =
                        format!("{} is neither a 64-bit integer nor the shortest form of an `f64`", quote(text));
                    let help = "write fewer digits: no argument can have this value".to_owned();
                    self.issue(IssueCode::InexactNumber, node.at, message, help);
                }
            }
            Json::Array(elements) => {
                self.list_fits(node.at, elements.len());
                for (index, element) in elements.iter().enumerate() {
                    self.at_index(index, |reader| reader.comparable(element));
                }
            }
            Json::Object(members) => {
                for member in members {
                    self.at_key(&member.key, |reader| {
                        reader.no_control(member.at, &member.key);
                        reader.comparable(&member.value);
                    });
                }
            }
        }
    }

    /// Notes a control character other than tab, line feed and carriage return in a text that is
    /// compared, or in a name. Returns `true` if there is none.
    pub(crate) fn no_control(&mut self, at: usize, text: &str) -> bool {
        let Some(control) = text.chars().find(|c| *c < ' ' && !"\t\n\r".contains(*c)) else { return true };
        let help = match control {
            '\u{8}' => r"in JSON, `\b` is a backspace: write `\\b` for the boundary of a word, or remove it",
            '\u{c}' => r"in JSON, `\f` is a form feed: write `\\f`, or remove it",
            _ => r"remove it; a regular expression can name it, as in `\\x01`",
        };
        let message = format!("{} has the control character U+{:04X}", quote(text), u32::from(control));
        self.issue(IssueCode::ControlCharacter, at, message, help.to_owned());
        false
    }

    pub(crate) fn list_fits(&mut self, at: usize, length: usize) {
        let bound = self.bounds.list_values;
        if length > bound {
            let message = format!("a list of {length} values exceeds the bound of {bound}");
            self.issue(IssueCode::TooMany, at, message, "split it over several conditions".to_owned());
        }
    }

    pub(crate) fn empty_list(&mut self, at: usize, message: &str, help: &str) {
        self.issue(IssueCode::EmptyList, at, message, help.to_owned());
    }
}

/// The values of the members of `time`.
const TIME_HOLDS: &str = ": 0 to 23, 0 to 59, 1 (Monday) to 7, and a date such as `2026-01-15`, in UTC";

/// Parses a number of seconds from 1 to 400 days. `60.0` is whole.
pub(crate) fn whole_seconds(text: &str) -> Option<u32> {
    let number = Exact::of_text(text)?;
    let fits = number.is_whole() && number >= Exact::Integer(1) && number <= Exact::Integer(MAX_DURATION.into());
    let micros = Amount::from_exact(number).ok().filter(|_| fits)?.micros();
    u32::try_from(micros / Amount::ONE.micros()).ok()
}

/// Quotes a text of the document in backticks: cut, and with unsafe characters escaped.
pub(crate) fn quote(text: &str) -> String {
    format!("`{}`", cut(text))
}

fn cut(text: &str) -> String {
    const SHOWN: usize = 60;
    let cut: String = text
        .chars()
        .take(SHOWN)
        .flat_map(|c| if is_unsafe_to_print(c) { c.escape_debug().collect() } else { vec![c] })
        .collect();
    let more = if text.chars().nth(SHOWN).is_some() { "..." } else { "" };
    format!("{cut}{more}")
}

/// Quotes a string or number of the document in backticks.
pub(crate) fn shown(node: &Node<'_>) -> String {
    match &node.json {
        Json::String(text) => quote(text),
        Json::Number(text) => quote(text),
        _ => node.kind().to_owned(),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_lowercase);
    first.chain(chars).collect::<String>().trim_end_matches('.').to_owned()
}

fn has_duplicates(node: &Node<'_>) -> bool {
    match &node.json {
        Json::Object(members) => {
            let mut any = false;
            each_duplicate(members, |_| any = true);
            any || members.iter().any(|member| has_duplicates(&member.value))
        }
        Json::Array(elements) => elements.iter().any(has_duplicates),
        _ => false,
    }
}
