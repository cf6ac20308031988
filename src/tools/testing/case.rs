//! Cases: steps, and the answers that they must get.

use std::fmt::{self, Write};
use std::time::Duration;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::amount::Amount;
use crate::json::object::Object;
use crate::policy::Policy;
use crate::time::Timestamp;
use crate::tools::trace::{Runner, START, explained};

/// The members of an answer. An expectation of any other could never be met.
const ANSWERS: [&str; 10] =
    ["id", "decision", "code", "rule", "message", "retry_after", "limits", "ok", "error", "tools"];
const LIMITS: [&str; 5] = ["counter", "used", "remaining", "max", "resets_at"];

/// The format of a case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    id: String,
    #[serde(default)]
    description: String,
    policy: Option<Box<RawValue>>,
    #[serde(default)]
    steps: Vec<Step>,
    document: Option<String>,
    #[serde(default)]
    issues: Vec<Object<WrittenIssue>>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenIssue {
    code: Option<String>,
    pointer: String,
}

/// A line of a trace, and the members that its answer must have.
#[derive(Clone, Debug)]
struct Step {
    line: String,
    expect: Option<Value>,
}

/// A case: steps of a [trace](crate::trace), each with the members that its answer must have.
///
/// ```
/// use std::time::Duration;
/// use serde_json::json;
/// use toolgate::testing::{Case, Suite};
///
/// let policy = r#"{ "version": "1", "default": "deny",
///     "tools": { "search": { "rate_limit": { "max": 1, "window": 60, "scope": "grant" } } } }"#;
/// let once_a_minute = Case::new("one search a minute")
///     .caller(json!({ "grant": "g-42" }))
///     .call("search", json!({})).allowed()
///     .call("search", json!({})).limited("/tools/search/rate_limit")
///     .after(Duration::from_secs(60))
///     .call("search", json!({})).allowed();
/// assert!(Suite::new(policy)?.case(once_a_minute).run()?.is_complete());
/// # Ok::<(), toolgate::testing::TestError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a case does nothing until a suite runs it"]
pub struct Case {
    id: String,
    description: String,
    policy: Option<String>,
    steps: Vec<Step>,
    /// The id of the last call.
    last_call: Option<String>,
    refused: Option<(String, Vec<Object<WrittenIssue>>)>,
    now: Timestamp,
}

impl Case {
    /// Creates a case without steps, at the start of a trace.
    pub fn new(id: impl Into<String>) -> Self {
        let (id, description) = (id.into(), String::new());
        Self { id, description, policy: None, steps: Vec::new(), last_call: None, refused: None, now: START }
    }

    /// Returns the id of the case.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Describes the purpose of the case.
    pub fn description(self, text: impl Into<String>) -> Self {
        Self { description: text.into(), ..self }
    }

    /// Sets the caller of the calls that follow, by the members of a `caller` step (`grant`,
    /// `session`, `agent`, `user`, `server`, `context`).
    pub fn caller(self, caller: Value) -> Self {
        self.pushed("caller", caller)
    }

    /// Advances the clock by this time.
    pub fn after(self, time: Duration) -> Self {
        Self { now: self.now.saturating_add(time), ..self }
    }

    /// Sets the clock to this instant.
    pub fn at(self, now: Timestamp) -> Self {
        Self { now, ..self }
    }

    /// Adds a call. Follow it with the expected decision: [`allowed`](Self::allowed),
    /// [`denied`](Self::denied), [`limited`](Self::limited) or [`asks`](Self::asks).
    pub fn call(self, tool: &str, arguments: Value) -> Self {
        let call = [("tool".to_owned(), Value::from(tool)), ("arguments".to_owned(), arguments)];
        self.pushed("call", Value::Object(call.into_iter().collect()))
    }

    /// Adds any step of a trace, without its `at`.
    pub fn step(self, step: Map<String, Value>) -> Self {
        let mut case = self;
        let mut step = step;
        if step.contains_key("call") {
            let line = || format!("#{}", case.steps.len() + 1);
            case.last_call = Some(step.get("id").and_then(Value::as_str).map_or_else(line, str::to_owned));
        }
        step.insert("at".to_owned(), Value::from(case.now.to_string()));
        case.steps.push(Step { line: Value::Object(step).to_string(), expect: None });
        case
    }

    fn pushed(self, key: &str, value: Value) -> Self {
        self.step([(key.to_owned(), value)].into_iter().collect())
    }

    /// Approves the request of the last call in the name of `person`, and expects that to be
    /// possible.
    pub fn approved_by(self, person: &str) -> Self {
        self.after_call("approve", Some(("by", person.into())))
    }

    /// Refuses the request of the last call in the name of `person`, and expects that to be
    /// possible.
    pub fn refused_by(self, person: &str) -> Self {
        self.after_call("refuse", Some(("by", person.into())))
    }

    /// Releases the last call, which was not made, and expects that to be possible.
    pub fn released(self) -> Self {
        self.after_call("release", None)
    }

    /// Settles the last call at its real amount, and expects that to be possible.
    pub fn settled(self, amount: impl Into<Amount>) -> Self {
        // An amount is a number, which always serialises.
        let amount = serde_json::to_value(amount.into()).unwrap_or_default();
        self.after_call("settle", Some(("amount", amount)))
    }

    /// Ends the last call, and expects that to be possible.
    pub fn ended(self) -> Self {
        self.after_call("end", None)
    }

    /// Without a call before it, the step names none, and its expectation fails.
    fn after_call(self, key: &str, member: Option<(&str, Value)>) -> Self {
        let call = self.last_call.clone().unwrap_or_default();
        let step = [Some((key, Value::from(call))), member].into_iter().flatten();
        let case = self.step(step.map(|(key, value)| (key.to_owned(), value)).collect());
        case.expect([("ok".to_owned(), true.into())])
    }

    /// Expects the last call to be allowed.
    pub fn allowed(self) -> Self {
        self.decided("allow", None)
    }

    /// Expects this rule to deny the last call: its JSON Pointer, `(hidden)` or
    /// `(default deny)`.
    pub fn denied(self, rule: &str) -> Self {
        self.decided("deny", Some(rule))
    }

    /// Expects this limit to stop the last call.
    pub fn limited(self, rule: &str) -> Self {
        self.decided("rate_limited", Some(rule))
    }

    /// Expects this rule to require an approval for the last call.
    pub fn asks(self, rule: &str) -> Self {
        self.decided("approval_required", Some(rule))
    }

    fn decided(self, decision: &str, rule: Option<&str>) -> Self {
        self.expect([("decision", decision.into()), ("rule", rule.into())].map(|(key, value)| (key.to_owned(), value)))
    }

    /// Expects the answer to the last step to have these members too.
    pub fn expect(mut self, members: impl IntoIterator<Item = (String, Value)>) -> Self {
        if let Some(step) = self.steps.last_mut() {
            let expect = step.expect.get_or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(known) = expect {
                known.extend(members);
            }
        }
        self
    }

    /// Converts a case from its format.
    ///
    /// # Errors
    /// The case is contradictory or empty.
    pub(super) fn read(written: Written) -> Result<Self, String> {
        let Written { id, description, policy, steps, document, issues } = written;
        let wrong = |what: &str| Err(format!("case `{id}`: {what}"));
        let refused = match document {
            Some(_) if policy.is_some() || !steps.is_empty() => {
                return wrong("`document` excludes `policy` and `steps`");
            }
            Some(document) => Some((document, issues)),
            None if !issues.is_empty() => return wrong("`issues` without a `document`"),
            None if steps.is_empty() => return wrong("neither `steps` nor a `document`"),
            None => None,
        };
        let policy = policy.map(|policy| policy.get().to_owned());
        Ok(Self { id, description, policy, steps, last_call: None, refused, now: START })
    }

    /// Runs the case, with a runner under its own policy or that of the suite.
    ///
    /// # Errors
    /// The answer to a step does not meet its expectation. Only the first such step is reported.
    pub(super) fn run(
        &self,
        under: Option<&Policy>,
        runner: impl FnOnce(Policy) -> Runner,
    ) -> Result<(), super::Failure> {
        let failure = |step: Option<usize>, text: String| super::Failure {
            case: self.id.clone(),
            description: self.description.clone(),
            step: step.map(|index| index + 1),
            text: if text.starts_with('\n') { text } else { format!(" {text}") },
        };
        if let Some((document, issues)) = &self.refused {
            return is_refused(document, issues).map_err(|text| failure(None, text));
        }
        let policy = match (&self.policy, under) {
            (Some(text), _) => Policy::from_json(text).map_err(|error| failure(None, error.to_string()))?,
            (None, Some(policy)) => policy.clone(),
            (None, None) => return Err(failure(None, "the case has no `policy`".to_owned())),
        };
        let mut runner = runner(policy);
        for (index, step) in self.steps.iter().enumerate() {
            let answer = runner.answer(&step.line).map(|answer| serde_json::to_value(answer).unwrap_or_default());
            if let Some(wrong) = step.check(&answer.unwrap_or_default()) {
                return Err(failure(Some(index), wrong));
            }
        }
        Ok(())
    }
}

impl Step {
    /// Returns a description of the mismatch, or `None` if the answer meets the expectation.
    fn check(&self, answer: &Value) -> Option<String> {
        let mut wrong = String::new();
        let error = answer.get("error").and_then(Value::as_str);
        let is_slip = matches!(error, Some("unreadable" | "policy_invalid"));
        match &self.expect {
            Some(expect) => differences("", answer, expect, &mut wrong),
            // Without an expectation, only a mistake in the case itself fails.
            None if is_slip => {
                let _ = write!(wrong, "\n    expected a step that can be read");
            }
            None => {}
        }
        if is_slip && !wrong.is_empty() {
            let why = explained(&self.line).replace('\n', "\n             ");
            let _ = write!(wrong, "\n    because  {}", why.trim_end());
        }
        if wrong.is_empty() {
            return None;
        }
        Some(format!("\n    step     {}{wrong}\n    answered {answer}", self.line))
    }
}

/// Writes each difference between an answer and its expectation. Numbers compare by value, lists
/// element by element.
fn differences(place: &str, answer: &Value, expect: &Value, wrong: &mut String) {
    let is_equal = match (answer, expect) {
        (Value::Object(answer), Value::Object(expect)) => {
            for (key, expect) in expect {
                let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                differences(&place, answer.get(key).unwrap_or(&Value::Null), expect, wrong);
            }
            return;
        }
        (Value::Array(answer), Value::Array(expect)) if answer.len() == expect.len() => {
            for (index, (answer, expect)) in answer.iter().zip(expect).enumerate() {
                differences(&format!("{place}[{index}]"), answer, expect, wrong);
            }
            return;
        }
        (Value::Number(answer), Value::Number(expect)) => answer == expect || answer.as_f64() == expect.as_f64(),
        _ => answer == expect,
    };
    if !is_equal {
        let place = if place.is_empty() { "answer" } else { place };
        // Writing to a `String` does not fail.
        let _ = write!(wrong, "\n    {place}: expected {expect}, got {answer}");
    }
}

fn is_refused(document: &str, issues: &[Object<WrittenIssue>]) -> Result<(), String> {
    let Err(error) = Policy::from_json(document) else { return Err(format!("{document} is accepted")) };
    for Object(want) in issues {
        let found = error.issues().iter().any(|issue| {
            issue.pointer() == want.pointer && want.code.as_ref().is_none_or(|code| issue.code().as_str() == code)
        });
        if !found {
            return Err(format!("no issue {:?} at {:?}, but:\n{error}", want.code, want.pointer));
        }
    }
    Ok(())
}

/// Reads the members of a step in order and refuses duplicates. `expect` is taken out; the rest is
/// the line.
impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(StepVisitor)
    }
}

struct StepVisitor;

impl<'de> Visitor<'de> for StepVisitor {
    type Value = Step;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a step")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Step, A::Error> {
        let mut seen: Vec<String> = Vec::new();
        let (mut line, mut text, mut expect) = (String::from("{"), None, None);
        while let Some(key) = members.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(A::Error::custom(format_args!("`{key}` appears twice in a step")));
            }
            match &*key {
                "expect" => expect = Some(expected(members.next_value()?).map_err(A::Error::custom)?),
                "text" => text = Some(members.next_value::<String>()?),
                _ => {
                    let value = members.next_value::<Box<RawValue>>()?;
                    let comma = if line.len() > 1 { "," } else { "" };
                    let _ = write!(line, "{comma}{}:{}", Value::from(&*key), value.get());
                }
            }
            seen.push(key);
        }
        line.push('}');
        let line = match text {
            Some(_) if line.len() > 2 => {
                return Err(A::Error::custom("`text` is a whole line: only `expect` can appear beside it"));
            }
            Some(text) => text,
            None => line,
        };
        Ok(Step { line, expect })
    }
}

/// Checks that an answer can have every member of an expectation.
fn expected(expect: Value) -> Result<Value, String> {
    // A blank line is not answered.
    if expect.is_null() {
        return Ok(expect);
    }
    let members = expect.as_object().ok_or("`expect` is an object")?;
    let unknown = |known: &[&str], members: &Map<String, Value>| {
        members.keys().find(|key| !known.contains(&key.as_str())).map(|key| format!("no answer has `{key}`"))
    };
    if let Some(wrong) = unknown(&ANSWERS, members) {
        return Err(wrong);
    }
    let limits = members.get("limits").and_then(Value::as_array).into_iter().flatten();
    match limits.filter_map(Value::as_object).find_map(|limit| unknown(&LIMITS, limit)) {
        Some(wrong) => Err(wrong),
        None => Ok(expect),
    }
}
