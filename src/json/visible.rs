//! Characters that people cannot see: what they are, and texts with them written out.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

/// Controls, formats, unassigned and private characters; separators; what fonts leave out; blanks
/// other than the space.
static UNSEEN: LazyLock<ClassUnicode> =
    LazyLock::new(|| class(r"[[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\x{2800}]--\x20]"));
/// The characters that a name may have without being another name.
static IGNORED: LazyLock<ClassUnicode> = LazyLock::new(|| class(r"[\p{Cf}\p{Cc}\p{Default_Ignorable_Code_Point}]"));

/// Returns the class of an expression. A test reads both.
fn class(expression: &str) -> ClassUnicode {
    match regex_syntax::parse(expression).map(regex_syntax::hir::Hir::into_kind) {
        Ok(HirKind::Class(Class::Unicode(class))) => class,
        // Everything, so that nothing is hidden.
        _ => ClassUnicode::new([ClassUnicodeRange::new('\0', char::MAX)]),
    }
}

fn has(class: &ClassUnicode, c: char) -> bool {
    let ranges = class.ranges();
    let after = ranges.partition_point(|range| range.end() < c);
    ranges.get(after).is_some_and(|range| range.start() <= c)
}

/// Returns `true` for a character that shows nothing, reorders what is around it, or cannot be told
/// from another: every character without a glyph of its own except the space.
pub(crate) fn is_unseen(c: char) -> bool {
    !matches!(c, ' '..='~') && has(&UNSEEN, c)
}

/// Returns a text for people in which every character that they could not see is written out as
/// `\u{...}`: controls and line ends, bidirectional controls, zero-width and other invisible
/// characters, blanks other than the space, and characters that Unicode has not assigned.
///
/// ```
/// assert_eq!(toolgate::visible("ann\u{200b}@\u{202e}knab.example"), r"ann\u{200b}@\u{202e}knab.example");
/// ```
///
/// Letters that look like others remain: only the reader knows which script to expect.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unseen) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unseen(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// Returns JSON in which every character that people could not see is an escape, `\u202e` for
/// example. It is the same value, and safe to look at in a terminal or a log.
///
/// ```
/// let text = serde_json::to_string("a\u{202e}b")?;
/// assert_eq!(toolgate::visible_json(&text), r#""a\u202eb""#);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn visible_json(json: &str) -> Cow<'_, str> {
    // Blanks and line ends outside of strings are JSON's own; inside, a control is escaped already.
    let is_unsafe = |c: char| (!c.is_ascii() || c == '\x7f') && is_unseen(c);
    if !json.contains(is_unsafe) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a text does not fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

/// Returns the form of a name by which persons are told apart: without outer blanks and invisible
/// characters, by simple case folding.
pub(crate) fn person(name: &str) -> String {
    let seen: String = name.chars().filter(|c| c.is_ascii_graphic() || !has(&IGNORED, *c)).collect();
    seen.trim().chars().map(folded).collect()
}

/// Returns the first character, in the order of Unicode, that equals this one by simple folding.
fn folded(c: char) -> char {
    let mut equal = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
    // It fails only without the tables, which are a feature of the crate.
    let _ = equal.try_case_fold_simple();
    equal.ranges().first().map_or(c, ClassUnicodeRange::start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_people_cannot_see_is_written_out() {
        for c in [
            '\0',
            '\u{1b}',
            '\n',
            '\t',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{a0}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{1160}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{2028}',
            '\u{2029}',
            '\u{202e}',
            '\u{2060}',
            '\u{2069}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{e000}',
            '\u{378}',
            '\u{1d173}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e01ef}',
            '\u{10ffff}',
        ] {
            assert!(is_unseen(c), "{c:?}");
            assert_eq!(visible(&format!("a{c}b")), format!("a\\u{{{:x}}}b", u32::from(c)));
        }
        for text in ["", " a ~", "é\u{301}", "ἀ漢字", "\u{5d0}\u{627}", "😀", "\\u{202e}"] {
            assert_eq!(visible(text), text);
        }
    }

    #[test]
    fn visible_json_is_the_same_value() {
        let all: String = (0..=0x3_ffff).chain(0xe_0000..=0x10_ffff).filter_map(char::from_u32).collect();
        let text = serde_json::to_string(&all).unwrap();
        let shown = visible_json(&text);
        assert!(shown.chars().all(|c| !is_unseen(c)));
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), all);
        let pretty = serde_json::to_string_pretty(&["a", "\u{e0041}\t\u{7f}"]).unwrap();
        assert_eq!(visible_json(&pretty), "[\n  \"a\",\n  \"\\udb40\\udc41\\t\\u007f\"\n]");
        assert_eq!(visible_json("[\"é\\u0000\"]\n"), "[\"é\\u0000\"]\n");
    }

    #[test]
    fn one_person_has_one_form() {
        for name in ["Ann", " ann", "a\u{200b}nn", "ann\u{3164}", "\u{ad}ANN\t", "\u{feff} ann \u{2060}", "a\u{fe0f}nn"]
        {
            assert_eq!(person(name), person("ann"), "{name:?}");
        }
        assert_eq!(person("\u{212a}im ſ"), person("kim S"));
        for name in ["", " ", "\u{3164}", "\u{200b}\u{a0}", "\t\u{2003}"] {
            assert_eq!(person(name), "", "{name:?}");
        }
        for other in ["anne", "a nn", "\u{430}nn", "än n", "ann."] {
            assert_ne!(person(other), person("ann"), "{other:?}");
        }
        assert_ne!(person("straße"), person("strasse"), "the folding is simple");
    }
}
