//! Texts that came from outside, shown on a terminal.

/// How long a text may be that is read at a glance.
const SHOWN: usize = 500;

/// The text with a mark in place of every control character, so that neither a line nor a terminal can be broken by it, and cut
/// where it is longer than anybody reads.
pub(crate) fn plain(text: &str) -> String {
    plain_up_to(SHOWN, text)
}

/// The same, with so many characters at most.
pub(crate) fn plain_up_to(shown: usize, text: &str) -> String {
    let mark = |c: char| if c.is_control() || is_reordering(c) { char::REPLACEMENT_CHARACTER } else { c };
    let mut plain: String = text.chars().take(shown).map(mark).collect();
    if text.chars().nth(shown).is_some() {
        plain.push_str("...");
    }
    plain
}

/// Characters that make a terminal show what follows in another order.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
