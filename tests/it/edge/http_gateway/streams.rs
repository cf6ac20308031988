//! What comes in a stream: progress, notifications, answers that come later; and calls that are
//! taken back.

use serde_json::{Value, json};

use super::client::Client;
use super::programs::{House, grant};

fn policy() -> Value {
    let sleepers = json!([{ "counter": "sleepers", "window": "in_flight", "max": 1, "scope": "grant" }]);
    json!({ "version": "1", "default": "allow", "tools": { "sleep": { "limits": sleepers }, "later": { "limits": sleepers } } })
}

fn house() -> House {
    House::with(&policy(), &[grant("g")], &[], &["--timeout", "3"])
}

fn sleep(client: &Client, id: u64, millis: u64) -> super::client::Coming {
    let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
        "name": "sleep", "arguments": { "ms": millis }, "_meta": { "progressToken": "p" },
    } });
    client.open("POST", call.to_string().as_bytes())
}

#[test]
fn progress_comes_as_it_is_made() {
    let house = house();
    let mut answer = sleep(&house.begun(), 1, 1000);
    let began = std::time::Instant::now();
    let mut arrived = Vec::new();
    while let Some(piece) = answer.piece() {
        arrived.push((began.elapsed().as_millis(), String::from_utf8(piece).unwrap()));
    }
    assert_eq!(arrived.len(), 11, "{arrived:?}");
    assert!(arrived[0].0 < 700 && arrived[10].0 > arrived[0].0 + 500, "nothing is held back: {arrived:?}");
    assert!(arrived[3].1.contains(r#""progress":4"#) && arrived[10].1.contains("slept"));
}

#[test]
fn what_the_server_says_unasked_reaches_who_listens() {
    let house = house();
    let client = house.begun();
    let mut listening = client.open("GET", b"");
    assert_eq!((listening.status, listening.header("content-type")), (200, Some("text/event-stream")));
    let piece = |listening: &mut super::client::Coming| String::from_utf8(listening.piece().unwrap()).unwrap();
    assert_eq!(piece(&mut listening), ": here\n\n", "comments keep a connection alive");
    assert_eq!(client.told(1, "notify", &json!({ "text": "lunch" })), "notified");
    let said = piece(&mut listening);
    assert!(said.starts_with("id: n1\nevent: message\ndata: {"), "{said}");
    assert!(said.contains("lunch") && said.ends_with("}\n\n"), "{said}");
    assert_eq!(client.send("DELETE").status, 204);
    assert!(listening.piece().is_none(), "the stream ends with its session");
}

#[test]
fn a_call_that_is_cancelled_has_ended_when_the_server_says_no_more_of_it() {
    let house = house();
    let client = house.begun();
    let mut answer = sleep(&client, 1, 2500);
    assert!(answer.piece().is_some());
    house.comes_to("sleepers", "1 of 1 used");
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    assert_eq!(client.post(cancelled.to_string()).status, 202);
    let rest = answer.whole();
    assert!(!String::from_utf8_lossy(&rest.body).contains("slept"), "the server has heard of it");
    house.comes_to("sleepers", "0 of 1 used");
    assert_eq!(client.told(2, "sleep", &json!({ "ms": 1 })), "slept");
}

/// The stream ends before the answer, as servers may do that have named its events; the answer
/// comes on another.
#[test]
fn an_answer_may_come_on_a_stream_that_takes_up_the_first() {
    let house = house();
    let mut client = house.begun();
    let first =
        client.open("POST", br#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"later"}}"#).whole();
    assert_eq!(String::from_utf8(first.body).unwrap(), "id: later-5\nretry: 100\ndata: \n\n");
    assert_eq!(house.used("sleepers"), "1 of 1 used", "it is under way");
    client.more = vec!["Last-Event-ID: later-5".into()];
    let resumed = client.send("GET");
    assert_eq!(resumed.text(), "here it is");
    assert!(resumed.body.starts_with(b": here\n\nid: later-5-1\nevent: message\ndata: "));
    assert_eq!(house.used("sleepers"), "0 of 1 used");
    client.more.clear();
    // One that nobody asks for is given up in time.
    client.call(6, "later", &json!({}));
    assert_eq!(house.used("sleepers"), "1 of 1 used");
    house.comes_to("sleepers", "0 of 1 used");
}
