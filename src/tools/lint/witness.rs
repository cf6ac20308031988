//! Calls that show what a finding claims, and rules run alone.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::call::ToolCall;
use crate::call::identity::Identity;
use crate::call::path::{Datum, Facts, Found, Path, Visit};
use crate::policy::ast::{Rule, RuleSection, RulesObject, policy_of};
use crate::policy::operator::Operator;
use crate::policy::{Effect, Policy};
use crate::time::Timestamp;
use crate::tools::explain::{Asked, ChangedCall, ConditionOutcome, Seen, StepKind};

/// When witnesses are called: a Thursday morning, 2026-01-15T10:30:00Z.
pub(super) const NOW: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

/// A call that the engine was run on, and what it said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Witness {
    tool: String,
    arguments: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Value>,
    /// The caller's names, by their words.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    caller: BTreeMap<&'static str, String>,
    at: Timestamp,
    /// `allow`, `deny` or `approval_required`.
    effect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

impl Witness {
    /// The call, and what `policy` says of it.
    pub(super) fn of(policy: &Policy, call: &ToolCall<'_>, now: Timestamp) -> Self {
        let evaluation = policy.evaluate(call, now);
        let object = |members: Option<&Map<String, Value>>| members.cloned().map(Value::Object);
        Self {
            tool: call.tool().to_owned(),
            arguments: object(call.argument_members()).unwrap_or_else(|| json!({})),
            context: object(call.context_members()).filter(|context| *context != json!({})),
            caller: Identity::ALL
                .into_iter()
                .filter_map(|identity| Some((identity.as_str(), call.identity(identity)?.to_owned())))
                .collect(),
            at: now,
            effect: word(evaluation.effect()),
            rule: evaluation.rule().map(Into::into),
        }
    }

    /// The tool that is called.
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// Its arguments.
    pub fn arguments(&self) -> &Value {
        &self.arguments
    }

    /// The call.
    pub fn call(&self) -> ToolCall<'_> {
        let name = |identity: Identity| self.caller.get(identity.as_str()).map(String::as_str);
        ToolCall::new(&self.tool, &self.arguments)
            .context(self.context.as_ref().and_then(Value::as_object))
            .grant(name(Identity::Grant))
            .session(name(Identity::Session))
            .agent(name(Identity::Agent))
            .user(name(Identity::User))
            .server(name(Identity::Server))
    }

    /// The instant at which it was evaluated.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// What the policy says of it, limits apart: `allow`, `deny` or `approval_required`.
    pub fn effect(&self) -> &'static str {
        self.effect
    }
}

fn word(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny(_) => "deny",
        Effect::RequireApproval => "approval_required",
    }
}

/// `refund {"amount":1} -> allow`
impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.tool, self.arguments)?;
        if let Some(context) = &self.context {
            write!(f, " with context {context}")?;
        }
        self.caller.iter().try_for_each(|(word, name)| write!(f, " by {word} {name}"))?;
        write!(f, " -> {}", self.effect)?;
        self.rule.as_ref().map_or(Ok(()), |rule| write!(f, " by {rule}"))
    }
}

/// A policy with one rule and nothing else, for every tool.
pub(super) fn alone(section: RuleSection, rule: &Rule) -> Option<Policy> {
    let mut all_tools = RulesObject::default();
    all_tools.rules_mut(section).push(rule.clone());
    policy_of([&all_tools])
}

/// A call that no rule of the policy denies, as near to `call` as a few changes find it.
pub(super) fn undenied(policy: &Policy, call: &ToolCall<'_>) -> Option<ChangedCall> {
    let mut call = ChangedCall::new(call, NOW);
    for _ in 0..24 {
        let (change, missing) = {
            let now = call.call();
            let explanation = policy.explain(&now, call.now());
            if !matches!(explanation.effect(), Effect::Deny(_)) {
                return Some(call);
            }
            let stops = |kind: StepKind| matches!(kind, StepKind::Require | StepKind::DenyIf);
            let step = explanation.decided_by().filter(|step| stops(step.kind()))?;
            let rule = step.rules().iter().find(|rule| Some(rule.pointer()) == explanation.rule())?;
            let mut missing = Vec::new();
            absent_others(rule.conditions(), &mut missing);
            (rule.changes().first().cloned(), missing)
        };
        // What a comparison with nothing cannot tell, it may tell of a value.
        let made = missing.iter().filter(|(path, value)| call.edit(path, Some(value))).count();
        if made > 0 {
            continue;
        }
        let changed = change?.apply(&call.call(), call.now());
        call = changed;
    }
    None
}

/// The other parts of the call that comparisons name and that it does not have, each with a value that it may be compared with.
fn absent_others(conditions: &[ConditionOutcome], to: &mut Vec<(Path, Value)>) {
    for condition in conditions {
        match condition.asked() {
            Asked::Comparison { op, value_from: Some((path, Seen::Absent)), .. } => {
                let types = Operator::named(op).map_or(&[][..], |operator| operator.meaning.operand_types);
                let value = match types {
                    ["number", ..] => json!(5),
                    ["array", ..] => json!(["x"]),
                    _ => json!("x"),
                };
                to.extend(Path::parse(path).ok().map(|path| (path, value)));
            }
            Asked::Any { any: inner } | Asked::All { all: inner } => absent_others(inner, to),
            _ => {}
        }
    }
}

/// The text at a path of a call, the first if there are several.
pub(super) fn text_at(call: &ChangedCall, path: &Path) -> Option<String> {
    let (call, mut text) = (call.call(), None);
    let _ = path.each(&Facts::new(&call, NOW), &mut |found| {
        if let Found::Value(Datum::Text(found)) = found {
            text = Some(found.to_owned());
        }
        Visit::Stop
    });
    text
}
