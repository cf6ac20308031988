//! A strict JSON parser, into a tree with positions.
//!
//! `serde_json` keeps the last of two equal keys, rounds numbers and forgets positions. A policy is
//! judged by what it says, and a call by what is forwarded, so both are read here: duplicate keys
//! stay visible as two members, a number keeps its text, and every value knows its byte offset.

use std::borrow::Cow;

use super::node::{Json, Member, Node};

/// The reason why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) at: usize,
    pub(crate) what: SyntaxErrorKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SyntaxErrorKind {
    #[error("unexpected end of the text")]
    Ended,
    #[error("expected a value")]
    ExpectedValue,
    #[error("expected a key in double quotes")]
    ExpectedKey,
    #[error("expected `:` after the key")]
    ExpectedColon,
    #[error("expected `,` or `}}`")]
    ExpectedMemberEnd,
    #[error("expected `,` or `]`")]
    ExpectedElementEnd,
    #[error("trailing comma")]
    TrailingComma,
    #[error("JSON does not allow comments")]
    Comment,
    #[error("a control character in a string must be written as an escape, such as `\\n`")]
    ControlCharacter,
    #[error("invalid escape in a string")]
    Escape,
    #[error("unpaired surrogate in a string")]
    LoneSurrogate,
    #[error("invalid number")]
    Number,
    #[error("unexpected text after the value")]
    TrailingText,
    #[error("nested too deeply")]
    TooDeep,
}

/// A pull parser. [`Parser::node`] reads a whole value; [`Parser::enter_object`] and
/// [`Parser::next_key`] read an object member by member, so that a large one need not be in memory
/// as a tree.
pub(crate) struct Parser<'t> {
    text: &'t str,
    at: usize,
    /// The number of arrays and objects that may still be opened inside each other.
    depth_left: usize,
    next_member: NextMember,
}

#[derive(Clone, Copy, PartialEq)]
enum NextMember {
    First,
    Later,
}

type Parsed<T> = Result<T, SyntaxError>;

impl<'t> Parser<'t> {
    /// Makes a parser of `text` with at most `nesting` arrays and objects inside each other.
    pub(crate) fn new(text: &'t str, nesting: usize) -> Self {
        Self { text, at: 0, depth_left: nesting, next_member: NextMember::Later }
    }

    /// Parses the whole text as one value.
    pub(crate) fn document(text: &'t str, nesting: usize) -> Parsed<Node<'t>> {
        let mut parser = Self::new(text, nesting);
        let node = parser.node()?;
        parser.finish()?;
        Ok(node)
    }

    /// Returns `true` if the next value is an object, and its offset.
    pub(crate) fn peek_object(&mut self) -> (bool, usize) {
        (self.peek() == Some(b'{'), self.at)
    }

    /// Enters an object. Then [`Parser::next_key`] returns its keys, each to be followed by its
    /// value.
    pub(crate) fn enter_object(&mut self) -> Parsed<()> {
        self.open()?;
        self.next_member = NextMember::First;
        Ok(())
    }

    /// Returns the next key of the object and its offset; after the last one, leaves the object and
    /// returns `None`.
    pub(crate) fn next_key(&mut self) -> Parsed<Option<(usize, Cow<'t, str>)>> {
        let next = std::mem::replace(&mut self.next_member, NextMember::Later);
        match self.peek() {
            Some(b'}') => {
                self.close();
                return Ok(None);
            }
            Some(b',') if next == NextMember::Later => {
                let comma = self.at;
                self.at += 1;
                if self.peek() == Some(b'}') {
                    return Err(SyntaxError { at: comma, what: SyntaxErrorKind::TrailingComma });
                }
            }
            _ if next == NextMember::Later => return Err(self.unexpected(SyntaxErrorKind::ExpectedMemberEnd)),
            _ => {}
        }
        if self.peek() != Some(b'"') {
            return Err(self.unexpected(SyntaxErrorKind::ExpectedKey));
        }
        let at = self.at;
        let key = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.unexpected(SyntaxErrorKind::ExpectedColon));
        }
        self.at += 1;
        Ok(Some((at, key)))
    }

    /// Parses the next value, whole.
    pub(crate) fn node(&mut self) -> Parsed<Node<'t>> {
        let first = self.peek();
        let at = self.at;
        let json = match first {
            Some(b'{') => Json::Object(self.members(Self::node)?),
            Some(b'[') => Json::Array(self.array()?),
            Some(b'"') => Json::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => Json::Number(self.number()?),
            _ if self.literal("null") => Json::Null,
            _ if self.literal("true") => Json::Bool(true),
            _ if self.literal("false") => Json::Bool(false),
            _ => return Err(self.unexpected(SyntaxErrorKind::ExpectedValue)),
        };
        Ok(Node { at, json })
    }

    /// Parses the next value, with the members of objects down to this many levels. What is deeper
    /// or in a list is checked, and left out.
    pub(crate) fn outline(&mut self, levels: usize) -> Parsed<Node<'t>> {
        let first = self.peek();
        let at = self.at;
        let json = match (first, levels.checked_sub(1)) {
            (Some(b'{'), Some(below)) => Json::Object(self.members(|parser| parser.outline(below))?),
            (Some(b'{'), None) => {
                self.skip()?;
                Json::Object(Vec::new())
            }
            (Some(b'['), _) => {
                self.skip()?;
                Json::Array(Vec::new())
            }
            _ => return self.node(),
        };
        Ok(Node { at, json })
    }

    /// Checks that only blanks follow.
    pub(crate) fn finish(&mut self) -> Parsed<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected(SyntaxErrorKind::TrailingText)),
        }
    }

    fn members(&mut self, value: impl Fn(&mut Self) -> Parsed<Node<'t>>) -> Parsed<Vec<Member<'t>>> {
        let mut members = Vec::new();
        self.enter_object()?;
        while let Some((at, key)) = self.next_key()? {
            members.push(Member { at, key, value: value(self)? });
        }
        Ok(members)
    }

    fn array(&mut self) -> Parsed<Vec<Node<'t>>> {
        let mut elements = Vec::new();
        let mut there = self.enter_array()?;
        while there {
            elements.push(self.node()?);
            there = self.next_element()?;
        }
        Ok(elements)
    }

    /// Enters an array, and returns `true` if it has an element. If not, leaves it.
    pub(crate) fn enter_array(&mut self) -> Parsed<bool> {
        self.open()?;
        let is_empty = self.peek() == Some(b']');
        if is_empty {
            self.close();
        }
        Ok(!is_empty)
    }

    /// Returns `true` if the array has a further element. If not, leaves it.
    pub(crate) fn next_element(&mut self) -> Parsed<bool> {
        match self.peek() {
            Some(b',') => {
                let comma = self.at;
                self.at += 1;
                if self.peek() == Some(b']') {
                    return Err(SyntaxError { at: comma, what: SyntaxErrorKind::TrailingComma });
                }
                Ok(true)
            }
            Some(b']') => {
                self.close();
                Ok(false)
            }
            _ => Err(self.unexpected(SyntaxErrorKind::ExpectedElementEnd)),
        }
    }

    /// Checks the next value, and keeps nothing of it.
    pub(crate) fn skip(&mut self) -> Parsed<()> {
        match self.peek() {
            Some(b'{') => {
                self.enter_object()?;
                while self.next_key()?.is_some() {
                    self.skip()?;
                }
            }
            Some(b'[') => {
                let mut there = self.enter_array()?;
                while there {
                    self.skip()?;
                    there = self.next_element()?;
                }
            }
            Some(b'"') => {
                self.at += 1;
                self.plain();
                while !self.closes() {
                    self.escape()?;
                    self.plain();
                }
            }
            _ => drop(self.node()?),
        }
        Ok(())
    }

    /// The offset of the next byte, which no blank precedes after [`Parser::peek`].
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    fn open(&mut self) -> Parsed<()> {
        self.depth_left =
            self.depth_left.checked_sub(1).ok_or(SyntaxError { at: self.at, what: SyntaxErrorKind::TooDeep })?;
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.depth_left += 1;
        self.at += 1;
    }

    /// Skips blanks, and returns the next byte.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn rest(&self) -> &'t [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn slice(&self, from: usize) -> &'t str {
        self.text.get(from..self.at).unwrap_or_default()
    }

    fn unexpected(&self, expected: SyntaxErrorKind) -> SyntaxError {
        let what = match self.rest() {
            [] => SyntaxErrorKind::Ended,
            [b'/', b'/' | b'*', ..] => SyntaxErrorKind::Comment,
            _ => expected,
        };
        SyntaxError { at: self.at, what }
    }

    /// Skips `word`, unless it is only the beginning of a longer one.
    fn literal(&mut self, word: &str) -> bool {
        let after = self.rest().strip_prefix(word.as_bytes());
        let found = after.is_some_and(|after| !matches!(after, [b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_', ..]));
        if found {
            self.at += word.len();
        }
        found
    }

    fn number(&mut self) -> Parsed<&'t str> {
        let from = self.at;
        let error = |what| SyntaxError { at: from, what };
        if self.rest().first() == Some(&b'-') {
            self.at += 1;
        }
        let whole = self.digits();
        // No leading zeros: some readers take `05` for an octal number.
        if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
            return Err(error(SyntaxErrorKind::Number));
        }
        if self.rest().first() == Some(&b'.') {
            self.at += 1;
            if self.digits().is_empty() {
                return Err(error(SyntaxErrorKind::Number));
            }
        }
        if let Some(b'e' | b'E') = self.rest().first() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.rest().first() {
                self.at += 1;
            }
            if self.digits().is_empty() {
                return Err(error(SyntaxErrorKind::Number));
            }
        }
        if let Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'_' | b'+' | b'-') = self.rest().first() {
            return Err(error(SyntaxErrorKind::Number));
        }
        let text = self.slice(from);
        Ok(text)
    }

    fn digits(&mut self) -> &'t str {
        let from = self.at;
        let rest = self.rest();
        self.at += rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.slice(from)
    }

    /// Parses a string, at its first quote.
    pub(crate) fn string(&mut self) -> Parsed<Cow<'t, str>> {
        self.at += 1;
        let plain = self.plain();
        if self.closes() {
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        loop {
            text.push(self.escape()?);
            text.push_str(self.plain());
            if self.closes() {
                return Ok(Cow::Owned(text));
            }
        }
    }

    /// Reads the text of a string up to its end, or to its next escape.
    fn plain(&mut self) -> &'t str {
        let from = self.at;
        self.at += plain_length(self.rest());
        self.slice(from)
    }

    /// Leaves a string if it ends here.
    fn closes(&mut self) -> bool {
        let ends = self.rest().first() == Some(&b'"');
        self.at += usize::from(ends);
        ends
    }

    fn escape(&mut self) -> Parsed<char> {
        let error = |what| SyntaxError { at: self.at, what };
        match self.rest() {
            [b'\\', ..] => {
                let (character, length) = unescape(self.rest()).map_err(error)?;
                self.at += length;
                Ok(character)
            }
            [] => Err(error(SyntaxErrorKind::Ended)),
            _ => Err(error(SyntaxErrorKind::ControlCharacter)),
        }
    }
}

/// Returns the number of bytes before the first one that ends a string, begins an escape, or is a
/// control character.
pub(crate) fn plain_length(text: &[u8]) -> usize {
    // Eight bytes at once. Subtracting sets the high bit of each byte that is below the subtrahend,
    // and of no byte before the first such one, as a carry moves to later bytes only.
    const ONES: u64 = u64::MAX / 0xff;
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & (ONES * 0x80);
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let found = below(word, 0x20) | is(b'"') | is(b'\\');
        if found != 0 {
            return 8 * index + found.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    text.len() - rest.len() + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// Returns the character of an escape, and the length of the escape in bytes.
fn unescape(text: &[u8]) -> Result<(char, usize), SyntaxErrorKind> {
    let plain = |character| Ok((character, 2));
    match text {
        [_, b'"', ..] => plain('"'),
        [_, b'\\', ..] => plain('\\'),
        [_, b'/', ..] => plain('/'),
        [_, b'b', ..] => plain('\u{8}'),
        [_, b'f', ..] => plain('\u{c}'),
        [_, b'n', ..] => plain('\n'),
        [_, b'r', ..] => plain('\r'),
        [_, b't', ..] => plain('\t'),
        [_, b'u', rest @ ..] => {
            let first = hex4(rest)?;
            match first {
                0xd800..0xdc00 => {
                    let Some([b'\\', b'u', low @ ..]) = rest.get(4..) else {
                        return Err(SyntaxErrorKind::LoneSurrogate);
                    };
                    let low = hex4(low)?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(SyntaxErrorKind::LoneSurrogate);
                    }
                    let code = 0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00);
                    char::from_u32(code).map(|character| (character, 12)).ok_or(SyntaxErrorKind::LoneSurrogate)
                }
                _ => char::from_u32(first).map(|character| (character, 6)).ok_or(SyntaxErrorKind::LoneSurrogate),
            }
        }
        [_] => Err(SyntaxErrorKind::Ended),
        _ => Err(SyntaxErrorKind::Escape),
    }
}

fn hex4(text: &[u8]) -> Result<u32, SyntaxErrorKind> {
    let digits = text.get(..4).ok_or(SyntaxErrorKind::Ended)?;
    digits.iter().try_fold(0, |code, &digit| {
        char::from(digit).to_digit(16).map(|value| code * 16 + value).ok_or(SyntaxErrorKind::Escape)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::policy::{Pairs, Truth, equal};

    fn error(text: &str) -> Option<(usize, SyntaxErrorKind)> {
        Parser::document(text, 8).err().map(|error| (error.at, error.what))
    }

    #[test]
    fn valid_json_agrees_with_serde_json() {
        for text in [
            "null",
            " true ",
            "[]",
            "{}",
            r#"{"a":[1,2,{"b":null}],"c":"x"}"#,
            r#""\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00 ä😀""#,
            "[0, -0, 1.5, 1e2, 1E+2, -0.25, 5e-1, 18446744073709551615, -9223372036854775808]",
            "\t[\n1\r, 2 ]\n",
        ] {
            let ours = Parser::document(text, 8).unwrap().to_value().unwrap();
            let theirs: Value = serde_json::from_str(text).unwrap();
            // By value: `-0` is the integer 0 here and the float -0.0 there.
            let truth = equal((&ours).into(), (&theirs).into(), &mut Pairs::new());
            assert_eq!(truth, Truth::True, "{text}");
        }
    }

    #[test]
    fn invalid_json_is_reported_with_its_position() {
        use SyntaxErrorKind::*;
        for (text, at, what) in [
            ("", 0, Ended),
            ("  \n", 3, Ended),
            ("{\"a\":1", 6, Ended),
            ("[1,", 3, Ended),
            ("\"abc", 4, Ended),
            ("\"\\", 1, Ended),
            ("\"\\u12", 1, Ended),
            ("{\"a\":1,}", 6, TrailingComma),
            ("[1,]", 2, TrailingComma),
            ("{,}", 1, ExpectedKey),
            ("[,]", 1, ExpectedValue),
            ("{'a':1}", 1, ExpectedKey),
            ("{a:1}", 1, ExpectedKey),
            ("{\"a\" 1}", 5, ExpectedColon),
            ("{\"a\":1 \"b\":2}", 7, ExpectedMemberEnd),
            ("[1 2]", 3, ExpectedElementEnd),
            ("[1}", 2, ExpectedElementEnd),
            ("{\"a\":1/* x */}", 6, Comment),
            ("// x", 0, Comment),
            ("1 2", 2, TrailingText),
            ("{}}", 2, TrailingText),
            ("nul", 0, ExpectedValue),
            ("nulll", 0, ExpectedValue),
            ("[true1]", 1, ExpectedValue),
            ("null\"", 4, TrailingText),
            ("NaN", 0, ExpectedValue),
            ("Infinity", 0, ExpectedValue),
            ("05", 0, Number),
            ("-", 0, Number),
            ("1.", 0, Number),
            (".5", 0, ExpectedValue),
            ("1e", 0, Number),
            ("1_000", 0, Number),
            ("0x10", 0, Number),
            ("\"\t\"", 1, ControlCharacter),
            ("\"\\x\"", 1, Escape),
            ("\"\\uzzzz\"", 1, Escape),
            ("\"\\ud800\"", 1, LoneSurrogate),
            ("\"\\ud800\\u0041\"", 1, LoneSurrogate),
            ("\"\\udc00\"", 1, LoneSurrogate),
            ("[[[[[[[[[", 8, TooDeep),
            ("\u{feff}{}", 0, ExpectedValue),
        ] {
            assert_eq!(error(text), Some((at, what)), "{text}");
        }
        assert_eq!(error("[[[[[[[[]]]]]]]]"), None, "the bound itself is allowed");
        let far = Parser::document("[1e999]", 8).unwrap();
        assert_eq!(far.to_value(), None, "a number that is not held exactly has no value");
    }
}
