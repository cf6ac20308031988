//! Makes explanations: goes through all steps, as evaluation does, but stops at none.

use super::change::{Change, Search};
use super::sample::to_value;
use super::{Asked, ConditionOutcome, Explanation, Outcome, RuleOutcome, Seen, Step, StepKind, limits};
use crate::call::ToolCall;
use crate::call::path::{Datum, Facts, Found, Path, Source, Visit};
use crate::json::pointer;
use crate::policy::ast::{self, Document, RuleSection};
use crate::policy::compiled::{Action, DefaultEffect, Rule, RuleRef, Rules, Section};
use crate::policy::condition::{Condition, Stance, Test};
use crate::policy::plan::{LimitRef, Plan};
use crate::policy::truth::Truth;
use crate::policy::{Code, Effect, Policy};
use crate::time::Timestamp;

/// How many elements of `[*]` are shown.
const SHOWN: usize = 4;

impl Policy {
    /// Why a call at an instant is evaluated as it is: every step and rule with its outcome, what each limit would be charged,
    /// and what would have to change. Values of arguments and context are masked; [`Policy::explain_with_values`] shows them.
    ///
    /// Takes time linear in the document, and for changes within a budget. See [`explain`](crate::explain).
    pub fn explain(&self, call: &ToolCall<'_>, now: Timestamp) -> Explanation {
        self.explained(call, now, false).0
    }

    /// As [`Policy::explain`], with the values that were compared. They are the caller's: show them to those alone who may see them.
    pub fn explain_with_values(&self, call: &ToolCall<'_>, now: Timestamp) -> Explanation {
        self.explained(call, now, true).0
    }

    /// The explanation, and the plan of those limits that can count the call.
    pub(crate) fn explained(&self, call: &ToolCall<'_>, now: Timestamp, values: bool) -> (Explanation, Plan) {
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
            values,
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
    /// Of a call for which there is no policy.
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

/// Everything that an explanation is made of.
struct Explainer<'e> {
    policy: &'e Policy,
    call: &'e ToolCall<'e>,
    facts: Facts<'e>,
    values: bool,
    document: Option<&'e Document>,
    /// The rules that apply, those of `all_tools` last.
    matched: Vec<(Option<u32>, &'e Rules)>,
}

impl<'e> Explainer<'e> {
    fn steps(&self, unlisted: bool) -> (Vec<Step>, Plan) {
        let compiled = self.policy.compiled();
        let hidden = compiled.hide.matches(self.call.tool());
        let unlisted = unlisted && compiled.default == DefaultEffect::Deny;
        let malformed = self.call.is_malformed();
        let mut search = Search::of(self.call);
        let mut steps = vec![
            plain_step(StepKind::Call, stops_if(malformed), Code::MalformedCall),
            plain_step(StepKind::Policy, Outcome::Passes, Code::NoPolicy),
            plain_step(StepKind::Hide, stops_if(hidden), Code::Hidden),
            plain_step(StepKind::Default, stops_if(unlisted), Code::DefaultDeny),
            self.step(StepKind::Action, Code::ActionDeny, self.actions(Action::Deny)),
        ];
        if malformed {
            // Its arguments cannot be read, so nothing can be said of conditions and amounts.
            let rest = [StepKind::Require, StepKind::DenyIf, StepKind::Limits, StepKind::Approval];
            steps.extend(rest.map(|kind| plain_step(kind, Outcome::Unknown, Code::MalformedCall)));
            return (steps, Plan::default());
        }
        let rules = |search: &mut Search, section| self.rules(search, section);
        steps.push(self.step(StepKind::Require, Code::Require, rules(&mut search, RuleSection::Require)));
        steps.push(self.step(StepKind::DenyIf, Code::DenyIf, rules(&mut search, RuleSection::DenyIf)));
        let places: Vec<LimitRef> = self
            .matched
            .iter()
            .flat_map(|(entry, rules)| {
                (0u32..).zip(&rules.limits).map(|(index, _)| LimitRef { entry: *entry, index, charge: 0 })
            })
            .collect();
        let (limits, plan) = limits::limits(self.policy, self.call, self.facts.now, &places);
        let mut step = plain_step(StepKind::Limits, Outcome::Unknown, Code::Limit);
        step.limits = limits;
        step.conclude();
        steps.push(step);
        let rules = rules(&mut search, RuleSection::RequireApprovalIf);
        let asks = self.by_place(self.actions(Action::RequireApproval), rules);
        steps.push(self.step(StepKind::Approval, Code::Approval, asks));
        (steps, plan)
    }

    fn step(&self, kind: StepKind, code: Code, rules: Vec<(usize, RuleOutcome)>) -> Step {
        let rules: Vec<_> = rules.into_iter().map(|(_, rule)| rule).collect();
        let stops = rules.iter().any(|rule| rule.outcome == Outcome::Stops);
        Step { rules, ..plain_step(kind, stops_if(stops), code) }
    }

    /// The rules of two kinds in the order of the rules objects; within one, the action first.
    fn by_place(
        &self,
        actions: Vec<(usize, RuleOutcome)>,
        rules: Vec<(usize, RuleOutcome)>,
    ) -> Vec<(usize, RuleOutcome)> {
        let mut all = actions;
        all.extend(rules);
        all.sort_by_key(|(place, _)| *place);
        all
    }

    /// The entries with that action.
    fn actions(&self, action: Action) -> Vec<(usize, RuleOutcome)> {
        let with = self.matched.iter().enumerate().filter(|(_, (_, rules))| rules.action == action);
        with.map(|(place, (entry, rules))| {
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
            (place, rule)
        })
        .collect()
    }

    /// The rules of one section.
    fn rules(&self, search: &mut Search, section: RuleSection) -> Vec<(usize, RuleOutcome)> {
        let mut all = Vec::new();
        for (place, (entry, rules)) in self.matched.iter().enumerate() {
            let rules = match section {
                RuleSection::Require => &rules.require,
                RuleSection::DenyIf => &rules.deny_if,
                RuleSection::RequireApprovalIf => &rules.require_approval_if,
            };
            let written = self.document.and_then(|document| document.object(*entry));
            let written = written.map_or(&[][..], |object| object.rules(section));
            for ((number, rule), written) in (0u32..).zip(rules).zip(written) {
                let place_of_rule = RuleRef { entry: *entry, section: section.place(number) };
                all.push((place, self.rule(search, rule, written, section.stance(), place_of_rule)));
            }
        }
        all
    }

    fn rule(
        &self,
        search: &mut Search,
        rule: &Rule,
        written: &ast::Rule,
        stance: Stance,
        place: RuleRef,
    ) -> RuleOutcome {
        let pointer = self.policy.compiled().pointer(place);
        let list = format!("{pointer}/conditions");
        let conditions = self.conditions(&rule.conditions, &written.conditions, stance, &list);
        let truth = Truth::all(conditions.iter().map(|condition| condition.truth));
        let stops = match stance {
            Stance::Require => truth != Truth::True,
            Stance::Match => truth != Truth::False,
        };
        let mut changes = Vec::new();
        if stops {
            if let Section::RequireApprovalIf(_) = place.section {
                changes.push(Change::of_approval());
            }
            changes.extend(search.changes(rule, written, stance, self.call, self.facts.now));
        }
        RuleOutcome {
            name: written.name.as_deref().map(str::to_owned),
            outcome: stops_if(stops),
            truth: Some(truth),
            message: self.policy.compiled().message(place).map(str::to_owned),
            conditions,
            changes,
            pointer,
        }
    }

    /// The conditions of a rule or a group, whose list has this pointer.
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
            // Both forms are made of one text, so a test is always written as a comparison.
            (Condition::Test(_), _) => return None,
        };
        Some(ConditionOutcome { pointer, truth, asked })
    }

    fn comparison(&self, test: &Test, comparison: &ast::Comparison) -> Asked {
        let mut found = Vec::new();
        let _ = test.path.each(&self.facts, &mut |one| {
            found.push(self.seen(&test.path, one));
            if found.len() < SHOWN { Visit::Next } else { Visit::Stop }
        });
        let other = test.check.other();
        // A negative operator is its own negation: what is left over is a `not` around it.
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

    /// What is found, masked if it is the caller's or the host's own.
    fn seen(&self, path: &Path, found: Found<'_>) -> Seen {
        let datum = match found {
            Found::Absent => return Seen::Absent,
            Found::WrongContainer => return Seen::Closed,
            Found::Value(datum) => datum,
        };
        let open = !matches!(path.source(), Source::Arguments | Source::Context);
        match to_value(datum) {
            Some(value) if open || self.values => Seen::Value(value),
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
