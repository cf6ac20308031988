//! `toolgate check`: issues, findings, accepted findings, and all formats.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Folder, POLICY, toolgate};

const PAYMENTS: &str = "examples/data/payments.json";
const TOOLS: &str = "examples/data/payments.tools.json";

/// A policy with one finding of each severity: an error, a warning and a note.
const ODD: &str = r#"{ "version": "1", "default": "deny", "tools": {
  "a": { "deny_if": [{ "conditions": [
    { "path": "args.n", "op": "gt", "value": 5 }, { "path": "args.n", "op": "lt", "value": 1 }] }] },
  "b": { "deny_if": [{ "conditions": [{ "path": "args.n", "op": "gt", "value": 5 }] }] },
  "c": { "deny_if": [{ "conditions": [{ "path": "args.s", "op": "eq", "value": "x", "absent": "match" }] }] }
} }"#;

const BROKEN: &str =
    "{\n  \"version\": \"1\",\n  \"defualt\": \"deny\",\n  \"tools\": { \"t\": { \"denyif\": [] } }\n}";

#[test]
fn every_issue_is_a_line_in_a_pipe() {
    let folder = Folder::new();
    let file = folder.write("p.json", BROKEN);
    let ran = toolgate(&["check", &file]);
    assert_eq!((ran.code, &*ran.err), (1, ""));
    assert_eq!(
        ran.out.replace(&file, "POLICY"),
        "POLICY:1:1: error[missing_key]: : a policy needs the key `default` \
         (help: the outcome for a tool that no entry of `tools` matches)\n\
         POLICY:3:3: error[unknown_key]: /defualt: a policy has no key `defualt` (help: did you mean `default`?)\n\
         POLICY:4:21: error[unknown_key]: /tools/t/denyif: an entry has no key `denyif` \
         (help: did you mean `deny_if`?)\n\
         3 errors, 0 warnings, 0 notes, 0 accepted\n"
    );
}

#[test]
fn severities_count_as_the_options_say() {
    let folder = Folder::new();
    let tools = folder.write("tools.json", r#"[{ "name": "b", "inputSchema": {} }, { "name": "z" }]"#);
    let warning = folder.write("w.json", r#"{ "version": "1", "default": "allow" }"#);
    let note = folder.write("n.json", r#"{ "version": "1", "default": "deny", "tools": { "b": {} } }"#);
    let odd = folder.write("odd.json", ODD);
    for (arguments, code) in [
        (vec![&*odd], 1),
        (vec![&*warning], 0),
        (vec![&*warning, "--deny", "warnings"], 1),
        (vec![&*note, "--tools", &tools], 0),
        (vec![&*note, "--tools", &tools, "--deny", "warnings"], 0),
        (vec![&*note, "--tools", &tools, "--deny", "notes"], 1),
        (vec![POLICY], 0),
        (vec![PAYMENTS, "--tools", TOOLS], 0),
        (vec![POLICY, &*odd, &*warning], 1),
    ] {
        let ran = toolgate(&[&["check"][..], &arguments].concat());
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.out);
    }
    let ran = toolgate(&["check", &odd]);
    for line in [":3:51: error[never_holds]: /tools/a/deny_if/0", "(call: ", "1 errors, 1 warnings, 1 notes"] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
}

#[test]
fn a_list_that_has_no_tools_is_refused() {
    let folder = Folder::new();
    for list in ["{\"foo\":1}", ODD, "7"] {
        let file = folder.write("list.json", list);
        let ran = toolgate(&["check", PAYMENTS, "--tools", &file]);
        if list == ODD {
            // The entries of a policy are not a list.
            assert_eq!(ran.code, 2, "{}", ran.out);
        }
        assert!(ran.code == 2 && ran.err.contains("no list of tools"), "{list}: {}", ran.err);
    }
    let ran = toolgate(&["check", PAYMENTS, "--tools", &folder.write("list.json", "[")]);
    assert!(ran.code == 2 && ran.err.contains("is not valid JSON: EOF"), "{}", ran.err);
}

#[test]
fn accepted_findings_do_not_count() {
    let folder = Folder::new();
    let odd = folder.write("odd.json", ODD);
    let accept = folder.write(
        "accepted.txt",
        "# reasons are comments\nnever_holds /tools/a/deny_if/0/conditions/1\n\n\
         denial_left_out   /tools/b/deny_if/0/conditions/0\n",
    );
    let ran = toolgate(&["check", &odd, "--accept", &accept, "--deny", "warnings"]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(ran.out.ends_with("0 errors, 0 warnings, 1 notes, 2 accepted\n"), "{}", ran.out);
    let ran = toolgate(&["check", &odd, "--accept", &accept, "--format", "json"]).json();
    assert_eq!(ran["policies"][0]["accepted"].as_array().unwrap().len(), 2);
    assert_eq!(ran["policies"][0]["findings"].as_array().unwrap().len(), 1);
}

#[test]
fn accepted_findings_that_are_gone_are_reported() {
    let folder = Folder::new();
    let accept = folder.write("accepted.txt", "all_denied\n\nnever_holds /tools/x/require/0\n");
    let check = |options: &[&str]| toolgate(&[&["check", POLICY, "--accept", &accept][..], options].concat());
    let ran = check(&[]);
    assert_eq!(ran.code, 0);
    for line in [":1: warning: `all_denied`: this accepted", ":3: warning: `never_holds /tools/x/require/0`: "] {
        assert!(ran.out.contains(line), "{}", ran.out);
    }
    assert_eq!(check(&["--deny", "warnings"]).code, 1);
    assert_eq!(check(&["--format", "json"]).json()["no_longer_found"][1]["line"], 3);
    assert_eq!(check(&["--format", "github"]).out.lines().count(), 2);
    assert!(check(&["--format", "sarif"]).out.contains("accepted_finding_not_found"));
    for (text, message) in [
        ("Never_holds /tools", "1: expected a code and a pointer"),
        ("never_holds tools/x", "1: expected a code and a pointer"),
        ("a /x\na /x", "2: this finding is accepted twice"),
    ] {
        let ran = toolgate(&["check", POLICY, "--accept", &folder.write("accepted.txt", text)]);
        assert!(ran.code == 2 && ran.err.contains(message), "{text}: {}", ran.err);
    }
    let ran = toolgate(&["check", POLICY, PAYMENTS, "--accept", &accept]);
    assert!(ran.code == 2 && ran.err.contains("--accept takes one POLICY"), "{}", ran.err);
}

#[test]
fn json_has_the_findings_of_the_lint() {
    let folder = Folder::new();
    let (odd, broken) = (folder.write("odd.json", ODD), folder.write("broken.json", BROKEN));
    let ran = toolgate(&["check", &odd, &broken, "--format", "json"]);
    assert_eq!(ran.code, 1);
    let policies = ran.json()["policies"].clone();
    let lint: Value = serde_json::to_value(toolgate::analysis::lint::check(ODD).unwrap()).unwrap();
    assert_eq!(policies[0]["findings"], lint["findings"]);
    assert_eq!((&policies[0]["file"], &policies[0]["complete"]), (&json!(odd), &json!(true)));
    assert_eq!(policies[1]["issues"][1]["code"], "unknown_key");
}

#[test]
fn github_annotations_are_escaped() {
    let folder = Folder::new();
    let file = folder.write("a,b: 100%.json", "{ \"version\": \"1\", \"default\": \"deny\", \"x%\": 1 }");
    let ran = toolgate(&["check", &file, "--format", "github"]);
    assert_eq!(ran.code, 1);
    let [line] = ran.out.lines().collect::<Vec<_>>()[..] else { panic!("{}", ran.out) };
    let escaped = file.replace('%', "%25").replace(':', "%3A").replace(',', "%2C");
    let begin =
        format!("::error file={escaped},line=1,col=38,title=unknown_key::a policy has no key `x%25`%0Ain /x%25");
    assert!(line.starts_with(&begin), "{line}\n{begin}");
    let ran = toolgate(&["check", PAYMENTS, "--tools", TOOLS, "--format", "github"]);
    assert!(ran.out.lines().all(|line| line.starts_with("::warning ") || line.starts_with("::notice ")));
}

/// The part of SARIF 2.1.0 that the command writes. Other members are errors.
mod sarif {
    use super::Deserialize;

    macro_rules! objects {
        ($($name:ident { $($(#[$meta:meta])* $field:ident: $type:ty,)* })*) => {$(
            #[derive(Debug, Deserialize)]
            #[serde(deny_unknown_fields, rename_all = "camelCase")]
            pub(super) struct $name { $($(#[$meta])* pub(super) $field: $type,)* }
        )*};
    }

    objects! {
        Log { version: String, runs: Vec<Run>, #[serde(rename = "$schema")] schema: String, }
        Run { tool: Tool, column_kind: String, results: Vec<Result>, }
        Tool { driver: Driver, }
        Driver { name: String, version: String, rules: Vec<Rule>, }
        Rule { id: String, }
        Result {
            rule_id: String, level: String, message: Message, locations: Vec<Location>,
            #[serde(default)] suppressions: Vec<Suppression>,
        }
        Message { text: String, }
        Location { physical_location: Physical, #[serde(default)] logical_locations: Vec<Logical>, }
        Physical { artifact_location: Artifact, region: Option<Region>, }
        Artifact { uri: String, }
        Region { start_line: usize, start_column: Option<usize>, }
        Logical { fully_qualified_name: String, }
        Suppression { kind: String, }
    }
}

#[test]
fn sarif_is_read_by_its_own_types() {
    let folder = Folder::new();
    let odd = folder.write("odd file.json", ODD);
    let accept = folder.write("accepted.txt", "never_holds /tools/a/deny_if/0/conditions/1\n");
    let ran = toolgate(&["check", &odd, "--accept", &accept, "--format", "sarif"]);
    let log: sarif::Log = serde_json::from_str(&ran.out).unwrap();
    assert!(log.version == "2.1.0" && log.schema.ends_with("sarif-2.1.0.json"));
    let [run] = &log.runs[..] else { panic!("{log:?}") };
    let driver = &run.tool.driver;
    assert_eq!((&*driver.name, &*driver.version), ("toolgate", env!("CARGO_PKG_VERSION")));
    assert_eq!(run.column_kind, "unicodeCodePoints");
    assert_eq!(run.results.len(), 3);
    for result in &run.results {
        assert!(driver.rules.iter().any(|rule| rule.id == result.rule_id));
        assert!(["error", "warning", "note"].contains(&&*result.level) && result.message.text.contains("\nHelp: "));
        let [location] = &result.locations[..] else { panic!("{result:?}") };
        let physical = &location.physical_location;
        assert!(physical.artifact_location.uri.ends_with("odd%20file.json"));
        let region = physical.region.as_ref().unwrap();
        assert!(region.start_line > 1 && region.start_column > Some(1));
        assert!(location.logical_locations[0].fully_qualified_name.starts_with("/tools/"));
        let is_accepted = result.suppressions.iter().any(|suppression| suppression.kind == "external");
        assert_eq!(is_accepted, result.rule_id == "never_holds");
    }
}
