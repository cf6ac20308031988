//! Reading a log to its end despite its faults.

use std::io::{self, BufRead};
use std::mem;

use super::chain::{ChainHead, Fault, Line};
use super::reader::{LineReader, MAX_REMAINS, Next, Remains};
use super::record::AuditRecord;

/// An entry of a log, with the number of its line.
pub(crate) enum Entry {
    /// A record that matches its own hash.
    Record(u64, Box<AuditRecord>),
    /// A fault of the line.
    Fault(u64, Fault),
}

/// Iterates over the unchanged records of a log, and over all faults of the rest.
///
/// Leaves out a record that was changed or duplicated, or that follows a later one. Keeps a record
/// that follows a gap, or a record that was replaced. Streaming: it holds one line of at most 16
/// MiB, and the numbers of the unreadable lines since the last record.
pub(crate) struct TolerantReader<R> {
    lines: LineReader<R>,
    head: ChainHead,
    /// The number of unreadable lines reported since the last record: each may have been a record.
    lost: u64,
    /// Entries that are not returned yet, the last first.
    entries: Vec<Entry>,
    has_ended: bool,
}

impl<R: BufRead> TolerantReader<R> {
    pub(crate) fn after(reader: R, head: ChainHead) -> Self {
        let lines = LineReader::new(reader);
        Self { lines, head, lost: 0, entries: Vec::new(), has_ended: false }
    }

    /// Returns the next entry, or `None` at the end.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.entries.pop() {
                return Ok(Some(entry));
            }
            if self.has_ended {
                return Ok(None);
            }
            self.read()?;
            self.entries.reverse();
        }
    }

    fn read(&mut self) -> io::Result<()> {
        match self.lines.next()? {
            Next::Record(line) => self.check(&line),
            Next::Remains if self.lines.remains.faults.len() < MAX_REMAINS => {}
            Next::Remains => self.report_remains(),
            Next::TooLong => {
                self.report_remains();
                self.lost = self.lost.saturating_add(1);
                self.entries.push(Entry::Fault(self.lines.number, Fault::TooLong));
            }
            Next::End => {
                self.has_ended = true;
                let Remains { faults, is_unfinished, .. } = &mut self.lines.remains;
                if let (true, Some((_, fault @ Fault::Unreadable))) = (*is_unfinished, faults.last_mut()) {
                    *fault = Fault::Unfinished;
                }
                self.report_remains();
            }
        }
        Ok(())
    }

    /// Reports the unreadable lines, which no record has named.
    fn report_remains(&mut self) {
        let Remains { faults, count, .. } = mem::take(&mut self.lines.remains);
        self.lost = self.lost.saturating_add(count);
        self.entries.extend(faults.into_iter().map(|(line, fault)| Entry::Fault(line, fault)));
    }

    fn check(&mut self, line: &Line) {
        let number = self.lines.number;
        if line.torn.is_some_and(|torn| self.lines.remains.are(torn)) {
            self.lines.remains = Remains::default();
        } else {
            self.report_remains();
            if line.torn.is_some() {
                self.entries.push(Entry::Fault(number, Fault::Torn));
            }
        }
        if let Err(fault) = self.head.check_next(line, mem::take(&mut self.lost)) {
            self.entries.push(Entry::Fault(number, fault));
        }
        if line.head.records >= self.head.next_number() {
            self.head = line.head;
            self.entries.push(match self.lines.record(line) {
                Ok(record) => Entry::Record(number, Box::new(record)),
                Err(fault) => Entry::Fault(number, fault),
            });
        }
    }
}
