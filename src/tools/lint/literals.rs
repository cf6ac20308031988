//! Texts that look like patterns, where every character stands for itself.

use serde_json::Value;

use super::Lint;
use super::findings::{FindingCode, Found};
use super::leaves::Leaf;
use crate::policy::quote;

impl Lint<'_> {
    /// Names of tools, in which `*` alone is more than a character.
    pub(super) fn literal_names(&mut self) {
        let (hide, objects) = (self.hide(), self.objects());
        let mut look = |name: &str, at: usize, pointer: String| {
            // No server names a tool so.
            let Some(mark) = name.chars().find(|c| "^$()[]{}|\\?+".contains(*c)) else { return };
            let message = format!("`{mark}` in {} stands for itself: a name is no expression", quote(name));
            let help = "write `*` for any run of characters, and one name for each alternative";
            self.found.push(Found::remark(FindingCode::LiteralPattern, (at, pointer), message, help));
        };
        for (index, hidden) in hide.iter().enumerate() {
            look(hidden.as_str().unwrap_or_default(), hidden.at, format!("/hide/{index}"));
        }
        for object in objects {
            look(object.name.unwrap_or_default(), object.at, object.pointer);
        }
    }

    /// Values of operators that compare character by character.
    pub(super) fn literals(&mut self, all: &[Leaf<'_>]) {
        for leaf in all {
            let Some(value) = &leaf.value else { continue };
            let texts = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            let Some(text) = texts.iter().filter_map(Value::as_str).find(|text| is_pattern(leaf.op, text)) else {
                continue;
            };
            let help = match leaf.op {
                "path_within" => "name the directory alone: all that lies below it is within",
                "starts_with" | "ends_with" => "leave it out: anything may follow, or stand before",
                _ => "use `starts_with`, `ends_with`, or `regex` with `^` and `$`",
            };
            let message = format!("`*` in {} stands for itself", quote(text));
            let place = (leaf.at, leaf.pointer.clone());
            self.found.push(Found::remark(FindingCode::LiteralPattern, place, message, help));
        }
    }
}

fn is_pattern(op: &str, text: &str) -> bool {
    match op {
        "path_within" => text.contains('*'),
        // With a blank it is rather a command or a sentence.
        "eq" | "neq" | "in" | "not_in" | "starts_with" | "ends_with" => {
            (text.starts_with('*') || text.ends_with('*'))
                && text.contains(char::is_alphanumeric)
                && !text.contains(char::is_whitespace)
        }
        _ => false,
    }
}
