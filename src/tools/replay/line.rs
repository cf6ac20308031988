//! Lines of a history, each bounded in length.

use std::io::{self, BufRead, Read};

/// The maximum length of a line, in bytes.
const MAX_LINE_BYTES: usize = 16 << 20;

/// The lines of a reader, one at a time.
pub(super) struct Lines<R> {
    reader: R,
    bytes: Vec<u8>,
    line: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, bytes: Vec::new(), line: 0 }
    }

    /// Returns the next line and its number, from 1. The text is `None` if it is not UTF-8 or is
    /// longer than 16 MiB.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Option<&str>)>> {
        self.bytes.clear();
        self.reader.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut self.bytes)?;
        if self.bytes.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        let is_whole = self.bytes.pop_if(|last| *last == b'\n').is_some();
        if !is_whole && self.bytes.len() > MAX_LINE_BYTES {
            self.reader.skip_until(b'\n')?;
            return Ok(Some((self.line, None)));
        }
        Ok(Some((self.line, std::str::from_utf8(&self.bytes).ok())))
    }
}
