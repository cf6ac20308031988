//! Example calls, and the effects of rules on them.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::call::ToolCall;
use crate::call::identity::Identity;
use crate::call::path::{Path, Root};
use crate::policy::{Code, Effect, Evaluation, Policy};
use crate::time::Timestamp;

/// The time of example calls that do not depend on the time: 2026-01-15T10:30:00Z, a Thursday.
pub(crate) const SAMPLE_TIME: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

/// An example call that demonstrates a finding, a difference or a change. It owns its data.
///
/// Serialized, it has the keys of a call in the cases of [`testing`](crate::testing), and `at`.
#[derive(Clone, Debug, PartialEq)]
pub struct Witness {
    tool: String,
    /// An object.
    arguments: Value,
    /// An object.
    context: Value,
    /// An object; an empty one is none.
    input: Value,
    is_task: bool,
    /// In the order of [`Identity::ALL`].
    identities: [Option<String>; 5],
    at: Timestamp,
}

impl Witness {
    pub(crate) fn new(call: &ToolCall<'_>, at: Timestamp) -> Self {
        let object = |members: Option<&Map<String, Value>>| Value::Object(members.cloned().unwrap_or_default());
        Self {
            tool: call.tool().to_owned(),
            arguments: object(call.argument_members()),
            context: object(call.context_members()),
            input: object(call.input_members()),
            is_task: call.is_task(),
            identities: Identity::ALL.map(|identity| call.identity(identity).map(str::to_owned)),
            at,
        }
    }

    /// Creates a call without arguments, context and identities.
    pub(crate) fn of_tool(tool: impl Into<String>) -> Self {
        let object = || Value::Object(Map::new());
        let identities = [const { None }; 5];
        Self {
            tool: tool.into(),
            arguments: object(),
            context: object(),
            input: object(),
            is_task: false,
            identities,
            at: SAMPLE_TIME,
        }
    }

    /// Returns the call.
    pub fn call(&self) -> ToolCall<'_> {
        let [grant, session, agent, user, server] = self.identities.each_ref().map(Option::as_deref);
        ToolCall::new(&self.tool, &self.arguments)
            .grant(grant)
            .session(session)
            .agent(agent)
            .user(user)
            .server(server)
            .context(self.context.as_object())
            .task(self.is_task)
            .input(self.input_members())
    }

    /// Returns the name of the tool.
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// Returns the arguments, an object.
    pub fn arguments(&self) -> &Value {
        &self.arguments
    }

    /// Returns when the call is made.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    pub(crate) fn set_time(&mut self, at: Timestamp) {
        self.at = at;
    }

    /// Evaluates the call under a policy.
    pub(crate) fn evaluate<'p>(&self, policy: &'p Policy) -> Evaluation<'p> {
        policy.evaluate(&self.call(), self.at)
    }

    /// Returns the object that paths with this root refer to.
    pub(crate) fn object(&self, root: Root) -> Option<&Value> {
        match root {
            Root::Arguments => Some(&self.arguments),
            Root::Context => Some(&self.context),
            Root::Input => Some(&self.input),
            Root::Identity(_) | Root::Task | Root::Tool | Root::Time(_) => None,
        }
    }

    pub(crate) fn object_mut(&mut self, root: Root) -> Option<&mut Value> {
        match root {
            Root::Arguments => Some(&mut self.arguments),
            Root::Context => Some(&mut self.context),
            Root::Input => Some(&mut self.input),
            Root::Identity(_) | Root::Task | Root::Tool | Root::Time(_) => None,
        }
    }

    pub(crate) fn set_identity(&mut self, identity: Identity, name: Option<String>) {
        let slots = Identity::ALL.iter().zip(&mut self.identities);
        slots.filter(|(known, _)| **known == identity).for_each(|(_, slot)| slot.clone_from(&name));
    }

    /// Sets the value at a path, or removes it. Returns `false` if that is not possible.
    pub(crate) fn edit(&mut self, path: &Path, to: Option<&Value>) -> bool {
        if let Root::Identity(identity) = path.root {
            let name = to.map(|to| to.as_str().map(str::to_owned));
            let is_name = !matches!(name, Some(None));
            if is_name {
                self.set_identity(identity, name.flatten());
            }
            return is_name;
        }
        if path.root == Root::Task {
            self.is_task = to == Some(&Value::Bool(true));
            return self.is_task || to.is_none();
        }
        // The root itself must remain an object.
        self.object_mut(path.root).is_some_and(|root| path.edit(root, to) && root.is_object())
    }

    fn context_members(&self) -> Option<&Map<String, Value>> {
        self.context.as_object().filter(|members| !members.is_empty())
    }

    fn input_members(&self) -> Option<&Map<String, Value>> {
        self.input.as_object().filter(|members| !members.is_empty())
    }

    /// Returns the identities that the call has, with their names in the language.
    fn identities(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = Identity::ALL.into_iter().zip(&self.identities);
        all.filter_map(|(identity, name)| Some((identity.as_str(), name.as_deref()?)))
    }
}

impl Serialize for Witness {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("tool", &self.tool)?;
        members.serialize_entry("arguments", &self.arguments)?;
        if let Some(context) = self.context_members() {
            members.serialize_entry("context", context)?;
        }
        if let Some(input) = self.input_members() {
            members.serialize_entry("input", input)?;
        }
        if self.is_task {
            members.serialize_entry("task", &true)?;
        }
        self.identities().try_for_each(|(word, name)| members.serialize_entry(word, name))?;
        members.serialize_entry("at", &self.at)?;
        members.end()
    }
}

/// Writes the tool, the arguments, and what else the call has, on one line.
impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Value::from(&*self.tool), self.arguments)?;
        if self.context_members().is_some() {
            write!(f, " context {}", self.context)?;
        }
        if self.input_members().is_some() {
            write!(f, " input {}", self.input)?;
        }
        if self.is_task {
            f.write_str(" task")?;
        }
        self.identities().try_for_each(|(word, name)| write!(f, " {word} {}", Value::from(name)))?;
        if self.at == SAMPLE_TIME { Ok(()) } else { write!(f, " at {}", self.at) }
    }
}

/// The effect of a policy's rules on a call, without limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleEffect {
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

impl RuleEffect {
    pub(crate) fn of(policy: &Policy, call: &Witness) -> Self {
        let evaluation = call.evaluate(policy);
        let decision = effect_word(evaluation.effect());
        Self { decision, code: evaluation.code(), rule: evaluation.rule().map(String::from) }
    }

    /// Returns `allow`, `deny` or `approval_required`.
    pub fn decision(&self) -> &'static str {
        self.decision
    }

    /// Returns the code of the rule that stops the call.
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    /// Returns the rule that stops the call, in the form of
    /// [`Evaluation::rule`](crate::Evaluation::rule).
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }
}

/// `deny by /tools/refund/deny_if/0`
impl fmt::Display for RuleEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.decision)?;
        self.rule.as_ref().map_or(Ok(()), |rule| write!(f, " by {rule}"))
    }
}

/// Returns `allow`, `deny` or `approval_required`.
pub(crate) fn effect_word(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny(_) => "deny",
        Effect::RequireApproval => "approval_required",
    }
}
