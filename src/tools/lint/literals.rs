//! Texts that look like patterns in places where every character is literal.

use super::Lint;
use super::findings::{FindingCode, UnplacedFinding};
use crate::policy::ast::Placed;
use crate::policy::operator::Takes;
use crate::policy::quote;

impl Lint<'_> {
    /// Reports names of tools with characters of regular expressions. Only `*` is special there.
    pub(super) fn literal_names(&mut self) {
        let (document, objects) = (self.document, self.objects());
        let mut report = |name: &str, at: usize, pointer: String| {
            // Names of real tools do not contain these.
            let Some(mark) = name.chars().find(|c| "^$()[]{}|\\?+".contains(*c)) else { return };
            let message = format!("`{mark}` in {} is literal: a tool name is not a regular expression", quote(name));
            let help = "use `*` for any sequence of characters, and write one name for each alternative";
            self.findings.push(UnplacedFinding::without_claim(
                FindingCode::LiteralPattern,
                (at, pointer),
                message,
                help,
            ));
        };
        for (index, hidden) in document.hide.iter().enumerate() {
            report(&hidden.value, hidden.at, format!("/hide/{index}"));
        }
        for object in objects {
            report(object.name.as_deref().unwrap_or_default(), object.at, object.pointer.clone());
        }
    }

    /// Reports `*` in the values of operators that compare character by character.
    pub(super) fn literal_values(&mut self, comparisons: &[Placed<'_>]) {
        for comparison in comparisons {
            let takes = comparison.operator.takes;
            let Some(text) = comparison.texts().into_iter().find(|text| is_pattern(takes, text)) else { continue };
            let help = match takes {
                Takes::PathWithin => "write the directory alone: everything below it is included",
                Takes::StartsWith => "remove the `*`: any text may follow",
                Takes::EndsWith => "remove the `*`: any text may precede",
                _ => "use `starts_with`, `ends_with`, or `regex` with `^` and `$`",
            };
            let message = format!("`*` in {} is literal", quote(text));
            let place = (comparison.at, comparison.pointer.clone());
            self.findings.push(UnplacedFinding::without_claim(FindingCode::LiteralPattern, place, message, help));
        }
    }
}

fn is_pattern(takes: Takes, text: &str) -> bool {
    match takes {
        Takes::PathWithin => text.contains('*'),
        // A text with white space is more likely a command or a sentence.
        Takes::Equal | Takes::In | Takes::StartsWith | Takes::EndsWith => {
            (text.starts_with('*') || text.ends_with('*'))
                && text.contains(char::is_alphanumeric)
                && !text.contains(char::is_whitespace)
        }
        _ => false,
    }
}
