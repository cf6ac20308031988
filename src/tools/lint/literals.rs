//! Texts that look like patterns in places where every character is literal.

use super::Lint;
use super::findings::{FindingCode, Found};
use crate::policy::ast::Placed;
use crate::policy::operator::Takes;
use crate::policy::quote;

impl Lint<'_> {
    /// Names of tools, in which `*` alone is more than a character.
    pub(super) fn literal_names(&mut self) {
        let (document, objects) = (self.document, self.objects());
        let mut look = |name: &str, at: usize, pointer: String| {
            // No server names a tool so.
            let Some(mark) = name.chars().find(|c| "^$()[]{}|\\?+".contains(*c)) else { return };
            let message = format!("`{mark}` in {} is literal: a name is not an expression", quote(name));
            let help = "write `*` for any run of characters, and one name for each alternative";
            self.found.push(Found::remark(FindingCode::LiteralPattern, (at, pointer), message, help));
        };
        for (index, hidden) in document.hide.iter().enumerate() {
            look(&hidden.value, hidden.at, format!("/hide/{index}"));
        }
        for object in objects {
            look(object.name.as_deref().unwrap_or_default(), object.at, object.pointer.clone());
        }
    }

    /// Values of operators that compare character by character.
    pub(super) fn literals(&mut self, all: &[Placed<'_>]) {
        for leaf in all {
            let takes = leaf.operator.takes;
            let Some(text) = leaf.texts().into_iter().find(|text| is_pattern(takes, text)) else { continue };
            let help = match takes {
                Takes::PathWithin => "name the directory alone: all that lies below it is within",
                Takes::StartsWith | Takes::EndsWith => "leave it out: anything may follow, or stand before",
                _ => "use `starts_with`, `ends_with`, or `regex` with `^` and `$`",
            };
            let message = format!("`*` in {} is literal", quote(text));
            let place = (leaf.at, leaf.pointer.clone());
            self.found.push(Found::remark(FindingCode::LiteralPattern, place, message, help));
        }
    }
}

fn is_pattern(takes: Takes, text: &str) -> bool {
    match takes {
        Takes::PathWithin => text.contains('*'),
        // With a blank it is rather a command or a sentence.
        Takes::Equal | Takes::In | Takes::StartsWith | Takes::EndsWith => {
            (text.starts_with('*') || text.ends_with('*'))
                && text.contains(char::is_alphanumeric)
                && !text.contains(char::is_whitespace)
        }
        _ => false,
    }
}
