//! Class `bombs`: the cost of an attack. Memory is counted. No time is asserted: an unbounded
//! attack would not end.

use allocation_counter::{AllocationInfo, measure};
use serde_json::{Value, json};
use toolgate::approval::MemoryApprovals;
use toolgate::mcp::{FromClient, Message, Session};
use toolgate::store::MemoryStore;
use toolgate::{Bounds, Caller, Code, Decision, Gate, ManualClock, Permit, Policy, Timestamp, ToolCall};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_768_473_000);

fn policy(tools: &Value) -> Policy {
    Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).unwrap()
}

/// A policy whose one rule has one condition.
fn requires(condition: &Value) -> Policy {
    policy(&json!({ "t": { "require": [{ "conditions": [condition] }] } }))
}

fn is_allowed(policy: &Policy, arguments: &Value) -> (bool, AllocationInfo) {
    let mut allowed = false;
    let cost = measure(|| allowed = policy.evaluate(&ToolCall::new("t", arguments), NOW).is_allowed());
    (allowed, cost)
}

/// Why: a parser that descends before it checks the depth overflows its stack, or holds a tree of a
/// million levels.
#[test]
fn endless_brackets_are_refused_without_being_stored() {
    for text in ["[".repeat(1_000_000), "{\"a\":".repeat(1_000_000), "[".repeat(500_000) + &"]".repeat(500_000)] {
        let cost = measure(|| assert!(Message::read(&text).is_err()));
        assert!(cost.bytes_max < 64 << 10, "{cost:?}");
        let mut session = Session::<Permit>::new();
        assert!(matches!(session.from_client(text.as_bytes()), FromClient::Answer { .. }));
        let cost = measure(|| assert!(text.parse::<Policy>().is_err()));
        assert!(cost.bytes_max < 1 << 20, "{cost:?}");
    }
}

/// Why: a number, a string or a key of 1 MB that is copied at each step fills the memory.
#[test]
fn a_message_takes_memory_proportional_to_its_length() {
    let many = 100_000;
    for arguments in [
        format!("{{\"n\":{}}}", "7".repeat(many)),
        format!("{{\"n\":1e{}}}", "9".repeat(many)),
        format!("{{\"n\":0.{}1}}", "0".repeat(many)),
        format!("{{\"s\":\"{}\"}}", "x".repeat(many)),
        format!("{{\"s\":\"{}\"}}", "\\u0041".repeat(many / 6)),
        format!("{{\"{}\":1}}", "k".repeat(many)),
        format!("{{\"l\":[{}0]}}", "0,".repeat(many / 2)),
        format!("{{\"l\":[{}0]}}", "[],".repeat(many / 3)),
        format!("{{\"l\":[{}0]}}", "{\"\":0},".repeat(many / 7)),
    ] {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{arguments}}}}}"#
        );
        let cost = measure(|| drop(Message::read(&text)));
        // Objects of one member take the most, since each needs a node of a tree.
        assert!(cost.bytes_max < 200 * text.len() as u64, "{} bytes for {}: {cost:?}", text.len(), &text[70..90]);
        assert_eq!(cost.bytes_current, 0, "no memory is kept");
    }
}

/// Why: 16 MiB of tiny objects took 2.1 GB while they were read.
#[test]
fn a_long_message_takes_at_most_16_times_its_length() {
    let length = 8 << 20;
    for part in
        ["{},", "[],", "[0],", "{\"\":0},", "{\"a\":{}},", "0,", "100000,", "\"\",", "\"some text\",", "[[[[]]]],"]
    {
        let list = part.repeat(length / part.len());
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{{"l":[{list}0]}}}}}}"#
        );
        let mut refused = false;
        let cost = measure(|| {
            refused = matches!(Session::<Permit>::new().from_client(text.as_bytes()), FromClient::Answer { .. })
        });
        assert!(cost.bytes_max <= 16 * text.len() as u64, "{part}: {cost:?}");
        // With `preserve_order`, which another crate of the build may switch on, values are larger.
        if size_of::<Value>() == 32 {
            assert_eq!(refused, part.len() < 7 || part.contains('{') || part.contains("[["), "{part}");
        }
    }
    let members: String = (0..length / 12).map(|number| format!("\"{number:06x}\":0,")).collect();
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{{members}"":0}}}}"#);
    let cost = measure(|| drop(Message::read(&text)));
    assert!(cost.bytes_max <= 16 * text.len() as u64, "{cost:?}");
}

/// Why: a backtracking engine tries every way to match, which is exponential in the length.
#[test]
fn catastrophic_expressions_match_in_bounded_memory() {
    let text = json!({ "q": "a".repeat(100_000) + "!" });
    for (regex, allowed) in [
        ("^(a+)+$", false),
        ("^(a|aa)+$", false),
        ("^(a|a?)+$", false),
        ("^(.*a){25}$", false),
        ("^(([a-z])+.)+[A-Z]([a-z])+$", false),
        ("(?i)^(a|b|ab)*c", false),
        ("(x+x+)+y|!$", true),
    ] {
        let policy = requires(&json!({ "path": "args.q", "op": "regex", "value": regex }));
        let (found, cost) = is_allowed(&policy, &text);
        assert_eq!(found, allowed, "{regex}");
        assert!(cost.bytes_max < 32 << 20, "{regex}: {cost:?}");
    }
}

/// Why: a matcher that backtracks at each star takes the length to the power of the number of
/// stars.
#[test]
fn a_pattern_with_many_stars_matches_without_backtracking() {
    let pattern = "a*".repeat(120) + "b";
    let policy = policy(&json!({ pattern.as_str(): {}, "x": {} }));
    let name = "a".repeat(1_000_000);
    let cost = measure(|| {
        let evaluation = policy.evaluate(&ToolCall::new(&name, None::<&Value>), NOW);
        assert_eq!(evaluation.code(), Some(Code::DefaultDeny));
    });
    assert_eq!(cost.count_total, 0);
}

/// Why: an agent can send both sides of a comparison, and work for each pair is quadratic in what
/// it sends. A text with `ignore_case` is compiled once for all values that it is searched in.
#[test]
fn two_lists_of_an_agent_take_no_quadratic_work() {
    for (op, sought) in
        [("contains", json!("ab")), ("starts_with", json!(["x", "ab"])), ("ends_with", json!(["x", "ab"]))]
    {
        let condition = json!({ "path": "args.x[*]", "op": op, "value_from": "args.y", "ignore_case": true });
        let policy = requires(&condition);
        let spent = |elements: usize| {
            let (allowed, cost) = is_allowed(&policy, &json!({ "x": vec!["AB"; elements], "y": sought }));
            assert!(allowed, "{op}");
            cost.count_total
        };
        spent(1);
        assert_eq!(spent(10), spent(2_000), "{op}");
    }
}

/// Why: a compiled expression takes a thousand times the length of its text: 1 MB from an agent
/// would become 1 GB.
#[test]
fn texts_of_an_agent_with_ignore_case_are_bounded() {
    for (op, sought, decides) in [
        ("contains", json!("a".repeat(1_000)), true),
        ("contains", json!("a".repeat(1_001)), false),
        ("contains", json!("\u{e4}".repeat(1_000_000)), false),
        ("starts_with", json!(vec!["a"; 1_000]), true),
        ("starts_with", json!(vec!["ab"; 501]), false),
        ("ends_with", json!(vec!["a".repeat(1_000); 1_000]), false),
    ] {
        let condition = json!({ "path": "args.x", "op": op, "value_from": "args.y", "ignore_case": true });
        let rule = json!([{ "conditions": [condition] }]);
        let arguments = json!({ "x": "A".repeat(2_000), "y": sought });
        let (allowed, cost) = is_allowed(&policy(&json!({ "t": { "require": rule } })), &arguments);
        assert_eq!(allowed, decides, "{op}");
        assert!(cost.bytes_max < 32 << 20, "{op}: {cost:?}");
        // A text that is too long is undecidable, so the call is denied here too.
        assert!(!is_allowed(&policy(&json!({ "t": { "deny_if": rule } })), &arguments).0, "{op}");
    }
}

/// Why: hosts are decoded, normalised and encoded before they are compared, which can be quadratic
/// in the length of a label.
#[test]
fn an_endless_host_takes_memory_proportional_to_its_length() {
    let policy = requires(&json!({ "path": "args.u", "op": "host_in", "value": ["api.example.com"] }));
    let many = 100_000;
    for host in [
        "a".repeat(many),
        "\u{e4}".repeat(many),
        "a.".repeat(many),
        "xn--a.".repeat(many),
        format!("xn--{}", "a".repeat(many)),
        format!("xn--{}-{}", "a".repeat(many), "9".repeat(many)),
        format!("a{}", "\u{301}\u{323}".repeat(many)),
        "%41".repeat(many),
        "0.".repeat(many),
        format!("[{}]", "0:".repeat(many)),
        "\u{ad}".repeat(many),
    ] {
        let (allowed, cost) = is_allowed(&policy, &json!({ "u": format!("https://{host}/") }));
        assert!(!allowed);
        assert!(cost.bytes_max < 64 * host.len() as u64 + (1 << 20), "{}: {cost:?}", &host[..8]);
    }
}

/// Why: rules that visit every value of an agent must not copy it.
#[test]
fn a_call_with_many_values_is_decided_without_allocating() {
    let policy = policy(&json!({ "t": {
        "require": [{ "conditions": [{ "path": "args.l[*].n", "op": "lte", "value": 10 }] }],
        "deny_if": [{ "conditions": [{ "path": "args.l[*].s", "op": "starts_with", "value": ["rm", "dd"] }] }],
    } }));
    let arguments = json!({ "l": vec![json!({ "n": 1, "s": "ls" }); 50_000] });
    let (allowed, cost) = is_allowed(&policy, &arguments);
    assert!(allowed);
    assert_eq!(cost.count_total, 0, "{cost:?}");
}

/// Why: a policy can come from a tenant. A document above a bound is refused at that bound, and the
/// number of reported issues is bounded.
#[test]
fn documents_are_refused_at_their_bounds() {
    let padded = format!(r#"{{"version":"1","default":"deny","description":"{}"}}"#, "x".repeat(8 << 20));
    let cost = measure(|| assert!(padded.parse::<Policy>().is_err()));
    assert!(cost.bytes_max < 1 << 20, "{cost:?}");

    let entries: Vec<_> = (0..100_001).map(|number| format!("\"t{number}\":{{}}")).collect();
    let text = format!(r#"{{"version":"1","default":"deny","tools":{{{}}}}}"#, entries.join(","));
    assert!(text.parse::<Policy>().is_err());

    let wrong: Vec<_> = (0..50_000).map(|number| format!("\"t{number}\":{{\"x\":1,\"y\":2}}")).collect();
    let text = format!(r#"{{"version":"1","default":"deny","tools":{{{}}}}}"#, wrong.join(","));
    let error = text.parse::<Policy>().unwrap_err();
    assert!((1..=10_000).contains(&error.issues().len()), "{}", error.issues().len());

    // All expressions together have a bound too. Each of these is within its own bound.
    let rules: Vec<_> = (0..40)
        .map(|n| json!({ "conditions": [{ "path": "args.q", "op": "regex", "value": format!("{n}[a-z]{{2000}}") }] }))
        .collect();
    let text = json!({ "version": "1", "default": "deny", "tools": { "t": { "deny_if": rules } } }).to_string();
    assert!(Policy::from_json_within(&text, &Bounds::new().regex_total_bytes(1 << 20)).is_err());
}

/// Why: a counter for each invented key fills the memory, and a store that evicts counters gives
/// spent budgets back.
#[test]
fn endless_keys_fill_a_store_and_evict_nothing() {
    const CAPACITY: usize = 100;
    let limit = json!([
        { "counter": "c", "window": "day", "max": 1, "scope": ["grant", "args.c"] },
    ]);
    let gate = Gate::builder()
        .policy(policy(&json!({ "t": { "limits": limit } })))
        .store(MemoryStore::with_capacity(CAPACITY))
        .clock(ManualClock::new(NOW))
        .build();
    let check = |grant: &str, key: &str| {
        let arguments = json!({ "c": key });
        gate.check(&ToolCall::new("t", &arguments).grant(grant)).code()
    };
    assert_eq!(check("victim", "x"), None);
    let long = "k".repeat(1_000);
    let cost = measure(|| {
        for number in 0..2_000 {
            let code = check("eve", &format!("{long}{number}"));
            assert!(matches!(code, None | Some(Code::StoreUnavailable)), "{code:?}");
        }
    });
    assert!(gate.store().len() <= CAPACITY);
    assert!(cost.bytes_current < 256 << 10, "{cost:?}");
    assert_eq!(check("victim", "x"), Some(Code::Limit), "a live counter stays");
}

/// Why: a scope with an argument lets one caller begin a counter for each call. Until the windows
/// end, a store that is full of them serves nobody new, on no tool with a limit.
#[test]
fn one_caller_cannot_fill_the_store() {
    const CAPACITY: usize = 1_600;
    let limit = |scope: Value| json!({ "limits": [{ "counter": "c", "window": "day", "max": 9, "scope": scope }] });
    let tools = json!({ "get": limit(json!(["grant", "args.c"])) });
    let builder = Gate::builder().policy(policy(&tools)).store(MemoryStore::with_capacity(CAPACITY));
    // Not even where the host chose that calls pass if the store fails.
    let gate = builder.clock(ManualClock::new(NOW)).pass_uncounted("c").build();
    let check = |caller: &Caller, key: u32| {
        let arguments = json!({ "c": key });
        gate.check(&caller.call("get", &arguments))
    };
    let eve = Caller::new().grant("eve").session("s").agent("robot");
    let passed = (0..5_000).filter(|key| check(&eve, *key).is_allowed()).count();
    assert_eq!(passed, CAPACITY / 16);
    let Decision::Deny(denial) = check(&eve, 5_000) else { panic!("it has too many counters") };
    assert_eq!((denial.code(), denial.rule()), (Code::StoreUnavailable, Some("/tools/get/limits/0")));
    let cause = denial.store_error().unwrap().to_string();
    assert_eq!(cause, "this caller has too many counters: one caller can have 100 at once");
    assert!(gate.would_allow(&[eve.call("get", &json!({ "c": 5_000 }))]).is_err());
    assert!(check(&eve, 0).is_allowed(), "what is counted already goes on");
    // Another session or agent of the grant is the same caller. All others are served.
    assert!(!check(&Caller::new().grant("eve").session("another"), 5_001).is_allowed());
    for other in [Caller::new().grant("ann"), Caller::new().grant("ann").user("eve"), Caller::new().grant("Eve")] {
        assert!(check(&other, 1).is_allowed() && check(&other, 2).is_allowed());
    }
}

/// Why: an id is kept until the server answers. Ten thousand ids of the length of a message take
/// gigabytes.
#[test]
fn endless_ids_take_bounded_memory_in_a_session() {
    let mut session = Session::<Permit>::new();
    let ask = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"ping"}}"#);
    for length in [1_025, 100_000] {
        assert!(
            matches!(session.from_client(ask(&"i".repeat(length)).as_bytes()), FromClient::Answer { .. }),
            "{length}"
        );
    }
    let tail = "i".repeat(1_019);
    let cost = measure(|| {
        for number in 0..10_100 {
            let forwarded = matches!(
                session.from_client(ask(&format!("{number:05}{tail}")).as_bytes()),
                FromClient::Forward { .. }
            );
            assert_eq!(forwarded, number < 10_000, "{number}");
        }
    });
    assert!(cost.bytes_current < 32 << 20, "{cost:?}");
}

/// Why: an agent that asks endlessly buries the request that a person should see.
#[test]
fn endless_requests_hinder_only_their_own_caller() {
    let tools = json!({ "pay": { "action": "require_approval" } });
    let store = MemoryApprovals::with_capacity(1_000).pending_per_asker(10).details_up_to(64);
    let gate = Gate::builder().policy(policy(&tools)).approvals(store).clock(ManualClock::new(NOW)).build();
    let ask = |grant: &str, number: u32| {
        let arguments = json!({ "n": number, "text": "x".repeat(10_000) });
        gate.check(&ToolCall::new("pay", &arguments).grant(grant)).code()
    };
    let cost = measure(|| {
        for number in 0..300 {
            let want = if number < 10 { Code::Approval } else { Code::StoreUnavailable };
            assert_eq!(ask("eve", number), Some(want), "{number}");
        }
    });
    assert!(cost.bytes_current < 1 << 20, "{cost:?}");
    assert_eq!(gate.pending().unwrap().len(), 10);
    assert_eq!(ask("ann", 1), Some(Code::Approval));
    assert_eq!(gate.pending().unwrap().len(), 11);
}
