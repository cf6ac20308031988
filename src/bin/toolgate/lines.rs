//! Reading a stream line by line, within a bound.

use std::io::{self, BufRead};

/// The longest line that is kept. Longer lines are skipped and reported as unreadable.
const LINE_BYTES: usize = 16 << 20;

/// Reads lines, also of a file that still grows.
pub(crate) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    is_complete: bool,
    /// The number of bytes that were read.
    pub(crate) position: u64,
}

/// A line without its line end, or `None` if it is not UTF-8 or too long.
pub(crate) type Line<'l> = Option<&'l str>;

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), is_complete: false, position: 0 }
    }

    /// Returns the next line that has a line end. Without one, returns `None` and keeps the text:
    /// a later call continues it.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        if std::mem::take(&mut self.is_complete) {
            self.line.clear();
        }
        while !self.is_complete {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
            let room = (LINE_BYTES + 1).saturating_sub(self.line.len()).min(part.len());
            self.line.extend_from_slice(part.get(..room).unwrap_or_default());
            let used = part.len() + usize::from(end.is_some());
            self.is_complete = end.is_some();
            self.position += used as u64;
            self.reader.consume(used);
        }
        Ok(Some(self.text()))
    }

    /// Returns the text after the last line end, if there is any.
    pub(crate) fn rest(&mut self) -> Option<Line<'_>> {
        let has_rest = !self.is_complete && !self.line.is_empty();
        has_rest.then(|| {
            self.is_complete = true;
            self.text()
        })
    }

    fn text(&self) -> Line<'_> {
        let bytes = Some(&*self.line).filter(|line| line.len() <= LINE_BYTES)?;
        std::str::from_utf8(bytes.strip_suffix(b"\r").unwrap_or(bytes)).ok()
    }
}
