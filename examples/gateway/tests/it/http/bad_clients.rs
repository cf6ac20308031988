//! Faulty and malicious clients: each is refused, and no undecided call reaches the server.

use std::io::{Read, Write};

use serde_json::{Value, json};

use super::client::{Client, read_answer};
use super::programs::{Folder, TestGateway, config, eventually, grant};

fn allow() -> Value {
    json!({ "version": "1", "default": "allow", "tools": {
        "sleep": { "limits": [{ "counter": "sleepers", "window": "in_flight", "max": 3, "scope": "grant" }] },
        "never": { "limits": [{ "counter": "lost", "window": "in_flight", "max": 3, "scope": "grant" }] },
    } })
}

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

#[test]
fn a_client_without_a_valid_token_is_refused() {
    let house = TestGateway::new(&allow(), "");
    let mut client = house.session_client();
    for method in ["POST", "GET", "DELETE"] {
        for (token, challenge) in [
            (None, r#"Bearer realm="toolgate""#),
            (Some("wrong"), r#"Bearer realm="toolgate", error="invalid_token""#),
            (Some(""), r#"Bearer realm="toolgate""#),
        ] {
            client.token = token.map(str::to_owned);
            let refused = client.open(method, PING.as_bytes()).whole();
            assert_eq!(
                (refused.status, refused.header("www-authenticate")),
                (401, Some(challenge)),
                "{method} {token:?}"
            );
        }
    }
    client.token = None;
    for authorization in ["Basic Zzpn", "Bearer", "g", "Bearer g\r\nAuthorization: Bearer g", "Bearer  g"] {
        client.more = vec![format!("Authorization: {authorization}")];
        assert_eq!(client.post(PING).status, 401, "{authorization}");
    }
    client.more = vec!["Authorization: bearer g".into()];
    assert_eq!(client.post(PING).status, 200, "the case of the scheme does not matter");
}

#[test]
fn a_session_belongs_to_one_grant() {
    let house = TestGateway::with(&allow(), &[grant("g"), grant("h")], &["--json"], "");
    let mine = house.session_client();
    let mut theirs = house.client("h").begin();
    assert_ne!(mine.session, theirs.session);
    let own = theirs.session.clone();
    theirs.session = mine.session.clone();
    for method in ["POST", "GET", "DELETE"] {
        assert_eq!(theirs.open(method, PING.as_bytes()).whole().status, 404, "{method}");
    }
    assert_eq!(mine.post(PING).status, 200, "the session still exists");
    theirs.session = own;
    assert_eq!(theirs.post(PING).status, 200);
    assert_eq!(mine.send("DELETE").status, 204);
    assert_eq!(mine.post(PING).status, 404, "the session has ended");
    let mut stranger = house.client("g");
    stranger.session = Some("never-given".into());
    assert_eq!(stranger.post(PING).status, 404);
}

#[test]
fn the_oldest_idle_session_makes_room() {
    let settings = "limits.sessions_per_grant = 2";
    let house = TestGateway::with(&allow(), &[grant("g"), grant("h")], &[], settings);
    let (first, second) = (house.session_client(), house.session_client());
    // A stream uses the first, so the second is idle for longest, however often it is used.
    let listening = first.open("GET", b"");
    let third = house.session_client();
    assert_eq!((first.post(PING).status, second.post(PING).status, third.post(PING).status), (200, 404, 200));
    let also_listening = third.open("GET", b"");
    let refused = house.client("g").ask(1, "initialize", &json!({}));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "all sessions are in use");
    assert_eq!(house.client("h").begin().post(PING).status, 200, "another grant has its own bound");
    drop((listening, also_listening));
    eventually(|| house.client("g").ask(1, "initialize", &json!({})).status == 200, || "no session is idle".into());
    for id in 1..20 {
        assert_eq!(
            house.session_client().call_text(id, "echo", &json!({ "text": "x" })),
            "x",
            "a session for each call"
        );
    }
}

#[test]
fn idle_sessions_end() {
    let house = TestGateway::new(&allow(), "limits.session_idle_seconds = 1");
    let client = house.session_client();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(client.post(PING).status, 404);
}

#[test]
fn new_sessions_are_bounded_in_time() {
    let settings = "limits.new_sessions_per_minute = 3";
    let house = TestGateway::with(&allow(), &[grant("g"), grant("h")], &["--json"], settings);
    let kept = house.session_client();
    for _ in 0..2 {
        assert_eq!(house.session_client().send("DELETE").status, 204);
    }
    let refused = house.client("g").ask(7, "initialize", &json!({}));
    assert_eq!((refused.status, refused.header("retry-after"), &refused.last()["id"]), (429, Some("60"), &json!(7)));
    assert!(refused.text().contains("was not made: the grant begins too many sessions"), "{}", refused.text());
    assert_eq!(kept.post(PING).status, 200, "sessions that exist continue");
    assert_eq!(house.client("h").begin().post(PING).status, 200, "another grant has its own bound");
}

/// Connections that never send a whole head, as many as they like.
#[test]
fn half_open_connections_of_one_peer_are_bounded() {
    let house = TestGateway::new(&allow(), "limits.connections_per_peer = 8");
    let client = house.session_client();
    let began = std::time::Instant::now();
    let half_open = || {
        let mut connection = client.connect();
        connection.write_all(b"GET /mcp HTTP/1.1\r\nX: ").unwrap();
        connection.set_nonblocking(true).unwrap();
        connection
    };
    let connections: Vec<_> = (0..12).map(|_| half_open()).collect();
    let is_open = |mut connection: &std::net::TcpStream| {
        connection.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let open = || connections.iter().filter(|connection| is_open(connection)).count();
    eventually(|| open() <= 8, || "there is room for too many".into());
    // The connections with which the session has begun may still be counted.
    assert!(open() >= 6, "{} are open", open());
    eventually(|| open() == 0, || "a head that does not come is waited for".into());
    assert!((9..30).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(client.post(PING).status, 200);
}

/// Long messages of one grant, which take a processor for a while, are judged one after another.
/// Meanwhile others are served.
#[test]
fn long_messages_do_not_keep_others_waiting() {
    let house = TestGateway::with(&allow(), &[grant("g"), grant("h")], &["--json"], "");
    let (other, mut list) = (house.client("h").begin(), "1,".repeat(2_000_000));
    list.push('1');
    let long: Vec<_> = (0..4)
        .map(|id| {
            let params = format!(r#"{{"name":"no_such_tool","arguments":{{"list":[{list}]}}}}"#);
            let message = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#);
            let client = house.session_client();
            let mut connection = client.connect();
            connection.write_all(&client.head("POST", message.len())).unwrap();
            connection.write_all(message.as_bytes()).unwrap();
            connection
        })
        .collect();
    let sent = std::time::Instant::now();
    for id in 0..10 {
        assert_eq!(other.call_text(id, "echo", &json!({ "text": "x" })), "x");
    }
    let served = sent.elapsed();
    for connection in long {
        assert_eq!(read_answer(connection).status, 200);
    }
    assert!(served < sent.elapsed() / 3, "{served:?} of {:?}", sent.elapsed());
}

#[test]
fn requests_of_other_origins_are_refused() {
    let house = TestGateway::new(&allow(), r#"allow_origins = ["https://desk.example.com"]"#);
    let mut client = house.session_client();
    for (origin, status) in [
        ("http://localhost:3000", 200),
        ("http://127.0.0.1", 200),
        ("http://[::1]:8080", 200),
        ("https://desk.example.com", 200),
        ("https://desk.example.com.evil.com", 403),
        ("http://localhost.evil.com", 403),
        ("http://127.0.0.1.evil.com", 403),
        ("http://localhost@evil.com", 403),
        ("file://localhost", 403),
        ("null", 403),
    ] {
        client.more = vec![format!("Origin: {origin}")];
        assert_eq!(client.post(PING).status, status, "{origin}");
    }
}

/// Each message with the status of its answer.
#[test]
fn an_ambiguous_message_reaches_no_server() {
    let house = TestGateway::with(&allow(), &[grant("g")], &["--json", "--calls", "/dev/stderr"], "");
    let mut client = house.session_client();
    let deep =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let cases: [(&[u8], u16); 14] = [
        (b"", 400),
        (b"nonsense", 400),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,", 400),
        (b"\xff\xfe{}", 400),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":\"\xff\"}", 400),
        (b"[]", 400),
        (b"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"add\"}}]", 400),
        (deep.as_bytes(), 400),
        (b"{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":{\"name\":\"add\"}}", 400),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"add\"}}", 400),
        (b"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"tools/call\",\"params\":{\"name\":\"add\"}}", 400),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"add\",\"name\":\"echo\"}}",
            200,
        ),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\
              \"params\":{\"name\":\"add\",\"arguments\":{\"a\":1,\"a\":2}}}",
            200,
        ),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"add\",\"arguments\":[]}}",
            200,
        ),
    ];
    for (body, status) in cases {
        let refused = client.post(body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
        assert_eq!(refused.status, status, "{shown}: {}", String::from_utf8_lossy(&refused.body));
        if status == 200 {
            assert!(refused.last()["error"]["message"].as_str().unwrap().contains("could not be read"), "{shown}");
        }
    }
    for (kind, encoding) in [("text/plain", None), ("application/json", Some("gzip"))] {
        client.more = vec![format!("Content-Type: {kind}")];
        client.more.extend(encoding.map(|encoding| format!("Content-Encoding: {encoding}")));
        assert_eq!(client.post(PING).status, 415, "{kind} {encoding:?}");
    }
    client.more.clear();
    assert_eq!(client.send("PUT").status, 405);
    assert_eq!(client.call_text(1, "add", &json!({ "a": 1, "b": 1 })), "2", "the session continues");
    house.server.wait_for_log("add {\"a\":1,\"b\":1}");
    let calls = house.server.count_log_lines("add");
    assert_eq!(calls, 1, "only the readable call has reached the server");
}

#[test]
fn a_pending_id_cannot_be_used_again_over_http() {
    let house = TestGateway::new(&allow(), "");
    let client = house.session_client();
    let sleeper = client.clone();
    let sleeping = std::thread::spawn(move || sleeper.call_text(7, "sleep", &json!({ "ms": 1000 })));
    house.wait_for_usage("sleepers", "1 of 3 used");
    let refused = client.call(7, "echo", &json!({ "text": "x" }));
    assert!(refused.text().contains("already pending"), "{}", refused.text());
    assert_eq!(sleeping.join().unwrap(), "slept");
    assert_eq!(client.call_text(7, "echo", &json!({ "text": "x" })), "x");
}

/// A body of 50 MiB, with and without its length, is refused without being stored.
#[test]
fn an_oversized_http_message_takes_bounded_memory() {
    let house = TestGateway::new(&allow(), "limits.max_message_bytes = 1000000");
    let client = house.session_client();
    let before = house.gateway.peak();
    let large = vec![b' '; 50 << 20];
    for _ in 0..3 {
        let refused = client.post(&large);
        assert_eq!(refused.status, 413);
        assert!(refused.last()["error"]["message"].as_str().unwrap().contains("1000000 bytes"));
    }
    let mut connection = client.connect();
    let head =
        String::from_utf8(client.head("POST", 0)).unwrap().replace("Content-Length: 0", "Transfer-Encoding: chunked");
    connection.write_all(head.as_bytes()).unwrap();
    for piece in large.chunks(1 << 20) {
        let sent = connection.write_all(format!("{:x}\r\n", piece.len()).as_bytes());
        let sent = sent.and_then(|()| connection.write_all(piece)).and_then(|()| connection.write_all(b"\r\n"));
        if sent.is_err() {
            break;
        }
    }
    let _ = connection.write_all(b"0\r\n\r\n");
    assert_eq!(read_answer(connection).status, 413);
    let grown = house.gateway.peak() - before;
    assert!(grown < 16 << 20, "{grown} bytes more");
    assert_eq!(client.post(PING).status, 200);
}

#[test]
fn a_client_that_goes_away_leaves_nothing_in_flight() {
    for server in [&["--json"][..], &[]] {
        let house = TestGateway::with(&allow(), &[grant("g")], server, "limits.timeout_seconds = 2");
        let client = house.session_client();
        let gone = |id: u64, tool: &str| {
            let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
                               "params": { "name": tool, "arguments": { "ms": 700 } } });
            let body = call.to_string();
            let mut connection = client.connect();
            connection.write_all(&client.head("POST", body.len())).unwrap();
            connection.write_all(body.as_bytes()).unwrap();
            connection
        };
        let (sleeping, lost) = (gone(1, "sleep"), gone(2, "never"));
        house.wait_for_usage("sleepers", "1 of 3 used");
        house.wait_for_usage("lost", "1 of 3 used");
        drop((sleeping, lost));
        // One call ends when the server has run it, the other after its timeout.
        house.wait_for_usage("sleepers", "0 of 3 used");
        house.wait_for_usage("lost", "0 of 3 used");
        assert_eq!(client.call_text(1, "echo", &json!({ "text": "x" })), "x", "the id is free again");
    }
}

#[test]
fn an_incomplete_request_is_ignored() {
    let house = TestGateway::new(&allow(), "");
    let client = house.session_client();
    let mut connection = client.connect();
    connection.write_all(&client.head("POST", 1000)).unwrap();
    connection.write_all(b"{\"jsonrpc\":").unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    drop(connection);
    assert_eq!(client.post(PING).status, 200);
}

#[test]
fn an_invalid_configuration_is_reported() {
    let folder = Folder::new();
    folder.write("policy.json", &allow());
    let good = config("127.0.0.1:1".parse().unwrap(), "", &[grant("g")]);
    for (change, complaint) in [
        (("listen =", "lisen ="), "gateway.toml: TOML parse error at line 1, column 1"),
        (("127.0.0.1:0", "here"), "invalid socket address"),
        (("url = \"http://", "url = \"ftp://"), "servers.upstream: `url` is a URL such as"),
        (("url = \"http://", "url = \"http://me:secret@"), "servers.upstream: `url` has no user information"),
        (("policy.json", "nowhere.json"), "nowhere.json: No such file"),
        (("policy = \"p\"", "policy = \"q\""), "grants.g: there is no policy `q`"),
        (("policy = \"p\"", "servers.other = \"p\""), "grants.g: there is no server `other`"),
        (("policy = \"p\"", ""), "grants.g: a grant has a name, and a `policy` or `servers`"),
        (("[grants.g]", "[grants.\"\"]"), "a grant has a name"),
        (("user =", "context.since = 2026-01-01\nuser ="), "`context` has a date: put it in quotes"),
        (("[grants.g]", "audit.required = true\n[grants.g]"), "audit.required needs audit.file"),
        (("[grants.g]", "limits.max_message_bytes = 0\n[grants.g]"), "expected a nonzero u32"),
        (("[grants.g]", "operator.listen = 1\n[grants.g]"), "duplicate key"),
        (("unix:$FOLDER", "there:$FOLDER"), "neither an address such as"),
        (("url =", "forward_headers = [\"X_User\"], url ="), "`forward_headers`: a client's `X_User` cannot pass"),
        (("url =", "forward_headers = [\"Mcp-Name\"], url ="), "a client's `Mcp-Name` cannot pass"),
        (("url =", "forward_headers = [\"Authorization\"], url ="), "a client's `Authorization` cannot pass"),
        (("[grants.g]", "tls = { certificate = \"c\", key = \"k\" }\n[grants.g]"), "c: No such file"),
        (("[grants.g]", "store.redis = \"nowhere\"\n[grants.g]"), "redis"),
    ] {
        assert!(good.contains(change.0), "{change:?}");
        folder.configure(&good.replace(change.0, change.1));
        let output = TestGateway::command(&folder).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && message.contains(complaint), "{change:?}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
    folder.configure(&good.replace("127.0.0.1:0", "0.0.0.0:0"));
    let output = TestGateway::command(&folder).arg("--ungated").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("loopback"));
}

#[test]
fn headers_that_contradict_the_message_are_refused() {
    let house = TestGateway::new(&allow(), "");
    let mut client = house.session_client();
    for (name, value) in
        [("Mcp-Method", "resources/read"), ("Mcp-Name", "delete_file"), ("MCP-Protocol-Version", "2025-11-25")]
    {
        client.more = vec![format!("{name}: {value}")];
        let refused = client.call(1, "echo", &json!({ "text": "x" }));
        let code = refused.body.is_empty() || name.starts_with("MCP") || refused.last()["error"]["code"] == -32020;
        assert!(refused.status == 400 && code, "{name}: {}", String::from_utf8_lossy(&refused.body));
    }
    client.more = vec!["Mcp-Method: tools/call".into(), "Mcp-Name: echo".into()];
    assert_eq!(client.call_text(1, "echo", &json!({ "text": "x" })), "x");
}

#[test]
fn only_listed_headers_are_forwarded() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    folder.write("policy.json", &allow());
    std::fs::write(folder.file("token"), "of-the-gateway\n").unwrap();
    let settings = "servers.upstream = { token_file = \"token\", forward_headers = [\"X-Tenant\"], ";
    let config = config(listener.local_addr().unwrap(), "", &[grant("g")]);
    folder.configure(&config.replace("servers.upstream = { ", settings));
    let gateway = super::programs::Running::start(TestGateway::command(&folder));
    let mut client = Client::new(gateway.address, "g");
    let passing = ["User-Agent: a test", "Last-Event-ID: 7", "Traceparent: 00-1-2-03", "X-Tenant: acme"];
    let ending = [
        "Cookie: c=1",
        "Origin: http://localhost",
        "Connection: x-own",
        "X-Own: 1",
        "Proxy: http://evil.example",
        "Trace: 5",
        "Forwarded: for=1.2.3.4",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-User: admin",
        "X-Remote-User: admin",
        "X-Original-URL: /admin",
        "X-HTTP-Method-Override: DELETE",
        "X_Tenant: other",
        "X_Forwarded_For: 1.2.3.4",
        "Mcp_Session_Id: other",
        "Mcp-Method: ping",
        "Mcp-Other: 1",
    ];
    client.more = passing.iter().chain(&ending).map(|line| (*line).to_owned()).collect();
    let asking = std::thread::spawn(move || client.post(PING));
    let (mut server, _) = listener.accept().unwrap();
    let seen = super::client::read_request(&server);
    let has = |line: &str| seen.iter().any(|seen| seen.eq_ignore_ascii_case(line));
    assert!(passing.iter().all(|line| has(line)), "{seen:?}");
    assert!(has("authorization: Bearer of-the-gateway") && has("via: 1.1 toolgate"), "{seen:?}");
    assert!(has("accept-encoding: identity") && has("mcp-protocol-version: 2025-06-18"), "{seen:?}");
    for line in ending {
        let name = line.split_once(':').unwrap().0.to_lowercase();
        assert!(!seen.iter().any(|seen| seen.to_lowercase().starts_with(&format!("{name}:"))), "{name}: {seen:?}");
    }
    let body = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: c=2\r\nX-Server: yes\r\n";
    write!(server, "{head}Access-Control-Allow-Origin: *\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let answer = asking.join().unwrap();
    assert_eq!((answer.status, answer.header("x-server")), (200, Some("yes")));
    assert_eq!((answer.header("set-cookie"), answer.header("access-control-allow-origin")), (None, None));
}
