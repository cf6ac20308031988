//! What is wrong in a document.

use std::error::Error;
use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// A document is no policy. It lists every issue, in the order of their places.
///
/// Its `Display` shows each with the line of the document that it is in:
///
/// ```
/// let error = r#"{ "version": "1", "default": "dney" }"#.parse::<toolgate::Policy>().unwrap_err();
/// assert_eq!(error.to_string(), r#"the document is no policy: 1 issue
///
/// error[unknown_value]: `dney` is not an outcome
///   at line 1, column 30, in /default
///   |
/// 1 | { "version": "1", "default": "dney" }
///   |                              ^
///   = help: did you mean `deny`? it is one of `allow`, `deny`
/// "#);
/// ```
///
/// Serialised it is `{ "issues": [..], "omitted": 0 }`, for tools that show issues in their own way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyError {
    issues: Box<[Issue]>,
    omitted: usize,
}

/// One thing that is wrong in a document: where, what, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    code: IssueCode,
    pointer: Box<str>,
    place: Option<Position>,
    message: Box<str>,
    help: Option<Box<str>>,
}

/// Where in the source text an issue is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    line: usize,
    column: usize,
    /// The line's text, or a part of it, and how many characters of it stand before the place.
    excerpt: Box<str>,
    before: usize,
}

impl PolicyError {
    /// The issues, at least one.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    /// How many issues there are beyond the first 10,000, which are all that is kept.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// The same issues without lines and columns, for a document whose text its author has never seen.
    pub(crate) fn without_places(mut self) -> Self {
        for issue in &mut self.issues {
            issue.place = None;
        }
        self
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.issues.len() + self.omitted;
        let plural = if count == 1 { "" } else { "s" };
        writeln!(f, "the document is no policy: {count} issue{plural}")?;
        for issue in &self.issues {
            write!(f, "\nerror[{}]: {}\n  ", issue.code, Shown(&issue.message))?;
            let pointer = Shown(if issue.pointer.is_empty() { "the document" } else { &issue.pointer });
            match &issue.place {
                None => {
                    writeln!(f, "in {pointer}")?;
                    if issue.help.is_some() {
                        f.write_str("  ")?;
                    }
                }
                Some(Position { line, column, excerpt, before }) => {
                    let number = line.to_string();
                    let margin = " ".repeat(number.len());
                    // Below a character that takes two cells or none the mark may be off; line and column are not.
                    let mark: String = excerpt
                        .chars()
                        .take(*before)
                        .map(|c| if c == '\t' { '\t' } else { ' ' })
                        .chain(['^'])
                        .collect();
                    writeln!(f, "at line {line}, column {column}, in {pointer}")?;
                    writeln!(f, "{margin} |\n{number} | {excerpt}\n{margin} | {mark}")?;
                    if issue.help.is_some() {
                        write!(f, "{margin} ")?;
                    }
                }
            }
            if let Some(help) = &issue.help {
                writeln!(f, "= help: {}", Shown(help))?;
            }
        }
        if self.omitted > 0 {
            writeln!(f, "\n... and {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl Error for PolicyError {}

/// An object with its `code`, `pointer`, `line`, `column`, `message` and `help`; what there is none of is `null`.
impl Serialize for Issue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_struct("Issue", 6)?;
        members.serialize_field("code", self.code.as_str())?;
        members.serialize_field("pointer", self.pointer())?;
        members.serialize_field("line", &self.line())?;
        members.serialize_field("column", &self.column())?;
        members.serialize_field("message", self.message())?;
        members.serialize_field("help", &self.help())?;
        members.end()
    }
}

impl Issue {
    /// What kind of issue it is; stable.
    pub fn code(&self) -> IssueCode {
        self.code
    }

    /// The JSON Pointer (RFC 6901) of the place: of the member itself for an unknown or duplicate key or a wrong value,
    /// of the object that lacks a key or holds two that exclude each other, of the element of a list. Empty for the whole
    /// document.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The line in the source text, from 1; unknown for a policy that was not read from text.
    pub fn line(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.line)
    }

    /// The column in the source text, in characters from 1.
    pub fn column(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.column)
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How to mend it.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

/// On one line, without the place in the text: `unknown_key: /tools/t/denyif: unknown key ... (did you mean ...)`. What would
/// end the line, steer a terminal or turn the direction of the text is shown as an escape.
impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.code, Shown(&self.pointer), Shown(&self.message))?;
        match &self.help {
            Some(help) => write!(f, " ({})", Shown(help)),
            None => Ok(()),
        }
    }
}

/// A text in which every character that [`steers`] is an escape.
struct Shown<'t>(&'t str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unsafe_to_print(*c)) {
            write!(f, "{}{}", rest.get(..at).unwrap_or_default(), c.escape_debug())?;
            rest = rest.get(at + c.len_utf8()..).unwrap_or_default();
        }
        f.write_str(rest)
    }
}

/// Whether a character, written as it is, would end a line, steer a terminal, or turn the direction of the text around it.
pub(super) fn is_unsafe_to_print(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kind of an issue. Its text is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum IssueCode {
            $($(#[$doc])* $name,)*
        }

        impl IssueCode {
            /// The code as text.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    /// The text is not JSON: `{"version": "1",}`.
    Syntax = "syntax",
    /// The bytes are not UTF-8.
    NotUtf8 = "not_utf8",
    /// The text begins with a byte order mark.
    ByteOrderMark = "byte_order_mark",
    /// The document has more bytes than the bound.
    DocumentTooLarge = "document_too_large",
    /// Arrays and objects stand deeper in each other than the bound.
    TooDeep = "too_deep",
    /// A value of another JSON type is needed here: `"tools": []`.
    WrongType = "wrong_type",
    /// A key that must be there is not: a limit without a `scope`.
    MissingKey = "missing_key",
    /// No such key: `denyif`.
    UnknownKey = "unknown_key",
    /// The key stands twice in one object.
    DuplicateKey = "duplicate_key",
    /// A key that does not belong to its neighbours: `burst` in a fixed window, `ignore_case` on `gt`.
    MisplacedKey = "misplaced_key",
    /// Two keys that exclude each other: `value` and `value_from`.
    ConflictingKeys = "conflicting_keys",
    /// A word that is not one of those it may be: `"default": "maybe"`, an unknown operator, scope, or window (`"fortnight"`).
    UnknownValue = "unknown_value",
    /// A list that must have an element has none: an empty `any`.
    EmptyList = "empty_list",
    /// A list or map is longer than the bound.
    TooMany = "too_many",
    /// A text is longer than the bound.
    TooLong = "too_long",
    /// No pattern of tool names: an empty one, or `"*"` as a key of `tools`.
    InvalidPattern = "invalid_pattern",
    /// No path into a call: `amount` for `args.amount`.
    InvalidPath = "invalid_path",
    /// A value that the operator cannot compare with.
    InvalidValue = "invalid_value",
    /// `null` as a value, or inside one.
    NullValue = "null_value",
    /// A number that no 64-bit integer is, nor the shortest text of a double: `1e400`, `0.30000000000000000001`, 2^64 in full.
    InexactNumber = "inexact_number",
    /// No regular expression of the `regex` crate's syntax, such as one with a backreference.
    InvalidRegex = "invalid_regex",
    /// A regular expression whose compiled form is larger than the bound.
    RegexTooLarge = "regex_too_large",
    /// No duration: `"10x"`, `0`, more than 400 days.
    InvalidDuration = "invalid_duration",
    /// No amount: negative, too large, or with more than six decimals.
    InvalidAmount = "invalid_amount",
    /// No offset from UTC.
    InvalidUtcOffset = "invalid_utc_offset",
    /// Two limits of one counter disagree in window, scope, algorithm, burst or lease.
    CounterDisagrees = "counter_disagrees",
}

impl fmt::Display for IssueCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How many issues are kept, and how many bytes of pointers and messages: more help nobody.
const KEPT: usize = 10_000;
const KEPT_BYTES: usize = 4 << 20;

/// Issues as they are found, with byte offsets for places.
#[derive(Default)]
pub(crate) struct Issues {
    found: Vec<(usize, Issue)>,
    bytes: usize,
    omitted: usize,
}

impl Issues {
    pub(crate) fn add(&mut self, code: IssueCode, at: usize, pointer: &str, message: String, help: Option<String>) {
        let bytes = self.bytes + pointer.len() + message.len();
        if self.found.len() == KEPT || (bytes > KEPT_BYTES && !self.found.is_empty()) {
            self.omitted += 1;
            return;
        }
        self.bytes = bytes;
        let help = help.map(Into::into);
        let issue = Issue { code, pointer: pointer.into(), place: None, message: message.into(), help };
        self.found.push((at, issue));
    }

    /// Whether no further ones are kept.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() == KEPT
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The error, with lines and columns. Linear in the text and the issues.
    pub(crate) fn into_error(mut self, text: &str) -> PolicyError {
        self.found.sort_by_key(|(at, _)| *at);
        let (mut line, mut line_start, mut column, mut seen) = (1, 0, 1, 0);
        let issues = self.found.into_iter().map(|(at, mut issue)| {
            let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
            let between = text.get(seen..at).unwrap_or_default();
            if let Some(newline) = between.rfind('\n') {
                line += between.matches('\n').count();
                line_start = seen + newline + 1;
                column = 1;
            }
            column += text.get(seen.max(line_start)..at).unwrap_or_default().chars().count();
            seen = at;
            issue.place = Some(place(text, (line, line_start), column, at));
            issue
        });
        PolicyError { issues: issues.collect(), omitted: self.omitted }
    }
}

fn place(text: &str, (line, line_start): (usize, usize), column: usize, at: usize) -> Position {
    /// How many characters of a line are shown on either side of the place.
    const SHOWN: usize = 60;
    let head = text.get(line_start..at).unwrap_or_default();
    let tail = text.get(at..).unwrap_or_default();
    let from = head.char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
    let to = tail.char_indices().nth(SHOWN).map_or(tail.len(), |(at, _)| at);
    let (head, shown) = (head.get(from..).unwrap_or_default(), tail.get(..to).unwrap_or_default());
    let line_end = shown.find(['\n', '\r']);
    let cut = |cut: bool| if cut { "..." } else { "" };
    let excerpt = format!(
        "{}{head}{}{}",
        cut(from > 0),
        shown.get(..line_end.unwrap_or(to)).unwrap_or_default(),
        cut(line_end.is_none() && to < tail.len())
    );
    // What steers a terminal or turns the text is shown as a mark.
    let excerpt: String = excerpt
        .chars()
        .map(|c| if is_unsafe_to_print(c) && c != '\t' { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    let before = head.chars().count() + cut(from > 0).len();
    Position { line, column, excerpt: excerpt.into(), before }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lines_and_columns_of_characters() {
        let text = "{\n  \"ä\": 1,\r\n\t\"b\": 2\n}";
        let mut issues = Issues::default();
        let b = text.find("\"b\"").unwrap();
        let one = text.find('1').unwrap();
        issues.add(IssueCode::UnknownKey, b, "/b", "second".into(), None);
        issues.add(IssueCode::WrongType, one, "/ä", "first".into(), Some("mend it".into()));
        let error = issues.into_error(text);
        let places: Vec<_> = error.issues().iter().map(|issue| (issue.line(), issue.column())).collect();
        assert_eq!(places, [(Some(2), Some(8)), (Some(3), Some(2))]);
        assert_eq!(
            error.to_string(),
            "the document is no policy: 2 issues\n\
             \nerror[wrong_type]: first\n  at line 2, column 8, in /ä\n  |\n2 |   \"ä\": 1,\n  |        ^\n  = help: mend it\n\
             \nerror[unknown_key]: second\n  at line 3, column 2, in /b\n  |\n3 | \t\"b\": 2\n  | \t^\n"
        );
    }

    #[test]
    fn an_issue_is_shown_on_one_line_and_steers_nothing() {
        let mut issues = Issues::default();
        let odd = "a\nb\u{1b}[31m\u{202e}\u{2066}\u{2028}ä\\";
        issues.add(IssueCode::UnknownKey, 0, &format!("/{odd}"), format!("`{odd}`"), Some(odd.into()));
        let error = issues.into_error(odd);
        let shown = r"a\nb\u{1b}[31m\u{202e}\u{2066}\u{2028}ä\";
        assert_eq!(error.issues()[0].pointer(), format!("/{odd}"), "the pointer itself is what it is");
        assert_eq!(error.issues()[0].to_string(), format!("unknown_key: /{shown}: `{shown}` ({shown})"));
        let whole = error.to_string();
        assert!(whole.contains(&format!("]: `{shown}`\n  at line 1, column 1, in /{shown}\n")), "{whole}");
        assert!(whole.chars().all(|c| c == '\n' || !is_unsafe_to_print(c)), "{whole}");
    }

    #[test]
    fn long_lines_are_cut_and_many_issues_counted() {
        let text = format!("{}!{}", "x".repeat(200), "y".repeat(200));
        let mut issues = Issues::default();
        for _ in 0..KEPT + 5 {
            issues.add(IssueCode::Syntax, 200, "", "odd".into(), None);
        }
        let error = issues.into_error(&text);
        assert_eq!((error.issues().len(), error.omitted()), (KEPT, 5));
        let Some(Position { excerpt, before, column, .. }) = &error.issues()[0].place else { panic!("a place") };
        assert_eq!((*column, excerpt.chars().nth(*before)), (201, Some('!')));
        assert!(excerpt.len() < 140);
    }
}
