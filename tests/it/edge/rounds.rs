//! Calls of several rounds: one charge, one approval, one permit.

use std::time::Duration;

use serde_json::{Value, json};
use toolgate::mcp::{CallOutcome, FromClient, FromServer, Routed, ServerState, Session};
use toolgate::{Caller, Gate, ManualClock, Permit, Policy};

const POLICY: &str = r#"{
    "version": "1", "default": "allow",
    "tools": {
        "daily": { "limits": [{ "counter": "d", "window": "day", "max": 1, "scope": "grant" }] },
        "pay": { "limits": [{ "counter": "p", "window": "day", "max": 100, "scope": "grant",
                              "amount_from": "args.amount" }] },
        "ask": { "action": "require_approval" },
        "large": { "require_approval_if": [{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 50 }] }] },
        "sure": { "require_approval_if": [
            { "conditions": [{ "path": "args.amount", "op": "gt", "value": 50 }] },
            { "conditions": [{ "path": "input.sure.content.yes", "op": "eq", "value": true }] }] },
        "never": { "deny_if": [{ "conditions": [{ "path": "input.*.content.yes", "op": "eq", "value": true }] }] },
        "run": { "limits": [{ "counter": "r", "window": "in_flight", "max": 1, "scope": "grant" }] }
    }
}"#;

/// A client and a server with a gateway between them. Every call has a session of its own, as over
/// HTTP.
struct Gateway {
    gate: Gate,
    state: ServerState,
    clock: ManualClock,
    caller: Caller,
    next_id: u64,
}

/// The answer that the client gets: of the gateway, or of the server.
#[derive(Debug)]
enum Answer {
    Refused(Value),
    /// The message that the server got, and the answer.
    Answered(Value, Value),
}

impl Gateway {
    fn new() -> Self {
        Self::of(POLICY)
    }

    fn of(policy: &str) -> Self {
        let (gate, state, clock, caller) = super::parts(policy);
        Self { gate, state, clock, caller, next_id: 0 }
    }

    /// Makes a call that the server answers with this result.
    fn call(&mut self, params: &Value, result: &Value) -> Answer {
        self.next_id += 1;
        let id = self.next_id;
        let mut params = params.clone();
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "url": {} } },
        });
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        let mut session = Session::sharing(&self.state, &self.caller)
            .with_approval_page(|approval| Some(format!("https://approve.example/{}", approval.id())));
        let FromClient::Decide(call) = session.from_client(message.to_string().as_bytes()) else { panic!("a call") };
        let decision = self.gate.check(&call.by(&self.caller));
        match session.decided(call, decision) {
            Routed::Answer { answer } => Answer::Refused(serde_json::from_str(&answer).unwrap()),
            Routed::Forward { message, .. } => {
                let answer = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
                let FromServer::Forward { message: answer, ended, .. } = session.from_server(answer.as_bytes(), |_| {})
                else {
                    panic!("an answer")
                };
                if let Some(ended) = ended {
                    ended.conclude().unwrap();
                }
                Answer::Answered(serde_json::from_str(&message).unwrap(), serde_json::from_str(&answer).unwrap())
            }
        }
    }

    /// Makes a call for which the server asks for input, and returns the client's state.
    fn asked(&mut self, params: &Value) -> String {
        match self.call(params, &asks("server's own")) {
            Answer::Answered(_, answer) => {
                assert_eq!(answer["result"]["resultType"], "input_required");
                answer["result"]["requestState"].as_str().unwrap().to_owned()
            }
            Answer::Refused(answer) => panic!("{answer}"),
        }
    }

    fn approve_the_only_one(&self) {
        let pending = self.gate.pending().unwrap();
        assert_eq!(pending.len(), 1);
        self.gate.approve(pending[0].id(), "ann").unwrap();
    }

    fn code(&mut self, params: &Value) -> Option<String> {
        match self.call(params, &done()) {
            Answer::Answered(..) => None,
            Answer::Refused(answer) => {
                let facts = answer.pointer("/result/structuredContent").or_else(|| answer.pointer("/error/data"));
                Some(facts.unwrap()["code"].as_str().unwrap().to_owned())
            }
        }
    }
}

fn asks(state: &str) -> Value {
    let form = json!({ "method": "elicitation/create", "params": { "message": "Sure?", "requestedSchema": {} } });
    json!({ "resultType": "input_required", "inputRequests": { "sure": form }, "requestState": state })
}

fn done() -> Value {
    json!({ "resultType": "complete", "content": [] })
}

fn first(tool: &str) -> Value {
    json!({ "name": tool, "arguments": { "amount": 60 } })
}

fn further(tool: &str, state: &str) -> Value {
    let responses = json!({ "sure": { "action": "accept", "content": { "yes": true } } });
    json!({ "name": tool, "arguments": { "amount": 60 }, "requestState": state, "inputResponses": responses })
}

#[test]
fn rounds_are_charged_once() {
    for tool in ["daily", "pay", "run"] {
        let mut gateway = Gateway::new();
        let mut state = gateway.asked(&first(tool));
        for _ in 0..5 {
            state = gateway.asked(&further(tool, &state));
        }
        assert_eq!(gateway.state.held_calls(), 1);
        let Answer::Answered(sent, answer) = gateway.call(&further(tool, &state), &done()) else { panic!("{tool}") };
        assert_eq!(sent["params"]["requestState"], "server's own");
        assert_eq!(sent["params"]["inputResponses"]["sure"]["content"]["yes"], true);
        assert_eq!(answer["result"], done());
        assert_eq!(gateway.state.held_calls(), 0);
        let again = gateway.code(&first(tool));
        assert_eq!(again.as_deref(), (tool != "run").then_some("limit"), "{tool}: one charge, and it has ended");
    }
}

#[test]
fn one_approval_serves_all_rounds() {
    for tool in ["ask", "large"] {
        let mut gateway = Gateway::new();
        let Answer::Refused(_) = gateway.call(&first(tool), &done()) else { panic!("asks a person") };
        gateway.approve_the_only_one();
        let state = gateway.asked(&first(tool));
        let state = gateway.asked(&further(tool, &state));
        assert!(matches!(gateway.call(&further(tool, &state), &done()), Answer::Answered(..)));
        assert!(gateway.gate.pending().unwrap().is_empty());
        assert!(matches!(gateway.call(&first(tool), &done()), Answer::Refused(_)), "it served one call");
    }
}

#[test]
fn a_rule_about_the_input_asks_for_that_input() {
    let mut gateway = Gateway::new();
    let Answer::Refused(_) = gateway.call(&first("sure"), &done()) else { panic!("asks a person") };
    gateway.approve_the_only_one();
    let state = gateway.asked(&first("sure"));
    assert_eq!(gateway.code(&further("sure", &state)).as_deref(), Some("approval"));
    let shown = gateway.gate.pending().unwrap()[0].clone();
    assert!(shown.details().unwrap().contains(r#""input""#), "{shown:?}");
    gateway.approve_the_only_one();
    // Another answer of the user is another call to approve, or one that no rule asks about.
    let mut other = further("sure", &state);
    other["inputResponses"]["sure"]["content"]["payee"] = json!("another");
    assert_eq!(gateway.code(&other).as_deref(), Some("approval"));
    assert_eq!(gateway.code(&further("sure", &state)), None);
}

#[test]
fn rules_judge_the_input() {
    let mut gateway = Gateway::new();
    let state = gateway.asked(&first("never"));
    assert_eq!(gateway.code(&further("never", &state)).as_deref(), Some("deny_if"));
    let mut changed = further("never", &state);
    changed["inputResponses"]["sure"]["content"]["yes"] = json!(false);
    assert_eq!(gateway.code(&changed), None);
}

#[test]
fn a_state_serves_one_repetition_of_its_own_call() {
    let mut gateway = Gateway::new();
    let state = gateway.asked(&first("run"));
    let mut other_arguments = further("run", &state);
    other_arguments["arguments"]["amount"] = json!(61);
    let mut without_state = further("run", &state);
    without_state.as_object_mut().unwrap().remove("requestState");
    for wrong in [further("run", "made up"), further("daily", &state), other_arguments, without_state] {
        assert_eq!(gateway.code(&wrong).as_deref(), Some("unknown_state"), "{wrong}");
    }
    let own = std::mem::replace(&mut gateway.caller, Caller::new().grant("another"));
    assert_eq!(gateway.code(&further("run", &state)).as_deref(), Some("unknown_state"));
    gateway.caller = own;
    assert_eq!(gateway.code(&further("run", &state)), None);
    assert_eq!(gateway.code(&further("run", &state)).as_deref(), Some("unknown_state"), "a state serves once");
}

#[test]
fn a_state_expires_with_its_permit() {
    let mut gateway = Gateway::new();
    let state = gateway.asked(&first("run"));
    gateway.clock.advance(Duration::from_secs(599));
    assert_eq!(gateway.state.held_calls(), 1);
    gateway.clock.advance(Duration::from_secs(1));
    assert_eq!(gateway.code(&further("run", &state)).as_deref(), Some("unknown_state"));
    assert_eq!(gateway.state.held_calls(), 0);
    assert_eq!(gateway.code(&first("run")), None, "the unit is free again");
}

#[test]
fn a_call_takes_at_most_sixteen_rounds() {
    let mut gateway = Gateway::new();
    let mut state = gateway.asked(&first("daily"));
    for _ in 1..15 {
        state = gateway.asked(&further("daily", &state));
    }
    let Answer::Answered(_, answer) = gateway.call(&further("daily", &state), &asks("s")) else { panic!("forwarded") };
    assert_eq!(answer["error"]["code"], -32053, "{answer}");
    assert_eq!(gateway.state.held_calls(), 0);
}

#[test]
fn a_refused_round_can_be_repeated() {
    let mut gateway = Gateway::new();
    let state = gateway.asked(&first("run"));
    let former =
        gateway.gate.replace_policy(Some(r#"{ "version": "1", "default": "deny" }"#.parse::<Policy>().unwrap()));
    assert_eq!(gateway.code(&further("run", &state)).as_deref(), Some("default_deny"), "rules are judged again");
    gateway.gate.replace_policy(former);
    assert_eq!(gateway.code(&further("run", &state)), None);
}

#[test]
fn an_approval_under_another_policy_serves_no_round() {
    let mut gateway = Gateway::new();
    let Answer::Refused(_) = gateway.call(&first("ask"), &done()) else { panic!("asks a person") };
    let id = *gateway.gate.pending().unwrap()[0].id();
    gateway.gate.approve(&id, "ann").unwrap();
    let state = gateway.asked(&first("ask"));
    let stricter = r#"{ "version": "1", "default": "deny", "tools": { "ask": { "action": "require_approval" } } }"#;
    gateway.gate.replace_policy(Some(stricter.parse::<Policy>().unwrap()));
    assert_eq!(gateway.code(&further("ask", &state)).as_deref(), Some("approval"));
}

#[test]
fn a_host_that_ignores_the_state_forwards_nothing() {
    let gateway = Gateway::new();
    let mut session = Session::<Permit>::new();
    let params = further("run", "made up");
    let text = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
    let FromClient::Decide(call) = session.from_client(text.as_bytes()) else { panic!("a call") };
    let decision = gateway.gate.check(&gateway.caller.call(call.tool(), call.arguments()));
    assert!(decision.is_allowed(), "the host has left the state out");
    let Routed::Answer { answer } = session.decided(call, decision) else { panic!("refused") };
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["error"]["code"], -32_602, "an error of the protocol, which no model can change");
    assert_eq!(answer["error"]["data"]["code"], "unknown_state");
}

#[test]
fn rounds_of_a_call_that_failed_release_nothing() {
    let mut gateway = Gateway::new();
    let state = gateway.asked(&first("daily"));
    let mut session = Session::sharing(&gateway.state, &gateway.caller);
    let text = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": further("daily", &state) });
    let FromClient::Decide(call) = session.from_client(text.to_string().as_bytes()) else { panic!("a call") };
    let decision = gateway.gate.check(&call.by(&gateway.caller));
    let Routed::Forward { id, .. } = session.decided(call, decision) else { panic!("allowed") };
    let failed = session.fail(&id, CallOutcome::NotRun, "no connection").unwrap();
    let ended = failed.ended.unwrap();
    assert_eq!(ended.ending, CallOutcome::Unclear(None), "the first round has reached the server");
    ended.conclude().unwrap();
    assert_eq!(gateway.code(&first("daily")).as_deref(), Some("limit"));
}

#[test]
fn a_client_with_pages_is_sent_to_the_approval() {
    let mut gateway = Gateway::new();
    let Answer::Refused(answer) = gateway.call(&first("ask"), &done()) else { panic!("asks a person") };
    let id = *gateway.gate.pending().unwrap()[0].id();
    let request = &answer["result"]["inputRequests"]["approval"];
    assert_eq!(request["method"], "elicitation/create");
    assert_eq!(request["params"]["mode"], "url");
    assert_eq!(request["params"]["url"], format!("https://approve.example/{id}"));
    let state = answer["result"]["requestState"].as_str().unwrap();
    let opened = |action: &str| {
        let mut params = first("ask");
        params["requestState"] = state.into();
        params["inputResponses"] = json!({ "approval": { "action": action } });
        params
    };
    // The client's own answer does not approve the call.
    let Answer::Refused(pending) = gateway.call(&opened("accept"), &done()) else { panic!("not approved yet") };
    assert_eq!(pending["result"], answer["result"]);
    let Answer::Refused(declined) = gateway.call(&opened("decline"), &done()) else { panic!("not approved yet") };
    assert_eq!(declined["result"]["structuredContent"]["code"], "approval");
    let mut other = opened("accept");
    other["arguments"]["amount"] = json!(1);
    assert_eq!(gateway.code(&other).as_deref(), Some("unknown_state"));
    gateway.gate.approve(&id, "ann").unwrap();
    let Answer::Answered(sent, _) = gateway.call(&opened("accept"), &done()) else { panic!("approved") };
    assert!(sent["params"].get("requestState").is_none() && sent["params"].get("inputResponses").is_none());
}

#[test]
fn a_caller_holds_a_bounded_number_of_calls() {
    let mut gateway = Gateway::of(r#"{ "version": "1", "default": "allow" }"#);
    let long = "s".repeat(1 << 20);
    let mut errors = 0;
    for _ in 0..6 {
        let Answer::Answered(_, answer) = gateway.call(&first("t"), &asks(&long)) else { panic!("forwarded") };
        errors += usize::from(answer.get("error").is_some());
    }
    assert_eq!((errors, gateway.state.held_calls()), (3, 3), "4 MiB for each caller");
    gateway.caller = Caller::new().grant("another");
    gateway.asked(&first("t"));
}
