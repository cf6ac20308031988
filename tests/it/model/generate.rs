//! Random policies and histories over a small vocabulary, so that calls reach rules and share
//! counters.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

/// A valid document, with its entries in order.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) default: &'static str,
    pub(crate) hide: Vec<String>,
    pub(crate) all_tools: Option<Value>,
    /// The entries in document order.
    pub(crate) tools: Vec<(String, Value)>,
}

impl Document {
    pub(crate) fn to_json(&self) -> String {
        let tools = self.tools.iter().map(|(name, rules)| format!("{}:{rules}", json!(name)));
        let all_tools = self.all_tools.iter().map(|rules| format!("\"all_tools\":{rules},")).collect::<String>();
        format!(
            "{{\"version\":\"1\",\"default\":\"{}\",\"hide\":{},{all_tools}\"tools\":{{{}}}}}",
            self.default,
            json!(self.hide),
            tools.collect::<Vec<_>>().join(",")
        )
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        self.tools.iter().map(|(name, _)| name.clone()).collect()
    }
}

pub(crate) fn document() -> impl Strategy<Value = Document> {
    let names = select(vec!["a", "b", "ab", "a*", "*b", "*a*", "a*b", "ba", "a/~b", "ü.a*"]);
    let tools = btree_map(names, entry(), 0..5).prop_map(|map| map.into_iter().collect::<Vec<_>>()).prop_shuffle();
    let hide = prop_oneof![6 => Just(vec![]), 1 => vec(select(vec!["b", "ab*", "zz"]).prop_map(String::from), 1..3)];
    (select(vec!["allow", "deny"]), hide, proptest::option::weighted(0.3, all_tools()), tools).prop_map(
        |(default, hide, all_tools, tools)| Document {
            default,
            hide,
            all_tools,
            tools: tools.into_iter().map(|(name, rules)| (name.to_owned(), rules)).collect(),
        },
    )
}

fn all_tools() -> impl Strategy<Value = Value> {
    rules_object(rules(true), rules(false), rules(false), vec(limit(), 0..2))
}

pub(crate) fn entry() -> impl Strategy<Value = Value> {
    let rules = rules_object(rules(true), rules(false), rules(false), vec(limit(), 0..3));
    let action = prop_oneof![6 => Just(None), 1 => Just(Some("deny")), 1 => Just(Some("require_approval"))];
    prop_oneof![
        1 => Just(json!({})),
        4 => (rules, action, rate_limit()).prop_map(|(mut rules, action, rate_limit)| {
            if let Some(action) = action {
                rules["action"] = json!(action);
                rules["reason"] = json!("by action");
            }
            if let Some(rate_limit) = rate_limit {
                rules["rate_limit"] = rate_limit;
            }
            rules
        }),
    ]
}

fn rules_object(
    require: impl Strategy<Value = Vec<Value>>,
    deny_if: impl Strategy<Value = Vec<Value>>,
    require_approval_if: impl Strategy<Value = Vec<Value>>,
    limits: impl Strategy<Value = Vec<Value>>,
) -> impl Strategy<Value = Value> {
    (require, deny_if, require_approval_if, limits).prop_map(|(require, deny_if, mut approval, limits)| {
        // These rules can have `reason` in place of `on_deny`.
        for rule in approval.iter_mut().skip(1).filter_map(Value::as_object_mut) {
            if let Some(text) = rule.remove("on_deny") {
                rule.insert("reason".to_owned(), text);
            }
        }
        json!({ "require": require, "deny_if": deny_if, "require_approval_if": approval, "limits": limits })
    })
}

fn rate_limit() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        6 => Just(None),
        1 => (0u32..4).prop_map(|max| Some(json!({ "max": max, "window": 60 }))),
        1 => (1u32..4).prop_map(|max| Some(json!({ "max": max, "window": "1h", "scope": "user" }))),
    ]
}

fn rules(require: bool) -> impl Strategy<Value = Vec<Value>> {
    let conditions = vec(condition(), usize::from(require)..3);
    let rule = (conditions, select(vec![None, Some("as the rule says")])).prop_map(move |(conditions, text)| {
        let mut rule = json!({ "conditions": conditions });
        if require {
            strip_no_match(&mut rule);
        }
        if let Some(text) = text {
            rule["on_deny"] = json!(text);
        }
        rule
    });
    prop_oneof![3 => Just(vec![]), 2 => vec(rule, 1..3)]
}

/// Any condition, including groups.
pub(crate) fn condition() -> impl Strategy<Value = Value> {
    (any_condition(), any::<bool>()).prop_map(|(mut condition, negate)| {
        if negate {
            strip_absent(&mut condition);
            condition = json!({ "not": condition });
        }
        condition
    })
}

fn any_condition() -> impl Strategy<Value = Value> {
    comparison().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..3).prop_map(|conditions| json!({ "any": conditions })),
            vec(inner.clone(), 1..3).prop_map(|conditions| json!({ "all": conditions })),
            inner.prop_map(|mut condition| {
                strip_absent(&mut condition);
                json!({ "not": condition })
            }),
        ]
    })
}

/// Removes `absent`, which is an error below `not`.
fn strip_absent(condition: &mut Value) {
    strip(condition, &|key, _| key == "absent");
}

/// Removes `no_match`, which is an error in `require`.
pub(crate) fn strip_no_match(condition: &mut Value) {
    strip(condition, &|key, value| key == "absent" && value == "no_match");
}

/// Removes these members of conditions at any depth.
fn strip(condition: &mut Value, is_unfit: &dyn Fn(&str, &Value) -> bool) {
    match condition {
        Value::Object(members) => {
            members.retain(|key, value| !is_unfit(key, value));
            members.iter_mut().filter(|(key, _)| *key != "value").for_each(|(_, value)| strip(value, is_unfit));
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| strip(element, is_unfit)),
        _ => {}
    }
}

const PATHS: [&str; 30] = [
    "args",
    "args.x",
    "args.y",
    "args.o",
    "args.o.x",
    "args.l",
    "args.l[0]",
    "args.l[*]",
    "args.l[*].x",
    "args.*",
    "args.l.*",
    "args.o.*.x",
    "args.o[*]",
    "context.x",
    "context.l",
    "input",
    "input.x",
    "input.o.*",
    "call.task",
    "call.tool",
    "call.grant",
    "call.user",
    "call.session",
    "call.agent",
    "call.server",
    "time.hour",
    "time.minute",
    "time.weekday",
    "time.date",
    "args[\"a b\"]",
];
const SINGLE_PATHS: [&str; 9] =
    ["args.x", "args.y", "args.l", "args.l[1]", "args.o", "context.x", "context.l", "call.grant", "time.weekday"];

fn comparison() -> impl Strategy<Value = Value> {
    let path = select(PATHS.to_vec());
    let operand = |value: BoxedStrategy<Value>| {
        prop_oneof![
            4 => value.prop_map(|value| ("value", value)),
            1 => select(SINGLE_PATHS.to_vec()).prop_map(|path| ("value_from", json!(path))),
        ]
    };
    let fixed = |value: BoxedStrategy<Value>| value.prop_map(|value| ("value", value));
    let strings = || vec(select(vec!["a", "A", "ab", "", "x b"]), 1..3).prop_map(|texts| json!(texts)).boxed();
    let text_or_list = || prop_oneof![text(), strings()].boxed();
    let with = |names: &[&'static str], operand: BoxedStrategy<(&'static str, Value)>, folds: bool| {
        (select(names.to_vec()), operand, if folds { any::<bool>().boxed() } else { Just(false).boxed() }).boxed()
    };
    let list = || {
        let long = vec(scalar(), 17..20);
        prop_oneof![8 => vec(compared(), 1..4).boxed(), 1 => long.boxed()].prop_map(|values| json!(values)).boxed()
    };
    let operator = prop_oneof![
        with(&["eq", "neq"], operand(compared().boxed()).boxed(), false),
        with(&["lt", "lte", "gt", "gte"], operand(number().boxed()).boxed(), false),
        with(&["in", "not_in"], operand(list()).boxed(), false),
        with(&["exists"], fixed(any::<bool>().prop_map(|b| json!(b)).boxed()).boxed(), false),
        with(
            &["regex", "not_regex"],
            fixed(
                select(vec!["^a", "b$", "^[ab]+$", "", "A", "^.$", "(?i)^AB", "\\d|k", "^[^/]*$"])
                    .prop_map(|r| json!(r))
                    .boxed()
            )
            .boxed(),
            true
        ),
        with(&["contains", "not_contains"], operand(prop_oneof![text(), scalar()].boxed()).boxed(), false),
        with(&["contains", "not_contains"], operand(text().boxed()).boxed(), true),
        with(&["starts_with", "ends_with"], operand(text_or_list()).boxed(), true),
        with(
            &["min_length", "max_length", "min_items", "max_items"],
            fixed((0u64..4).prop_map(|n| json!(n)).boxed()).boxed(),
            false
        ),
        with(
            &["keys_in"],
            fixed(select(vec![json!([]), json!(["x"]), json!(["y", "x", "o", "l"]), json!(["x", "X", "x"])]).boxed())
                .boxed(),
            false
        ),
        with(
            &["type"],
            fixed(
                select(vec![
                    json!("string"),
                    json!("integer"),
                    json!("number"),
                    json!(["array", "object"]),
                    json!(["boolean", "string"])
                ])
                .boxed()
            )
            .boxed(),
            false
        ),
        with(
            &["path_within"],
            fixed(select(vec![json!(["/w"]), json!(["/w/a", "/etc"]), json!(["/"])]).boxed()).boxed(),
            false
        ),
        with(
            &["host_in"],
            fixed(select(vec![json!(["a.io"]), json!(["*.a.io", "b.io"]), json!(["[::ffff:127.0.0.1]"])]).boxed())
                .boxed(),
            false
        ),
    ];
    let absent = prop_oneof![8 => Just(None), 2 => Just(Some("match")), 1 => Just(Some("no_match"))];
    (path, operator, absent).prop_map(|(path, (op, (key, value), fold), absent)| {
        let mut condition = json!({ "path": path, "op": op, key: value });
        fit_time(&mut condition);
        if fold {
            condition["ignore_case"] = json!(true);
        }
        if let Some(absent) = absent.filter(|_| op != "exists") {
            condition["absent"] = json!(absent);
        }
        condition
    })
}

/// Replaces each value that the time cannot have. Another one that depends on it takes its place.
pub(crate) fn fit_time(condition: &mut Value) {
    let path = condition["path"].as_str().unwrap_or_default().to_owned();
    // A date has no order.
    if path == "time.date" && matches!(condition["op"].as_str(), Some("lt" | "lte" | "gt" | "gte")) {
        condition["op"] = json!("eq");
    }
    let fit = |value: &mut Value| {
        let some = value.to_string().bytes().map(u64::from).sum::<u64>();
        *value = match &*path {
            "time.hour" => json!(some % 24),
            "time.minute" => json!(some % 60),
            "time.weekday" => json!(some % 7 + 1),
            "time.date" => json!(["2026-01-14", "2026-01-15", "2026-01-16", "2028-02-29"][some as usize % 4]),
            _ => return,
        };
    };
    let op = condition["op"].clone();
    match (op.as_str().unwrap_or_default(), condition.get_mut("value")) {
        ("eq" | "neq" | "lt" | "lte" | "gt" | "gte", Some(value)) => fit(value),
        ("in" | "not_in", Some(Value::Array(values))) => values.iter_mut().for_each(fit),
        _ => {}
    }
}

fn text() -> BoxedStrategy<Value> {
    select(vec!["", "a", "A", "ab", "AB", "b", "x b", "\u{212a}", "k", "ß", "ẞ", "1", "true", "/w/a", "2026-01-15"])
        .prop_map(|text| json!(text))
        .boxed()
}

fn number() -> BoxedStrategy<Value> {
    prop_oneof![
        4 => (-2i64..5).prop_map(|n| json!(n)),
        2 => select(vec![0.5, 1.0, 2.0, -0.0, 1.5, 1e300, 5e-324, 9_007_199_254_740_992.0]).prop_map(|n| json!(n)),
        1 => select(vec![9_007_199_254_740_993u64, u64::MAX, 9_007_199_254_740_992]).prop_map(|n| json!(n)),
        1 => Just(json!(i64::MIN)),
    ]
    .boxed()
}

fn scalar() -> BoxedStrategy<Value> {
    prop_oneof![2 => text(), 2 => number(), 1 => any::<bool>().prop_map(|b| json!(b))].boxed()
}

/// A value that a rule can compare with, without `null`.
fn compared() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|values| json!(values)),
            btree_map(select(vec!["x", "y"]), inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

/// Any value of an argument.
pub(crate) fn argument() -> impl Strategy<Value = Value> {
    let urls = select(vec![
        "https://a.io/x",
        "https://x.a.io",
        "http://b.io:80/",
        "https://u@a.io",
        "a.io",
        "https://A.IO./",
        "https://evil.io/a.io",
        "/w",
        "/w/../etc",
        "/w/a/b",
        "/w/%2e",
        "w/a",
        "/w\\a",
        "//w/a",
        "/w/.. /etc",
        "/w/...",
        "https:a.io",
        "https:///a.io",
        "http://[::ffff:7f00:1]/",
        "http://127.0.0.1/",
    ]);
    let leaf = prop_oneof![4 => scalar(), 1 => Just(Value::Null), 1 => urls.prop_map(|url| json!(url))];
    leaf.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| json!(values)),
            btree_map(member_name(), inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Names of members, seldom with two that differ in case.
fn member_name() -> BoxedStrategy<&'static str> {
    prop_oneof![30 => select(vec!["x", "y", "o", "l", "a b"]), 1 => select(vec!["X", "L", "A b"])].boxed()
}

/// The arguments or the context of a call, mostly an object.
fn members() -> impl Strategy<Value = Value> {
    btree_map(member_name(), argument(), 0..5).prop_map(|map| json!(map))
}

/// A limit. Limits of one counter agree: the name determines everything except maximum and amount.
fn limit() -> impl Strategy<Value = Value> {
    limit_of(&[
        ("grants", json!({ "window": "minute", "scope": "grant" })),
        ("days", json!({ "window": "day", "scope": ["grant", "args.x"], "utc_offset": "+02:00" })),
        ("sevens", json!({ "window": 7, "scope": "global" })),
        ("months", json!({ "window": "month", "scope": ["user", "context.x"] })),
        ("slides", json!({ "window": "90s", "scope": "grant", "algorithm": "sliding" })),
        ("buckets", json!({ "window": 30, "scope": "grant", "algorithm": "token_bucket" })),
        ("flights", json!({ "window": "in_flight", "scope": "global", "lease": "45s" })),
        ("sessions", json!({ "window": "hour", "scope": "session" })),
        ("for good", json!({ "window": "lifetime", "scope": "grant" })),
        ("agents", json!({ "window": "12h", "scope": ["agent", "server"] })),
        ("seconds", json!({ "window": "second", "scope": "global", "utc_offset": "-00:30" })),
        ("weeks", json!({ "window": "week", "scope": "user", "algorithm": "sliding" })),
        (
            "filling",
            json!({ "window": "month", "scope": ["grant", "call.tool"], "algorithm": "token_bucket", "burst": 2 }),
        ),
    ])
}

fn limit_of(counters: &[(&'static str, Value)]) -> BoxedStrategy<Value> {
    let counters = select(counters.to_vec());
    let cost = prop_oneof![
        3 => Just(None),
        1 => select(vec![json!(0), json!(0.5), json!(2)]).prop_map(|amount| Some(("amount", amount))),
        2 => select(vec!["args.x", "args.y", "context.x"]).prop_map(|path| Some(("amount_from", json!(path)))),
    ];
    let max = prop_oneof![5 => (1u32..5).prop_map(|max| json!(max)), 1 => Just(json!(0)), 1 => Just(json!(2.5))];
    let host_max = prop_oneof![8 => Just(None), 1 => select(vec!["context.m", "context.x"]).prop_map(Some)];
    (counters, cost, max, host_max, proptest::bool::weighted(0.2), any::<bool>())
        .prop_map(|((counter, mut limit), cost, max, host_max, shadow, text)| {
            limit["counter"] = json!(counter);
            limit["max"] = max;
            if let Some((key, value)) = cost {
                limit[key] = value;
            }
            if let Some(path) = host_max {
                limit["max_from"] = json!(path);
            }
            if shadow {
                limit["shadow"] = json!(true);
            }
            if text {
                limit["on_exceed"] = json!("slow down");
            }
            limit
        })
        .boxed()
}

/// Two policies that mostly count, by every algorithm and with the same names. In the second, some
/// counters use another algorithm.
pub(crate) fn counting_documents() -> impl Strategy<Value = [Document; 2]> {
    let counters = [
        ("plain", json!({ "window": "minute", "scope": "global" })),
        ("weeks", json!({ "window": "week", "scope": "grant", "utc_offset": "-05:30" })),
        ("slides", json!({ "window": 64, "scope": "global", "algorithm": "sliding" })),
        ("second", json!({ "window": "second", "scope": "grant", "algorithm": "sliding" })),
        ("bucket", json!({ "window": "minute", "scope": "global", "algorithm": "token_bucket" })),
        ("burst", json!({ "window": 7, "scope": "grant", "algorithm": "token_bucket", "burst": 3.5 })),
        ("flight", json!({ "window": "in_flight", "scope": "global" })),
        ("lease", json!({ "window": "in_flight", "scope": ["grant", "args.x"], "lease": 20 })),
        ("other", json!({ "window": "hour", "scope": "global" })),
        ("whole", json!({ "window": "lifetime", "scope": "global" })),
    ];
    let mut others = counters.clone();
    others[0].1 = json!({ "window": "minute", "scope": "global", "algorithm": "sliding" });
    others[2].1 = json!({ "window": 64, "scope": "global", "algorithm": "token_bucket" });
    others[6].1 = json!({ "window": "in_flight", "scope": "global", "lease": "1m" });
    (counting_document(&counters), counting_document(&others)).prop_map(|(one, two)| [one, two])
}

fn counting_document(counters: &[(&'static str, Value)]) -> impl Strategy<Value = Document> + use<> {
    let rules = |limits: BoxedStrategy<Vec<Value>>| {
        let action = prop_oneof![12 => Just("allow"), 1 => Just("require_approval")];
        let rate = prop_oneof![
            6 => Just(None),
            1 => (0u32..4).prop_map(|max| Some(json!({ "max": max, "window": "in_flight", "scope": "grant" }))),
            1 => (1u32..4).prop_map(|max| Some(json!({ "max": max, "window": 60, "scope": "global" }))),
        ];
        (limits, action, rate).prop_map(|(limits, action, rate)| {
            let mut rules = json!({ "limits": limits, "action": action });
            if let Some(rate) = rate {
                rules["rate_limit"] = rate;
            }
            rules
        })
    };
    let some = |most: usize| vec(limit_of(counters), 0..most).boxed();
    let names = select(vec!["a", "b", "a*", "*b"]);
    let tools =
        btree_map(names, rules(some(4)), 1..4).prop_map(|map| map.into_iter().collect::<Vec<_>>()).prop_shuffle();
    let all_tools = proptest::option::weighted(0.4, some(3).prop_map(|limits| json!({ "limits": limits })));
    (select(vec!["allow", "deny"]), all_tools, tools).prop_map(|(default, all_tools, tools)| Document {
        default,
        hide: Vec::new(),
        all_tools,
        tools: tools.into_iter().map(|(name, rules)| (name.to_owned(), rules)).collect(),
    })
}

/// An event of a history.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A call as in a trace step, and the microseconds since the one before, which may be negative.
    Call(Value, i64),
    /// The release of one of the calls so far.
    Release(Index),
    /// The real amount of one of the calls so far, and the microseconds until then.
    Settle(Index, Value, i64),
    /// The end of one of the calls so far.
    End(Index),
    Store {
        down: bool,
    },
    /// Replaces the policy by the other one.
    Swap,
}

pub(crate) fn call() -> impl Strategy<Value = Value> {
    let identity = || select(vec![None, Some("g1"), Some("g2"), Some("")]);
    let arguments = prop_oneof![8 => members(), 1 => Just(Value::Null), 1 => argument()];
    let tool = select(vec!["a", "b", "ab", "ba", "aab", "c", "zz", "a/~b", "ü.ab"]);
    let identities = [(); 5].map(|()| identity());
    let beside = (proptest::option::weighted(0.2, members()), proptest::bool::weighted(0.1));
    (tool, arguments, proptest::option::of(members()), identities, beside).prop_map(
        |(tool, arguments, context, [grant, user, session, agent, server], (input, task))| {
            let mut call = json!({ "tool": tool, "arguments": arguments });
            let identities =
                [("grant", grant), ("user", user), ("session", session), ("agent", agent), ("server", server)];
            for (key, name) in identities {
                if let Some(name) = name {
                    call[key] = json!(name);
                }
            }
            if let Some(context) = context {
                call["context"] = context;
            }
            if let Some(input) = input {
                call["input"] = input;
            }
            if task {
                call["task"] = json!(true);
            }
            call
        },
    )
}

/// A pause in microseconds.
fn pause() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => Just(0i64),
        3 => 0i64..90_000_000,
        2 => 0i64..1_100_000,
        2 => select(vec![1, 15_624, 15_625, 250_000, 999_999, 1_000_000]),
        1 => select(vec![7_000_000, 60_000_000, 64_000_000, 300_000_000]),
        1 => -90_000_000i64..0,
        1 => 0i64..4_000_000_000_000,
    ]
}

/// The start of a history, relative to the usual day: in any century, at the end of a February, or
/// before 1970.
fn era() -> impl Strategy<Value = i64> {
    const DAY: i64 = 86_400_000_000;
    prop_oneof![
        6 => Just(0),
        1 => -30_000 * DAY..60_000 * DAY,
        1 => select(vec![773, 775, 27_071, -20_468, -20_469, -9_454]).prop_map(|days| days * DAY),
    ]
}

pub(crate) fn history() -> impl Strategy<Value = Vec<Event>> {
    history_of(call().boxed(), 14)
}

/// A history of calls that are mostly counted.
pub(crate) fn counted_history() -> impl Strategy<Value = Vec<Event>> {
    history_of(counted_call().boxed(), 24)
}

fn history_of(call: BoxedStrategy<Value>, most: usize) -> impl Strategy<Value = Vec<Event>> {
    let events = vec(
        prop_oneof![
            12 => (call, pause()).prop_map(|(call, pause)| Event::Call(call, pause)),
            2 => any::<Index>().prop_map(Event::Release),
            3 => (any::<Index>(), real_amount(), pause()).prop_map(|(of, real, pause)| Event::Settle(of, real, pause)),
            2 => any::<Index>().prop_map(Event::End),
            1 => proptest::bool::weighted(0.3).prop_map(|down| Event::Store { down }),
            1 => Just(Event::Swap),
        ],
        1..most,
    );
    (era(), events).prop_map(|(era, mut events)| {
        if let Some(Event::Call(_, pause)) = events.first_mut() {
            *pause += era;
        }
        events
    })
}

fn real_amount() -> impl Strategy<Value = Value> {
    select(vec![
        json!(0),
        json!(0.000_001),
        json!(0.5),
        json!(1),
        json!(1.75),
        json!(3),
        json!(40),
        json!(-1),
        json!(1e-7),
        json!("2"),
        json!(1e13),
    ])
}

pub(crate) fn counted_call() -> impl Strategy<Value = Value> {
    let number = || {
        prop_oneof![
            4 => select(vec![json!(0), json!(1), json!(1), json!(2), json!(0.5), json!(0.000_001), json!(3.25)]),
            1 => argument(),
        ]
    };
    let tool = select(vec!["a", "b", "ab"]);
    let grant = select(vec![Some("g1"), Some("g1"), Some("g1"), Some("g2"), None]);
    let host_max =
        select(vec![json!(9), json!(4), json!(2), json!(1), json!(0), json!(0.5), json!("3"), json!(-1), Value::Null]);
    (tool, number(), number(), grant, host_max).prop_map(|(tool, x, y, grant, host_max)| {
        let context = json!({ "x": 1, "m": host_max });
        let mut call = json!({ "tool": tool, "arguments": { "x": x, "y": y }, "context": context });
        if let Some(grant) = grant {
            call["grant"] = json!(grant);
        }
        call
    })
}
