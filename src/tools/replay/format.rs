//! What kind of history it is.

use std::io::{self, BufRead};

/// A kind of history.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Records of an audit log, in lines that are chained.
    Log,
    /// Records, in lines that are not.
    Records,
    Trace,
}

impl Format {
    /// The kind of the first line of the beginning that has a mark of one. Records and their lines are always written with the same
    /// member first, which is none that a trace has.
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
