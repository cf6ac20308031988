//! Translates regular expressions of Go to the syntax of the `regex` crate.

use std::iter::Peekable;
use std::str::Chars;

/// Returns an expression that matches what `source` matches in Go: `\d`, `\w`, `\s` and `\b` are
/// ASCII only, and operators of the `regex` crate that are literals in Go are escaped.
///
/// # Errors
/// The expression uses syntax that only one of the two has. The message says what to write instead.
pub(super) fn translate(source: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(source.len() + 16);
    let mut rest = source.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => escape(&mut rest, &mut out, Inside::Expression)?,
            '[' => class(&mut rest, &mut out)?,
            '(' => {
                out.push('(');
                flags(rest.clone())?;
            }
            // In Go, braces without a count are literals.
            '{' if !counts(rest.clone()) => out.push_str("\\{"),
            _ => out.push(c),
        }
    }
    Ok(out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Expression,
    Class,
}

fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String, inside: Inside) -> Result<(), &'static str> {
    let Some(c) = rest.next() else { return Err("it ends in a backslash") };
    let ascii = match c {
        'd' => "0-9",
        's' => r"\t\n\f\r ",
        'w' => "0-9A-Za-z_",
        'D' => "^0-9",
        'S' => r"^\t\n\f\r ",
        'W' => "^0-9A-Za-z_",
        'b' | 'B' if inside == Inside::Expression => {
            out.push_str(if c == 'b' { r"(?-u:\b)" } else { r"(?-u:\B)" });
            return Ok(());
        }
        'A' | 'z' if inside == Inside::Expression => {
            out.extend(['\\', c]);
            return Ok(());
        }
        'a' | 'f' | 'n' | 'r' | 't' | 'v' => {
            out.extend(['\\', c]);
            return Ok(());
        }
        'x' | 'p' | 'P' => {
            out.extend(['\\', c]);
            let mut name = String::new();
            if rest.next_if_eq(&'{').is_some() {
                while let Some(c) = rest.next_if(|c| *c != '}') {
                    name.push(c);
                }
                out.push('{');
                out.push_str(&name);
            } else if c != 'x' {
                name.extend(rest.peek());
            }
            // Since Go 1.25, it includes unassigned characters.
            if c != 'x' && matches!(name.trim_start_matches('^'), "C" | "Other") {
                return Err("`\\p{C}` differs between versions of Go: write `[\\p{Cc}\\p{Cf}\\p{Co}]`");
            }
            return Ok(());
        }
        'Q' | 'E' => return Err("`\\Q` is not supported: escape each character"),
        c if c.is_ascii_digit() => return Err("octal escapes are not supported: write `\\x{..}`"),
        // Escaped, these are word boundaries in the `regex` crate, and literals in Go.
        '<' | '>' => {
            out.push(c);
            return Ok(());
        }
        c if c.is_ascii_punctuation() => {
            out.extend(['\\', c]);
            return Ok(());
        }
        _ => return Err("it has an escape that Go does not support"),
    };
    match inside {
        Inside::Class if !c.is_ascii_uppercase() => out.push_str(ascii),
        _ => {
            out.push('[');
            out.push_str(ascii);
            out.push(']');
        }
    }
    Ok(())
}

const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// Translates a class in brackets, after the opening one. In Go, a bracket inside is a literal, and
/// so are `&&`, `--` and `~~`.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), &'static str> {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut is_first = true;
    while let Some(c) = rest.next() {
        match c {
            ']' if is_first => out.push_str("\\]"),
            ']' => {
                out.push(']');
                return Ok(());
            }
            '[' if rest.peek() == Some(&':') => {
                let name: String = rest.clone().take_while(|c| *c != ']').collect();
                if name.len() > 2 && name.ends_with(':') {
                    if !POSIX.contains(&name.trim_matches([':', '^'])) {
                        return Err("it has a class that Go does not support");
                    }
                    out.push('[');
                    out.extend(rest.by_ref().take(name.chars().count() + 1));
                } else {
                    out.push_str("\\[");
                }
            }
            '[' | '&' | '~' => out.extend(['\\', c]),
            '-' if rest.peek() == Some(&'-') => return Err("write a `-` in brackets as `\\-`"),
            '\\' => escape(rest, out, Inside::Class)?,
            _ => out.push(c),
        }
        is_first = false;
    }
    Err("it has an unclosed bracket")
}

/// Checks that the group after an opening parenthesis has only flags that both support.
fn flags(mut rest: Peekable<Chars<'_>>) -> Result<(), &'static str> {
    if rest.next() != Some('?') {
        return Ok(());
    }
    match rest.next() {
        // A name, or a syntax that neither supports.
        Some('P' | '<') => Ok(()),
        Some(first) => {
            let known = std::iter::once(first).chain(rest).take_while(|c| !matches!(c, ':' | ')'));
            if known.into_iter().all(|c| matches!(c, 'i' | 'm' | 's' | 'U' | '-')) {
                Ok(())
            } else {
                Err("it has a group that Go does not support")
            }
        }
        None => Ok(()),
    }
}

/// Returns `true` if a count and a closing brace follow: `3}`, `3,}`, `3,5}`.
fn counts(rest: Peekable<Chars<'_>>) -> bool {
    let inner: String = rest.take_while(|c| *c == ',' || *c == '}' || c.is_ascii_digit()).take(12).collect();
    let Some((inner, _)) = inner.split_once('}') else { return false };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    !least.is_empty() && digits(least) && digits(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_what_they_match_in_go() {
        for (source, matches, misses) in [
            (r"^\d+$", &["12"][..], &["\u{663}", "x", ""][..]),
            (r"^\w+$", &["a_1"], &["ä", "\u{212a}"]),
            (r"^[\w-]+$", &["a-1"], &["ä", " "]),
            (r"^[^\W]$", &["a"], &["ä", " "]),
            (r"^[\D]$", &["ä"], &["1"]),
            (r"^\S$", &["\u{a0}", "x"], &[" ", "\t"]),
            (r"\bx\b", &["äxä", "x"], &["axb"]),
            (r"^[[a]+$", &["[a["], &["b"]),
            (r"^[[a]]$", &["[]", "a]"], &["a"]),
            (r"^[a&&b]+$", &["&ab"], &["c"]),
            (r"^[]a]+$", &["]a"], &["b"]),
            (r"^[^]a]$", &["b"], &["]"]),
            (r"^[[:alpha:]\d]+$", &["a1"], &["ä"]),
            (r"^[[:^alpha:]]$", &["ä", "1"], &["a"]),
            (r"^a{,2}$", &["a{,2}"], &["aa"]),
            (r"^a{2}$", &["aa"], &["a"]),
            (r"^a{1,2}b{x}$", &["aab{x}"], &["aaab{x}"]),
            (r"(?i)^select\s", &["SELECT 1"], &["select\u{a0}1"]),
            (r"(?i:a)(?P<n>b)\x41\x{42}", &["AbAB"], &["ABAB"]),
            (r"^\pL\p{Greek}$", &["aα"], &["1α"]),
            (r"a$", &["a"], &["a\n"]),
            (r"^\<b\>$", &["<b>"], &["b"]),
            (r"^[\<\>x]+$", &["<x>"], &["y"]),
        ] {
            let translated = translate(source).unwrap();
            let regex = regex::Regex::new(&translated).unwrap_or_else(|error| panic!("{source}: {error}"));
            for text in matches {
                assert!(regex.is_match(text), "{source} as {translated} on {text:?}");
            }
            for text in misses {
                assert!(!regex.is_match(text), "{source} as {translated} on {text:?}");
            }
        }
    }

    #[test]
    fn syntax_that_only_one_has_is_refused() {
        for source in [
            r"\Qa.b\E",
            r"a\",
            r"\1",
            r"\012",
            r"(?=a)",
            r"(?x) a",
            r"(?u)a",
            r"[a",
            r"[+--]",
            r"\h",
            r"\u0041",
            r"[\b]",
            r"\pC",
            r"\PC",
            r"^[\p{C}]$",
            r"\p{^C}",
            r"\P{Other}",
        ] {
            assert!(translate(source).is_err(), "{source}");
        }
    }
}
