//! Risk classes of a server's tools, and the policy to start from.
//!
//! [`classify`] reads a `tools/list` result and tells of each tool whether it reads, writes, executes, moves money or destroys,
//! and by which words. [`Recommendation::write_policy`] writes the policy that fits:
//!
//! | class | in the policy |
//! |---|---|
//! | [`Read`](RiskClass::Read) | allowed |
//! | [`Write`](RiskClass::Write) | 30 calls a minute for each grant, all tools of the class together |
//! | [`Execute`](RiskClass::Execute) | 10 calls a minute for each grant, all tools of the class together |
//! | [`Financial`](RiskClass::Financial) | each call needs a person's approval |
//! | [`Other`](RiskClass::Other) | denied and hidden, until somebody has looked at it |
//! | [`Destructive`](RiskClass::Destructive) | denied and hidden |
//!
//! and everything else is denied. It is a first draft for a person to read and edit: each entry says why it stands there.
//!
//! ```
//! use serde_json::json;
//! use toolgate::recommend::{self, RiskClass};
//!
//! let list = json!({ "tools": [
//!     { "name": "list_files", "description": "Lists the files of a folder." },
//!     { "name": "delete_all", "description": "Tidies up.", "annotations": { "readOnlyHint": true } },
//! ]});
//! let recommendation = recommend::classify(&list)?;
//! let classes: Vec<_> = recommendation.tools().iter().map(|tool| tool.class()).collect();
//! assert_eq!(classes, [RiskClass::Read, RiskClass::Destructive]);
//! assert_eq!(recommendation.tools()[1].evidence()[0].word(), "delete");
//!
//! let policy = recommendation.policy()?;
//! assert!(policy.lists("list_files") && !policy.lists("delete_all"));
//! # Ok::<(), toolgate::recommend::RecommendError>(())
//! ```
//!
//! # What counts
//! The verbs of the name first; then the verbs with which the sentences of the description begin, or that destroy something; then the arguments (a `sql` or a
//! `command`, an `action` that can be `delete`). The strictest of all that is found decides, and a tool of which no word is known is
//! [`Other`](RiskClass::Other). Annotations are the server's own word: `destructiveHint: true` and `readOnlyHint: false` raise a
//! class, and no annotation lowers one; `readOnlyHint: true` only adds to the confidence in what the words say. A hint that is
//! no boolean is taken for the worse of both.
//!
//! # What it cannot tell
//! Names and descriptions are the server's own as well, and English. A server that means to deceive calls its tools what it
//! likes: the classes say what a tool claims to do, not what it does. So the policy is to be read before it is used, and
//! [`mcp::ToolPins`](crate::mcp::ToolPins) notices when a definition changes later.

mod evidence;
mod finding;
mod schema;
mod split;
mod weigh;
mod words;
mod write;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use serde_json::Value;

use crate::policy::{Bounds, Policy, PolicyError};

pub use evidence::{Evidence, Source};
pub use finding::{Finding, FindingKind};

/// What a tool does to the world, as far as its definition tells. Each is restricted more than those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RiskClass {
    /// It looks something up or works something out.
    Read,
    /// It makes or changes something, and can be undone.
    Write,
    /// It runs code, a command, or work whose end its name does not tell.
    Execute,
    /// It moves money, or changes something about money.
    Financial,
    /// Its definition does not tell what it does.
    Other,
    /// It takes something away, writes over it, or ends it for good; or the server says that it may.
    Destructive,
}

impl RiskClass {
    /// All classes, the least restricted first.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Execute, Self::Financial, Self::Other, Self::Destructive];

    /// `read`, `write`, `execute`, `financial`, `other` or `destructive`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "execute",
            Self::Financial => "financial",
            Self::Other => "other",
            Self::Destructive => "destructive",
        }
    }
}

impl fmt::Display for RiskClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How much harm a call can do: that of the class, or one step more where something adds to it: an open world, secrets
/// that are read, much that is changed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Reading.
    Low,
    /// Writing, or reading what weighs more.
    Medium,
    /// Executing, moving money, destroying, and what cannot be told.
    High,
    /// The same, and something adds to it.
    Critical,
}

impl Severity {
    /// `low`, `medium`, `high` or `critical`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How well a class is supported. There are three steps and no percentage, as words in a table carry no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Confidence {
    /// One source alone says so and another says otherwise, or there is no description; always of [`RiskClass::Other`].
    Low,
    /// One source says so, or several and one says otherwise; or two, and there is no description.
    Medium,
    /// Two of name, description, arguments and annotations say so, and none says otherwise.
    High,
}

impl Confidence {
    /// `low`, `medium` or `high`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A tool, its class, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolClass {
    name: Box<str>,
    class: RiskClass,
    severity: Severity,
    confidence: Confidence,
    evidence: Vec<Evidence>,
}

impl ToolClass {
    /// The tool's name, as the server gives it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does.
    pub fn class(&self) -> RiskClass {
        self.class
    }

    /// How much harm a call can do.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// How well the class is supported.
    pub fn confidence(&self) -> Confidence {
        self.confidence
    }

    /// The words that led there, those for the strictest class first. None where nothing is known of the tool.
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }
}

/// The classes of a server's tools. Made by [`classify`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "classes restrict nothing until their policy is in force"]
pub struct Recommendation {
    tools: Vec<ToolClass>,
    findings: Vec<Finding>,
}

/// Why there is no recommendation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecommendError {
    /// The value has no list of tools: it is neither an array, nor an object with an array `tools`, nor an answer with one in its
    /// `result`. An error of the server is none either.
    #[error("no list of tools: expected an array, `{{\"tools\": [..]}}`, or an answer to `tools/list`")]
    NoList,
    /// There are more tools than a policy may have entries.
    #[error("{0} tools are past the bound of {bound} entries of a policy", bound = Bounds::default().entries)]
    TooManyTools(usize),
    /// The policy would be larger than a document may be, in bytes.
    #[error("the policy would have {0} bytes, past the bound of {bound}: recommend for a part of the tools", bound = Bounds::default().document_bytes)]
    PolicyTooLarge(usize),
    /// The policy that was written is none. This is a mistake of the crate: please report it.
    #[error("the policy that was written is none: {0}")]
    NotAPolicy(#[from] PolicyError),
}

/// Classes the tools of a `tools/list` result: the whole JSON-RPC answer, its `result`, or the bare array.
///
/// Linear in the list. The same list gives the same classes, whatever the order of keys. Tools come in the server's order; of
/// several with one name the strictest class holds. What is wrong with a list is told by its [findings](Recommendation::findings),
/// and a tool that no entry can name stays denied.
///
/// # Errors
/// [`RecommendError::NoList`] where there is no list, and [`RecommendError::TooManyTools`] for one past 100,000 tools.
pub fn classify(list: &Value) -> Result<Recommendation, RecommendError> {
    let in_object = |value: &Value| value.get("tools").is_some();
    let result = if in_object(list) { Some(list) } else { list.get("result") };
    let listed = list.as_array().or_else(|| result?.get("tools")?.as_array());
    let listed = listed.ok_or(RecommendError::NoList)?;
    let bounds = Bounds::default();
    if listed.len() > bounds.entries {
        return Err(RecommendError::TooManyTools(listed.len()));
    }
    let mut recommendation = Recommendation { tools: Vec::with_capacity(listed.len()), findings: Vec::new() };
    let Recommendation { tools, findings } = &mut recommendation;
    let mut by_name: HashMap<&str, usize> = HashMap::with_capacity(listed.len());
    for (index, tool) in listed.iter().enumerate() {
        let name = tool.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let mut find = |kind| findings.push(Finding::new(kind, Some(index), name));
        let (Some(name), Some(members)) = (name, tool.as_object()) else {
            find(FindingKind::NoName);
            continue;
        };
        if name.len() > bounds.pattern_bytes {
            find(FindingKind::NameTooLong);
            continue;
        }
        if name.contains('*') {
            find(FindingKind::NameIsPattern);
            continue;
        }
        let (tool, well_formed) = weigh::weigh(name, members);
        if !well_formed {
            find(FindingKind::MalformedDefinition);
        }
        match by_name.entry(name) {
            Entry::Vacant(vacant) => {
                vacant.insert(tools.len());
                tools.push(tool);
            }
            Entry::Occupied(first) => {
                find(FindingKind::DuplicateName);
                if let Some(first) = tools.get_mut(*first.get())
                    && (first.class, first.severity) < (tool.class, tool.severity)
                {
                    *first = tool;
                }
            }
        }
    }
    let goes_on = result.and_then(|result| result.get("nextCursor")).is_some_and(|cursor| !cursor.is_null());
    if goes_on {
        findings.push(Finding::new(FindingKind::MoreTools, None, None));
    }
    Ok(recommendation)
}

impl Recommendation {
    /// The tools that a policy can name, each once.
    pub fn tools(&self) -> &[ToolClass] {
        &self.tools
    }

    /// What is wrong with the list.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many tools are of a class.
    pub fn count(&self, class: RiskClass) -> usize {
        self.tools.iter().filter(|tool| tool.class == class).count()
    }

    /// Writes the policy, as text to be read and edited: by class, the least restricted first, and by name.
    ///
    /// It says nothing in the server's own words but for the names of tools.
    ///
    /// # Errors
    /// [`RecommendError::PolicyTooLarge`] past 8 MiB, which is some 30,000 tools.
    pub fn write_policy(&self) -> Result<String, RecommendError> {
        let text = write::policy(self);
        let bound = Bounds::default().document_bytes;
        if text.len() > bound { Err(RecommendError::PolicyTooLarge(text.len())) } else { Ok(text) }
    }

    /// The policy itself: what [`Recommendation::write_policy`] writes, read again.
    ///
    /// # Errors
    /// As for [`Recommendation::write_policy`].
    pub fn policy(&self) -> Result<Policy, RecommendError> {
        Ok(self.write_policy()?.parse()?)
    }
}
