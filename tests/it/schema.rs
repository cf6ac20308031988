//! The JSON Schema against the parser, by an independent validator: both accept and refuse the same documents.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};
use toolgate::{Issue, IssueCode, Policy};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| Policy::json_schema().to_value());

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| jsonschema::draft202012::new(&SCHEMA).expect("a schema"));

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
    assert!(documents.len() > 350, "{}", documents.len());
    for (what, document) in documents {
        let issues = issues(&document.to_string());
        assert_eq!(issues.len(), 1, "one mistake each: {what}: {document}: {issues:?}");
        assert!(!is_beyond_schemas(&issues[0], &document), "{what}: {document}: {issues:?}");
        assert!(!VALIDATOR.is_valid(&document), "{what}: {document}");
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
fn is_beyond_schemas(issue: &Issue, document: &Value) -> bool {
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
                None => (key, 256),
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
        match (self, document.pointer_mut(parent)) {
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
        json!([{}, { "reason": "", "require": [], "deny_if": [], "require_approval_if": [], "limits": [] }]),
        json!([null, [], "deny", { "action": "deny" }, { "limit": [] }]),
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
    documents.of("every key of all_tools", |value| policy(json!({ "all_tools": value })), json!([for_all]), json!([]));
    documents.of(
        "an entry",
        entry,
        json!([{}, whole]),
        json!([null, true, 0, "deny", [], { "denyIf": [] }, { "rules": [] }, { "hide": [] }, { "ttl": "5m" }]),
    );
    documents.of("description", |value| entry(json!({ "description": value })), json!(["x"]), json!([null, 5]));
    documents.of("reason", |value| entry(json!({ "reason": value })), json!(["x"]), json!([null, ["x"]]));
    documents.of(
        "action",
        |value| entry(json!({ "action": value })),
        json!(["allow", "deny", "require_approval"]),
        json!(["", "Deny", "approve", null, 1, ["deny"]]),
    );
    for key in ["require", "deny_if", "require_approval_if", "limits"] {
        let bad = json!([null, {}, "x", [null], ["x"], [[]]]);
        documents.of("a list of an entry", |value| entry(json!({ key: value })), json!([[]]), bad);
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
        |rule| policy(json!({ "all_tools": { "require": [rule] } })),
        json!([named]),
        json!([nothing, reasoned, unknown]),
    );
}

fn conditions(documents: &mut Documents) {
    let one = || CONDITION.clone();
    let whole = json!({ "path": "args.x", "op": "ends_with", "value": "z", "ignore_case": true, "absent": "match" });
    let from = with(lacking(whole.clone(), "value"), json!({ "value_from": "args.y" }));
    let both = with(whole.clone(), json!({ "value_from": "args.y" }));
    let unknown = with(whole.clone(), json!({ "vlaue": 5 }));
    documents.of(
        "a comparison",
        when,
        json!([one(), whole, from]),
        json!([lacking(one(), "path"), lacking(one(), "op"), lacking(one(), "value"), both, unknown]),
    );
    let nested = json!([{ "all": [one(), { "not": { "any": [one(), { "not": one() }] } }] }, whole]);
    for group in ["any", "all"] {
        let good = json!([[one()], [one(), one()], nested, [whole, { "not": one() }]]);
        let bad = json!([null, [], one(), "x", [null], ["x"], [[one()]], [{ "any": [] }], [{ "not": { "all": [] } }]]);
        documents.of("a group", |value| when(json!({ group: value })), good, bad);
    }
    documents.of(
        "not",
        |value| when(json!({ "not": value })),
        json!([one(), { "any": [one()] }, { "all": [one()] }, { "not": { "not": one() } }]),
        json!([null, "x", [one()], [], { "any": [] }]),
    );
    documents.of(
        "a group with another key",
        |value| when(with(json!({ "any": [one()] }), value)),
        json!([{}]),
        json!([{ "all": [one()] }, { "not": one() }, { "path": "args.x" }, { "op": "eq" }, { "value": 5 }, { "or": 1 }]),
    );
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
    documents.of(
        "absent",
        |value| equal(json!({ "absent": value })),
        json!(["match"]),
        json!(["", "deny", null, true]),
    );
    let place = |value| when(json!({ "path": "args.x", "op": "regex", "value": "x", "ignore_case": value }));
    documents.of("ignore_case", place, json!([true, false]), json!([null, "yes", 1]));
}

fn operators(documents: &mut Documents) {
    let op = |op| when(json!({ "path": "args.x", "op": op, "value": 5 }));
    let bad = json!(["", "EQ", "==", "equals", "ne", "startswith", "matches", "any", null, 5, ["eq"]]);
    documents.of("an operator", op, json!(["eq", "neq", "lt", "lte", "gt", "gte"]), bad);
    let from = |op| when(json!({ "path": "args.x", "op": op, "value_from": "args.y" }));
    let good = json!([
        "eq",
        "neq",
        "lt",
        "lte",
        "gt",
        "gte",
        "in",
        "not_in",
        "contains",
        "not_contains",
        "starts_with",
        "ends_with"
    ]);
    let bad = json!(["exists", "regex", "not_regex", "min_length", "max_length", "type", "path_within", "host_in"]);
    documents.of("an operator with value_from", from, good, bad);
    for ignore_case in [true, false] {
        let place = |condition| when(with(condition, json!({ "path": "args.x", "ignore_case": ignore_case })));
        let texts = ["regex", "not_regex", "contains", "not_contains", "starts_with", "ends_with"];
        let good = texts.map(|op| json!({ "op": op, "value": "x" }));
        let numbers = ["eq", "neq", "lt", "lte", "gt", "gte", "min_length", "max_length"];
        let mut bad = numbers.map(|op| json!({ "op": op, "value": 5 })).to_vec();
        bad.extend(["in", "not_in", "path_within", "host_in"].map(|op| json!({ "op": op, "value": ["/a"] })));
        bad.retain(|condition| condition["op"] != "host_in");
        bad.extend([json!({ "op": "exists", "value": true }), json!({ "op": "type", "value": "string" })]);
        bad.extend([json!({ "op": "host_in", "value": ["a"] }), json!({ "op": "eq", "value_from": "args.y" })]);
        documents.of("an operator with ignore_case", place, json!(good), json!(bad));
    }
    let folded = |op, value| json!({ "path": "args.x", "op": op, "value": value, "ignore_case": true });
    documents.of(
        "a text without regard to case",
        when,
        json!([
            folded("contains", letters(4096)),
            folded("contains", json!([letters(4097)])),
            folded("starts_with", letters(4096)),
            folded("ends_with", json!([letters(4096), ""])),
            { "path": "args.x", "op": "contains", "value": letters(4097), "ignore_case": false },
            { "path": "args.x", "op": "ends_with", "value": [letters(4097)] },
        ]),
        json!([
            folded("contains", letters(4097)),
            folded("not_contains", letters(4097)),
            folded("starts_with", letters(4097)),
            folded("ends_with", json!(["", letters(4097)])),
        ]),
    );
}

fn values(documents: &mut Documents) {
    let mut of = |operators: &[&'static str], good: Value, bad: Value| {
        for operator in operators {
            let place = |value| when(json!({ "path": "args.x", "op": operator, "value": value }));
            documents.of(operator, place, good.clone(), bad.clone());
        }
    };
    let many = |count: usize| json!(vec![json!(7); count]);
    let compared = json!([
        true, 0, -1.5, u64::MAX, i64::MIN, 1e300, "", "null", [], {}, [1, "x", [false, []]], { "": { "a": [{}] } },
        many(1000),
    ]);
    let nulls = json!([null, [1, null], { "a": null }, { "a": [{ "b": [null] }] }, many(1001), { "a": [many(1001)] }]);
    of(&["eq", "neq", "contains", "not_contains"], compared.clone(), nulls.clone());
    of(&["lt", "lte", "gt", "gte"], json!([0, -1, 0.5, 1e300, u64::MAX]), json!([null, "5", true, [], {}, [5]]));
    let lists = json!([compared.clone(), [5], [[]], [{}], [many(1000)]]);
    of(
        &["in", "not_in"],
        lists,
        json!([null, [], {}, "x", 5, [null], [[null]], [{ "a": null }], many(1001), [many(1001)]]),
    );
    of(&["exists"], json!([true, false]), json!([null, 0, "true", []]));
    of(&["regex", "not_regex"], json!(["", "^a", letters(4096)]), json!([null, 5, ["a"], letters(4097)]));
    let texts = json!(["", "a", ["a"], ["a", "a", ""], vec!["a"; 1000]]);
    of(&["starts_with", "ends_with"], texts, json!([null, 5, [], {}, [5], ["a", null], [["a"]], vec!["a"; 1001]]));
    let lengths = json!([0, -0.0, 1, 1.0, 1e3, 1e300, u64::MAX]);
    of(&["min_length", "max_length"], lengths, json!([null, -1, 0.5, -1e300, "3", [3], true]));
    let types =
        json!(["string", "number", "integer", "boolean", "array", "object", ["string", "string"], vec!["array"; 1000]]);
    of(
        &["type"],
        types,
        json!([null, 5, "null", "int", "String", [], {}, [5], ["string", "float"], vec!["array"; 1001]]),
    );
    let directories = json!([
        ["/"],
        ["/a/b", "/a/../b//."],
        ["/%2", "/%20", "/%2g", "/%0", "/5c", "/ä b*"],
        ["/\n"],
        vec!["/a"; 1000],
    ]);
    let bad = json!([
        null,
        "/a",
        [],
        {},
        [5],
        [""],
        ["a"],
        ["./a"],
        ["/a", "a/b"],
        ["~"],
        ["/a\\b"],
        ["/\u{0}"],
        ["/\n\\"],
        ["/a/%2e%2e"],
        ["/%2E"],
        ["/%2f"],
        ["/%2Fa"],
        ["/%5c"],
        ["/a%5C"],
        ["/%00"],
        ["/%%2e"],
        vec!["/a"; 1001],
    ]);
    of(&["path_within"], directories, bad);
    let hosts = json!([
        ["localhost"],
        ["a.example", "*.a.example"],
        ["A.Example."],
        ["192.0.2.1"],
        ["[2001:db8::1]"],
        ["bücher.example"],
        vec!["a"; 1000],
    ]);
    let bad = json!([
        null,
        "a.example",
        [],
        {},
        [5],
        [""],
        ["*."],
        ["*"],
        ["a.*"],
        ["*.*.a"],
        ["**.a"],
        ["a/"],
        ["https://a"],
        ["a b"],
        ["a\n"],
        ["u@a"],
        ["a?"],
        ["a#"],
        ["a\\"],
        ["a\u{2028}b"],
        vec!["a"; 1001],
    ]);
    of(&["host_in"], hosts, bad);
}

fn paths(documents: &mut Documents) {
    let single = vec![
        "args",
        "args.x",
        "args.x.y",
        "args.x[0][10].y",
        "args[4294967295]",
        "args.max-size",
        "args.größe",
        "args.$x",
        "args.a\\b",
        "args.😀",
        "args.call",
        "args[\"\"]",
        "args[\"a.b\"].c",
        "args[\"[*]\"]",
        "args[\"\\\"[*]\"]",
        "args[\"\\\\\"][0]",
        "args[\"\\u00e4\\ud83d\\uDE00\\n\\/\"]",
        "args[\"\\ud7ff\\ue000\"]",
        "context",
        "context.role",
        "context[\"x-role\"]",
        "call.tool",
        "call.server",
        "call.grant",
        "call.session",
        "call.agent",
        "call.user",
        "call[\"tool\"]",
        "call[\"\\u0075s\\u0065r\"]",
        "time.hour",
        "time.minute",
        "time.weekday",
        "time.date",
        "time[\"date\"]",
        "time[\"h\\u006fur\"]",
        "time[\"h\\u006Fur\"]",
    ];
    let many = ["args[*]", "args.x[*].y", "context[*][*]", "args[\"a\"][*]", "args[\"\\\\\"][*]"];
    let none = [
        "",
        " ",
        "amount",
        "$.amount",
        "Args.x",
        "arg.x",
        ".args",
        "args.",
        "args..x",
        "args.x.",
        "args x",
        "args.a b",
        "args.*",
        "args.a*",
        "args.a<b",
        "args.a=",
        "args.a\"b",
        "args.'a'",
        "args.`a`",
        "args.a]",
        "args.\u{0}",
        "args.\u{85}",
        "args.\u{a0}",
        "args.\u{3000}",
        "args[",
        "args[]",
        "args[x]",
        "args[-1]",
        "args[01]",
        "args[+1]",
        "args[ 0 ]",
        "args[1",
        "args[1]x",
        "args[4294967296]",
        "args[99999999999]",
        "args['x']",
        "args[\"x]",
        "args[\"x\"",
        "args[\"x\"]y",
        "args[\"\n\"]",
        "args[\"\\x\"]",
        "args[\"\\u12\"]",
        "args[\"\\ud800\"]",
        "args[\"\\udc00\"]",
        "args[\"\\ud800\\u0041\"]",
        "args[**]",
        "context.",
        "context.\u{0}",
        "call",
        "call.",
        "call.id",
        "call.Tool",
        "call.tool.x",
        "call.tool[0]",
        "call[0]",
        "call[*]",
        "call[\"id\"]",
        "call[tool]",
        "call[\"tool\"].x",
        "call[\"tool\\u0000\"]",
        "time",
        "time.second",
        "time.hour.x",
        "time[*]",
        "env.x",
        "args.x\n",
        "\nargs.x",
        "call.tool\n",
    ];
    let bad = [&none.map(Value::from)[..], &[json!(null), json!(5), json!(["args.x"])]].concat();
    let not_single = [&bad[..], &many.map(Value::from)].concat();
    let place = |path| when(json!({ "path": path, "op": "exists", "value": true }));
    documents.of("path", place, json!([&single[..], &many].concat()), json!(bad));
    let place = |path| when(json!({ "path": "args.x", "op": "eq", "value_from": path }));
    documents.of("value_from", place, json!(single), json!(not_single));
    documents.of("amount_from", |path| limit(json!({ "amount_from": path })), json!(single), json!(not_single));
    let parts = single.iter().filter(|path| path.contains(['.', '['])).collect::<Vec<_>>();
    let bad = [&not_single[..], &[json!("args"), json!("context"), json!("tool"), json!("Grant")]].concat();
    documents.of("a part of a scope", |path| limit(json!({ "scope": ["grant", path] })), json!(parts), json!(bad));
    let arguments = single.iter().filter(|path| path.starts_with("args")).collect::<Vec<_>>();
    let bounds = arguments.iter().map(|path| format!("{path}<=")).collect::<Vec<_>>();
    let bind = |path| approval(json!({ "bind": ["args.a", path] }));
    documents.of("a path of bind", bind, json!(arguments), json!(not_single));
    let bad = json!([
        "<=",
        "context.role",
        "call.user<=",
        "args[*]<=",
        "args.x<",
        "args.x<= ",
        "args.x<=<=",
        "args.x>=",
        "x<="
    ]);
    documents.of("a bound of bind", bind, json!(bounds), bad);
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
    documents.of("a limit", place, json!([whole]), json!([&lacking_one[..], &[unknown, both]].concat()));
    let place = |limit| policy(json!({ "all_tools": { "limits": [limit] } }));
    documents.of("a limit of all_tools", place, json!([whole]), json!(lacking_one));
    documents.of(
        "counter",
        |value| limit(json!({ "counter": value })),
        json!(["x", " ", letters(5000)]),
        json!(["", null, 5]),
    );
    documents.of("shadow", |value| limit(json!({ "shadow": value })), json!([true, false]), json!([null, "true", 1]));
    documents.of("on_exceed", |value| limit(json!({ "on_exceed": value })), json!(["", "x"]), json!([null, 5]));

    let durations = json!([
        1,
        90,
        90.0,
        9e1,
        34_560_000,
        "1s",
        "90s",
        "15m",
        "12h",
        "30d",
        "007s",
        "34560000s",
        "576000m",
        "9600h",
        "400d",
        "0000400d",
    ]);
    let no_durations = json!([
        0,
        -0.0,
        0.5,
        -1,
        1.5,
        34_560_001,
        1e300,
        null,
        true,
        [],
        {},
        "",
        "s",
        "0s",
        "000d",
        "1",
        "10x",
        "1S",
        "1 s",
        " 1s",
        "1s ",
        "1s\n",
        "-1s",
        "+1s",
        "1.5h",
        "m15",
        "34560001s",
        "576001m",
        "9601h",
        "401d",
        "4000d",
        "99999999999999999999s",
        "1w",
        "٣s",
    ]);
    let words = json!(["second", "minute", "hour", "day", "week", "month", "in_flight"]);
    let no_words = json!(["minutes", "Minute", "year", "fortnight"]);
    for place in [|window| limit(json!({ "window": window })), |window| rate_limit(json!({ "window": window }))] {
        documents.of("window", place, durations.clone(), no_durations.clone());
        documents.of("window", place, words.clone(), no_words.clone());
    }
    let bad = both_lists(&no_durations, &words);
    documents.of(
        "lease",
        |value| limit(json!({ "window": "in_flight", "lease": value })),
        durations.clone(),
        bad.clone(),
    );
    documents.of("ttl", |value| approval(json!({ "ttl": value })), durations, bad);

    let amounts = json!([0, -0.0, 0.1, 0.000_001, 1e3, 12.5, 9_000_000_000_000_u64, 9e12]);
    let no_amounts = json!([-1, -0.000_001, 9_000_000_000_001_u64, 1e13, u64::MAX, null, true, "1", [1], {}]);
    for key in ["max", "amount"] {
        documents.of(key, |value| limit(json!({ key: value })), amounts.clone(), no_amounts.clone());
    }
    let burst = |value| limit(json!({ "algorithm": "token_bucket", "burst": value }));
    documents.of("burst", burst, amounts.clone(), no_amounts.clone());
    documents.of("max", |value| rate_limit(json!({ "max": value })), amounts, no_amounts);

    let scopes = json!([
        "grant",
        "session",
        "agent",
        "user",
        "server",
        "global",
        ["global"],
        ["grant", "grant"],
        ["session", "agent", "user", "server"],
        ["args.x"],
        ["context.tenant", "call.tool", "time.date"],
    ]);
    let no_scopes = json!([
        "",
        "tool",
        "Grant",
        "args",
        "args.x",
        "context.tenant",
        "call.grant",
        null,
        5,
        {},
        [],
        [""],
        ["tool"],
        ["args"],
        [null],
        ["args.x[*]"],
        [["grant"]],
        ["tenant.id"],
    ]);
    for place in [|scope| limit(json!({ "scope": scope })), |scope| rate_limit(json!({ "scope": scope }))] {
        documents.of("scope", place, scopes.clone(), no_scopes.clone());
    }
    let place = |value| entry(json!({ "rate_limit": value }));
    documents.of(
        "rate_limit",
        place,
        json!([{ "max": 1, "window": 60 }]),
        json!([null, 5, "5/minute", [], { "max": 1 }, { "window": 60 }, { "max": 1, "window": 60, "counter": "c" }]),
    );
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

fn deny_if(rule: Value) -> Value {
    entry(json!({ "deny_if": [rule] }))
}

fn when(condition: Value) -> Value {
    deny_if(json!({ "conditions": [condition] }))
}

/// A comparison with `eq` and more members.
fn equal(members: Value) -> Value {
    when(with(json!({ "path": "args.x", "op": "eq", "value": 1 }), members))
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

fn both_lists(a: &Value, b: &Value) -> Value {
    a.as_array().into_iter().chain(b.as_array()).flatten().cloned().collect()
}

fn letters(count: usize) -> Value {
    "x".repeat(count).into()
}
