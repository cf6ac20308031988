//! Help, versions, and arguments that are not valid.

use super::toolgate;

const COMMANDS: [&[&str]; 14] = [
    &[],
    &["check"],
    &["decide"],
    &["explain"],
    &["test"],
    &["diff"],
    &["replay"],
    &["recommend"],
    &["schema"],
    &["translate"],
    &["audit"],
    &["audit", "verify"],
    &["audit", "head"],
    &["audit", "tail"],
];

#[test]
fn help_has_exit_codes_and_an_example() {
    for command in COMMANDS.into_iter().chain([&["completions"][..]]) {
        for option in ["-h", "--help"] {
            let ran = toolgate(&[command, &[option]].concat());
            assert_eq!((ran.code, &*ran.err), (0, ""), "{command:?}");
            let codes = ran.out.split_once("\nExit codes").expect("exit codes").1;
            assert!(codes.contains("\n  0  ") && codes.contains("\n  2  "), "{command:?}: {codes}");
            let example = codes.split_once("\nExample:\n  toolgate ").expect("an example").1;
            assert!(example.starts_with(&command.join(" ")), "{command:?}: {example}");
            assert!(ran.out.ends_with('\n'), "{command:?}");
            let long = ran.out.lines().find(|line| line.chars().count() > 120);
            assert_eq!(long, None, "{command:?}");
        }
    }
}

#[test]
fn version_is_that_of_the_crate() {
    for option in ["-V", "--version"] {
        let ran = toolgate(&[option]);
        assert_eq!((ran.code, &*ran.out), (0, concat!("toolgate ", env!("CARGO_PKG_VERSION"), "\n")));
    }
}

#[test]
fn no_command_prints_the_help_and_fails() {
    let ran = toolgate(&[] as &[&str]);
    assert_eq!((ran.code, &*ran.out), (2, ""));
    assert!(ran.err.contains("Usage: toolgate <COMMAND>"), "{}", ran.err);
}

#[test]
fn unknown_arguments_are_named() {
    for command in COMMANDS {
        let ran = toolgate(&[command, &["--colour"]].concat());
        assert_eq!((ran.code, &*ran.out), (2, ""), "{command:?}");
        assert!(ran.err.contains("unexpected argument '--colour'"), "{command:?}: {}", ran.err);
    }
    let ran = toolgate(&["chek"]);
    assert!(ran.code == 2 && ran.err.contains("similar subcommands exist: 'schema', 'check'"), "{}", ran.err);
    let ran = toolgate(&["check", "--format", "xml", "x"]);
    assert!(ran.code == 2 && ran.err.contains("[possible values: text, json, github, sarif]"), "{}", ran.err);
    let ran = toolgate(&["explain", "p", "c", "--at", "noon"]);
    assert!(ran.code == 2 && ran.err.contains("'noon' for '--at <TIME>'"), "{}", ran.err);
    let ran = toolgate(&["diff", "one.json"]);
    assert!(ran.code == 2 && ran.err.contains("<NEW>"), "{}", ran.err);
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = toolgate(&["completions", shell]);
        assert_eq!(ran.code, 0, "{shell}");
        assert!(ran.out.contains("recommend") && ran.out.contains("tail"), "{shell}");
    }
    assert_eq!(toolgate(&["completions", "tcsh"]).code, 2);
}
