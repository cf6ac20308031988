//! Documents for schema and parser: valid ones, and those with one mistake.

use serde_json::{Value, json};
use toolgate::IssueCode;

use super::parts::{CONDITION, all_tools, approval, deny_if, entry, lacking, letters, limit, policy, when, with};

/// Documents, each with the key or value that it tests.
#[derive(Default)]
pub(super) struct Documents {
    pub(super) valid: Vec<(&'static str, Value)>,
    /// Each has one mistake.
    pub(super) invalid: Vec<(&'static str, Value)>,
}

impl Documents {
    /// Puts each value of two lists in a place of a document: `good` ones are valid there, `bad`
    /// ones are not.
    pub(super) fn of(&mut self, what: &'static str, place: impl Fn(Value) -> Value, good: Value, bad: Value) {
        let place = |values: Value| match values {
            Value::Array(values) => values.into_iter().map(|value| (what, place(value))).collect::<Vec<_>>(),
            _ => panic!("{what}: not a list"),
        };
        self.valid.extend(place(good));
        self.invalid.extend(place(bad));
    }
}

pub(super) fn documents() -> Documents {
    let mut documents = Documents::default();
    document_keys(&mut documents);
    entries(&mut documents);
    rules(&mut documents);
    super::conditions::all(&mut documents);
    super::limits::all(&mut documents);
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
        json!([null, "a", {}, [""], [null], [["a"]], ["a\u{7}"], [letters(257)]]),
    );
    documents.of("tools", |value| policy(json!({ "tools": value })), json!([{}]), json!([null, [], "a"]));
    documents.of(
        "a name of tools",
        |name| policy(json!({ "tools": { name.as_str().unwrap(): {} } })),
        json!(["a", "a*", "*a", "*a**b*", "räume/suchen", " ", ".", letters(256)]),
        json!(["", "*", "**", "\u{0}a", "a*\u{1f}", "\u{1}", letters(257)]),
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
        json!([[""], ["ann", "ben"], ["\t"]]),
        json!([[], null, "ann", {}, [5], ["ann", null], ["ann", "\u{8}"]]),
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
        json!([[], ["args.x"], ["args.x", "args.x"], ["args.x<="]]),
        json!([null, {}, "args.x", [5], [["args.x"]]]),
    );
    documents.of(
        "uses",
        |value| approval(json!({ "uses": value })),
        json!([1, 2.0, 1e2, 1000]),
        json!([0, -1, 1.5, 1001, 1e300, u64::MAX, null, "1", [1]]),
    );
}

/// Returns documents that no schema can refuse, each with the issue that the parser reports.
pub(super) fn inexpressible() -> Vec<(&'static str, String, IssueCode)> {
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
        ("many bytes with ignore_case", when(folded).to_string(), IssueCode::TooLong),
        ("an invalid regex", compare("regex", "(".into()), IssueCode::InvalidRegex),
        ("a large regex", compare("not_regex", r"\w{500}".into()), IssueCode::RegexTooLarge),
        ("an invalid host", compare("host_in", json!(["a:80"])), IssueCode::InvalidValue),
        ("a wildcard before an address", compare("host_in", json!(["*.192.0.2.1"])), IssueCode::InvalidValue),
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
