//! Messages on a pipe: a line each, read within a bound.

use std::io::{self, BufRead, BufReader, Read};

use super::outline::Outline;

/// A buffer that a long message has left behind is not kept.
const KEPT: usize = 1 << 20;

/// A line without its end.
pub(crate) enum Line<'l> {
    /// A message, as far as can be seen.
    Whole(&'l [u8]),
    /// Longer than the bound. It has been passed over; this is what it may be.
    TooLong(Outline),
}

/// Reads lines, and holds no more of one than its bound.
pub(crate) struct Lines<R> {
    from: BufReader<R>,
    line: Vec<u8>,
    bound: usize,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(from: R, bound: usize) -> Self {
        Self { from: BufReader::with_capacity(64 << 10, from), line: Vec::new(), bound }
    }

    /// The next line that is not blank; none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            if self.line.capacity() > KEPT {
                self.line = Vec::new();
            }
            self.line.clear();
            let Some(too_long) = self.read()? else { return Ok(None) };
            if let Some(outline) = too_long {
                return Ok(Some(Line::TooLong(outline)));
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        Ok(Some(Line::Whole(self.line.trim_ascii())))
    }

    /// Reads to the end of a line: none at the end of all, and the outline of a line that was too long.
    fn read(&mut self) -> io::Result<Option<Option<Outline>>> {
        let mut too_long: Option<Outline> = None;
        let mut is_empty = true;
        loop {
            let buffer = match self.from.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if buffer.is_empty() {
                // A last line without an end is a line too.
                return Ok((!is_empty).then_some(too_long));
            }
            is_empty = false;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
            match &mut too_long {
                Some(outline) => outline.read(part),
                None if self.line.len() + part.len() > self.bound => {
                    let mut outline = Outline::default();
                    outline.read(&self.line);
                    outline.read(part);
                    too_long = Some(outline);
                    self.line = Vec::new();
                }
                None => self.line.extend_from_slice(part),
            }
            let used = part.len() + usize::from(end.is_some());
            self.from.consume(used);
            if end.is_some() {
                return Ok(Some(too_long));
            }
        }
    }
}
