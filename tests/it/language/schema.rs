//! The JSON Schema against the parser, by an independent validator: both accept and refuse the same documents.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};
use toolgate::{Issue, IssueCode, Policy};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| Policy::json_schema().to_value());

pub(crate) static VALIDATOR: LazyLock<Validator> =
    LazyLock::new(|| jsonschema::draft202012::new(&SCHEMA).expect("a schema"));

/// What the parser finds in a document; nothing, if it accepts it.
fn issues(text: &str) -> Vec<Issue> {
    Policy::from_json(text).err().map_or_else(Vec::new, |error| error.issues().to_vec())
}

#[test]
fn the_schema_is_one_of_draft_2020_12() {
    assert_eq!(SCHEMA["$schema"], "https://json-schema.org/draft/2020-12/schema");
    jsonschema::draft202012::meta::validate(&SCHEMA).unwrap();
}

#[test]
fn the_file_for_editors_is_this_schema() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/policy.schema.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let write = "cargo run --example schema > examples/data/policy.schema.json";
    assert_eq!(file, *SCHEMA, "the file is not current: {write}");
    assert_eq!((&file["$id"], &file["title"]), (&json!("urn:toolgate:policy:1"), &json!("Policy")));
}

/// Editors find the schema by a key of the document, which decides nothing.
#[test]
fn a_document_may_name_its_schema() {
    let named = json!({ "$schema": "./policy.schema.json", "version": "1", "default": "deny" });
    assert_eq!(issues(&named.to_string()), []);
    assert!(VALIDATOR.is_valid(&named));
}

#[test]
fn both_accept_what_is_valid() {
    for (what, document) in documents().valid {
        assert_eq!(issues(&document.to_string()), [], "{what}: {document}");
        if let Err(error) = VALIDATOR.validate(&document) {
            panic!("{what}: {error} at {}: {document}", error.instance_path());
        }
    }
}

#[test]
fn both_refuse_what_is_not() {
    let documents = documents().invalid;
    assert!(documents.len() > 1_500, "{}", documents.len());
    for (what, document) in documents {
        let issues = issues(&document.to_string());
        // A key in place of another is two issues: it does not belong, and the other one is missing.
        let replaces = issues.len() == 2 && issues[1].code() == IssueCode::MisplacedKey;
        let told = if replaces && issues[0].code() == IssueCode::MissingKey { &issues[1..] } else { &issues };
        let places: BTreeSet<_> = told.iter().map(Issue::pointer).collect();
        assert_eq!(places.len(), 1, "one mistake each: {what}: {document}: {issues:?}");
        assert!(!is_beyond_schemas(&issues[0], &document), "{what}: {document}: {issues:?}");
        assert!(!VALIDATOR.is_valid(&document), "{what}: {document}");
    }
}

#[test]
fn both_stop_at_the_bounds() {
    for (count, fits) in [(100_000, true), (100_001, false)] {
        let names = || (0..count).map(|number| format!("t{number}"));
        let tools: Map<String, Value> = names().map(|name| (name, json!({}))).collect();
        for document in [policy(json!({ "hide": names().collect::<Vec<_>>() })), policy(json!({ "tools": tools }))] {
            assert_eq!(Policy::from_json(&document.to_string()).is_ok(), fits, "{count}");
            assert_eq!(VALIDATOR.is_valid(&document), fits, "{count}");
        }
    }
}

#[test]
fn what_no_schema_can_say_is_what_the_docs_list() {
    for (what, text, code) in inexpressible() {
        let codes: Vec<_> = issues(&text).iter().map(Issue::code).collect();
        assert_eq!(codes, [code], "{what}: {text}");
        let document = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
        assert!(VALIDATOR.is_valid(&document), "{what}: {text}");
    }
}

#[test]
fn objects_are_closed_and_described() {
    let (mut objects, mut keys) = (0, 0);
    each_schema(&SCHEMA, &mut |schema| {
        if schema.get("type") != Some(&json!("object")) || !schema.contains_key("properties") {
            return;
        }
        objects += 1;
        assert_eq!(schema.get("additionalProperties"), Some(&json!(false)), "{schema:?}");
        for key in ["title", "description"] {
            assert!(schema.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty()), "{key}: {schema:?}");
        }
        for (key, property) in schema["properties"].as_object().unwrap() {
            keys += 1;
            let description = property["description"].as_str().unwrap_or_default();
            assert!(description.len() > 10 && description.ends_with('.'), "{key}: {property}");
        }
    });
    assert!(objects >= 15 && keys >= 70, "{objects} {keys}");
}

/// Editors compile patterns with the flag `u`, under which nothing else may be escaped, and have no inline flags.
/// Without look-around every engine can match them.
#[test]
fn patterns_are_of_ecma_262() {
    let mut patterns = 0;
    each_schema(&SCHEMA, &mut |schema| {
        let Some(pattern) = schema.get("pattern") else { return };
        patterns += 1;
        let pattern = pattern.as_str().unwrap();
        let mut rest = pattern;
        while let Some((_, escape)) = rest.split_once('\\') {
            let escaped = escape.chars().next().unwrap();
            let is_code = escaped == 'u' && escape[1..5].bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(is_code || r"^$\.*+?()[]{}|/".contains(escaped), "{escaped}: {pattern}");
            rest = &escape[escaped.len_utf8()..];
        }
        assert!(pattern.match_indices("(?").all(|(at, _)| pattern[at..].starts_with("(?:")), "{pattern}");
    });
    assert!(patterns > 7, "{patterns}");
}

/// Every object of the schema, which are more than the schemas in it.
fn each_schema(value: &Value, visit: &mut impl FnMut(&Map<String, Value>)) {
    match value {
        Value::Object(members) => {
            visit(members);
            members.values().for_each(|member| each_schema(member, visit));
        }
        Value::Array(elements) => elements.iter().for_each(|element| each_schema(element, visit)),
        _ => {}
    }
}

/// Whether an issue is one of those that [`Policy::json_schema`] lists.
pub(crate) fn is_beyond_schemas(issue: &Issue, document: &Value) -> bool {
    let value = document.pointer(issue.pointer());
    let (parent, key) = issue.pointer().rsplit_once('/').unwrap_or_default();
    match issue.code() {
        IssueCode::DuplicateKey
        | IssueCode::TooDeep
        | IssueCode::DocumentTooLarge
        | IssueCode::InvalidRegex
        | IssueCode::RegexTooLarge
        | IssueCode::InexactNumber
        | IssueCode::CounterDisagrees => true,
        // Six decimals.
        IssueCode::InvalidAmount => value.and_then(Value::as_f64).is_some_and(|amount| (0.0..=9e12).contains(&amount)),
        // Its bytes are too many, its characters are not.
        IssueCode::TooLong => {
            let (text, bound) = match value.and_then(Value::as_str) {
                Some(text) if parent == "/hide" => (text, 256),
                Some(text) => (text, 4096),
                None => (&*key.replace("~1", "/").replace("~0", "~"), 256),
            };
            text.chars().count() <= bound
        }
        IssueCode::InvalidValue => {
            let condition = parent.strip_suffix("/value").and_then(|parent| document.pointer(parent));
            condition.is_some_and(|condition| condition["op"] == "host_in")
                && value.and_then(Value::as_str).is_some_and(may_be_host)
        }
        _ => false,
    }
}

/// All that the schema knows of hosts.
fn may_be_host(text: &str) -> bool {
    let host = text.strip_prefix("*.").unwrap_or(text);
    !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || "*/?#@\\".contains(c))
}

// ---- Random changes

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn both_agree_on_changed_documents(
        (_, document) in select(documents().valid),
        changes in prop::collection::vec((any::<Index>(), change()), 1..4),
    ) {
        let mut changed = document;
        for (place, change) in &changes {
            let places = places(&changed);
            change.apply(&mut changed, &places[place.index(places.len())]);
        }
        let issues = issues(&changed.to_string());
        let accepts = VALIDATOR.is_valid(&changed);
        // An entry whose name is too long is not looked into.
        let looked_everywhere = issues.iter().all(|issue| issue.code() != IssueCode::TooLong);
        if !issues.iter().all(|issue| is_beyond_schemas(issue, &changed)) {
            prop_assert!(!accepts, "the schema accepts {changed}: {issues:?}");
        } else if looked_everywhere {
            prop_assert!(accepts, "the schema refuses {changed}: {issues:?}");
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Remove,
    Replace(Value),
    Rename(String),
    Add(String, Value),
    /// In a text: at some character, insert another one, or take it out.
    Edit(Index, Option<char>),
}

fn change() -> impl Strategy<Value = Change> {
    let (words, values) = vocabulary();
    let word = select(words);
    let value = select(values);
    let character = select("ax0159.*[]\"\\<=:+-/%2sdh \u{e9}\u{0}\u{85}\u{2028}".chars().collect::<Vec<_>>());
    prop_oneof![
        Just(Change::Remove),
        value.clone().prop_map(Change::Replace),
        word.clone().prop_map(Change::Rename),
        (word, value).prop_map(|(word, value)| Change::Add(word, value)),
        (any::<Index>(), proptest::option::of(character)).prop_map(|(at, character)| Change::Edit(at, character)),
    ]
}

/// The keys and texts of the valid documents, and their values, with some that stand at the bounds.
fn vocabulary() -> (Vec<String>, Vec<Value>) {
    let mut words = BTreeSet::from(["", "*", "**", "x", "reasons", "é"].map(String::from));
    let mut values = vec![];
    for (_, document) in documents().valid {
        for place in places(&document) {
            let value = document.pointer(&place).unwrap();
            words.extend(value.as_object().into_iter().flat_map(Map::keys).cloned());
            words.extend(value.as_str().map(String::from));
            values.push(value.clone());
        }
    }
    let odd = [json!(null), json!([]), json!({}), json!(true), json!(false), json!([null]), json!({ "a": [null] })];
    let numbers = [json!(-1), json!(-0.0), json!(0), json!(1.0), json!(1.5), json!(0.000_000_1), json!(34_560_001)];
    let large = [json!(9e12), json!(9_000_000_000_001_u64), json!(1e300), json!(u64::MAX), json!(i64::MIN)];
    let texts = [letters(257), "é".repeat(129).into(), letters(4097), "é".repeat(2049).into(), json!("\u{0}")];
    values.extend(odd.into_iter().chain(numbers).chain(large).chain(texts));
    (words.into_iter().collect(), values)
}

/// The pointers of a document and everything in it.
fn places(document: &Value) -> Vec<String> {
    let mut places = vec![String::new()];
    let mut next = 0;
    while let Some(place) = places.get(next).cloned() {
        next += 1;
        match document.pointer(&place) {
            Some(Value::Object(members)) => {
                places
                    .extend(members.keys().map(|key| format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"))));
            }
            // The ends of long lists are as good as the middle.
            Some(Value::Array(elements)) => places.extend((0..elements.len().min(4)).map(|at| format!("{place}/{at}"))),
            _ => {}
        }
    }
    places
}

impl Change {
    fn apply(&self, document: &mut Value, place: &str) {
        let (parent, key) = place.rsplit_once('/').unwrap_or_default();
        let key = key.replace("~1", "/").replace("~0", "~");
        match (self, document.pointer_mut(parent).filter(|_| !place.is_empty())) {
            (Self::Remove, Some(Value::Object(members))) => drop(members.remove(&key)),
            (Self::Remove, Some(Value::Array(elements))) => drop(elements.remove(key.parse().unwrap())),
            (Self::Rename(name), Some(Value::Object(members))) => {
                if let Some(value) = members.remove(&key) {
                    members.insert(name.clone(), value);
                }
            }
            _ => {}
        }
        match (self, document.pointer_mut(place)) {
            (Self::Replace(value), Some(old)) => *old = value.clone(),
            (Self::Add(name, value), Some(Value::Object(members))) => drop(members.insert(name.clone(), value.clone())),
            (Self::Add(_, value), Some(Value::Array(elements))) => elements.push(value.clone()),
            (Self::Edit(at, character), Some(Value::String(text))) => {
                let at = at.index(text.chars().count() + 1);
                let taken = usize::from(character.is_none());
                let (before, after) = (text.chars().take(at), text.chars().skip(at + taken));
                *text = before.chain(*character).chain(after).collect();
            }
            _ => {}
        }
    }
}

// ---- Documents

/// Documents that say one thing, and what that is about.
#[derive(Default)]
struct Documents {
    valid: Vec<(&'static str, Value)>,
    /// With one mistake each.
    invalid: Vec<(&'static str, Value)>,
}

impl Documents {
    /// Puts each of two lists of values in a place of a document: those that may stand there, and those that may not.
    fn of(&mut self, what: &'static str, place: impl Fn(Value) -> Value, good: Value, bad: Value) {
        let place = |values: Value| match values {
            Value::Array(values) => values.into_iter().map(|value| (what, place(value))).collect::<Vec<_>>(),
            _ => panic!("{what}: not a list"),
        };
        self.valid.extend(place(good));
        self.invalid.extend(place(bad));
    }
}

fn documents() -> Documents {
    let mut documents = Documents::default();
    document_keys(&mut documents);
    entries(&mut documents);
    rules(&mut documents);
    conditions(&mut documents);
    operators(&mut documents);
    values(&mut documents);
    paths(&mut documents);
    limits(&mut documents);
    limit_neighbours(&mut documents);
    approvals(&mut documents);
    documents
}

fn document_keys(documents: &mut Documents) {
    let whole = json!({
        "$schema": "./policy.schema.json",
        "version": "1",
        "description": "Bookings",
        "default": "deny",
        "hide": ["purge", "debug_*"],
        "all_tools": { "description": "For all" },
        "tools": { "find_room": {}, "book_*": { "description": "Rooms" } },
    });
    let no_default = json!({ "version": "1" });
    let unknown = with(whole.clone(), json!({ "rules": [] }));
    documents.of(
        "a document",
        |document| document,
        json!([whole, policy(json!({}))]),
        json!([null, [], "deny", no_default, { "default": "deny" }, unknown]),
    );
    documents.of("$schema", |value| policy(json!({ "$schema": value })), json!(["", "x"]), json!([null, 5, {}]));
    documents.of(
        "version",
        |value| policy(json!({ "version": value })),
        json!(["1"]),
        json!(["", "2", "1.0", 1, 1.0, null, ["1"]]),
    );
    documents.of("description", |value| policy(json!({ "description": value })), json!([""]), json!([null, 5, ["x"]]));
    documents.of(
        "default",
        |value| policy(json!({ "default": value })),
        json!(["allow", "deny"]),
        json!(["", "Deny", "require_approval", null, false, ["deny"]]),
    );
    documents.of(
        "hide",
        |value| policy(json!({ "hide": value })),
        json!([[], ["a", "a", "*", "räume/suchen", " "], [letters(256)]]),
        json!([null, "a", {}, [""], [null], [["a"]], [letters(257)]]),
    );
    documents.of("tools", |value| policy(json!({ "tools": value })), json!([{}]), json!([null, [], "a"]));
    documents.of(
        "a name of tools",
        |name| policy(json!({ "tools": { name.as_str().unwrap(): {} } })),
        json!(["a", "a*", "*a", "*a**b*", "räume/suchen", " ", ".", letters(256)]),
        json!(["", "*", "**", letters(257)]),
    );
    documents.of(
        "all_tools",
        |value| policy(json!({ "all_tools": value })),
        json!([{}]),
        json!([null, [], "deny", { "limit": [] }]),
    );
}

fn entries(documents: &mut Documents) {
    let whole = json!({
        "description": "Books a room",
        "action": "require_approval",
        "reason": "Rooms cost money.",
        "require": [{ "name": "known", "conditions": [CONDITION.clone()], "on_deny": "Name the room." }],
        "deny_if": [{ "name": "long", "conditions": [CONDITION.clone()], "on_deny": "Book a day at most." }],
        "require_approval_if": [{ "name": "dear", "conditions": [CONDITION.clone()], "reason": "Someone must pay." }],
        "approval": { "ttl": "30m", "approvers": ["ann", "ben"], "min_approvers": 2, "bind": ["args.room"] },
        "limits": [{ "counter": "rooms", "window": "day", "max": 3, "scope": "user" }],
        "rate_limit": { "max": 10, "window": 60, "scope": "agent" },
    });
    let for_all = lacking(whole.clone(), "action");
    documents.of("every key of all_tools", all_tools, json!([{}, for_all]), json!([{ "action": "deny" }]));
    let bad = json!([null, true, 0, "deny", [], { "denyIf": [] }, { "rules": [] }, { "hide": [] }, { "ttl": "5m" }]);
    documents.of("an entry", entry, json!([{}, whole]), bad);
    documents.of(
        "action",
        |value| entry(json!({ "action": value })),
        json!(["allow", "deny", "require_approval"]),
        json!(["", "Deny", "approve", null, 1, ["deny"]]),
    );
    for rules in [entry, all_tools] {
        for key in ["description", "reason"] {
            documents.of(key, |value| rules(json!({ key: value })), json!(["", "x"]), json!([null, 5, ["x"]]));
        }
        for key in ["require", "deny_if", "require_approval_if", "limits"] {
            let bad = json!([null, {}, "x", [null], ["x"], [[]], [{}]]);
            documents.of(key, |value| rules(json!({ key: value })), json!([[]]), bad);
        }
        documents.of(
            "rate_limit",
            |value| rules(json!({ "rate_limit": value })),
            json!([]),
            json!([null, 5, "5/m", []]),
        );
        documents.of("approval", |value| rules(json!({ "approval": value })), json!([{}]), json!([null, [], "ann"]));
    }
}

fn rules(documents: &mut Documents) {
    let named = json!({ "name": "", "conditions": [CONDITION.clone(), CONDITION.clone()], "on_deny": "" });
    let unknown = with(named.clone(), json!({ "when": "x" }));
    let reasoned = json!({ "conditions": [CONDITION.clone()], "reason": "x" });
    let both = with(named.clone(), json!({ "reason": "x" }));
    let misspelt = with(named.clone(), json!({ "onDeny": "x" }));
    let nothing = json!({ "conditions": [] });
    for key in ["require", "deny_if", "require_approval_if"] {
        let rule = |rule| entry(json!({ key: [rule] }));
        let bad = json!([{}, { "name": "x" }, { "on_deny": "x" }, unknown, misspelt, both]);
        documents.of("a rule", rule, json!([named]), bad);
        for text in ["name", "on_deny"] {
            let place = |value| rule(with(json!({ "conditions": [CONDITION.clone()] }), json!({ text: value })));
            documents.of("a text of a rule", place, json!(["x"]), json!([null, 5]));
        }
        let bad = json!([null, {}, CONDITION.clone(), "x", [null], ["x"], [[]]]);
        documents.of("conditions", |value| rule(json!({ "conditions": value })), json!([[CONDITION.clone()]]), bad);
    }
    documents.of(
        "a rule of require",
        |rule| entry(json!({ "require": [rule] })),
        json!([]),
        json!([nothing, reasoned]),
    );
    documents.of("a rule of deny_if", deny_if, json!([nothing]), json!([reasoned]));
    documents.of(
        "a rule of require_approval_if",
        |rule| entry(json!({ "require_approval_if": [rule] })),
        json!([nothing, reasoned]),
        json!([{ "conditions": [], "reason": null }]),
    );
    documents.of(
        "a rule of all_tools",
        |rule| all_tools(json!({ "require": [rule] })),
        json!([named]),
        json!([nothing, reasoned, unknown]),
    );
}

fn conditions(documents: &mut Documents) {
    let one = || CONDITION.clone();
    let text = json!({ "path": "args.x", "op": "ends_with", "value": "z", "ignore_case": true });
    let from = with(lacking(text.clone(), "value"), json!({ "value_from": "args.y" }));
    let both = with(text.clone(), json!({ "value_from": "args.y" }));
    let unknown = with(text.clone(), json!({ "vlaue": 5 }));
    let nested = json!([{ "all": [one(), { "not": { "any": [one(), { "not": one() }] } }] }, text]);
    for place in [when, unless] {
        let bad = json!([null, "x", [], {}, lacking(one(), "path"), lacking(one(), "op"), lacking(one(), "value")]);
        documents.of("a condition", place, json!([one(), text, from]), bad);
        documents.of("a condition", place, json!([]), json!([both, unknown, [one()]]));
        for group in ["any", "all"] {
            let good = json!([[one()], [one(), one()], nested, [text, { "not": one() }]]);
            let bad = json!([null, [], {}, one(), "x", [null], ["x"], [[one()]], [{ "any": [] }]]);
            documents.of("a group", |value| place(json!({ group: value })), good, bad);
        }
        let good = json!([one(), { "any": [one()] }, { "all": [one()] }, { "not": { "not": one() } }]);
        let bad = json!([null, "x", [one()], [], {}, { "any": [] }, { "all": [] }]);
        documents.of("not", |value| place(json!({ "not": value })), good, bad);
        for (group, value) in [("any", json!([one()])), ("all", json!([one()])), ("not", one())] {
            let place = |members| place(with(members, json!({ group: value })));
            let bad = json!([{ "path": "args.x" }, { "op": "eq" }, { "value": 5 }, { "xor": [] }]);
            documents.of("a group with another key", place, json!([{}]), bad);
        }
        let two = json!({ "any": [one()], "all": [one()] });
        let bad = json!([two, { "any": [one()], "not": one() }, { "all": [one()], "not": one() }]);
        documents.of("two groups in one", place, json!([]), bad);
        let place = |value| place(json!({ "path": "args.x", "op": "regex", "value": "x", "ignore_case": value }));
        documents.of("ignore_case", place, json!([true, false]), json!([null, "yes", 1]));
    }
    let absent = json!({ "path": "args.x", "op": "eq", "value": 5, "absent": "match" });
    let exists = json!({ "path": "args.x", "op": "exists", "value": true, "absent": "match" });
    documents.of(
        "absent",
        when,
        json!([absent, { "any": [absent] }, { "all": [{ "any": [absent] }, { "not": one() }] }]),
        json!([
            exists,
            { "not": absent },
            { "not": { "not": absent } },
            { "not": { "any": [one(), absent] } },
            { "any": [{ "not": { "all": [{ "any": [absent] }] } }] },
        ]),
    );
    let place = |value| when(with(CONDITION.clone(), json!({ "op": "eq", "absent": value })));
    documents.of("absent", place, json!(["match"]), json!(["", "deny", null, true]));
}

fn operators(documents: &mut Documents) {
    let compares = texts("eq neq lt lte gt gte");
    let searches = texts("contains not_contains starts_with ends_with");
    let regexes = texts("regex not_regex");
    for place in [when, unless] {
        let op = |op| place(json!({ "path": "args.x", "op": op, "value": 5 }));
        let bad = json!(["", "EQ", "==", "equals", "ne", "startswith", "matches", "any", null, 5, ["eq"]]);
        documents.of("an operator", op, json!(compares), bad);
        let op = |op| place(json!({ "path": "args.x", "op": op, "value_from": "args.y" }));
        let good = together(&[&compares, &searches, &texts("in not_in")]);
        let bad = together(&[&regexes, &texts("exists min_length max_length type path_within host_in")]);
        documents.of("an operator with value_from", op, good, bad);
    }
    for ignore_case in [true, false] {
        for (operators, value, takes) in [
            (&searches, json!("x"), true),
            (&regexes, json!("x"), true),
            (&compares, json!(5), false),
            (&texts("in not_in path_within"), json!(["/a"]), false),
            (&texts("min_length max_length"), json!(5), false),
            (&texts("exists"), json!(true), false),
            (&texts("type"), json!("string"), false),
            (&texts("host_in"), json!(["a"]), false),
        ] {
            let place = |op| when(json!({ "path": "args.x", "op": op, "value": value, "ignore_case": ignore_case }));
            let (good, bad) = if takes { (operators.clone(), vec![]) } else { (vec![], operators.clone()) };
            documents.of("an operator with ignore_case", place, good.into(), bad.into());
        }
        let place =
            |op| when(json!({ "path": "args.x", "op": op, "value_from": "args.y", "ignore_case": ignore_case }));
        documents.of(
            "an operator with value_from and ignore_case",
            place,
            searches.clone().into(),
            compares.clone().into(),
        );
    }
    let sought = |op, value, case| json!({ "path": "args.x", "op": op, "value": value, "ignore_case": case });
    documents.of(
        "a text without regard to case",
        when,
        json!([
            sought("contains", letters(4096), true),
            sought("contains", json!([letters(4097)]), true),
            sought("starts_with", letters(4096), true),
            sought("ends_with", json!([letters(4096), ""]), true),
            sought("contains", letters(4097), false),
            sought("starts_with", letters(4097), false),
            sought("ends_with", json!([letters(4097)]), false),
            { "path": "args.x", "op": "ends_with", "value": [letters(4097)] },
        ]),
        json!([
            sought("contains", letters(4097), true),
            sought("not_contains", letters(4097), true),
            sought("starts_with", letters(4097), true),
            sought("ends_with", json!(["", letters(4097)]), true),
        ]),
    );
}

fn values(documents: &mut Documents) {
    let mut of = |operators: &[&'static str], good: Value, bad: Value| {
        for operator in operators {
            for place in [when, unless] {
                let place = |value| place(json!({ "path": "args.x", "op": operator, "value": value }));
                documents.of(operator, place, good.clone(), bad.clone());
            }
        }
    };
    let many = |value: Value, count: usize| Value::from(vec![value; count]);
    let sevens = |count| many(json!(7), count);
    let fitting =
        json!([true, 0, -1.5, u64::MAX, i64::MIN, 1e300, "", "null", [], {}, [1, "x", [false, []]], sevens(1000)]);
    let nulls =
        json!([null, [1, null], { "a": null }, { "a": [{ "b": [null] }] }, sevens(1001), { "a": [sevens(1001)] }]);
    of(&["eq", "neq", "contains", "not_contains"], fitting.clone(), nulls);
    of(&["lt", "lte", "gt", "gte"], json!([0, -1, 0.5, 1e300, u64::MAX]), json!([null, "5", true, [], {}, [5]]));
    let nulls = json!([null, [], {}, "x", 5, [null], [[null]], [{ "a": null }], sevens(1001), [sevens(1001)]]);
    of(&["in", "not_in"], json!([fitting, [5], [[]], [{}], [sevens(1000)]]), nulls);
    of(&["exists"], json!([true, false]), json!([null, 0, "true", []]));
    of(&["regex", "not_regex"], json!(["", "^a", letters(4096)]), json!([null, 5, ["a"], letters(4097)]));
    let good = json!(["", "a", ["a"], ["a", "a", ""], many("a".into(), 1000)]);
    let bad = json!([null, 5, [], {}, [5], ["a", null], [["a"]], many("a".into(), 1001)]);
    of(&["starts_with", "ends_with"], good, bad);
    let good = json!([0, -0.0, 1, 1.0, 1e3, 1e300, u64::MAX]);
    of(&["min_length", "max_length"], good, json!([null, -1, 0.5, -1e300, "3", [3], true]));

    let types = texts("string number integer boolean array object");
    let good = json!([types, ["string", "string"], many("array".into(), 1000)]);
    of(&["type"], types.into(), json!([null, 5, "null", "int", "String", [], {}, [5], ["string", "float"]]));
    of(&["type"], good, json!([many("array".into(), 1001)]));

    let good = texts("/ /a/b /a/../b//. /%2 /%20 /%2g /%0 /5c /ä* /a:b /~");
    of(&["path_within"], json!([good, ["/ "], ["/\n"], many("/a".into(), 1000)]), json!([null, "/a", [], {}, [5]]));
    of(&["path_within"], json!([]), json!([[""], ["/a", " /a"], ["/\u{0}"], ["/\n\\"], many("/a".into(), 1001)]));
    for bad in texts(r"a ./a a/b ~ ~/a \a /a\b /a/%2e%2e /%2E /%2f /%2Fa /%5c /a%5C /%00 /%%2e file:///a") {
        of(&["path_within"], json!([]), json!([["/a", bad]]));
    }

    let good = texts("localhost a.example *.a.example A.Example. 192.0.2.1 [2001:db8::1] bücher.example");
    of(&["host_in"], json!([good, many("a".into(), 1000)]), json!([null, "a.example", [], {}, [5]]));
    of(&["host_in"], json!([]), json!([[""], ["a b"], ["a\n"], ["a\u{2028}b"], many("a".into(), 1001)]));
    for bad in texts(r"*. * a.* *.*.a **.a a/ https://a u@a a? a# a\") {
        of(&["host_in"], json!([]), json!([["a", bad]]));
    }
}

fn paths(documents: &mut Documents) {
    let single = texts(
        r#"
        args args.x args.x.y args.x[0][10].y args[4294967295] args.max-size args.größe args.$x args.a\b args.😀 args.call
        args[""] args["a.b"].c args["[*]"] args["\"[*]"] args["\\"][0] args["\u00e4\ud83d\uDE00\n\/"]
        args["\ud7ff\ue000"] context context.role context["x-role"] call.tool call.server call.grant call.session
        call.agent call.user call["tool"] call["\u0075s\u0065r"] time.hour time.minute time.weekday time.date
        time["date"] time["h\u006fur"] time["h\u006Fur"]
        "#,
    );
    let many = texts(r#"args[*] args.x[*].y context[*][*] args["a"][*] args["\\"][*]"#);
    let none = texts(
        r#"
        amount $.amount Args.x arg.x .args args. args..x args.x. args.* args.a* args.a<b args.a= args.a"b args.'a'
        args.`a` args.a] args[ args[] args[x] args[-1] args[01] args[+1] args[1 args[1]x args[4294967296]
        args[99999999999] args['x'] args["x] args["x" args["x"]y args["\x"] args["\u12"] args["\ud800"] args["\udc00"]
        args["\ud800\u0041"] args[**] context. call call. call.id call.Tool call.tool.x call.tool[0] call[0] call[*]
        call["id"] call[tool] call["tool"].x call["tool\u0000"] call["\u0054ool"] time time.second time.hour.x time[*]
        env.x
        "#,
    );
    let blanks = ["", " ", "args x", "args.a b", "args[ 0 ]", "args[\"\n\"]", "args.x\n", "\nargs.x", "call.tool\n"];
    let marks = ["args.\u{0}", "args.\u{85}", "args.\u{a0}", "args.\u{3000}", "context.\u{0}"];
    let others = [json!(null), json!(5), json!(["args.x"])];
    let bad = [&none[..], &blanks.map(Value::from), &marks.map(Value::from), &others].concat();
    let not_single = together(&[&bad, &many]);
    for place in [when, unless] {
        let path = |path| place(with(CONDITION.clone(), json!({ "path": path })));
        documents.of("path", path, together(&[&single, &many]), json!(bad));
        let from = |path| place(json!({ "path": "args.x", "op": "eq", "value_from": path }));
        documents.of("value_from", from, json!(single), not_single.clone());
    }
    documents.of("amount_from", |path| limit(json!({ "amount_from": path })), json!(single), not_single.clone());

    let texts_of = |paths: &[Value]| paths.iter().filter_map(Value::as_str).map(String::from).collect::<Vec<_>>();
    let (words, parts): (Vec<_>, Vec<_>) = texts_of(&single).into_iter().partition(|path| !path.contains(['.', '[']));
    let part = |path| limit(json!({ "scope": ["grant", path] }));
    documents.of(
        "a part of a scope",
        part,
        json!(parts),
        json!([&words[..], &["tool".into(), "Grant".into()]].concat()),
    );
    documents.of("a part of a scope", part, json!([]), not_single.clone());

    let (arguments, others): (Vec<_>, Vec<_>) =
        texts_of(&single).into_iter().partition(|path| path.starts_with("args"));
    let bounds: Vec<_> = arguments.iter().map(|path| format!("{path}<=")).collect();
    let bind = |path| approval(json!({ "bind": ["args.a", path] }));
    documents.of("a path of bind", bind, json!(arguments), json!(others));
    documents.of("a path of bind", bind, json!(bounds), not_single);
    let bad = texts("<= context.role<= call.user<= args[*]<= args.x< args.x<=<= args.x>= x<=");
    documents.of("a bound of bind", bind, json!([]), together(&[&bad, &[json!("args.x<= "), json!("args.x <=")]]));
}

fn limits(documents: &mut Documents) {
    let whole = json!({
        "counter": "spend", "window": "day", "max": 20, "scope": ["grant", "args.customer"], "amount": 2.5,
        "algorithm": "fixed", "utc_offset": "+05:30", "shadow": true, "on_exceed": "Tomorrow.",
    });
    let unknown = with(whole.clone(), json!({ "limit": 5 }));
    let both = with(whole.clone(), json!({ "amount_from": "args.x" }));
    let lacking_one = ["counter", "window", "max", "scope"].map(|key| lacking(whole.clone(), key));
    let place = |limit| entry(json!({ "limits": [limit] }));
    documents.of("a limit", place, json!([whole]), together(&[&lacking_one, &[unknown, both]]));
    let place = |limit| all_tools(json!({ "limits": [limit] }));
    documents.of("a limit of all_tools", place, json!([whole]), json!(lacking_one));
    let counters = json!(["x", " ", letters(5000)]);
    documents.of("counter", |value| limit(json!({ "counter": value })), counters, json!(["", null, 5]));
    documents.of("shadow", |value| limit(json!({ "shadow": value })), json!([true, false]), json!([null, "true", 1]));
    documents.of("on_exceed", |value| limit(json!({ "on_exceed": value })), json!(["", "x"]), json!([null, 5]));
    documents.of(
        "rate_limit",
        |value| entry(json!({ "rate_limit": value })),
        json!([{ "max": 1, "window": 60 }]),
        json!([null, 5, "5/minute", [], { "max": 1 }, { "window": 60 }, { "max": 1, "window": 60, "counter": "c" }]),
    );
    windows(documents);
    amounts(documents);
    scopes(documents);
}

fn windows(documents: &mut Documents) {
    let words = texts("second minute hour day week month in_flight");
    let durations = texts("1s 90s 15m 12h 30d 007s 34560000s 576000m 9600h 400d 0000400d");
    let seconds = [json!(1), json!(90), json!(90.0), json!(9e1), json!(34_560_000)];
    let good = [&durations[..], &seconds].concat();
    let no_durations = texts(
        "s 0s 000d 1 10x 1S -1s +1s 1.5h m15 34560001s 576001m 9601h 401d 4000d 99999999999999999999s 1w ٣s minutes
         Minute year fortnight",
    );
    let blanks = [json!(""), json!("1 s"), json!(" 1s"), json!("1s "), json!("1s\n"), json!("day\n")];
    let no_seconds = [json!(0), json!(-0.0), json!(0.5), json!(-1), json!(1.5), json!(34_560_001), json!(1e300)];
    let others = [json!(null), json!(true), json!([]), json!({})];
    let bad = [&no_durations[..], &blanks, &no_seconds, &others].concat();
    for place in [|window| limit(json!({ "window": window })), |window| rate_limit(json!({ "window": window }))] {
        documents.of("window", place, together(&[&good, &words]), json!(bad));
    }
    let lease = |lease| limit(json!({ "window": "in_flight", "lease": lease }));
    documents.of("lease", lease, json!(good), together(&[&bad, &words]));
    documents.of("ttl", |value| approval(json!({ "ttl": value })), json!(good), together(&[&bad, &words]));
}

fn amounts(documents: &mut Documents) {
    let good = json!([0, -0.0, 0.1, 0.000_001, 1e3, 12.5, 9_000_000_000_000_u64, 9e12]);
    let bad = json!([-1, -0.000_001, 9_000_000_000_001_u64, 1e13, u64::MAX, null, true, "1", [1], {}]);
    for key in ["max", "amount"] {
        documents.of(key, |value| limit(json!({ key: value })), good.clone(), bad.clone());
    }
    let burst = |value| limit(json!({ "algorithm": "token_bucket", "burst": value }));
    documents.of("burst", burst, good.clone(), bad.clone());
    documents.of("max", |value| rate_limit(json!({ "max": value })), good, bad);
}

fn scopes(documents: &mut Documents) {
    let words = texts("grant session agent user server global");
    let lists =
        json!([["global"], ["grant", "grant"], words, ["args.x"], ["context.tenant", "call.tool", "time.date"]]);
    let no_words = json!(["", "tool", "Grant", "args", "args.x", "context.tenant", "call.grant", null, 5, {}]);
    let no_lists = json!([[], [""], ["tool"], ["args"], [null], ["args.x[*]"], [["grant"]], ["tenant.id"]]);
    for place in [|scope| limit(json!({ "scope": scope })), |scope| rate_limit(json!({ "scope": scope }))] {
        documents.of("scope", place, json!(words), no_words.clone());
        documents.of("scope", place, lists.clone(), no_lists.clone());
    }
}

fn limit_neighbours(documents: &mut Documents) {
    let place = |value| limit(json!({ "algorithm": value }));
    documents.of(
        "algorithm",
        place,
        json!(["fixed", "sliding", "token_bucket"]),
        json!(["", "Fixed", "leaky", null, 1]),
    );
    documents.of(
        "what belongs together",
        limit,
        json!([
            {},
            { "algorithm": "token_bucket", "burst": 5, "window": "1h" },
            { "algorithm": "token_bucket", "window": "month" },
            { "algorithm": "sliding", "window": 60 },
            { "window": "in_flight", "lease": "1m", "amount": 2, "shadow": true },
            { "window": "in_flight" },
            { "window": "second", "utc_offset": "+01:00" },
            { "window": "minute", "utc_offset": "+01:00" },
            { "window": "hour", "utc_offset": "+01:00" },
            { "window": "week", "utc_offset": "+01:00" },
            { "window": "month", "utc_offset": "+01:00", "algorithm": "fixed" },
            { "amount_from": "args.x", "algorithm": "sliding" },
        ]),
        json!([
            { "burst": 5 },
            { "burst": 5, "algorithm": "fixed" },
            { "burst": 5, "algorithm": "sliding" },
            { "burst": 5, "window": "in_flight" },
            { "algorithm": "fixed", "window": "in_flight" },
            { "algorithm": "sliding", "window": "in_flight" },
            { "algorithm": "token_bucket", "window": "in_flight" },
            { "lease": "1m" },
            { "lease": "1m", "window": 60 },
            { "lease": "1m", "algorithm": "token_bucket" },
            { "utc_offset": "+01:00", "window": 60 },
            { "utc_offset": "+01:00", "window": "1d" },
            { "utc_offset": "+01:00", "window": "in_flight" },
            { "utc_offset": "+01:00", "algorithm": "sliding" },
            { "utc_offset": "+01:00", "algorithm": "token_bucket" },
            { "amount": 1, "amount_from": "args.x" },
        ]),
    );
    documents.of(
        "utc_offset",
        |value| limit(json!({ "window": "day", "utc_offset": value })),
        json!(["+00:00", "-00:00", "+02:00", "-05:30", "+23:59", "+19:09"]),
        json!([
            "", "Z", "02:00", "+2:00", "+0200", "+24:00", "+02:60", "+30:00", "+02:00 ", "+02:00\n", "+02-00",
            "+٠2:00", null, 2
        ]),
    );
}

fn approvals(documents: &mut Documents) {
    documents.of(
        "approval",
        approval,
        json!([{}, { "ttl": 60, "approvers": ["ann", "ann"], "min_approvers": 2, "bind": ["args"] }]),
        json!([null, [], "ann", { "by": [] }, { "approver": "ann" }]),
    );
    documents.of(
        "approvers",
        |value| approval(json!({ "approvers": value })),
        json!([[], [""], ["ann", "ben"]]),
        json!([null, "ann", {}, [5], ["ann", null]]),
    );
    documents.of(
        "min_approvers",
        |value| approval(json!({ "min_approvers": value })),
        json!([1, 1.0, 1e3, u64::MAX, 1e300]),
        json!([0, -0.0, -1, 1.5, null, "1", [1]]),
    );
    documents.of(
        "bind",
        |value| approval(json!({ "bind": value })),
        json!([["args.x"], ["args.x", "args.x"], ["args.x<="]]),
        json!([null, [], {}, "args.x", [5], [["args.x"]]]),
    );
}

/// Texts of documents that no schema can refuse, and what the parser finds.
fn inexpressible() -> Vec<(&'static str, String, IssueCode)> {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let of = |members: &str| format!(r#"{{"version":"1","default":"deny",{members}}}"#);
    let eq =
        |value: &str| when(json!({ "path": "args.x", "op": "eq", "value": "V" })).to_string().replace("\"V\"", value);
    let max = |number: &str| limit(json!({ "max": "V" })).to_string().replace("\"V\"", number);
    let count = |number: &str| approval(json!({ "min_approvers": "V" })).to_string().replace("\"V\"", number);
    let window = |number: &str| limit(json!({ "window": "V" })).to_string().replace("\"V\"", number);
    let compare = |op: &str, value: Value| when(json!({ "path": "args.x", "op": op, "value": value })).to_string();
    let two = |members: Value| {
        let one = json!({ "counter": "c", "window": "minute", "max": 1, "scope": "grant" });
        entry(json!({ "limits": [one, with(one.clone(), members)] })).to_string()
    };
    let folded = json!({ "path": "args.x", "op": "contains", "value": "é".repeat(2049), "ignore_case": true });
    vec![
        ("a key twice", of(r#""default":"deny""#), IssueCode::DuplicateKey),
        ("a tool twice", of(r#""tools":{"t":{},"\u0074":{}}"#), IssueCode::DuplicateKey),
        ("a key twice in a value", eq(r#"{"a":1,"a":1}"#), IssueCode::DuplicateKey),
        ("a byte order mark", format!("\u{feff}{}", policy(json!({}))), IssueCode::ByteOrderMark),
        ("a large document", format!("{}{}", policy(json!({})), " ".repeat(8 << 20)), IssueCode::DocumentTooLarge),
        ("a deep document", eq(&nested(60)), IssueCode::TooDeep),
        ("many bytes of a hidden name", policy(json!({ "hide": ["é".repeat(129)] })).to_string(), IssueCode::TooLong),
        ("many bytes of a name", policy(json!({ "tools": { "é".repeat(129): {} } })).to_string(), IssueCode::TooLong),
        ("many bytes of a regex", compare("regex", "é".repeat(2049).into()), IssueCode::TooLong),
        ("many bytes without case", when(folded).to_string(), IssueCode::TooLong),
        ("no regex", compare("regex", "(".into()), IssueCode::InvalidRegex),
        ("a large regex", compare("not_regex", r"\w{500}".into()), IssueCode::RegexTooLarge),
        ("no host", compare("host_in", json!(["a:80"])), IssueCode::InvalidValue),
        ("no domain", compare("host_in", json!(["*.192.0.2.1"])), IssueCode::InvalidValue),
        ("a seventh decimal", max("0.1234567"), IssueCode::InvalidAmount),
        ("an amount that rounds to the largest", max("9000000000000.0000001"), IssueCode::InvalidAmount),
        ("a negative amount that rounds to zero", max("-1e-400"), IssueCode::InvalidAmount),
        ("a number that rounds", eq("9007199254740993.0"), IssueCode::InexactNumber),
        ("a count that rounds to a whole one", count("2.00000000000000000001"), IssueCode::InvalidValue),
        ("a time that rounds to a whole one", window("2.00000000000000000001"), IssueCode::InvalidDuration),
        ("another window", two(json!({ "window": "hour" })), IssueCode::CounterDisagrees),
        ("another window of the same length", two(json!({ "window": "60s" })), IssueCode::CounterDisagrees),
        ("another scope", two(json!({ "scope": "user" })), IssueCode::CounterDisagrees),
        ("another algorithm", two(json!({ "algorithm": "sliding" })), IssueCode::CounterDisagrees),
        ("another offset", two(json!({ "utc_offset": "+01:00" })), IssueCode::CounterDisagrees),
    ]
}

static CONDITION: LazyLock<Value> = LazyLock::new(|| json!({ "path": "args.x", "op": "exists", "value": true }));

fn policy(members: Value) -> Value {
    with(json!({ "version": "1", "default": "deny" }), members)
}

fn entry(rules: Value) -> Value {
    policy(json!({ "tools": { "t": rules } }))
}

fn all_tools(rules: Value) -> Value {
    policy(json!({ "all_tools": rules }))
}

fn deny_if(rule: Value) -> Value {
    entry(json!({ "deny_if": [rule] }))
}

fn when(condition: Value) -> Value {
    deny_if(json!({ "conditions": [condition] }))
}

fn unless(condition: Value) -> Value {
    when(json!({ "not": condition }))
}

/// A limit of one call in a minute for each grant, but for these members.
fn limit(members: Value) -> Value {
    let limit = json!({ "counter": "c", "window": "minute", "max": 1, "scope": "grant" });
    entry(json!({ "limits": [with(limit, members)] }))
}

fn rate_limit(members: Value) -> Value {
    entry(json!({ "rate_limit": with(json!({ "max": 1, "window": "minute" }), members) }))
}

fn approval(terms: Value) -> Value {
    entry(json!({ "action": "require_approval", "approval": terms }))
}

fn with(mut object: Value, members: Value) -> Value {
    if let (Value::Object(object), Value::Object(members)) = (&mut object, members) {
        object.extend(members);
    }
    object
}

fn lacking(mut object: Value, key: &str) -> Value {
    object.as_object_mut().and_then(|object| object.remove(key)).expect("the key");
    object
}

fn together(lists: &[&[Value]]) -> Value {
    lists.concat().into()
}

/// The texts between the blanks.
fn texts(text: &str) -> Vec<Value> {
    text.split_whitespace().map(Value::from).collect()
}

fn letters(count: usize) -> Value {
    "x".repeat(count).into()
}
