//! The result of a comparison, as data and as text.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::tools::explain::{RuleEffect, Witness};

/// The direction of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a change has one of two directions")]
pub enum Kind {
    /// The new policy lets through a call that the old one stops, or requires approval where the
    /// old one denies.
    Wider,
    /// The new policy stops a call that the old one lets through, or denies where the old one
    /// requires approval.
    Narrower,
}

impl Kind {
    /// Returns `wider` or `narrower`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wider => "wider",
            Self::Narrower => "narrower",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The number of a call at which the decision changes: for its neighbour, one higher or lower, both
/// policies decide alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Boundary {
    pub(super) path: String,
    pub(super) alike: Value,
    pub(super) changed: Value,
}

impl Boundary {
    /// Returns the path of the number, such as `args.amount`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the neighbouring value, for which both policies decide alike.
    pub fn alike(&self) -> &Value {
        &self.alike
    }

    /// Returns the value in the example call, for which they do not.
    pub fn changed(&self) -> &Value {
        &self.changed
    }
}

/// The details of a [`Change`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeDetail {
    /// Calls are decided differently. Both policies have evaluated the example.
    #[non_exhaustive]
    Call {
        /// The effect of the old policy on the call.
        old: RuleEffect,
        /// The effect of the new policy on the call.
        new: RuleEffect,
        /// The example call.
        witness: Box<Witness>,
        /// The boundary, if the decision changes at a number of the call.
        #[serde(skip_serializing_if = "Option::is_none")]
        boundary: Option<Boundary>,
    },
    /// A setting of a limit or of the approval terms is different.
    #[non_exhaustive]
    Terms {
        /// The pointer to the limits or to the approval terms.
        rule: String,
        /// The change, such as ``limit `spend`: max 1000 to 2000``.
        text: String,
    },
}

/// A change of the decisions about some calls.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    pub(super) kind: Kind,
    pub(super) tools: String,
    #[serde(flatten)]
    pub(super) detail: ChangeDetail,
}

impl Change {
    /// Returns the direction.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the tools with changed calls: a name, or a pattern. `*` is for all tools, or for
    /// those that no entry matches.
    pub fn tools(&self) -> &str {
        &self.tools
    }

    /// Returns the details.
    pub fn detail(&self) -> &ChangeDetail {
        &self.detail
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<9} {}", self.kind, self.tools)?;
        match &self.detail {
            ChangeDetail::Call { old, new, witness, boundary } => {
                write!(f, "\n  old      {old}\n  new      {new}\n  call     {witness}")?;
                if let Some(Boundary { path, alike, changed }) = boundary {
                    write!(f, "\n  boundary {path} {alike} | {changed}")?;
                }
                Ok(())
            }
            ChangeDetail::Terms { rule, text } => write!(f, "\n  at       {rule}\n  {text}"),
        }
    }
}

/// A rule whose change is undecided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undecided {
    pub(super) kind: Kind,
    pub(super) tools: String,
    pub(super) rule: String,
    pub(super) reason: String,
}

impl Undecided {
    /// Returns the direction in which calls may change.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the tools with calls that may change.
    pub fn tools(&self) -> &str {
        &self.tools
    }

    /// Returns the undecided rule: a rule of the old policy for [`Kind::Wider`], and of the new
    /// policy for [`Kind::Narrower`].
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Returns the reason why it is undecided.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "possibly {} {}\n  at       {}\n  {}", self.kind, self.tools, self.rule, self.reason)
    }
}

/// The differences between two policies.
///
/// They are complete: if a call is decided differently, then a [`Change`] or an [`Undecided`] of
/// that kind names its tool. If there are none of either, no decision changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub(super) changes: Vec<Change>,
    pub(super) undecided: Vec<Undecided>,
}

impl Comparison {
    /// Returns the changes, sorted by tools.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Returns the rules whose change is undecided.
    pub fn undecided(&self) -> &[Undecided] {
        &self.undecided
    }

    /// Returns `true` if it is proven that no decision changes.
    pub fn is_equal(&self) -> bool {
        self.changes.is_empty() && self.undecided.is_empty()
    }
}

/// Writes a summary in one line, then a few lines for each change.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_equal() {
            return f.write_str("no decision changes");
        }
        let count = |kind: Kind| self.changes.iter().filter(|change| change.kind == kind).count();
        let (wider, narrower) = (count(Kind::Wider), count(Kind::Narrower));
        write!(f, "{wider} wider, {narrower} narrower, {} undecided", self.undecided.len())?;
        self.changes.iter().try_for_each(|change| write!(f, "\n\n{change}"))?;
        self.undecided.iter().try_for_each(|undecided| write!(f, "\n\n{undecided}"))
    }
}

/// The answer to whether a new policy only tightens an old one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[must_use = "put the new policy in force only if the answer is `Tightening::Yes`"]
#[expect(clippy::exhaustive_enums, reason = "a host relies on it for safety, so it must handle every answer")]
pub enum Tightening {
    /// Proven: the new policy lets through nothing that the old one stops.
    Yes,
    /// The new policy lets through more. This is one such change.
    No(Box<Change>),
    /// Neither a proof nor a counterexample was found. These are the undecided rules.
    CannotTell(Vec<Undecided>),
}

impl fmt::Display for Tightening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::No(change) => write!(f, "no: {change}"),
            Self::CannotTell(undecided) => {
                f.write_str("cannot tell")?;
                undecided.iter().try_for_each(|undecided| write!(f, "\n{undecided}"))
            }
        }
    }
}
