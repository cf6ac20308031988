//! Calls when the server behind the gateway fails: the client gets an error, and no unit stays in
//! flight.

use std::io::Write;
use std::net::TcpListener;

use serde_json::{Value, json};

use super::client::{Client, read_request};
use super::programs::{Folder, Running, TestGateway, config, grant};
use crate::operator;

fn policy() -> Value {
    let limits = json!([
        { "counter": "made", "window": "day", "max": 99, "scope": "grant" },
        { "counter": "running", "window": "in_flight", "max": 1, "scope": "grant" },
    ]);
    let tools = ["echo", "busy", "crash", "never", "odd", "forgetful"]
        .map(|tool| (tool.to_owned(), json!({ "limits": limits })));
    json!({ "version": "1", "default": "deny", "tools": Value::Object(tools.into_iter().collect()) })
}

#[test]
fn a_failing_server_leaves_the_call_charged() {
    for server in [&["--json"][..], &[]] {
        let house = TestGateway::with(&policy(), &[grant("g")], server, "limits.timeout_seconds = 1");
        let client = house.session_client();
        let failing = [
            ("busy", "the server answered with status 503"),
            ("crash", "the connection to the server was lost"),
            ("never", "the server has not answered in time"),
            ("odd", "the server"),
        ];
        for (made, (tool, why)) in failing.into_iter().enumerate() {
            let answer = client.call(1, tool, &json!({})).last();
            let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{tool}: {answer}"));
            assert!(message.contains("may have been made") && message.contains(why), "{tool}: {message}");
            assert_eq!(answer["id"], 1);
            assert_eq!(house.used("made"), format!("{} of 99 used", made + 1), "{tool}");
            assert_eq!(house.used("running"), "0 of 1 used", "{tool}");
        }
        assert_eq!(client.call_text(2, "echo", &json!({ "text": "still there" })), "still there");
    }
}

#[test]
fn a_call_to_an_unreachable_server_is_not_charged() {
    let mut house = TestGateway::new(&policy(), "");
    let client = house.session_client();
    house.server.kill();
    for id in 1..4 {
        let answer = client.call(id, "echo", &json!({ "text": "x" })).last();
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("was not made") && message.contains("cannot be reached"), "{message}");
        assert_eq!((house.used("made"), house.used("running")), ("0 of 99 used".into(), "0 of 1 used".into()));
    }
    assert_eq!(client.send("GET").status, 502);
}

#[test]
fn a_session_that_the_server_forgot_ends() {
    let house = TestGateway::new(&policy(), "");
    let client = house.session_client();
    let answer = client.call(1, "forgetful", &json!({}));
    assert_eq!((answer.status, answer.last()["id"].clone()), (404, json!(1)));
    assert_eq!(client.call(2, "echo", &json!({})).status, 404);
    assert_eq!(house.session_client().call_text(3, "echo", &json!({ "text": "again" })), "again");
}

/// Errors of JSON-RPC with a status of HTTP.
#[test]
fn an_error_with_a_status_passes_as_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    folder.write("policy.json", &policy());
    folder.configure(&config(listener.local_addr().unwrap(), "", &[grant("g")]));
    let gateway = Running::start(TestGateway::command(&folder));
    let client = Client::new(gateway.address, "g");
    let error = |id: &str, code: i32, why: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{why}"}}}}"#)
    };
    let result = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#.to_owned();
    let made = |status: &str| format!("the server answered with status {status}");
    // Each with the status and the text for the client, and the calls that are charged after it.
    let cases = [
        ("400 Bad Request", error("1", -32600, "read it again"), 400, "read it again".into(), 0),
        ("404 Not Found", error("1", -32601, "no such method"), 404, "no such method".into(), 0),
        ("403 Forbidden", error("1", -32000, "not yours"), 403, "not yours".into(), 1),
        ("400 Bad Request", error("2", -32600, "another's"), 200, made("400"), 2),
        ("400 Bad Request", error("null", -32600, "nobody's"), 200, made("400"), 3),
        ("400 Bad Request", result, 200, made("400"), 4),
        ("400 Bad Request", error("1", -32600, &"x".repeat(70_000)), 200, made("400"), 5),
        ("401 Unauthorized", error("1", -32600, "who are you"), 200, made("401"), 6),
        ("500 Internal Server Error", error("1", -32600, "oh"), 200, made("500"), 7),
    ];
    for (status, body, expected, text, charged) in cases {
        let asking = client.clone();
        let asking = std::thread::spawn(move || asking.call(1, "echo", &json!({})));
        let (mut server, _) = listener.accept().unwrap();
        read_request(&server);
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
        let _ = write!(server, "{head}\r\nConnection: close\r\n\r\n{body}");
        let answer = asking.join().unwrap();
        assert_eq!(answer.status, expected, "{status}: {body:.100}");
        assert!(answer.text().contains(&text) && answer.last()["id"] == 1, "{status}: {}", answer.text());
        let usage = operator::usage(&folder.file("operator"), "?server=upstream&grant=g");
        let expected = [("made", format!("{charged} of 99 used")), ("running", "0 of 1 used".into())];
        assert_eq!(usage, expected.map(|(counter, used)| (counter.to_owned(), used)), "{status}: {body:.100}");
    }
}

/// HTTP answers to the same call that no client may receive.
#[test]
fn an_unreadable_answer_is_not_forwarded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    folder.write("policy.json", &policy());
    let settings = "limits = { max_message_bytes = 100000, timeout_seconds = 20 }";
    folder.configure(&config(listener.local_addr().unwrap(), settings, &[grant("g")]));
    let gateway = Running::start(TestGateway::command(&folder));
    let client = Client::new(gateway.address, "g");
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
    let other = r#"{"jsonrpc":"2.0","id":2,"result":{"content":[]}}"#;
    let json = |more: &str, body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let events =
        |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{body}");
    let endless = format!("data: {}", "x".repeat(200_000));
    let cases = [
        (json("Content-Encoding: gzip\r\n", answer), "compressed"),
        (json("", other), "none to this request"),
        (json("", &format!("[{answer}]")), "none to this request"),
        (json("", ""), "none to this request"),
        (json("", &format!("\"{}\"", "x".repeat(200_000))), "too long"),
        (json("", answer).replace("application/json", "text/html"), "of no known type"),
        (
            json("", answer).replace("200 OK", "202 Accepted").replace("application/json", "text/plain"),
            "of no known type",
        ),
        (json("", answer).replace("200 OK", "307 Moved\r\nLocation: http://127.0.0.1:1/"), "status 307"),
        (json("", answer).replace("200 OK", "401 Unauthorized"), "status 401"),
        (json("", answer).replace("Content-Length: 4", "Content-Length: 9"), "was lost"),
        (json("Mcp-Session-Id: a b\r\n", answer), "no usable ids"),
        (events(&format!("data: {other}\n\n")), "without an answer"),
        (events(&format!("data: {answer}\n")), "without an answer"),
        (events(&format!("event: x\ndata: [{answer}]\n\n")), "without an answer"),
        (events(&endless), "too long"),
        (events(": nothing\n\n"), "without an answer"),
        ("HTTP/1.1 200 OK\r\nContent-Ty".to_owned(), "was lost"),
        ("nonsense\r\n\r\n".to_owned(), "was lost"),
        (String::new(), "was lost"),
    ];
    for (index, (answer, why)) in cases.into_iter().enumerate() {
        let asking = client.clone();
        let asking = std::thread::spawn(move || asking.call(1, "echo", &json!({})));
        let (mut server, _) = listener.accept().unwrap();
        read_request(&server);
        let _ = server.write_all(answer.as_bytes());
        drop(server);
        let received = asking.join().unwrap();
        let shown = &answer[..answer.len().min(200)];
        assert_eq!(received.header("www-authenticate"), None);
        assert!(received.text().contains(why), "{index}: {shown}: {}", received.text());
    }
}
