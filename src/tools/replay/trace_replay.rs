//! Runs a trace again.

use std::io::{self, BufRead};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::line::Lines;
use super::log_replay::caller;
use super::{Baseline, Change, ChangeKind, Comparison, DecisionSummary};
use crate::policy::Policy;
use crate::tools::trace::{Answer, Runner};

/// The tool and the caller of the line that is being answered.
type Called = Arc<Mutex<Option<(String, String)>>>;

pub(super) struct TraceReplay {
    runner: Runner,
    called: Called,
    baseline: BaselineAnswers,
}

/// The source of the answers to compare with.
enum BaselineAnswers {
    Nothing,
    Answers(Lines<Box<dyn BufRead>>),
    Under(Box<Runner>),
}

impl TraceReplay {
    pub(super) fn new(policy: Policy, baseline: Baseline) -> Self {
        let called = Called::default();
        let note = Arc::clone(&called);
        let runner = Runner::new(policy).watch(move |call, _, _, _| {
            *note.lock() = Some((call.tool().to_owned(), caller(|identity| call.identity(identity))));
        });
        let baseline = match baseline {
            Baseline::Unknown => BaselineAnswers::Nothing,
            Baseline::Answers(answers) => BaselineAnswers::Answers(Lines::new(answers)),
            Baseline::Under(policy) => BaselineAnswers::Under(Box::new(Runner::new(policy))),
        };
        Self { runner, called, baseline }
    }

    /// Replays a line. Returns its result, and the problem with it, if any.
    pub(super) fn line(&mut self, line: u64, text: Option<&str>) -> io::Result<(Comparison, Option<String>)> {
        // A line that is not UTF-8 is unreadable too: the reader of steps reports it.
        let text = text.unwrap_or("unreadable");
        *self.called.lock() = None;
        let Some(answer) = self.runner.answer(text) else {
            if let BaselineAnswers::Under(runner) = &mut self.baseline {
                runner.answer(text);
            }
            return Ok((Comparison::Step, None));
        };
        let problem = match &answer {
            Answer::Failed { error: "unreadable", .. } => Some("not a step of a trace".to_owned()),
            Answer::Failed { error: "policy_invalid", .. } => {
                Some("not a valid policy (files that a trace names are not read)".to_owned())
            }
            _ => None,
        };
        let is_call = matches!(answer, Answer::Decided { .. });
        let (tool, caller) = self.called.lock().take().unwrap_or_default();
        let is = json(&answer);
        let was = match &mut self.baseline {
            BaselineAnswers::Nothing => {
                return Ok((if is_call { Comparison::Uncompared } else { Comparison::Step }, problem));
            }
            BaselineAnswers::Under(runner) => runner.answer(text).map(|answer| json(&answer)),
            BaselineAnswers::Answers(answers) => loop {
                match answers.next()? {
                    Some((_, Some(answer))) if answer.trim().is_empty() => {}
                    Some((_, answer)) => break answer.and_then(|answer| serde_json::from_str(answer).ok()),
                    None => break None,
                }
            },
        };
        let Some(was) = was else {
            let problem = problem.or_else(|| Some("it has no stored answer".to_owned()));
            return Ok((if is_call { Comparison::Uncompared } else { Comparison::Step }, problem));
        };
        if holds(&is, &was) {
            // The stored answer already says that the policy is invalid.
            let is_known = matches!(self.baseline, BaselineAnswers::Answers(_))
                && is.get("error") == Some(&"policy_invalid".into());
            let problem = problem.filter(|_| !is_known);
            return Ok((if is_call { Comparison::Unchanged } else { Comparison::Step }, problem));
        }
        let (was, now) = (side(&was), side(&is));
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
fn side(answer: &Value) -> DecisionSummary {
    let text = |key: &str| answer.get(key).and_then(Value::as_str).map(str::to_owned);
    DecisionSummary {
        decision: text("decision").unwrap_or_else(|| answer.to_string()),
        code: text("code"),
        rule: text("rule"),
    }
}

/// Returns `true` if an answer has all members of the stored one. Numbers compare by value.
fn holds(answer: &Value, kept: &Value) -> bool {
    match (answer, kept) {
        (Value::Object(answer), Value::Object(kept)) => {
            kept.iter().all(|(key, kept)| answer.get(key).is_some_and(|answer| holds(answer, kept)))
        }
        (Value::Array(answer), Value::Array(kept)) => {
            answer.len() == kept.len() && answer.iter().zip(kept).all(|(answer, kept)| holds(answer, kept))
        }
        (Value::Number(answer), Value::Number(kept)) => answer == kept || answer.as_f64() == kept.as_f64(),
        _ => answer == kept,
    }
}
