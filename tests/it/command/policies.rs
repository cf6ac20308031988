//! `toolgate diff`, `recommend`, `schema` and `translate`.

use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;
use toolgate::Policy;

use super::{Folder, POLICY, toolgate, with_input};

const OLD: &str = "examples/data/desk.old.json";
const NEW: &str = "examples/data/desk.new.json";

#[test]
fn differences_are_findings() {
    let ran = toolgate(&["diff", OLD, NEW]);
    assert_eq!((ran.code, &*ran.err), (1, ""));
    assert!(ran.out.starts_with("3 wider, 3 narrower, 0 undecided\n\nwider     create_charge\n  old "), "{}", ran.out);
    assert!(ran.out.ends_with("\nonly tightens: no\n"));
    let equal = toolgate(&["diff", OLD, OLD]);
    assert_eq!((equal.code, &*equal.out), (0, "no decision changes\n\nonly tightens: yes\n"));
    let json = toolgate(&["diff", OLD, NEW, "--format", "json"]);
    assert_eq!((json.code, json.json()["comparison"]["changes"].as_array().unwrap().len()), (1, 6));
}

#[test]
fn a_change_that_only_tightens_is_fine_on_request() {
    let folder = Folder::new();
    let policy = |tools: &str| format!(r#"{{ "version": "1", "default": "deny", "tools": {{ {tools} }} }}"#);
    let wide = folder.write("wide.json", policy(r#""a": {}, "b": {}"#));
    let narrow = folder.write("narrow.json", policy(r#""a": {}"#));
    assert_eq!(toolgate(&["diff", &wide, &narrow]).code, 1);
    let tightens = toolgate(&["diff", &wide, &narrow, "--only-tightens"]);
    assert!(tightens.code == 0 && tightens.out.ends_with("only tightens: yes\n"), "{}", tightens.out);
    assert_eq!(toolgate(&["diff", &narrow, &wide, "--only-tightens"]).code, 1);
    let json = toolgate(&["diff", &wide, &narrow, "--format", "json"]).json();
    assert_eq!(json["only_tightens"], "yes");
}

#[test]
fn a_recommended_policy_is_valid() {
    let ran = toolgate(&["recommend", "examples/data/tools.json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let policy: Policy = ran.out.parse().unwrap();
    let tools = std::fs::read_to_string("examples/data/tools.json").unwrap();
    let listed = toolgate::recommend::classify(&serde_json::from_str(&tools).unwrap()).unwrap();
    assert_eq!(ran.err.lines().count(), listed.tools().len(), "a line for each tool");
    let json = toolgate(&["recommend", "examples/data/tools.json", "--format", "json"]);
    // The order of entries is part of a policy.
    let members: HashMap<String, Box<RawValue>> = serde_json::from_str(&json.out).unwrap();
    assert_eq!(members["policy"].get().parse::<Policy>().unwrap(), policy);
    assert_eq!(json.json()["tools"].as_array().unwrap().len(), listed.tools().len());
}

#[test]
fn problems_of_a_list_of_tools_are_findings() {
    let ran = with_input(&["recommend", "-"], br#"[{ "name": "a" }, { "name": "a" }, {}]"#);
    assert!(ran.code == 1 && ran.out.parse::<Policy>().is_ok(), "{ran:?}");
    assert!(ran.err.contains("standard input: tool 1, \"a\": its name appears twice"), "{}", ran.err);
    let json = with_input(&["recommend", "-", "--format", "json"], br#"[{}]"#);
    assert_eq!((json.code, &json.json()["findings"][0]["kind"]), (1, &Value::from("no_name")));
    let none = with_input(&["recommend", "-"], b"{}");
    assert!(none.code == 2 && none.err.contains("standard input: no list of tools"), "{}", none.err);
}

#[test]
fn the_schema_is_that_of_the_samples() {
    let ran = toolgate(&["schema"]);
    assert_eq!(ran.code, 0);
    assert_eq!(ran.out, std::fs::read_to_string("examples/data/policy.schema.json").unwrap());
}

#[test]
fn a_policy_of_intercept_is_translated() {
    let yaml = "examples/data/helpdesk.intercept.yaml";
    let ran = toolgate(&["translate", yaml]);
    assert_eq!((ran.code, &*ran.err), (0, ""));
    let policy: Policy = ran.out.parse().unwrap();
    assert!(policy.lists("reply") && !policy.lists("delete_account"));
    // The translation is a policy of the other commands.
    let arguments = ["decide", "-", "examples/data/helpdesk.intercept.jsonl", "--format", "json"];
    let answers = with_input(&arguments, ran.out.as_bytes());
    assert_eq!((answers.code, answers.out.lines().count()), (0, 20), "{}", answers.err);

    let other = toolgate(&["translate", POLICY]);
    assert_eq!((other.code, &*other.out), (2, ""));
    assert!(other.err.contains("code-generator.json: invalid policy") && other.err.contains("in /tools/"));
    let invalid = with_input(&["translate", "-"], b"a: [");
    assert!(invalid.code == 2 && invalid.err.starts_with("error: standard input: line "), "{}", invalid.err);
}
