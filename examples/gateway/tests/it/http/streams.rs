//! Streams: progress, notifications, late answers, and cancelled calls.

use serde_json::{Value, json};

use super::client::Client;
use super::programs::{TestGateway, grant};

fn policy() -> Value {
    let sleepers = json!([{ "counter": "sleepers", "window": "in_flight", "max": 1, "scope": "grant" }]);
    json!({ "version": "1", "default": "allow", "tools": { "sleep": { "limits": sleepers },
        "later": { "limits": sleepers } } })
}

fn house() -> TestGateway {
    TestGateway::with(&policy(), &[grant("g")], &[], "limits.timeout_seconds = 3")
}

fn sleep(client: &Client, id: u64, millis: u64) -> super::client::OpenAnswer {
    let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
        "name": "sleep", "arguments": { "ms": millis }, "_meta": { "progressToken": "p" },
    } });
    client.open("POST", call.to_string().as_bytes())
}

#[test]
fn progress_is_forwarded_without_delay() {
    let house = house();
    let mut answer = sleep(&house.session_client(), 1, 1000);
    let began = std::time::Instant::now();
    let mut arrived = Vec::new();
    while let Some(piece) = answer.piece() {
        arrived.push((began.elapsed().as_millis(), String::from_utf8(piece).unwrap()));
    }
    assert_eq!(arrived.len(), 11, "{arrived:?}");
    assert!(arrived[0].0 < 700 && arrived[10].0 > arrived[0].0 + 500, "no message is held back: {arrived:?}");
    assert!(arrived[3].1.contains(r#""progress":4"#) && arrived[10].1.contains("slept"));
}

#[test]
fn notifications_reach_a_listening_client() {
    let house = house();
    let client = house.session_client();
    let mut listening = client.open("GET", b"");
    assert_eq!((listening.status, listening.header("content-type")), (200, Some("text/event-stream")));
    let piece = |listening: &mut super::client::OpenAnswer| String::from_utf8(listening.piece().unwrap()).unwrap();
    assert_eq!(piece(&mut listening), ": here\n\n", "comments keep a connection alive");
    assert_eq!(client.call_text(1, "notify", &json!({ "text": "lunch" })), "notified");
    let event = piece(&mut listening);
    assert!(event.starts_with("id: n1\nevent: message\ndata: {"), "{event}");
    assert!(event.contains("lunch") && event.ends_with("}\n\n"), "{event}");
    assert_eq!(client.send("DELETE").status, 204);
    assert!(listening.piece().is_none(), "the stream ends with its session");
}

#[test]
fn a_changed_list_is_reported_on_the_stream_that_listens() {
    let house = house();
    let client = house.session_client();
    assert!(client.tools(1).contains(&"add".to_owned()));
    let mut listening = client.open("GET", b"");
    assert_eq!(listening.piece().unwrap(), b": here\n\n");
    // The first policy lists what the former one does.
    house.folder.write("policy.json", &json!({ "version": "1", "default": "allow" }));
    house.reload().unwrap();
    house.folder.write("policy.json", &json!({ "version": "1", "default": "allow", "hide": ["add"] }));
    house.reload().unwrap();
    let event = String::from_utf8(listening.piece().unwrap()).unwrap();
    assert!(event.contains(r#""method":"notifications/tools/list_changed""#), "{event}");
    assert!(!client.tools(2).contains(&"add".to_owned()));
}

#[test]
fn progress_extends_the_time_of_a_request_up_to_a_maximum() {
    let settings = "limits.timeout_seconds = 1\nlimits.longest_timeout_seconds = 4";
    let house = TestGateway::with(&policy(), &[grant("g")], &[], settings);
    let client = house.session_client();
    assert!(sleep(&client, 1, 2500).whole().text().contains("slept"), "it reports progress every 250 ms");
    let late = sleep(&client, 2, 9000).whole().text();
    assert!(late.contains("has not answered in time"), "{late}");
    // Without a token there is no progress.
    assert!(client.call_text(3, "sleep", &json!({ "ms": 2500 })).contains("has not answered in time"));
}

#[test]
fn a_session_that_is_deleted_frees_no_call() {
    let house = house();
    let client = house.session_client();
    let mut answer = sleep(&client, 1, 2000);
    assert!(answer.piece().is_some());
    house.wait_for_usage("sleepers", "1 of 1 used");
    assert_eq!(client.send("DELETE").status, 204);
    let again = house.session_client();
    let refused = again.call_text(1, "sleep", &json!({ "ms": 1 }));
    assert!(refused.starts_with("[RATE LIMITED]"), "{refused}");
    assert!(answer.whole().text().contains("slept"), "the client gets the answer, if it waits");
    assert_eq!(again.call_text(2, "sleep", &json!({ "ms": 1 })), "slept");
}

#[test]
fn a_cancelled_call_ends_when_the_server_ends_its_stream() {
    let house = house();
    let client = house.session_client();
    let mut answer = sleep(&client, 1, 2500);
    assert!(answer.piece().is_some());
    house.wait_for_usage("sleepers", "1 of 1 used");
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    assert_eq!(client.post(cancelled.to_string()).status, 202);
    let rest = answer.whole();
    assert!(!String::from_utf8_lossy(&rest.body).contains("slept"), "the server has received the cancellation");
    house.wait_for_usage("sleepers", "0 of 1 used");
    assert_eq!(client.call_text(2, "sleep", &json!({ "ms": 1 })), "slept");
}

/// The stream ends before the answer, which is allowed if its events have ids. The answer comes on
/// another stream.
#[test]
fn an_answer_can_come_on_a_resumed_stream() {
    let house = house();
    let mut client = house.session_client();
    let first =
        client.open("POST", br#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"later"}}"#).whole();
    assert_eq!(String::from_utf8(first.body).unwrap(), "id: later-5\nretry: 100\ndata: \n\n");
    assert_eq!(house.used("sleepers"), "1 of 1 used", "the call is pending");
    client.more = vec!["Last-Event-ID: later-5".into()];
    let resumed = client.send("GET");
    assert_eq!(resumed.text(), "here it is");
    assert!(resumed.body.starts_with(b": here\n\nid: later-5-1\nevent: message\ndata: "));
    assert_eq!(house.used("sleepers"), "0 of 1 used");
    client.more.clear();
    // A call whose answer is not asked for is given up after the timeout.
    client.call(6, "later", &json!({}));
    assert_eq!(house.used("sleepers"), "1 of 1 used");
    house.wait_for_usage("sleepers", "0 of 1 used");
}
