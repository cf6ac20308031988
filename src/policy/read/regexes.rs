//! The regular expressions of a document: each is bounded, and all together.

use regex::{Regex, RegexBuilder};

use super::{Reader, quote};
use crate::json::Node;
use crate::policy::error::IssueCode;
use crate::policy::expression::Expression;
use crate::policy::text::Needle;

/// Compiled regular expressions are counted in sizes that grow by factors of eight. This is the
/// smallest, in bytes.
const FIRST_REGEX_SIZE: usize = 2 << 10;

impl Reader<'_> {
    /// Reads a regular expression. Equal ones are compiled once.
    pub(in super::super) fn regex(&mut self, node: &Node<'_>, ignore_case: bool) -> Option<Expression> {
        let source = self.string(node, "a regular expression")?;
        if source.len() > self.bounds.regex_bytes {
            let bound = self.bounds.regex_bytes;
            let message = format!("a regular expression of {} bytes exceeds the bound of {bound}", source.len());
            self.issue(IssueCode::TooLong, node.at, message, "split it into several conditions".to_owned());
            return None;
        }
        if !self.no_control(node.at, source) {
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
                let message = format!("{} exceeds the bound of {bound} bytes when compiled", quote(source));
                let help = "use smaller repetitions, or raise the bound".to_owned();
                self.issue(IssueCode::RegexTooLarge, at, message, help);
                None
            }
            Err(error) => {
                let text = error.to_string();
                let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                let message = format!("invalid regular expression {}: {why}", quote(source));
                let help = "use the syntax of the `regex` crate, which has no backreferences and no look-around";
                self.issue(IssueCode::InvalidRegex, at, message, help.to_owned());
                None
            }
        }
    }

    /// Makes a needle that is compared without regard to case. It becomes a regular expression, and
    /// counts as one.
    pub(in super::super) fn folded(&mut self, node: &Node<'_>, text: &str) -> Option<Needle> {
        let bound = self.bounds.regex_bytes;
        if text.len() > bound {
            let message = format!("a text of {} bytes exceeds the bound of {bound} with `ignore_case`", text.len());
            self.issue(IssueCode::TooLong, node.at, message, "use a shorter text".to_owned());
            return None;
        }
        let Ok(regex) = self.build_regex(node.at, &regex::escape(text), true)? else {
            let message = format!("{} is too long for `ignore_case`", quote(text));
            self.issue(IssueCode::TooLong, node.at, message, "use a shorter text".to_owned());
            return None;
        };
        Some(Needle::folded(regex, text))
    }

    /// Compiles and counts a regular expression. Returns `None`, and notes an issue, if all
    /// together take too much.
    fn build_regex(&mut self, at: usize, source: &str, ignore_case: bool) -> Option<Result<Regex, regex::Error>> {
        let bound = self.bounds.regex_compiled_bytes;
        // The crate only reports whether an expression fits a size, so the smallest that it fits is
        // counted.
        let mut size = FIRST_REGEX_SIZE.min(bound);
        loop {
            let total = self.regex_bytes.saturating_add(size);
            if total > self.bounds.regex_total_bytes {
                let bound = self.bounds.regex_total_bytes;
                let message = format!("all regular expressions together exceed the bound of {bound} bytes");
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
