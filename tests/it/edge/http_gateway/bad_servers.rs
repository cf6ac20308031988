//! What becomes of calls when the server behind the gateway fails: the client is told, and no
//! counter is left held.

use std::io::Write;
use std::net::TcpListener;

use serde_json::{Value, json};

use super::client::{Client, asked};
use super::programs::{Folder, House, Running, grant, grants};

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
fn a_server_that_fails_leaves_the_call_spent_and_nothing_in_flight() {
    for server in [&["--json"][..], &[]] {
        let house = House::with(&policy(), &[grant("g")], server, &["--timeout", "1"]);
        let client = house.begun();
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
        assert_eq!(client.told(2, "echo", &json!({ "text": "still there" })), "still there");
    }
}

#[test]
fn a_server_that_is_not_there_costs_nothing() {
    let mut house = House::new(&policy(), &[]);
    let client = house.begun();
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
fn a_server_that_has_forgotten_a_session_ends_it() {
    let house = House::new(&policy(), &[]);
    let client = house.begun();
    let answer = client.call(1, "forgetful", &json!({}));
    assert_eq!((answer.status, answer.last()["id"].clone()), (404, json!(1)));
    assert_eq!(client.call(2, "echo", &json!({})).status, 404);
    assert_eq!(house.begun().told(3, "echo", &json!({ "text": "anew" })), "anew");
}

/// Answers of HTTP that no client gets, each in front of the same call.
#[test]
fn an_answer_that_cannot_be_judged_is_not_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    folder.write("policy.json", &policy());
    folder.write("grants.json", &grants(&[grant("g")]));
    let options = ["--max-message", "100000", "--timeout", "20"];
    let gateway = Running::start(House::command(&folder, listener.local_addr().unwrap(), &options));
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
        asked(&server);
        let _ = server.write_all(answer.as_bytes());
        drop(server);
        let told = asking.join().unwrap();
        let shown = &answer[..answer.len().min(200)];
        assert_eq!(told.header("www-authenticate"), None);
        assert!(told.text().contains(why), "{index}: {shown}: {}", told.text());
    }
}
