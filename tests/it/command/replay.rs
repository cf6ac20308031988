//! `toolgate replay`: histories that have changed, and histories with problems.

use super::{Folder, toolgate};

const POLICY: &str = "tests/data/traces/code-generator.json";
const CANDIDATE: &str = "tests/data/traces/code-generator.candidate.json";
const TRACE: &str = "tests/data/traces/code-generator.jsonl";

#[test]
fn a_trace_is_compared_with_its_answers() {
    let folder = Folder::new();
    let decided = toolgate(&["decide", POLICY, TRACE, "--format", "json"]);
    let answers = folder.write("answers.jsonl", &decided.out);
    let same = toolgate(&["replay", TRACE, POLICY, "--answers", &answers, "--exact"]);
    assert_eq!(same.code, 0, "{}", same.out);
    let changed = toolgate(&["replay", TRACE, CANDIDATE, "--answers", &answers]);
    assert!(changed.code == 1 && changed.out.contains("changed by rule"), "{}", changed.out);
    let each = toolgate(&["replay", TRACE, CANDIDATE, "--answers", &answers, "--each"]);
    assert!(each.code == 1 && each.json_lines().len() > 10 && each.err.contains("changed by rule"));
    let json = toolgate(&["replay", TRACE, CANDIDATE, "--answers", &answers, "--format", "json"]);
    assert!(json.json()["changed"].as_u64() > Some(10));
    // A message that differs counts only with --exact.
    let other = decided.out.replace("Ten generations a minute", "10 generations a minute");
    let answers = folder.write("answers.jsonl", other);
    assert_eq!(toolgate(&["replay", TRACE, POLICY, "--answers", &answers]).code, 0);
    assert_eq!(toolgate(&["replay", TRACE, POLICY, "--answers", &answers, "--exact"]).code, 1);
}

#[test]
fn a_trace_is_compared_with_another_policy() {
    assert_eq!(toolgate(&["replay", super::TRACE, super::POLICY, "--against", super::POLICY]).code, 0);
    let ran = toolgate(&["replay", TRACE, CANDIDATE, "--against", POLICY]);
    assert!(ran.code == 1 && ran.out.contains("loosened") && ran.out.contains("tightened"), "{}", ran.out);
    // Nothing was compared, which is not a success.
    let alone = toolgate(&["replay", TRACE, POLICY]);
    assert!(alone.code == 1 && alone.out.contains("there is no baseline"), "{}", alone.out);
    let both = toolgate(&["replay", TRACE, POLICY, "--against", POLICY, "--answers", TRACE]);
    assert!(both.code == 2 && both.err.contains("cannot be used with"), "{}", both.err);
}

#[test]
fn a_log_is_compared_with_its_decisions() {
    let folder = Folder::new();
    let log = super::audit::log(&folder, 20);
    let same = toolgate(&["replay", &log, super::POLICY]);
    assert_eq!(same.code, 0, "{}", same.out);
    let only = toolgate(&["replay", &log, super::POLICY, "--only", POLICY, "--format", "json"]);
    assert_eq!((only.code, &only.json()["other"]), (0, &20.into()), "another policy decided them");
    // One record is missing.
    let text = std::fs::read_to_string(&log).unwrap();
    let cut: String =
        text.lines().enumerate().filter(|(at, _)| *at != 5).map(|(_, line)| format!("{line}\n")).collect();
    let cut = folder.write("cut.jsonl", cut);
    let ran = toolgate(&["replay", &cut, super::POLICY]);
    assert!(ran.code == 1 && ran.out.contains("1 problems in the history"), "{}", ran.out);
    let stopped = toolgate(&["replay", &cut, super::POLICY, "--stop", "--format", "json"]);
    assert!(stopped.json()["calls"].as_u64() < Some(19));
}
