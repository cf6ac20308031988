//! The findings that the author of a policy accepts.

use std::collections::HashMap;
use std::path::Path;

use super::Stale;
use crate::{Failure, input};

/// The lines of a file of accepted findings, and whether each was found.
#[derive(Default)]
pub(super) struct Accepted {
    file: String,
    /// By line: the line's number, and `true` if the finding occurs.
    findings: HashMap<String, (usize, bool)>,
}

impl Accepted {
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let mut accepted = Self { file: input::name(file), findings: HashMap::new() };
        for (number, line) in (1..).zip(input::text(file)?.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |problem: &str| Failure::Input(format!("{}:{number}: {problem}: `{line}`", accepted.file));
            let (code, pointer) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let pointer = pointer.trim_start();
            let is_code = code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if !is_code || !(pointer.is_empty() || pointer.starts_with('/')) {
                return Err(wrong("expected a code and a pointer, such as `denial_left_out /tools/pay/deny_if/0`"));
            }
            if accepted.findings.insert(key(code, pointer), (number, false)).is_some() {
                return Err(wrong("this finding is accepted twice"));
            }
        }
        Ok(accepted)
    }

    /// Returns `true` if a finding is accepted, and notes that it occurs.
    pub(super) fn takes(&mut self, code: &str, pointer: &str) -> bool {
        match self.findings.get_mut(&key(code, pointer)) {
            Some((_, occurs)) => {
                *occurs = true;
                true
            }
            None => false,
        }
    }

    /// Returns the accepted findings that do not occur.
    pub(super) fn stale(&self) -> impl Iterator<Item = Stale<'_>> {
        let mut stale: Vec<_> = self.findings.iter().filter(|(_, (_, occurs))| !occurs).collect();
        stale.sort_by_key(|(_, (line, _))| *line);
        stale.into_iter().map(|(text, (line, _))| Stale { file: &self.file, line: *line, text: text.trim_end() })
    }
}

fn key(code: &str, pointer: &str) -> String {
    format!("{code} {pointer}")
}
