//! The example programs on valid and invalid input, most of all `decide`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Run {
    code: i32,
    answers: Vec<String>,
    complaints: String,
}

/// Returns the program of an example, which `cargo test` builds too.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is missing: run `cargo test`, or `cargo build --examples` first", program.display());
    program
}

/// Runs the example with a policy file of these bytes and a trace on standard input.
fn run(policy: &[u8], trace: &[u8]) -> Run {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("toolgate-{}-{}.json", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, policy).unwrap();
    let mut child = Command::new(program("decide"))
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let trace = trace.to_vec();
    // A program that refuses its policy does not read the trace.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&trace)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    std::fs::remove_file(&file).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run {
        code: output.status.code().unwrap(),
        answers: text(output.stdout).lines().map(str::to_owned).collect(),
        complaints: text(output.stderr).replace(file.to_str().unwrap(), "POLICY"),
    }
}

const ALLOW: &[u8] = br#"{ "version": "1", "default": "allow" }"#;

#[test]
fn a_trace_is_answered_line_by_line() {
    let ran = run(ALLOW, b"{\"call\":{\"tool\":\"t\"}}\n\n{\"call\":{\"tool\":\"u\"},\"id\":\"second\"}");
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.answers,
        [
            r##"{"id":"#1","decision":"allow","code":null,"rule":null,"message":null,"retry_after":null,"limits":[]}"##,
            concat!(
                r#"{"id":"second","decision":"allow","code":null,"rule":null,"#,
                r#""message":null,"retry_after":null,"limits":[]}"#
            ),
        ]
    );
    assert!(ran.complaints.contains("2 calls in 2 steps"), "{}", ran.complaints);
}

#[test]
fn an_unreadable_line_is_answered_in_its_place() {
    let mut trace = b"nonsense\n{\"call\":{\"tool\":\"t\"}}\n\xff\xfe\n[]\n".to_vec();
    trace.extend(b"[".repeat(100_000));
    trace.extend(b"\n{\"call\":{\"tool\":\"t\",\"arguments\":[1]}}\n{\"call\":{\"tool\":\"t\"},\"end\":\"x\"}\n");
    trace.extend(b"{\"call\":{\"tool\":\"t\"},\"at\":1e300}\n{\"call\":{\"tool\":\"last\"}}\n");
    // A list is not accepted in place of a call or a caller.
    trace.extend(
        b"{\"call\":[\"t\",null,null,null,null,null,null,null]}\n{\"caller\":[null,\"g\",null,null,null,null]}\n",
    );
    let ran = run(ALLOW, &trace);
    let errors: Vec<_> = ran.answers.iter().map(|answer| answer.contains("\"unreadable\"")).collect();
    assert_eq!(errors, [true, false, true, true, true, false, true, true, false, true, true]);
    assert!(ran.answers[5].contains("malformed_call"), "arguments that are not an object: {}", ran.answers[5]);
    assert_eq!(ran.code, 1);
}

#[test]
fn an_overlong_line_is_skipped() {
    let mut trace = vec![b'x'; 40 << 20];
    trace.extend(b"\n{\"call\":{\"tool\":\"t\"}}\n");
    let ran = run(ALLOW, &trace);
    assert_eq!((ran.code, ran.answers.len()), (1, 2));
    assert!(ran.answers[1].contains("\"allow\""));
}

/// Each issue of an invalid policy is printed on its own line.
#[test]
fn an_invalid_policy_is_refused_with_every_issue() {
    let ran = run(
        b"{\n  \"version\": \"1\",\n  \"defualt\": \"deny\",\n  \"tools\": { \"t\": { \"denyif\": [] } }\n}",
        b"{}",
    );
    assert_eq!((ran.code, ran.answers.len()), (2, 0));
    assert_eq!(
        ran.complaints,
        "POLICY:1:1: missing_key: : a policy needs the key `default` \
         (the outcome for a tool that no entry of `tools` matches)\n\
         POLICY:3:3: unknown_key: /defualt: a policy has no key `defualt` (did you mean `default`?)\n\
         POLICY:4:21: unknown_key: /tools/t/denyif: an entry has no key `denyif` (did you mean `deny_if`?)\n"
    );
}

#[test]
fn invalid_policy_files_are_reported() {
    let nested = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    let comparison = |op: &str, value: &str| {
        format!(
            r#"{{"version":"1","default":"deny","tools":{{"t":{{"deny_if":[{{"conditions":[{}]}}]}}}}}}"#,
            format_args!(r#"{{"path":"args.x","op":"{op}","value":{value}}}"#)
        )
    };
    let in_value = comparison("eq", &"[".repeat(100_000));
    let regex = format!("(?:{}){{900}}", "(?:a{900}){900}|".repeat(250));
    let regex = comparison("regex", &format!("\"{regex}\""));
    let large = [ALLOW, &b" ".repeat(10 << 20)].concat();
    for (policy, code) in [
        (b"".as_slice(), "syntax"),
        (b"{\"version\":\"1\",\xff}", "not_utf8"),
        (b"\xef\xbb\xbf{}", "byte_order_mark"),
        (&large, "document_too_large"),
        (&nested, "too_deep"),
        (in_value.as_bytes(), "too_deep"),
        (regex.as_bytes(), "regex_too_large"),
        (b"{\"version\":\"1\",\"default\":\"deny\"} {}", "syntax"),
        (b"[]", "wrong_type"),
    ] {
        let ran = run(policy, b"");
        assert_eq!(ran.code, 2);
        assert!(ran.complaints.contains(&format!(": {code}: ")), "{code}: {}", ran.complaints);
        assert!(ran.complaints.len() < 1000, "{code}: {}", ran.complaints);
    }
}

#[test]
fn a_policy_step_reads_a_file_or_reports_an_error() {
    let trace = b"{\"policy\":\"no/such/file.json\"}\n{\"policy\":{\"version\":\"1\",\"default\":\"deny\",\"x\":1}}\n\
          {\"call\":{\"tool\":\"t\"}}\n";
    let ran = run(ALLOW, trace);
    assert_eq!(ran.code, 0);
    assert!(ran.answers[0].contains("policy_invalid") && ran.answers[1].contains("policy_invalid"));
    assert!(ran.answers[2].contains("\"allow\""), "the former policy stays in force");
    assert!(
        ran.complaints.contains("no/such/file.json") && ran.complaints.contains("unknown_key: /x"),
        "{}",
        ran.complaints
    );
}

#[test]
fn an_intercept_policy_is_translated_and_printed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    let decide = |arguments: &[&str]| {
        let output =
            Command::new(program("decide")).current_dir(&folder).args(arguments).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let yaml = "helpdesk.intercept.yaml";
    let (code, printed, _) = decide(&["--intercept", yaml, "--print"]);
    assert_eq!(code, 0);
    let policy: toolgate::Policy = printed.parse().unwrap();
    assert!(policy.lists("reply") && !policy.lists("delete_account"));

    let (code, answers, summary) = decide(&["--intercept", yaml, "helpdesk.intercept.jsonl"]);
    assert_eq!((code, answers.lines().count()), (0, 20), "{summary}");

    let (code, _, complaint) = decide(&["--intercept", "code-generator.json"]);
    assert_eq!(code, 2);
    assert!(complaint.contains("code-generator.json: unknown_key: /tools/"), "{complaint}");
    for arguments in [&["--intercept"][..], &["--print", yaml], &["--intercept", yaml, "a", "b"]] {
        let (code, _, usage) = decide(arguments);
        assert!(code == 2 && usage.starts_with("usage: "), "{usage}");
    }
}

/// The exit code of a missing file must differ from 1, which means findings.
#[test]
fn every_example_names_the_file_that_it_cannot_read() {
    for (name, files) in [("decide", 2), ("lint", 1), ("explain", 2), ("shadow", 3), ("diff", 2), ("replay", 2)] {
        let ran = Command::new(program(name)).args(vec!["/no/such/file"; files]).output().unwrap();
        let message = String::from_utf8(ran.stderr).unwrap();
        assert!(message.starts_with("/no/such/file: No such file"), "{name}: {message}");
        assert_eq!(ran.status.code(), Some(2), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn gateways_list_their_options() {
    for name in ["mcp_stdio_gateway", "mcp_http_gateway"] {
        let ran = Command::new(program(name)).arg("--help").output().unwrap();
        let message = String::from_utf8(ran.stdout).unwrap();
        assert!(ran.status.success() && message.starts_with(&format!("usage: {name} ")), "{message}");
    }
}
