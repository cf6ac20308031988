//! Several files, read as one.

use std::io::{self, Read};
use std::path::PathBuf;

use crate::Failure;
use crate::input::{self, Named};

/// The files of a log, joined in their order.
pub(super) struct Joined {
    /// The files that are not read to their end, the next one last.
    left: Vec<Named>,
    paths: Vec<PathBuf>,
    /// The number of line ends before each file whose reading has begun.
    begins: Vec<u64>,
    line_ends: u64,
    /// `true` if the bytes that were read end in the middle of a line.
    is_in_line: bool,
}

impl Joined {
    /// Opens all files. The second value is their length, if each has one.
    pub(super) fn open(paths: &[PathBuf]) -> Result<(Self, Option<u64>), Failure> {
        let mut length = Some(0);
        let mut left = Vec::new();
        for path in paths.iter().rev() {
            let (file, bytes) = input::named(path)?;
            length = length.zip(bytes).map(|(length, bytes): (u64, u64)| length.saturating_add(bytes));
            left.push(file);
        }
        Ok((Self { left, paths: paths.into(), begins: vec![0], line_ends: 0, is_in_line: false }, length))
    }

    /// Returns the file that has a line of all of them, and the number of the line in the file.
    pub(super) fn place(&self, line: u64) -> (PathBuf, u64) {
        let before = |begin: &&u64| **begin < line;
        let (index, begin) = self.begins.iter().take_while(before).enumerate().last().unwrap_or((0, &0));
        (self.paths.get(index).cloned().unwrap_or_default(), line - begin)
    }
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(file) = self.left.last_mut() {
            let count = file.read(buffer)?;
            if let Some(last) = count.checked_sub(1).and_then(|last| buffer.get(last)) {
                self.is_in_line = *last != b'\n';
                let read = buffer.iter().take(count);
                self.line_ends += read.filter(|byte| **byte == b'\n').count() as u64;
                return Ok(count);
            }
            if buffer.is_empty() {
                return Ok(0);
            }
            self.left.pop();
            if self.left.is_empty() {
                break;
            }
            let is_cut = std::mem::take(&mut self.is_in_line);
            self.line_ends += u64::from(is_cut);
            self.begins.push(self.line_ends);
            // A line does not continue in the next file.
            if let Some(first) = buffer.first_mut().filter(|_| is_cut) {
                *first = b'\n';
                return Ok(1);
            }
        }
        Ok(0)
    }
}
