//! What a class rests on.

use std::fmt;

use super::RiskClass;

/// Where a piece of [`Evidence`] was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// What the server says of the tool under `annotations`.
    Annotations,
    /// The tool's name.
    Name,
    /// Its description or title.
    Description,
    /// Its input schema: the names of arguments, what is said of them, and what can be chosen.
    Arguments,
}

impl Source {
    /// `annotations`, `name`, `description` or `arguments`.
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

/// A word that says something of a tool, where it stood, and what it says.
///
/// It holds words of this crate's own tables alone, never a text of the server.
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

    /// Where it stood.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The word or the hint: `delete`, `destructiveHint`.
    pub fn word(&self) -> &'static str {
        self.word
    }

    /// The class that it stands for; none for what tells of the severity alone, or speaks for less than what was found.
    pub fn class(&self) -> Option<RiskClass> {
        self.class
    }

    /// What it says: `takes away what is there`.
    pub fn why(&self) -> &'static str {
        self.why
    }
}

/// Adds a piece, once.
pub(super) fn add(to: &mut Vec<Evidence>, piece: Evidence) {
    let same = |other: &&Evidence| (other.source, other.word, other.class) == (piece.source, piece.word, piece.class);
    if !to.iter().any(|other| same(&other)) {
        to.push(piece);
    }
}

/// The strictest first; then by source and word, so that the order of a schema's keys does not matter.
pub(super) fn sort(evidence: &mut [Evidence]) {
    evidence.sort_by(|a, b| b.class.cmp(&a.class).then(a.source.cmp(&b.source)).then(a.word.cmp(b.word)));
}
