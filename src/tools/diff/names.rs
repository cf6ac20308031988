//! Inclusion and intersection of name patterns.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::policy::Policy;

/// Returns a character that is in no name of either policy. Only a star can match it, and a star
/// matches any text. So, with the character in place of every star, a pattern becomes a name that
/// is matched by exactly the patterns of the policies that include the whole pattern.
pub(super) fn fresh_character(policies: [&Policy; 2]) -> char {
    let mut used = HashSet::new();
    for policy in policies {
        used.extend(policy.entry_names().chain(policy.hidden_names()).flat_map(str::chars));
    }
    let readable = "xzqkvwyj0123456789".chars();
    readable.chain('\u{e000}'..).find(|c| !used.contains(c)).unwrap_or('\u{10ffff}')
}

/// Returns the name that represents a whole pattern. A plain name represents itself.
pub(super) fn generic_name(pattern: &str, fresh: char) -> String {
    let mut name = String::with_capacity(pattern.len());
    let mut after_star = false;
    for c in pattern.chars() {
        if c != '*' {
            name.push(c);
        } else if !after_star {
            name.push(fresh);
        }
        after_star = c == '*';
    }
    name
}

/// Returns a shortest name that both patterns match, if any. Takes at most one step for each pair
/// of their characters.
pub(super) fn common_name(one: &str, other: &str) -> Option<String> {
    let (prefix_a, prefix_b) = (before_star(one), before_star(other));
    let shorter = prefix_a.len().min(prefix_b.len());
    if prefix_a.as_bytes().get(..shorter) != prefix_b.as_bytes().get(..shorter) {
        return None;
    }
    let (a, b): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut from: HashMap<(usize, usize), (usize, usize, Option<char>)> = HashMap::new();
    let mut queue = VecDeque::from([(0, 0)]);
    while let Some((i, j)) = queue.pop_front() {
        if i == a.len() && j == b.len() {
            return Some(name_along(&from, (i, j)));
        }
        let (left, right) = (a.get(i).copied(), b.get(j).copied());
        let mut next = Vec::new();
        match (left, right) {
            (Some('*'), _) => next.push((i + 1, j, None)),
            (Some(c), Some(d)) if c == d => next.push((i + 1, j + 1, Some(c))),
            _ => {}
        }
        match (left, right) {
            (Some('*'), Some(c)) if c != '*' => next.push((i, j + 1, Some(c))),
            (Some(c), Some('*')) if c != '*' => next.push((i + 1, j, Some(c))),
            _ => {}
        }
        if right == Some('*') {
            next.push((i, j + 1, None));
        }
        for (to_i, to_j, c) in next {
            if (to_i, to_j) != (0, 0) && !from.contains_key(&(to_i, to_j)) {
                from.insert((to_i, to_j), (i, j, c));
                queue.push_back((to_i, to_j));
            }
        }
    }
    None
}

fn before_star(pattern: &str) -> &str {
    pattern.split('*').next().unwrap_or_default()
}

/// Returns the name that the steps to this pair of positions spell.
fn name_along(from: &HashMap<(usize, usize), (usize, usize, Option<char>)>, end: (usize, usize)) -> String {
    let (mut letters, mut at) = (Vec::new(), end);
    while let Some((i, j, c)) = from.get(&at) {
        letters.extend(*c);
        at = (*i, *j);
    }
    letters.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_names_are_shortest() {
        for (one, other, want) in [
            ("a", "a", Some("a")),
            ("a", "b", None),
            ("a*", "*b", Some("ab")),
            ("a*", "b*", None),
            ("a*c", "ab*", Some("abc")),
            ("*", "*", Some("")),
            ("*a*", "*b*", Some("ab")),
            ("ab*ba", "a*a", Some("abba")),
            ("x*é", "x*é", Some("xé")),
            ("*aa", "aa*", Some("aa")),
        ] {
            let found = common_name(one, other);
            assert_eq!(found.as_deref().map(str::len), want.map(str::len), "{one} {other} {found:?}");
        }
    }

    #[test]
    fn a_generic_name_replaces_each_run_of_stars() {
        assert_eq!(generic_name("a**b*", 'x'), "axbx");
        assert_eq!(generic_name("plain", 'x'), "plain");
    }
}
