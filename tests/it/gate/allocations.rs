//! An allowed call allocates nothing, and a denied one nothing before its rule is asked for.
//! `allocation_counter` counts the allocations of the measuring thread alone. Everything runs once
//! before it is measured: a regular expression allocates its scratch space, and a store the row of
//! a caller, at the first use.

use std::time::Duration;

use allocation_counter::measure;
use serde_json::{Map, Value, json};
use toolgate::{Amount, Decision, Gate, ManualClock, Policy, Timestamp, ToolCall};

/// A Thursday morning.
const NOW: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

fn policy(document: &Value) -> Policy {
    Policy::try_from(document).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// A policy with one tool.
fn policy_of(tool: &str, rules: &Value) -> Policy {
    policy(&json!({ "version": "1", "default": "deny", "tools": { tool: rules } }))
}

/// Returns how often `work` allocates when it runs for the second time.
fn allocations(mut work: impl FnMut()) -> u64 {
    work();
    measure(work).count_total
}

/// Returns conditions, each with arguments for which it holds.
fn conditions() -> Vec<(Value, Value)> {
    let condition = |op: &str, value: Value| json!({ "path": "args.x", "op": op, "value": value });
    let same = |op: &str| json!({ "path": "args.x", "op": op, "value_from": "args.y" });
    let ignoring_case =
        |op: &str, value: &str| json!({ "path": "args.x", "op": op, "value": value, "ignore_case": true });
    let x = |value: Value| json!({ "x": value });
    let xy = |x: Value, y: Value| json!({ "x": x, "y": y });
    vec![
        (condition("eq", json!("eur")), x(json!("eur"))),
        (condition("eq", json!(100)), x(json!(1e2))),
        (condition("eq", json!(0.1)), x(json!(0.1))),
        (condition("eq", json!({ "a": [1, { "b": true }] })), x(json!({ "a": [1, { "b": true }] }))),
        (condition("neq", json!("eur")), x(json!("usd"))),
        (condition("lt", json!(10.5)), x(json!(10))),
        (condition("lte", json!(50_000)), x(json!(50_000))),
        (condition("gt", json!(0)), x(json!(0.25))),
        (condition("gte", json!(u64::MAX)), x(json!(u64::MAX))),
        (condition("in", json!(["usd", "eur", 3])), x(json!("eur"))),
        (condition("not_in", json!(["usd", "eur"])), x(json!("chf"))),
        (condition("exists", json!(true)), x(json!(false))),
        (condition("exists", json!(false)), x(json!(null))),
        (condition("regex", json!("^[A-Za-z0-9 ._-]{1,200}$")), x(json!("Invoice 2026-0117 for seat licences"))),
        (condition("not_regex", json!("(?i)drop\\s+table")), x(json!("select name from customers"))),
        (ignoring_case("regex", "^select\\b"), x(json!("SELECT 1"))),
        (condition("contains", json!("@example.com")), x(json!("ann@example.com"))),
        (condition("contains", json!("a")), x(json!(["b", "a"]))),
        (ignoring_case("contains", "straße"), x(json!("Lange STRAẞE 7"))),
        (condition("not_contains", json!("..")), x(json!("a/b"))),
        (condition("starts_with", json!(["feature/", "fix/"])), x(json!("fix/typo"))),
        (ignoring_case("starts_with", "fix/"), x(json!("FIX/typo"))),
        (condition("ends_with", json!(".md")), x(json!("README.md"))),
        (ignoring_case("ends_with", ".MD"), x(json!("readme.md"))),
        (condition("min_length", json!(3)), x(json!("größe"))),
        (condition("max_length", json!(3)), x(json!("grö"))),
        (condition("max_items", json!(3)), x(json!([1, 2, 3]))),
        (condition("min_items", json!(1)), x(json!({ "a": 1 }))),
        (condition("keys_in", json!(["b", "a"])), x(json!({ "a": 1, "b": {} }))),
        (condition("type", json!(["integer", "string"])), x(json!(7.0))),
        (condition("path_within", json!(["/workspace", "/tmp"])), x(json!("/workspace/a/./b/../c"))),
        (condition("host_in", json!(["api.example.com", "*.example.org"])), x(json!("https://API.example.com:443/v1"))),
        (condition("host_in", json!(["api.example.com", "*.example.org"])), x(json!("http://a.b.example.org."))),
        (same("eq"), xy(json!({ "a": 1 }), json!({ "a": 1.0 }))),
        (same("neq"), xy(json!("a"), json!("b"))),
        (same("lte"), xy(json!(1.5), json!(2))),
        (same("in"), xy(json!("a"), json!(["b", "a"]))),
        (same("not_in"), xy(json!("c"), json!(["b", "a"]))),
        (same("contains"), xy(json!("abc"), json!("b"))),
        (same("starts_with"), xy(json!("abc"), json!(["x", "ab"]))),
        (same("ends_with"), xy(json!("abc"), json!("bc"))),
        (json!({ "path": "args.x[*].price", "op": "lt", "value": 10 }), x(json!([{ "price": 1 }, { "price": 9.5 }]))),
        (json!({ "path": "args.x.*[*]", "op": "type", "value": "number" }), x(json!({ "a": [1, 2], "b": [3] }))),
        (json!({ "path": "args.x[1][\"a.b\"]", "op": "eq", "value": 1 }), x(json!([0, { "a.b": 1 }]))),
        (json!({ "path": "time.hour", "op": "gte", "value": 8 }), json!({})),
        (json!({ "path": "time.minute", "op": "lte", "value": 59 }), json!({})),
        (json!({ "path": "time.weekday", "op": "in", "value": [1, 2, 3, 4, 5] }), json!({})),
        (json!({ "path": "time.date", "op": "starts_with", "value": "2026-" }), json!({})),
        (json!({ "path": "args.x", "op": "eq", "value_from": "time.date" }), x(json!("2026-01-15"))),
        (json!({ "path": "call.grant", "op": "eq", "value_from": "args.x" }), x(json!("g-1"))),
        (json!({ "path": "call.tool", "op": "ends_with", "value": "charge" }), json!({})),
        (json!({ "path": "context.roles", "op": "contains", "value": "finance" }), json!({})),
        (json!({ "path": "args.x", "op": "lt", "value": 5, "absent": "match" }), json!({})),
        (
            json!({ "any": [condition("eq", json!(1)),
                            { "all": [condition("eq", json!(2)), condition("lt", json!(3))] }] }),
            x(json!(2)),
        ),
        (json!({ "not": condition("regex", json!("[0-9]{4}")) }), x(json!("abc"))),
    ]
}

#[test]
fn conditions_of_an_allowed_call_allocate_nothing() {
    let context = Map::from_iter([("roles".to_owned(), json!(["support", "finance"]))]);
    for (condition, arguments) in conditions() {
        let policy = policy_of("create_charge", &json!({ "require": [{ "conditions": [condition] }] }));
        let call = ToolCall::new("create_charge", &arguments).grant("g-1").context(&context);
        assert!(policy.evaluate(&call, NOW).is_allowed(), "{condition} {arguments}");
        let counted = allocations(|| assert!(policy.evaluate(&call, NOW).is_allowed()));
        assert_eq!(counted, 0, "{condition} {arguments}");
    }
}

#[test]
fn a_denial_allocates_nothing_before_its_rule_is_asked_for() {
    let context = Map::from_iter([("roles".to_owned(), json!(["support", "finance"]))]);
    let mut denied = 0;
    for (condition, arguments) in conditions() {
        let rules = json!({ "deny_if": [{ "conditions": [condition], "on_deny": "Not so." }] });
        let policy = policy_of("create_charge", &rules);
        let call = ToolCall::new("create_charge", &arguments).grant("g-1").context(&context);
        let evaluation = policy.evaluate(&call, NOW);
        // A `deny_if` does not match an absent path.
        if evaluation.is_allowed() {
            continue;
        }
        let asked = measure(|| assert_eq!(evaluation.rule().as_deref(), Some("/tools/create_charge/deny_if/0")));
        assert!(asked.count_total > 0, "the pointer is a new text: nothing is measured");
        let counted = allocations(|| {
            let evaluation = policy.evaluate(&call, NOW);
            assert_eq!((evaluation.code().is_some(), evaluation.message()), (true, Some("Not so.")));
        });
        assert_eq!(counted, 0, "{condition} {arguments}");
        denied += 1;
    }
    assert!(denied > 40, "only {denied} of the conditions deny");
}

#[test]
fn denials_of_every_kind_allocate_nothing() {
    let amount = |op: &str| json!([{ "conditions": [{ "path": "args.amount", "op": op, "value": 100 }] }]);
    let policy = policy(&json!({
        "version": "1", "default": "deny", "hide": ["delete_account", "internal_*"],
        "tools": {
            "refund_*": { "action": "deny", "reason": "Refunds are made by people." },
            "charge": { "require": amount("lte") },
            "pay": { "deny_if": amount("gt") },
            "ask": { "require_approval_if": amount("gt") },
            "sign": { "action": "require_approval" },
        },
    }));
    let (large, malformed) = (json!({ "amount": 101 }), json!([]));
    for (tool, arguments, code) in [
        ("delete_account", &large, "hidden"),
        ("internal_reset", &large, "hidden"),
        ("unknown", &large, "default_deny"),
        ("refund_all", &large, "action_deny"),
        ("charge", &large, "require"),
        ("pay", &large, "deny_if"),
        ("ask", &large, "approval"),
        ("sign", &large, "approval"),
        ("charge", &malformed, "malformed_call"),
    ] {
        let call = ToolCall::new(tool, arguments);
        let counted = allocations(|| {
            let evaluation = policy.evaluate(&call, NOW);
            assert_eq!(evaluation.code().map(|code| code.as_str()), Some(code), "{tool}");
            let _ = evaluation.message();
        });
        assert_eq!(counted, 0, "{tool} {code}");
    }
}

#[test]
fn names_and_patterns_allocate_nothing() {
    let tools: Map<String, Value> = (0..359)
        .map(|index| format!("tool_{index}"))
        .chain((0..20).map(|index| format!("server{index}_*_read")))
        .chain(["server7_*".into(), "*_read".into(), "server*read*".into()])
        .map(|name| (name, json!({})))
        .collect();
    let policy = policy(&json!({ "version": "1", "default": "deny", "tools": tools }));
    let arguments = json!({});
    for tool in ["tool_358", "server7_file_read", "server19_a_read", "any_read"] {
        let call = ToolCall::new(tool, &arguments);
        assert_eq!(allocations(|| assert!(policy.evaluate(&call, NOW).is_allowed(), "{tool}")), 0, "{tool}");
        assert_eq!(allocations(|| assert!(policy.lists(tool))), 0, "{tool}");
    }
}

/// Returns documents with different limits, and how many limits apply to the call.
fn limits() -> Vec<(Value, usize)> {
    let limit = |counter: &str, window: &str, scope: Value| {
        let max = 1_000;
        json!({ "counter": counter, "window": window, "scope": scope, "max": max })
    };
    let with = |limit: Value, key: &str, value: Value| {
        let mut limit = limit;
        limit[key] = value;
        limit
    };
    let tool = |limits: Value| json!({ "tools": { "charge": { "limits": limits } } });
    let one = limit("calls", "minute", json!("grant"));
    vec![
        (json!({ "tools": { "charge": {} } }), 0),
        (tool(json!([one])), 1),
        (tool(json!([one, limit("daily", "day", json!("grant")), limit("monthly", "month", json!("grant"))])), 3),
        (tool(json!([one, limit("s", "hour", json!("session")), limit("u", "week", json!("user"))])), 3),
        (
            tool(json!([
                one,
                limit("s", "hour", json!("session")),
                limit("u", "90s", json!("user")),
                limit("all", "second", json!("global"))
            ])),
            4,
        ),
        (tool(json!([with(one.clone(), "shadow", json!(true))])), 1),
        (tool(json!([with(one.clone(), "amount_from", json!("args.amount"))])), 1),
        (tool(json!([with(one.clone(), "amount", json!(0.25)), with(one.clone(), "max", json!(500))])), 2),
        (tool(json!([with(limit("local", "day", json!("grant")), "utc_offset", json!("+05:30"))])), 1),
        (tool(json!([limit("each", "day", json!(["grant", "args.customer"]))])), 1),
        (tool(json!([limit("each", "day", json!(["args.amount", "agent", "server"]))])), 1),
        (json!({ "tools": { "charge": { "rate_limit": { "max": 1_000, "window": 60 } } } }), 1),
        (json!({ "all_tools": { "limits": [one] }, "tools": { "ch*": {}, "*ge": {} } }), 1),
        (
            json!({ "all_tools": { "limits": [one] },
                 "tools": { "charge": { "limits": [limit("own", "hour", json!("user"))] },
                            "c*e": { "limits": [limit("some", "hour", json!("grant"))] } } }),
            3,
        ),
        (
            json!({ "all_tools": { "limits": [one] },
                 "tools": { "charge": { "require": [{ "conditions": [
                                { "path": "args.amount", "op": "lte", "value": 50000 },
                                { "path": "args.customer", "op": "regex", "value": "^cus_[a-z0-9]+$" },
                                { "path": "time.weekday", "op": "lte", "value": 5 }] }] } } }),
            1,
        ),
        (tool(json!([with(one.clone(), "algorithm", json!("sliding"))])), 1),
        (tool(json!([with(one.clone(), "algorithm", json!("token_bucket"))])), 1),
        // Two buckets, each with its own charge.
        (
            tool(json!([
                with(one.clone(), "algorithm", json!("token_bucket")),
                with(with(one.clone(), "algorithm", json!("token_bucket")), "max", json!(900)),
            ])),
            2,
        ),
        (tool(json!([limit("running", "in_flight", json!("grant"))])), 1),
        (tool(json!([with(limit("bytes", "in_flight", json!("user")), "amount_from", json!("args.amount"))])), 1),
        (
            tool(json!([
                with(limit("slides", "hour", json!("grant")), "algorithm", json!("sliding")),
                with(limit("bucket", "hour", json!("user")), "algorithm", json!("token_bucket")),
                with(limit("spend", "month", json!("grant")), "amount_from", json!("args.amount")),
                limit("running", "in_flight", json!("global")),
            ])),
            4,
        ),
    ]
}

fn arguments() -> Value {
    json!({ "amount": 12.5, "customer": "cus_9s6x" })
}

fn call(arguments: &Value) -> ToolCall<'_> {
    ToolCall::new("charge", arguments).grant("grant-42").session("s-7").user("ann").agent("bot").server("billing")
}

fn gate(document: Value, clock: ManualClock) -> Gate {
    let mut document = document;
    (document["version"], document["default"]) = (json!("1"), json!("deny"));
    Gate::builder().policy(policy(&document)).clock(clock).build()
}

#[test]
fn an_allowed_call_allocates_nothing() {
    let arguments = arguments();
    for (document, limits) in limits() {
        let gate = gate(document.clone(), ManualClock::new(NOW));
        let call = call(&arguments);
        let Decision::Allow(permit) = gate.check(&call) else { panic!("{document}") };
        assert_eq!(permit.limits().len(), limits, "{document}");
        drop(permit);
        // The decision and the drop of its permit. The call stays counted.
        assert_eq!(allocations(|| assert!(gate.check(&call).is_allowed())), 0, "{document}");
        let released = allocations(|| match gate.check(&call) {
            Decision::Allow(permit) => permit.release(),
            refused => panic!("{document} {refused:?}"),
        });
        assert_eq!(released, 0, "{document}, released");
        let settled = allocations(|| match gate.check(&call) {
            Decision::Allow(mut permit) => permit.settle(Amount::ONE).unwrap(),
            refused => panic!("{document} {refused:?}"),
        });
        assert_eq!(settled, 0, "{document}, settled");
        let ended = allocations(|| match gate.check(&call) {
            Decision::Allow(permit) => permit.end(),
            refused => panic!("{document} {refused:?}"),
        });
        assert_eq!(ended, 0, "{document}, ended");
    }
}

/// A queue grows up to a bound: 65 steps of a sliding window, or one lease for each call in flight.
#[test]
fn a_grown_queue_allocates_nothing() {
    let arguments = arguments();
    let documents = [
        json!({ "counter": "slides", "window": "minute", "max": 1_000, "scope": "grant", "algorithm": "sliding" }),
        json!({ "counter": "running", "window": "in_flight", "max": 1_000, "scope": "grant" }),
    ];
    for limit in documents {
        let clock = ManualClock::new(NOW);
        let gate = gate(json!({ "tools": { "charge": { "limits": [limit] } } }), clock.clone());
        let call = call(&arguments);
        let held = Vec::with_capacity(100);
        let held = std::cell::RefCell::new(held);
        // One step of the window apart, with as many calls in flight as before.
        let counted = allocations(|| {
            for _ in 0..100 {
                clock.advance(Duration::from_micros(937_500));
                match gate.check(&call) {
                    Decision::Allow(permit) => held.borrow_mut().push(permit),
                    refused => panic!("{limit} {refused:?}"),
                }
            }
            held.borrow_mut().clear();
        });
        assert_eq!(counted, 0, "{limit}");
    }
}

#[test]
fn a_new_window_of_a_known_caller_allocates_nothing() {
    let arguments = arguments();
    for (document, _) in limits() {
        let clock = ManualClock::new(NOW);
        let gate = gate(document.clone(), clock.clone());
        let call = call(&arguments);
        let counted = allocations(|| {
            // Another window of each length, on the same day of the week.
            clock.advance(Duration::from_secs(42 * 86_400));
            assert!(gate.check(&call).is_allowed(), "{document}");
        });
        assert_eq!(counted, 0, "{document}");
    }
}

#[test]
fn a_clone_of_a_gate_and_the_system_clock_allocate_nothing() {
    let document = json!({ "version": "1", "default": "deny",
        "tools": { "charge": { "rate_limit": { "max": 1_000, "window": 60 } } } });
    let gate = Gate::new(policy(&document));
    let arguments = arguments();
    assert_eq!(allocations(|| assert!(gate.clone().check(&call(&arguments)).is_allowed())), 0);
}
