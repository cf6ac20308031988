//! Patterns of tool names, and the index that finds those that match a name.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// A name in which `*` matches any run of characters, also the empty one. Nothing else is special,
/// and names compare byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// The texts between the stars: at least two. The first and the last may be empty.
    parts: Box<[Box<str>]>,
}

impl Pattern {
    /// Returns the pattern, or `None` if `text` is an exact name, without a star.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (prefix, rest) = text.split_once('*')?;
        let (middle, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
        let middle = middle.split('*').filter(|part| !part.is_empty());
        Some(Self { parts: [prefix].into_iter().chain(middle).chain([suffix]).map(Into::into).collect() })
    }

    /// Returns `true` if the whole of `name` matches. Linear in its length for each part of the
    /// pattern.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let [prefix, middle @ .., suffix] = &*self.parts else { return false };
        // The ends are fixed and may not overlap. Between them, the leftmost match of each part
        // leaves most of the text to the next one.
        let Some(rest) = name.strip_prefix(&**prefix).and_then(|rest| rest.strip_suffix(&**suffix)) else {
            return false;
        };
        let mut rest = rest;
        middle.iter().all(|part| match rest.split_once(&**part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    }

    fn prefix(&self) -> &[u8] {
        self.parts.first().map_or(&[], |part| part.as_bytes())
    }
}

/// The names and patterns of many entries. An exact name takes one look-up. Patterns take a binary
/// search for each different length of their prefix, the text before the first star; those with an
/// empty prefix are tried one by one.
#[derive(Default)]
pub(crate) struct Names {
    /// All names and patterns, concatenated.
    text: String,
    /// The end of each entry's text.
    ends: Vec<u32>,
    exact: HashTable<ExactName>,
    hash: RandomState,
    /// In document order.
    patterns: Vec<(u32, Pattern)>,
    /// Indices of `patterns`, sorted by prefix; empty up to [`MAX_UNINDEXED_PATTERNS`].
    by_prefix: Vec<u32>,
    /// The different lengths of prefixes.
    prefix_lengths: Vec<usize>,
}

struct ExactName {
    at: u32,
    length: u32,
    entry: u32,
}

/// Up to this many patterns are tried one by one.
const MAX_UNINDEXED_PATTERNS: usize = 8;

impl Names {
    /// Adds the name or pattern of the next entry. Returns `false` if it is an exact name that is
    /// known already, or if all names have more than 4 GiB. A duplicate pattern is not noticed.
    pub(crate) fn insert(&mut self, name: &str) -> bool {
        let pattern = Pattern::parse(name);
        let is_there = pattern.is_none() && self.exact(name).is_some();
        let entry = u32::try_from(self.ends.len()).ok();
        let place = || Some((u32::try_from(self.text.len()).ok()?, u32::try_from(name.len()).ok()?));
        let (Some(entry), Some((at, length)), false) = (entry, place(), is_there) else { return false };
        if at.checked_add(length).is_none() {
            return false;
        }
        self.text.push_str(name);
        self.ends.push(at + length);
        if let Some(pattern) = pattern {
            self.patterns.push((entry, pattern));
            return true;
        }
        let Self { text, hash, exact, .. } = self;
        exact.insert_unique(hash_name(hash, name), ExactName { at, length, entry }, |other| {
            hash_name(hash, other.of(text))
        });
        true
    }

    /// The name or pattern of an entry.
    pub(crate) fn name(&self, entry: u32) -> &str {
        let entry = entry as usize;
        let end = self.ends.get(entry).map_or(0, |end| *end as usize);
        let start = entry.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize);
        self.text.get(start..end).unwrap_or_default()
    }

    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The number of entries that are patterns.
    #[cfg(feature = "analysis")]
    pub(crate) fn patterns(&self) -> usize {
        self.patterns.len()
    }

    /// Builds the index, after the last entry.
    pub(crate) fn finish(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.patterns.shrink_to_fit();
        let Self { text, hash, exact, .. } = self;
        exact.shrink_to_fit(|name| hash_name(hash, name.of(text)));
        if self.patterns.len() > MAX_UNINDEXED_PATTERNS {
            let patterns = &self.patterns;
            let prefix = |index: &u32| patterns.get(*index as usize).map_or(&[][..], |(_, pattern)| pattern.prefix());
            self.by_prefix = (0..patterns.len()).filter_map(|index| u32::try_from(index).ok()).collect();
            self.by_prefix.sort_by(|a, b| prefix(a).cmp(prefix(b)));
            self.prefix_lengths = patterns.iter().map(|(_, pattern)| pattern.prefix().len()).collect();
            self.prefix_lengths.sort_unstable();
            self.prefix_lengths.dedup();
        }
    }

    /// The entries that match `name`, in document order.
    #[cfg(any(test, feature = "analysis", feature = "testing"))]
    pub(crate) fn matching(&self, name: &str) -> Matching {
        let mut found = Matching::Nothing;
        self.find(name, &mut found);
        found
    }

    /// Finds the entries that match `name`. `found` must be empty: it is filled in place, because
    /// moving it after writing stalls on store forwarding.
    #[inline]
    pub(crate) fn find(&self, name: &str, found: &mut Matching) {
        let exact = self.exact(name);
        if !self.patterns.is_empty() {
            *found = self.matching_patterns(name, exact);
        } else if let Some(entry) = exact {
            *found = Matching::One(entry);
        }
    }

    /// Out of line, so that a policy of exact names needs no stack space for a list.
    #[inline(never)]
    fn matching_patterns(&self, name: &str, exact: Option<u32>) -> Matching {
        let (mut few, mut count) = ([0; INLINE_MATCHES], 0);
        let mut add = |entry| {
            if let Some(slot) = few.get_mut(count) {
                *slot = entry;
            }
            count += 1;
        };
        self.each_pattern(name, &mut add);
        exact.into_iter().for_each(add);
        match few.get_mut(..count) {
            Some([]) => Matching::Nothing,
            Some([one]) => Matching::One(*one),
            Some(entries) => {
                entries.sort_unstable();
                Matching::Few { entries: few, count }
            }
            None => Matching::Many { exact },
        }
    }

    /// Returns `true` if any entry matches.
    #[inline]
    pub(crate) fn matches(&self, name: &str) -> bool {
        let mut found = self.exact(name).is_some();
        if !found && !self.patterns.is_empty() {
            self.each_pattern(name, &mut |_| found = true);
        }
        found
    }

    /// The entry of exactly that name.
    #[inline]
    fn exact(&self, name: &str) -> Option<u32> {
        // Most policies hide nothing: spare them even the function call.
        if self.exact.is_empty() { None } else { self.look_up(name) }
    }

    #[inline(never)]
    fn look_up(&self, name: &str) -> Option<u32> {
        let is_name = |known: &ExactName| self.text.as_bytes().get(known.range()) == Some(name.as_bytes());
        let found = self.exact.find(hash_name(&self.hash, name), is_name)?;
        Some(found.entry)
    }

    fn each_pattern(&self, name: &str, found: &mut dyn FnMut(u32)) {
        if self.by_prefix.is_empty() {
            for (entry, pattern) in &self.patterns {
                if pattern.matches(name) {
                    found(*entry);
                }
            }
            return;
        }
        for length in &self.prefix_lengths {
            let Some(prefix) = name.as_bytes().get(..*length) else { return };
            let of = |index: &u32| self.patterns.get(*index as usize);
            let begin = self.by_prefix.partition_point(|index| of(index).is_some_and(|(_, p)| p.prefix() < prefix));
            let candidates = self.by_prefix.get(begin..).unwrap_or_default().iter().filter_map(of);
            for (entry, pattern) in candidates.take_while(|(_, pattern)| pattern.prefix() == prefix) {
                if pattern.matches(name) {
                    found(*entry);
                }
            }
        }
    }
}

impl ExactName {
    #[inline]
    fn range(&self) -> Range<usize> {
        let at = self.at as usize;
        at..at + self.length as usize
    }

    fn of<'n>(&self, names: &'n str) -> &'n str {
        names.get(self.range()).unwrap_or_default()
    }
}

#[inline]
fn hash_name(hash: &RandomState, name: &str) -> u64 {
    let mut hasher = hash.build_hasher();
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// The entries that match a name. Up to [`INLINE_MATCHES`] are stored in place, so that finding
/// them needs no memory; if there are more, [`Matching::iter`] tries the patterns again.
#[derive(Clone, Copy)]
pub(crate) enum Matching {
    Nothing,
    One(u32),
    /// In document order.
    Few {
        entries: [u32; INLINE_MATCHES],
        count: usize,
    },
    Many {
        exact: Option<u32>,
    },
}

const INLINE_MATCHES: usize = 6;

impl Matching {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// The entries in document order. `names` and `name` must be those that it was found with.
    pub(crate) fn iter<'a>(&'a self, names: &'a Names, name: &'a str) -> impl Iterator<Item = u32> + 'a {
        let (few, many, exact) = match self {
            Self::Nothing => (&[][..], &[][..], None),
            Self::One(entry) => (std::slice::from_ref(entry), &[][..], None),
            Self::Few { entries, count } => (entries.get(..*count).unwrap_or_default(), &[][..], None),
            Self::Many { exact } => (&[][..], names.patterns.as_slice(), *exact),
        };
        let before = many.partition_point(|(entry, _)| exact.is_none_or(|exact| *entry < exact));
        let (before, after) = many.split_at_checked(before).unwrap_or((many, &[]));
        let matching = move |(entry, pattern): &(u32, Pattern)| pattern.matches(name).then_some(*entry);
        few.iter()
            .copied()
            .chain(before.iter().filter_map(matching))
            .chain(exact)
            .chain(after.iter().filter_map(matching))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).is_some_and(|pattern| pattern.matches(name))
    }

    #[test]
    fn stars_match_any_run() {
        for (pattern, name, want) in [
            ("*", "", true),
            ("*", "x", true),
            ("**", "", true),
            ("a*", "a", true),
            ("a*", "ab", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("*a", "a", true),
            ("*a", "ab", false),
            ("ab*ba", "aba", false),
            ("ab*ba", "abba", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("a**c", "abc", true),
            ("*a*a*", "a", false),
            ("*a*a*", "aa", true),
            ("x*y", "x😀y", true),
            ("a.c*", "abc", false),
            ("a\\*", "a\\x", true),
            ("K*", "\u{212a}x", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
        assert!(Pattern::parse("plain").is_none());
    }

    /// By definition: a star matches nothing, or one character and then again a star.
    fn naive(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => naive(rest, name) || (!name.is_empty() && naive(pattern, &name[1..])),
            Some((c, rest)) => name.first() == Some(c) && naive(rest, &name[1..]),
        }
    }

    fn naive_match(pattern: &str, name: &str) -> bool {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        naive(&chars(pattern), &chars(name))
    }

    proptest! {
        #[test]
        fn patterns_match_by_their_definition(pattern in "[ab*ä]{0,8}", name in "[abä]{0,10}") {
            if let Some(compiled) = Pattern::parse(&pattern) {
                prop_assert_eq!(compiled.matches(&name), naive_match(&pattern, &name));
            }
        }

        #[test]
        fn the_index_finds_what_matches_in_order(
            patterns in proptest::collection::btree_set("[ab]{0,2}\\*?[ab]{0,2}", 1..40),
            name in "[ab]{0,5}",
        ) {
            // An order that is not that of the names.
            let mut patterns: Vec<_> = patterns.into_iter().collect();
            patterns.sort_by_key(|pattern| pattern.chars().rev().collect::<String>());
            let mut names = Names::default();
            for pattern in &patterns {
                prop_assert!(names.insert(pattern));
            }
            names.finish();
            let matched = (0u32..).zip(&patterns).filter(|(_, pattern)| naive_match(pattern, &name));
            let want: Vec<u32> = matched.map(|(entry, _)| entry).collect();
            let matching = names.matching(&name);
            prop_assert_eq!(matching.iter(&names, &name).collect::<Vec<_>>(), want.clone());
            prop_assert_eq!(matching.is_empty(), want.is_empty());
            prop_assert_eq!(names.matches(&name), !want.is_empty());
        }
    }

    #[test]
    fn an_exact_name_is_inserted_once() {
        let mut names = Names::default();
        assert!(names.insert("a"));
        assert!(!names.insert("a"));
        assert!(names.insert("b*"));
        assert_eq!((names.len(), names.name(0), names.name(1)), (2, "a", "b*"));
        assert!(names.matches("a") && names.matches("b") && !names.matches("c"));
    }
}
