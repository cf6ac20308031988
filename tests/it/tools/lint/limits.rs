//! Limits without effect, and counters that were likely meant to be one.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use toolgate::analysis::lint::{self, Claim, Finding};
use toolgate::{Code, Gate, ManualClock, Policy, ToolCall};

use super::NOW;

fn entry(rules: &Value) -> Value {
    json!({ "version": "1", "default": "deny", "tools": { "t": rules } })
}

fn limit(counter: &str, scope: &Value) -> Value {
    json!({ "counter": counter, "window": "day", "max": 5, "scope": scope })
}

fn findings(source: &Value) -> Vec<Finding> {
    lint::check(&source.to_string()).unwrap().findings().to_vec()
}

#[test]
fn scopes_of_arguments_alone_are_found() {
    let rate = |scope: &Value| json!({ "rate_limit": { "max": 1, "window": 60, "scope": scope } });
    let limits = |scope: &Value| json!({ "limits": [limit("n", scope)] });
    for (rules, place) in [
        (rate(&json!(["args.x"])), "/tools/t/rate_limit/scope"),
        (limits(&json!(["global", "args.x"])), "/tools/t/limits/0/scope"),
        (limits(&json!(["call.tool", "time.hour", "args.x.y"])), "/tools/t/limits/0/scope"),
        (rate(&json!(["grant", "args.x"])), ""),
        (limits(&json!(["context.x", "args.x"])), ""),
        (limits(&json!(["global", "call.tool"])), ""),
    ] {
        let found = findings(&entry(&rules));
        let places = found.iter().map(|one| (one.code().as_str(), one.pointer()));
        let places: Vec<_> = places.filter(|(code, _)| *code != "many_counters").collect();
        assert_eq!(places.is_empty(), place.is_empty(), "{rules} {places:?}");
        assert!(places.iter().all(|found| *found == ("scope_of_arguments", place)), "{rules} {places:?}");
    }
    // The witness is an allowed call, of any tool.
    let number = json!([{ "conditions": [{ "path": "args.x", "op": "type", "value": "number" }] }]);
    let mut own = limits(&json!(["args.x"]));
    own["require"] = number;
    let all = json!({ "version": "1", "default": "deny", "all_tools": limits(&json!(["args.x"])),
                      "tools": { "a": { "action": "deny" }, "pay": {} } });
    for (source, witness) in [(all, r#""pay" {"x":"y"} -> allow"#), (entry(&own), r#""t" {"x":2} -> allow"#)] {
        let found = findings(&source);
        let shown = found.iter().find_map(|one| Some(format!("{} -> {}", one.witness()?, one.effect()?)));
        assert_eq!(shown.as_deref(), Some(witness), "{source}");
    }
}

#[test]
fn counters_of_an_argument_over_a_day_are_found() {
    let by = |window: Value, scope: Value| json!({ "counter": "n", "window": window, "max": 5, "scope": scope });
    let grant = || json!({ "counter": "calls", "window": "hour", "max": 1000, "scope": "grant" });
    let shadow = || json!({ "counter": "calls", "window": "hour", "max": 9, "scope": "grant", "shadow": true });
    let chosen = || json!(["grant", "args.customer"]);
    for (limits, is_found) in [
        (json!([by(json!("day"), chosen())]), true),
        (json!([by(json!("month"), json!(["context.tenant", "args.customer"]))]), true),
        (json!([by(json!(86_400), chosen())]), true),
        (json!([by(json!("24h"), chosen()), shadow()]), true),
        (json!([by(json!("24h"), chosen()), grant()]), false),
        (json!([grant(), by(json!("24h"), json!(["user", "args.a", "args.b"]))]), false),
        (json!([by(json!("hour"), chosen())]), false),
        (json!([by(json!(86_399), chosen())]), false),
        (json!([by(json!("day"), json!(["grant", "context.customer"]))]), false),
    ] {
        let found = findings(&entry(&json!({ "limits": limits })));
        let places: Vec<_> = found.iter().filter(|one| one.code().as_str() == "many_counters").collect();
        assert_eq!(places.len(), usize::from(is_found), "{limits}");
        assert!(places.iter().all(|one| one.pointer() == "/tools/t/limits/0/scope"), "{limits}");
    }
    let mut bounded = entry(&json!({ "limits": [by(json!("day"), chosen())] }));
    bounded["all_tools"] = json!({ "limits": [grant()] });
    assert!(findings(&bounded).is_empty(), "a limit of all tools bounds them too");
}

#[test]
fn limits_for_each_session_alone_are_found() {
    let rate = |scope: Option<Value>| match scope {
        None => json!({ "rate_limit": { "max": 1, "window": 60 } }),
        Some(scope) => json!({ "rate_limit": { "max": 1, "window": 60, "scope": scope } }),
    };
    let beside = |mut rules: Value, other: Value| {
        rules["limits"] = json!([other]);
        rules
    };
    let mut shadow = limit("n", &json!("grant"));
    shadow["shadow"] = json!(true);
    for (rules, place) in [
        (rate(None), "/tools/t/rate_limit"),
        (rate(Some(json!("session"))), "/tools/t/rate_limit/scope"),
        (json!({ "limits": [limit("n", &json!(["global", "session"]))] }), "/tools/t/limits/0/scope"),
        (beside(rate(None), shadow), "/tools/t/rate_limit"),
        (beside(rate(None), limit("n", &json!("grant"))), ""),
        (rate(Some(json!(["session", "user"]))), ""),
        (rate(Some(json!("grant"))), ""),
    ] {
        let found = findings(&entry(&rules));
        let places: Vec<_> = found.iter().map(|one| (one.code().as_str(), one.pointer())).collect();
        let want = if place.is_empty() { vec![] } else { vec![("scope_of_session", place)] };
        assert_eq!(places, want, "{rules}");
    }
    let mut all = entry(&rate(None));
    all["all_tools"] = json!({ "limits": [limit("n", &json!("grant"))] });
    assert_eq!(findings(&all), [], "a limit by grant for all tools");
}

#[test]
fn limits_that_share_the_counter_of_a_rate_limit_are_checked() {
    let shared = |amount: u32, max: u32| {
        entry(&json!({
            "limits": [{ "counter": "t_rate", "amount": amount, "max": max, "window": "minute", "scope": "grant" }],
            "rate_limit": { "max": 3, "window": "minute", "scope": "grant" },
        }))
    };
    // The limit charges nothing, and the rate limit does.
    assert_eq!(findings(&shared(0, 4)), []);
    let behind = findings(&shared(1, 2));
    assert_eq!(behind.iter().map(Finding::pointer).collect::<Vec<_>>(), ["/tools/t/rate_limit"]);
}

#[test]
fn counters_that_differ_only_in_spelling_are_found() {
    for (one, other, alike) in [
        ("api_calls", "apiCalls", true),
        ("T_rate", "t_rate", true),
        ("spend day", "spend-day", true),
        ("€", "$", false),
        ("-", "_", false),
        ("spend_€", "spend_$", false),
        ("api_1_0", "api_10", false),
        ("t_1", "t1", true),
    ] {
        let grant = json!("grant");
        let found = findings(&entry(&json!({ "limits": [limit(one, &grant), limit(other, &grant)] })));
        let places: Vec<_> = found.iter().map(|one| (one.code().as_str(), one.pointer())).collect();
        let want: &[(&str, &str)] = if alike { &[("counters_alike", "/tools/t/limits/1/counter")] } else { &[] };
        assert_eq!(places, want, "{one} {other}");
    }
    // The counter of a rate limit is compared with others, but not with that of another tool.
    let rate = json!({ "max": 5, "window": 60, "scope": "grant" });
    let one = json!({ "limits": [limit("T_rate", &json!("grant"))], "rate_limit": rate });
    let source = format!("{:#}", entry(&one));
    let report = lint::check(&source).unwrap();
    let [found] = report.findings() else { panic!("{report:?}") };
    assert_eq!((found.code().as_str(), found.pointer()), ("counters_alike", "/tools/t/limits/0/counter"));
    let line = source.lines().nth(found.line() - 1).unwrap();
    assert!(line[found.column() - 1..].starts_with("\"T_rate\""), "{found} {line}");
    let two = json!({ "version": "1", "default": "deny", "tools": {
        "a_b": { "rate_limit": rate }, "a-b": { "rate_limit": rate } } });
    assert_eq!(findings(&two), []);
}

/// Each counter is compared with all others, up to a bound.
#[test]
fn thousands_of_limits_are_checked_up_to_a_bound() {
    let scope = json!(["args.x"]);
    let limits = |tool: usize| -> Vec<Value> { (0..80).map(|n| limit(&format!("c{tool}_{n}"), &scope)).collect() };
    let tools: serde_json::Map<_, _> =
        (0..400).map(|tool| (format!("t{tool}"), json!({ "limits": limits(tool) }))).collect();
    let source = json!({ "version": "1", "default": "deny", "tools": tools }).to_string();
    let report = lint::check(&source).unwrap();
    assert!(!report.is_complete() && report.findings().len() > 10, "{}", report.findings().len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    /// Limits and rate limits that share a counter.
    #[test]
    fn claims_about_shared_counters_are_true(
        limits in prop::collection::vec((select(vec!["t_rate", "u_rate"]), 0u32..3, 0u32..4, any::<bool>()), 0..4),
        rates in prop::collection::vec(prop::option::of(0u32..4), 2),
        calls in prop::collection::vec(select(vec!["t", "u"]), 1..12),
    ) {
        let own = |tool: usize| {
            let mut rules = json!({ "limits": limits.iter().skip(tool).map(|(counter, amount, max, shadow)| json!({
                "counter": counter, "amount": amount, "max": max, "window": "minute", "scope": "global",
                    "shadow": shadow,
            })).collect::<Vec<_>>() });
            if let Some(max) = rates[tool] {
                rules["rate_limit"] = json!({ "max": max, "window": "minute", "scope": "global" });
            }
            rules
        };
        let source = json!({ "version": "1", "default": "deny", "tools": { "t": own(0), "u": own(1) } }).to_string();
        let report = lint::check(&source).unwrap();
        let gate = Gate::builder().policy(source.parse::<Policy>().unwrap()).clock(ManualClock::new(NOW)).build();
        let arguments = json!({});
        let mut kept = Vec::new();
        for tool in calls {
            let decision = gate.check(&ToolCall::new(tool, &arguments));
            for finding in report.findings() {
                let named = decision.rule() == Some(finding.pointer());
                prop_assert!(!named || finding.claim() != Claim::NeverDecides, "{}", finding);
                prop_assert!(!named || finding.claim() != Claim::NeverFull || decision.code() != Some(Code::Limit),
                    "{}", finding);
            }
            kept.push(decision);
        }
    }
}
