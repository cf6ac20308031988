//! Policies of Intercept: the vectors of its engine where they are available, and the cases of this
//! project.

mod engine;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use toolgate::mcp::{self, Message};
use toolgate::{Code, Decision, Gate, ManualClock, Permit, Policy, PolicyError, ToolCall, intercept};

use crate::yaml;
use toolgate::trace::FaultStore;

/// Recorded behaviour of the engine of Intercept.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    #[serde(rename = "meta")]
    _meta: Value,
    vectors: Vec<Vector>,
    invalid: Vec<Invalid>,
    list_filter: Vec<ListFilter>,
    #[serde(rename = "batch")]
    _batch: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    id: String,
    policy: Value,
    steps: Vec<Step>,
    #[serde(rename = "source", default)]
    _source: String,
    #[serde(rename = "note", default)]
    _note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at: Option<String>,
    tool: Option<String>,
    args: Option<Value>,
    expect: Option<String>,
    message: Option<String>,
    rule: Option<String>,
    then: Option<String>,
    store: Option<String>,
    #[serde(default)]
    counters: BTreeMap<String, i64>,
    reload: Option<Value>,
    hold: Option<String>,
    respond: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalid {
    id: String,
    policy: Value,
    exact: Option<usize>,
    #[serde(default)]
    parse_error: bool,
    #[serde(rename = "source", default)]
    _source: String,
    #[serde(rename = "errors", default)]
    _errors: Value,
    #[serde(rename = "note", default)]
    _note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListFilter {
    id: String,
    hide: Vec<String>,
    response: Value,
    expect: Value,
    #[serde(rename = "source", default)]
    _source: String,
    #[serde(rename = "note", default)]
    _note: String,
}

/// An intended difference from a vector. This crate is stricter in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stricter {
    /// The document is refused.
    Refused,
    /// An allowed call is stopped.
    Stops,
    /// A counter is higher.
    Counts,
}

/// The prefix of the id of a vector, its difference, and the number of the difference in the
/// documentation of `intercept`.
const DIFFERENCES: [(&str, Stricter, u8); 9] = [
    ("op-eq-100000-vs-string", Stricter::Stops, 1),
    ("op-in-number-matches-string-item", Stricter::Stops, 1),
    ("op-eq-null-vs-null", Stricter::Refused, 2),
    ("increment-negative-accepted", Stricter::Refused, 6),
    ("increment-from-negative-refunds-quota", Stricter::Stops, 6),
    ("cross-tool-counter-read", Stricter::Refused, 8),
    ("rollback-after-window-rollover-hits-new-window", Stricter::Counts, 9),
    ("rollback-floors-at-zero", Stricter::Counts, 9),
    ("window-clock-backwards-resets", Stricter::Stops, 10),
];

fn vectors() -> Option<Vectors> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/intercept/vectors.json");
    if !file.exists() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", file.display());
        println!("skipped: {} is missing", file.display());
        return None;
    }
    let text = std::fs::read_to_string(&file).unwrap();
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}

/// Returns the first stricter result, or `None` if all agree. Fails if a result is laxer or
/// otherwise different.
fn compare(vector: &Vector) -> Result<Option<Stricter>, String> {
    let Ok(policy) = intercept::read(&vector.policy) else { return Ok(Some(Stricter::Refused)) };
    let mut translated = intercept::translate(&vector.policy).unwrap();
    assert_eq!(
        Policy::try_from(&translated).as_ref(),
        Ok(&policy),
        "{}: the translated policy is the parsed one",
        vector.id
    );
    let clock = ManualClock::new("2026-01-15T10:30:00Z".parse().unwrap());
    let store = Arc::new(FaultStore::default());
    let gate = Gate::builder().policy(policy).store(Arc::clone(&store)).clock(clock.clone()).build();
    let mut held: HashMap<String, Permit> = HashMap::new();
    for (index, step) in vector.steps.iter().enumerate() {
        if let Some(at) = &step.at {
            clock.set(at.parse().unwrap());
        }
        if let Some(policy) = &step.reload {
            translated = intercept::translate(policy).unwrap();
            gate.replace_policy(intercept::read(policy).unwrap());
        }
        let mut permit = step.respond.as_ref().map(|held_as| held.remove(held_as).unwrap());
        if let Some(tool) = &step.tool {
            store.set_down(match step.store.as_deref() {
                None => false,
                Some("down-closed") => true,
                // The engine allows such calls. Here the host chooses the counters for which it
                // wants that.
                Some(other) => return Err(format!("step {index}: the store is {other}")),
            });
            let decision = gate.check(&ToolCall::new(tool, step.args.as_ref()));
            store.set_down(false);
            let allowed_there = step.expect.as_deref() == Some("allow");
            match (allowed_there, decision.is_allowed()) {
                (true, false) => return Ok(Some(Stricter::Stops)),
                (false, true) => return Err(format!("step {index}: denied there and allowed here")),
                (false, false) => same_refusal(step, &decision, &translated)
                    .map_err(|difference| format!("step {index}: {difference}\n  {decision:?}"))?,
                (true, true) => {}
            }
            if let Decision::Allow(allowed) = decision {
                permit = Some(allowed);
            }
        }
        match (permit, step.then.as_deref(), &step.hold) {
            (Some(permit), None, Some(held_as)) => drop(held.insert(held_as.clone(), permit)),
            (Some(permit), Some("rollback"), None) => permit.release(),
            (_, None | Some("tool_error"), None) => {}
            (_, then, hold) => return Err(format!("step {index}: {then:?} {hold:?}")),
        }
        let usage = gate.usage(ToolCall::new("any", &json!({}))).unwrap();
        for (counter, there) in &step.counters {
            let here = usage.iter().find(|state| state.counter() == counter).map(|state| state.used().to_string());
            let here: i64 = here.as_deref().unwrap_or("0").parse().unwrap();
            match here.cmp(there) {
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Greater => return Ok(Some(Stricter::Counts)),
                std::cmp::Ordering::Less => return Err(format!("step {index}: {counter} is {here}, there {there}")),
            }
        }
    }
    Ok(None)
}

/// Returns an error unless the refusal has the same message and comes from the rule of the same
/// name.
fn same_refusal(step: &Step, decision: &Decision, translated: &Value) -> Result<(), String> {
    // The message for a failed store is that of the gate.
    let by_gate = decision.code() == Some(Code::StoreUnavailable);
    if let Some(message) = step.message.as_deref().filter(|_| !by_gate)
        && decision.message() != Some(message)
    {
        return Err(format!("the message is not {message:?}"));
    }
    let Some(name) = step.rule.as_deref().filter(|name| !name.is_empty()) else { return Ok(()) };
    let rule = decision.rule().ok_or("no rule")?;
    let found = translated.pointer(rule);
    let traced = match decision.code() {
        Some(Code::Hidden | Code::DefaultDeny) => rule == name,
        Some(Code::ActionDeny) => {
            let entry = translated.pointer(rule.trim_end_matches("/action"));
            entry.and_then(|entry| entry["description"].as_str()) == Some(&format!("Rule {name:?}."))
        }
        // A limit has only the name of its counter; its message is that of the rule.
        Some(Code::Limit | Code::StoreUnavailable) => found.is_some_and(|limit| limit["counter"].is_string()),
        _ => found.is_some_and(|rule| rule["name"] == name),
    };
    if traced { Ok(()) } else { Err(format!("the rule is not {name}, but {rule}: {found:?}")) }
}

#[test]
fn vectors_agree_or_differ_as_intended() {
    let Some(Vectors { vectors, .. }) = vectors() else { return };
    assert!(!vectors.is_empty());
    let (mut failures, mut seen, mut agreed) = (Vec::new(), BTreeSet::new(), 0);
    for vector in &vectors {
        let known = DIFFERENCES.iter().find(|(id, ..)| vector.id.starts_with(id));
        match (compare(vector), known) {
            (Ok(None), None) => agreed += 1,
            (Ok(Some(found)), Some((id, how, _))) if found == *how => drop(seen.insert(*id)),
            (found, known) => failures.push(format!("{}: {found:?}, but should be {known:?}", vector.id)),
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    println!("{agreed} vectors agree, {} differ as intended", seen.len());
}

#[test]
fn invalid_intercept_policies_are_refused() {
    let Some(Vectors { invalid, .. }) = vectors() else { return };
    assert!(!invalid.is_empty());
    for Invalid { id, policy, exact, parse_error, .. } in invalid {
        let Err(error) = intercept::read(&policy) else { panic!("{id}: accepted") };
        assert_eq!(intercept::translate(&policy).unwrap_err(), error, "{id}");
        if let (Some(exact), false) = (exact, parse_error) {
            assert!(error.issues().len() >= exact, "{id}: at least as many issues as the engine reports\n{error}");
        }
    }
}

#[test]
fn tool_lists_are_filtered_as_by_the_engine() {
    let Some(Vectors { list_filter, .. }) = vectors() else { return };
    for ListFilter { id, hide, mut response, mut expect, .. } in list_filter {
        let policy = intercept::read(&json!({ "version": "1", "hide": hide })).unwrap();
        if let Some(result) = response.get_mut("result") {
            mcp::filter_tools_list(Some(&policy), result);
        }
        if id == "list-other-result-fields-dropped" {
            // The only difference: other members of an answer are forwarded unchanged.
            expect["result"]["_meta"] = json!({ "k": 1 });
        }
        assert_eq!(response, expect, "{id}");
    }
}

/// A case of this project: a document with its issues, or with its translation and decisions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    description: String,
    document: Value,
    #[serde(default)]
    issues: Vec<Issue>,
    translated: Option<Value>,
    #[serde(default)]
    calls: Vec<Call>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Issue {
    code: String,
    pointer: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    tool: String,
    args: Value,
    /// The decision, or the code of a refusal.
    expect: String,
    message: Option<String>,
}

fn run_case(Case { document, issues, translated, calls, .. }: &Case) -> Result<(), String> {
    let read = intercept::read(document);
    let error = read.as_ref().err();
    let found: Vec<_> = error.into_iter().flat_map(PolicyError::issues).collect();
    assert!(
        found.iter().all(|issue| issue.line().is_none() && issue.column().is_none()),
        "a document without a text has no lines"
    );
    let same = |(found, want): (&&toolgate::Issue, &Issue)| {
        found.code().as_str() == want.code
            && found.pointer() == want.pointer
            && document.pointer(&want.pointer).is_some()
    };
    if found.len() != issues.len() || !found.iter().zip(issues).all(same) {
        return Err(format!("want {issues:#?}\n{}", error.map_or("accepted".to_owned(), ToString::to_string)));
    }
    let Ok(policy) = read else { return Ok(()) };
    let written = intercept::translate(document).map_err(|error| error.to_string())?;
    if translated.as_ref().is_some_and(|translated| *translated != written) {
        return Err(format!("is translated to {written:#}"));
    }
    let clock = ManualClock::new("2026-01-15T10:30:00Z".parse().unwrap());
    let gate = Gate::builder().policy(policy).clock(clock).build();
    for Call { tool, args, expect, message } in calls {
        let decision = gate.check(&ToolCall::new(tool, args));
        let found = decision.code().map_or("allow", Code::as_str);
        if found != expect || (message.is_some() && decision.message() != message.as_deref()) {
            return Err(format!("{tool} {args}\n{decision:?}\n{written:#}"));
        }
    }
    Ok(())
}

#[test]
fn own_cases_agree() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/intercept");
    let (mut cases, mut failures) = (0, String::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        let read: Vec<Case> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for case in &read {
            cases += 1;
            if let Err(failure) = run_case(case) {
                writeln!(failures, "\n{} ({})\n{failure}", case.id, case.description).unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(cases > 20, "{cases} cases");
}

#[test]
fn malformed_calls_are_denied() {
    let policy = intercept::read(&json!({ "version": "1" })).unwrap();
    let gate = Gate::new(policy);
    for arguments in [json!([1]), json!("x"), json!(1)] {
        assert_eq!(gate.check(&ToolCall::new("t", &arguments)).code(), Some(Code::MalformedCall));
    }
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":[1]}}"#;
    assert!(Message::read(text).is_err());
}

/// A document of any shape gives a policy or issues.
#[test]
fn documents_of_any_shape_give_a_policy_or_issues() {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let condition = |value: Value| {
        json!({ "version": "1", "tools": { "t": { "rules": [
            { "name": "r", "conditions": [{ "path": "args.x", "op": "eq", "value": value }] },
        ] } } })
    };
    for document in [
        json!(null),
        json!([]),
        json!("x"),
        condition(deep),
        condition(json!({ "a": null })),
        condition(json!(1e300)),
        json!({ "version": "1", "tools": { "t": { "rules": vec![1; 20_000] } } }),
        json!({ "version": "1", "hide": vec!["*"; 20_000] }),
    ] {
        let error = intercept::read(&document).unwrap_err();
        assert!(!error.issues().is_empty());
        assert!(error.issues().iter().all(|issue| document.pointer(issue.pointer()).is_some()));
    }
    let many: Map<String, Value> = (0..100_001).map(|index| (format!("t{index}"), json!({ "rules": [] }))).collect();
    let error = intercept::read(&json!({ "version": "1", "tools": many })).unwrap_err();
    assert_eq!((error.issues()[0].code().as_str(), error.issues()[0].pointer()), ("too_many", "/tools"));
}

/// The command refuses invalid YAML, and YAML that two parsers could read differently.
#[test]
fn invalid_and_ambiguous_yaml_is_refused() {
    let deep = [b"a: ".as_slice(), &b"[".repeat(100_000)].concat();
    let nested = [b"[".repeat(70), b"]".repeat(70)].concat();
    let huge = b" ".repeat(9 << 20);
    let bomb = (1..20).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
        format!("{text}a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","))
    });
    for (document, message) in [
        (b"a: [".as_slice(), "line 1, column "),
        (b"version: '1'\nversion: '1'", "duplicate mapping key"),
        (b"tools: { t: {}, 't': {} }", "duplicate mapping key"),
        (b"a: .nan", "line 1, column 4: `.nan` is a non-finite"),
        (b"a: 1e400", "non-finite"),
        (b"? [a, b]\n: c", "a key must be a text"),
        (b"version: '1'\n---\nversion: '1'", "a second document"),
        (b"<<: { default: allow }", "merge keys are not read"),
        (b"\xff", "not UTF-8"),
        (bomb.as_bytes(), "line 1, column 9: anchors are not read"),
        (&deep, "recursion limit exceeded"),
        (&nested, "deeper than 64 levels"),
        (&huge, "exceeds the bound"),
        (b"a: !!str 5", "tags are not read"),
        (b"~: 1", "a key must be a text"),
        (b"a: 08", "leading zero"),
        (b"a: 99999999999999999999", "too large a number"),
    ] {
        let error = yaml::read(document).unwrap_err();
        assert!(error.contains(message), "{message}: {error}");
        assert!(error.len() < 2000, "{error}");
    }
}

/// An unquoted scalar has the value that Intercept reads, or is an error.
#[test]
fn unquoted_yaml_scalars_are_read_as_by_intercept() {
    for (scalar, value) in [
        ("yes", Some(json!("yes"))),
        ("true", Some(json!(true))),
        ("0777", Some(json!(511))),
        ("1_000", Some(json!(1000))),
        ("a_0_", Some(json!("a_0_"))),
        ("1:30", Some(json!("1:30"))),
        ("'1'", Some(json!("1"))),
        ("2026-01-15", None),
        ("2026-01-15T10:30:00Z", None),
        ("~", None),
    ] {
        let text = format!(
            "version: 1\ntools:\n  t:\n    rules:\n      \
             - {{ name: r, conditions: [{{ path: args.x, op: eq, value: {scalar} }}] }}"
        );
        let translated = intercept::translate(&yaml::read(text.as_bytes()).unwrap());
        let found =
            translated.ok().and_then(|document| document.pointer("/tools/t/require/0/conditions/0/value").cloned());
        assert_eq!(found, value, "{scalar}");
    }
}

/// One reader takes them for numbers, another for texts.
#[test]
fn odd_underscores_in_numbers_are_refused() {
    for scalar in ["0_", "1_", "1_.", "1._5", "0_7", "1__0", "0x_1", "-1_"] {
        let error = yaml::read(format!("x: {scalar}").as_bytes()).unwrap_err();
        assert!(error.to_string().contains("quote it"), "{scalar}: {error}");
        assert!(yaml::read(format!("x: '{scalar}'").as_bytes()).is_ok());
    }
    for (scalar, value) in [("1_000", json!(1000)), ("1_0.5", json!(10.5)), ("a_", json!("a_")), ("2_x", json!("2_x"))]
    {
        assert_eq!(yaml::read(format!("x: {scalar}").as_bytes()).unwrap()["x"], value);
    }
}

mod yaml_properties {
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_saphyr::options;
    use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};

    use crate::yaml;

    /// Parts of YAML documents.
    const DOCUMENT: &str =
        "([ab]: |- |[ \\n\\[\\]{},:#]|[-+]?[0-9._xoe]{1,4}|yes|true|null|~|'x'|\"y\"|\\|\\n|<<){0,14}";

    /// Returns what another reader makes of a document.
    fn other(text: &str) -> Result<Value, String> {
        let options = options! {
            duplicate_keys: DuplicateKeyPolicy::Error,
            merge_keys: MergeKeyPolicy::Error,
            strict_booleans: true,
            legacy_octal_numbers: true,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
    }

    proptest! {
        /// Two readers give a document the same value, or one of them refuses it.
        #[test]
        fn two_readers_of_yaml_never_disagree(text in DOCUMENT) {
            if let (Ok(ours), Ok(theirs)) = (yaml::read(text.as_bytes()), other(&text)) {
                prop_assert_eq!(ours, theirs, "{}", text);
            }
        }
    }
}
