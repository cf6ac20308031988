//! Coverage of the random policies and histories: a property proves nothing about a rule that no
//! history reaches.

use std::collections::BTreeMap;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::Value;

use super::generate::{self, Document, Event};
use super::world::{EventResult, World};

/// How often each rule, operator or outcome decided a call.
#[derive(Default)]
struct Reached(BTreeMap<String, usize>);

impl Reached {
    fn note(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    fn run(&mut self, documents: &[Document; 2], history: &[Event]) {
        let parsed = documents.each_ref().map(|it| serde_json::from_str::<Value>(&it.to_json()).unwrap());
        let mut world = World::of(documents);
        for event in history {
            match world.apply(event) {
                EventResult::Decided(decision) => {
                    self.note(decision.code().map_or("allow", |code| code.as_str()));
                    if let Some(rule) = decision.rule().and_then(|rule| parsed[world.in_force].pointer(rule)) {
                        self.note_rule(decision.code().unwrap().as_str(), rule);
                    }
                    world.keep(*decision);
                }
                EventResult::Answered(answer) => {
                    let kind = match event {
                        Event::Release(_) => "release",
                        Event::Settle(..) => "settle",
                        _ => "end",
                    };
                    self.note(format!("{kind} {}", answer.err().unwrap_or("done")));
                }
                EventResult::Nothing => {}
            }
        }
    }

    /// Records the operators of a rule that stopped a call, or the algorithm of a limit.
    fn note_rule(&mut self, code: &str, rule: &Value) {
        if let Some(conditions) = rule["conditions"].as_array() {
            conditions.iter().for_each(|condition| self.note_condition(code, condition));
        }
        if code == "limit" {
            let algorithm = rule["algorithm"].as_str().unwrap_or("fixed");
            self.note(format!("{code} {algorithm} {}", rule["window"]));
            self.note(format!("{code} scope {}", rule["scope"]));
        }
        if !rule["max_from"].is_null() {
            self.note(format!("{code} max_from"));
        }
    }

    fn note_condition(&mut self, code: &str, condition: &Value) {
        for group in ["any", "all"] {
            for inner in condition[group].as_array().into_iter().flatten() {
                self.note_condition(code, inner);
                self.note(format!("{code} {group}"));
            }
        }
        if !condition["not"].is_null() {
            self.note(format!("{code} not"));
            self.note_condition(code, &condition["not"]);
        }
        if let Some(operator) = condition["op"].as_str() {
            self.note(format!("{code} {operator}"));
            for key in ["value_from", "absent", "ignore_case"] {
                if !condition[key].is_null() {
                    self.note(format!("{code} {key}"));
                }
            }
        }
    }
}

/// Returns the names of everything that can decide a call, as [`Reached`] records them.
fn language() -> Vec<String> {
    let codes = "allow hidden default_deny action_deny require deny_if scope_missing amount_invalid store_unavailable \
                 limit approval malformed_call";
    let operators = "eq neq lt lte gt gte in not_in exists regex not_regex contains not_contains starts_with ends_with \
                     min_length max_length min_items max_items keys_in type path_within host_in any all not value_from \
                     absent ignore_case";
    let limits = [
        "fixed \"minute\"",
        "fixed \"lifetime\"",
        "fixed \"in_flight\"",
        "sliding 64",
        "token_bucket \"minute\"",
        "scope \"grant\"",
    ];
    let ends = "release settle end";
    let mut names: Vec<String> = codes.split_whitespace().map(str::to_owned).collect();
    for code in ["require", "deny_if"] {
        names.extend(operators.split_whitespace().map(|operator| format!("{code} {operator}")));
    }
    names.extend(limits.map(|limit| format!("limit {limit}")));
    names.extend(["limit max_from", "amount_invalid max_from"].map(str::to_owned));
    for answer in ["done", "already_done", "unknown_call"] {
        names.extend(ends.split_whitespace().map(|end| format!("{end} {answer}")));
    }
    names.extend(["settle amount_invalid", "settle store_unavailable", "release store_unavailable"].map(str::to_owned));
    names
}

#[test]
fn random_histories_reach_the_whole_language() {
    let mut reached = Reached::default();
    // The same histories in each run.
    let mut runner = TestRunner::deterministic();
    for _ in 0..1300 {
        let document = generate::document().new_tree(&mut runner).unwrap().current();
        let history = generate::history().new_tree(&mut runner).unwrap().current();
        reached.run(&[document.clone(), document], &history);
    }
    for _ in 0..900 {
        let documents = generate::counting_documents().new_tree(&mut runner).unwrap().current();
        let history = generate::counted_history().new_tree(&mut runner).unwrap().current();
        reached.run(&documents, &history);
    }
    let missed: Vec<_> = language().into_iter().filter(|name| !reached.0.contains_key(name)).collect();
    assert!(missed.is_empty(), "never reached: {missed:?} among {:#?}", reached.0);
}
