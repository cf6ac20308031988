//! Changes to a call after which a rule lets it pass, each tried out on the rule itself.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::sample::{Aim, samples, to_value};
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

/// A change to a call after which one rule or limit lets it pass. It was tried out: the rule says so of the changed call, and
/// nothing is said of the other rules.
///
/// Written with serde, it has what must hold of the call (`needs`), how long to wait (`wait_ms`), and whether a person's
/// approval is what is missing (`approval`).
#[derive(Clone, Serialize)]
pub struct Change {
    needs: Vec<Need>,
    #[serde(rename = "wait_ms", skip_serializing_if = "Option::is_none", serialize_with = "millis")]
    wait: Option<Duration>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    approval: bool,
    /// What was put where to try it out; it may hold values of the call.
    #[serde(skip)]
    edits: Vec<Edit>,
}

fn millis<S: Serializer>(wait: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    millis.serialize(serializer)
}

#[derive(Clone)]
struct Edit {
    path: Path,
    to: Option<Value>,
}

/// What a part of a call must be, in the words of the language: at `path`, `op` with `value` or `value_from`, or with `not` its
/// opposite. `exists: false` is to leave it out.
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
    fn of(path: &Path, takes: Takes, value: Value) -> Self {
        let op = takes.operator().name;
        Self { path: path.to_string(), op, not: false, value: Some(value), value_from: None }
    }

    /// What has to change.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The operator.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// Whether the operator must not hold; only of those that have no negative twin.
    pub fn is_negated(&self) -> bool {
        self.not
    }

    /// What the operator compares with.
    pub fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }

    /// The other part of the call that it compares with.
    pub fn value_from(&self) -> Option<&str> {
        self.value_from.as_deref()
    }
}

/// `args.amount at most 50000`
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        words::say(f, &self.path, self.op, self.not, self.value.as_ref(), self.value_from.as_deref())
    }
}

impl Change {
    /// What must hold of the call, all of it.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// How long to wait, if it is the time that has to change.
    pub fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// Whether a person has to approve the call.
    pub fn is_approval(&self) -> bool {
        self.approval
    }

    /// The call after the change, as it was tried out, where `call` was made at `now`. Of all values that would do, it has one.
    /// An approval changes nothing of the call.
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

    pub(crate) fn of_approval() -> Self {
        Self { needs: Vec::new(), wait: None, approval: true, edits: Vec::new() }
    }

    pub(crate) fn of_wait(wait: Duration) -> Self {
        Self { wait: Some(wait), ..Self::of_approval() }.without_approval()
    }

    /// One value at one path.
    pub(crate) fn of_value(path: &Path, takes: Takes, value: Value, to: Value) -> Self {
        let need = Need::of(path, takes, value);
        let edits = vec![Edit { path: path.clone(), to: Some(to) }];
        Self { needs: vec![need], wait: None, approval: false, edits }
    }

    fn without_approval(self) -> Self {
        Self { approval: false, ..self }
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

/// Without the values that were tried.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Change").field(&self.to_string()).finish()
    }
}

/// Looks for changes, within a budget.
pub(crate) struct Search {
    tries: usize,
}

/// A change in the making, and the call that it has come to.
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

impl Search {
    /// A search that tries fewer things of a larger call, so that it ends soon whatever it is asked of.
    pub(crate) fn of(call: &ToolCall<'_>) -> Self {
        let members = call.argument_members().into_iter().chain(call.context_members());
        let size: usize = members.flat_map(Map::iter).map(|(key, value)| key.len() + weight(value, 64)).sum();
        Self { tries: (4_000_000 / (size + 500)).clamp(8, 2_000) }
    }

    /// Changes after which `rule` holds (in `require`) or does not match (elsewhere), at most three, the nearest first.
    pub(crate) fn changes(
        &mut self,
        rule: &Rule,
        written: &ast::Rule,
        stance: Stance,
        call: &ToolCall<'_>,
        now: Timestamp,
    ) -> Vec<Change> {
        const MOST: usize = 3;
        // The call is copied and judged before anything is tried.
        let Some(left) = self.tries.checked_sub(1) else { return Vec::new() };
        self.tries = left;
        let start = Draft { call: Witness::new(call, now), change: Change::of_approval().without_approval() };
        let conditions = || rule.conditions.iter().zip(&written.conditions);
        let all = |draft: &Draft| {
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
            if all(&draft) == Truth::True {
                found.push(draft.change);
            }
            return found;
        }
        for (condition, written) in conditions() {
            let mut draft = start.clone();
            let fixed = self.fix(condition, written, stance, Truth::False, &mut draft);
            if fixed && all(&draft) == Truth::False && found.iter().all(|known| known.needs != draft.change.needs) {
                found.push(draft.change);
            }
            if found.len() == MOST {
                break;
            }
        }
        // What the caller can do itself comes first.
        let distance = |change: &Change| {
            let others = change.needs.iter().filter(|need| !need.path.starts_with("args")).count();
            (usize::from(change.wait.is_some()) + others, change.needs.len())
        };
        found.sort_by_key(distance);
        found
    }

    /// Changes the call so that the condition is what is wanted; the draft may be spoilt where it cannot.
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
        let (children, every) = match (condition, written) {
            (Condition::Test(test), ast::Condition::Comparison(comparison)) => {
                return self.fix_test(test, comparison, stance, want, draft);
            }
            (Condition::Test(_), _) => return false,
            (Condition::All(children), _) => (children, want == Truth::True),
            (Condition::Any(children), _) => (children, want == Truth::False),
        };
        let (_, written) = written.group().unwrap_or_default();
        let mut children = children.iter().zip(written);
        if every {
            return children.all(|(condition, written)| self.fix(condition, written, stance, want, draft))
                && draft.truth(condition, stance) == want;
        }
        for (one, written) in children {
            let mut tried = draft.clone();
            if self.fix(one, written, stance, want, &mut tried) && tried.truth(condition, stance) == want {
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
        let serves = |draft: &Draft| {
            let call = draft.call.call();
            test.truth(&Facts::new(&call, draft.call.at()), stance) == want
        };
        match test.path.source() {
            Source::Tool => return false,
            Source::Time => return self.wait(draft, serves),
            _ => {}
        }
        let offered = {
            let call = draft.call.call();
            let facts = Facts::new(&call, draft.call.at());
            let mut now = None;
            let _ = test.path.each(&facts, &mut |found| {
                if let Found::Value(datum) = found {
                    now = to_value(datum);
                }
                Visit::Stop
            });
            let holds = (want == Truth::True) != test.negated;
            samples(test, comparison, holds, now.as_ref(), &facts)
        };
        let identity = matches!(test.path.source(), Source::Identity(_));
        let mut edits: Vec<(Option<Need>, Edit)> = Vec::new();
        if let Some((Aim { operator, not, value }, values)) = offered {
            let value_from = test.check.other().map(ToString::to_string);
            let need = Need { path: test.path.to_string(), op: operator.name, not, value, value_from };
            for value in values.into_iter().filter(|value| !identity || value.is_string()) {
                edits.push((Some(need.clone()), Edit { path: test.path.clone(), to: Some(value) }));
            }
        }
        if let Some(list) = test.path.before_each() {
            // Of a list without elements nothing need hold.
            let need = Need::of(&list, Takes::MaxLength, 0.into());
            edits.push((Some(need), Edit { path: list, to: Some(Value::Array(Vec::new())) }));
        }
        let left_out = Need::of(&test.path, Takes::Exists, false.into());
        edits.push((Some(left_out), Edit { path: test.path.clone(), to: None }));
        for (need, edit) in edits {
            let Some(left) = self.tries.checked_sub(1) else { return false };
            self.tries = left;
            let mut tried = draft.call.clone();
            if !tried.edit(&edit.path, edit.to.as_ref()) {
                continue;
            }
            let before = std::mem::replace(&mut draft.call, tried);
            if serves(draft) {
                draft.change.needs.extend(need);
                draft.change.edits.push(edit);
                return true;
            }
            draft.call = before;
        }
        false
    }

    /// Waits for the time: minutes of the next hour, then hours of the next eight days.
    fn wait(&mut self, draft: &mut Draft, serves: impl Fn(&Draft) -> bool) -> bool {
        let before = draft.call.at();
        let seconds = before.unix_seconds();
        let next = |length: i64, count: i64| seconds.div_euclid(length).saturating_add(count).saturating_mul(length);
        let moments = (1..=60).map(|minute| next(60, minute)).chain((1..=192).map(|hour| next(3_600, hour)));
        for moment in moments {
            let Some(left) = self.tries.checked_sub(1) else { break };
            self.tries = left;
            draft.call.set_time(Timestamp::from_unix_seconds(moment));
            if serves(draft) {
                let waited = draft.call.at().saturating_since(before);
                draft.change.wait = Some(draft.change.wait.unwrap_or_default().saturating_add(waited));
                return true;
            }
        }
        draft.call.set_time(before);
        false
    }
}

/// About how many bytes a value has.
fn weight(value: &Value, depth: usize) -> usize {
    let Some(depth) = depth.checked_sub(1) else { return 1_000_000 };
    16 + match value {
        Value::String(text) => text.len(),
        Value::Array(elements) => elements.iter().map(|element| weight(element, depth)).sum(),
        Value::Object(members) => members.iter().map(|(key, value)| key.len() + weight(value, depth)).sum(),
        _ => 0,
    }
}
