//! The evidence for a class.

use std::fmt;

use super::RiskClass;

/// The place where a piece of [`Evidence`] was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The `annotations` of the tool.
    Annotations,
    /// The tool's name.
    Name,
    /// Its description or title.
    Description,
    /// Its input schema: the names, descriptions and choices of its arguments.
    Arguments,
}

impl Source {
    /// Returns `annotations`, `name`, `description` or `arguments`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Annotations => "annotations",
            Self::Name => "name",
            Self::Description => "description",
            Self::Arguments => "arguments",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that indicates the class of a tool, the place where it was found, and its meaning.
///
/// It contains only words of this crate's own tables, never text of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    source: Source,
    word: &'static str,
    class: Option<RiskClass>,
    why: &'static str,
}

impl Evidence {
    pub(super) fn new(source: Source, word: &'static str, class: Option<RiskClass>, why: &'static str) -> Self {
        Self { source, word, class, why }
    }

    /// Returns the place where it was found.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Returns the word or the hint, such as `delete` or `destructiveHint`.
    pub fn word(&self) -> &'static str {
        self.word
    }

    /// Returns the class that it indicates, or `None` if it only affects the severity or speaks
    /// against the class that was found.
    pub fn class(&self) -> Option<RiskClass> {
        self.class
    }

    /// Returns its meaning, such as `removes something`.
    pub fn why(&self) -> &'static str {
        self.why
    }
}

/// Adds a piece, unless it is there already.
pub(super) fn add(to: &mut Vec<Evidence>, piece: Evidence) {
    let same = |other: &&Evidence| (other.source, other.word, other.class) == (piece.source, piece.word, piece.class);
    if !to.iter().any(|other| same(&other)) {
        to.push(piece);
    }
}

/// Sorts by class, the strictest first, then by source and word, so that the order of keys in a
/// schema does not matter.
pub(super) fn sort(evidence: &mut [Evidence]) {
    evidence.sort_by(|a, b| b.class.cmp(&a.class).then(a.source.cmp(&b.source)).then(a.word.cmp(b.word)));
}
