//! The sample traces of the examples have the answers in the files beside them.

use std::path::Path;

use serde_json::Value;
use toolgate::shadow::{DifferenceKind, Shadow};
use toolgate::trace::Runner;
use toolgate::{Policy, intercept};

use crate::language::vectors::contains;
use crate::yaml;

const SAMPLES: &str = "examples/data";
/// Traces that are too long for a first example.
const LONG: &str = "tests/data/traces";

fn run(folder: &str, name: &str) -> usize {
    let file = |ending: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(format!("{name}{ending}"));
    let read = |ending: &str| std::fs::read_to_string(file(ending)).unwrap();
    let policy = match name.strip_suffix(".intercept") {
        None => read(".json").parse(),
        Some(_) => intercept::read(&yaml::read(read(".yaml").as_bytes()).unwrap()),
    };
    let policy: Policy = policy.unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut runner = Runner::new(policy);
    let trace = read(".jsonl");
    let answers = trace.lines().filter_map(|line| Some((line, runner.answer(line)?)));
    let answers: Vec<_> = answers.map(|(line, answer)| (line, serde_json::to_value(answer).unwrap())).collect();
    let expected: Vec<Value> =
        read(".expected.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), expected.len(), "{name}: the number of answers");
    for ((line, answer), expected) in answers.iter().zip(&expected) {
        assert!(contains(answer, expected), "{name}\n  step   {line}\n  want   {expected}\n  answer {answer}");
    }
    runner.summary().calls
}

#[test]
fn read_only_sample_has_its_answers() {
    assert!(run(SAMPLES, "read-only") > 50);
}

#[test]
fn code_generator_sample_has_its_answers() {
    assert!(run(LONG, "code-generator") > 90);
    assert_eq!(run(SAMPLES, "code-generator"), 10);
}

#[test]
fn payments_sample_has_its_answers() {
    assert!(run(SAMPLES, "payments") > 190);
}

#[test]
fn search_budget_sample_has_its_answers() {
    assert!(run(SAMPLES, "search-budget") > 45);
}

#[test]
fn intercept_helpdesk_sample_has_its_answers() {
    assert!(run(SAMPLES, "helpdesk.intercept") > 15);
}

/// A shadow policy changes no answer, and its report has the intended differences.
#[test]
fn a_shadow_of_the_code_generator_reports_its_differences() {
    let read =
        |name: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(LONG).join(name)).unwrap();
    let runner = || Runner::new(read("code-generator.json").parse().unwrap());
    let (mut alone, mut shadowed) = (runner(), runner());
    shadowed.gate().start_shadow(Shadow::new(read("code-generator.candidate.json").parse().unwrap()));
    for line in read("code-generator.jsonl").lines() {
        let answer = |runner: &mut Runner| serde_json::to_value(runner.answer(line)).unwrap();
        assert_eq!(answer(&mut shadowed), answer(&mut alone), "{line}");
    }
    let report = shadowed.gate().stop_shadow().unwrap();
    let rules: Vec<_> = report.rules().map(|(kind, rule, _)| (kind, rule)).collect();
    for rule in ["limits/0", "require/0"] {
        assert!(rules.contains(&(DifferenceKind::Tightened, &*format!("/tools/generate_code/{rule}"))), "{rules:?}");
    }
    assert!(
        rules.contains(&(DifferenceKind::Loosened, "/tools/generate_code/require/1")),
        "a longer prompt is allowed: {rules:?}"
    );
    assert!(report.agreed() > report.differed());
}
