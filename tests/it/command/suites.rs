//! `toolgate test`: cases that pass and fail, coverage, and all formats.

use roxmltree::Document;

use super::{Folder, POLICY, toolgate};

const CASES: &str = "examples/data/code-generator.cases.json";

const FAILING: &str = r#"[
  { "id": "reads", "steps": [{ "call": { "tool": "list_templates" }, "expect": { "decision": "allow" } }] },
  { "id": "a<b>&\"c\"", "description": "says \u0007 no", "steps": [
    { "call": { "tool": "list_templates" } },
    { "call": { "tool": "execute_code" }, "expect": { "decision": "allow" } } ] }
]"#;

#[test]
fn cases_that_pass_print_the_totals() {
    let ran = toolgate(&["test", POLICY, CASES]);
    let totals = "3 cases, 12 calls: 9 of 11 places of the policy exercised\n";
    assert_eq!((ran.code, &*ran.out), (0, totals));
    let ran = toolgate(&["test", POLICY, CASES, "--coverage"]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.starts_with(totals) && ran.out.contains("\n  /tools/generate_code/limits/0: reached by"));
}

/// The policy and the cases are those of the arguments.
#[test]
fn complete_coverage_is_fine() {
    let folder = Folder::new();
    let policy = folder.write("p.json", r#"{ "version": "1", "default": "deny", "tools": { "a": {} } }"#);
    let case = |id: &str, tool: &str, decision: &str| {
        let step = format!(r#"{{ "call": {{ "tool": "{tool}" }}, "expect": {{ "decision": "{decision}" }} }}"#);
        folder.write(&format!("{id}.json"), format!(r#"[{{ "id": "{id}", "steps": [{step}] }}]"#))
    };
    let (one, two) = (case("one", "a", "allow"), case("two", "b", "deny"));
    let ran = toolgate(&["test", &policy, &one, &two, "--coverage"]);
    let expected = "2 cases, 2 calls: 1 of 1 places of the policy exercised\n";
    assert_eq!((ran.code, &*ran.out), (0, expected), "{}", ran.err);
    assert_eq!(toolgate(&["test", &policy, &two, "--coverage"]).code, 1);
    let twice = toolgate(&["test", &policy, &one, &one]);
    assert!(twice.code == 2 && twice.err.contains("two cases have the id `one`"), "{}", twice.err);
}

#[test]
fn a_failing_case_names_its_file_step_and_answer() {
    let folder = Folder::new();
    let cases = folder.write("failing.json", FAILING);
    let ran = toolgate(&["test", POLICY, CASES, &cases, "--coverage"]);
    assert_eq!(ran.code, 1);
    for part in [&format!("failed {cases}: a<b>&"), "step 2", "default_deny", "1 of 5 cases fail\n"] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    let json = toolgate(&["test", POLICY, CASES, &cases, "--format", "json"]).json();
    assert_eq!((json["cases"].as_array().unwrap().len(), &json["coverage"]), (5, &serde_json::Value::Null));
    assert_eq!((&json["cases"][4]["passed"], &json["cases"][4]["failure"]["step"]), (&false.into(), &2.into()));
    let json = toolgate(&["test", POLICY, CASES, "--format", "json"]).json();
    assert_eq!(json["unexercised"].as_array().unwrap().len(), 2);
}

#[test]
fn junit_is_read_by_an_xml_parser() {
    let folder = Folder::new();
    let cases = folder.write("failing.json", FAILING);
    let ran = toolgate(&["test", POLICY, CASES, &cases, "--format", "junit"]);
    assert_eq!(ran.code, 1);
    let report = Document::parse(&ran.out).unwrap();
    let root = report.root_element();
    assert_eq!(
        (root.tag_name().name(), root.attribute("tests"), root.attribute("failures")),
        ("testsuites", Some("5"), Some("1"))
    );
    let suites: Vec<_> = root.children().filter(|node| node.has_tag_name("testsuite")).collect();
    assert_eq!(suites.iter().map(|suite| suite.attribute("name").unwrap()).collect::<Vec<_>>(), [CASES, &cases]);
    let failed: Vec<_> = report.descendants().filter(|node| node.has_tag_name("failure")).collect();
    let [failure] = failed[..] else { panic!("{}", ran.out) };
    assert_eq!(failure.parent().unwrap().attribute("name"), Some("a<b>&\"c\""));
    assert!(failure.attribute("message") == Some("step 2") && failure.text().unwrap().contains("says \u{fffd} no"));
    assert_eq!(report.descendants().filter(|node| node.has_tag_name("testcase")).count(), 5);
}

#[test]
fn unreadable_cases_name_their_file() {
    let folder = Folder::new();
    for (text, message) in [
        ("[", "the cases cannot be read: EOF"),
        ("[]", "the cases cannot be read: there are none"),
        (r#"[{ "id": "x", "stepz": [] }]"#, "unknown field `stepz`"),
    ] {
        let file = folder.write("cases.json", text);
        let ran = toolgate(&["test", POLICY, &file]);
        assert_eq!((ran.code, &*ran.out), (2, ""));
        assert!(ran.err.starts_with(&format!("error: {file}: ")) && ran.err.contains(message), "{}", ran.err);
    }
    let broken = folder.write("policy.json", "{}");
    let ran = toolgate(&["test", &broken, CASES]);
    assert!(ran.code == 2 && ran.err.starts_with(&format!("error: {broken}: invalid policy")), "{}", ran.err);
}
