//! Regular expressions of a document: each bounded, and all of them together.

use regex::{Regex, RegexBuilder};

use super::{Reader, quote};
use crate::json::Node;
use crate::policy::error::IssueCode;
use crate::policy::expression::Expression;
use crate::policy::text::Needle;

/// The smallest of the sizes by which compiled regular expressions are counted, each eight times the one before it, in bytes.
const FIRST_REGEX_SIZE: usize = 2 << 10;

impl Reader<'_> {
    /// A regular expression. Equal ones are compiled once.
    pub(in super::super) fn regex(&mut self, node: &Node<'_>, ignore_case: bool) -> Option<Expression> {
        let source = self.string(node, "a regular expression")?;
        if source.len() > self.bounds.regex_bytes {
            let bound = self.bounds.regex_bytes;
            let message = format!("a regular expression of {} bytes is past the bound of {bound}", source.len());
            self.issue(IssueCode::TooLong, node.at, message, "split it into several conditions".to_owned());
            return None;
        }
        let key = (source.to_owned(), ignore_case);
        if let Some(known) = self.regexes.get(&key) {
            return known.clone();
        }
        let compiled = self.compile_regex(node.at, source, ignore_case);
        self.regexes.insert(key, compiled.clone());
        compiled
    }

    fn compile_regex(&mut self, at: usize, source: &str, ignore_case: bool) -> Option<Expression> {
        match self.build_regex(at, source, ignore_case)? {
            Ok(regex) => Some(Expression::new(regex, ignore_case)),
            Err(regex::Error::CompiledTooBig(bound)) => {
                let message = format!("{} takes more than the bound of {bound} bytes when compiled", quote(source));
                let help = "use smaller repetitions, or raise the bound".to_owned();
                self.issue(IssueCode::RegexTooLarge, at, message, help);
                None
            }
            Err(error) => {
                let text = error.to_string();
                let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                let message = format!("{} is no regular expression: {why}", quote(source));
                let help = "the syntax is that of the `regex` crate, without backreferences and look-around";
                self.issue(IssueCode::InvalidRegex, at, message, help.to_owned());
                None
            }
        }
    }

    /// A text to find without regard to case, which becomes a regular expression and counts as one.
    pub(in super::super) fn folded(&mut self, node: &Node<'_>, text: &str) -> Option<Needle> {
        let bound = self.bounds.regex_bytes;
        if text.len() > bound {
            let message = format!("a text of {} bytes to find without regard to case", text.len());
            self.issue(IssueCode::TooLong, node.at, message, format!("at most {bound} bytes can be compared so"));
            return None;
        }
        let Ok(regex) = self.build_regex(node.at, &regex::escape(text), true)? else {
            let message = format!("{} is too long to find without regard to case", quote(text));
            self.issue(IssueCode::TooLong, node.at, message, "use a shorter text".to_owned());
            return None;
        };
        Some(Needle::folded(regex, text))
    }

    /// A regular expression, counted; nothing, and an issue, where all of them take too much.
    fn build_regex(&mut self, at: usize, source: &str, ignore_case: bool) -> Option<Result<Regex, regex::Error>> {
        let bound = self.bounds.regex_compiled_bytes;
        // What a regex takes is not told, only whether it stays below a limit: the smallest that it fits is counted.
        let mut size = FIRST_REGEX_SIZE.min(bound);
        loop {
            let total = self.regex_bytes.saturating_add(size);
            if total > self.bounds.regex_total_bytes {
                let bound = self.bounds.regex_total_bytes;
                let message = format!("the policy's regular expressions take more than the bound of {bound} bytes");
                let help = "use fewer or smaller ones, or raise the bound; equal ones count once".to_owned();
                self.issue(IssueCode::RegexTooLarge, at, message, help);
                return None;
            }
            match RegexBuilder::new(source).case_insensitive(ignore_case).size_limit(size).build() {
                Err(regex::Error::CompiledTooBig(_)) if size < bound => size = size.saturating_mul(8).min(bound),
                built => {
                    if built.is_ok() {
                        self.regex_bytes = total;
                    }
                    return Some(built);
                }
            }
        }
    }
}
