//! The sample traces of the examples have the answers that stand beside them.

use std::path::Path;

use serde_json::Value;
use toolgate::Policy;

use crate::trace::Runner;
use crate::vectors::contains;

fn run(name: &str) -> usize {
    let file =
        |ending: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(format!("{name}{ending}"));
    let read = |ending: &str| std::fs::read_to_string(file(ending)).unwrap();
    let policy: Policy = read(".json").parse().unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut runner = Runner::new(policy);
    let trace = read(".jsonl");
    let answers = trace.lines().filter_map(|line| Some((line, runner.answer(line, &mut |_, _| {})?)));
    let answers: Vec<_> = answers.map(|(line, answer)| (line, serde_json::to_value(answer).unwrap())).collect();
    let expected: Vec<Value> =
        read(".expected.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), expected.len(), "{name}: as many answers as expected");
    for ((line, answer), expected) in answers.iter().zip(&expected) {
        assert!(contains(answer, expected), "{name}\n  step   {line}\n  want   {expected}\n  answer {answer}");
    }
    runner.summary().calls
}

#[test]
fn read_only() {
    assert!(run("read-only") > 50);
}

#[test]
fn code_generator() {
    assert!(run("code-generator") > 90);
}

#[test]
fn payments() {
    assert!(run("payments") > 190);
}

#[test]
fn search_budget() {
    assert!(run("search-budget") > 45);
}
