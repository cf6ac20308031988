//! A log read to its end, whatever is wrong with it.

use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};

use super::chain::{ChainHead, Fault, LINE, Line};
use super::record::AuditRecord;

/// What stands in a line of a log.
pub(crate) enum Entry {
    /// A record that is what its own hash says, in this line.
    Record(u64, Box<AuditRecord>),
    /// Something is wrong with this line.
    Fault(u64, Fault),
}

/// All records of a log that stand as they were written, and all that is wrong with the others.
///
/// A record that was changed, stands twice, or stands after a later one is left out. One that follows a gap, or a record that was
/// replaced, is there. Streaming: it holds one line, of at most 16 MiB, and the numbers of the lines that are none since the last
/// that is one.
pub(crate) struct TolerantReader<R> {
    reader: R,
    line: u64,
    head: ChainHead,
    /// Lines that are none since the last that is one: they may be what is left of failed writes, which the next line has to say.
    rests: Vec<(u64, Fault)>,
    hasher: Sha256,
    is_unfinished: bool,
    /// How many lines that are none were told of since the last that is one: each of them may have been a record.
    lost: u64,
    /// What was found and not yet told, the last first.
    found: Vec<Entry>,
    has_ended: bool,
}

/// How many lines that are none may stand in a row to be told apart.
const RESTS: usize = 1024;

impl<R: BufRead> TolerantReader<R> {
    pub(crate) fn new(reader: R) -> Self {
        let (rests, found) = (Vec::new(), Vec::new());
        let hasher = Sha256::new();
        Self {
            reader,
            line: 0,
            head: ChainHead::EMPTY,
            rests,
            hasher,
            is_unfinished: false,
            lost: 0,
            found,
            has_ended: false,
        }
    }

    /// What comes next; nothing at the end.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            if let Some(seen) = self.found.pop() {
                return Ok(Some(seen));
            }
            if self.has_ended {
                return Ok(None);
            }
            self.read_line()?;
            self.found.reverse();
        }
    }

    fn read_line(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.reader.by_ref().take(LINE as u64 + 2).read_until(b'\n', &mut bytes)?;
        self.line += 1;
        let is_whole = bytes.pop_if(|last| *last == b'\n').is_some();
        if bytes.len() > LINE {
            if !is_whole {
                self.reader.skip_until(b'\n')?;
            }
            self.rests.push((self.line, Fault::TooLong));
            self.tell_rests();
        } else if !is_whole && bytes.is_empty() {
            self.has_ended = true;
            if let (true, Some((_, fault @ Fault::Unreadable))) = (self.is_unfinished, self.rests.last_mut()) {
                *fault = Fault::Unfinished;
            }
            self.tell_rests();
        } else {
            match Line::read(&bytes) {
                Ok(line) => self.follow(line),
                Err(fault) => {
                    self.hasher.update(&bytes);
                    self.hasher.update(b"\n");
                    self.rests.push((self.line, fault));
                    self.is_unfinished = !is_whole;
                    if self.rests.len() >= RESTS {
                        self.tell_rests();
                    }
                }
            }
        }
        Ok(())
    }

    fn tell_rests(&mut self) {
        self.lost = self.lost.saturating_add(self.rests.len() as u64);
        self.found.extend(self.rests.drain(..).map(|(line, fault)| Entry::Fault(line, fault)));
        self.hasher = Sha256::new();
    }

    fn follow(&mut self, line: Line) {
        let rests = std::mem::replace(&mut self.hasher, Sha256::new()).finalize();
        match line.torn {
            Some(torn) if !self.rests.is_empty() && rests[..] == torn => self.rests.clear(),
            Some(_) => {
                self.tell_rests();
                self.found.push(Entry::Fault(self.line, Fault::Torn));
            }
            None => {
                self.tell_rests();
            }
        }
        let lost = std::mem::take(&mut self.lost);
        let (expected, found) = (self.head.records().saturating_add(1), line.head.records());
        if found < expected {
            self.found.push(Entry::Fault(self.line, Fault::Sequence { expected, found }));
            return;
        }
        if found > expected.saturating_add(lost) {
            self.found.push(Entry::Fault(self.line, Fault::Sequence { expected, found }));
        } else if found == expected && line.prev != self.head.hash {
            self.found.push(Entry::Fault(self.line, Fault::Chain));
        }
        self.head = line.head;
        self.found.push(Entry::Record(self.line, Box::new(line.record)));
    }
}
