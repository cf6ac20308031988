//! Builds explanations: walks through the steps of evaluation without stopping at the first that
//! decides.

use super::change::{Change, ChangeSearch};
use super::sample::to_value;
use super::{Asked, ConditionOutcome, Explanation, Outcome, RuleOutcome, Seen, Step, StepKind, limits};
use crate::call::ToolCall;
use crate::call::path::{Datum, Facts, Found, Path, Source, Unclear, Visit};
use crate::json::pointer;
use crate::policy::ast::{self, Document, RuleSection};
use crate::policy::compiled::{Action, DefaultEffect, Rule, RuleRef, Rules, Section};
use crate::policy::condition::{Condition, Stance, Test};
use crate::policy::plan::{LimitRef, Plan};
use crate::policy::truth::Truth;
use crate::policy::{Code, Effect, Policy};
use crate::time::Timestamp;

/// The number of elements of `[*]` that are shown.
const MAX_SHOWN_ELEMENTS: usize = 4;

impl Policy {
    /// Explains the evaluation of a call at an instant: the outcome of every step and rule, the
    /// charge of each limit, and the changes that would let the call pass. Values of arguments and
    /// context are masked; [`Policy::explain_with_values`] shows them.
    ///
    /// Takes time linear in the size of the document, and searches for changes within a budget. See
    /// [`explain`](crate::explain).
    pub fn explain(&self, call: &ToolCall<'_>, now: Timestamp) -> Explanation {
        self.explained(call, now, false).0
    }

    /// Explains the evaluation of a call, as [`Policy::explain`] does, and shows the values that
    /// were compared. They come from the call, so show them only to people who may see them.
    pub fn explain_with_values(&self, call: &ToolCall<'_>, now: Timestamp) -> Explanation {
        self.explained(call, now, true).0
    }

    /// Returns the explanation, and the plan of the limits that can count the call.
    pub(crate) fn explained(&self, call: &ToolCall<'_>, now: Timestamp, show_values: bool) -> (Explanation, Plan) {
        let evaluation = self.evaluate(call, now);
        let matching = self.compiled().names.matching(call.tool());
        let mut matched = Vec::new();
        let _ = self.compiled().first(call, &matching, |entry, rules| {
            matched.push((entry, rules));
            None::<()>
        });
        let entry_pointer = |entry: u32| {
            let mut text = "/tools".to_owned();
            pointer::push_key(&mut text, self.compiled().names.name(entry));
            text
        };
        let entries: Vec<u32> = matching.iter(&self.compiled().names, call.tool()).collect();
        let document = self.document(usize::MAX);
        let explainer = Explainer {
            policy: self,
            call,
            facts: Facts::new(call, now),
            show_values,
            document: document.as_ref(),
            matched,
        };
        let (steps, plan) = explainer.steps(entries.is_empty());
        let explanation = Explanation {
            tool: call.tool().to_owned(),
            at: now,
            policy: Some(self.digest().to_string()),
            effect: evaluation.effect(),
            rule: evaluation.rule().map(Into::into),
            entries: entries.into_iter().map(entry_pointer).collect(),
            steps,
        };
        (explanation, plan)
    }
}

impl Explanation {
    /// Explains a call without a policy.
    pub(crate) fn without_policy(call: &ToolCall<'_>, now: Timestamp) -> Self {
        let malformed = call.is_malformed();
        let code = if malformed { Code::MalformedCall } else { Code::NoPolicy };
        let read = if malformed { Outcome::Stops } else { Outcome::Passes };
        Self {
            tool: call.tool().to_owned(),
            at: now,
            policy: None,
            effect: Effect::Deny(code),
            rule: (!malformed).then(|| "(no policy)".to_owned()),
            entries: Vec::new(),
            steps: vec![
                plain_step(StepKind::Call, read, Code::MalformedCall),
                plain_step(StepKind::Policy, Outcome::Stops, Code::NoPolicy),
            ],
        }
    }
}

fn plain_step(kind: StepKind, outcome: Outcome, code: Code) -> Step {
    let code = (outcome == Outcome::Stops).then_some(code);
    Step { kind, outcome, code, rules: Vec::new(), limits: Vec::new() }
}

fn stops_if(stops: bool) -> Outcome {
    if stops { Outcome::Stops } else { Outcome::Passes }
}

/// Explains one call under one policy.
struct Explainer<'e> {
    policy: &'e Policy,
    call: &'e ToolCall<'e>,
    facts: Facts<'e>,
    show_values: bool,
    document: Option<&'e Document>,
    /// The rules that apply to the tool. Those of `all_tools` come last.
    matched: Vec<(Option<u32>, &'e Rules)>,
}

impl<'e> Explainer<'e> {
    fn steps(&self, unlisted: bool) -> (Vec<Step>, Plan) {
        let compiled = self.policy.compiled();
        let hidden = compiled.hide.matches(self.call.tool());
        let unlisted = unlisted && compiled.default == DefaultEffect::Deny;
        let malformed = self.call.is_malformed();
        let mut search = ChangeSearch::of(self.call);
        let mut steps = vec![
            plain_step(StepKind::Call, stops_if(malformed), Code::MalformedCall),
            plain_step(StepKind::Policy, Outcome::Passes, Code::NoPolicy),
            plain_step(StepKind::Hide, stops_if(hidden), Code::Hidden),
            plain_step(StepKind::Default, stops_if(unlisted), Code::DefaultDeny),
            self.step(StepKind::Action, Code::ActionDeny, self.actions(Action::Deny)),
        ];
        if malformed {
            // The arguments cannot be read, so the outcomes of conditions and amounts are unknown.
            let rest = [StepKind::Require, StepKind::DenyIf, StepKind::Limits, StepKind::Approval];
            steps.extend(rest.map(|kind| plain_step(kind, Outcome::Unknown, Code::MalformedCall)));
            return (steps, Plan::default());
        }
        let rules = |search: &mut ChangeSearch, section| self.rules(search, section);
        steps.push(self.step(StepKind::Require, Code::Require, rules(&mut search, RuleSection::Require)));
        steps.push(self.step(StepKind::DenyIf, Code::DenyIf, rules(&mut search, RuleSection::DenyIf)));
        let applying: Vec<LimitRef> = self
            .matched
            .iter()
            .flat_map(|(entry, rules)| {
                (0u32..).zip(&rules.limits).map(|(index, _)| LimitRef { entry: *entry, index, charge: 0 })
            })
            .collect();
        let (limits, plan) = limits::limits(self.policy, self.call, self.facts.now, &applying);
        let mut step = plain_step(StepKind::Limits, Outcome::Unknown, Code::Limit);
        step.limits = limits;
        step.decide_by_limits();
        steps.push(step);
        let rules = rules(&mut search, RuleSection::RequireApprovalIf);
        let approval = self.in_document_order(self.actions(Action::RequireApproval), rules);
        steps.push(self.step(StepKind::Approval, Code::Approval, approval));
        (steps, plan)
    }

    fn step(&self, kind: StepKind, code: Code, rules: Vec<(usize, RuleOutcome)>) -> Step {
        let rules: Vec<_> = rules.into_iter().map(|(_, rule)| rule).collect();
        let stops = rules.iter().any(|rule| rule.outcome == Outcome::Stops);
        Step { rules, ..plain_step(kind, stops_if(stops), code) }
    }

    /// Sorts actions and rules by the entry that they belong to. Within an entry, the action comes
    /// first.
    fn in_document_order(
        &self,
        actions: Vec<(usize, RuleOutcome)>,
        rules: Vec<(usize, RuleOutcome)>,
    ) -> Vec<(usize, RuleOutcome)> {
        let mut all = actions;
        all.extend(rules);
        all.sort_by_key(|(entry, _)| *entry);
        all
    }

    /// Returns the entries with the action, each with its index in `matched`.
    fn actions(&self, action: Action) -> Vec<(usize, RuleOutcome)> {
        let matched = self.matched.iter().enumerate().filter(|(_, (_, rules))| rules.action == action);
        matched
            .map(|(index, (entry, rules))| {
                let changes = if action == Action::RequireApproval { vec![Change::of_approval()] } else { Vec::new() };
                let rule = RuleOutcome {
                    pointer: self.policy.compiled().pointer(RuleRef { entry: *entry, section: Section::Action }),
                    name: None,
                    outcome: Outcome::Stops,
                    truth: None,
                    message: rules.reason.as_deref().map(str::to_owned),
                    conditions: Vec::new(),
                    changes,
                };
                (index, rule)
            })
            .collect()
    }

    /// Returns the rules of a section, each with the index of its entry in `matched`.
    fn rules(&self, search: &mut ChangeSearch, section: RuleSection) -> Vec<(usize, RuleOutcome)> {
        let mut all = Vec::new();
        for (index, (entry, rules)) in self.matched.iter().enumerate() {
            let rules = match section {
                RuleSection::Require => &rules.require,
                RuleSection::DenyIf => &rules.deny_if,
                RuleSection::RequireApprovalIf => &rules.require_approval_if,
            };
            let written = self.document.and_then(|document| document.object(*entry));
            let written = written.map_or(&[][..], |object| object.rules(section));
            for ((number, rule), written) in (0u32..).zip(rules).zip(written) {
                let reference = RuleRef { entry: *entry, section: section.place(number) };
                all.push((index, self.rule(search, rule, written, section.stance(), reference)));
            }
        }
        all
    }

    fn rule(
        &self,
        search: &mut ChangeSearch,
        rule: &Rule,
        written: &ast::Rule,
        stance: Stance,
        reference: RuleRef,
    ) -> RuleOutcome {
        let pointer = self.policy.compiled().pointer(reference);
        let list = format!("{pointer}/conditions");
        let conditions = self.conditions(&rule.conditions, &written.conditions, stance, &list);
        let truth = Truth::all(conditions.iter().map(|condition| condition.truth));
        let stops = match stance {
            Stance::Require => truth != Truth::True,
            Stance::Match => truth != Truth::False,
        };
        let mut changes = Vec::new();
        if stops {
            if let Section::RequireApprovalIf(_) = reference.section {
                changes.push(Change::of_approval());
            }
            changes.extend(search.changes(rule, written, stance, self.call, self.facts.now));
        }
        RuleOutcome {
            name: written.name.as_deref().map(str::to_owned),
            outcome: stops_if(stops),
            truth: Some(truth),
            message: self.policy.compiled().message(reference).map(str::to_owned),
            conditions,
            changes,
            pointer,
        }
    }

    /// Explains the conditions of a rule or a group. `pointer` is that of their list.
    fn conditions(
        &self,
        conditions: &[Condition],
        written: &[ast::Condition],
        stance: Stance,
        pointer: &str,
    ) -> Vec<ConditionOutcome> {
        let outcome = |(index, (condition, written))| {
            let mut pointer = pointer.to_owned();
            pointer::push_index(&mut pointer, index);
            self.condition(condition, written, stance, pointer)
        };
        conditions.iter().zip(written).enumerate().filter_map(outcome).collect()
    }

    fn condition(
        &self,
        condition: &Condition,
        written: &ast::Condition,
        stance: Stance,
        pointer: String,
    ) -> Option<ConditionOutcome> {
        let truth = condition.truth(&self.facts, stance);
        let (written, nots) = written.without_nots();
        let pointer = pointer + &"/not".repeat(nots);
        let each = |conditions: &[Condition]| {
            let (key, written) = written.group().unwrap_or_default();
            self.conditions(conditions, written, stance, &format!("{pointer}/{key}"))
        };
        let asked = match (condition, written) {
            (Condition::All(conditions), _) => Asked::All { all: each(conditions) },
            (Condition::Any(conditions), _) => Asked::Any { any: each(conditions) },
            (Condition::Test(test), ast::Condition::Comparison(comparison)) => self.comparison(test, comparison),
            // Both forms come from the same text, so every test has a comparison.
            (Condition::Test(_), _) => return None,
        };
        Some(ConditionOutcome { pointer, truth, asked })
    }

    fn comparison(&self, test: &Test, comparison: &ast::Comparison) -> Asked {
        let mut found = Vec::new();
        let _ = test.path.each(&self.facts, &mut |value| {
            found.push(self.seen(&test.path, value));
            if found.len() < MAX_SHOWN_ELEMENTS { Visit::Next } else { Visit::Stop }
        });
        let other = test.check.other();
        // The name of a negative operator already negates. Any other negation comes from `not`.
        let is_negative = comparison.operator.negative || comparison.asks_for_absence();
        Asked::Comparison {
            path: test.path.to_string(),
            op: comparison.operator.name,
            not: test.negated != is_negative,
            value: comparison.value.clone(),
            value_from: other.map(|path| (path.to_string(), self.seen(path, path.resolve(&self.facts)))),
            found,
        }
    }

    /// Returns the value that was found, masked if it is from the arguments or the context.
    fn seen(&self, path: &Path, found: Found<'_>) -> Seen {
        let datum = match found {
            Found::Absent => return Seen::Absent,
            Found::Unclear(Unclear::WrongContainer) => return Seen::Closed,
            Found::Unclear(Unclear::CaseVariant) => return Seen::CaseVariant,
            Found::Value(datum) => datum,
        };
        let is_public = !matches!(path.source(), Source::Arguments | Source::Context | Source::Input);
        match to_value(datum) {
            Some(value) if is_public || self.show_values => Seen::Value(value),
            _ => {
                let (r#type, length) = match datum {
                    Datum::Null => ("null", None),
                    Datum::False | Datum::True => ("boolean", None),
                    Datum::Number(_) | Datum::UnclearNumber => ("number", None),
                    Datum::Text(text) => ("string", Some(text.chars().count())),
                    Datum::Array(elements) => ("array", Some(elements.len())),
                    Datum::Object(members) => ("object", Some(members.len())),
                };
                Seen::Masked { r#type, length }
            }
        }
    }
}
