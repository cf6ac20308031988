//! Explanations of decisions: the outcome of every step and every rule, and the changes that would
//! let the call pass.
//!
//! [`Policy::explain`](crate::Policy::explain) explains a policy alone,
//! [`Gate::explain`](crate::Gate::explain) the state of its counters too. Both are slower than a
//! decision: they read the document again, which takes time linear in its size, and try changes
//! within a budget. [`Explanation::effect`] always equals the effect of
//! [`Policy::evaluate`](crate::Policy::evaluate).
//!
//! ```
//! use serde_json::json;
//! use toolgate::{Policy, Timestamp, ToolCall};
//!
//! let policy: Policy = r#"{ "version": "1", "default": "deny", "tools": { "pay": {
//!     "require": [{ "conditions": [{ "path": "args.currency", "op": "in", "value": ["usd", "eur"] }] }],
//!     "deny_if": [{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 500 }] }]
//! } } }"#.parse()?;
//! let arguments = json!({ "amount": 900, "currency": "gbp" });
//! let explanation = policy.explain(&ToolCall::new("pay", &arguments), Timestamp::UNIX_EPOCH);
//!
//! // Every reason, not only the first, and a change that helps against each.
//! let reasons: Vec<_> = explanation.reasons().map(|rule| (rule.pointer(), rule.changes()[0].to_string())).collect();
//! assert_eq!(reasons, [
//!     ("/tools/pay/require/0", r#"args.currency one of ["usd","eur"]"#.to_owned()),
//!     ("/tools/pay/deny_if/0", "args.amount at most 500".to_owned()),
//! ]);
//! # Ok::<(), toolgate::PolicyError>(())
//! ```

mod build;
mod change;
mod gate;
mod limits;
mod sample;
mod text;
mod witness;
mod words;

use serde::Serialize;
use serde_json::Value;

use crate::policy::Code;
use crate::time::Timestamp;

pub use crate::policy::truth::Truth;
pub use change::{Change, Need};
pub use limits::Limited;
pub use witness::{RuleEffect, Witness};

pub(crate) use limits::CounterState;
pub(crate) use sample::matching;
pub(crate) use witness::SAMPLE_TIME;

impl Truth {
    /// Returns `false`, `undecidable` or `true`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::False => "false",
            Self::Undecidable => "undecidable",
            Self::True => "true",
        }
    }
}

/// The outcome of a call at one step or under one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a host may match every outcome")]
pub enum Outcome {
    /// The step or the rule does not stop the call.
    Passes,
    /// The step or the rule stops the call, or would if no earlier step did.
    Stops,
    /// Not known: the counters were not read, or the call is malformed.
    Unknown,
}

impl Outcome {
    /// Returns `passes`, `stops` or `unknown`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::Stops => "stops",
            Self::Unknown => "unknown",
        }
    }
}

/// The steps of a decision, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepKind {
    /// The call is well-formed: its arguments are an object, or absent.
    Call,
    /// There is a policy.
    Policy,
    /// `hide` does not name the tool.
    Hide,
    /// An entry matches the tool, or `default` is `allow`.
    Default,
    /// No matching entry has the action `deny`.
    Action,
    /// All rules of `require` hold.
    Require,
    /// No rule of `deny_if` matches.
    DenyIf,
    /// All limits can count the call and have room for it.
    Limits,
    /// No action and no rule of `require_approval_if` requires an approval.
    Approval,
}

impl StepKind {
    /// Returns the name of the step in serialized form, such as `deny_if`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Policy => "policy",
            Self::Hide => "hide",
            Self::Default => "default",
            Self::Action => "action",
            Self::Require => "require",
            Self::DenyIf => "deny_if",
            Self::Limits => "limits",
            Self::Approval => "approval",
        }
    }
}

/// An explanation of the decision on a call. See the [module](self).
#[derive(Debug, Clone, Serialize)]
#[must_use = "an explanation has no effect unless it is read"]
pub struct Explanation {
    pub(super) tool: String,
    pub(super) at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
    /// Serialized as `allow`, `deny` or `approval_required`.
    #[serde(serialize_with = "effect_word")]
    pub(super) effect: crate::policy::Effect,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<String>,
    pub(super) entries: Vec<String>,
    pub(super) steps: Vec<Step>,
}

fn effect_word<S: serde::Serializer>(effect: &crate::policy::Effect, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(witness::effect_word(*effect))
}

impl Explanation {
    /// Returns the name of the called tool.
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// Returns the effect of the rules, without limits. It always equals the effect of
    /// [`Policy::evaluate`](crate::Policy::evaluate).
    pub fn effect(&self) -> crate::policy::Effect {
        self.effect
    }

    /// Returns the rule that causes the effect, in the form of
    /// [`Evaluation::rule`](crate::Evaluation::rule).
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    /// Returns the JSON Pointers of the entries that match the tool, in document order.
    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    /// Returns all steps in order, including those after the deciding step.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns the first step that stops the call, including limits whose state is known, or `None`
    /// if no step stops it.
    pub fn decided_by(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.outcome == Outcome::Stops)
    }

    /// Returns the code of [the deciding step](Self::decided_by), or `None` if no step stops the
    /// call.
    pub fn code(&self) -> Option<Code> {
        self.decided_by()?.code
    }

    /// Returns every rule that stops the call, or would if no earlier rule did, in the order of the
    /// steps.
    pub fn reasons(&self) -> impl Iterator<Item = &RuleOutcome> {
        self.steps.iter().flat_map(|step| &step.rules).filter(|rule| rule.outcome == Outcome::Stops)
    }

    /// Returns the charge of each limit, and its state if the counters were read.
    pub fn limits(&self) -> &[Limited] {
        self.steps.iter().find(|step| step.kind == StepKind::Limits).map_or(&[], |step| &step.limits)
    }
}

/// One step of a decision.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    #[serde(rename = "step")]
    pub(super) kind: StepKind,
    pub(super) outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<Code>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rules: Vec<RuleOutcome>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) limits: Vec<Limited>,
}

impl Step {
    /// Returns which step this is.
    pub fn kind(&self) -> StepKind {
        self.kind
    }

    /// Returns the outcome of the call at this step.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns the code of the decision if this step decides.
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    /// Returns its rules: those of the matching entries in document order, then of `all_tools`.
    pub fn rules(&self) -> &[RuleOutcome] {
        &self.rules
    }
}

/// The outcome of a call under one rule.
#[derive(Debug, Clone, Serialize)]
pub struct RuleOutcome {
    pub(super) pointer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) outcome: Outcome,
    /// The result of its conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) truth: Option<Truth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) conditions: Vec<ConditionOutcome>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<Change>,
}

impl RuleOutcome {
    /// Returns the JSON Pointer of the rule, as decisions report it.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Returns the `name` of the rule.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the outcome of the call under this rule.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns the result of its conditions, or `None` for an action.
    pub fn truth(&self) -> Option<Truth> {
        self.truth
    }

    /// Returns the policy's message for a call that the rule stops.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns the outcomes of its conditions.
    pub fn conditions(&self) -> &[ConditionOutcome] {
        &self.conditions
    }

    /// Returns changes to the call after each of which this rule lets the call pass. An approval
    /// comes first, then changes to the arguments alone. Empty if the rule does not stop the call,
    /// or if no change was found.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}

/// The outcome of one condition for the call.
///
/// `not` is pushed down to the comparisons: below it, `any` appears as `all`, and `eq` as `not eq`.
#[derive(Debug, Clone, Serialize)]
pub struct ConditionOutcome {
    pub(super) pointer: String,
    pub(super) truth: Truth,
    #[serde(flatten)]
    pub(super) asked: Asked,
}

impl ConditionOutcome {
    /// Returns the JSON Pointer of the condition.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Returns the result of the condition.
    pub fn truth(&self) -> Truth {
        self.truth
    }

    /// Returns the comparison, or the group of conditions.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }
}

/// The content of a condition.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Asked {
    /// A comparison.
    Comparison {
        /// The path of the value that is compared.
        path: String,
        /// The operator, as written in the policy.
        op: &'static str,
        /// `true` below an odd number of `not`.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        not: bool,
        /// The value in the policy to compare with.
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<Value>,
        /// The path of the other value of the call to compare with, and the value found there.
        #[serde(skip_serializing_if = "Option::is_none")]
        value_from: Option<(String, Seen)>,
        /// The values found at the path: for `[*]`, the first four.
        found: Vec<Seen>,
    },
    /// A group of which at least one condition must hold.
    Any {
        /// Its conditions.
        any: Vec<ConditionOutcome>,
    },
    /// A group of which all conditions must hold.
    All {
        /// Its conditions.
        all: Vec<ConditionOutcome>,
    },
}

/// The value found at a path of the call.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Seen {
    /// No value, or `null`.
    Absent,
    /// A value that the path cannot enter, such as a string where it expects an object.
    Closed,
    /// Another member of the arguments has a name that equals one of the path but for case. A
    /// server may read that one.
    CaseVariant,
    /// A hidden value, with its type and length.
    Masked {
        /// The JSON type.
        r#type: &'static str,
        /// The number of characters, elements or members.
        #[serde(skip_serializing_if = "Option::is_none")]
        length: Option<usize>,
    },
    /// The value.
    Value(Value),
}
