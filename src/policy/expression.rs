//! Regular expressions of a policy.

use std::sync::Arc;

use regex::Regex;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

/// A regular expression, matched by the `regex` crate, or by a walk over the bytes if it is plain
/// enough.
///
/// The walk pays: without it W2 takes 1.28 times as long (146 ns in place of 114, slower than
/// `jsonschema`), and a policy of 359 entries with an expression holds 2.6 times the memory.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    #[cfg_attr(not(feature = "analysis"), expect(dead_code, reason = "only tools print it"))]
    source: Arc<str>,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Walk(Arc<Walk>),
    Search(Regex),
}

impl Expression {
    pub(crate) fn new(compiled: Regex, ignore_case: bool) -> Self {
        let source = compiled.as_str().into();
        let way = match Walk::new(compiled.as_str(), ignore_case) {
            Some(walk) => Way::Walk(Arc::new(walk)),
            None => Way::Search(compiled),
        };
        Self { source, way }
    }

    /// Returns the text of the expression in the policy.
    #[cfg(feature = "analysis")]
    pub(crate) fn as_str(&self) -> &str {
        &self.source
    }

    /// Returns `true` if the text has a match. Linear in the text.
    #[inline]
    pub(crate) fn is_match(&self, text: &str) -> bool {
        match &self.way {
            Way::Walk(walk) => walk.is_match(text),
            Way::Search(regex) => regex.is_match(text),
        }
    }
}

/// An expression that begins with `^`, followed by plain texts and repeated classes, such as
/// `^[a-z0-9-]{1,63}$` or `^INV-[0-9]{4}/[^/]+$`. Each repetition takes as many bytes as it can.
/// That never loses a match, because nothing that it takes can begin what follows.
#[derive(Debug)]
struct Walk {
    pieces: Box<[Piece]>,
    /// It ends with `$`.
    is_whole: bool,
}

#[derive(Debug)]
enum Piece {
    Text(Box<[u8]>),
    Run { class: Box<Bytes>, least: usize, most: usize },
}

/// A set of bytes.
type Bytes = [bool; 256];

impl Walk {
    fn new(source: &str, ignore_case: bool) -> Option<Self> {
        let hir = ParserBuilder::new().case_insensitive(ignore_case).build().parse(source).ok()?;
        let mut parts = Vec::new();
        flatten(&hir, &mut parts);
        let (begin, mut parts) = parts.split_first()?;
        if !matches!(begin.kind(), HirKind::Look(Look::Start)) {
            return None;
        }
        let mut is_whole = false;
        if let Some((end, before)) = parts.split_last()
            && matches!(end.kind(), HirKind::Look(Look::End))
        {
            (parts, is_whole) = (before, true);
        }
        let pieces: Box<[Piece]> = parts.iter().map(|part| Piece::new(part)).collect::<Option<_>>()?;
        Self::is_settled(&pieces).then_some(Self { pieces, is_whole })
    }

    /// Returns `true` if each repetition without a fixed number ends where its class does: nothing
    /// that may follow begins with one of its bytes.
    fn is_settled(mut pieces: &[Piece]) -> bool {
        while let Some((piece, rest)) = pieces.split_first() {
            if let Piece::Run { class, least, most } = piece
                && least < most
            {
                let needed = rest.iter().position(|next| !next.may_be_empty()).map_or(rest.len(), |needed| needed + 1);
                if rest.iter().take(needed).any(|next| next.can_begin_in(class)) {
                    return false;
                }
            }
            pieces = rest;
        }
        true
    }

    #[inline]
    fn is_match(&self, text: &str) -> bool {
        let mut rest = text.as_bytes();
        for piece in &self.pieces {
            let after = match piece {
                Piece::Text(text) => rest.strip_prefix(&**text),
                Piece::Run { class, least, most } => {
                    let taken = rest.iter().take(*most).take_while(|byte| has(class, **byte)).count();
                    if taken < *least { None } else { rest.get(taken..) }
                }
            };
            match after {
                Some(after) => rest = after,
                None => return false,
            }
        }
        !self.is_whole || rest.is_empty()
    }
}

impl Piece {
    fn new(part: &Hir) -> Option<Self> {
        match part.kind() {
            HirKind::Literal(literal) => Some(Self::Text(literal.0.clone())),
            HirKind::Class(_) => Self::run(part, 1, Some(1)),
            HirKind::Repetition(Repetition { min, max, sub, .. }) => Self::run(sub, *min, *max),
            _ => None,
        }
    }

    fn run(of: &Hir, least: u32, most: Option<u32>) -> Option<Self> {
        let mut class = Box::new([false; 256]);
        let mut add = |first: u8, last: u8| {
            class.iter_mut().take(usize::from(last) + 1).skip(first.into()).for_each(|byte| *byte = true)
        };
        let mut of = of;
        while let HirKind::Capture(capture) = of.kind() {
            of = &capture.sub;
        }
        // A repetition counts bytes, so a character of several bytes is accepted only where all of
        // them are in the class and any number is taken.
        let is_counted = least > 1 || most.is_some();
        match of.kind() {
            HirKind::Literal(literal) => match *literal.0 {
                [byte] => add(byte, byte),
                _ => return None,
            },
            HirKind::Class(Class::Unicode(found)) => {
                for range in found.ranges() {
                    let (first, last) = (u32::from(range.start()), u32::from(range.end()));
                    match (u8::try_from(first), u8::try_from(last)) {
                        (Ok(first), Ok(last)) if last < 0x80 => add(first, last),
                        (Ok(first), _) if first <= 0x80 && last == u32::from(char::MAX) && !is_counted => {
                            add(first, 0xff)
                        }
                        _ => return None,
                    }
                }
            }
            _ => return None,
        }
        let most = most.map_or(Some(usize::MAX), |most| usize::try_from(most).ok())?;
        Some(Self::Run { class, least: usize::try_from(least).ok()?, most })
    }

    fn may_be_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Run { least, .. } => *least == 0,
        }
    }

    fn can_begin_in(&self, bytes: &Bytes) -> bool {
        match self {
            Self::Text(text) => text.first().is_some_and(|first| has(bytes, *first)),
            Self::Run { class, .. } => class.iter().zip(bytes).any(|(one, other)| *one && *other),
        }
    }
}

#[inline]
fn has(bytes: &Bytes, byte: u8) -> bool {
    bytes.get(usize::from(byte)).copied().unwrap_or(false)
}

/// Flattens a sequence, out of its groups. The parser bounds the nesting of an expression.
fn flatten<'h>(hir: &'h Hir, parts: &mut Vec<&'h Hir>) {
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Concat(each) => each.iter().for_each(|part| flatten(part, parts)),
        HirKind::Capture(capture) => flatten(&capture.sub, parts),
        _ => parts.push(hir),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk(source: &str) -> Option<Walk> {
        Walk::new(source, false)
    }

    #[test]
    fn plain_expressions_are_walked() {
        for source in [
            "^",
            "^$",
            "^a",
            "^[a-z]*$",
            "^[A-Za-z0-9 ._-]{1,200}$",
            "^INV-[0-9]{4}/[^/]+$",
            r"\A/srv/[^/]+\z",
            "^([a-z]+)@(?:example)[.]com$",
            "^.*$",
            "^é[0-9]?x",
            "^-?[0-9]+$",
            "^[a-z][a-z0-9]*$",
            "^[a-z]+@[a-z]+$",
            "^[0-9]{4}[0-9-]{2}$",
            "^()a[^/]{1,}$",
            "^[^a]*a",
            r"^[^\x00-\x7f]+$",
        ] {
            assert!(walk(source).is_some(), "{source}");
        }
        // What the crate alone tells.
        for source in [
            "a",
            "a$",
            "(?m)^a$",
            "^a|b$",
            "^(?:a|bc)$",
            "^[a-z]+z$",
            "^[a-z]+-?[a-z]$",
            "^.*x",
            "^.{3}$",
            "^.?$",
            r"^\d+$",
            "^(?-u:[0-9])$",
            "^[é]+$",
            "^(?:ab)+$",
            r"^a\b",
            "^a$b",
            "^[^/]+é$",
            "^[a&&b]$",
            r"^[a-\x{80}]+$",
            "^[a-é]+$",
            r"^[é-\x{10ffff}]+$",
            "^[a-z]{2,3}-?_*[a-c]",
        ] {
            assert!(walk(source).is_none(), "{source}");
        }
        // Unicode folds `k` to a sign of three bytes.
        assert!(Walk::new("^[k]+$", true).is_none());
        assert!(Walk::new("^[a-j]+$", true).is_some());
    }

    fn piece() -> impl Strategy<Value = String> {
        let one = prop::sample::select(vec![
            "a", "b", "[ab]", "[a-c]", "[^a]", "[^/]", ".", "/", "é", "(a)", "(?:ab)", "[a-é]", "(?s:.)", r"\d",
        ]);
        let many = prop::sample::select(vec!["", "", "?", "*", "+", "{2}", "{1,2}", "{0}", "{2,}", "*?", "{0,3}"]);
        (one, many).prop_map(|(one, many)| format!("{one}{many}"))
    }

    proptest! {
        #[test]
        fn a_walk_finds_what_a_search_finds(
            begin in prop::sample::select(vec!["^", "^", "^", "(?m)^", ""]),
            pieces in prop::collection::vec(piece(), 0..5),
            end in prop::sample::select(vec!["$", "$", "", "(?m)$"]),
            ignore_case: bool,
            texts in prop::collection::vec("[abcA/é\n1]{0,6}", 16),
        ) {
            let source = format!("{begin}{}{end}", pieces.concat());
            let regex = regex::RegexBuilder::new(&source).case_insensitive(ignore_case).build().unwrap();
            if let Some(walk) = Walk::new(&source, ignore_case) {
                for text in texts {
                    prop_assert_eq!(walk.is_match(&text), regex.is_match(&text), "{} {:?}", source, text);
                }
            }
        }
    }
}
