//! The commands of docs/ci.md, run as they are written there.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::{Folder, POLICY};
use crate::yaml;

/// A repository with two policies and a pull request that changes one and adds the other.
struct Repository(Folder);

impl Repository {
    fn new() -> Self {
        let folder = Folder::new();
        let repository = Self(folder);
        std::fs::create_dir(repository.0.0.join("policies")).unwrap();
        repository.git(&["init", "--quiet"]);
        let sample = std::fs::read_to_string(POLICY).unwrap();
        let cases = std::fs::read_to_string("examples/data/code-generator.cases.json").unwrap();
        repository.0.write("policies/code.policy.json", &sample);
        repository.0.write("policies/code.cases.json", cases);
        repository.commit();
        repository.0.write("policies/code.policy.json", sample.replace("[\"go\",", "[\"go\", \"java\","));
        let policy = r#"{ "version": "1", "default": "deny", "tools": { "refund": { "deny_if": [
            { "conditions": [{ "path": "args.amount", "op": "gt", "value": 100 }] }] } } }"#;
        repository.0.write("policies/desk.policy.json", policy);
        let case =
            r#"[{ "id": "refund", "steps": [{ "call": { "tool": "refund" }, "expect": { "decision": "allow" } }] }]"#;
        repository.0.write("policies/desk.cases.json", case);
        repository.0.write("policies/desk.accepted", "denial_left_out /tools/refund/deny_if/0/conditions/0\n");
        repository
    }

    fn git(&self, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
        let ran = Command::new("git").current_dir(&self.0.0).args(identity).args(arguments).output().unwrap();
        assert!(ran.status.success(), "{arguments:?}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self) {
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "-m", "Policies"]);
    }

    /// Runs a script as the runner of GitHub Actions does. `gh` prints the file that it gets last.
    fn run(&self, shell: &[&str], script: &str) -> Output {
        std::fs::create_dir_all(self.0.0.join("bin")).unwrap();
        let gh = self.0.write("bin/gh", "#!/bin/sh\nfor last; do :; done\ncat \"$last\"\n");
        assert!(Command::new("chmod").args(["+x", &gh]).status().unwrap().success());
        let toolgate = Path::new(env!("CARGO_BIN_EXE_toolgate")).parent().unwrap();
        let path = format!("{}:{}:{}", toolgate.display(), self.0.path().to_owned() + "/bin", env!("PATH"));
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).arg(script).current_dir(&self.0.0).env("PATH", path);
        command.env("BASE", self.git(&["rev-parse", "HEAD"])).env("PULL_REQUEST", "7");
        command.env("RUNNER_TEMP", self.0.path()).output().unwrap()
    }
}

const BASH: [&str; 6] = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"];

/// Returns the code blocks of a language in the page.
fn blocks(language: &str) -> Vec<String> {
    let page = std::fs::read_to_string("docs/ci.md").unwrap();
    let begin = format!("\n```{language}\n");
    page.split(&begin).skip(1).map(|block| block.split_once("\n```").unwrap().0.to_owned()).collect()
}

fn steps(workflow: &Value) -> Vec<(String, String)> {
    let steps = workflow.pointer("/jobs/policies/steps").or_else(|| workflow.get("steps")).unwrap();
    let step =
        |step: &Value| Some((step["name"].as_str().unwrap_or_default().to_owned(), step["run"].as_str()?.to_owned()));
    steps.as_array().unwrap().iter().filter_map(step).collect()
}

#[test]
fn the_workflow_checks_tests_and_compares() {
    let repository = Repository::new();
    let workflow = yaml::read(blocks("yaml")[0].as_bytes()).unwrap();
    let steps = steps(&workflow);
    let names: Vec<_> = steps.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["Install", "Check", "Test", "Compare"]);
    let run = |step: usize| {
        let ran = repository.run(&BASH, &steps[step].1);
        (ran.status.code().unwrap(), String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap())
    };
    let (code, out, err) = run(1);
    assert_eq!((code, &*out, &*err), (0, "", ""));
    let (code, out, err) = run(2);
    assert_eq!((code, out.lines().count(), &*err), (0, 2, ""), "{out}");
    let (code, comment, err) = run(3);
    assert_eq!((code, &*err), (0, ""));
    assert!(comment.starts_with("### `policies/code.policy.json`\n```text\n1 wider, 0 narrower"), "{comment}");
    assert!(comment.ends_with("### `policies/desk.policy.json`\nThis policy is new.\n"), "{comment}");

    // Each step fails if one of the policies does, and the others are still looked at.
    repository.0.write("policies/desk.accepted", "");
    repository.0.write("policies/code.cases.json", "[]");
    let (code, out, _) = run(1);
    assert!(code == 1 && out.starts_with("::warning file=policies/desk.policy.json,line=2,"), "{out}");
    let (code, out, err) = run(2);
    assert!(code == 1 && out.lines().count() == 1 && err.contains("code.cases.json"), "{out}{err}");
    repository.0.write("policies/code.policy.json", "{");
    let (code, _, err) = run(3);
    assert!(code == 1 && err.contains("invalid policy"), "{err}");
}

#[test]
fn the_reports_for_dashboards_are_written() {
    let repository = Repository::new();
    let reports = yaml::read(blocks("yaml")[1].as_bytes()).unwrap();
    for (_, script) in steps(&reports) {
        let ran = repository.run(&BASH, &script);
        assert!(ran.status.success(), "{script}: {ran:?}");
    }
    for (file, text) in [("policies.xml", "<testsuites "), ("policies.sarif", "\"2.1.0\"")] {
        assert!(std::fs::read_to_string(repository.0.0.join(file)).unwrap().contains(text), "{file}");
    }
}

#[test]
fn the_hooks_check_what_is_committed() {
    let repository = Repository::new();
    let hook = blocks("sh")[0].clone();
    assert!(hook.starts_with("#!/bin/sh\n"));
    assert!(repository.run(&["sh", "-c"], &hook).status.success(), "nothing is staged");
    repository.git(&["add", "policies/code.policy.json"]);
    assert!(repository.run(&["sh", "-c"], &hook).status.success());
    repository.git(&["add", "."]);
    // It knows no accepted findings.
    let ran = repository.run(&["sh", "-c"], &hook);
    assert!(!ran.status.success() && String::from_utf8(ran.stdout).unwrap().contains("[denial_left_out]"));
    let framework = yaml::read(blocks("yaml")[2].as_bytes()).unwrap();
    let entry = framework.pointer("/repos/0/hooks/0/entry").unwrap().as_str().unwrap();
    assert!(repository.run(&BASH, &format!("{entry} policies/code.policy.json")).status.success());
}

/// The pattern of the task in VS Code finds the findings.
#[test]
fn the_pattern_of_the_editor_matches_findings() {
    let task = blocks("json").into_iter().find(|block| block.contains("problemMatcher")).unwrap();
    let task: Value = serde_json::from_str(&task).unwrap();
    let pattern = task.pointer("/tasks/0/problemMatcher/pattern/regexp").unwrap().as_str().unwrap();
    let pattern = regex::Regex::new(pattern).unwrap();
    let out = super::toolgate(&["check", "examples/data/payments.json"]).out;
    let found: Vec<_> = out.lines().filter_map(|line| pattern.captures(line)).collect();
    assert_eq!(found.len(), 2, "{out}");
    assert_eq!(
        [1, 2, 3, 4, 5].map(|group| &found[0][group]),
        ["examples/data/payments.json", "113", "13", "warning", "denial_left_out"]
    );
}
