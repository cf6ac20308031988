//! Bounds of documents.

/// Bounds of a document. The defaults are far above what people write, and low enough to read
/// safely.
///
/// A document that exceeds a bound is refused with an issue that names the bound.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "bounds have no effect until a policy is read within them"]
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

    /// Bounds the size of the document in bytes. The default is 8 MiB, the most 4 GiB.
    pub fn document_bytes(self, bytes: usize) -> Self {
        Self { document_bytes: bytes.min(u32::MAX as usize), ..self }
    }

    /// Bounds the entries of `tools`, and the patterns of `hide`. The default is 100,000.
    pub fn entries(self, entries: usize) -> Self {
        Self { entries, ..self }
    }

    /// Bounds the values in a list that an operator compares with. The default is 1,000.
    pub fn list_values(self, values: usize) -> Self {
        Self { list_values: values, ..self }
    }

    /// Bounds a tool name or pattern in bytes. The default is 256.
    pub fn pattern_bytes(self, bytes: usize) -> Self {
        Self { pattern_bytes: bytes, ..self }
    }

    /// Bounds the source of a regular expression, or a text with `ignore_case`, in bytes. The
    /// default is 4 KiB.
    pub fn regex_bytes(self, bytes: usize) -> Self {
        Self { regex_bytes: bytes, ..self }
    }

    /// Bounds one compiled regular expression, or text with `ignore_case`, in bytes. The default is
    /// 1 MiB. [`Bounds::regex_total_bytes`] bounds all of them together, and does not grow with
    /// this.
    pub fn regex_compiled_bytes(self, bytes: usize) -> Self {
        Self { regex_compiled_bytes: bytes, ..self }
    }

    /// Bounds all compiled regular expressions and texts with `ignore_case` of the policy together,
    /// in bytes. The default is 256 MiB.
    ///
    /// Equal expressions count once. Each counts as the smallest that it fits of 2 KiB, 16 KiB and
    /// so on, by factors of eight, up to [`Bounds::regex_compiled_bytes`].
    pub fn regex_total_bytes(self, bytes: usize) -> Self {
        Self { regex_total_bytes: bytes, ..self }
    }

    /// Bounds the nesting of arrays and objects. The default is 64, the most 256.
    pub fn nesting(self, levels: usize) -> Self {
        Self { nesting: levels.min(256), ..self }
    }
}
