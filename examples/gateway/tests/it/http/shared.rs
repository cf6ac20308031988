//! Two gateways that share counters and approvals in one Redis server.

use serde_json::json;

use super::client::Client;
use super::programs::{Folder, Running, TestGateway, grant};
use super::redis_server::Server;
use crate::operator;

#[test]
fn two_gateways_share_the_budget_of_a_grant() {
    let Some(redis) = Server::start(&[]) else { return };
    let limits = json!([
        { "counter": "c", "window": "day", "max": 30, "scope": "grant" },
        { "counter": "running", "window": "in_flight", "max": 1, "scope": "grant" },
    ]);
    let policy = json!({ "version": "1", "default": "deny", "tools": {
        "echo": { "limits": [limits[0]] }, "sleep": { "limits": [limits[1]] }, "add": { "action": "require_approval" },
    } });
    let url = redis.url();
    let house = TestGateway::with(&policy, &[grant("g")], &["--json"], &format!("store.redis = {url:?}"));
    let config = std::fs::read_to_string(house.folder.file("gateway.toml")).unwrap();
    let other = Folder::new();
    std::fs::write(other.file("gateway.toml"), config.replace("/operator\"", "/operator-2\"")).unwrap();
    other.write("policy.json", &policy);
    let second = Running::start(TestGateway::command(&other));
    let callers = [house.gateway.address, second.address].map(|address| {
        (0..4).map(move |_| {
            std::thread::spawn(move || {
                let client = Client::new(address, "g").begin();
                (1..=10).filter(|id| client.call_text(*id, "echo", &json!({ "text": "made" })) == "made").count()
            })
        })
    });
    let callers: Vec<_> = callers.into_iter().flatten().collect();
    let made: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    assert_eq!(made, 30);
    assert_eq!(house.used("c"), "30 of 30 used");

    // A call in flight at one gateway blocks calls at the other until it has ended.
    let sleeper = house.session_client();
    let sleeping = std::thread::spawn(move || sleeper.call_text(1, "sleep", &json!({ "ms": 1500 })));
    house.wait_for_usage("running", "1 of 1 used");
    let other = Client::new(second.address, "g").begin();
    assert!(other.call_text(1, "sleep", &json!({ "ms": 1 })).starts_with("[RATE LIMITED]"));
    assert_eq!(sleeping.join().unwrap(), "slept");
    assert_eq!(other.call_text(2, "sleep", &json!({ "ms": 1 })), "slept");

    // Approvals are in Redis too. Each gateway has its own sessions.
    let sum = json!({ "a": 1, "b": 2 });
    let mut asked = house.session_client();
    assert!(asked.call_text(4, "add", &sum).starts_with("[APPROVAL REQUIRED]"));
    operator::answer(&house.socket(), house.pending()[0]["id"].as_str().unwrap(), "approve", "joan").unwrap();
    assert_eq!(asked.call_text(5, "add", &sum), "3");
    asked.address = second.address;
    assert_eq!(asked.send("DELETE").status, 404, "each gateway has its own sessions");
    drop(redis);
    let denied = other.call(3, "echo", &json!({ "text": "x" })).last();
    assert_eq!(denied["result"]["structuredContent"]["code"], "store_unavailable");
}
