//! Why a call is decided as it is: every step and every rule with its outcome, and what would have to change.
//!
//! [`Policy::explain`](crate::Policy::explain) looks at a policy alone, [`Gate::explain`](crate::Gate::explain) at its counters too. Both are a slower way
//! to ask than deciding is: they read the document again, which takes time linear in its size, and try changes out within a budget.
//! [`Explanation::effect`] is that of [`Policy::evaluate`](crate::Policy::evaluate) on every call.
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
//! // Both reasons, not the first alone, and what would help against each.
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

pub(crate) use limits::Standing;
pub(crate) use sample::matching;
pub(crate) use witness::SAMPLE_TIME;

impl Truth {
    /// `false`, `undecidable` or `true`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::False => "false",
            Self::Undecidable => "undecidable",
            Self::True => "true",
        }
    }
}

/// What becomes of a call at one step, or by one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a host may show each in its own way")]
pub enum Outcome {
    /// It does not stop the call.
    Passes,
    /// It stops the call, or would if no step before it did.
    Stops,
    /// It cannot be told: the counters were not asked, or the call cannot be read.
    Unknown,
}

impl Outcome {
    /// `passes`, `stops` or `unknown`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::Stops => "stops",
            Self::Unknown => "unknown",
        }
    }
}

/// The steps of a decision, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepKind {
    /// The call can be read: its arguments are an object, or absent.
    Call,
    /// There is a policy.
    Policy,
    /// `hide` does not name the tool.
    Hide,
    /// Some entry matches the tool, or `default` is `allow`.
    Default,
    /// No matching entry has the action `deny`.
    Action,
    /// All rules of `require` hold.
    Require,
    /// No rule of `deny_if` matches.
    DenyIf,
    /// All limits can count the call, and have room.
    Limits,
    /// No action and no rule of `require_approval_if` asks for an approval.
    Approval,
}

impl StepKind {
    /// The word that it is written with: `deny_if`.
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

/// Why a call is decided as it is. See the [module](self).
#[derive(Debug, Clone, Serialize)]
#[must_use = "an explanation is for somebody to read"]
pub struct Explanation {
    pub(super) tool: String,
    pub(super) at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
    /// What the rules say: `allow`, `deny` or `approval_required`.
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
    /// The tool that is called.
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// What the rules say of the call, limits apart: always what [`Policy::evaluate`](crate::Policy::evaluate) says.
    pub fn effect(&self) -> crate::policy::Effect {
        self.effect
    }

    /// The rule that the effect comes from, as [`Evaluation::rule`](crate::Evaluation::rule) has it.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    /// The JSON Pointers of the entries that match the tool, in document order.
    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    /// All steps in their order, those after the deciding one included.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The first step that stops the call, limits included as far as they are known; none for a call that passes.
    pub fn decided_by(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.outcome == Outcome::Stops)
    }

    /// The code of the decision, as far as it is known; none for a call that passes.
    pub fn code(&self) -> Option<Code> {
        self.decided_by()?.code
    }

    /// Every rule that stops the call or would, in the order of the steps.
    pub fn reasons(&self) -> impl Iterator<Item = &RuleOutcome> {
        self.steps.iter().flat_map(|step| &step.rules).filter(|rule| rule.outcome == Outcome::Stops)
    }

    /// What the call would be charged, and how each limit stands, if that was asked.
    pub fn limits(&self) -> &[Limited] {
        self.steps.iter().find(|step| step.kind == StepKind::Limits).map_or(&[], |step| &step.limits)
    }
}

/// One step.
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
    /// Which step it is.
    pub fn kind(&self) -> StepKind {
        self.kind
    }

    /// What becomes of the call here.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The code of a decision by this step.
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    /// Its rules, of the matching entries in document order, then of `all_tools`.
    pub fn rules(&self) -> &[RuleOutcome] {
        &self.rules
    }
}

/// What one rule says of the call.
#[derive(Debug, Clone, Serialize)]
pub struct RuleOutcome {
    pub(super) pointer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) outcome: Outcome,
    /// What its conditions come to.
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
    /// Its place in the document, as decisions name it.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The name that its author gave it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What becomes of the call by it.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// What its conditions come to; nothing for an action.
    pub fn truth(&self) -> Option<Truth> {
        self.truth
    }

    /// Its author's text for a call that it stops.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Its conditions.
    pub fn conditions(&self) -> &[ConditionOutcome] {
        &self.conditions
    }

    /// For a rule that stops the call: changes of which each makes it let the call pass, the nearest first. None where none was
    /// found.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}

/// What one condition says of the call.
///
/// `not` is worked in: what lies under it is shown turned around, as it decides, `any` as `all` and `eq` as `not eq`.
#[derive(Debug, Clone, Serialize)]
pub struct ConditionOutcome {
    pub(super) pointer: String,
    pub(super) truth: Truth,
    #[serde(flatten)]
    pub(super) asked: Asked,
}

impl ConditionOutcome {
    /// Its place in the document.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// What it comes to.
    pub fn truth(&self) -> Truth {
        self.truth
    }

    /// What it asks.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }
}

/// What a condition asks of a call.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Asked {
    /// A comparison.
    Comparison {
        /// What is compared.
        path: String,
        /// The operator as written.
        op: &'static str,
        /// Whether it stands below an odd number of `not`.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        not: bool,
        /// What the policy compares with.
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<Value>,
        /// The other part of the call that it compares with, and what stood there.
        #[serde(skip_serializing_if = "Option::is_none")]
        value_from: Option<(String, Seen)>,
        /// What stood at the path: the first few of the elements of `[*]`.
        found: Vec<Seen>,
    },
    /// One of these is enough.
    Any {
        /// Its conditions.
        any: Vec<ConditionOutcome>,
    },
    /// All of these have to hold.
    All {
        /// Its conditions.
        all: Vec<ConditionOutcome>,
    },
}

/// What stands at a path of the call.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Seen {
    /// Nothing, or null.
    Absent,
    /// Something that the path cannot go into.
    Closed,
    /// A value of this type and size, which is not shown.
    Masked {
        /// The JSON type.
        r#type: &'static str,
        /// Characters, elements or members.
        #[serde(skip_serializing_if = "Option::is_none")]
        length: Option<usize>,
    },
    /// The value.
    Value(Value),
}
