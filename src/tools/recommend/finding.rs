//! What is wrong with a list of tools.

use std::fmt;

/// Something in a list that a person should know of before the policy is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    kind: FindingKind,
    index: Option<usize>,
    name: Option<Box<str>>,
}

/// What a [`Finding`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// An element is no object, or has no name that is a text with something in it: no entry can name it, and it stays denied.
    NoName,
    /// The name has more than 256 bytes: no entry can name it, and the tool stays denied.
    NameTooLong,
    /// The name has a `*`, which stands for any run of characters in a policy: an entry would let other tools through. None is
    /// written, and the tool stays denied.
    NameIsPattern,
    /// The name stood in the list before: the strictest class of all tools of that name holds.
    DuplicateName,
    /// The input schema, the annotations, the title or the description is not of the type that it must have: the tool is classed
    /// as other, at the least.
    MalformedDefinition,
    /// The list goes on at its `nextCursor`: the tools to come are denied.
    MoreTools,
}

impl FindingKind {
    /// `no_name`, `name_too_long`, `name_is_pattern`, `duplicate_name`, `malformed_definition` or `more_tools`.
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
        // Long enough to know it by; the list itself has the rest.
        let name = name.map(|name| name.chars().take(SHOWN).collect::<String>().into());
        Self { kind, index, name }
    }

    /// What was found.
    pub fn kind(&self) -> FindingKind {
        self.kind
    }

    /// Which element of the list it is about; none for the list as a whole.
    pub fn index(&self) -> Option<usize> {
        self.index
    }

    /// The tool's name, or its first 80 characters; none where there is none.
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
            FindingKind::NameTooLong => "its name is past the bound of 256 bytes; it stays denied",
            FindingKind::NameIsPattern => "its name has a `*`, which a policy takes for a pattern; it stays denied",
            FindingKind::DuplicateName => "its name stands twice; the strictest class holds",
            FindingKind::MalformedDefinition => {
                "its definition is not shaped as one; it is classed as other at the least"
            }
            FindingKind::MoreTools => "the list goes on at its `nextCursor`; the tools to come are denied",
        })
    }
}

const SHOWN: usize = 80;
