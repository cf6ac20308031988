//! Start and end of client, server and gateway, in every order.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::running::{Folder, Gateway, Running, children_of, command, eventually, exists, gateway, outcome};
use super::{ALLOW_ALL, POLICY};
use crate::operator;

/// Initializes the server behind a gateway and returns its process.
fn server_of(gateway: &mut Gateway) -> u32 {
    gateway.client.initialize();
    let children = gateway.client.children();
    assert_eq!(children.len(), 1);
    children[0]
}

#[test]
fn the_server_ends_when_the_client_closes() {
    let mut gateway = Gateway::start(ALLOW_ALL);
    let server = server_of(&mut gateway);
    gateway.client.close();
    assert_eq!(gateway.client.ended().code(), Some(0));
    assert!(!exists(server));
    assert!(!gateway.folder.join("operator.sock").exists(), "the socket is removed too");
}

#[test]
fn pending_calls_are_answered_after_the_last_message() {
    let mut gateway = Gateway::start(ALLOW_ALL);
    gateway.client.initialize();
    let id = gateway.client.ask_call("sleep", &json!({ "ms": 2500 }));
    gateway.client.close();
    assert_eq!(outcome(&gateway.client.answer(&id)), "ok: slept");
    assert_eq!(gateway.client.ended().code(), Some(0));
}

#[test]
fn a_server_that_does_not_end_is_killed() {
    let mut gateway = Gateway::with(ALLOW_ALL, &[], &["--stubborn"]);
    let server = server_of(&mut gateway);
    let began = Instant::now();
    gateway.client.close();
    assert_eq!(gateway.client.ended().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(8));
    assert!(!exists(server));
    gateway.client.wait_for_error_text("it is killed");
}

#[test]
fn a_client_that_dies_during_a_call_ends_everything() {
    let folder = Folder::new();
    fs::write(folder.join("policy.json"), ALLOW_ALL).unwrap();
    let mut gateway = command(&folder, &[], &["--junk"]);
    gateway.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut gateway = gateway.spawn().unwrap();
    let mut stdin = gateway.stdin.take().unwrap();
    for (id, tool) in ["never", "sleep"].into_iter().enumerate() {
        let params = json!({ "name": tool, "arguments": { "ms": 60_000 } });
        writeln!(stdin, "{}", json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })).unwrap();
    }
    let calls = || fs::read_to_string(folder.join("calls")).unwrap_or_default().lines().count();
    eventually(|| calls() == 2);
    let server = children_of(gateway.id());
    let began = Instant::now();
    // All pipes are closed, standard error too: nobody reads a message.
    drop((stdin, gateway.stdout.take(), gateway.stderr.take()));
    assert_eq!(gateway.wait().unwrap().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(!exists(server[0]), "the server is gone, not a zombie");
}

#[test]
fn a_client_that_stops_reading_ends_the_gateway() {
    let mut gateway = Gateway::start(ALLOW_ALL);
    let server = server_of(&mut gateway);
    let folder = Folder::new();
    fs::write(folder.join("policy.json"), ALLOW_ALL).unwrap();
    let mut deaf = command(&folder, &[], &[]);
    let mut deaf = deaf.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(deaf.stdout.take());
    let mut stdin = deaf.stdin.take().unwrap();
    writeln!(stdin, r#"{{"jsonrpc":"2.0","id":1,"method":"ping"}}"#).unwrap();
    assert_eq!(deaf.wait().unwrap().code(), Some(0));
    assert!(exists(server), "the server of another gateway still runs");
}

/// Pipes are full in both directions, and a signal still ends everything.
#[test]
fn full_pipes_do_not_delay_the_end() {
    let folder = Folder::new();
    fs::write(folder.join("policy.json"), ALLOW_ALL).unwrap();
    let mut busy = command(&folder, &[], &[]);
    let mut busy = busy.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = busy.stdin.take().unwrap();
    let large =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"large","arguments":{"bytes":5000000}}}"#;
    writeln!(stdin, "{large}").unwrap();
    thread::sleep(Duration::from_millis(300));
    let pid = Pid::from_raw(busy.id().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let began = Instant::now();
    assert_eq!(busy.wait().unwrap().code(), Some(143));
    assert!(began.elapsed() < Duration::from_secs(6));

    let mut stdio = gateway();
    stdio.args(["--policy", &folder.path("policy.json"), "--timeout", "1", "--", "sleep", "600"]);
    let mut running = Running::start(&mut stdio);
    let id = running.ask_call("echo", &json!({ "text": "x".repeat(1 << 20) }));
    assert_eq!(outcome(&running.answer(&id)), "error -32053");
    let server = running.children();
    let began = Instant::now();
    running.close();
    running.signal(Signal::TERM);
    assert!(running.ended().code().is_some());
    assert!(began.elapsed() < Duration::from_secs(6));
    assert!(!exists(server[0]));
}

#[test]
fn a_server_that_dies_during_a_call_ends_the_gateway() {
    let mut gateway = Gateway::start(ALLOW_ALL);
    let server = server_of(&mut gateway);
    let ids = [
        gateway.client.ask_call("never", &json!({})),
        gateway.client.ask("resources/list", &json!({})),
        gateway.client.ask_call("crash", &json!({})),
    ];
    assert_eq!(outcome(&gateway.client.answer(&ids[0])), "error -32053");
    assert_eq!(outcome(&gateway.client.answer(&ids[1])), "error -32601");
    let answer = gateway.client.answer(&ids[2]);
    assert_eq!(answer["error"]["message"], "The request may have been made: the server has ended.");
    assert_eq!(gateway.client.ended().code(), Some(1));
    gateway.client.wait_for_error_text("the server has ended: exit status: 3");
    assert!(!exists(server));
}

#[test]
fn a_signal_ends_the_server_too() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut gateway = Gateway::start(ALLOW_ALL);
        let server = server_of(&mut gateway);
        let id = gateway.client.ask_call("never", &json!({}));
        gateway.client.request("ping", &json!({}));
        gateway.client.signal(signal);
        assert_eq!(outcome(&gateway.client.answer(&id)), "error -32053");
        assert_eq!(gateway.client.ended().code(), Some(code));
        assert!(!exists(server));
        assert!(!gateway.folder.join("operator.sock").exists());
    }
}

/// Processes that a server has started end with it, even if the server has ended before.
#[test]
fn processes_of_the_server_end_with_the_gateway() {
    let folder = Folder::new();
    fs::write(folder.join("policy.json"), ALLOW_ALL).unwrap();
    let script = format!("sleep 600 & echo $! > {}; exit 0", folder.path("pid"));
    let mut stdio = gateway();
    stdio.args(["--policy", &folder.path("policy.json"), "--", "sh", "-c", &script]);
    let mut running = Running::start(&mut stdio);
    assert_eq!(running.ended().code(), Some(1));
    let pid: u32 = fs::read_to_string(folder.join("pid")).unwrap().trim().parse().unwrap();
    let is_alive = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    eventually(|| !is_alive());
}

#[test]
fn a_request_without_an_answer_is_given_up() {
    let policy = r#"{ "version": "1", "default": "deny", "tools": { "never": { "limits": [
        { "counter": "waiting", "window": "in_flight", "max": 1, "scope": "grant" },
        { "counter": "calls", "window": "day", "max": 2, "scope": "grant" }
    ] } } }"#;
    let mut gateway = Gateway::with(policy, &["--timeout", "2"], &[]);
    gateway.client.initialize();
    for _ in 0..2 {
        let id = gateway.client.ask_call("never", &json!({}));
        assert!(gateway.client.call("never", &json!({})).starts_with("limit: "));
        let answer = gateway.client.answer(&id);
        assert_eq!(outcome(&answer), "error -32053");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("the server has not answered within 2 seconds"), "{message}");
    }
    let usage = operator::usage(&gateway.socket(), "?server=files&grant=g-42");
    let expected = [("waiting", "0 of 1 used"), ("calls", "2 of 2 used")];
    assert_eq!(usage, expected.map(|(counter, used)| (counter.to_owned(), used.to_owned())));
}

#[test]
fn the_server_is_notified_of_an_abandoned_call() {
    let mut gateway = Gateway::with(ALLOW_ALL, &["--timeout", "1"], &[]);
    gateway.client.initialize();
    let id = gateway.client.ask_call("sleep", &json!({ "ms": 60_000 }));
    assert_eq!(outcome(&gateway.client.answer(&id)), "error -32053");
    // This server ends when its calls have ended.
    gateway.client.close();
    assert_eq!(gateway.client.ended().code(), Some(0));
    assert!(!gateway.client.errors().contains("killed"), "{}", gateway.client.errors());
}

#[test]
fn a_subscription_has_no_timeout() {
    let folder = Folder::new();
    fs::write(folder.join("policy.json"), ALLOW_ALL).unwrap();
    let mut stdio = gateway();
    stdio.args(["--policy", &folder.path("policy.json"), "--timeout", "1", "--", "sleep", "600"]);
    let mut running = Running::start(&mut stdio);
    let listening = running.ask("subscriptions/listen", &json!({ "notifications": {} }));
    let waiting = running.ask("tools/list", &json!({}));
    assert_eq!(outcome(&running.answer(&waiting)), "error -32053");
    assert_eq!(running.within(Duration::from_millis(500), |message| message["id"] == listening), None);
    running.signal(Signal::TERM);
    assert_eq!(outcome(&running.answer(&listening)), "error -32053", "a subscription ends with the gateway");
}

#[test]
fn a_socket_belongs_to_one_gateway() {
    let mut gateway = Gateway::start(POLICY);
    gateway.client.initialize();
    let socket = gateway.folder.join("operator.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let mut second = Running::start(&mut command(&gateway.folder, &[], &[]));
    assert_eq!(second.ended().code(), Some(2));
    second.wait_for_error_text("another gateway has it");
    assert!(gateway.pending().is_empty(), "the first gateway still has the socket");

    // A killed gateway leaves its socket behind.
    gateway.client.signal(Signal::KILL);
    gateway.client.ended();
    assert!(socket.exists());
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_err());
    let mut third = Running::start(&mut command(&gateway.folder, &[], &[]));
    third.initialize();
    assert!(gateway.pending().is_empty());
    drop(third);

    // Another file at that path is not removed.
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "mine").unwrap();
    let mut fourth = Running::start(&mut command(&gateway.folder, &[], &[]));
    assert_eq!(fourth.ended().code(), Some(2));
    fourth.wait_for_error_text("a file of that name that is not a socket");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "mine");
}

#[test]
fn a_gateway_that_cannot_start_reports_the_reason() {
    let folder = Folder::new();
    let good = folder.path("good.json");
    fs::write(&good, ALLOW_ALL).unwrap();
    let bad = folder.path("bad.json");
    fs::write(&bad, "{\n  \"version\": \"1\", \"default\": \"dney\"\n}").unwrap();
    let here = folder.path(".");
    for (arguments, complaint) in [
        (&[][..], "required arguments were not provided"),
        (&["--policy", &good], "<COMMAND>"),
        (&["--policy", &good, "--", "/no/such/server"], "cannot start /no/such/server: No such file"),
        (&["--policy", "/no/such/policy", "--", "true"], "/no/such/policy: No such file"),
        (&["--policy", &here, "--", "true"], "not a file"),
        (
            &["--policy", &bad, "--", "true"],
            "bad.json:2:30: unknown_value: /default: `dney` is not an outcome (did you",
        ),
        (&["--polcy", &good, "--", "true"], "unexpected argument '--polcy'"),
        (&["--policy", &good, "--timeout", "soon", "--", "true"], "'soon' for '--timeout <SECONDS>'"),
        (&["--policy", &good, "--max-message", "0", "--", "true"], "'0' for '--max-message <BYTES>'"),
        (&["--policy", &good, "--on-changed-tool", "x", "--", "true"], "[possible values: deny, report]"),
        (&["--policy", &good, "--context", "x", "--", "true"], "not NAME=VALUE"),
        (&["--policy", &good, "--operator", "x", "--", "true"], "neither an address such as"),
        (&["--policy", &good, "--pins", &bad, "--", "true"], "bad.json: "),
        (&["--policy", &good, "--require-audit", "--", "true"], "--audit <FILE>"),
        (&["--policy", &good, "--audit", &here, "--", "true"], "audit log "),
        (&["--policy", &good, "--audit", &bad, "--", "true"], "the file does not end as an audit log does"),
        (&["--policy"], "a value is required for '--policy <POLICY>'"),
    ] {
        let ran = gateway().args(arguments).output().unwrap();
        let message = String::from_utf8(ran.stderr).unwrap();
        assert!(message.contains(complaint), "{arguments:?}: {message}");
        assert_eq!((ran.status.code(), ran.stdout.len()), (Some(2), 0), "{arguments:?}");
    }
}
