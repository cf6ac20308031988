//! Problems in a list of tools.

use std::fmt;

/// A problem in a list that a person should know before the policy is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    kind: FindingKind,
    index: Option<usize>,
    name: Option<Box<str>>,
}

/// The kind of a [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// An element is not an object, or its name is missing, empty or not a text. An entry cannot
    /// name the tool, which stays denied.
    NoName,
    /// The name is longer than 256 bytes. An entry cannot name the tool, which stays denied.
    NameTooLong,
    /// The name contains `*`, a wildcard in a policy: an entry would allow other tools too. The
    /// policy has no entry for the tool, which stays denied.
    NameIsPattern,
    /// The name appeared before in the list. The strictest class of all its tools applies.
    DuplicateName,
    /// The input schema, the annotations, the title or the description has a wrong type. The tool
    /// is classed as other or stricter.
    MalformedDefinition,
    /// The list continues at its `nextCursor`. The remaining tools are denied.
    MoreTools,
}

impl FindingKind {
    /// Returns `no_name`, `name_too_long`, `name_is_pattern`, `duplicate_name`,
    /// `malformed_definition` or `more_tools`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoName => "no_name",
            Self::NameTooLong => "name_too_long",
            Self::NameIsPattern => "name_is_pattern",
            Self::DuplicateName => "duplicate_name",
            Self::MalformedDefinition => "malformed_definition",
            Self::MoreTools => "more_tools",
        }
    }
}

impl Finding {
    pub(super) fn new(kind: FindingKind, index: Option<usize>, name: Option<&str>) -> Self {
        // Enough to identify the tool; the list itself has the full name.
        let name = name.map(|name| name.chars().take(SHOWN).collect::<String>().into());
        Self { kind, index, name }
    }

    /// Returns the kind of the finding.
    pub fn kind(&self) -> FindingKind {
        self.kind
    }

    /// Returns the index of the element in the list, or `None` for the list as a whole.
    pub fn index(&self) -> Option<usize> {
        self.index
    }

    /// Returns the first 80 characters of the tool's name, or `None` if it has no name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.index, &self.name) {
            (Some(index), Some(name)) => write!(f, "tool {index}, {name:?}: ")?,
            (Some(index), None) => write!(f, "tool {index}: ")?,
            (None, _) => {}
        }
        f.write_str(match self.kind {
            FindingKind::NoName => "it has no name; it stays denied",
            FindingKind::NameTooLong => "its name is longer than 256 bytes; it stays denied",
            FindingKind::NameIsPattern => "its name contains `*`, a wildcard in a policy; it stays denied",
            FindingKind::DuplicateName => "its name appears twice; the strictest class applies",
            FindingKind::MalformedDefinition => "its definition is malformed; it is classed as other or stricter",
            FindingKind::MoreTools => "the list continues at its `nextCursor`; the remaining tools are denied",
        })
    }
}

const SHOWN: usize = 80;
