//! The kinds of history.

use std::io::{self, BufRead};

/// A kind of history.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Records of an audit log, in chained lines.
    Log,
    /// Records, in unchained lines.
    Records,
    Trace,
}

impl Format {
    /// Detects the kind by the first buffered line that begins like a record or a chained line.
    /// Their first members are always the same, and a step of a trace has neither.
    pub(super) fn of(history: &mut impl BufRead) -> io::Result<Self> {
        let buffered = history.fill_buf()?;
        let format_of = |line: &[u8]| match line {
            _ if line.starts_with(br#"{"seq":"#) => Some(Self::Log),
            _ if line.starts_with(br#"{"time":"#) => Some(Self::Records),
            _ => None,
        };
        Ok(buffered.split(|byte| *byte == b'\n').find_map(format_of).unwrap_or(Self::Trace))
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Records => "records",
            Self::Trace => "trace",
        }
    }
}
