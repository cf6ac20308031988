//! How large a document may be.

/// How large a document may be. The defaults are far above what people write, and below what hurts.
///
/// A document past a bound is refused with an issue that names the bound.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "bounds do nothing until a policy is read within them"]
pub struct Bounds {
    pub(crate) document_bytes: usize,
    pub(crate) entries: usize,
    pub(crate) list_values: usize,
    pub(crate) pattern_bytes: usize,
    pub(crate) regex_bytes: usize,
    pub(crate) regex_compiled_bytes: usize,
    pub(crate) regex_total_bytes: usize,
    pub(crate) nesting: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            document_bytes: 8 << 20,
            entries: 100_000,
            list_values: 1_000,
            pattern_bytes: 256,
            regex_bytes: 4 << 10,
            regex_compiled_bytes: 1 << 20,
            regex_total_bytes: 256 << 20,
            nesting: 64,
        }
    }
}

impl Bounds {
    /// The default bounds.
    pub fn new() -> Self {
        Self::default()
    }

    /// The document's size in bytes: 8 MiB. At most 4 GiB.
    pub fn document_bytes(self, bytes: usize) -> Self {
        Self { document_bytes: bytes.min(u32::MAX as usize), ..self }
    }

    /// The entries of `tools`, and the patterns of `hide`: 100,000.
    pub fn entries(self, entries: usize) -> Self {
        Self { entries, ..self }
    }

    /// The values in one list that an operator compares with: 1,000.
    pub fn list_values(self, values: usize) -> Self {
        Self { list_values: values, ..self }
    }

    /// A tool name or pattern: 256 bytes.
    pub fn pattern_bytes(self, bytes: usize) -> Self {
        Self { pattern_bytes: bytes, ..self }
    }

    /// The source of a regular expression, or a text that is found without regard to case: 4 KiB, in bytes.
    pub fn regex_bytes(self, bytes: usize) -> Self {
        Self { regex_bytes: bytes, ..self }
    }

    /// A regular expression, or a text that is found without regard to case, compiled: 1 MiB, in bytes. All of a policy together
    /// are bounded by [`Bounds::regex_total_bytes`], which does not grow with this.
    pub fn regex_compiled_bytes(self, bytes: usize) -> Self {
        Self { regex_compiled_bytes: bytes, ..self }
    }

    /// All regular expressions of the policy, compiled, equal ones once, and all texts that are found without regard to case: 256
    /// MiB, in bytes. How much one takes is told by a factor of eight: 2 KiB, 16 KiB, and so on up to
    /// [`Bounds::regex_compiled_bytes`].
    pub fn regex_total_bytes(self, bytes: usize) -> Self {
        Self { regex_total_bytes: bytes, ..self }
    }

    /// Arrays and objects inside each other: 64. At most 256.
    pub fn nesting(self, levels: usize) -> Self {
        Self { nesting: levels.min(256), ..self }
    }
}
