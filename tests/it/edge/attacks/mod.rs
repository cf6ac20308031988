//! The attack table: every known class of bypass of a policy engine for tool calls, each attack
//! with its correct answer.
//!
//! `tests/data/attacks/` has a file for each class. An attack is a policy with
//! [steps](toolgate::trace) that try to bypass it; or a document that must be refused; or the
//! messages of a connection through a gateway. `why` says in one line what goes wrong with another
//! answer, and `source` where that is publicly known. The modules below have what data cannot
//! express: the cost of an attack, racing threads, failing stores, keys and pins.

mod bounds;
mod outages;
mod races;
mod replays;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use toolgate::mcp::{FromClient, FromServer, Message, Routed, Session, filter_tools_list};
use toolgate::testing::Suite;
use toolgate::{Gate, Permit, Policy, Timestamp, ToolCall};

/// The name of every class, which is that of its file.
const CLASSES: [&str; 25] = [
    "absence",
    "amounts",
    "bombs",
    "case_variant_keys",
    "changed_arguments",
    "coercion",
    "connections",
    "counter_keys",
    "duplicate_keys",
    "identities",
    "not_promised",
    "numbers",
    "parser_differences",
    "paths",
    "policy_documents",
    "precedence",
    "regexes",
    "reloads",
    "replayed_approvals",
    "rounds",
    "store_outages",
    "tool_definitions",
    "unicode_names",
    "urls",
    "windows",
];

/// The attacks of one class.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    class: String,
    about: String,
    source: Option<String>,
    /// The policy of attacks without their own.
    policy: Option<Box<RawValue>>,
    attacks: Vec<Attack>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attack {
    title: String,
    why: String,
    source: Option<String>,
    policy: Option<Box<RawValue>>,
    #[serde(default)]
    steps: Vec<Box<RawValue>>,
    document: Option<String>,
    issues: Option<Box<RawValue>>,
    #[serde(default)]
    connection: Vec<Line>,
}

/// A message of a connection, and the expected result.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// `{STATE}` in it is the state with the last request for input.
    client: Option<String>,
    /// Bytes that are not UTF-8, in hexadecimal digits.
    client_hex: Option<String>,
    server: Option<String>,
    becomes: Becomes,
    /// The forwarded text.
    text: Option<String>,
    /// The names of the tools in a forwarded list.
    tools: Option<Vec<String>>,
}

#[derive(Deserialize, Debug, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Becomes {
    Forwarded,
    Answered,
    Dropped,
}

fn tables() -> Vec<Table> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/attacks");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |file: &Path| -> Table {
        let text = std::fs::read_to_string(file).unwrap();
        let table: Table = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(file.file_stem().and_then(|stem| stem.to_str()), Some(&*table.class), "each class has its own file");
        table
    };
    files.iter().map(|file| read(file)).collect()
}

impl Table {
    fn policy<'t>(&'t self, attack: &'t Attack) -> Option<&'t RawValue> {
        attack.policy.as_deref().or(self.policy.as_deref())
    }

    /// Returns the attacks that `toolgate::testing` can run, in its format.
    fn cases(&self) -> Vec<String> {
        let case = |attack: &Attack| {
            let (id, description) = (Value::from(&*attack.title), Value::from(&*attack.why));
            let head = format!(r#"{{"id":{id},"description":{description}"#);
            match (&attack.document, &attack.issues) {
                (Some(document), Some(issues)) => {
                    Some(format!(r#"{head},"document":{},"issues":{}}}"#, Value::from(&**document), issues.get()))
                }
                _ if attack.steps.is_empty() => None,
                _ => {
                    let steps: Vec<_> = attack.steps.iter().map(|step| step.get()).collect();
                    let policy = self.policy(attack).map_or("null", RawValue::get);
                    Some(format!(r#"{head},"policy":{policy},"steps":[{}]}}"#, steps.join(",")))
                }
            }
        };
        self.attacks.iter().filter_map(case).collect()
    }
}

#[test]
fn every_attack_gets_its_expected_answer() {
    let mut wrong = Vec::new();
    for table in tables() {
        let cases = table.cases();
        if cases.is_empty() {
            continue;
        }
        let suite = Suite::of(None).cases(&format!("[{}]", cases.join(",")));
        match suite.and_then(|suite| suite.run()) {
            Ok(run) => println!("{}: {} attacks", table.class, run.cases()),
            Err(error) => wrong.push(format!("{}: {error}", table.class)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A gateway without a transport.
struct Gateway {
    gate: Gate,
    session: Session,
    /// The state with the last request for input.
    state: String,
}

impl Gateway {
    fn new(policy: &RawValue) -> Self {
        Self { gate: Gate::new(policy.get().parse().unwrap()), session: Session::new(), state: String::new() }
    }

    /// Returns the result for a message, and the forwarded text.
    fn client(&mut self, message: &[u8]) -> (Becomes, Option<String>) {
        match self.session.from_client(message) {
            FromClient::Forward { message, .. } => (Becomes::Forwarded, Some(message)),
            FromClient::Answer { answer: None, .. } => (Becomes::Dropped, None),
            FromClient::Answer { answer: Some(_), .. } => (Becomes::Answered, None),
            FromClient::Decide(call) => {
                let decided_call = call.clone();
                let decision = self.gate.check(&call.tool_call().grant("g"));
                match self.session.decided(call, decision) {
                    Routed::Answer { .. } => (Becomes::Answered, None),
                    Routed::Forward { message, .. } => {
                        let sent = Message::read(&message);
                        let Ok(Message::Call(sent)) = sent else { panic!("{sent:?}") };
                        assert_eq!(sent.to_json(), decided_call.to_json(), "the decided call is forwarded");
                        (Becomes::Forwarded, Some(message))
                    }
                }
            }
        }
    }

    fn server(&mut self, message: &str) -> (Becomes, Option<String>) {
        let policy = self.gate.policy();
        match self.session.from_server(message.as_bytes(), |result| filter_tools_list(policy.as_ref(), result)) {
            FromServer::Drop { .. } => (Becomes::Dropped, None),
            FromServer::Forward { message, ended, .. } => {
                if let Some(ended) = ended {
                    ended.conclude().unwrap();
                }
                let state = serde_json::from_str::<Value>(&message).unwrap();
                if let Some(state) = state.pointer("/result/requestState").and_then(Value::as_str) {
                    self.state = state.to_owned();
                }
                (Becomes::Forwarded, Some(message.into_owned()))
            }
        }
    }
}

fn bytes(digits: &str) -> Vec<u8> {
    assert_eq!(digits.len() % 2, 0);
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_connection_gets_its_expected_results() {
    let mut run = 0;
    for table in tables() {
        for attack in table.attacks.iter().filter(|attack| !attack.connection.is_empty()) {
            let mut gateway = Gateway::new(table.policy(attack).unwrap());
            for (number, line) in attack.connection.iter().enumerate() {
                let at = format!("{}: {}, message {}", table.class, attack.title, number + 1);
                let (becomes, sent) = match (&line.client, &line.client_hex, &line.server) {
                    (Some(text), None, None) => {
                        let text = text.replace("{STATE}", &gateway.state);
                        gateway.client(text.as_bytes())
                    }
                    (None, Some(digits), None) => gateway.client(&bytes(digits)),
                    (None, None, Some(text)) => gateway.server(text),
                    _ => panic!("{at}: one of `client`, `client_hex`, `server`"),
                };
                assert_eq!(becomes, line.becomes, "{at}: {sent:?}");
                assert!(line.text.is_none() || line.text == sent, "{at}: {sent:?}");
                if let Some(want) = &line.tools {
                    let sent: Value = serde_json::from_str(&sent.unwrap()).unwrap();
                    let names: Vec<_> = sent["result"]["tools"].as_array().into_iter().flatten().collect();
                    assert_eq!(
                        names.iter().map(|tool| &tool["name"]).collect::<Vec<_>>(),
                        want.iter().collect::<Vec<_>>(),
                        "{at}"
                    );
                }
            }
            run += 1;
        }
    }
    assert!(run > 10, "{run}");
}

/// A trace, a single message and a session parse a text in the same way.
#[test]
fn every_entry_point_parses_alike() {
    let mut read = 0;
    for table in tables() {
        for step in table.attacks.iter().flat_map(|attack| &attack.steps) {
            let Ok(Value::Object(step)) = serde_json::from_str::<Value>(step.get()) else { continue };
            let Some(text) = step.get("message").and_then(Value::as_str) else { continue };
            let mut session = Session::<Permit>::new();
            let through = session.from_client(text.as_bytes());
            match (Message::read(text), &through, &step["expect"]["code"]) {
                (Ok(Message::Call(call)), FromClient::Decide(decided), code) => {
                    assert_eq!(call, *decided);
                    assert_ne!(code, "malformed_call");
                }
                (Ok(Message::Other(_)), FromClient::Forward { .. }, _) => {}
                (Err(_), FromClient::Answer { denial, .. }, code) => {
                    assert_eq!((denial.code().as_str(), code), ("malformed_call", &json!("malformed_call")), "{text}");
                }
                (message, through, _) => panic!("{text}\n  {message:?}\n  {through:?}"),
            }
            read += 1;
        }
    }
    assert!(read > 150, "{read}");
}

#[test]
fn the_table_covers_every_class() {
    let tables = tables();
    let found: BTreeSet<_> = tables.iter().map(|table| &*table.class).collect();
    assert_eq!(found, BTreeSet::from(CLASSES));
    let (mut titles, mut total) = (HashSet::new(), 0);
    for table in &tables {
        assert!(is_a_sentence(&table.about) && table.attacks.len() >= 6, "{}", table.class);
        for Attack { title, why, source, steps, document, issues, connection, .. } in &table.attacks {
            assert!(titles.insert(title), "two attacks are called {title:?}");
            assert!(!title.is_empty() && !title.ends_with('.') && is_a_sentence(why), "{}: {title}", table.class);
            let kinds = [!steps.is_empty(), document.is_some(), !connection.is_empty()];
            assert_eq!(kinds.iter().filter(|is| **is).count(), 1, "{title}: steps, a document or a connection");
            assert_eq!(document.is_some(), issues.is_some(), "{title}");
            for source in [source, &table.source].into_iter().flatten() {
                assert!(is_a_source(source), "{title}: {source}");
            }
            total += 1;
        }
    }
    assert!(total >= 200, "{total}");
}

/// An engine that allows everything would pass an attack without a refusal.
#[test]
fn every_attack_has_a_refusal() {
    for table in tables().iter().filter(|table| table.class != "not_promised") {
        for attack in &table.attacks {
            let mut refused = attack.document.is_some()
                || attack.connection.iter().any(|line| line.becomes != Becomes::Forwarded || line.tools.is_some());
            for step in &attack.steps {
                let step: Value = serde_json::from_str(step.get()).unwrap();
                let expect = step.get("expect").unwrap_or_else(|| panic!("{}: {step}", attack.title));
                let expected = ["decision", "ok", "error", "tools"].iter().any(|key| expect.get(key).is_some());
                assert!(expected, "{}: {step}", attack.title);
                let decision = expect.get("decision").and_then(Value::as_str);
                refused |= decision.is_some_and(|decision| decision != "allow")
                    || expect.get("error").is_some()
                    || expect.get("tools").is_some();
            }
            assert!(refused, "{}: {} refuses nothing", table.class, attack.title);
        }
    }
}

/// The policies of the table are written and parsed without change.
#[test]
fn policies_of_attacks_round_trip() {
    for table in tables() {
        let own = table.attacks.iter().filter_map(|attack| attack.policy.as_deref());
        for policy in own.chain(table.policy.as_deref()) {
            let policy = Policy::from_json(policy.get()).unwrap();
            assert_eq!(Policy::from_json(policy.to_json()).as_ref(), Ok(&policy));
        }
    }
}

/// SECURITY.md names a class of this table or a test for each promise, and names every class.
#[test]
fn every_promise_names_its_proof() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut folders = vec![root.join("tests/it"), root.join("src")];
    let mut tests = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                tests += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let section = page.split_once("## Promises").unwrap().1.split_once("\n## ").unwrap().0;
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 15);
    for row in rows {
        let proofs: Vec<_> = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!proofs.is_empty(), "{row}");
        for proof in proofs {
            let is_a_test = ["", "    "].iter().any(|indent| tests.contains(&format!("#[test]\n{indent}fn {proof}(")));
            assert!(CLASSES.contains(&proof) || is_a_test, "`{proof}` is neither a class nor a test");
        }
    }
    for class in CLASSES {
        assert!(page.contains(&format!("`{class}`")), "the page does not name `{class}`");
    }
}

fn is_a_sentence(text: &str) -> bool {
    text.len() > 10 && text.ends_with('.') && !text.contains('\n') && text.len() < 200
}

/// Returns whether a text is a CVE number, or a title with its author or place and year in
/// brackets.
fn is_a_source(text: &str) -> bool {
    let digits = |part: &str, least: usize| part.len() >= least && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.strip_prefix("CVE-") {
        Some(rest) => rest.split_once('-').is_some_and(|(year, number)| digits(year, 4) && digits(number, 4)),
        None => text.contains('(') && text.ends_with(')'),
    }
}

/// Returns a comparison of `args.x` with scalars.
fn comparison_of_a_scalar() -> impl Strategy<Value = Value> {
    let text = || select(vec!["", "a", "A", "ab", "b", "1", "true", "/srv", "https://a.io/"]);
    let scalar = || prop_oneof![4 => text().prop_map(|text| json!(text)), 1 => select(vec![json!(1), json!(true)])];
    let texts = || prop::collection::vec(text(), 1..4).prop_map(|texts| json!(texts));
    let of = |names: &[&'static str], value: BoxedStrategy<Value>| (select(names.to_vec()), value).boxed();
    prop_oneof![
        of(&["eq", "neq", "contains", "not_contains"], scalar().boxed()),
        of(&["lt", "lte", "gt", "gte"], (0..3).prop_map(|n| json!(n)).boxed()),
        of(&["in", "not_in"], prop::collection::vec(scalar(), 1..20).prop_map(|values| json!(values)).boxed()),
        of(&["exists"], any::<bool>().prop_map(|exists| json!(exists)).boxed()),
        of(&["regex", "not_regex"], select(vec!["^a", "b$", "", "[0-9]"]).prop_map(|text| json!(text)).boxed()),
        of(&["starts_with", "ends_with"], prop_oneof![text().prop_map(|text| json!(text)), texts()].boxed()),
        of(&["min_length", "max_length"], (0..3).prop_map(|n| json!(n)).boxed()),
        of(&["path_within"], Just(json!(["/srv"])).boxed()),
        of(&["host_in"], Just(json!(["a.io"])).boxed()),
    ]
    .prop_map(|(op, value)| json!({ "path": "args.x", "op": op, "value": value }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Why: servers unwrap lists of one element, join lists, and read members of objects. `type`,
    /// `min_items` and `max_items` ask for a list or an object, so they are not here.
    #[test]
    fn wrapping_a_text_never_turns_a_stop_into_an_allow(
        mut condition in comparison_of_a_scalar(),
        text in select(vec!["", "a", "A", "xab", "b", "1", "true", "/srv/x", "/etc", "https://a.io/", "https://b.io/"]),
        section in select(vec!["require", "deny_if", "require_approval_if"]),
        (ignores_case, negates, reads_call) in any::<(bool, bool, bool)>(),
    ) {
        let op = condition["op"].as_str().unwrap_or_default().to_owned();
        if ignores_case && (op.contains("contains") || op.contains("regex") || op.ends_with("_with")) {
            condition["ignore_case"] = json!(true);
        }
        let fixed = ["exists", "regex", "not_regex", "min_length", "max_length", "path_within", "host_in"];
        let value = condition["value"].clone();
        if reads_call && !fixed.contains(&&*op) {
            condition.as_object_mut().unwrap().remove("value");
            condition["value_from"] = json!("context.y");
        }
        let condition = if negates { json!({ "not": condition }) } else { condition };
        let all_tools = json!({ section: [{ "conditions": [condition] }] });
        let policy = json!({ "version": "1", "default": "allow", "all_tools": all_tools });
        let policy = Policy::try_from(&policy).unwrap();
        let context = json!({ "y": value });
        let allows = |x: Value| {
            let arguments = json!({ "x": x });
            let call = ToolCall::new("t", &arguments).context(context.as_object());
            policy.evaluate(&call, Timestamp::UNIX_EPOCH).is_allowed()
        };
        if !allows(json!(text)) {
            let wrapped = [json!([text]), json!([[text]]), json!(["", text]), json!({ "a": text }), json!({ text: 1 }),
                json!([{ "a": text }]), json!([{ text: "" }])];
            for x in wrapped {
                prop_assert!(!allows(x.clone()), "{policy:?} {x}");
            }
        }
    }
}
