//! Approvals in a real server: the same as in memory, also between processes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Runtime;
use toolgate::approval::redis::{RedisApprovals, RedisApprovalsBuilder};
use toolgate::approval::signed::{ApprovalKey, ApprovalKeys};
use toolgate::approval::{
    Approval, ApprovalError, ApprovalId, ApprovalStore, Ask, AsyncApprovalStore, Claim, DecideError, Redemption,
    Verdict,
};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{AsyncGate, AsyncPermit, Clock, Code, Decision, Gate, Policy, SystemClock, Timestamp, ToolCall};

use super::server::Server;
use super::{ANY_CLOCK, run};
use crate::approvals::suite::approval_suite;
use crate::approvals::{Bounds, MakeStore};

pub(super) fn builder(url: &str) -> RedisApprovalsBuilder {
    RedisApprovals::builder(url)
        .connect_timeout(Duration::from_secs(5))
        .response_timeout(Duration::from_secs(5))
        .deadline(Duration::from_secs(10))
        .circuit_breaker(3, Duration::from_millis(200))
}

pub(super) fn impatient(url: &str) -> RedisApprovalsBuilder {
    builder(url)
        .connect_timeout(Duration::from_millis(400))
        .response_timeout(Duration::from_millis(400))
        .deadline(Duration::from_millis(1_000))
}

/// Waits for each answer, so that tests of in-process stores run over a server.
struct Blocking {
    store: RedisApprovals,
    runtime: Runtime,
}

impl ApprovalStore for Blocking {
    fn request(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Approval, ApprovalError> {
        self.runtime.block_on(AsyncApprovalStore::request(&self.store, ask, now))
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str, now: Timestamp) -> Result<Approval, DecideError> {
        self.runtime.block_on(AsyncApprovalStore::decide(&self.store, id, verdict, by, now))
    }

    fn claim(&self, id: &ApprovalId, now: Timestamp) -> Result<Option<Claim>, ApprovalError> {
        self.runtime.block_on(AsyncApprovalStore::claim(&self.store, id, now))
    }

    fn refusal(&self, ask: &Ask<'_>, now: Timestamp) -> Result<Option<Approval>, ApprovalError> {
        self.runtime.block_on(AsyncApprovalStore::refusal(&self.store, ask, now))
    }

    fn redeem(
        &self,
        id: &ApprovalId,
        uses: u32,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Redemption, ApprovalError> {
        self.runtime.block_on(AsyncApprovalStore::redeem(&self.store, id, uses, until, now))
    }

    fn restore(&self, claim: &Claim, now: Timestamp) -> Result<bool, ApprovalError> {
        self.runtime.block_on(AsyncApprovalStore::restore(&self.store, claim, now))
    }

    fn pending(&self, now: Timestamp) -> Result<Vec<Approval>, ApprovalError> {
        self.runtime.block_on(AsyncApprovalStore::pending(&self.store, now))
    }
}

/// Makes a store with its own prefix that accepts the clock of the test.
fn store(server: &Server, bounds: Bounds) -> Arc<dyn ApprovalStore> {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let store = builder(&server.url())
        .prefix(format!("p{}", MADE.fetch_add(1, Ordering::Relaxed)))
        .max_skew(ANY_CLOCK)
        .capacity(bounds.capacity)
        .pending_per_asker(bounds.pending)
        .details_up_to(bounds.details);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    Arc::new(Blocking { store: store.build().unwrap(), runtime })
}

mod suite {
    use super::{MakeStore, Server, store};

    fn with(case: &dyn Fn(MakeStore<'_>)) {
        let Some(server) = Server::start(&[]) else { return };
        case(&|bounds| store(&server, bounds));
        server.assert_every_key_expires();
    }

    super::approval_suite!(with);
}

#[test]
fn approval_cases_pass_over_a_server() {
    let Some(server) = Server::start(&[]) else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases/approvals.json");
    let run = crate::language::vectors::run_file_over(&path, || store(&server, Bounds::default()));
    assert!(run > 20, "{run}");
    server.assert_every_key_expires();
}

pub(super) type LocalGate = AsyncGate<InProcess<MemoryStore>>;

pub(super) fn policy() -> Policy {
    let limits = json!([{ "counter": "n", "window": "day", "max": 100_000, "scope": "grant" }]);
    let tools = json!({ "pay": { "action": "require_approval", "limits": limits } });
    Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).unwrap()
}

pub(super) fn gate(approvals: RedisApprovals) -> LocalGate {
    let builder = Gate::builder().policy(policy()).store_async(InProcess(MemoryStore::new()));
    builder.approvals(approvals).approval_keys(keys()).build()
}

pub(super) fn call(arguments: &serde_json::Value) -> ToolCall<'_> {
    ToolCall::new("pay", arguments).grant("g")
}

pub(super) async fn asked(gate: &LocalGate, call: &ToolCall<'_>) -> Approval {
    match gate.check(call).await {
        Decision::RequireApproval(request) => request.approval().unwrap().clone(),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn allowed(gate: &LocalGate, call: &ToolCall<'_>) -> AsyncPermit {
    match gate.check(call).await {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    }
}

/// Returns the cause of a denial, as reported to the host.
pub(super) fn cause(decision: Decision<AsyncPermit>) -> String {
    let Decision::Deny(denial) = decision else { panic!("{decision:?}") };
    assert_eq!(denial.code(), Code::StoreUnavailable);
    std::error::Error::source(denial.store_error().unwrap()).unwrap().to_string()
}

#[test]
fn gates_of_one_server_share_approvals() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let gates: Vec<_> = (0..3).map(|_| gate(builder(&server.url()).build().unwrap())).collect();
        let arguments = json!({ "amount": 5 });
        let request = asked(&gates[0], &call(&arguments)).await;
        assert_eq!(gates[1].pending().await.unwrap()[0].id(), request.id());
        gates[1].approve(request.id(), "ann").await.unwrap();
        let permit = allowed(&gates[2], &call(&arguments)).await;
        assert_eq!(gates[0].check(&call(&arguments)).await.as_str(), "approval_required");
        permit.release().await.unwrap();
        let Decision::Allow(permit) = gates[0].check(&call(&arguments).approval(request.id())).await else {
            panic!("the approval was restored")
        };
        permit.end().await.unwrap();
        // The new request that the call created can be refused.
        let requests = gates[2].pending().await.unwrap();
        gates[2].refuse(requests[0].id(), "ann").await.unwrap();
        assert!(gates[0].pending().await.unwrap().is_empty());
    });
    server.assert_every_key_expires();
}

/// The environment variables that give the second process the address of the server and the signed
/// approvals.
const URL: &str = "TOOLGATE_TEST_APPROVALS_URL";
const SIGNED: &str = "TOOLGATE_TEST_APPROVALS_SIGNED";
const ROUNDS: usize = 150;

pub(super) fn keys() -> ApprovalKeys {
    ApprovalKeys::new(ApprovalKey::new("k", &[3; 32]).unwrap())
}

/// Uses the approvals of each round as fast as possible, every other one by its signed text.
/// Returns how many calls are allowed in each round.
async fn claims(gate: &LocalGate, signed: &[String]) -> Vec<usize> {
    let mut passed = Vec::new();
    for (round, signed) in signed.iter().enumerate() {
        let tasks = (0..4).map(|_| {
            let (gate, signed) = (gate.clone(), signed.clone());
            tokio::spawn(async move {
                let arguments = json!({ "round": round });
                let decision = match signed.is_empty() {
                    true => gate.check(&call(&arguments)).await,
                    false => gate.check(&call(&arguments).signed(&signed)).await,
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
fn two_processes_use_an_approval_once() {
    let Some(server) = Server::start(&[]) else { return };
    let totals = run(async {
        let gate = gate(builder(&server.url()).pending_per_asker(2 * ROUNDS).build().unwrap());
        let mut signed = Vec::new();
        for round in 0..ROUNDS {
            let mut request = asked(&gate, &call(&json!({ "round": round }))).await;
            signed.push(String::new());
            if round % 2 == 0 {
                gate.approve(request.id(), "ann").await.unwrap();
            } else {
                let now = SystemClock.now();
                request.decide(Verdict::Approve, "ann", now).unwrap();
                signed[round] = keys().sign(&request, now).unwrap();
            }
        }
        let mut second = Command::new(std::env::current_exe().unwrap());
        second.args(["--exact", "stores::redis::approvals::a_second_process", "--nocapture"]).env(URL, server.url());
        second.env(SIGNED, signed.join(","));
        let mut second = second.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Both processes begin once the second one is ready.
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
    assert!([&mine, &theirs].iter().all(|side| side.contains(&1)), "the processes did not race: {mine:?}");
    server.assert_every_key_expires();
}

/// The part of the second process. Run as a test, it does nothing.
#[test]
fn a_second_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let passed = run(async {
        let gate = gate(builder(&url).pending_per_asker(2 * ROUNDS).build().unwrap());
        assert!(gate.pending().await.is_ok());
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
fn request_numbers_are_unique() {
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
                gates[0].refuse(request.id(), "ann").await.unwrap();
                gates[0].lift_refusal(request.id(), "ann").await.unwrap();
            }
        }
    });
}

/// The list takes several batches and has many requests with the same digest.
#[test]
fn a_long_list_is_in_order() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let bind = json!({ "bind": ["args.n<=", "args.to"] });
        let tools = json!({ "pay": { "action": "require_approval", "approval": bind } });
        let policy = Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).unwrap();
        let approvals = builder(&server.url()).pending_per_asker(2_000).build().unwrap();
        let gate =
            Gate::builder().policy(policy).store_async(InProcess(MemoryStore::new())).approvals(approvals).build();
        let mut made = Vec::new();
        for n in 0..1_100 {
            let to = if n % 3 == 0 { n / 100 } else { n };
            made.push(*asked(&gate, &call(&json!({ "n": n, "to": to }))).await.id());
        }
        for id in &made[..50] {
            gate.refuse(id, "ann").await.unwrap();
        }
        let listed: Vec<_> = gate.pending().await.unwrap().iter().map(|approval| *approval.id()).collect();
        assert_eq!(listed, made[50..1_050], "the oldest thousand");
    });
}

#[test]
fn all_keys_of_approvals_are_in_one_slot() {
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let options = ["--cluster-enabled", "yes", "--port", &port(), "--cluster-port", &port(), "--bind", "127.0.0.1"];
    let Some(server) = Server::start(&options) else { return };
    run(async {
        server.command::<()>(&[b"CLUSTER", b"ADDSLOTSRANGE", b"0", b"16383"]);
        let gate = gate(builder(&server.url()).build().unwrap());
        let arguments = json!({});
        let began = Instant::now();
        while gate.pending().await.is_err()
            || !matches!(gate.check(&call(&arguments)).await, Decision::RequireApproval(_))
        {
            assert!(began.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        asked(&gate, &call(&json!({ "other": 1 }))).await;
        for request in gate.pending().await.unwrap() {
            gate.approve(request.id(), "ann").await.unwrap();
        }
        allowed(&gate, &call(&arguments)).await.release().await.unwrap();
    });
}

/// New requests remove expired ones from the indexes, also if nobody lists them.
#[test]
fn indexes_drop_expired_requests() {
    let Some(server) = Server::start(&[]) else { return };
    run(async {
        let clock = toolgate::ManualClock::new(Timestamp::from_unix_seconds(1_768_473_000));
        let approvals = builder(&server.url()).max_skew(ANY_CLOCK).pending_per_asker(30).build().unwrap();
        let builder = Gate::builder().policy(policy()).store_async(InProcess(MemoryStore::new())).clock(clock.clone());
        let gate = builder.approvals(approvals).build();
        for round in 0..4 {
            for amount in 0..30 {
                asked(&gate, &call(&json!({ "amount": amount, "round": round }))).await;
            }
            clock.advance(Duration::from_secs(600));
        }
        for index in [&b"{toolgate}:al"[..], b"{toolgate}:ap", b"{toolgate}:ag:gg"] {
            assert!(server.command::<usize>(&[b"ZCARD", index]) <= 60, "{}", index.escape_ascii());
        }
        assert!(gate.pending().await.unwrap().is_empty());
        // A clock that was ahead has hidden the pending requests from its own host only.
        clock.set(Timestamp::from_unix_seconds(1_768_473_000 + 3 * 600));
        assert_eq!(gate.pending().await.unwrap().len(), 30);
    });
    server.assert_every_key_expires();
}
