//! Classifies the tools of a server by risk, and writes a draft policy.
//!
//! [`classify`] reads a `tools/list` result and decides for each tool whether it reads, writes,
//! executes, moves money or destroys, and reports the words that indicate it.
//! [`Recommendation::write_policy`] writes a matching policy:
//!
//! | class | policy |
//! |---|---|
//! | [`Read`](RiskClass::Read) | allowed |
//! | [`Write`](RiskClass::Write) | 30 calls a minute for each grant, shared by all tools of the class |
//! | [`Execute`](RiskClass::Execute) | 10 calls a minute for each grant, shared by all tools of the class |
//! | [`Financial`](RiskClass::Financial) | each call needs a person's approval |
//! | [`Other`](RiskClass::Other) | denied and hidden until a person has reviewed it |
//! | [`Destructive`](RiskClass::Destructive) | denied and hidden |
//!
//! Everything else is denied. The policy is a first draft for a person to review and edit; each
//! entry states its reason.
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
//! # Evidence
//! The evidence is the verbs of the name; the verbs at the beginning of sentences of the
//! description, and destructive verbs anywhere in it; and the arguments (a `sql` or a `command`, an
//! `action` that can be `delete`). The strictest class that is found applies. A tool without known
//! words is [`Other`](RiskClass::Other).
//!
//! Annotations are claims of the server: `destructiveHint: true` and `readOnlyHint: false` raise a
//! class, and an annotation never lowers one. `readOnlyHint: true` only adds to the confidence in
//! the words. A hint that is not a boolean is read as the worse of both values.
//!
//! # Limits
//! Names and descriptions are claims of the server as well, and only English ones are understood. A
//! malicious server can name its tools as it likes: a class says what a tool claims to do, not what
//! it does. Review the policy before use. [`mcp::ToolPins`](crate::mcp::ToolPins) detects a later
//! change of a definition.

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

/// The effect of a tool, according to its definition. Each class is restricted more than those
/// before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RiskClass {
    /// The tool looks something up or computes something.
    Read,
    /// It creates or changes something, and can be undone.
    Write,
    /// It runs code, a command, or work with an unknown outcome.
    Execute,
    /// It moves money, or changes something about money.
    Financial,
    /// Its definition does not indicate an effect.
    Other,
    /// It removes, overwrites or permanently ends something, or the server says that it may.
    Destructive,
}

impl RiskClass {
    /// All classes, the least restricted first.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Execute, Self::Financial, Self::Other, Self::Destructive];

    /// Returns `read`, `write`, `execute`, `financial`, `other` or `destructive`.
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

/// The harm that a call can do: that of the class, or one step more if it reaches an open world,
/// reads secrets, or changes many items at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Reads.
    Low,
    /// Writes, or reads with a raised severity.
    Medium,
    /// Executes, moves money, destroys or has an unknown effect; or writes with a raised severity.
    High,
    /// Executes, moves money, destroys or has an unknown effect, with a raised severity.
    Critical,
}

impl Severity {
    /// Returns `low`, `medium`, `high` or `critical`.
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

/// The strength of the evidence for a class. There are three levels rather than a percentage,
/// because matching words cannot be more precise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Confidence {
    /// At most one source agrees, and another disagrees or there is no description. Always the
    /// confidence of [`RiskClass::Other`].
    Low,
    /// One source agrees; or several do, but one disagrees or there is no description.
    Medium,
    /// At least two of name, description, arguments and annotations agree, and none disagrees.
    High,
}

impl Confidence {
    /// Returns `low`, `medium` or `high`.
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

/// A tool, its class, and the evidence for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolClass {
    name: Box<str>,
    class: RiskClass,
    severity: Severity,
    confidence: Confidence,
    evidence: Vec<Evidence>,
}

impl ToolClass {
    /// Returns the name of the tool, as the server gives it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the class of the tool.
    pub fn class(&self) -> RiskClass {
        self.class
    }

    /// Returns the harm that a call can do.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Returns the strength of the evidence.
    pub fn confidence(&self) -> Confidence {
        self.confidence
    }

    /// Returns the evidence, that for the strictest class first. Empty if no word is known.
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }
}

/// The classes of a server's tools. Created by [`classify`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "classes restrict nothing until their policy is in force"]
pub struct Recommendation {
    tools: Vec<ToolClass>,
    findings: Vec<Finding>,
}

/// The error of [`classify`] and of writing a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecommendError {
    /// The value has no list of tools: it is neither an array, nor an object with an array `tools`,
    /// nor a response with one in its `result`.
    #[error("no list of tools: expected an array, `{{\"tools\": [..]}}`, or a response to `tools/list`")]
    NoList,
    /// There are more tools than a policy may have entries.
    #[error("{0} tools, but a policy has at most {bound} entries", bound = Bounds::default().entries)]
    TooManyTools(usize),
    /// The policy would be larger than a document may be, in bytes.
    #[error(
        "the policy would have {0} bytes, more than {bound}: classify the tools in parts",
        bound = Bounds::default().document_bytes
    )]
    PolicyTooLarge(usize),
    /// The written policy is invalid. This is a bug in this crate: please report it.
    #[error("the written policy is invalid: {0}")]
    NotAPolicy(#[from] PolicyError),
}

/// Classifies the tools of a `tools/list` result: the whole JSON-RPC response, its `result`, or the
/// bare array.
///
/// Runs in linear time. The classes do not depend on the order of keys. Tools are in the server's
/// order; if several have the same name, the strictest class applies. Problems in the list are
/// reported as [findings](Recommendation::findings), and a tool that an entry cannot name stays
/// denied.
///
/// # Errors
/// [`RecommendError::NoList`] if there is no list, and [`RecommendError::TooManyTools`] if it has
/// more than 100,000 tools.
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
    /// Returns the tools that a policy can name, each once.
    pub fn tools(&self) -> &[ToolClass] {
        &self.tools
    }

    /// Returns the problems in the list.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns the number of tools in a class.
    pub fn count(&self, class: RiskClass) -> usize {
        self.tools.iter().filter(|tool| tool.class == class).count()
    }

    /// Writes the policy as text to review and edit, ordered by class (the least restricted first)
    /// and name.
    ///
    /// Apart from the names of tools, it contains no text of the server.
    ///
    /// # Errors
    /// [`RecommendError::PolicyTooLarge`] if it exceeds 8 MiB (about 30,000 tools).
    pub fn write_policy(&self) -> Result<String, RecommendError> {
        let text = write::policy(self);
        let bound = Bounds::default().document_bytes;
        if text.len() > bound { Err(RecommendError::PolicyTooLarge(text.len())) } else { Ok(text) }
    }

    /// Returns the policy that [`Recommendation::write_policy`] writes.
    ///
    /// # Errors
    /// As for [`Recommendation::write_policy`].
    pub fn policy(&self) -> Result<Policy, RecommendError> {
        Ok(self.write_policy()?.parse()?)
    }
}
