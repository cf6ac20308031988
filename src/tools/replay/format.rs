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
    /// Detects the kind by the first buffered line that has the mark of one. Records and chained
    /// lines always begin with the same member, which a step of a trace cannot have.
    pub(super) fn of(history: &mut impl BufRead) -> io::Result<Self> {
        let begin = history.fill_buf()?;
        let mark = |line: &[u8]| match line {
            _ if line.starts_with(br#"{"seq":"#) => Some(Self::Log),
            _ if line.starts_with(br#"{"time":"#) => Some(Self::Records),
            _ => None,
        };
        Ok(begin.split(|byte| *byte == b'\n').find_map(mark).unwrap_or(Self::Trace))
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Records => "records",
            Self::Trace => "trace",
        }
    }
}
