//! Changes to a call after which a rule lets it pass. Each is verified against the rule.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::sample::{Target, samples, to_value};
use super::witness::Witness;
use super::words;
use crate::call::ToolCall;
use crate::call::path::{Facts, Found, Path, Source, Visit};
use crate::policy::ast;
use crate::policy::compiled::Rule;
use crate::policy::condition::{Condition, Stance, Test};
use crate::policy::operator::Takes;
use crate::policy::truth::Truth;
use crate::time::Timestamp;

/// A change to a call after which one rule or limit lets it pass. The change was verified against
/// that rule or limit alone: others may still stop the call.
///
/// Its serialized form has the comparisons that the call must satisfy (`needs`), how long to wait
/// (`wait_ms`), and `approval` if the call needs a person's approval.
#[derive(Clone, Serialize)]
pub struct Change {
    needs: Vec<Need>,
    #[serde(rename = "wait_ms", skip_serializing_if = "Option::is_none", serialize_with = "millis")]
    wait: Option<Duration>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    approval: bool,
    /// The edits that were verified. They may contain values of the call.
    #[serde(skip)]
    edits: Vec<Edit>,
}

fn millis<S: Serializer>(wait: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    millis.serialize(serializer)
}

/// Sets the value at a path, or removes it if the value is `None`.
#[derive(Clone)]
struct Edit {
    path: Path,
    to: Option<Value>,
}

/// A comparison that the call must satisfy, in the terms of the policy language: the value at
/// `path` compared by `op` with `value` or `value_from`, or the opposite if `not` is set. `exists`
/// with `false` means that the value must be omitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Need {
    path: String,
    op: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    not: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_from: Option<String>,
}

impl Need {
    fn new(path: &Path, takes: Takes, value: Value) -> Self {
        let op = takes.operator().name;
        Self { path: path.to_string(), op, not: false, value: Some(value), value_from: None }
    }

    /// Returns the path of the value that must change.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the name of the operator.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// Returns `true` if the comparison must not hold. Only operators without an opposite are
    /// negated.
    pub fn is_negated(&self) -> bool {
        self.not
    }

    /// Returns the value to compare with.
    pub fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }

    /// Returns the path of the other value of the call to compare with.
    pub fn value_from(&self) -> Option<&str> {
        self.value_from.as_deref()
    }
}

/// `args.amount at most 50000`
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        words::write_comparison(f, &self.path, self.op, self.not, self.value.as_ref(), self.value_from.as_deref())
    }
}

impl Change {
    /// Returns the comparisons that the call must satisfy, all of them.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// Returns how long to wait, if the time must change.
    pub fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// Returns `true` if a person must approve the call.
    pub fn is_approval(&self) -> bool {
        self.approval
    }

    /// Applies the change to a call that is made at `now`, and returns the changed call. It has one
    /// of the values that satisfy [`needs`](Self::needs). An approval does not change the call.
    pub fn apply(&self, call: &ToolCall<'_>, now: Timestamp) -> Witness {
        let mut changed = Witness::new(call, now);
        for Edit { path, to } in &self.edits {
            changed.edit(path, to.as_ref());
        }
        if let Some(wait) = self.wait {
            changed.set_time(now.saturating_add(wait));
        }
        changed
    }

    fn none() -> Self {
        Self { needs: Vec::new(), wait: None, approval: false, edits: Vec::new() }
    }

    pub(crate) fn of_approval() -> Self {
        Self { approval: true, ..Self::none() }
    }

    pub(crate) fn of_wait(wait: Duration) -> Self {
        Self { wait: Some(wait), ..Self::none() }
    }

    /// Sets the value at a path to `to`, which satisfies the comparison with `value`.
    pub(crate) fn of_value(path: &Path, takes: Takes, value: Value, to: Value) -> Self {
        let need = Need::new(path, takes, value);
        let edits = vec![Edit { path: path.clone(), to: Some(to) }];
        Self { needs: vec![need], edits, ..Self::none() }
    }
}

/// `wait 12s`; `args.amount at most 50000, and args.currency equal to "eur"`; `get an approval`
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for need in &self.needs {
            write!(f, "{between}{need}")?;
            between = ", and ";
        }
        if let Some(wait) = self.wait {
            write!(f, "{between}wait {wait:?}")?;
            between = ", and ";
        }
        if self.approval { write!(f, "{between}get an approval") } else { Ok(()) }
    }
}

/// Omits the edits, which may contain values of the call.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Change").field(&self.to_string()).finish()
    }
}

/// Searches for changes within a budget.
pub(crate) struct ChangeSearch {
    /// The number of tries left. A try evaluates a rule or a test on a changed call.
    tries: usize,
}

/// An unfinished change, and the call with this change applied.
#[derive(Clone)]
struct Draft {
    call: Witness,
    change: Change,
}

impl Draft {
    fn truth(&self, condition: &Condition, stance: Stance) -> Truth {
        condition.truth(&Facts::new(&self.call.call(), self.call.at()), stance)
    }
}

impl ChangeSearch {
    /// Starts a search. The larger the call, the fewer the tries, so that an agent cannot slow a
    /// search down with a large call.
    pub(crate) fn of(call: &ToolCall<'_>) -> Self {
        let members = call.argument_members().into_iter().chain(call.context_members());
        let size: usize = members.flat_map(Map::iter).map(|(key, value)| key.len() + estimated_size(value, 64)).sum();
        Self { tries: (4_000_000 / (size + 500)).clamp(8, 2_000) }
    }

    /// Returns up to three changes after which `rule` holds (in `require`) or does not match
    /// (elsewhere). Changes to the arguments alone come first, then those with fewer needs.
    pub(crate) fn changes(
        &mut self,
        rule: &Rule,
        written: &ast::Rule,
        stance: Stance,
        call: &ToolCall<'_>,
        now: Timestamp,
    ) -> Vec<Change> {
        const MAX_CHANGES: usize = 3;
        // Copying and evaluating the unchanged call counts as a try.
        let Some(left) = self.tries.checked_sub(1) else { return Vec::new() };
        self.tries = left;
        let start = Draft { call: Witness::new(call, now), change: Change::none() };
        let conditions = || rule.conditions.iter().zip(&written.conditions);
        let rule_truth = |draft: &Draft| {
            let call = draft.call.call();
            rule.truth(&Facts::new(&call, draft.call.at()), stance)
        };
        let mut found: Vec<Change> = Vec::new();
        if stance == Stance::Require {
            let mut draft = start;
            for (condition, written) in conditions() {
                if !self.fix(condition, written, stance, Truth::True, &mut draft) {
                    return found;
                }
            }
            if rule_truth(&draft) == Truth::True {
                found.push(draft.change);
            }
            return found;
        }
        for (condition, written) in conditions() {
            let mut draft = start.clone();
            let fixed = self.fix(condition, written, stance, Truth::False, &mut draft);
            if fixed
                && rule_truth(&draft) == Truth::False
                && found.iter().all(|known| known.needs != draft.change.needs)
            {
                found.push(draft.change);
            }
            if found.len() == MAX_CHANGES {
                break;
            }
        }
        // The caller can change the arguments itself.
        let distance = |change: &Change| {
            let others = change.needs.iter().filter(|need| !need.path.starts_with("args")).count();
            (usize::from(change.wait.is_some()) + others, change.needs.len())
        };
        found.sort_by_key(distance);
        found
    }

    /// Changes the call so that the condition has the result `want`. Returns `false` if that fails;
    /// the draft may then be partly changed.
    fn fix(
        &mut self,
        condition: &Condition,
        written: &ast::Condition,
        stance: Stance,
        want: Truth,
        draft: &mut Draft,
    ) -> bool {
        if self.tries == 0 {
            return false;
        }
        if draft.truth(condition, stance) == want {
            return true;
        }
        let (written, _) = written.without_nots();
        let (children, needs_all) = match (condition, written) {
            (Condition::Test(test), ast::Condition::Comparison(comparison)) => {
                return self.fix_test(test, comparison, stance, want, draft);
            }
            (Condition::Test(_), _) => return false,
            (Condition::All(children), _) => (children, want == Truth::True),
            (Condition::Any(children), _) => (children, want == Truth::False),
        };
        let (_, written) = written.group().unwrap_or_default();
        let mut children = children.iter().zip(written);
        if needs_all {
            return children.all(|(condition, written)| self.fix(condition, written, stance, want, draft))
                && draft.truth(condition, stance) == want;
        }
        for (child, written) in children {
            let mut tried = draft.clone();
            if self.fix(child, written, stance, want, &mut tried) && tried.truth(condition, stance) == want {
                *draft = tried;
                return true;
            }
        }
        false
    }

    fn fix_test(
        &mut self,
        test: &Test,
        comparison: &ast::Comparison,
        stance: Stance,
        want: Truth,
        draft: &mut Draft,
    ) -> bool {
        let is_fixed = |draft: &Draft| {
            let call = draft.call.call();
            test.truth(&Facts::new(&call, draft.call.at()), stance) == want
        };
        match test.path.source() {
            Source::Tool => return false,
            Source::Time => return self.wait(draft, is_fixed),
            _ => {}
        }
        let sampled = {
            let call = draft.call.call();
            let facts = Facts::new(&call, draft.call.at());
            let mut present = None;
            let _ = test.path.each(&facts, &mut |found| {
                if let Found::Value(datum) = found {
                    present = to_value(datum);
                }
                Visit::Stop
            });
            let holds = (want == Truth::True) != test.negated;
            samples(test, comparison, holds, present.as_ref(), &facts)
        };
        let identity = matches!(test.path.source(), Source::Identity(_));
        let mut edits: Vec<(Need, Edit)> = Vec::new();
        if let Some((Target { operator, not, value }, values)) = sampled {
            let value_from = test.check.other().map(ToString::to_string);
            let need = Need { path: test.path.to_string(), op: operator.name, not, value, value_from };
            for value in values.into_iter().filter(|value| !identity || value.is_string()) {
                edits.push((need.clone(), Edit { path: test.path.clone(), to: Some(value) }));
            }
        }
        if let Some((list, empty)) = test.path.before_each() {
            // An empty list has no element that could violate the comparison.
            let need = Need::new(&list, Takes::MaxItems, 0.into());
            edits.push((need, Edit { path: list, to: Some(empty) }));
        }
        let omitted = Need::new(&test.path, Takes::Exists, false.into());
        edits.push((omitted, Edit { path: test.path.clone(), to: None }));
        for (need, edit) in edits {
            let Some(left) = self.tries.checked_sub(1) else { return false };
            self.tries = left;
            let mut tried = draft.call.clone();
            if !tried.edit(&edit.path, edit.to.as_ref()) {
                continue;
            }
            let before = std::mem::replace(&mut draft.call, tried);
            if is_fixed(draft) {
                draft.change.needs.push(need);
                draft.change.edits.push(edit);
                return true;
            }
            draft.call = before;
        }
        false
    }

    /// Waits until the test is fixed: tries each minute of the next hour, then each hour of the
    /// next eight days.
    fn wait(&mut self, draft: &mut Draft, is_fixed: impl Fn(&Draft) -> bool) -> bool {
        let before = draft.call.at();
        let seconds = before.unix_seconds();
        let next = |length: i64, count: i64| seconds.div_euclid(length).saturating_add(count).saturating_mul(length);
        let moments = (1..=60).map(|minute| next(60, minute)).chain((1..=192).map(|hour| next(3_600, hour)));
        for moment in moments {
            let Some(left) = self.tries.checked_sub(1) else { break };
            self.tries = left;
            draft.call.set_time(Timestamp::from_unix_seconds(moment));
            if is_fixed(draft) {
                let waited = draft.call.at().saturating_since(before);
                draft.change.wait = Some(draft.change.wait.unwrap_or_default().saturating_add(waited));
                return true;
            }
        }
        draft.call.set_time(before);
        false
    }
}

/// Estimates the size of a value in bytes. A value nested deeper than `depth` counts as large.
fn estimated_size(value: &Value, depth: usize) -> usize {
    let Some(depth) = depth.checked_sub(1) else { return 1_000_000 };
    16 + match value {
        Value::String(text) => text.len(),
        Value::Array(elements) => elements.iter().map(|element| estimated_size(element, depth)).sum(),
        Value::Object(members) => members.iter().map(|(key, value)| key.len() + estimated_size(value, depth)).sum(),
        _ => 0,
    }
}
