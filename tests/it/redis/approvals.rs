//! Approvals in a real server: the same as in memory, also among processes, and when it fails.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Runtime;
use toolgate::approval::redis::{RedisApprovals, RedisApprovalsBuilder};
use toolgate::approval::signed::{ApprovalKey, ApprovalKeys, SignedError};
use toolgate::approval::{ApprovalError, Ask, AsyncApprovalStore, Claim, Verdict};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{
    Approval, ApprovalId, ApprovalState, ApprovalStore, AsyncPermit, Clock, Code, DecideError, Decision, Gate, Policy,
    SystemClock, Timestamp, ToolCall,
};

use super::faults::{Proxy, parrot};
use super::server::Server;
use super::{ANY_CLOCK, run};
use crate::approvals::{Make, Room, suite};

fn builder(url: &str) -> RedisApprovalsBuilder {
    RedisApprovals::builder(url)
        .connect_timeout(Duration::from_secs(5))
        .response_timeout(Duration::from_secs(5))
        .deadline(Duration::from_secs(10))
        .circuit_breaker(3, Duration::from_millis(200))
}

fn impatient(url: &str) -> RedisApprovalsBuilder {
    builder(url)
        .connect_timeout(Duration::from_millis(400))
        .response_timeout(Duration::from_millis(400))
        .deadline(Duration::from_millis(1_000))
}

/// Waits for each answer, so that what is written for stores in the process runs over a server.
struct Waiting {
    store: RedisApprovals,
    runtime: Runtime,
}

impl ApprovalStore for Waiting {
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError> {
        self.runtime.block_on(AsyncApprovalStore::request(&self.store, ask, now))
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError> {
        self.runtime.block_on(AsyncApprovalStore::decide(&self.store, id, verdict, by, now))
    }

    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        self.runtime.block_on(AsyncApprovalStore::claim(&self.store, id, now))
    }

    fn spend(&self, id: &ApprovalId, until: Timestamp, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        self.runtime.block_on(AsyncApprovalStore::spend(&self.store, id, until, now))
    }

    fn hand_back(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        self.runtime.block_on(AsyncApprovalStore::hand_back(&self.store, claim, now))
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        self.runtime.block_on(AsyncApprovalStore::pending(&self.store, now))
    }
}

/// A store with a prefix of its own, that bears that a test tells the time.
fn store(server: &Server, room: Room) -> Arc<dyn ApprovalStore> {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let store = builder(&server.url())
        .prefix(format!("p{}", MADE.fetch_add(1, Ordering::Relaxed)))
        .max_skew(ANY_CLOCK)
        .capacity(room.capacity)
        .pending_per_asker(room.pending)
        .details_up_to(room.details);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    Arc::new(Waiting { store: store.build().unwrap(), runtime })
}

mod suite {
    use super::{Make, Server, store};

    fn with(case: &dyn Fn(Make<'_>)) {
        let Some(server) = Server::start(&[]) else { return };
        case(&|room| store(&server, room));
        server.everything_expires();
    }

    super::suite!(with);
}

#[test]
fn the_cases_of_approvals_pass_over_a_server() {
    let Some(server) = Server::start(&[]) else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases/approvals.json");
    let run = crate::vectors::run_file_over(&path, || store(&server, Room::default()));
    assert!(run > 20, "{run}");
    server.everything_expires();
}

type Door = Gate<InProcess<MemoryStore>>;

fn policy() -> Policy {
    let limits = json!([{ "counter": "n", "window": "day", "max": 100_000, "scope": "grant" }]);
    let tools = json!({ "pay": { "action": "require_approval", "limits": limits } });
    Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).unwrap()
}

fn gate(approvals: RedisApprovals) -> Door {
    let builder = Gate::builder().policy(policy()).store(InProcess(MemoryStore::new()));
    builder.approvals_async(approvals).approval_keys(keys()).build()
}

fn call(arguments: &serde_json::Value) -> ToolCall<'_> {
    ToolCall::new("pay", arguments).grant("g")
}

async fn asked(gate: &Door, call: &ToolCall<'_>) -> Approval {
    match gate.check_async(call).await {
        Decision::RequireApproval(request) => request.approval().unwrap().clone(),
        other => panic!("{other:?}"),
    }
}

async fn allowed(gate: &Door, call: &ToolCall<'_>) -> AsyncPermit {
    match gate.check_async(call).await {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    }
}

/// What a denial says to the host.
fn cause(decision: Decision<AsyncPermit>) -> String {
    let Decision::Deny(denial) = decision else { panic!("{decision:?}") };
    assert_eq!(denial.code(), Code::StoreUnavailable);
    std::error::Error::source(denial.store_error().unwrap()).unwrap().to_string()
}

#[test]
fn what_one_asks_another_approves_and_a_third_uses() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let gates: Vec<_> = (0..3).map(|_| gate(builder(&server.url()).build().unwrap())).collect();
        let arguments = json!({ "amount": 5 });
        let request = asked(&gates[0], &call(&arguments)).await;
        assert_eq!(gates[1].pending_async().await.unwrap()[0].id(), request.id());
        gates[1].approve_async(request.id(), "ann").await.unwrap();
        let permit = allowed(&gates[2], &call(&arguments)).await;
        assert_eq!(gates[0].check_async(&call(&arguments)).await.as_str(), "approval_required");
        permit.release().await.unwrap();
        let Decision::Allow(permit) = gates[0].check_approved_async(&call(&arguments), request.id()).await else {
            panic!("it was given back")
        };
        permit.end().await.unwrap();
        // The new question that came of it can be refused.
        let waiting = gates[2].pending_async().await.unwrap();
        gates[2].refuse_async(waiting[0].id(), "ann").await.unwrap();
        assert!(gates[0].pending_async().await.unwrap().is_empty());
    });
    server.everything_expires();
}

#[test]
fn a_verb_that_does_not_wait_says_what_to_mend() {
    let Some(server) = Server::start(&[]) else { return };
    let approvals = builder(&server.url()).build().unwrap();
    let gate = Gate::builder().policy(policy()).approvals_async(approvals).build();
    let arguments = json!({});
    let Decision::Deny(denial) = gate.check(&call(&arguments)) else { panic!("it cannot be asked") };
    assert_eq!(denial.code(), Code::StoreUnavailable);
    let cause = std::error::Error::source(denial.store_error().unwrap()).unwrap().to_string();
    assert!(cause.contains("check_async"), "{cause}");
    assert!(matches!(gate.pending(), Err(ApprovalError::AsyncOnly)));
    let id = "0".repeat(64) + "-1";
    assert!(matches!(gate.approve(&id.parse().unwrap(), "ann"), Err(DecideError::Store(ApprovalError::AsyncOnly))));
}

/// Says to the test's second process where the server is, and what is signed.
const URL: &str = "TOOLGATE_TEST_APPROVALS_URL";
const SIGNED: &str = "TOOLGATE_TEST_APPROVALS_SIGNED";
const ROUNDS: usize = 150;

fn keys() -> ApprovalKeys {
    ApprovalKeys::new(ApprovalKey::new("k", &[3; 32]).unwrap())
}

/// Claims approvals as fast as it can, those of one round after the other, with the signed texts of every other round; how many
/// calls pass in each round.
async fn claims(gate: &Door, signed: &[String]) -> Vec<usize> {
    let mut passed = Vec::new();
    for (round, signed) in signed.iter().enumerate() {
        let tasks = (0..4).map(|_| {
            let (gate, signed) = (gate.clone(), signed.clone());
            tokio::spawn(async move {
                let arguments = json!({ "round": round });
                let decision = match signed.is_empty() {
                    true => gate.check_async(&call(&arguments)).await,
                    false => gate.check_signed_async(&call(&arguments), &signed).await,
                };
                usize::from(decision.is_allowed())
            })
        });
        let mut sum = 0;
        for task in tasks.collect::<Vec<_>>() {
            sum += task.await.unwrap();
        }
        passed.push(sum);
    }
    passed
}

#[test]
fn of_two_processes_one_uses_an_approval() {
    let Some(server) = Server::start(&[]) else { return };
    let totals = run(async {
        let gate = gate(builder(&server.url()).pending_per_asker(2 * ROUNDS).build().unwrap());
        let mut signed = Vec::new();
        for round in 0..ROUNDS {
            let mut request = asked(&gate, &call(&json!({ "round": round }))).await;
            signed.push(String::new());
            if round % 2 == 0 {
                gate.approve_async(request.id(), "ann").await.unwrap();
            } else {
                let now = SystemClock.now();
                request.decide(Verdict::Approve, "ann", now).unwrap();
                signed[round] = keys().sign(&request, now).unwrap();
            }
        }
        let mut second = Command::new(std::env::current_exe().unwrap());
        second.args(["--exact", "redis::approvals::a_second_process", "--nocapture"]).env(URL, server.url());
        second.env(SIGNED, signed.join(","));
        let mut second = second.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It says when it is ready, and both begin.
        let output = tokio::task::spawn_blocking(move || {
            use std::io::{BufRead, BufReader, Read};
            let mut output = BufReader::new(second.stdout.take().unwrap());
            let mut line = String::new();
            while !line.contains("ready") {
                line.clear();
                assert!(output.read_line(&mut line).unwrap() > 0, "the second process has ended");
            }
            (second, output, move |mut second: std::process::Child, mut output: BufReader<_>| {
                let mut rest = String::new();
                output.read_to_string(&mut rest).unwrap();
                assert!(second.wait().unwrap().success());
                rest
            })
        });
        let (mut second, output, finish) = output.await.unwrap();
        drop(second.stdin.take());
        let mine = claims(&gate, &signed).await;
        let rest = tokio::task::spawn_blocking(move || finish(second, output)).await.unwrap();
        let theirs = rest.split("passed ").nth(1).unwrap().split(';').next().unwrap();
        let theirs: Vec<usize> = theirs.split(',').map(|count| count.parse().unwrap()).collect();
        (mine, theirs)
    });
    let (mine, theirs) = totals;
    assert!(mine.iter().zip(&theirs).all(|(mine, theirs)| mine + theirs == 1), "{mine:?} {theirs:?}");
    assert!([&mine, &theirs].iter().all(|side| side.contains(&1)), "they did not meet: {mine:?}");
    server.everything_expires();
}

/// What the second process does; as a test of its own it has nothing to do.
#[test]
fn a_second_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let passed = run(async {
        let gate = gate(builder(&url).pending_per_asker(2 * ROUNDS).build().unwrap());
        assert!(gate.pending_async().await.is_ok());
        println!("ready");
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut Vec::new()).unwrap();
        let signed: Vec<_> = std::env::var(SIGNED).unwrap().split(',').map(str::to_owned).collect();
        assert_eq!(signed.len(), ROUNDS);
        claims(&gate, &signed).await
    });
    let passed: Vec<_> = passed.iter().map(usize::to_string).collect();
    println!("passed {};", passed.join(","));
}

#[test]
fn a_request_number_is_never_given_twice() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let gates: Vec<_> = (0..2).map(|_| gate(builder(&server.url()).build().unwrap())).collect();
        let mut given = std::collections::HashSet::new();
        let arguments: Vec<_> = (0..4).map(|amount| json!({ "amount": amount })).collect();
        for _ in 0..50 {
            let (a, b) = (call(&arguments[0]), call(&arguments[1]));
            let (a, b) = tokio::join!(asked(&gates[0], &a), asked(&gates[1], &b));
            for request in [a, b] {
                assert!(given.insert(request.id().number()));
                gates[0].refuse_async(request.id(), "ann").await.unwrap();
            }
        }
    });
}

#[test]
fn a_dead_server_denies_and_nothing_passes_twice() {
    let Some(mut server) = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]) else { return };
    run(async {
        let gate = gate(impatient(&server.url()).pending_per_asker(1_000).build().unwrap());
        for amount in 0..200 {
            let request = asked(&gate, &call(&json!({ "amount": amount }))).await;
            gate.approve_async(request.id(), "ann").await.unwrap();
        }
        let passed = Arc::new((0..200).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
        let denied = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (gate, passed, denied) = (gate.clone(), Arc::clone(&passed), Arc::clone(&denied));
                tokio::spawn(async move {
                    for amount in 0..200 {
                        match gate.check_async(&call(&json!({ "amount": amount }))).await {
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
        assert!(denied.load(Ordering::Relaxed) > 0, "no call met the dead server");
        assert!(passed.iter().all(|passed| passed.load(Ordering::Relaxed) <= 1));
        // It has kept all that it was told, and goes on.
        let began = Instant::now();
        while gate.pending_async().await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for amount in 0..200 {
            let arguments = json!({ "amount": amount });
            let again = usize::from(gate.check_async(&call(&arguments)).await.is_allowed());
            assert!(passed[amount].load(Ordering::Relaxed) + again <= 1, "{amount}");
        }
    });
}

#[test]
fn a_signed_approval_is_used_once_though_the_server_is_away_meanwhile() {
    let Some(mut server) = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]) else { return };
    run(async {
        let gates: Vec<_> = (0..2).map(|_| gate(impatient(&server.url()).build().unwrap())).collect();
        let arguments = json!({});
        let request = asked(&gates[0], &call(&arguments)).await;
        let mut shown = keys().read_request(&keys().write_request(&request).unwrap()).unwrap();
        shown.decide(Verdict::Approve, "ann", SystemClock.now()).unwrap();
        let signed = keys().sign(&shown, SystemClock.now()).unwrap();
        server.kill();
        cause(gates[0].check_signed_async(&call(&arguments), &signed).await);
        server.revive();
        let began = Instant::now();
        let permit = loop {
            match gates[0].check_signed_async(&call(&arguments), &signed).await {
                Decision::Allow(permit) => break permit,
                other => cause(other),
            };
            assert!(began.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        server.kill();
        cause(gates[1].check_signed_async(&call(&arguments), &signed).await);
        server.revive();
        let began = Instant::now();
        while gates[1].pending_async().await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let Decision::RequireApproval(again) = gates[1].check_signed_async(&call(&arguments), &signed).await else {
            panic!("it was used")
        };
        assert_eq!(again.signed_error(), Some(SignedError::Spent));
        // Given back, it is the other's.
        while gates[0].pending_async().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        permit.release().await.unwrap();
        assert!(gates[1].check_signed_async(&call(&arguments), &signed).await.is_allowed());
        assert!(!gates[0].check_signed_async(&call(&arguments), &signed).await.is_allowed());
    });
    server.everything_expires();
}

#[test]
fn an_answer_that_is_lost_claims_once() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let proxy = Proxy::start(&server).await;
        let gate = gate(builder(&format!("redis://{}", proxy.address)).build().unwrap());
        let arguments = json!({});
        proxy.cut(1);
        let request = asked(&gate, &call(&arguments)).await;
        assert_eq!(gate.pending_async().await.unwrap().len(), 1);
        proxy.cut(1);
        let approved = gate.approve_async(request.id(), "ann").await.unwrap();
        assert_eq!(approved.state(), ApprovalState::Approved);
        proxy.cut(1);
        let permit = allowed(&gate, &call(&arguments)).await;
        proxy.cut(1);
        permit.release().await.unwrap();
        assert_eq!(proxy.left(), 0, "the answers were lost");
        // Lost for good: nobody can tell, so nobody may go ahead, and it stays used.
        let store = builder(&format!("redis://{}", proxy.address)).build().unwrap();
        let now = SystemClock.now();
        proxy.cut(4);
        assert!(matches!(store.claim(request.id(), now).await, Err(ApprovalError::Unavailable(Some(_)))));
        proxy.cut(0);
        assert_eq!(gate.check_async(&call(&arguments)).await.as_str(), "approval_required");
    });
    server.everything_expires();
}

#[test]
fn nonsense_from_a_server_is_no_approval() {
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
            let gate = gate(impatient(&format!("redis://{}", parrot(answer))).build().unwrap());
            let asked = tokio::time::timeout(Duration::from_secs(20), gate.check_async(&call(&json!({})))).await;
            assert!(!cause(asked.expect("a decision hangs")).is_empty(), "{shown}");
            let id = "0".repeat(64) + "-1";
            assert!(gate.approve_async(&id.parse().unwrap(), "ann").await.is_err(), "{shown}");
        }
    });
}

/// Several batches, among them many of one digest.
#[test]
fn a_long_list_is_read_in_order() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let bind = json!({ "bind": ["args.n<=", "args.to"] });
        let tools = json!({ "pay": { "action": "require_approval", "approval": bind } });
        let policy = Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).unwrap();
        let approvals = builder(&server.url()).pending_per_asker(2_000).build().unwrap();
        let gate =
            Gate::builder().policy(policy).store(InProcess(MemoryStore::new())).approvals_async(approvals).build();
        let mut made = Vec::new();
        for n in 0..1_100 {
            let to = if n % 3 == 0 { n / 100 } else { n };
            made.push(*asked(&gate, &call(&json!({ "n": n, "to": to }))).await.id());
        }
        for id in &made[..50] {
            gate.refuse_async(id, "ann").await.unwrap();
        }
        let listed: Vec<_> = gate.pending_async().await.unwrap().iter().map(|approval| *approval.id()).collect();
        assert_eq!(listed, made[50..1_050], "the thousand that are oldest");
    });
}

/// The rights that the documentation names are enough.
#[test]
fn a_user_with_few_rights_will_do() {
    let Some(server) = Server::start(&[]) else { return };
    let rights = "~{toolgate}:* +eval +evalsha +script|load +get +mget +set +del +time +pttl +pexpireat +zadd +zrem +zcard \
                  +zcount +zrange +zrangebyscore +zremrangebyscore";
    let mut command: Vec<&[u8]> = vec![b"ACL", b"SETUSER", b"gate", b"on", b">secret"];
    command.extend(rights.split_whitespace().map(str::as_bytes));
    server.tell::<()>(&command);
    run(async {
        let url = format!("{}?user=gate&pass=secret", server.url());
        let gate = gate(builder(&url).build().unwrap());
        let arguments = json!({});
        let request = asked(&gate, &call(&arguments)).await;
        assert_eq!(gate.pending_async().await.unwrap().len(), 1);
        gate.approve_async(request.id(), "ann").await.unwrap();
        allowed(&gate, &call(&arguments)).await.release().await.unwrap();
        allowed(&gate, &call(&arguments)).await.end().await.unwrap();
        let again = asked(&gate, &call(&arguments)).await;
        gate.refuse_async(again.id(), "ann").await.unwrap();
        assert!(server.tell::<String>(&[b"CLIENT", b"LIST"]).contains("user=gate"));
        // A request that is listed, and gone.
        let listed = asked(&gate, &call(&json!({ "other": 1 }))).await;
        let key = [b"{toolgate}:a:", &listed.id().digest().as_bytes()[..]].concat();
        server.tell::<()>(&[b"DEL", &key]);
        assert!(gate.pending_async().await.unwrap().is_empty());
    });
}

#[test]
fn a_script_that_was_forgotten_is_loaded_again() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let gate = gate(builder(&server.url()).build().unwrap());
        let arguments = json!({});
        server.tell::<()>(&[b"SCRIPT", b"FLUSH"]);
        let request = asked(&gate, &call(&arguments)).await;
        server.tell::<()>(&[b"SCRIPT", b"FLUSH"]);
        gate.approve_async(request.id(), "ann").await.unwrap();
        server.tell::<()>(&[b"SCRIPT", b"FLUSH"]);
        let permit = allowed(&gate, &call(&arguments)).await;
        server.tell::<()>(&[b"SCRIPT", b"FLUSH"]);
        permit.release().await.unwrap();
        allowed(&gate, &call(&arguments)).await.end().await.unwrap();
    });
}

#[test]
fn nonsense_in_the_server_is_no_approval() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let gate = gate(builder(&server.url()).build().unwrap());
        let arguments = json!({});
        let request = asked(&gate, &call(&arguments)).await;
        let key = [b"{toolgate}:a:", &request.id().digest().as_bytes()[..]].concat();
        let good: Vec<u8> = server.tell(&[b"GET", &key]);
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
            server.tell::<()>(&[b"SET", &key, &wrong]);
            let shown = wrong.escape_ascii().to_string();
            let said = cause(gate.check_async(&call(&arguments)).await);
            assert_eq!(said, "the store of approvals holds something else under an approval's name", "{shown}");
            let approved = gate.approve_async(request.id(), "ann").await;
            assert!(matches!(approved, Err(DecideError::Store(ApprovalError::Corrupt))), "{shown}");
            assert!(matches!(gate.pending_async().await, Err(ApprovalError::Corrupt)), "{shown}");
        }
        // A name of another kind, at each of its keys: nothing is changed by what fails.
        server.tell::<()>(&[b"SET", &key, &good]);
        for index in [&b"{toolgate}:al"[..], b"{toolgate}:ap", b"{toolgate}:ag:gg", b"{toolgate}:an"] {
            let kept: Vec<u8> = server.tell(&[b"DUMP", index]);
            server.tell::<()>(&[b"DEL", index]);
            match index == b"{toolgate}:an" {
                true => server.tell::<()>(&[b"RPUSH", index, b"x"]),
                false => server.tell::<()>(&[b"SET", index, b"x"]),
            }
            assert!(gate.approve_async(request.id(), "ann").await.is_err(), "{}", index.escape_ascii());
            cause(gate.check_async(&call(&json!({ "other": 1 }))).await);
            server.tell::<()>(&[b"RESTORE", index, b"0", &kept, b"REPLACE"]);
            assert_eq!(server.tell::<Vec<u8>>(&[b"GET", &key]), good);
        }
        gate.approve_async(request.id(), "ann").await.unwrap();
        server.tell::<()>(&[b"SET", &key, b""]);
        assert!(cause(gate.check_async(&call(&arguments)).await).contains("something else"));
    });
}

#[test]
fn clocks_too_far_apart_are_refused() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let clock = toolgate::ManualClock::new(Timestamp::from_unix_seconds(1_768_473_000));
        let approvals = builder(&server.url()).build().unwrap();
        let builder = Gate::builder().policy(policy()).store(InProcess(MemoryStore::new())).clock(clock.clone());
        let gate = builder.approvals_async(approvals).build();
        let said = cause(gate.check_async(&call(&json!({}))).await);
        assert!(said.contains("ms away from that of the store of approvals"), "{said}");
        for nonsense in [Timestamp::MIN, Timestamp::MAX, Timestamp::from_unix_seconds(-1)] {
            clock.set(nonsense);
            cause(gate.check_async(&call(&json!({}))).await);
        }
        let keys: Vec<Vec<u8>> = server.tell(&[b"KEYS", b"*"]);
        assert!(keys.is_empty());
    });
}

#[test]
fn all_keys_of_approvals_are_in_one_slot() {
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let options = ["--cluster-enabled", "yes", "--port", &port(), "--cluster-port", &port(), "--bind", "127.0.0.1"];
    let Some(server) = Server::start(&options) else { return };
    run(async {
        server.tell::<()>(&[b"CLUSTER", b"ADDSLOTSRANGE", b"0", b"16383"]);
        let gate = gate(builder(&server.url()).build().unwrap());
        let arguments = json!({});
        let began = Instant::now();
        while gate.pending_async().await.is_err()
            || !matches!(gate.check_async(&call(&arguments)).await, Decision::RequireApproval(_))
        {
            assert!(began.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        asked(&gate, &call(&json!({ "other": 1 }))).await;
        for request in gate.pending_async().await.unwrap() {
            gate.approve_async(request.id(), "ann").await.unwrap();
        }
        allowed(&gate, &call(&arguments)).await.release().await.unwrap();
    });
}

/// What nobody lists does not stay listed: the index of what waits is kept short by those that ask.
#[test]
fn indexes_forget_what_has_expired() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let clock = toolgate::ManualClock::new(Timestamp::from_unix_seconds(1_768_473_000));
        let approvals = builder(&server.url()).max_skew(ANY_CLOCK).pending_per_asker(30).build().unwrap();
        let builder = Gate::builder().policy(policy()).store(InProcess(MemoryStore::new())).clock(clock.clone());
        let gate = builder.approvals_async(approvals).build();
        for round in 0..4 {
            for amount in 0..30 {
                asked(&gate, &call(&json!({ "amount": amount, "round": round }))).await;
            }
            clock.advance(Duration::from_secs(600));
        }
        for index in [&b"{toolgate}:al"[..], b"{toolgate}:ap", b"{toolgate}:ag:gg"] {
            assert!(server.tell::<usize>(&[b"ZCARD", index]) <= 60, "{}", index.escape_ascii());
        }
        assert!(gate.pending_async().await.unwrap().is_empty());
        // A clock that is ahead hides what waits from its own host alone.
        clock.set(Timestamp::from_unix_seconds(1_768_473_000 + 3 * 600));
        assert_eq!(gate.pending_async().await.unwrap().len(), 30);
    });
    server.everything_expires();
}
