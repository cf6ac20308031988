//! MCP messages: refusals, outcomes of calls, and pinned definitions of tools. The cases are in
//! `tests/data/mcp/`.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use toolgate::mcp::{
    Call, CallOutcome, Integers, Message, OnChange, Pin, PinError, PinSnapshot, Refusal, RefusalFormat, ToolDigest,
    ToolPins,
};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{Decision, Denial, Gate, LimitState, ManualClock, Policy, ToolCall};

use crate::polling::ready;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusalCase {
    description: String,
    /// The id as JSON text; `None` for a notification.
    id: Option<String>,
    tool: String,
    /// The number of calls, of which the last one is checked.
    calls: usize,
    version: String,
    answer: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndingCase {
    description: String,
    id: Option<String>,
    answer: String,
    ending: String,
    code: Option<i64>,
}

fn cases<T: DeserializeOwned>(file: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mcp").join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn call(id: Option<&str>, tool: &str) -> Call {
    let id = id.map_or_else(String::new, |id| format!(r#""id": {id} ,"#));
    let text = format!(r#"{{"jsonrpc":"2.0",{id}"method":"tools/call","params":{{"name":"{tool}"}}}}"#);
    let Ok(Message::Call(call)) = Message::read_with(&text, Integers::Of64Bits) else { panic!("{text}") };
    call
}

const POLICY: &str = r#"{
    "version": "1", "default": "deny",
    "tools": {
        "drop": { "action": "deny", "reason": "Ask an owner." },
        "pay": { "action": "require_approval" },
        "search": { "limits": [{ "counter": "c", "window": "hour", "max": 1, "scope": "global" }] },
        "never": { "limits": [{ "counter": "n", "window": "hour", "max": 0, "scope": "global",
            "on_exceed": "Never." }] }
    }
}"#;

#[test]
fn refusals_have_the_form_that_the_client_reads() {
    let policy: Policy = POLICY.parse().unwrap();
    let digest = policy.digest().to_string();
    for RefusalCase { description, id, tool, calls, version, answer } in cases("refusals.json") {
        let clock = ManualClock::new("2026-01-15T10:30:00.5Z".parse().unwrap());
        let gate = Gate::builder().policy(policy.clone()).clock(clock).build();
        let call = call(id.as_deref(), &tool);
        for _ in 1..calls {
            assert!(gate.check(&call.tool_call()).is_allowed(), "{description}");
        }
        let decision = gate.check(&call.tool_call());
        let form = if version == "error" { RefusalFormat::Error } else { RefusalFormat::of_version(&version) };
        let written = Refusal::of(&decision).and_then(|refusal| call.answer(&refusal, form));
        let Some(written) = written else {
            assert_eq!(answer, Value::Null, "{description}");
            continue;
        };
        let id = format!(r#"{{"jsonrpc":"2.0","id":{},"#, id.unwrap());
        assert!(written.starts_with(&id), "{description}: {written}");
        let mut read: Value = serde_json::from_str(&written).unwrap();
        for facts in ["/result/structuredContent/policy", "/error/data/policy"] {
            if let Some(policy) = read.pointer_mut(facts) {
                assert_eq!(policy.as_str(), Some(&*digest), "{description}");
                *policy = "*".into();
            }
        }
        let mut answer = answer;
        // The ids are compared as texts above: whether 1E2 equals 100.0 depends on the features of
        // `serde_json`.
        (read["id"], answer["id"]) = (Value::Null, Value::Null);
        assert_eq!(read, answer, "{description}");
    }
}

#[test]
fn a_refusal_names_the_wait_and_the_missing_identity() {
    let limit = |max: u64, window: Value| json!({ "counter": "c", "window": window, "max": max, "scope": "session" });
    for (window, text) in [
        (json!(2), "Try again in 2 s."),
        (json!(120), "Try again in 120 s."),
        (json!(121), "Try again in 3 min."),
        (json!(7200), "Try again in 120 min."),
        (json!(7201), "Try again in 3 h."),
    ] {
        let mut limit = limit(1, window);
        limit["algorithm"] = "sliding".into();
        let document = json!({ "version": "1", "default": "allow", "all_tools": { "limits": [limit] } });
        let clock = ManualClock::new("2026-01-15T10:30:00Z".parse().unwrap());
        let gate = Gate::builder().policy(Policy::try_from(&document).unwrap()).clock(clock).build();
        let call = ToolCall::new("t", None::<&Value>).session("s");
        assert!(gate.check(&call).is_allowed());
        let refused = gate.check(&call).into_result().unwrap_err();
        let (wait, secs) = (refused.retry_after().unwrap(), refused.retry_after_secs().unwrap());
        assert!(secs >= wait.as_secs() && secs - wait.as_secs() <= 1, "{wait:?}");
        assert_eq!(Refusal::from(&refused).text(), format!("[RATE LIMITED] {} {text}", refused.message()));
    }

    let argument = json!({ "counter": "d", "window": "day", "max": 1, "scope": ["grant", "args.account"] });
    let document = json!({ "version": "1", "default": "allow", "tools": {
        "session": { "limits": [limit(1, json!(60))] }, "account": { "limits": [argument] } } });
    let gate = Gate::new(Policy::try_from(&document).unwrap());
    for (tool, grant, part) in [("session", None, "session"), ("account", Some("g"), "args.account")] {
        let decision = gate.check(&ToolCall::new(tool, None::<&Value>).grant(grant));
        let Decision::Deny(denial) = &decision else { panic!("{decision:?}") };
        assert_eq!(denial.missing(), Some(part));
        assert_eq!(denial.message(), format!("This call of `{tool}` has no `{part}`, by which a limit counts."));
        assert_eq!(Refusal::from(denial).facts()["missing"], part);
    }
}

/// The message and the facts say which amount is not valid and why, and never its value.
#[test]
fn a_denial_says_why_an_amount_is_invalid() {
    let limit = json!({ "counter": "c", "window": "day", "max": 9, "scope": "global", "amount_from": "args.a",
        "max_from": "context.m" });
    let document = json!({ "version": "1", "default": "allow", "all_tools": { "limits": [limit] } });
    let gate = Gate::new(Policy::try_from(&document).unwrap());
    let context = json!({ "m": 5 });
    for (arguments, why) in [
        (json!({ "a": 0.300_000_000_000_000_04 }), "has more than six decimals"),
        (json!({ "a": -7 }), "is negative"),
        (json!({ "a": 9_000_000_000_001u64 }), "is above 9000000000000"),
        (json!({ "a": "7" }), "is a string, not a number"),
        (json!({ "a": [7] }), "is a list, not a number"),
        (json!({ "a": null }), "is absent"),
        (json!({}), "is absent"),
        (json!({ "a": 7, "A": 1 }), "has two members that differ in case"),
    ] {
        let decision = gate.check(&ToolCall::new("t", &arguments).context(context.as_object()));
        let Decision::Deny(denial) = &decision else { panic!("{decision:?}") };
        let fact = format!("`args.a` {why}");
        assert_eq!((denial.invalid_amount(), denial.missing()), (Some(&*fact), None), "{arguments}");
        assert_eq!(denial.message(), format!("This call of `t` names no valid amount: {fact}."));
        assert_eq!(Refusal::from(denial).facts()["invalid_amount"], fact);
    }
    let decision = gate.check(&ToolCall::new("t", &json!({ "a": 1 })));
    assert_eq!(decision.message(), Some("A limit of `t` has no valid maximum for this caller: `context.m` is absent."));
}

/// The permit follows the outcome that a host with typed messages reports.
#[test]
fn a_permit_is_released_only_if_the_call_was_not_made() {
    let outcomes = [
        (CallOutcome::of_error_code(-32700), "0"),
        (CallOutcome::of_error_code(-32600), "0"),
        (CallOutcome::of_error_code(-32601), "0"),
        (CallOutcome::of_error_code(-32602), "1"),
        (CallOutcome::of_error_code(-32603), "1"),
        (CallOutcome::of_error_code(0), "1"),
        (CallOutcome::of_result(None), "1"),
        (CallOutcome::of_result(Some(false)), "1"),
        (CallOutcome::of_result(Some(true)), "1"),
    ];
    assert_eq!(CallOutcome::of_result(Some(true)), CallOutcome::ToolFailed);
    for (outcome, used) in outcomes {
        let policy: Policy = POLICY.parse().unwrap();
        let call = ToolCall::new("search", None::<&Value>);
        let gate = Gate::new(policy.clone());
        gate.check(&call).into_result().unwrap().conclude(outcome).unwrap();
        let counted = |states: Vec<LimitState>| {
            states.iter().find(|state| state.counter() == "c").map(|state| state.used().to_string())
        };
        assert_eq!(counted(gate.usage(call).unwrap()).as_deref(), Some(used), "{outcome:?}");

        let gate = Gate::builder().policy(policy).store_async(InProcess(MemoryStore::new())).build();
        ready(ready(gate.check(&call)).into_result().unwrap().conclude(outcome)).unwrap();
        assert_eq!(counted(ready(gate.usage(&call)).unwrap()).as_deref(), Some(used), "{outcome:?}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_refused_with_their_place() {
    let message = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}"#;
    assert!(matches!(Message::from_slice(message), Ok(Message::Call(_))));
    let error = Message::from_slice(b"{\"a\":\"\xff\"}").unwrap_err();
    assert_eq!((error.offset(), error.to_string().contains("not UTF-8")), (6, true), "{error}");
}

#[test]
fn an_unreadable_message_is_answered_without_an_id() {
    let error = Message::read(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/call"}"#).unwrap_err();
    let refusal = Refusal::from(&Denial::from(error));
    let answer: Value = serde_json::from_str(&refusal.to_answer_without_id(RefusalFormat::Structured)).unwrap();
    assert_eq!(answer["id"], Value::Null);
    let facts = &answer["result"]["structuredContent"];
    assert_eq!(facts["code"], "malformed_call");
    assert_eq!((facts.get("rule"), facts.get("policy"), facts.get("limits")), (None, None, None));
    assert!(refusal.text().starts_with("[POLICY DENIED] This call could not be read"), "{}", refusal.text());
}

#[test]
fn endings_are_read_from_answers() {
    for EndingCase { description, id, answer, ending, code } in cases("endings.json") {
        let expected = match &*ending {
            "succeeded" => CallOutcome::Succeeded,
            "tool_failed" => CallOutcome::ToolFailed,
            "not_run" => CallOutcome::NotRun,
            "unclear" => CallOutcome::Unclear(code),
            "interim" => CallOutcome::Interim,
            other => panic!("{other}"),
        };
        assert_eq!(call(id.as_deref(), "t").ending(&answer), expected, "{description}");
    }
}

#[test]
fn a_call_that_did_not_run_is_not_charged() {
    let gate = Gate::new(POLICY.parse().unwrap());
    let call = call(Some("1"), "search");
    let answers = [
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":""}}"#, true),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}"#, false),
    ];
    for (answer, again) in answers {
        let Decision::Allow(permit) = gate.check(&call.tool_call()) else { panic!("there is room") };
        match call.ending(answer) {
            CallOutcome::NotRun => permit.release(),
            CallOutcome::Succeeded | CallOutcome::ToolFailed | CallOutcome::Unclear(_) | CallOutcome::Interim => {
                drop(permit);
            }
        }
        assert_eq!(gate.would_allow(&[call.tool_call()]).is_ok(), again, "{answer}");
    }
}

fn tool(name: &str, description: &str) -> Value {
    json!({ "name": name, "description": description, "inputSchema": { "type": "object", "maxProperties": 3 } })
}

fn list(tools: &[Value]) -> Value {
    json!({ "tools": tools, "nextCursor": "2", "_meta": { "m": 1 } })
}

fn is_denied(pins: &ToolPins, server: &str, tool: &str) -> bool {
    let denial = pins.denial(&ToolCall::new(tool, None::<&Value>).server(server));
    if let Some(denial) = &denial {
        assert_eq!((denial.code().as_str(), denial.rule()), ("tool_changed", Some("(tool changed)")));
    }
    denial.is_some()
}

#[test]
fn a_changed_definition_is_denied_until_it_is_accepted() {
    let pins = ToolPins::new(10);
    let (old, new, other) = (tool("a", "Reads."), tool("a", "Reads. And sends."), tool("b", "Writes."));
    let mut first = list(&[old.clone(), other.clone()]);
    assert_eq!(pins.check_list("s", &mut first, OnChange::Drop), []);
    assert_eq!(first, list(&[old.clone(), other.clone()]));
    // A tool of the same name at another server is another tool.
    assert_eq!(pins.check_list("t", &mut list(std::slice::from_ref(&new)), OnChange::Drop), []);
    assert!(!is_denied(&pins, "s", "a") && !is_denied(&pins, "t", "a") && !is_denied(&pins, "s", "unseen"));

    let mut kept = list(&[new.clone(), other.clone()]);
    let changes = pins.check_list("s", &mut kept, OnChange::Keep);
    assert_eq!(kept, list(&[new.clone(), other.clone()]));
    assert_eq!((changes.len(), changes[0].tool()), (1, "a"));
    assert_eq!((changes[0].pinned(), changes[0].seen()), (Some(ToolDigest::of(&old)), ToolDigest::of(&new)));
    let mut dropped = list(&[new.clone(), other.clone()]);
    assert_eq!(pins.check_list("s", &mut dropped, OnChange::Drop), changes);
    assert_eq!(dropped, list(std::slice::from_ref(&other)));
    assert!(is_denied(&pins, "s", "a") && !is_denied(&pins, "s", "b"));

    // The former definition is not accepted any more.
    assert_eq!(pins.check_list("s", &mut list(std::slice::from_ref(&old)), OnChange::Drop).len(), 1);
    assert!(is_denied(&pins, "s", "a"));
    // Only the definition that was seen last can be accepted.
    pins.accept("s", "a", ToolDigest::of(&new)).unwrap();
    assert!(is_denied(&pins, "s", "a"));
    pins.accept("s", "a", ToolDigest::of(&old)).unwrap();
    assert_eq!(pins.get("s", "a"), Pin::Same(ToolDigest::of(&old)));
    assert!(!is_denied(&pins, "s", "a"));
}

#[test]
fn a_duplicate_name_in_a_list_is_a_change() {
    let pins = ToolPins::new(10);
    let (one, two) = (tool("a", "Reads."), tool("a", "Sends."));
    let mut both = list(&[one.clone(), two, one]);
    assert_eq!(pins.check_list("s", &mut both, OnChange::Drop).len(), 2);
    assert!(is_denied(&pins, "s", "a"));
}

#[test]
fn only_listed_tools_are_pinned() {
    let policy: Policy = r#"{"version":"1","default":"allow","hide":["x*"]}"#.parse().unwrap();
    let pins = ToolPins::new(10);
    let mut result = list(&[tool("a", ""), tool("xa", ""), json!({ "description": "has no name" })]);
    assert_eq!(pins.filter_tools_list("s", Some(&policy), &mut result, OnChange::Drop), []);
    assert_eq!(result, list(&[tool("a", "")]));
    assert_eq!((pins.get("s", "xa"), pins.get("s", "a")), (Pin::Unseen, Pin::Same(ToolDigest::of(&tool("a", "")))));
    let mut odd = json!({ "tools": { "a": 1 } });
    assert_eq!(pins.filter_tools_list("s", None, &mut odd, OnChange::Drop), []);
    assert_eq!(odd, json!({ "tools": [] }), "a value that is not a list lists no tools");
}

#[test]
fn a_tool_without_room_for_a_pin_counts_as_changed() {
    let pins = ToolPins::new(2);
    let mut result = list(&[tool("a", ""), tool("b", ""), tool("c", "")]);
    let changes = pins.check_list("s", &mut result, OnChange::Drop);
    assert_eq!((changes.len(), changes[0].tool(), changes[0].pinned()), (1, "c", None));
    assert_eq!(result, list(&[tool("a", ""), tool("b", "")]));
    assert_eq!(pins.get("s", "c"), Pin::NoRoom);
    assert!(is_denied(&pins, "s", "c") && !is_denied(&pins, "s", "a"));
    let full = PinError::Full { server: "s".into(), tools_per_server: 2 };
    assert_eq!(pins.accept("s", "c", changes[0].seen()), Err(full));
    assert_eq!(
        pins.check_list("other", &mut list(&[tool("c", "")]), OnChange::Drop),
        [],
        "each server has its own room"
    );
    pins.forget_server("s");
    assert_eq!(pins.get("s", "c"), Pin::Unseen);
}

#[test]
fn pins_survive_a_restart() {
    let pins = ToolPins::new(2);
    for description in ["Reads.", "Sends."] {
        pins.check_list("s", &mut list(&[tool("a", description), tool("b", "")]), OnChange::Drop);
    }
    let text = serde_json::to_string(&pins.snapshot()).unwrap();
    let snapshot: PinSnapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(
        ToolPins::restore(snapshot.clone(), 1).unwrap_err(),
        PinError::Full { server: "s".into(), tools_per_server: 1 }
    );
    let pins = ToolPins::restore(snapshot.clone(), 2).unwrap();
    assert_eq!(pins.snapshot(), snapshot);
    assert!(is_denied(&pins, "s", "a") && !is_denied(&pins, "s", "b"));
    let digest = ToolDigest::of(&tool("b", "")).to_string();
    for broken in [
        text.replace("\"1\"", "\"2\""),
        text.replace(&digest, &digest[1..]),
        text.replace(&digest, "é"),
        text.replace(&digest, &digest.to_uppercase()),
    ] {
        assert!(serde_json::from_str::<PinSnapshot>(&broken).is_err(), "{broken}");
    }
}

#[test]
fn a_digest_covers_the_content_of_a_definition() {
    let digest = |text: &str| ToolDigest::of(&serde_json::from_str(text).unwrap());
    let one = digest(r#"{"name":"a","inputSchema":{"x":1,"y":[1,2]}}"#);
    assert_eq!(one, digest(r#" {"inputSchema":{"y":[1, 2],"x":1},"name":"\u0061"}"#));
    for other in [
        r#"{"name":"a","inputSchema":{"x":1,"y":[2,1]}}"#,
        r#"{"name":"a","inputSchema":{"x":"1","y":[1,2]}}"#,
        r#"{"name":"a","inputSchema":{"x":1,"y":[1,2]},"_meta":{}}"#,
        r#"{"name":"a","inputSchema":{"x":1},"y":[1,2]}"#,
        r#"{"name":"a","inputSchema":{"x\":1,\"y":[1,2]}}"#,
    ] {
        assert_ne!(one, digest(other), "{other}");
    }
    // Digests are stable across builds, since pins are stored.
    assert_eq!(digest("{}").to_string(), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
}

/// The facts of a denial name the condition that decided, and why it is undecidable: no values.
#[test]
fn facts_name_the_deciding_condition_and_its_reason() {
    let rule =
        |condition: Value| json!([{ "conditions": [{ "path": "args.ok", "op": "exists", "value": true }, condition] }]);
    let test = |op: &str, value: Value| json!({ "path": "args.x", "op": op, "value": value });
    for (condition, x, undecidable) in [
        (test("lte", json!(5)), json!("secret"), Some("a string, not a number")),
        (test("lte", json!(5)), json!(6), None),
        (test("eq", json!("a")), json!(["secret"]), Some("a list, not a string")),
        (test("in", json!(["a", "b"])), json!(1), Some("a number, not of the type of each listed value")),
        (test("regex", json!("^a")), json!({ "secret": 1 }), Some("an object, not a string")),
        (test("max_items", json!(5)), json!("secret"), Some("a string, not a list or an object")),
        (test("path_within", json!(["/srv"])), json!("secret"), Some("not an absolute path")),
        (test("path_within", json!(["/srv"])), json!("/srv/.../secret"), Some("a path that systems read differently")),
        (test("host_in", json!(["a.io"])), json!("https:secret"), Some("not a URL with one certain host")),
        (
            test("not_contains", json!("cr")),
            json!(["secret"]),
            Some("a list with parts that a server may read as one text"),
        ),
        (
            json!({ "path": "args.x.y", "op": "eq", "value": 1 }),
            json!("secret"),
            Some("a value without the parts that the path names"),
        ),
        (
            json!({ "path": "args.x.y", "op": "eq", "value": 1 }),
            json!({ "y": 1, "Y": 2 }),
            Some("two members that differ in case"),
        ),
        (
            json!({ "path": "args.x", "op": "lt", "value_from": "args.none" }),
            json!(1),
            Some("no usable value to compare with"),
        ),
        (
            json!({ "any": [test("eq", json!(false)), test("lte", json!(5))] }),
            json!("secret"),
            Some("a string, not a boolean"),
        ),
        (
            json!({ "path": "args.x[*]", "op": "eq", "value": 1 }),
            json!(vec![1; 1_000_001]),
            Some("more pairs of values than are compared"),
        ),
    ] {
        let document =
            json!({ "version": "1", "default": "allow", "all_tools": { "require": rule(condition.clone()) } });
        let gate = Gate::new(Policy::try_from(&document).unwrap());
        let arguments = json!({ "x": x, "ok": 1 });
        let decision = gate.check(&ToolCall::new("t", &arguments));
        let Decision::Deny(denial) = &decision else { panic!("{condition} {decision:?}") };
        assert_eq!(denial.condition(), Some("/all_tools/require/0/conditions/1"), "{condition}");
        assert_eq!(denial.undecidable(), undecidable, "{condition}");
        let refusal = Refusal::from(denial);
        assert_eq!(refusal.facts().get("undecidable").and_then(Value::as_str), undecidable);
        assert!(!refusal.to_result(RefusalFormat::Structured).to_string().contains("secret"), "{condition}");
    }
    let denied = json!({ "version": "1", "default": "allow", "all_tools": { "deny_if": [{ "conditions": [] }] } });
    let decision = Gate::new(Policy::try_from(&denied).unwrap()).check(&ToolCall::new("t", None::<&Value>));
    let Decision::Deny(denial) = &decision else { panic!("{decision:?}") };
    assert_eq!((denial.condition(), denial.undecidable()), (None, None));
}
