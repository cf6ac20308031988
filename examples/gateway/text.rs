//! Texts that came from outside, shown on a terminal.

/// The text with a mark in place of every control character, so that neither a line nor a terminal can be broken by it, and cut
/// where it is longer than anybody reads.
pub(crate) fn plain(text: &str) -> String {
    const SHOWN: usize = 500;
    let mark = |c: char| if c.is_control() || is_reordering(c) { char::REPLACEMENT_CHARACTER } else { c };
    let mut shown: String = text.chars().take(SHOWN).map(mark).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Characters that make a terminal show what follows in another order.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
