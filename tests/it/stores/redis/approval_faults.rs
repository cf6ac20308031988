//! A server of approvals that dies, loses scripts or answers, or sends nonsense: no approval is
//! used twice, and no unapproved call is allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use toolgate::approval::signed::SignedError;
use toolgate::approval::{ApprovalError, ApprovalState, AsyncApprovalStore, DecideError, Verdict};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{Clock, Decision, Gate, SystemClock, Timestamp};

use super::approvals::{allowed, asked, builder, call, cause, gate, impatient, keys, policy};
use super::faults::{Proxy, constant_server};
use super::run;
use super::server::Server;

#[test]
fn a_dead_server_denies_and_no_approval_is_used_twice() {
    let Some(mut server) = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]) else { return };
    run(async {
        let gate = gate(impatient(&server.url()).pending_per_asker(1_000).build().unwrap());
        for amount in 0..200 {
            let request = asked(&gate, &call(&json!({ "amount": amount }))).await;
            gate.approve(request.id(), "ann").await.unwrap();
        }
        let passed = Arc::new((0..200).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
        let denied = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (gate, passed, denied) = (gate.clone(), Arc::clone(&passed), Arc::clone(&denied));
                tokio::spawn(async move {
                    for amount in 0..200 {
                        match gate.check(&call(&json!({ "amount": amount }))).await {
                            Decision::Allow(_) => drop(passed[amount].fetch_add(1, Ordering::Relaxed)),
                            Decision::RequireApproval(_) => {}
                            other => {
                                cause(other);
                                denied.fetch_add(1, Ordering::Relaxed);
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(30)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.revive();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(denied.load(Ordering::Relaxed) > 0, "no call was made while the server was dead");
        assert!(passed.iter().all(|passed| passed.load(Ordering::Relaxed) <= 1));
        // The server has kept everything and continues.
        let began = Instant::now();
        while gate.pending().await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for amount in 0..200 {
            let arguments = json!({ "amount": amount });
            let again = usize::from(gate.check(&call(&arguments)).await.is_allowed());
            assert!(passed[amount].load(Ordering::Relaxed) + again <= 1, "{amount}");
        }
    });
}

#[test]
fn a_signed_approval_is_used_once_despite_server_restarts() {
    let Some(mut server) = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]) else { return };
    run(async {
        let gates: Vec<_> = (0..2).map(|_| gate(impatient(&server.url()).build().unwrap())).collect();
        let arguments = json!({});
        let request = asked(&gates[0], &call(&arguments)).await;
        let mut shown = keys().read_request(&keys().write_request(&request).unwrap()).unwrap();
        shown.decide(Verdict::Approve, "ann", SystemClock.now()).unwrap();
        let signed = keys().sign(&shown, SystemClock.now()).unwrap();
        server.kill();
        cause(gates[0].check(&call(&arguments).signed(&signed)).await);
        server.revive();
        let began = Instant::now();
        let permit = loop {
            match gates[0].check(&call(&arguments).signed(&signed)).await {
                Decision::Allow(permit) => break permit,
                other => cause(other),
            };
            assert!(began.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        server.kill();
        cause(gates[1].check(&call(&arguments).signed(&signed)).await);
        server.revive();
        let began = Instant::now();
        while gates[1].pending().await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let Decision::RequireApproval(again) = gates[1].check(&call(&arguments).signed(&signed)).await else {
            panic!("the approval was used")
        };
        assert_eq!(again.signed_error(), Some(SignedError::Spent));
        // A released approval can be used at the other gate.
        while gates[0].pending().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        permit.release().await.unwrap();
        assert!(gates[1].check(&call(&arguments).signed(&signed)).await.is_allowed());
        assert!(!gates[0].check(&call(&arguments).signed(&signed)).await.is_allowed());
    });
    server.assert_every_key_expires();
}

#[test]
fn a_lost_answer_claims_an_approval_once() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let proxy = Proxy::start(&server).await;
        let gate = gate(builder(&format!("redis://{}", proxy.address)).build().unwrap());
        let arguments = json!({});
        proxy.cut(1);
        let request = asked(&gate, &call(&arguments)).await;
        assert_eq!(gate.pending().await.unwrap().len(), 1);
        proxy.cut(1);
        let approved = gate.approve(request.id(), "ann").await.unwrap();
        assert_eq!(approved.state(), ApprovalState::Approved);
        proxy.cut(1);
        let permit = allowed(&gate, &call(&arguments)).await;
        proxy.cut(1);
        permit.release().await.unwrap();
        assert_eq!(proxy.left(), 0, "the answers were lost");
        // All answers are lost: the outcome is unknown, so the call is denied, and the approval
        // stays used.
        let store = builder(&format!("redis://{}", proxy.address)).build().unwrap();
        let now = SystemClock.now();
        proxy.cut(4);
        assert!(matches!(store.claim(request.id(), now).await, Err(ApprovalError::Unavailable { .. })));
        proxy.cut(0);
        assert_eq!(gate.check(&call(&arguments)).await.as_str(), "approval_required");
    });
    server.assert_every_key_expires();
}

#[test]
fn a_nonsense_answer_approves_nothing() {
    let bulk = |body: &str| format!("${}\r\n{body}\r\n", body.len()).into_bytes();
    let answers: Vec<Vec<u8>> = vec![
        vec![],
        b"garbage\r\n".to_vec(),
        b"+OK\r\n".to_vec(),
        b":0\r\n".to_vec(),
        b":1\r\n".to_vec(),
        b"$-1\r\n".to_vec(),
        b"*-1\r\n".to_vec(),
        b"*0\r\n".to_vec(),
        b"*1\r\n:0\r\n".to_vec(),
        b"*1\r\n:3\r\n".to_vec(),
        b"*2\r\n:6\r\n:-1\r\n".to_vec(),
        b"-ERR unknown command\r\n".to_vec(),
        b"-NOSCRIPT No matching script\r\n".to_vec(),
        b"-OOM command not allowed\r\n".to_vec(),
        bulk(""),
        bulk("hello"),
        bulk(&format!("{}{}", "0".repeat(32), r#"{"version":1,"approvals":[],"spent":[]}"#)),
    ];
    run(async {
        for answer in answers {
            let shown = answer.escape_ascii().to_string();
            let gate = gate(impatient(&format!("redis://{}", constant_server(answer))).build().unwrap());
            let asked = tokio::time::timeout(Duration::from_secs(20), gate.check(&call(&json!({})))).await;
            assert!(!cause(asked.expect("a decision hangs")).is_empty(), "{shown}");
            let id = "0".repeat(64) + "-1";
            assert!(gate.approve(&id.parse().unwrap(), "ann").await.is_err(), "{shown}");
        }
    });
}

/// The rights in the documentation are enough.
#[test]
fn a_user_with_the_documented_rights_is_enough() {
    let Some(server) = Server::start(&[]) else { return };
    let rights = "~{toolgate}:* +evalsha +script|load +get +mget +set +del +time +pttl +pexpireat +zadd +zrem \
                  +zcard +zcount +zrange +zrangebyscore +zremrangebyscore";
    let mut command: Vec<&[u8]> = vec![b"ACL", b"SETUSER", b"gate", b"on", b">secret"];
    command.extend(rights.split_whitespace().map(str::as_bytes));
    server.command::<()>(&command);
    run(async {
        let url = format!("{}?user=gate&pass=secret", server.url());
        let gate = gate(builder(&url).build().unwrap());
        let arguments = json!({});
        let request = asked(&gate, &call(&arguments)).await;
        assert_eq!(gate.pending().await.unwrap().len(), 1);
        gate.approve(request.id(), "ann").await.unwrap();
        allowed(&gate, &call(&arguments)).await.release().await.unwrap();
        allowed(&gate, &call(&arguments)).await.end().await.unwrap();
        let again = asked(&gate, &call(&arguments)).await;
        gate.refuse(again.id(), "ann").await.unwrap();
        assert!(server.command::<String>(&[b"CLIENT", b"LIST"]).contains("user=gate"));
        // A request that is in the index, but no longer stored.
        let listed = asked(&gate, &call(&json!({ "other": 1 }))).await;
        let key = [b"{toolgate}:a:", &listed.id().digest().as_bytes()[..]].concat();
        server.command::<()>(&[b"DEL", &key]);
        assert!(gate.pending().await.unwrap().is_empty());
    });
}

#[test]
fn a_lost_approval_script_is_loaded_again() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let gate = gate(builder(&server.url()).build().unwrap());
        let arguments = json!({});
        server.command::<()>(&[b"SCRIPT", b"FLUSH"]);
        let request = asked(&gate, &call(&arguments)).await;
        server.command::<()>(&[b"SCRIPT", b"FLUSH"]);
        gate.approve(request.id(), "ann").await.unwrap();
        server.command::<()>(&[b"SCRIPT", b"FLUSH"]);
        let permit = allowed(&gate, &call(&arguments)).await;
        server.command::<()>(&[b"SCRIPT", b"FLUSH"]);
        permit.release().await.unwrap();
        allowed(&gate, &call(&arguments)).await.end().await.unwrap();
    });
}

#[test]
fn a_corrupt_entry_approves_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let gate = gate(builder(&server.url()).build().unwrap());
        let arguments = json!({});
        let request = asked(&gate, &call(&arguments)).await;
        let key = [b"{toolgate}:a:", &request.id().digest().as_bytes()[..]].concat();
        let good: Vec<u8> = server.command(&[b"GET", &key]);
        let (nonce, text) = good.split_at(32);
        let text = std::str::from_utf8(text).unwrap();
        let approve = |text: &str| text.replace("\"pending\"", "\"approved\"");
        let with = |text: String| [nonce, text.as_bytes()].concat();
        let wrong = [
            b"".to_vec(),
            b"nonsense".to_vec(),
            nonce.to_vec(),
            text.into(),
            with(format!("{text} {{}}")),
            with(approve(text)),
            with(text.replace("\"version\":1", "\"version\":2")),
            with(text.replace("\"spent\"", "\"extra\":1,\"spent\"")),
            with(text.replace("\"turn\":0", "\"turn\":0,\"turn\":0")),
            with(text.replace("\"bounds\":[]", "\"bounds\":[\"x\"]")),
            with(text.replace("\"min_approvers\":1", "\"min_approvers\":0")),
            with("{\"version\":1,\"approvals\":[],\"spent\":[]}".to_owned()),
            [nonce, &[0xff][..]].concat(),
        ];
        for wrong in wrong {
            server.command::<()>(&[b"SET", &key, &wrong]);
            let shown = wrong.escape_ascii().to_string();
            let message = cause(gate.check(&call(&arguments)).await);
            assert_eq!(message, "the approval store holds data that was not written by toolgate", "{shown}");
            let approved = gate.approve(request.id(), "ann").await;
            assert!(matches!(approved, Err(DecideError::Store(ApprovalError::Corrupt))), "{shown}");
            assert!(matches!(gate.pending().await, Err(ApprovalError::Corrupt)), "{shown}");
        }
        // A value of another type at each key of the store: the failed operation changes nothing.
        server.command::<()>(&[b"SET", &key, &good]);
        for index in [&b"{toolgate}:al"[..], b"{toolgate}:ap", b"{toolgate}:ag:gg", b"{toolgate}:an"] {
            let kept: Vec<u8> = server.command(&[b"DUMP", index]);
            server.command::<()>(&[b"DEL", index]);
            match index == b"{toolgate}:an" {
                true => server.command::<()>(&[b"RPUSH", index, b"x"]),
                false => server.command::<()>(&[b"SET", index, b"x"]),
            }
            assert!(gate.approve(request.id(), "ann").await.is_err(), "{}", index.escape_ascii());
            cause(gate.check(&call(&json!({ "other": 1 }))).await);
            server.command::<()>(&[b"RESTORE", index, b"0", &kept, b"REPLACE"]);
            assert_eq!(server.command::<Vec<u8>>(&[b"GET", &key]), good);
        }
        gate.approve(request.id(), "ann").await.unwrap();
        server.command::<()>(&[b"SET", &key, b""]);
        assert!(cause(gate.check(&call(&arguments)).await).contains("not written by toolgate"));
    });
}

#[test]
fn a_clock_away_from_the_approval_server_is_refused() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let clock = toolgate::ManualClock::new(Timestamp::from_unix_seconds(1_768_473_000));
        let approvals = builder(&server.url()).build().unwrap();
        let builder = Gate::builder().policy(policy()).store_async(InProcess(MemoryStore::new())).clock(clock.clone());
        let gate = builder.approvals(approvals).build();
        let message = cause(gate.check(&call(&json!({}))).await);
        assert!(message.contains("ms from that of the approval store"), "{message}");
        for nonsense in [Timestamp::MIN, Timestamp::MAX, Timestamp::from_unix_seconds(-1)] {
            clock.set(nonsense);
            cause(gate.check(&call(&json!({}))).await);
        }
        let keys: Vec<Vec<u8>> = server.command(&[b"KEYS", b"*"]);
        assert!(keys.is_empty());
    });
}
