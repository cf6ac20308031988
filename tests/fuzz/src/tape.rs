//! Reads the fuzzer's bytes as choices. At the end of the tape every choice is the first one.

/// The bytes that are left.
pub struct Tape<'b>(pub &'b [u8]);

impl Tape<'_> {
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `bound`, which is at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub fn word(&mut self) -> u64 {
        u64::from_le_bytes([0; 8].map(|_: u8| self.byte()))
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// A text of fewer than `bound` of these parts.
    pub fn text(&mut self, bound: usize, parts: &[&str]) -> String {
        (0..self.below(bound)).map(|_| self.pick(parts)).collect()
    }

    /// The text up to the next line end. Invalid UTF-8 is replaced.
    pub fn line(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == b'\n').unwrap_or(self.0.len());
        let line = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        line
    }
}
