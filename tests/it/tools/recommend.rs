//! Risk classes of tools, with the cases in `tests/data/recommend/`, and decisions of the written
//! policy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use toolgate::analysis::lint;
use toolgate::recommend::{self, FindingKind, RecommendError, Recommendation, RiskClass, ToolClass};
use toolgate::{Code, Decision, Gate, ManualClock, Timestamp, ToolCall};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    description: String,
    tool: Value,
    class: String,
    severity: Option<String>,
    confidence: Option<String>,
    /// All evidence, in order.
    words: Option<Vec<String>>,
}

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/recommend").join(file)
}

fn words(tool: &ToolClass) -> Vec<String> {
    tool.evidence().iter().map(|piece| format!("{}: {}", piece.source(), piece.word())).collect()
}

fn classify(tools: &[Value]) -> Recommendation {
    recommend::classify(&json!({ "tools": tools })).unwrap()
}

fn one(tool: &Value) -> ToolClass {
    let recommendation = classify(std::slice::from_ref(tool));
    assert_eq!(recommendation.tools().len(), 1, "{tool}");
    recommendation.tools()[0].clone()
}

fn run(file: &str) {
    let text = std::fs::read_to_string(data(file)).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    for Case { description, tool, class, severity, confidence, words: want } in &cases {
        let found = one(tool);
        let differs = |want: &Option<String>, is: &str| want.as_ref().is_some_and(|want| want != is);
        if found.class().as_str() != class
            || differs(severity, found.severity().as_str())
            || differs(confidence, found.confidence().as_str())
            || want.as_ref().is_some_and(|want| *want != words(&found))
        {
            let (class, severity, confidence) = (found.class(), found.severity(), found.confidence());
            wrong.push(format!("{description}: {tool}\n  is {class} {severity} {confidence} {:?}", words(&found)));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn names_give_the_class() {
    run("names.json");
}

#[test]
fn descriptions_give_the_class() {
    run("descriptions.json");
}

#[test]
fn arguments_give_the_class() {
    run("arguments.json");
}

#[test]
fn annotations_raise_the_class() {
    run("annotations.json");
}

/// Tools of real servers, each classified by a person. The lists are not part of the repository.
#[test]
fn tools_of_real_servers_are_classed_as_by_a_person() {
    let Some(folder) = crate::language::vectors::shared("data/tools-list") else { return };
    let (mut server, mut tools) = (String::new(), 0);
    let mut expected: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for line in std::fs::read_to_string(data("servers.txt")).unwrap().lines() {
        if let Some(name) = line.strip_prefix('[') {
            server = name.trim_end_matches(']').to_owned();
        } else if let Some((class, names)) = line.split_once(": ") {
            let of_server = expected.entry(server.clone()).or_default();
            of_server.extend(names.split(' ').map(|name| (name.to_owned(), class.to_owned())));
        }
    }
    for (server, expected) in expected {
        let text = std::fs::read_to_string(folder.join(format!("{server}.json"))).unwrap();
        let list = serde_json::from_str(&text).unwrap();
        let recommendation = recommend::classify(&list).unwrap();
        assert_eq!(recommendation.findings(), [], "{server}");
        let report = lint::check_against(&recommendation.write_policy().unwrap(), &list).unwrap();
        assert!(report.findings().is_empty(), "{server}: {report:?}");
        let found = recommendation.tools().iter();
        let found: BTreeMap<_, _> =
            found.map(|tool| (tool.name().to_owned(), tool.class().as_str().to_owned())).collect();
        assert_eq!(found, expected, "{server}");
        tools += found.len();
        assert_restrictions(&recommendation);
    }
    assert!(tools > 130, "{tools}");
}

/// Asserts that the gate restricts every tool as its class requires.
fn assert_restrictions(recommendation: &Recommendation) {
    let text = recommendation.write_policy().unwrap();
    let policy = recommendation.policy().unwrap_or_else(|error| panic!("{error}\n{text}"));
    let arguments = json!({});
    for tool in recommendation.tools() {
        let gate = Gate::builder().policy(policy.clone()).clock(ManualClock::new(Timestamp::UNIX_EPOCH)).build();
        let anonymous = ToolCall::new(tool.name(), &arguments);
        let call = anonymous.grant("g");
        let hidden = !policy.lists(tool.name());
        let passes = match tool.class() {
            RiskClass::Read => {
                assert!(gate.check(&anonymous).is_allowed());
                100
            }
            RiskClass::Write => 30,
            RiskClass::Execute => 10,
            _ => 0,
        };
        for _ in 0..passes {
            assert!(gate.check(&call).is_allowed(), "{tool:?}\n{text}");
        }
        let decision = gate.check(&call);
        let code = match &decision {
            Decision::Allow(_) => None,
            Decision::Deny(denial) => Some(denial.code()),
            Decision::RateLimit(limited) => Some(limited.code()),
            Decision::RequireApproval(request) => Some(request.code()),
        };
        let want = match tool.class() {
            RiskClass::Read => None,
            RiskClass::Write | RiskClass::Execute => Some(Code::Limit),
            RiskClass::Financial => Some(Code::Approval),
            RiskClass::Other | RiskClass::Destructive => Some(Code::Hidden),
            class => panic!("{class}"),
        };
        assert_eq!(code, want, "{tool:?}\n{text}");
        assert_eq!(hidden, want == Some(Code::Hidden), "{tool:?}");
        if matches!(tool.class(), RiskClass::Write | RiskClass::Execute) {
            assert!(!gate.check(&anonymous).is_allowed(), "a call without a grant cannot be counted");
        }
    }
    let unknown = "a tool that is in no list";
    assert!(!Gate::new(policy).check(&ToolCall::new(unknown, &arguments).grant("g")).is_allowed());
}

fn word() -> impl Strategy<Value = String> {
    let known = vec![
        "get",
        "list",
        "search",
        "status",
        "create",
        "update",
        "post",
        "run",
        "execute",
        "deploy",
        "pay",
        "refund",
        "invoice",
        "order",
        "delete",
        "drop",
        "reset",
        "and",
        "all",
        "env",
        "users",
        "foo",
        "sql",
        "команда",
        "*",
    ];
    prop_oneof![8 => select(known).prop_map(str::to_owned), 1 => any::<String>(), 1 => "[a-zA-Z0-9_.*/~\"\\\\-]{0,8}"]
}

fn name() -> impl Strategy<Value = String> {
    let separator = select(&["_", "-", ".", "/", "__", " ", ""][..]);
    (proptest::collection::vec(word(), 0..5), separator).prop_map(|(words, separator)| words.join(separator))
}

fn prose() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![3 => word(), 1 => Just(". ".to_owned()), 1 => Just("(".to_owned())], 0..12)
        .prop_map(|words| words.join(" "))
}

fn hint() -> impl Strategy<Value = Value> {
    select(vec![json!(true), json!(false), json!(null), json!("true"), json!(0), json!([])])
}

fn annotations() -> impl Strategy<Value = Value> {
    let keys = vec!["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint", "title"];
    let object = (subsequence(keys, 0..=5), proptest::collection::vec(hint(), 5), prose());
    let object = object.prop_map(|(keys, hints, title)| {
        let of = |(key, hint): (&str, Value)| (key.to_owned(), if key == "title" { json!(title) } else { hint });
        Value::Object(keys.into_iter().zip(hints).map(of).collect())
    });
    prop_oneof![9 => object, 1 => hint()]
}

fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({ "type": "string" })),
        Just(json!({ "$ref": "#" })),
        prose().prop_map(|text| json!({ "description": text })),
        proptest::collection::vec(word(), 0..4).prop_map(|words| json!({ "enum": words })),
        hint(),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof![
            word(),
            select(&["action", "amount", "command", "properties", "$ref"][..]).prop_map(Into::into)
        ];
        let properties = proptest::collection::btree_map(key, inner.clone(), 0..4);
        prop_oneof![
            properties.prop_map(|properties| json!({ "type": "object", "properties": properties })),
            inner.clone().prop_map(|inner| json!({ "items": inner })),
            proptest::collection::vec(inner, 0..3).prop_map(|inner| json!({ "anyOf": inner, "properties": 1 })),
        ]
    })
}

fn tool() -> impl Strategy<Value = Value> {
    let optional = |value: BoxedStrategy<Value>| proptest::option::of(value);
    let (description, schema) = (prose().prop_map(Value::from).boxed(), schema().boxed());
    let parts = (name(), optional(description), optional(schema), optional(annotations().boxed()));
    parts.prop_map(|(name, description, schema, annotations)| {
        let members = [("description", description), ("inputSchema", schema), ("annotations", annotations)];
        let members = members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Value::Object(members.chain([("name".to_owned(), json!(name))]).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_tool_is_restricted_by_its_class(tools in proptest::collection::vec(tool(), 0..12)) {
        let recommendation = classify(&tools);
        assert_restrictions(&recommendation);
        // A tool that no entry can name is denied.
        let policy = recommendation.policy().unwrap();
        let named: BTreeSet<_> = recommendation.tools().iter().map(ToolClass::name).collect();
        for tool in &tools {
            let name = tool["name"].as_str().unwrap();
            prop_assert!(named.contains(name) || !policy.lists(name), "{:?}", name);
        }
    }

    #[test]
    fn annotations_never_lower_a_class(tool in tool(), annotations in annotations(), name in "[a-z]{1,4}_[a-z]{1,4}") {
        let mut bare = tool;
        bare.as_object_mut().unwrap().remove("annotations");
        if bare["name"].as_str().is_none_or(|name| name.is_empty() || name.contains('*') || name.len() > 256) {
            bare["name"] = json!(name);
        }
        let mut annotated = bare.clone();
        annotated["annotations"] = annotations;
        let (bare, annotated) = (one(&bare), one(&annotated));
        prop_assert!(annotated.class() >= bare.class(), "{:?}\n{:?}", bare, annotated);
    }

    #[test]
    fn the_policy_does_not_depend_on_the_order(tools in proptest::collection::vec(tool(), 0..8)) {
        let reversed: Vec<_> = tools.iter().rev().cloned().collect();
        let (one, other) = (classify(&tools), classify(&reversed));
        let classes = |of: &Recommendation| -> BTreeMap<String, RiskClass> {
            of.tools().iter().map(|tool| (tool.name().to_owned(), tool.class())).collect()
        };
        prop_assert_eq!(classes(&one), classes(&other));
        let names: BTreeSet<_> = tools.iter().map(|tool| tool["name"].as_str()).collect();
        if names.len() == tools.len() {
            prop_assert_eq!(one.write_policy(), other.write_policy());
        }
    }
}

#[test]
fn a_tool_list_is_found_in_every_form() {
    let tools = json!([{ "name": "get_x" }]);
    let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": tools } });
    for list in [tools.clone(), json!({ "tools": tools }), answer] {
        assert_eq!(recommend::classify(&list).unwrap().tools()[0].name(), "get_x", "{list}");
    }
    for list in [
        json!(null),
        json!("tools"),
        json!({}),
        json!({ "tools": {} }),
        json!({ "tools": null, "result": { "tools": [] } }),
        json!({ "result": [] }),
        json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32601, "message": "no" } }),
    ] {
        assert_eq!(recommend::classify(&list), Err(RecommendError::NoList), "{list}");
    }
}

#[test]
fn an_empty_list_gives_a_policy_that_allows_nothing() {
    let recommendation = classify(&[]);
    let policy = recommendation.policy().unwrap();
    assert_eq!(policy.entries(), 0);
    assert!(!policy.lists("get_x"));
}

#[test]
fn findings_name_the_faults_of_a_list() {
    let long = "g".repeat(257);
    let tools = [
        json!({ "description": "no name" }),
        json!({ "name": "" }),
        json!({ "name": 7 }),
        json!("get_x"),
        json!(null),
        json!({ "name": long }),
        json!({ "name": "get_*" }),
        json!({ "name": "*" }),
        json!({ "name": "get_x", "inputSchema": 1 }),
        json!({ "name": "twice", "description": "Gets." }),
        json!({ "name": "twice", "description": "Deletes." }),
        json!({ "name": "twice", "description": "Gets." }),
    ];
    let recommendation = recommend::classify(&json!({ "tools": tools, "nextCursor": "2" })).unwrap();
    let found: Vec<_> =
        recommendation.findings().iter().map(|finding| (finding.index(), finding.kind().as_str())).collect();
    assert_eq!(
        found,
        [
            (Some(0), "no_name"),
            (Some(1), "no_name"),
            (Some(2), "no_name"),
            (Some(3), "no_name"),
            (Some(4), "no_name"),
            (Some(5), "name_too_long"),
            (Some(6), "name_is_pattern"),
            (Some(7), "name_is_pattern"),
            (Some(8), "malformed_definition"),
            (Some(10), "duplicate_name"),
            (Some(11), "duplicate_name"),
            (None, "more_tools"),
        ]
    );
    let shown: Vec<_> = recommendation.findings().iter().map(ToString::to_string).collect();
    assert!(shown[5].len() < 200 && shown[5].contains("256 bytes"), "{}", shown[5]);
    assert!(shown[9].contains("\"twice\""), "{}", shown[9]);
    let classes: Vec<_> = recommendation.tools().iter().map(|tool| (tool.name(), tool.class())).collect();
    assert_eq!(classes, [("get_x", RiskClass::Other), ("twice", RiskClass::Destructive)]);
    assert_restrictions(&recommendation);
    let policy = recommendation.policy().unwrap();
    for name in [&*long, "get_*", "get_y", "*"] {
        assert!(!policy.lists(name), "{name}");
    }
    let last = json!({ "tools": [], "nextCursor": null });
    assert_eq!(recommend::classify(&last).unwrap().findings(), []);
}

#[test]
fn unusual_names_have_their_own_entries() {
    let names =
        ["get a", "get\"a", "get\\a", "get/a~b", "get\n", "get?a", "get[a]", "get.", "$get", "#get", "get-{a,b}"];
    let tools: Vec<_> = names.iter().map(|name| json!({ "name": name })).collect();
    let recommendation = classify(&tools);
    assert_restrictions(&recommendation);
    assert_eq!(recommendation.count(RiskClass::Read), names.len());
    let hidden = classify(&[json!({ "name": "get\u{202e}x" }), json!({ "name": "größe" }), json!({ "name": "get😀" })]);
    assert_restrictions(&hidden);
    let text = hidden.write_policy().unwrap();
    // Invisible characters are escaped.
    assert!(text.contains(r#""get\u202ex""#) && text.contains(r#""größe""#) && text.contains(r#""get\ud83d\ude00""#));
}

#[test]
fn texts_of_a_server_are_not_in_the_policy() {
    let tool = json!({
        "name": "get_x", "title": "INJECTED", "description": "Get x. INJECTED.",
        "inputSchema": { "properties": { "INJECTED": { "description": "INJECTED" } } }
    });
    assert!(!classify(&[tool]).write_policy().unwrap().contains("INJECTED"));
}

fn many(count: usize) -> Vec<Value> {
    let verbs = ["get", "create", "run", "pay", "delete", "orchestrate"];
    let description = "Does this and that, and then something else. ".repeat(4);
    let tool = |number: usize| json!({ "name": format!("{}_{number}", verbs[number % 6]), "description": description });
    (0..count).map(tool).collect()
}

#[test]
fn ten_thousand_tools_take_bounded_time() {
    let tools = many(10_000);
    let begun = Instant::now();
    let recommendation = classify(&tools);
    let policy = recommendation.policy().unwrap();
    let took = begun.elapsed();
    assert_eq!(policy.entries(), 10_000);
    println!("{took:?}, {} bytes", recommendation.write_policy().unwrap().len());
    // 1 s to 2 s without optimisation; the bound is for a busy machine.
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn a_list_beyond_the_bounds_of_a_policy_is_an_error() {
    let tools: Vec<_> = (0..100_001).map(|number| json!({ "name": format!("get_{number}") })).collect();
    let error = recommend::classify(&Value::from(tools.clone())).unwrap_err();
    assert_eq!(error, RecommendError::TooManyTools(100_001));
    assert!(error.to_string().contains("100000"), "{error}");
    let recommendation = recommend::classify(&Value::from(tools[1..].to_vec())).unwrap();
    let Err(RecommendError::PolicyTooLarge(bytes)) = recommendation.policy() else { panic!("too large") };
    assert!(bytes > 8 << 20);
}

#[test]
fn an_extreme_schema_takes_bounded_time() {
    let mut deep = json!({ "properties": { "sql": {} } });
    for _ in 0..100 {
        deep = json!({ "properties": { "a": deep } });
    }
    assert_eq!(one(&json!({ "name": "get_x", "inputSchema": deep })).class(), RiskClass::Execute);
    let wide: Map<String, Value> = (0..100_000).map(|number| (format!("p{number}"), json!({ "$ref": "#" }))).collect();
    let found = one(&json!({ "name": "get_x", "description": "Gets.", "inputSchema": { "properties": wide } }));
    assert_eq!(found.class(), RiskClass::Read);
    let long = one(&json!({ "name": "get_x", "description": "delete, ".repeat(100_000) }));
    assert_eq!((long.class(), long.evidence().len()), (RiskClass::Destructive, 2));
}

#[test]
fn classes_and_findings_have_names() {
    let names: Vec<_> = RiskClass::ALL.iter().map(|class| class.as_str()).collect();
    assert_eq!(names, ["read", "write", "execute", "financial", "other", "destructive"]);
    assert!(RiskClass::ALL.is_sorted());
    assert_eq!(FindingKind::DuplicateName.as_str(), "duplicate_name");
}
