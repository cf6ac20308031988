//! Messages on a pipe: a line each, read within a bound.

use std::io;

use bytes::BytesMut;
use tokio_util::codec::Decoder;

use super::outline::Outline;

/// A line that is not blank.
pub(super) enum Line {
    Whole(BytesMut),
    /// Longer than the bound. It has been passed over.
    TooLong(Outline),
}

/// Splits lines, and holds no more of one than its bound.
pub(super) struct Lines {
    bound: usize,
    /// The part of the buffer that has no line end.
    scanned: usize,
    too_long: Option<Outline>,
}

impl Lines {
    pub(super) fn new(bound: usize) -> Self {
        Self { bound, scanned: 0, too_long: None }
    }

    fn line(&mut self, line: BytesMut) -> Option<Line> {
        if self.too_long.is_none() && line.len() <= self.bound + 1 {
            return (!line.trim_ascii().is_empty()).then_some(Line::Whole(line));
        }
        let mut outline = self.too_long.take().unwrap_or_default();
        outline.read(&line);
        Some(Line::TooLong(outline))
    }
}

impl Decoder for Lines {
    type Item = Line;
    type Error = io::Error;

    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<Line>> {
        loop {
            let rest = from.get(self.scanned..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                self.scanned = from.len();
                if self.too_long.is_some() || from.len() > self.bound {
                    self.too_long.get_or_insert_default().read(from);
                    from.clear();
                    self.scanned = 0;
                }
                return Ok(None);
            };
            let line = from.split_to(self.scanned + end + 1);
            self.scanned = 0;
            if let Some(line) = self.line(line) {
                return Ok(Some(line));
            }
        }
    }

    /// A last line without an end is a line too.
    fn decode_eof(&mut self, from: &mut BytesMut) -> io::Result<Option<Line>> {
        let line = self.decode(from)?;
        let last = line.is_none() && (self.too_long.is_some() || !from.is_empty());
        self.scanned = 0;
        Ok(if last { self.line(from.split()) } else { line })
    }
}
