//! Errors: the issues of a document.

use std::error::Error;
use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// The error of a document that is not a valid policy. Lists every issue, in document order.
///
/// `Display` shows each issue with the line of the document that it is in:
///
/// ```
/// let error = r#"{ "version": "1", "default": "dney" }"#.parse::<toolgate::Policy>().unwrap_err();
/// assert_eq!(error.to_string(), r#"invalid policy: 1 issue
///
/// error[unknown_value]: `dney` is not an outcome
///   at line 1, column 30, in /default
///   |
/// 1 | { "version": "1", "default": "dney" }
///   |                              ^
///   = help: did you mean `deny`? expected one of `allow`, `deny`
/// "#);
/// ```
///
/// Serialises as `{ "issues": [..], "omitted": 0 }`, for tools that show issues in their own way.
///
/// `Debug` is the same text as `Display`, so that `main` and `unwrap` show it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct PolicyError {
    issues: Box<[Issue]>,
    omitted: usize,
}

/// One fault of a document: where it is, what is wrong, and how to fix it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    code: IssueCode,
    pointer: Box<str>,
    position: Option<Position>,
    message: Box<str>,
    help: Option<Box<str>>,
}

/// The position of an issue in the source text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    line: usize,
    column: usize,
    /// The line, or a part of it.
    excerpt: Box<str>,
    /// The number of characters of the excerpt before the position.
    before: usize,
}

impl fmt::Debug for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PolicyError {
    /// The issues: at least one, at most 10,000.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    /// The number of further issues, which are not kept.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Removes lines and columns: the text was generated, and its author has never seen it.
    pub(crate) fn without_places(mut self) -> Self {
        for issue in &mut self.issues {
            issue.position = None;
        }
        self
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.issues.len() + self.omitted;
        let plural = if count == 1 { "" } else { "s" };
        writeln!(f, "invalid policy: {count} issue{plural}")?;
        for issue in &self.issues {
            write!(f, "\nerror[{}]: {}\n  ", issue.code, Shown(&issue.message))?;
            let pointer = Shown(if issue.pointer.is_empty() { "the document" } else { &issue.pointer });
            match &issue.position {
                None => {
                    writeln!(f, "in {pointer}")?;
                    if issue.help.is_some() {
                        f.write_str("  ")?;
                    }
                }
                Some(Position { line, column, excerpt, before }) => {
                    let number = line.to_string();
                    let margin = " ".repeat(number.len());
                    // A character that is not one cell wide shifts the mark, but not the column.
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

/// An object of `code`, `pointer`, `line`, `column`, `message` and `help`; a missing one is `null`.
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
    /// The kind of the issue. Stable across versions.
    pub fn code(&self) -> IssueCode {
        self.code
    }

    /// The JSON Pointer (RFC 6901) to the fault; empty for the whole document.
    ///
    /// For an unknown or duplicate key, or an invalid value, it leads to the member; for a missing
    /// key, or two that exclude each other, to the object.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The line in the source text, from 1. `None` if the policy was not read from text.
    pub fn line(&self) -> Option<usize> {
        self.position.as_ref().map(|position| position.line)
    }

    /// The column in the source text, in characters from 1. `None` if the policy was not read from
    /// text.
    pub fn column(&self) -> Option<usize> {
        self.position.as_ref().map(|position| position.column)
    }

    /// A sentence that says what is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// A sentence that says how to fix it.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

/// One line, without the position: `code: pointer: message (help)`. Line breaks, and characters
/// that control a terminal or the direction of text, are escaped.
impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.code, Shown(&self.pointer), Shown(&self.message))?;
        match &self.help {
            Some(help) => write!(f, " ({})", Shown(help)),
            None => Ok(()),
        }
    }
}

/// Shows a text with each character that [is unsafe to print](is_unsafe_to_print) escaped.
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

/// Returns `true` for a character that ends a line, controls a terminal, or changes the direction
/// of the text around it.
pub(super) fn is_unsafe_to_print(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kind of an [`Issue`]. Its text is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum IssueCode {
            $($(#[$doc])* $name,)*
        }

        impl IssueCode {
            /// The text of the code, such as `unknown_key`.
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
    /// The document exceeds the [bound](crate::Bounds::document_bytes) of its size.
    DocumentTooLarge = "document_too_large",
    /// Arrays and objects are nested deeper than the [bound](crate::Bounds::nesting).
    TooDeep = "too_deep",
    /// A value has the wrong JSON type: `"tools": []`.
    WrongType = "wrong_type",
    /// A required key is missing: a limit without a `scope`.
    MissingKey = "missing_key",
    /// An unknown key: `denyif`.
    UnknownKey = "unknown_key",
    /// A key occurs twice in one object.
    DuplicateKey = "duplicate_key",
    /// A key does not fit its neighbours: `burst` in a fixed window, `ignore_case` with `gt`.
    MisplacedKey = "misplaced_key",
    /// Two keys exclude each other: `value` and `value_from`.
    ConflictingKeys = "conflicting_keys",
    /// An unknown word: `"default": "maybe"`, or an unknown operator, scope or window
    /// (`"fortnight"`).
    UnknownValue = "unknown_value",
    /// A list that needs an element is empty: an empty `any`.
    EmptyList = "empty_list",
    /// A list or map is longer than the bound.
    TooMany = "too_many",
    /// A text is longer than the bound.
    TooLong = "too_long",
    /// An invalid pattern of tool names: an empty one, or `"*"` as a key of `tools`.
    InvalidPattern = "invalid_pattern",
    /// An invalid path into a call: `amount` for `args.amount`.
    InvalidPath = "invalid_path",
    /// A text that is compared, or a name, has a control character: `"\bdrop\b"` for
    /// `"\\bdrop\\b"`.
    ControlCharacter = "control_character",
    /// A value that the operator cannot compare with, or that a part of the time never has.
    InvalidValue = "invalid_value",
    /// `null` as a value, or inside one.
    NullValue = "null_value",
    /// A number that is neither a 64-bit integer nor the shortest form of an `f64`: `1e400`,
    /// `0.30000000000000000001`, 2^64 in full.
    InexactNumber = "inexact_number",
    /// An invalid regular expression in the syntax of the `regex` crate, such as one with a
    /// backreference.
    InvalidRegex = "invalid_regex",
    /// A regular expression whose compiled form exceeds the bound.
    RegexTooLarge = "regex_too_large",
    /// An invalid duration: `"10x"`, `0`, or more than 400 days.
    InvalidDuration = "invalid_duration",
    /// An invalid amount: negative, too large, or with more than six decimals.
    InvalidAmount = "invalid_amount",
    /// An invalid offset from UTC.
    InvalidUtcOffset = "invalid_utc_offset",
    /// Two limits of one counter disagree in window, scope, algorithm, burst or lease.
    CounterDisagrees = "counter_disagrees",
}

impl fmt::Display for IssueCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// At most this many issues are kept; more would not help anyone.
const MAX_KEPT: usize = 10_000;
/// The pointers and messages that are kept have at most this many bytes.
const MAX_KEPT_BYTES: usize = 4 << 20;

/// Issues as they are found, each with its byte offset in the text.
#[derive(Default)]
pub(crate) struct Issues {
    found: Vec<(usize, Issue)>,
    bytes: usize,
    omitted: usize,
}

impl Issues {
    pub(crate) fn add(&mut self, code: IssueCode, at: usize, pointer: &str, message: String, help: Option<String>) {
        let bytes = self.bytes + pointer.len() + message.len();
        if self.found.len() == MAX_KEPT || (bytes > MAX_KEPT_BYTES && !self.found.is_empty()) {
            self.omitted += 1;
            return;
        }
        self.bytes = bytes;
        let help = help.map(Into::into);
        let issue = Issue { code, pointer: pointer.into(), position: None, message: message.into(), help };
        self.found.push((at, issue));
    }

    /// Returns `true` if further issues are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() == MAX_KEPT
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Makes the error, with lines and columns. Takes O(text + n log n) for `n` issues.
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
            issue.position = Some(position(text, (line, line_start), column, at));
            issue
        });
        PolicyError { issues: issues.collect(), omitted: self.omitted }
    }
}

fn position(text: &str, (line, line_start): (usize, usize), column: usize, at: usize) -> Position {
    /// The number of characters that an excerpt shows on either side of the position.
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
    // One character for one: an escape would shift the mark below it.
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
    fn positions_count_lines_and_characters() {
        let text = "{\n  \"ä\": 1,\r\n\t\"b\": 2\n}";
        let mut issues = Issues::default();
        let b = text.find("\"b\"").unwrap();
        let one = text.find('1').unwrap();
        issues.add(IssueCode::UnknownKey, b, "/b", "second".into(), None);
        issues.add(IssueCode::WrongType, one, "/ä", "first".into(), Some("fix it".into()));
        let error = issues.into_error(text);
        let positions: Vec<_> = error.issues().iter().map(|issue| (issue.line(), issue.column())).collect();
        assert_eq!(positions, [(Some(2), Some(8)), (Some(3), Some(2))]);
        assert_eq!(
            error.to_string(),
            "invalid policy: 2 issues\n\
             \nerror[wrong_type]: first\n  at line 2, column 8, in /ä\n  |\n2 |   \"ä\": 1,\n  |        ^\n  \
             = help: fix it\n\
             \nerror[unknown_key]: second\n  at line 3, column 2, in /b\n  |\n3 | \t\"b\": 2\n  | \t^\n"
        );
    }

    #[test]
    fn an_issue_is_shown_on_one_line_and_safe_to_print() {
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
        for _ in 0..MAX_KEPT + 5 {
            issues.add(IssueCode::Syntax, 200, "", "odd".into(), None);
        }
        let error = issues.into_error(&text);
        assert_eq!((error.issues().len(), error.omitted()), (MAX_KEPT, 5));
        let Some(Position { excerpt, before, column, .. }) = &error.issues()[0].position else { panic!("a position") };
        assert_eq!((*column, excerpt.chars().nth(*before)), (201, Some('!')));
        assert!(excerpt.len() < 140);
    }
}
