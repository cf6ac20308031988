//! Runs cases in the vector format: the cases of this project, and the conformance vectors where
//! they are available. `tests/data/later.json` lists the vectors of parts of the language that are
//! not built yet.
//!
//! A case is a policy with steps and the expected answer of each, or a document with the issues
//! that parsing it must report.

use std::collections::{BTreeMap, BTreeSet};
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

/// The vectors that cannot pass yet, by the reason: an id, or the beginning of several ids with a
/// `*` at its end.
struct Later(BTreeMap<String, Vec<String>>);

impl Later {
    fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/later.json");
        Self(serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap())
    }

    fn listed(&self) -> impl Iterator<Item = &str> {
        self.0.values().flatten().map(String::as_str)
    }

    /// Returns the list's word for the vector of this id.
    fn lists(&self, id: &str) -> Option<&str> {
        self.listed().find(|listed| listed.strip_suffix('*').map_or(*listed == id, |start| id.starts_with(start)))
    }
}

#[test]
fn conformance_vectors_agree() {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    let Some(folder) = shared("vectors-v2") else { return };
    let later = Later::read();
    let (mut wrong, mut still_fails, mut agree) = (Vec::new(), BTreeSet::new(), 0);
    for file in json_files(&folder) {
        let text = std::fs::read_to_string(&file).unwrap();
        for case in serde_json::from_str::<Vec<Box<RawValue>>>(&text).unwrap() {
            let Id { id } = serde_json::from_str(case.get()).unwrap();
            let cases = format!("[{}]", case.get());
            let run = Suite::of(None).cases(&cases).and_then(|suite| suite.run());
            match (run, later.lists(&id)) {
                (Ok(_), None) => {
                    policies_round_trip(&cases);
                    agree += 1;
                }
                (Err(error), None) => wrong.push(format!("{}: {id}: {error}", file.display())),
                (Err(_), Some(listed)) => drop(still_fails.insert(listed.to_owned())),
                // Part of a group may agree by chance: a document is refused for another reason.
                (Ok(_), Some(listed)) if listed.ends_with('*') => {}
                (Ok(_), Some(_)) => wrong.push(format!("{id} agrees: remove it from the list")),
            }
        }
    }
    let stale = later.listed().filter(|listed| !still_fails.contains(*listed));
    wrong.extend(stale.map(|listed| format!("`{listed}` lists no vector that fails: remove it")));
    assert!(wrong.is_empty(), "{} of {agree}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(agree > 0, "{} has no vectors", folder.display());
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
