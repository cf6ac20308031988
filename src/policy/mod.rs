//! Policies: documents, compiled for decisions.
//!
//! Pure: nothing here keeps state, reads a clock or does I/O.

mod approval;
#[cfg(feature = "analysis")]
pub(crate) mod ast;
mod bounds;
pub(crate) mod code;
mod compare;
mod compile;
pub(crate) mod compiled;
pub(crate) mod condition;
mod digest;
pub(crate) mod document;
mod error;
pub(crate) mod evaluate;
mod expression;
pub(crate) mod limit;
pub(crate) mod operator;
pub(crate) mod pattern;
pub(crate) mod plan;
pub(crate) mod read;
mod schema;
pub(crate) mod text;
pub(crate) mod truth;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;

use crate::charge::CounterId;
use compiled::{Compiled, Counter, DefaultEffect};

pub use bounds::Bounds;
pub use code::Code;
pub use digest::Digest;
pub use error::{Issue, IssueCode, PolicyError};
pub(crate) use evaluate::DecidingCondition;
pub use evaluate::{Effect, Evaluation};

#[cfg(feature = "analysis")]
pub(crate) use approval::Approving;
pub(crate) use approval::{Binding, MAX_USES, Terms};
#[cfg(feature = "intercept")]
pub(crate) use error::Issues;
#[cfg(feature = "analysis")]
pub(crate) use pattern::Names;
pub(crate) use plan::{LimitRef, Plan, Uncountable};
#[cfg(feature = "analysis")]
pub(crate) use read::edits;
#[cfg(any(feature = "analysis", feature = "intercept"))]
pub(crate) use read::quote;
#[cfg(feature = "intercept")]
pub(crate) use read::suggest;

#[cfg(test)]
pub(crate) use compare::{Pairs, equal};
#[cfg(test)]
pub(crate) use truth::Truth;

/// A policy: a document that has been read and checked. Cheap to clone.
///
/// It is read from JSON text ([`FromStr`], [`Policy::from_json`]), from a [`serde_json::Value`]
/// (`Policy::try_from(&value)`), or from any other serde source. Only text has lines and columns
/// for its issues: embed a policy in a larger document as a string, or as a
/// [`RawValue`](serde_json::value::RawValue), and read that. Writing a policy ([`Policy::to_json`],
/// [`Serialize`](serde::Serialize)) and reading it again gives an equal policy.
///
/// ```
/// use serde_json::json;
/// use toolgate::{Policy, Timestamp, ToolCall};
///
/// let policy: Policy = r#"{
///     "version": "1",
///     "default": "deny",
///     "tools": { "get_*": {}, "delete_repo": { "action": "deny", "reason": "Ask an owner." } }
/// }"#.parse()?;
///
/// let arguments = json!({ "id": 7 });
/// let evaluation = policy.evaluate(&ToolCall::new("delete_repo", &arguments), Timestamp::UNIX_EPOCH);
/// assert_eq!(evaluation.rule().as_deref(), Some("/tools/delete_repo/action"));
/// assert_eq!(evaluation.message(), Some("Ask an owner."));
/// assert!(policy.evaluate(&ToolCall::new("get_repo", &arguments), Timestamp::UNIX_EPOCH).is_allowed());
/// # Ok::<(), toolgate::PolicyError>(())
/// ```
#[derive(Clone)]
pub struct Policy(Arc<Named>);

/// A compiled document with its counters in a namespace.
struct Named {
    compiled: Arc<Compiled>,
    namespace: Box<str>,
    /// The id of each counter of the document.
    counters: Box<[CounterId]>,
}

impl Policy {
    /// Reads a document, in time linear in its text.
    ///
    /// # Errors
    /// Returns every issue of the document, each with its place. [`IssueCode`] has an example of
    /// each kind. A document with an issue is refused as a whole.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        Self::from_json_within(text, &Bounds::default())
    }

    /// Reads a document within the given bounds.
    ///
    /// # Errors
    /// As for [`Policy::from_json`].
    pub fn from_json_within(text: &str, bounds: &Bounds) -> Result<Self, PolicyError> {
        compile::compile(text, bounds).map(|compiled| Self::named("", Arc::new(compiled)))
    }

    /// Reads a document from the bytes of a file.
    ///
    /// # Errors
    /// As for [`Policy::from_json`], and [`IssueCode::NotUtf8`] if the bytes are not UTF-8.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, PolicyError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::from_json(text),
            Err(error) => {
                let readable = bytes.get(..error.valid_up_to()).and_then(|head| std::str::from_utf8(head).ok());
                let mut issues = error::Issues::default();
                let help = "save the file as UTF-8".to_owned();
                let message = "the file is not UTF-8 text from here on".to_owned();
                issues.add(IssueCode::NotUtf8, error.valid_up_to(), "", message, Some(help));
                Err(issues.into_error(readable.unwrap_or_default()))
            }
        }
    }

    /// Returns the same policy with its counters in a namespace, which is empty by default.
    ///
    /// Policies with one namespace that share a store share the counters of equal names. Give each
    /// policy a namespace of its own: the name of its server, or of the policy. Do not use its
    /// digest, with which an edited policy would start new counters.
    #[must_use = "returns the policy in the namespace"]
    pub fn with_namespace(self, name: &str) -> Self {
        Self::named(name, Arc::clone(&self.0.compiled))
    }

    fn named(namespace: &str, compiled: Arc<Compiled>) -> Self {
        let counters = counters_in(namespace, &compiled.counters);
        Self(Arc::new(Named { compiled, namespace: namespace.into(), counters }))
    }

    pub(crate) fn compiled(&self) -> &Compiled {
        &self.0.compiled
    }

    /// The namespace of the counters.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// The document as one line of JSON, its members in their order.
    pub fn to_json(&self) -> &str {
        &self.compiled().text
    }

    /// The digest that identifies the document.
    pub fn digest(&self) -> Digest {
        self.compiled().digest
    }

    /// The number of entries of `tools`.
    pub fn entries(&self) -> usize {
        self.compiled().names.len()
    }

    /// Returns `true` if `tools/list` shows the tool: it is not hidden, and if the default is
    /// `deny`, an entry matches it. A tool that is not listed is denied whenever it is called.
    pub fn lists(&self, tool: &str) -> bool {
        let Compiled { default, hide, names, .. } = self.compiled();
        !hide.matches(tool) && (*default == DefaultEffect::Allow || names.matches(tool))
    }

    /// The JSON Schema (draft 2020-12) of policy documents, for editors.
    ///
    /// It accepts the documents that [`Policy::from_json`] accepts, except for what a schema cannot
    /// express. It does not refuse:
    ///
    /// - duplicate keys, text before or after the document, and nesting past the bound;
    /// - a document, a name, a regular expression or a text with `ignore_case` that has too many
    ///   bytes (it counts characters);
    /// - an invalid regular expression, and compiled ones past the bounds;
    /// - an invalid host without a character that hosts never have;
    /// - an amount with more than six decimals;
    /// - a number that is neither a 64-bit integer nor the shortest form of an `f64`;
    /// - limits of one counter that disagree.
    ///
    /// The file `examples/data/policy.schema.json` holds it. Its `$id` names the version of the
    /// language; it is not an address.
    pub fn json_schema() -> schemars::Schema {
        let mut schema = schemars::SchemaGenerator::default().into_root_schema_for::<Self>();
        schema.insert("$id".to_owned(), "urn:toolgate:policy:1".into());
        schema
    }

    /// Returns `true` if a decision depends on the time.
    pub(crate) fn reads_time(&self) -> bool {
        self.compiled().reads_time
    }
}

fn counters_in(namespace: &str, counters: &[Counter]) -> Box<[CounterId]> {
    let id = |counter: &Counter| {
        let (window, offset) = (counter.window.canonical(), counter.utc_offset.to_string());
        let kind = counter.algorithm.kind();
        let algorithm = match counter.bucket {
            0 => kind.to_owned(),
            other => format!("{kind} #{other}"),
        };
        let scope: Vec<_> = counter.scope.parts.iter().map(crate::policy::limit::ScopePart::canonical).collect();
        let parts = [namespace, &counter.name, &window, &offset, &algorithm];
        CounterId::of(parts.into_iter().chain(scope.iter().map(String::as_str)))
    };
    counters.iter().map(id).collect()
}

/// Compares the documents, not the namespaces.
impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.compiled().text == other.compiled().text
    }
}

impl Eq for Policy {}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("digest", &self.digest())
            .field("entries", &self.entries())
            .finish_non_exhaustive()
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::from_json(text)
    }
}

/// Reads a document that has already been parsed. Its issues have no lines and columns, and
/// duplicate keys are already lost: prefer reading the text.
impl TryFrom<&Value> for Policy {
    type Error = PolicyError;

    fn try_from(value: &Value) -> Result<Self, PolicyError> {
        Self::from_json(&value.to_string()).map_err(PolicyError::without_places)
    }
}
