//! `toolgate decide`: traces, and lines that cannot be read.

use serde_json::json;

use super::{Folder, POLICY, TRACE, toolgate, with_input};

struct Decided {
    code: i32,
    answers: Vec<String>,
    err: String,
}

/// Decides a trace under a policy of these bytes, with answers in JSON.
fn run(policy: &[u8], trace: &[u8]) -> Decided {
    let folder = Folder::new();
    let file = folder.write("policy.json", policy);
    let ran = with_input(&["decide", &file, "--format", "json"], trace);
    let answers = ran.out.lines().map(str::to_owned).collect();
    Decided { code: ran.code, answers, err: ran.err.replace(&file, "POLICY") }
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
    assert_eq!(ran.err, "");
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
        assert!(ran.err.contains(&format!("error[{code}]: ")), "{code}: {}", ran.err);
        assert!(ran.err.len() < 1000, "{code}: {}", ran.err);
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
    assert!(ran.err.contains("no/such/file.json") && ran.err.contains("in /x"), "{}", ran.err);
}

#[test]
fn text_lists_the_calls_and_ends_with_the_summary() {
    let ran = toolgate(&["decide", POLICY, TRACE]);
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let (calls, summary) = ran.out.split_once("\n\n").unwrap();
    let rows: Vec<Vec<_>> = calls.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 10, "a row for each call");
    assert_eq!(rows[0], ["allow", "list_templates", ""]);
    let limited = "The test machine runs twice a minute for each grant. Retry after 42 s. [/tools/run_tests/limits/0]";
    assert_eq!(rows[7], ["rate_limited", r#"run_tests {"package":"ring"}"#, limited]);
    assert!(summary.starts_with("10 calls in 11 steps\n      5  allow\n"), "{summary}");
}

#[test]
fn text_shows_other_steps_and_unreadable_lines() {
    let trace = [
        r#"{"call":{"tool":"t"},"id":"a"}"#,
        r#"{"release":"a"}"#,
        r#"{"release":"b"}"#,
        r#"{"tools_list":{"tools":[{"name":"t"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"m"}}"#,
        "nonsense \u{1b}[2J",
        r#"{"call":{"tool":"\u001b[2Jx\u202e"}}"#,
    ];
    let folder = Folder::new();
    let ran = with_input(&["decide", &folder.write("p", ALLOW)], trace.join("\n").as_bytes());
    let rows: Vec<_> = ran.out.lines().take(7).collect();
    let expected = [
        "allow\tt\t",
        "ok\trelease a\t",
        "error\trelease b\tunknown_call",
        "ok\ttools_list\tt",
        "allow\tm\t",
        "error\t-\tunreadable",
        r"allow\u{1b}[2Jx\u{202e}",
    ];
    assert_eq!(rows[..6], expected[..6]);
    assert_eq!(rows[6].replace('\t', ""), expected[6]);
    assert!(ran.code == 1 && ran.out.contains("1  lines could not be read"), "{}", ran.out);
}

/// The command on all samples, beside the tests of the library on them.
#[test]
fn samples_are_decided() {
    for (name, calls) in [("read-only", 50), ("code-generator", 9), ("search-budget", 45), ("payments", 190)] {
        let files = ["json", "jsonl"].map(|ending| format!("examples/data/{name}.{ending}"));
        let ran = toolgate(&["decide", &files[0], &files[1], "--format", "json"]);
        // The trace of payments has two lines that cannot be read.
        assert_eq!(ran.code, i32::from(name == "payments"), "{name}");
        let decided = ran.json_lines().iter().filter(|answer| answer["decision"] != json!(null)).count();
        assert!(decided > calls, "{name}: {decided}");
    }
}
