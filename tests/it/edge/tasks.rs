//! Calls that the server runs as tasks, progress, lists and lines.

use std::time::Duration;

use serde_json::{Value, json};
use toolgate::mcp::{FromClient, FromServer, RequestId, Routed, ServerState, Session, filter_tools_list};
use toolgate::{Caller, Gate, ManualClock, Policy};

const POLICY: &str = r#"{
    "version": "1", "default": "deny",
    "tools": { "run": { "limits": [
        { "counter": "r", "window": "in_flight", "max": 1, "scope": "grant", "lease": "1m" }] } }
}"#;

struct Gateway {
    gate: Gate,
    state: ServerState,
    clock: ManualClock,
    caller: Caller,
}

impl Gateway {
    fn new() -> Self {
        let (gate, state, clock, caller) = super::parts(POLICY);
        Self { gate, state, clock, caller }
    }

    fn session(&self) -> Session {
        Session::sharing(&self.state, &self.caller)
    }

    /// Returns `true` if the call is forwarded.
    fn calls(&self, session: &mut Session, id: u64) -> bool {
        let params = json!({ "name": "run", "task": { "ttl": 60_000 }, "_meta": { "progressToken": id } });
        let message = request(id, "tools/call", &params);
        let FromClient::Decide(call) = session.from_client(message.as_bytes()) else { panic!("a call") };
        let decision = self.gate.check(&call.by(&self.caller));
        matches!(session.decided(call, decision), Routed::Forward { .. })
    }
}

fn request(id: u64, method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

fn answer(id: u64, result: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
}

/// Takes a message of the server, and returns `true` if it is forwarded and ends a call.
fn ends(session: &mut Session, message: &str) -> bool {
    match session.from_server(message.as_bytes(), |_| {}) {
        FromServer::Forward { ended: Some(ended), .. } => {
            ended.conclude().unwrap();
            true
        }
        FromServer::Forward { ended: None, .. } => false,
        FromServer::Drop { why } => panic!("{message}: {why}"),
    }
}

#[test]
fn a_task_is_in_flight_until_it_ends() {
    let status = |status: &str| json!({ "taskId": "t-1", "status": status });
    let nested = |reported: Value| json!({ "task": reported });
    let complete = json!({ "content": [] });
    for handle in [nested(status("working")), json!({ "resultType": "task", "taskId": "t-1", "status": "working" })] {
        for (method, going, ended) in [
            ("tasks/get", vec![status("working"), status("input_required")], status("completed")),
            ("tasks/get", vec![nested(status("working"))], nested(status("failed"))),
            ("tasks/cancel", vec![json!({})], status("cancelled")),
            ("tasks/result", vec![], complete.clone()),
        ] {
            let gateway = Gateway::new();
            let mut session = gateway.session();
            assert!(gateway.calls(&mut session, 1));
            assert!(!ends(&mut session, &answer(1, &handle)));
            drop(session);
            // Another session, as of a client that has connected again.
            let mut session = gateway.session();
            assert!(!gateway.calls(&mut session, 2), "{method}: it is at work");
            for (id, going) in (10..).zip(&going) {
                let _ = session.from_client(request(id, method, &json!({ "taskId": "t-1" })).as_bytes());
                assert!(!ends(&mut session, &answer(id, going)), "{going}");
            }
            assert!(!gateway.calls(&mut session, 3), "{method}: it is still at work");
            let _ = session.from_client(request(4, method, &json!({ "taskId": "t-1" })).as_bytes());
            assert!(ends(&mut session, &answer(4, &ended)), "{method}");
            assert!(gateway.calls(&mut session, 5), "{method}: it has ended");
        }
    }
}

#[test]
fn a_notification_ends_a_task() {
    let gateway = Gateway::new();
    let mut session = gateway.session();
    assert!(gateway.calls(&mut session, 1));
    assert!(!ends(&mut session, &answer(1, &json!({ "task": { "taskId": "t-1", "status": "working" } }))));
    let notified = |method: &str, task: &str, status: &str| {
        json!({ "jsonrpc": "2.0", "method": method, "params": { "taskId": task, "status": status } }).to_string()
    };
    assert!(!ends(&mut session, &notified("notifications/tasks", "t-1", "working")));
    assert!(!ends(&mut session, &notified("notifications/tasks", "t-2", "completed")));
    assert!(ends(&mut session, &notified("notifications/tasks/status", "t-1", "completed")));
    assert!(gateway.calls(&mut session, 2));
}

#[test]
fn a_task_whose_end_is_not_seen_ends_with_its_lease() {
    for task in [json!({ "taskId": "t-1", "status": "working" }), json!({ "taskId": "", "status": "working" })] {
        let gateway = Gateway::new();
        let mut session = gateway.session();
        assert!(gateway.calls(&mut session, 1));
        ends(&mut session, &answer(1, &json!({ "task": task })));
        drop(session);
        gateway.clock.advance(Duration::from_secs(59));
        assert!(!gateway.calls(&mut gateway.session(), 2), "{task}");
        gateway.clock.advance(Duration::from_secs(1));
        assert!(gateway.calls(&mut gateway.session(), 3), "{task}");
    }
}

#[test]
fn another_tasks_answer_ends_nothing() {
    let gateway = Gateway::new();
    let mut session = gateway.session();
    assert!(gateway.calls(&mut session, 1));
    assert!(!ends(&mut session, &answer(1, &json!({ "task": { "taskId": "t-1", "status": "working" } }))));
    for (id, asked) in [(2, "t-2"), (3, "t-1")] {
        let _ = session.from_client(request(id, "tasks/get", &json!({ "taskId": asked })).as_bytes());
        let other = json!({ "taskId": "t-2", "status": "completed" });
        assert!(!ends(&mut session, &answer(id, &other)), "{asked}");
    }
    assert!(!gateway.calls(&mut session, 4));
}

#[test]
fn progress_passes_while_its_request_is_pending() {
    let gateway = Gateway::new();
    let mut session = gateway.session();
    assert!(gateway.calls(&mut session, 1));
    let progress = |token: Value| {
        let params = json!({ "progressToken": token, "progress": 1 });
        json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }).to_string()
    };
    let passes = |session: &mut Session, token: Value| match session.from_server(progress(token).as_bytes(), |_| {}) {
        FromServer::Forward { progress, .. } => progress.or(RequestId::of(&json!("no request"))),
        FromServer::Drop { .. } => None,
    };
    assert_eq!(passes(&mut session, json!(1)), RequestId::of(&json!(1)));
    assert_eq!(passes(&mut session, json!("1")), None);
    assert_eq!(passes(&mut session, json!(2)), None);
    // The token of a task stays in use.
    ends(&mut session, &answer(1, &json!({ "task": { "taskId": "t-1", "status": "working" } })));
    assert!(passes(&mut session, json!(1)).is_some());

    let list = request(5, "tools/list", &json!({ "_meta": { "progressToken": "p" } }));
    let _ = session.from_client(list.as_bytes());
    assert!(passes(&mut session, json!("p")).is_some());
    let id = RequestId::of(&json!(5)).unwrap();
    drop(session.give_up(&id, "late"));
    assert_eq!(passes(&mut session, json!("p")), None);
}

#[test]
fn a_cancelled_call_is_reported_to_the_host() {
    let gateway = Gateway::new();
    let mut session = gateway.session();
    assert!(gateway.calls(&mut session, 1));
    let cancelled = |session: &mut Session, id: Value| {
        let params = json!({ "requestId": id });
        let text = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params }).to_string();
        let FromClient::Forward { cancels, method, .. } = session.from_client(text.as_bytes()) else {
            panic!("forwarded")
        };
        assert_eq!(method.as_deref(), Some("notifications/cancelled"));
        cancels
    };
    let id = RequestId::of(&json!(1)).unwrap();
    assert_eq!(cancelled(&mut session, json!("1")), None);
    assert_eq!(cancelled(&mut session, json!(1)), Some(id.clone()));
    assert!(!gateway.calls(&mut session, 2), "the server may still be at work");
    let failed = session.give_up_cancelled(&id).unwrap();
    assert_eq!(failed.answer, None, "the client does not wait any more");
    failed.ended.unwrap().conclude().unwrap();
    assert!(gateway.calls(&mut session, 3));
    let id = RequestId::of(&json!(3)).unwrap();
    assert!(session.give_up_cancelled(&id).is_none(), "nobody has cancelled it");
    assert_eq!(cancelled(&mut session, json!(1)), None);
}

#[test]
fn a_filtered_list_is_private_and_short_lived() {
    let gateway = Gateway::new();
    let policy = gateway.gate.policy();
    let list = |session: &mut Session, result: &Value| -> Value {
        let _ = session.from_client(request(1, "tools/list", &json!({})).as_bytes());
        let text = answer(1, result);
        let filter = |result: &mut Value| filter_tools_list(policy.as_ref(), result);
        let FromServer::Forward { message, .. } = session.from_server(text.as_bytes(), filter) else {
            panic!("a list")
        };
        serde_json::from_str::<Value>(&message).unwrap()["result"].clone()
    };
    let tools = json!([{ "name": "run" }, { "name": "hidden" }]);
    let shared = json!({ "tools": tools, "ttlMs": 60_000, "cacheScope": "public" });
    let own = json!({ "tools": [{ "name": "run" }], "ttlMs": 0, "cacheScope": "private" });
    assert_eq!(list(&mut gateway.session(), &shared), own);
    let kept = list(&mut gateway.session().with_max_list_ttl(Duration::from_secs(5)), &shared);
    assert_eq!((&kept["ttlMs"], &kept["cacheScope"]), (&json!(5_000), &json!("private")));
    let older = json!({ "tools": tools, "nextCursor": "2" });
    assert_eq!(list(&mut gateway.session(), &older), json!({ "tools": [{ "name": "run" }], "nextCursor": "2" }));

    // Nothing is known to the client of a tool that its list does not have.
    let with_schema = json!([{ "name": "run" }, { "name": "hidden", "outputSchema": {} }]);
    list(&mut gateway.session(), &json!({ "tools": with_schema }));
    let mut session = gateway.session();
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
    let call = request(9, "tools/call", &json!({ "name": "hidden", "_meta": meta }));
    let FromClient::Decide(call) = session.from_client(call.as_bytes()) else { panic!("a call") };
    let decision = gateway.gate.check(&call.by(&gateway.caller));
    let Routed::Answer { answer } = session.decided(call, decision) else { panic!("refused") };
    assert!(answer.contains("structuredContent"), "{answer}");

    let wider: Policy = r#"{ "version": "1", "default": "allow", "hide": ["run"] }"#.parse().unwrap();
    assert!(gateway.state.lists_differ(policy.as_ref(), Some(&wider)));
    assert!(gateway.state.lists_differ(None, policy.as_ref()));
    let same: Policy = r#"{ "version": "1", "default": "deny", "tools": { "r*": {} } }"#.parse().unwrap();
    assert!(!gateway.state.lists_differ(policy.as_ref(), Some(&same)));
}

#[test]
fn changes_of_the_list_are_announced() {
    let gateway = Gateway::new();
    for (method, extra) in [("initialize", json!({ "protocolVersion": "2025-11-25" })), ("server/discover", json!({}))]
    {
        let mut session = gateway.session().announcing_changes();
        let _ = session.from_client(request(1, method, &json!({})).as_bytes());
        let mut result = extra;
        result["capabilities"] = json!({ "tools": { "listChanged": false }, "logging": {} });
        let text = answer(1, &result);
        let FromServer::Forward { message, .. } = session.from_server(text.as_bytes(), |_| {}) else {
            panic!("{method}")
        };
        result["capabilities"]["tools"]["listChanged"] = json!(true);
        assert_eq!(serde_json::from_str::<Value>(&message).unwrap()["result"], result);
    }
}

#[test]
fn clients_learn_that_their_list_has_changed() {
    let gateway = Gateway::new();
    let mut session = gateway.session().announcing_changes();
    assert_eq!(session.list_changed(), []);
    for (id, filter) in [(1, json!({ "toolsListChanged": true })), (2, json!({ "promptsListChanged": true }))] {
        let listen = request(id, "subscriptions/listen", &json!({ "notifications": filter }));
        let _ = session.from_client(listen.as_bytes());
        let params = json!({ "notifications": {}, "_meta": { "io.modelcontextprotocol/subscriptionId": id } });
        let method = "notifications/subscriptions/acknowledged";
        let text = json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string();
        let FromServer::Forward { message, .. } = session.from_server(text.as_bytes(), |_| {}) else {
            panic!("{text}")
        };
        let honored = serde_json::from_str::<Value>(&message).unwrap()["params"]["notifications"].clone();
        assert_eq!(honored, if id == 1 { json!({ "toolsListChanged": true }) } else { json!({}) });
    }
    let [(Some(id), message)] = &session.list_changed()[..] else { panic!("one listens") };
    assert_eq!(*id, RequestId::of(&json!(1)).unwrap());
    let message: Value = serde_json::from_str(message).unwrap();
    assert_eq!(message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1);

    let mut older = gateway.session();
    let _ = older.from_client(request(1, "initialize", &json!({})).as_bytes());
    let text = answer(1, &json!({ "protocolVersion": "2025-11-25", "capabilities": {} }));
    let _ = older.from_server(text.as_bytes(), |_| {});
    let [(None, message)] = &older.list_changed()[..] else { panic!("one connection") };
    assert!(message.contains("notifications/tools/list_changed"));
}

#[test]
fn a_server_message_is_one_line() {
    let gateway = Gateway::new();
    let mut session = gateway.session();
    for broken in ["\r", "\n", "\r\n"] {
        let text = [r#"{"jsonrpc":"2.0","method":"notifications/message","#, r#""params":{"data":["#, r#""a\nb"]}}"#];
        let text = text.join(broken);
        let FromServer::Forward { message, .. } = session.from_server(text.as_bytes(), |_| {}) else {
            panic!("{text}")
        };
        assert!(!message.contains(['\r', '\n']), "{message}");
        let (got, sent): (Value, Value) =
            (serde_json::from_str(&message).unwrap(), serde_json::from_str(&text).unwrap());
        assert_eq!(got, sent);
    }
}

#[test]
fn a_client_error_reports_that_nothing_ran() {
    let gateway = Gateway::new();
    for (code, is_certain) in [(-32_602, true), (-32_020, true), (-32_601, true), (-32_603, false), (-32_001, false)] {
        let mut session = gateway.session();
        assert!(gateway.calls(&mut session, 1), "{code}");
        let text = json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": code, "message": "no" } }).to_string();
        let FromServer::Forward { message, ended, .. } = session.from_server_with_client_error(text.as_bytes()) else {
            panic!("{code}")
        };
        assert_eq!(message, text);
        let ended = ended.unwrap();
        assert_eq!(ended.ending == toolgate::mcp::CallOutcome::NotRun, is_certain, "{code}");
        ended.conclude().unwrap();
    }
    let mut session = gateway.session();
    assert!(gateway.calls(&mut session, 1));
    let success = answer(1, &json!({ "content": [] }));
    assert!(matches!(session.from_server_with_client_error(success.as_bytes()), FromServer::Drop { .. }));
    assert_eq!(session.under_way(), 1);
}
