//! `toolgate audit`: logs that are whole, damaged, growing and replaced.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;
use toolgate::audit::JsonLines;
use toolgate::{Gate, Policy, ToolCall};

use super::{Folder, POLICY, command, toolgate, with_input};

/// A bound above the time of any step on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Writes a log of a policy, this many decisions, and the ends of the allowed calls (every other
/// one). Returns its path.
pub(super) fn log(folder: &Folder, calls: usize) -> String {
    let file = folder.0.join("audit.jsonl");
    append(&file, calls);
    file.to_str().unwrap().to_owned()
}

fn append(file: &std::path::Path, calls: usize) {
    let policy: Policy = std::fs::read_to_string(POLICY).unwrap().parse().unwrap();
    let gate = Gate::builder().audit(JsonLines::append(file).unwrap()).audit_arguments().policy(policy).build();
    for number in 0..calls {
        let arguments = json!({ "number": number });
        let tool = if number % 2 == 0 { "get_generation" } else { "execute_code" };
        let _ = gate.check(&ToolCall::new(tool, &arguments).grant("g-42").user("ann\u{1b}[2J"));
    }
}

#[test]
fn a_whole_log_is_verified_up_to_its_head() {
    let folder = Folder::new();
    let log = log(&folder, 5);
    let head = toolgate(&["audit", "head", &log]);
    assert_eq!((head.code, head.out.starts_with("9-"), &*head.err), (0, true, ""));
    let ran = toolgate(&["audit", "verify", &log, "--up-to", head.out.trim()]);
    assert_eq!((ran.code, ran.out), (0, format!("ok {log}: 9 records, head {}", head.out)));
    let json = toolgate(&["audit", "verify", &log, "--format", "json"]).json();
    assert_eq!((&json["records"], &json["head"]), (&json!(9), &json!(head.out.trim())));
    let wrong = toolgate(&["audit", "verify", &log, "--up-to", "9-ab"]);
    assert!(wrong.code == 2 && wrong.err.contains("not the head of a log"), "{}", wrong.err);
}

#[test]
fn a_damaged_log_is_a_finding() {
    let folder = Folder::new();
    let log = log(&folder, 5);
    let head = toolgate(&["audit", "head", &log]).out;
    let text = std::fs::read_to_string(&log).unwrap();
    let changed = folder.write("changed.jsonl", text.replacen("execute_code", "execute_cobe", 1));
    let ran = toolgate(&["audit", "verify", &changed]);
    assert!(ran.code == 1 && ran.out.starts_with(&format!("failed {changed}: line 4: ")), "{ran:?}");
    let ran = toolgate(&["audit", "head", &changed]);
    assert!(ran.code == 1 && ran.out.is_empty() && ran.err.contains("line 4: "), "{ran:?}");
    let cut = folder.write("cut.jsonl", &text[..=text.trim_end().rfind('\n').unwrap()]);
    assert_eq!(toolgate(&["audit", "verify", &cut]).code, 0, "a log does not show that its end is missing");
    let ran = toolgate(&["audit", "verify", &cut, "--up-to", head.trim(), "--format", "json"]);
    assert_eq!((ran.code, &ran.json()["line"]), (1, &json!(9)));
}

#[test]
fn the_files_of_a_rotated_log_are_verified_as_one() {
    let folder = Folder::new();
    let whole = std::fs::read_to_string(log(&folder, 5)).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let one = folder.write("one.jsonl", lines[..3].concat());
    let two = folder.write("two.jsonl", lines[3..7].concat());
    let three = folder.write("three.jsonl", lines[7..].concat());
    let head = toolgate(&["audit", "head", &one, &two, &three]);
    let ran = toolgate(&["audit", "verify", &one, &two, &three, "--up-to", head.out.trim()]);
    assert_eq!((ran.code, ran.out), (0, format!("ok 3 files: 9 records, head {}", head.out)));
    let after = toolgate(&["audit", "head", &one]).out;
    let ran = toolgate(&["audit", "verify", "--after", after.trim(), &two, &three]);
    assert_eq!((ran.code, ran.out), (0, format!("ok 2 files: 6 records after record 3, head {}", head.out)));
    assert_eq!(toolgate(&["audit", "head", "--after", after.trim(), &two, &three]).out, head.out);

    // A fault is named with its file and the line there.
    let first = |files: &[&str]| {
        let ran = toolgate(&[&["audit", "verify"], files].concat());
        assert_eq!(ran.code, 1, "{ran:?}");
        ran.out
    };
    let out = first(&[&two]);
    assert!(out.starts_with(&format!("failed {two}: line 1: this log continues after record 3: ")), "{out}");
    let out = first(&[&one, &three]);
    assert!(out.starts_with(&format!("failed {three}: line 1: record 8 found where record 4 ")), "{out}");
    let changed = folder.write("changed.jsonl", lines[3..7].concat().replace("\"number\":3", "\"number\":4"));
    let out = first(&[&one, &changed, &three]);
    assert!(out.starts_with(&format!("failed {changed}: line 4: the record has been changed")), "{out}");
    let cut = folder.write("cut.jsonl", lines[3..7].concat().trim_end());
    assert_eq!(toolgate(&["audit", "verify", &one, &cut, &three]).code, 0, "a record is whole without its line end");
    let cut = folder.write("cut.jsonl", &lines[3..7].concat()[..900]);
    let out = first(&[&one, &cut, &three]);
    assert!(out.starts_with(&format!("failed {cut}: line ")) && out.contains("not a line of an audit log"), "{out}");
}

#[test]
fn tail_shows_the_last_records() {
    let folder = Folder::new();
    let log = log(&folder, 30);
    let ran = toolgate(&["audit", "tail", &log]);
    assert_eq!((ran.code, ran.out.lines().count()), (0, 10));
    let last = ran.out.lines().last().unwrap();
    assert!(last.starts_with("deny  ") && last.contains("  execute_code  grant=g-42  user=ann\\u{1b}[2J  "), "{last}");
    assert!(last.ends_with("[(default deny)]  The tool `execute_code` is not available."), "{last}");
    for (count, lines) in [("0", 0), ("1", 1), ("46", 46), ("99", 46)] {
        assert_eq!(toolgate(&["audit", "tail", &log, "-n", count]).out.lines().count(), lines, "{count}");
    }
    let first = toolgate(&["audit", "tail", &log, "-n", "46"]).out;
    assert!(first.starts_with("policy  "), "{first}");
    let json = toolgate(&["audit", "tail", &log, "--format", "json"]).json_lines();
    assert!(json.len() == 10 && json.iter().all(|record| record["grant"] == "g-42"));
    let text = std::fs::read(&log).unwrap();
    assert_eq!(with_input(&["audit", "tail", "-"], &text).out.lines().count(), 46, "all of standard input");
    let broken = folder.write("broken.jsonl", [&text[..], b"nonsense\n\xff\n"].concat());
    let ran = toolgate(&["audit", "tail", &broken]);
    assert!(ran.code == 1 && ran.out.lines().count() == 8 && ran.err.lines().count() == 2, "{ran:?}");
}

#[test]
fn tail_shows_nothing_that_a_terminal_obeys() {
    let folder = Folder::new();
    // As a log that another program has written, with raw characters.
    let unseen = "a\u{85}\u{9b}2J\u{202e}b\u{2028}\u{200b}\u{e0041}\u{feff}\u{a0}c";
    let record = json!({
        "time": "2026-01-15T10:30:00Z", "event": "decision", "decision": "deny",
        "tool": unseen, "grant": "g\ndeny  fake",
    });
    let log = folder.write("raw.jsonl", format!("{record}\n"));
    let text = toolgate(&["audit", "tail", &log]).out;
    assert_eq!(text.lines().count(), 1, "{text}");
    let json = toolgate(&["audit", "tail", &log, "--format", "json"]).out;
    for shown in [&text, &json] {
        assert!(shown.chars().all(|c| c == '\n' || (c.is_ascii() && !c.is_control())), "{shown:?}");
    }
    assert!(text.contains(r"a\u{85}\u{9b}2J\u{202e}b\u{2028}\u{200b}\u{e0041}\u{feff}\u{a0}c"), "{text}");
    assert!(json.contains(r"a\u0085\u009b2J\u202eb\u2028\u200b\udb40\udc41\ufeff\u00a0c"), "{json}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["tool"], unseen);
}

#[test]
fn tail_follows_a_log_that_grows_and_is_replaced() {
    let folder = Folder::new();
    let log = log(&folder, 3);
    let mut child = command()
        .args(["audit", "tail", "--follow", "-n", "1", &log])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (send, lines) = mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    let next = || lines.recv_timeout(TIMEOUT).unwrap();
    assert!(next().starts_with("end "));
    append(std::path::Path::new(&log), 2);
    assert!(next().starts_with("policy ") && next().starts_with("allow "));
    assert!(next().starts_with("end ") && next().starts_with("deny "));
    // Half of a line is not shown before its other half.
    let record = std::fs::read_to_string(&log).unwrap().lines().last().unwrap().to_owned();
    let mut file = std::fs::File::options().append(true).open(&log).unwrap();
    file.write_all(&record.as_bytes()[..100]).unwrap();
    assert!(lines.recv_timeout(Duration::from_millis(700)).is_err());
    file.write_all(&[&record.as_bytes()[100..], b"\n"].concat()).unwrap();
    assert!(next().starts_with("deny "));
    // A new file in its place is read from its beginning.
    std::fs::rename(&log, folder.0.join("old.jsonl")).unwrap();
    append(std::path::Path::new(&log), 1);
    assert!(next().starts_with("policy ") && next().starts_with("allow "));
    child.kill().unwrap();
    child.wait().unwrap();
}
