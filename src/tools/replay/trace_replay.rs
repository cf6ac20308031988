//! Replays a trace.

use std::io::{self, BufRead};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::line::Lines;
use super::log_replay::caller;
use super::{Baseline, Change, ChangeKind, Comparison, DecisionSummary};
use crate::policy::Policy;
use crate::tools::trace::{Answer, Runner};

/// The tool and the caller of the current line, if it is a call.
type CurrentCall = Arc<Mutex<Option<(String, String)>>>;

pub(super) struct TraceReplay {
    runner: Runner,
    current_call: CurrentCall,
    baseline: BaselineAnswers,
}

/// The source of the answers to compare with.
enum BaselineAnswers {
    None,
    Answers(Lines<Box<dyn BufRead>>),
    Policy(Box<Runner>),
}

impl TraceReplay {
    pub(super) fn new(policy: Policy, baseline: Baseline) -> Self {
        let current_call = CurrentCall::default();
        let noted = Arc::clone(&current_call);
        let runner = Runner::new(policy).watch(move |call, _, _, _| {
            *noted.lock() = Some((call.tool().to_owned(), caller(|identity| call.identity(identity))));
        });
        let baseline = match baseline {
            Baseline::None => BaselineAnswers::None,
            Baseline::Answers(answers) => BaselineAnswers::Answers(Lines::new(answers)),
            Baseline::Policy(policy) => BaselineAnswers::Policy(Box::new(Runner::new(policy))),
        };
        Self { runner, current_call, baseline }
    }

    /// Replays a line. Returns its result, and the problem with it, if any.
    pub(super) fn line(&mut self, line: u64, text: Option<&str>) -> io::Result<(Comparison, Option<String>)> {
        // A line that is not UTF-8 is unreadable too: the reader of steps reports it.
        let text = text.unwrap_or("unreadable");
        *self.current_call.lock() = None;
        let Some(answer) = self.runner.answer(text) else {
            if let BaselineAnswers::Policy(runner) = &mut self.baseline {
                runner.answer(text);
            }
            return Ok((Comparison::Step, None));
        };
        let problem = match &answer {
            Answer::Failed { error: "unreadable", .. } => Some("not a valid step of a trace".to_owned()),
            Answer::Failed { error: "policy_invalid", .. } => {
                Some("not a valid policy (a replay does not read policies from files)".to_owned())
            }
            _ => None,
        };
        let is_call = matches!(answer, Answer::Decided { .. });
        let (tool, caller) = self.current_call.lock().take().unwrap_or_default();
        let now = json(&answer);
        let was = match &mut self.baseline {
            BaselineAnswers::None => {
                return Ok((if is_call { Comparison::Uncompared } else { Comparison::Step }, problem));
            }
            BaselineAnswers::Policy(runner) => runner.answer(text).map(|answer| json(&answer)),
            BaselineAnswers::Answers(answers) => loop {
                match answers.next()? {
                    Some((_, Some(answer))) if answer.trim().is_empty() => {}
                    Some((_, answer)) => break answer.and_then(|answer| serde_json::from_str(answer).ok()),
                    None => break None,
                }
            },
        };
        let Some(was) = was else {
            let problem = problem.or_else(|| Some("the step has no stored answer".to_owned()));
            return Ok((if is_call { Comparison::Uncompared } else { Comparison::Step }, problem));
        };
        if matches_stored(&now, &was) {
            // The stored answer already says that the policy is invalid.
            let is_known = matches!(self.baseline, BaselineAnswers::Answers(_))
                && now.get("error") == Some(&"policy_invalid".into());
            let problem = problem.filter(|_| !is_known);
            return Ok((if is_call { Comparison::Unchanged } else { Comparison::Step }, problem));
        }
        let (was, now) = (summary(&was), summary(&now));
        let kind = match (was == now, &*was.decision == "allow", &*now.decision == "allow") {
            _ if !is_call => ChangeKind::Details,
            (true, ..) => ChangeKind::Details,
            (false, false, true) => ChangeKind::Loosened,
            (false, true, _) => ChangeKind::Tightened,
            (false, false, false) => ChangeKind::Changed,
        };
        let change = Change { line, kind, tool, caller, was, now };
        Ok((if is_call { Comparison::Change(change) } else { Comparison::ChangedStep(change) }, problem))
    }
}

fn json(answer: &Answer) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}

/// Summarizes an answer of any kind.
fn summary(answer: &Value) -> DecisionSummary {
    let text = |key: &str| answer.get(key).and_then(Value::as_str).map(str::to_owned);
    DecisionSummary {
        decision: text("decision").unwrap_or_else(|| answer.to_string()),
        code: text("code"),
        rule: text("rule"),
    }
}

/// Returns `true` if an answer has all members of the stored one. Numbers compare by value.
fn matches_stored(answer: &Value, stored: &Value) -> bool {
    match (answer, stored) {
        (Value::Object(answer), Value::Object(stored)) => {
            stored.iter().all(|(key, stored)| answer.get(key).is_some_and(|answer| matches_stored(answer, stored)))
        }
        (Value::Array(answer), Value::Array(stored)) => {
            answer.len() == stored.len()
                && answer.iter().zip(stored).all(|(answer, stored)| matches_stored(answer, stored))
        }
        (Value::Number(answer), Value::Number(stored)) => answer == stored || answer.as_f64() == stored.as_f64(),
        _ => answer == stored,
    }
}
