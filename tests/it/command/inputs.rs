//! Files that are missing, folders, large, not UTF-8, or standard input; and closed outputs.

use std::fs::File;
use std::process::Stdio;

use super::{Folder, POLICY, TRACE, command, toolgate, with_input};

/// The commands that read files. `FILE` is the one that cannot be read.
const READERS: [&[&str]; 20] = [
    &["check", "FILE"],
    &["check", POLICY, "--tools", "FILE"],
    &["check", POLICY, "--accept", "FILE"],
    &["decide", "FILE"],
    &["decide", POLICY, "FILE"],
    &["explain", "FILE", "{}"],
    &["explain", POLICY, "FILE"],
    &["test", "FILE", "examples/data/code-generator.cases.json"],
    &["test", POLICY, "FILE"],
    &["diff", "FILE", POLICY],
    &["diff", POLICY, "FILE"],
    &["replay", "FILE", POLICY],
    &["replay", TRACE, "FILE"],
    &["replay", TRACE, POLICY, "--answers", "FILE"],
    &["replay", TRACE, POLICY, "--only", "FILE"],
    &["recommend", "FILE"],
    &["translate", "FILE"],
    &["audit", "verify", "FILE"],
    &["audit", "head", "FILE"],
    &["audit", "tail", "FILE"],
];

fn with_file<'a>(arguments: &[&'a str], file: &'a str) -> Vec<&'a str> {
    arguments.iter().map(|argument| if *argument == "FILE" { file } else { argument }).collect()
}

#[test]
fn missing_files_are_named() {
    for arguments in READERS {
        let ran = toolgate(&with_file(arguments, "/no/such/file"));
        assert_eq!(ran.code, 2, "{arguments:?}");
        assert!(ran.err.starts_with("error: /no/such/file: No such file"), "{arguments:?}: {}", ran.err);
    }
}

#[test]
fn folders_are_named() {
    let folder = Folder::new();
    for arguments in READERS {
        let ran = toolgate(&with_file(arguments, folder.path()));
        assert_eq!((ran.code, &*ran.out), (2, ""), "{arguments:?}");
        let message = format!("error: {}: is a folder: name a file\n", folder.path());
        assert_eq!(ran.err, message, "{arguments:?}");
    }
}

#[test]
fn documents_that_are_not_utf8_say_so() {
    let folder = Folder::new();
    let file = folder.write("binary", b"{\"version\":\"1\",\xff}");
    for arguments in READERS {
        let ran = toolgate(&with_file(arguments, &file));
        // An issue of a policy is a finding of `check`. A log and a trace have unreadable lines.
        let code = match arguments {
            ["check", "FILE"] | ["decide", _, "FILE"] | ["replay", _, _, "--answers", _] | ["replay", "FILE", _] => 1,
            ["audit", ..] => 1,
            _ => 2,
        };
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.err);
        if code == 2 {
            assert!(ran.err.contains(&file) && ran.err.contains("UTF-8"), "{arguments:?}: {}", ran.err);
        }
    }
}

/// A file of 300 MB that takes no space on the disk.
#[test]
fn huge_files_do_not_fill_the_memory() {
    let folder = Folder::new();
    let file = folder.write("huge", "");
    File::options().write(true).open(&file).unwrap().set_len(300_000_000).unwrap();
    let ran = toolgate(&["check", &file]);
    assert!(ran.code == 1 && ran.out.contains("[document_too_large]"), "{ran:?}");
    for arguments in [&["decide", &file][..], &["diff", POLICY, &file]] {
        let ran = toolgate(arguments);
        assert!(ran.code == 2 && ran.err.contains("document_too_large"), "{ran:?}");
    }
    for arguments in [&["recommend", &*file][..], &["check", POLICY, "--tools", &file], &["test", POLICY, &file]] {
        let ran = toolgate(arguments);
        assert_eq!((ran.code, ran.err), (2, format!("error: {file}: is longer than 64 MiB\n")));
    }
}

#[test]
fn standard_input_is_read_once() {
    let policy = std::fs::read(POLICY).unwrap();
    let trace = std::fs::read(TRACE).unwrap();
    assert_eq!(with_input(&["check", "-"], &policy).code, 0);
    assert_eq!(
        with_input(&["check", "-"], b"{}").out.lines().next().unwrap().split(':').next(),
        Some("standard input")
    );
    assert_eq!(with_input(&["decide", "-", TRACE], &policy).code, 0);
    let from_file = toolgate(&["decide", POLICY, TRACE]).out;
    assert_eq!(with_input(&["decide", POLICY], &trace).out, from_file);
    assert_eq!(with_input(&["decide", POLICY, "-"], &trace).out, from_file);
    assert_eq!(with_input(&["explain", POLICY, "-"], br#"{"tool":"run_tests"}"#).code, 0);
    assert_eq!(with_input(&["diff", "-", POLICY], &policy).out, "no decision changes\n\nonly tightens: yes\n");
    assert_eq!(with_input(&["recommend", "-"], b"[]").code, 0);
    assert_eq!(with_input(&["translate", "-"], b"version: '1'").code, 0);
    assert_eq!(with_input(&["replay", "-", POLICY, "--against", POLICY], &trace).code, 0);
    let twice = with_input(&["decide", "-", "-"], &policy);
    assert_eq!((twice.code, &*twice.err), (2, "error: standard input: only one argument can be `-`\n"));
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    for arguments in [
        &["schema"][..],
        &["check", "examples/data/payments.json"],
        &["decide", POLICY, TRACE],
        &["decide", POLICY, TRACE, "--format", "json"],
        &["diff", "examples/data/desk.old.json", "examples/data/desk.new.json"],
        &["replay", TRACE, POLICY, "--against", "examples/data/code-generator.candidate.json", "--each"],
        &["completions", "bash"],
        &["check", "--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command();
        let output = command.args(arguments).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output();
        let output = output.unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*errors), (Some(0), ""), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command().arg("schema").stdout(full).stderr(Stdio::piped()).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && errors.starts_with("error: the output cannot be written: "), "{errors}");
}
