//! What a comparison finds, as data and as text.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::tools::explain::{RuleEffect, Witness};

/// Which way a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Kind {
    /// The new policy lets through what the old one stopped, or asks a person where the old one denied.
    Wider,
    /// The new policy stops what the old one let through, or denies where the old one asked a person.
    Narrower,
}

impl Kind {
    /// `wider` or `narrower`.
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

/// The value of one argument beside that of a witness, for which both policies decide alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Boundary {
    pub(super) path: String,
    pub(super) alike: Value,
    pub(super) changed: Value,
}

impl Boundary {
    /// The argument, as a path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value for which nothing changes.
    pub fn alike(&self) -> &Value {
        &self.alike
    }

    /// The witness's value.
    pub fn changed(&self) -> &Value {
        &self.changed
    }
}

/// What it is that changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeDetail {
    /// Calls are decided otherwise, this one among them: both policies have evaluated it.
    #[non_exhaustive]
    Call {
        /// What the old policy says.
        old: RuleEffect,
        /// What the new policy says.
        new: RuleEffect,
        /// The call.
        witness: Box<Witness>,
        /// Where the decision turns, if that is at a number of the call.
        #[serde(skip_serializing_if = "Option::is_none")]
        boundary: Option<Boundary>,
    },
    /// A limit or the terms of approvals are others, by what they say.
    #[non_exhaustive]
    Terms {
        /// The place of the limit, or of the tool's approval.
        rule: String,
        /// What is other: `limit "spend": max 1000 to 2000`.
        text: String,
    },
}

/// A change of what becomes of calls.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    pub(super) kind: Kind,
    pub(super) tools: String,
    #[serde(flatten)]
    pub(super) detail: ChangeDetail,
}

impl Change {
    /// Which way it goes.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The tools of which some calls change: a name, or a pattern, `*` for tools that no entry names.
    pub fn tools(&self) -> &str {
        &self.tools
    }

    /// What changes.
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

/// What could not be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undecided {
    pub(super) kind: Kind,
    pub(super) tools: String,
    pub(super) rule: String,
    pub(super) reason: String,
}

impl Undecided {
    /// Which way calls may change.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The tools of which calls may change.
    pub fn tools(&self) -> &str {
        &self.tools
    }

    /// The rule for which it could not be told: of the old policy, if calls may be wider, else of the new one.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "perhaps {} {}\n  at       {}\n  {}", self.kind, self.tools, self.rule, self.reason)
    }
}

/// The difference of two policies.
///
/// It is complete: a call that is decided otherwise is one of a tool that a [`Change`] or an [`Undecided`] of that kind names.
/// Where both are empty, no call is decided otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub(super) changes: Vec<Change>,
    pub(super) undecided: Vec<Undecided>,
}

impl Comparison {
    /// What changes, by tools.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What could not be told.
    pub fn undecided(&self) -> &[Undecided] {
        &self.undecided
    }

    /// Whether it is certain that no decision changes.
    pub fn is_equal(&self) -> bool {
        self.changes.is_empty() && self.undecided.is_empty()
    }
}

/// For people: a line that sums up, and a few for each change.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_equal() {
            return f.write_str("no call is decided otherwise");
        }
        let count = |kind: Kind| self.changes.iter().filter(|change| change.kind == kind).count();
        let (wider, narrower) = (count(Kind::Wider), count(Kind::Narrower));
        write!(f, "{wider} wider, {narrower} narrower, {} that could not be told", self.undecided.len())?;
        self.changes.iter().try_for_each(|change| write!(f, "\n\n{change}"))?;
        self.undecided.iter().try_for_each(|undecided| write!(f, "\n\n{undecided}"))
    }
}

/// Whether a policy lets through nothing that another stops.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[must_use = "an answer that nobody reads is no reason to put a policy in force"]
#[expect(clippy::exhaustive_enums, reason = "a host's safety hangs on it: no arm may be forgotten")]
pub enum Tightening {
    /// It is proven.
    Yes,
    /// It does: this, for one.
    No(Box<Change>),
    /// It is not proven, and no call was found that shows the opposite: these are the rules for which that is so.
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
