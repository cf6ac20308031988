//! A session of a gateway: forwarded messages, answers, and the permits of calls.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use toolgate::mcp::{
    CallOutcome, FinishedCall, FromClient, FromServer, RefusalFormat, RequestId, Routed, Session, filter_tools_list,
    too_long,
};
use toolgate::{Gate, Permit};

const POLICY: &str = r#"{
    "version": "1", "default": "deny", "hide": ["secret"],
    "tools": {
        "get_*": { "limits": [{ "counter": "c", "window": "hour", "max": 2, "scope": "global" }] },
        "run": { "limits": [{ "counter": "r", "window": "in_flight", "max": 1, "scope": "global" }] },
        "pay": { "action": "require_approval" }
    }
}"#;

/// A gateway without a transport.
struct Gateway {
    gate: Gate,
    session: Session,
}

/// The step of a message: forwarded to the server or the client, or dropped.
#[derive(Debug, PartialEq)]
enum Step {
    ToServer(Value),
    ToClient(Value),
    Dropped,
}

impl Gateway {
    fn new() -> Self {
        Self { gate: Gate::new(POLICY.parse().unwrap()), session: Session::new() }
    }

    fn client(&mut self, text: &str) -> Step {
        match self.session.from_client(text.as_bytes()) {
            FromClient::Forward { message, .. } => Step::ToServer(value(&message)),
            FromClient::Answer { answer, .. } => answer.map_or(Step::Dropped, |answer| Step::ToClient(value(&answer))),
            FromClient::Decide(call) => {
                let decision = self.gate.check(&call.tool_call());
                match self.session.decided(call, decision) {
                    Routed::Forward { message, .. } => Step::ToServer(value(&message)),
                    Routed::Answer { answer } => Step::ToClient(value(&answer)),
                }
            }
        }
    }

    fn server(&mut self, text: &str) -> (Step, Option<FinishedCall<Permit>>) {
        let policy = self.gate.policy();
        match self.session.from_server(text.as_bytes(), |result| filter_tools_list(policy.as_ref(), result)) {
            FromServer::Forward { message, ended, .. } => (Step::ToClient(value(&message)), ended),
            FromServer::Drop { .. } => (Step::Dropped, None),
        }
    }

    /// Makes a call and returns whether it is allowed. An allowed call is pending.
    fn calls(&mut self, id: &str, tool: &str) -> bool {
        let call = call(id, tool);
        match self.client(&call) {
            Step::ToServer(message) => {
                assert_eq!(message, value(&call));
                true
            }
            Step::ToClient(answer) => {
                assert_eq!(answer["id"], value(id));
                assert_eq!(answer["result"]["isError"], true, "{answer}");
                false
            }
            Step::Dropped => panic!("a call is answered"),
        }
    }

    fn finish(&mut self, answer: &str) -> CallOutcome {
        let (step, ended) = self.server(answer);
        assert_eq!(step, Step::ToClient(value(answer)));
        let ended = ended.unwrap();
        let ending = ended.ending;
        ended.conclude().unwrap();
        ending
    }
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn call(id: &str, tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"n":100}}}}}}"#
    )
}

fn result(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[]}}}}"#)
}

fn id(text: &str) -> RequestId {
    RequestId::of(&value(text)).unwrap()
}

#[test]
fn a_message_that_is_not_a_call_is_forwarded_unchanged() {
    let mut gateway = Gateway::new();
    for text in [
        concat!(
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","#,
            r#""params":{"protocolVersion":"2025-06-18","x":[1.5,null,true]}}"#
        ),
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":"a","method":"resources/read","params":{"uri":"file:///é\u0000"}}"#,
        r#"{"jsonrpc":"2.0","id":7,"result":{"roots":[]}}"#,
        r#"{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"no"}}"#,
    ] {
        assert_eq!(gateway.client(text), Step::ToServer(value(text)));
    }
    for text in [
        r#" {"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","deep":1e999}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#,
        r#"{"jsonrpc":"2.0","id":"a","method":"roots/list"}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"?"}}"#,
        r#"{"jsonrpc":"2.0","id":"a","result":{"n":18446744073709551616,"n":1}}"#,
    ] {
        let FromServer::Forward { message, ended, .. } = gateway.session.from_server(text.as_bytes(), |_| panic!())
        else {
            panic!("{text}")
        };
        assert_eq!(&*message, text);
        assert!(ended.is_none());
    }
    assert_eq!(gateway.session.protocol_version(), Some("2025-06-18"));
    assert_eq!(gateway.session.under_way(), 0);
}

/// The lists of a batch would pass the filter, and its answers would end no calls. A list is not
/// read as an object by position.
#[test]
fn a_message_that_is_not_an_object_is_dropped() {
    let mut gateway = Gateway::new();
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    assert!(matches!(gateway.client(list), Step::ToServer(_)));
    assert!(gateway.calls("2", "run"));
    let tools = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"secret","inputSchema":{}}]}}"#;
    let ran = result("2");
    let texts = [
        format!("[{tools}]"),
        format!("[{tools},{ran}]"),
        format!("[{tools},{ran},{tools}]"),
        format!("[{tools},{ran},{tools},{ran}]"),
        r#"[1,"tools/list"]"#.to_owned(),
        r#" [1,null,{"tools":[]},null]"#.to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "\"result\"".to_owned(),
    ];
    for text in texts {
        let (step, ended) = gateway.server(&text);
        assert!(step == Step::Dropped && ended.is_none(), "{text}");
    }
    assert_eq!(gateway.session.under_way(), 2);
    // The protocol version is read from an object too.
    let hello = r#"{"jsonrpc":"2.0","id":3,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
    assert!(matches!(gateway.client(hello), Step::ToServer(_)));
    let answer = r#"{"jsonrpc":"2.0","id":3,"result":["2025-06-18"]}"#;
    assert_eq!(gateway.server(answer).0, Step::ToClient(value(answer)));
    assert_eq!(gateway.session.protocol_version(), None);
}

#[test]
fn unreadable_messages_are_answered() {
    type Answer = Option<(&'static str, i32)>;
    let cases: [(&[u8], Answer); 14] = [
        (b"nonsense", Some(("null", -32700))),
        (b"", Some(("null", -32700))),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", Some(("null", -32700))),
        (br#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Some(("null", -32600))),
        (
            br#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"a","name":"b"}}"#,
            Some(("\"x\"", -32600)),
        ),
        (
            br#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"a","arguments":[]}}"#,
            Some(("5", -32600)),
        ),
        (br#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, Some(("null", -32600))),
        (br#"{"jsonrpc":"2.0","id":1,"ID":2,"method":"ping"}"#, Some(("null", -32600))),
        (br#"{"jsonrpc":"2.0","id":1.5,"method":"tools/call","params":{"name":"get_x"}}"#, Some(("null", -32600))),
        (br#"{"jsonrpc":"2.0","id":1E2,"method":"ping"}"#, Some(("null", -32600))),
        (br#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, Some(("null", -32600))),
        (br#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"get_x"}}"#, None),
        (br#"{"jsonrpc":"2.0","id":3,"result":{"a":1,"a":2}}"#, None),
        (br#"{"jsonrpc":"1.0","id":4,"method":"ping"}"#, Some(("4", -32600))),
    ];
    for (text, want) in cases {
        let mut session = Session::<Permit>::new();
        let shown = String::from_utf8_lossy(text);
        let FromClient::Answer { answer, denial, .. } = session.from_client(text) else { panic!("{shown}") };
        assert_eq!(denial.code().as_str(), "malformed_call", "{shown}");
        let answer = answer.map(|answer| value(&answer));
        let got = answer.as_ref().map(|answer| (answer["id"].clone(), answer["error"]["code"].clone()));
        assert_eq!(got, want.map(|(id, code)| (value(id), json!(code))), "{shown}");
        if let Some(answer) = answer {
            assert!(
                answer["error"]["message"].as_str().unwrap().starts_with("[POLICY DENIED] This call could"),
                "{answer}"
            );
            assert_eq!(answer["error"]["data"]["code"], "malformed_call");
        }
        assert_eq!(session.under_way(), 0, "{shown}");
    }
    assert_eq!(value(&too_long(9))["error"]["message"], "The message has more than 9 bytes.");
}

#[test]
fn a_list_that_is_sent_again_is_filtered_too() {
    let mut gateway = Gateway::new();
    let list = concat!(
        r#"{"jsonrpc":"2.0","id":1,"result":{"#,
        r#""tools":[{"name":"get_a","x":[1]},{"name":"secret"},{"name":"b"}],"nextCursor":"c"}}"#
    );
    assert_eq!(gateway.server(list).0, Step::Dropped, "no request is pending");
    let ask = r#"{"jsonrpc":"2.0","id":1,"method":"tools\/list"}"#;
    assert_eq!(gateway.client(ask), Step::ToServer(value(ask)));
    let seen = json!({"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get_a","x":[1]}],"nextCursor":"c"}});
    for _ in 0..2 {
        let (Step::ToClient(answer), None) = gateway.server(list) else { panic!("a list") };
        assert_eq!(answer, seen);
    }
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"tools":[{"name":"secret"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"Tools":[{"name":"secret"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[]},"Result":{"tools":[{"name":"secret"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get_a","max":1e400}]}}"#,
    ] {
        let (Step::ToClient(answer), None) = gateway.server(text) else { panic!("{text}") };
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32053)), "{text}");
    }
    let failed = r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"?"}}"#;
    assert_eq!(gateway.server(failed).0, Step::ToClient(value(failed)));
}

/// A client that ignores the case of keys would read them as the answer to its request, with an
/// unfiltered list.
#[test]
fn a_message_that_may_be_read_as_an_answer_is_dropped() {
    let mut gateway = Gateway::new();
    assert!(matches!(gateway.client(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#), Step::ToServer(_)));
    let tools = r#"{"tools":[{"name":"secret","inputSchema":{}}]}"#;
    for text in [
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","Method":"","Result":{tools}}}"#),
        format!(r#"{{"jsonrpc":"2.0","ID":1,"method":"notifications/message","METHOD":null,"result\u0000":{tools}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","re\u017fult":{tools}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":1,"message":""}},"Error":null,"Result":{tools}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":2,"\u0130d":1,"result":{tools}}}"#),
        r#"{"jsonrpc":"2.0","method":"ping","method":"ping"}"#.to_owned(),
    ] {
        let (step, ended) = gateway.server(&text);
        assert!(step == Step::Dropped && ended.is_none(), "{text}");
    }
    // The names of tools in a list are checked too.
    let named = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"get_a","Name":"secret","inputSchema":{}}]}}"#;
    let (Step::ToClient(answer), _) = gateway.server(named) else { panic!("an answer") };
    assert!(answer.get("result").is_none(), "{answer}");
}

#[test]
fn only_answers_to_pending_requests_are_forwarded() {
    let mut gateway = Gateway::new();
    for text in [
        "",
        "junk",
        "[]",
        "1",
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","id":1,"id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"method":"x"}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":[],"error":{}}"#,
    ] {
        assert_eq!(gateway.server(text).0, Step::Dropped, "{text}");
    }
    let FromClient::Decide(first) = gateway.session.from_client(call("1", "get_a").as_bytes()) else {
        panic!("a call")
    };
    assert_eq!(
        gateway.server(&result("1")).0,
        Step::Dropped,
        "the call is not decided yet, and the server has not seen it"
    );
    let again = gateway.client(&call("1", "get_a"));
    let Step::ToClient(again) = again else { panic!("{again:?}") };
    assert!(again["error"]["message"].as_str().unwrap().contains("is already pending"), "{again}");
    let decision = gateway.gate.check(&first.tool_call());
    let Routed::Forward { id: forwarded, .. } = gateway.session.decided(first, decision) else { panic!("allowed") };
    assert_eq!(forwarded, id("1"));
    // A string is not equal to the number that it contains.
    assert_eq!(gateway.server(&result("\"1\"")).0, Step::Dropped);
    assert_eq!(gateway.finish(&result("1")), CallOutcome::Succeeded);
    assert!(gateway.server(&result("1")).1.is_none(), "the call has ended");
    assert!(gateway.calls("1", "get_a"), "the id can be used again");
}

#[test]
fn a_tool_that_the_server_did_not_run_is_not_charged() {
    let mut gateway = Gateway::new();
    let unknown = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"?"}}}}"#);
    for round in 0..3 {
        assert!(gateway.calls("\"a\"", "get_a"), "{round}");
        assert_eq!(gateway.finish(&unknown("\"a\"")), CallOutcome::NotRun);
    }
    assert!(gateway.calls("2", "get_a"));
    let failed = r#"{"jsonrpc":"2.0","id":2,"result":{"content":[],"isError":true}}"#;
    assert_eq!(gateway.finish(failed), CallOutcome::ToolFailed);
    assert!(gateway.calls("3", "get_a"));
    assert!(!gateway.calls("4", "get_a"), "both units are spent");
    // The connection was refused.
    let refused = gateway.session.fail(&id("3"), CallOutcome::NotRun, "connection refused").unwrap();
    let answer = value(&refused.answer.unwrap());
    assert_eq!(answer["error"]["message"], "The request was not made: connection refused.");
    refused.ended.unwrap().conclude().unwrap();
    assert!(gateway.calls("4", "get_a"));
    assert!(gateway.session.fail(&id("3"), CallOutcome::NotRun, "").is_none());
}

/// A late answer would end the next call with the same id, and be taken for its answer.
#[test]
fn a_late_answer_ends_no_other_call() {
    let mut gateway = Gateway::new();
    assert!(gateway.calls("1", "run"));
    let given_up = gateway.session.give_up(&id("1"), "no answer in 60 s").unwrap();
    let answer = value(&given_up.answer.unwrap());
    assert_eq!(answer["error"]["message"], "The request may have been made: no answer in 60 s.");
    given_up.ended.unwrap().conclude().unwrap();
    assert_eq!(gateway.session.under_way(), 0);
    assert!(gateway.session.give_up(&id("1"), "").is_none());
    let again = gateway.client(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run"}}"#);
    assert!(matches!(again, Step::ToClient(_)), "{again:?}");
    assert!(gateway.calls("2", "run"), "a call that was refused for its id is not counted");
    let late = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}"#;
    assert!(matches!(gateway.server(late), (Step::Dropped, None)));
    assert_eq!(gateway.finish(&result("2")), CallOutcome::Succeeded);
    assert!(gateway.calls("1", "run"), "the id is free again");
    assert_eq!(gateway.finish(&result("1")), CallOutcome::Succeeded);
    // Where no answer can come any more, the id is free at once, and the failure is reported once.
    assert!(gateway.calls("3", "run"));
    gateway.session.give_up(&id("3"), "too late").unwrap().ended.unwrap().conclude().unwrap();
    assert!(gateway.session.fail(&id("3"), CallOutcome::Unclear(None), "gone").is_none());
    assert!(gateway.calls("3", "run"));
    gateway.session.give_up(&id("3"), "too late").unwrap().ended.unwrap().conclude().unwrap();
    assert!(gateway.session.fail_all(CallOutcome::Unclear(None), "gone").is_empty());
    assert!(gateway.calls("3", "run"));
}

#[test]
fn a_cancelled_call_stays_in_flight_until_it_ends() {
    let mut gateway = Gateway::new();
    assert!(gateway.calls("1", "run"));
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert_eq!(gateway.client(cancel), Step::ToServer(value(cancel)));
    assert!(!gateway.calls("2", "run"), "the server may still run the tool");
    assert_eq!(gateway.finish(&result("1")), CallOutcome::Succeeded);
    assert!(gateway.calls("2", "run"));
    let cancel = cancel.replace(":1", ":2");
    assert_eq!(gateway.client(&cancel), Step::ToServer(value(&cancel)));
    let failed = gateway.session.fail(&id("2"), CallOutcome::Unclear(None), "no answer in 60 s").unwrap();
    assert_eq!(failed.answer, None, "the client has cancelled it");
    failed.ended.unwrap().conclude().unwrap();
    assert!(gateway.calls("3", "run"));
    assert!(gateway.client(r#"{"jsonrpc":"2.0","id":4,"method":"ping"}"#) != Step::Dropped);
    let mut lost = gateway.session.fail_all(CallOutcome::Unclear(None), "the server has ended");
    lost.sort_by(|a, b| a.answer.cmp(&b.answer));
    let ids: Vec<_> = lost.iter().map(|lost| value(lost.answer.as_ref().unwrap())["id"].clone()).collect();
    assert_eq!(ids, [3, 4]);
    for ended in lost.into_iter().filter_map(|lost| lost.ended) {
        ended.conclude().unwrap();
    }
    assert_eq!(gateway.session.under_way(), 0);
    assert!(gateway.calls("5", "run"));
    drop(gateway.session);
    assert_eq!(
        gateway.gate.check(&toolgate::ToolCall::new("run", &json!({}))).as_str(),
        "allow",
        "the call ends with the session"
    );
}

#[test]
fn refusals_follow_the_negotiated_version() {
    let agree = |version: &str| {
        let mut gateway = Gateway::new();
        let _ = gateway.client(r#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#);
        let _ = gateway.server(&json!({"jsonrpc":"2.0","id":0,"result":{"protocolVersion":version}}).to_string());
        let Step::ToClient(answer) = gateway.client(&call("1", "pay")) else { panic!("refused") };
        answer["result"].get("structuredContent").is_some()
    };
    assert!(agree("2025-06-18"));
    assert!(!agree("2025-03-26"));
    // A client can validate structured content, even of an error, by the output schema of the tool.
    let mut gateway = Gateway::new();
    for (ask, answer) in [
        ("initialize", json!({ "protocolVersion": "2025-06-18" })),
        ("tools/list", json!({ "tools": [{ "name": "pay", "outputSchema": {} }, { "name": "run" }] })),
    ] {
        let _ = gateway.client(&json!({"jsonrpc":"2.0","id":0,"method":ask}).to_string());
        let _ = gateway.server(&json!({"jsonrpc":"2.0","id":0,"result":answer}).to_string());
    }
    // A tool with a name too long to be remembered counts as having an output schema.
    let (long, too_long) = ("n".repeat(1_024), "n".repeat(1_025));
    for (tool, is_structured) in [("pay", false), ("other", true), (&*long, true), (&*too_long, false)] {
        let Step::ToClient(answer) = gateway.client(&call("1", tool)) else { panic!("refused") };
        assert_eq!(answer["result"].get("structuredContent").is_some(), is_structured, "{answer}");
    }
    // A call can name the version itself, without a negotiation.
    let mut gateway = Gateway::new();
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"name":"pay""#;
    let Step::ToClient(answer) = gateway.client(&call("1", "pay").replace(r#""name":"pay""#, meta)) else {
        panic!("refused")
    };
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    assert!(answer["result"].get("structuredContent").is_some(), "{answer}");
    let mut gateway = Gateway::new();
    gateway.session = Session::new().with_form(RefusalFormat::Error);
    let Step::ToClient(answer) = gateway.client(&call("1", "pay")) else { panic!("refused") };
    assert_eq!(answer["error"]["code"], -32052);
}

#[test]
fn a_server_that_never_answers_uses_bounded_memory() {
    let mut session = Session::<Permit>::new();
    let ping = |id: u32| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
    for id in 0..10_000 {
        assert!(matches!(session.from_client(ping(id).as_bytes()), FromClient::Forward { .. }));
    }
    let FromClient::Answer { answer, .. } = session.from_client(ping(10_000).as_bytes()) else { panic!("full") };
    assert!(answer.unwrap().contains("too many requests are pending"));
    assert_eq!(session.under_way(), 10_000);
}

/// Texts similar to messages, made of random pieces.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"jsonrpc\":\"2.0\"",
        "\"id\":1",
        "\"id\":\"a\"",
        "\"ID\":2",
        "\"method\":\"tools/call\"",
        "\"method\":\"tools\\/call\"",
        "\"Method\":\"tools/call\"",
        "\"method\":\"tools/list\"",
        "\"method\":\"ping\"",
        "\"params\":{\"name\":\"get_a\"}",
        "\"params\":{\"name\":\"secret\"}",
        "\"result\":{\"tools\":[{\"name\":\"secret\"}]}",
        "\"result\":{}",
        "\"error\":{\"code\":-32601}",
        "null",
        "1e400",
        " ",
        "\u{feff}",
        "é",
    ]);
    let free = prop::collection::vec(piece.clone(), 0..8).prop_map(|pieces| pieces.concat());
    let object = prop::collection::vec(piece, 1..6).prop_map(|members| format!("{{{}}}", members.join(",")));
    prop_oneof![1 => free, 4 => object]
}

proptest! {
    /// Whatever both sides send, only allowed calls and filtered lists are forwarded, and answers
    /// are JSON.
    #[test]
    fn only_allowed_calls_and_filtered_lists_are_forwarded(
        steps in prop::collection::vec((any::<bool>(), pieces()), 0..20),
    ) {
        let mut gateway = Gateway::new();
        let mut asked = HashMap::new();
        for (of_client, text) in steps {
            let step = if of_client { gateway.client(&text) } else {
                let (step, ended) = gateway.server(&text);
                ended.map_or(Ok(()), FinishedCall::<Permit>::conclude).unwrap();
                step
            };
            match step {
                Step::ToServer(message) => {
                    let is_call = message["method"] == "tools/call";
                    prop_assert!(!is_call || message["params"]["name"] == "get_a", "{}", message);
                    asked.insert(message["id"].to_string(), message["method"].clone());
                    prop_assert_eq!(message, value(&text));
                }
                Step::ToClient(message) if message.get("method").is_none() => {
                    let method = asked.get(&message["id"].to_string());
                    let answers_list = method.is_some_and(|method| method == "tools/list");
                    let secret = message["result"]["tools"] == json!([{ "name": "secret" }]);
                    prop_assert!(!(answers_list && secret), "{}", message);
                }
                Step::ToClient(_) | Step::Dropped => {}
            }
        }
    }
}
