//! What was probably meant.

/// `a`, `b`, `c`
pub(super) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The mend for a word that is not one of `words`.
pub(crate) fn suggest(word: &str, words: &[&'static str]) -> String {
    match nearest(word, words) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it has {}", listed(words)),
    }
}

/// Words that people bring along from other languages.
const FOREIGN: [(&str, &str); 36] = [
    ("==", "eq"),
    ("=", "eq"),
    ("equals", "eq"),
    ("is", "eq"),
    ("!=", "neq"),
    ("ne", "neq"),
    ("not_equals", "neq"),
    ("<", "lt"),
    ("<=", "lte"),
    ("le", "lte"),
    (">", "gt"),
    (">=", "gte"),
    ("ge", "gte"),
    ("greater", "gt"),
    ("greater_than", "gt"),
    ("greater_or_equal", "gte"),
    ("less", "lt"),
    ("less_than", "lt"),
    ("less_or_equal", "lte"),
    ("matches", "regex"),
    ("match", "regex"),
    ("pattern", "regex"),
    ("not_matches", "not_regex"),
    ("one_of", "in"),
    ("nin", "not_in"),
    ("prefix", "starts_with"),
    ("suffix", "ends_with"),
    ("arguments", "args"),
    ("params", "args"),
    ("ctx", "context"),
    ("limit", "max"),
    ("per", "window"),
    ("key", "scope"),
    ("message", "on_deny"),
    ("effect", "action"),
    ("block", "deny"),
];

/// The word that was probably meant: the same but for case and separators, a foreign word's twin, or few edits away.
pub(super) fn nearest(word: &str, words: &[&'static str]) -> Option<&'static str> {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).take(40).collect()
    };
    let is_there = |near: &&'static str| words.contains(near);
    if let Some((_, near)) = FOREIGN.iter().find(|(foreign, near)| *foreign == word && is_there(near)) {
        return Some(near);
    }
    let wanted = plain(word);
    let near = words.iter().map(|known| (edits(&wanted, &plain(known)), *known)).min_by_key(|(edits, _)| *edits)?;
    (near.0 <= (near.1.len() / 3).max(1) && near.0 < near.1.len()).then_some(near.1)
}

/// How many insertions, deletions, replacements and swaps of neighbours lead from one text to the other.
pub(crate) fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut least = (at(&above, j + 1) + 1).min(at(&row, j) + 1).min(at(&above, j) + usize::from(ca != cb));
            if i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca) {
                least = least.min(at(&before, j - 1) + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::document::{ENTRY, LIMIT, OPERATORS};
    use super::*;

    #[test]
    fn the_nearest_word_is_found() {
        let keys: Vec<_> = ENTRY.names().chain(LIMIT.names()).collect();
        let operators: Vec<_> = OPERATORS.iter().map(|operator| operator.name).collect();
        for (word, near) in [
            ("denyIf", Some("deny_if")),
            ("denyif", Some("deny_if")),
            ("DENY_IF", Some("deny_if")),
            ("limit", Some("max")),
            ("limts", Some("limits")),
            ("requrie", Some("require")),
            ("approvals", Some("approval")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, &keys), near, "{word}");
        }
        for (word, near) in [
            ("startswith", Some("starts_with")),
            ("matches", Some("regex")),
            (">=", Some("gte")),
            ("equal", None),
            ("EQ", Some("eq")),
            ("not_contain", Some("not_contains")),
        ] {
            assert_eq!(nearest(word, &operators), near, "{word}");
        }
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, count) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("ab", "ba", 1), ("grnat", "grant", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(edits(a, b), count, "{a} {b}");
        }
    }
}
