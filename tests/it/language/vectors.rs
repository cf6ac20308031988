//! Runs cases in the vector format: the cases of this project, and the conformance vectors where
//! they are available.
//!
//! A case is a policy with steps and the expected answer of each, or a document with the issues
//! that parsing it must report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use toolgate::Policy;
use toolgate::approval::ApprovalStore;
use toolgate::testing::Suite;

/// Runs all cases of a file and panics with a list of every failure.
fn run_file(path: &Path) -> usize {
    run_file_over(path, || crate::approvals::in_memory(crate::approvals::Bounds::default()))
}

/// Runs all cases of a file, each with approvals in a new store.
pub(crate) fn run_file_over(path: &Path, approvals: impl Fn() -> Arc<dyn ApprovalStore>) -> usize {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let suite = Suite::of(None).approvals(approvals).cases(&text);
    let coverage = suite.and_then(|suite| suite.run()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    policies_round_trip(&text);
    coverage.cases()
}

#[derive(Deserialize)]
struct CaseWithPolicy {
    policy: Option<Box<RawValue>>,
}

fn policies_round_trip(cases: &str) {
    let cases: Vec<CaseWithPolicy> = serde_json::from_str(cases).unwrap();
    for policy in cases.iter().filter_map(|case| case.policy.as_ref()) {
        let policy = Policy::from_json(policy.get()).unwrap();
        assert_eq!(Policy::from_json(policy.to_json()).as_ref(), Ok(&policy));
    }
}

/// Returns whether every member of `expect` is in `answer`. Numbers compare by value, arrays
/// element by element.
pub(crate) fn contains(answer: &Value, expect: &Value) -> bool {
    match (answer, expect) {
        (Value::Object(answer), Value::Object(expect)) => {
            expect.iter().all(|(key, expect)| contains(answer.get(key).unwrap_or(&Value::Null), expect))
        }
        (Value::Array(answer), Value::Array(expect)) => {
            answer.len() == expect.len() && answer.iter().zip(expect).all(|(answer, expect)| contains(answer, expect))
        }
        (Value::Number(answer), Value::Number(expect)) => answer == expect || answer.as_f64() == expect.as_f64(),
        _ => answer == expect,
    }
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

fn run_folder(folder: &Path) {
    let mut total = 0;
    for file in json_files(folder) {
        let run = run_file(&file);
        total += run;
        println!("{}: {run} cases agree", file.display());
    }
    assert!(total > 0, "{} has no cases", folder.display());
}

/// Returns the folder of that name outside the repository, or `None` if it is missing.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(name);
    if !folder.exists() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", folder.display());
        println!("skipped: {} is missing", folder.display());
        return None;
    }
    Some(folder)
}

#[test]
fn own_cases_agree() {
    run_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases"));
}

#[test]
fn conformance_vectors_agree() {
    if let Some(folder) = shared("vectors") {
        run_folder(&folder);
    }
}

#[derive(Deserialize)]
struct PublishedPolicy {
    id: String,
    policy: Box<RawValue>,
    #[serde(default)]
    steps: Vec<PublishedStep>,
}

#[derive(Deserialize)]
struct PublishedStep {
    tool: String,
    args: Value,
    expect: String,
    message: Option<String>,
}

#[test]
fn published_policies_load_and_decide() {
    let Some(folder) = shared("published") else { return };
    let text = std::fs::read_to_string(folder.join("policies.json")).unwrap();
    let all: Vec<PublishedPolicy> = serde_json::from_str(&text).unwrap();
    assert!(!all.is_empty());
    for PublishedPolicy { id, policy, steps } in all {
        let policy = Policy::from_json(policy.get()).unwrap_or_else(|error| panic!("{id}: {error}"));
        let gate = toolgate::Gate::new(policy);
        for step in steps {
            let decision = gate.check(&toolgate::ToolCall::new(&step.tool, &step.args));
            assert_eq!(decision.as_str(), step.expect, "{id}: {}", step.args);
            if let Some(message) = &step.message {
                assert_eq!(decision.message(), Some(&**message), "{id}: {}", step.args);
            }
        }
    }
}
