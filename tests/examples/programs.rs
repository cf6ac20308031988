//! The examples that are programs, with what they print.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Returns the program of an example, which `cargo test` builds too.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is missing: run `cargo test`, or `cargo build --examples` first", program.display());
    program
}

fn run(name: &str, arguments: &[&str], input: &str) -> (Output, String) {
    let mut child = Command::new(program(name))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that reads nothing may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

fn prints(name: &str) -> String {
    let (output, text) = run(name, &[], "");
    assert!(output.status.success(), "{name}: {output:?}");
    text
}

#[test]
fn the_quick_start_allows_limits_and_denies() {
    let text = prints("quickstart");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], "Allowed: 600 usd");
    assert!(lines[1].starts_with("[RATE LIMITED] ") && lines[1].contains("Try again in "), "{text}");
    assert_eq!(lines[2], "[POLICY DENIED] Only USD and EUR.");
}

#[test]
fn the_policy_tests_pass() {
    let text = prints("policy_test");
    let (reached, all) = text.split_once(": ").and_then(|(_, places)| places.split_once(" of ")).unwrap();
    assert!(reached.parse::<u32>().unwrap() > 5 && all.starts_with(&format!("{reached} places")), "{text}");
}

#[test]
fn the_custom_store_passes_the_suite() {
    let text = prints("custom_store");
    assert!(text.lines().filter(|line| line.starts_with("passed: ")).count() > 10, "{text}");
    assert_eq!(text.lines().last(), Some("allow, rate_limited"));
}

#[test]
fn a_person_confirms_calls_one_by_one() {
    let (output, text) = run("approvals", &["ann"], "y\nno\n");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text.matches("The call is made.").count(), 2, "{text}");
    assert_eq!(text.matches("ann refuses the call.").count(), 1, "{text}");
    assert!(text.contains(r#""amount":900"#) && text.contains("needs a person"), "{text}");
}

#[test]
fn the_end_of_the_input_confirms_nothing() {
    let (output, text) = run("approvals", &["ann"], "");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text.matches("The call is made.").count(), 1, "the first call needs nobody: {text}");
}

#[test]
fn a_request_cannot_write_to_the_terminal() {
    let (_, text) = run("approvals", &["ann"], "");
    assert!(text.contains("customer 3"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{text:?}");
}

#[test]
fn the_log_has_decisions_without_arguments() {
    let (output, _) = run("tracing", &[], "");
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    for (level, fields) in [("DEBUG", "\"allow\""), ("INFO", "\"rate_limited\""), ("INFO", "\"default_deny\"")] {
        let found =
            log.lines().any(|line| line.contains(level) && line.contains(fields) && line.contains("request{id="));
        assert!(found, "no event at {level} with {fields}: {log}");
    }
    assert!(!log.contains("kept out"), "{log}");
}

#[test]
fn two_processes_share_a_budget_in_redis() {
    if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "redis-server must be on the PATH");
        eprintln!("skipped: redis-server is not on the PATH");
        return;
    }
    let text = prints("shared_budget");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("together") && line.ends_with(" 1000")), "{text}");
}
