//! Real clusters and sentinels, under load: exact through a failover and a resharding.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use toolgate::approval::redis::RedisApprovals;
use toolgate::store::redis::{RedisStore, RedisStoreBuilder, Server};
use toolgate::store::{AsyncCounterStore, InProcess, MemoryStore, Outcome, ReservationId, ReserveRequest};
use toolgate::{AsyncGate, Clock, Decision, Gate, Identity, Policy, SystemClock, ToolCall};

use super::approvals::{allowed, asked};
use super::connections::{COUNTERS, documented_rights, set_user};
use super::server::{Cluster, Node, Watched, wait_until};
use super::{builder, call, code, gate, resumes, run};

/// A store with the time limits of a gateway, on a slow machine.
fn store(server: impl Into<Server>) -> RedisStoreBuilder {
    RedisStore::builder(server)
        .connect_timeout(Duration::from_secs(1))
        .response_timeout(Duration::from_secs(1))
        .deadline(Duration::from_secs(2))
        .circuit_breaker(5, Duration::from_millis(200))
}

/// Tasks that make calls until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    allowed: AtomicUsize,
    denied: AtomicUsize,
}

impl Load {
    fn start(gates: &[AsyncGate<RedisStore>]) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let tasks = gates.iter().map(|gate| {
            let (gate, stop, counts) = (gate.clone(), Arc::clone(&stop), Arc::clone(&counts));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    match gate.check(&call()).await {
                        Decision::Allow(_) => counts.allowed.fetch_add(1, Ordering::SeqCst),
                        Decision::Deny(_) => counts.denied.fetch_add(1, Ordering::SeqCst),
                        _ => 0,
                    };
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
            })
        });
        Self { tasks: tasks.collect(), stop, counts }
    }

    fn allowed(&self) -> usize {
        self.counts.allowed.load(Ordering::SeqCst)
    }

    /// Waits until this many more calls are allowed, and returns how long that took.
    async fn more(&self, calls: usize) -> Duration {
        let (began, before) = (Instant::now(), self.allowed());
        while self.allowed() < before + calls {
            let denied = self.counts.denied.load(Ordering::SeqCst);
            assert!(began.elapsed() < Duration::from_secs(40), "no call is allowed any more, {denied} are denied");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    }

    /// Stops the tasks, and returns how many calls were allowed and denied.
    async fn stop(self) -> (usize, usize) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        (self.counts.allowed.load(Ordering::SeqCst), self.counts.denied.load(Ordering::SeqCst))
    }
}

/// Makes calls until the limit refuses, and returns how many are allowed.
async fn drain(gate: &AsyncGate<RedisStore>) -> usize {
    let (mut allowed, mut denied) = (0, 0);
    loop {
        match code(gate).await.as_str() {
            "allow" => allowed += 1,
            "rate_limited" => return allowed,
            other => {
                denied += 1;
                assert!(denied < 200, "{other}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Runs work that blocks without holding up the tasks of the load.
async fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    tokio::task::block_in_place(work)
}

#[test]
fn a_cluster_is_exact_from_any_node() {
    let Some(cluster) = Cluster::start(3, true, &[]) else { return };
    run(async {
        // Each process names another node; the last names one that is down too.
        let nodes = (0..6).map(|node| cluster.url(node));
        let down = format!("redis+cluster://127.0.0.1:1,127.0.0.1:{}", cluster.nodes[4].port);
        let mut allowed = 0;
        for url in nodes.chain([down]) {
            let gate = gate(builder(&url).build().unwrap(), 10);
            for _ in 0..3 {
                allowed += usize::from(code(&gate).await == "allow");
            }
        }
        assert_eq!(allowed, 10);
        // The check says whether a store was built for a cluster.
        let report = builder(&cluster.url(5)).build().unwrap().check().await;
        assert!(report.is_ready() && report.is_cluster() == Some(true), "{report}");
        let single = format!("redis://127.0.0.1:{}", cluster.nodes[3].port);
        let report = builder(&single).build().unwrap().check().await;
        assert!(!report.is_ready() && report.to_string().contains("use `redis+cluster://`"), "{report}");
        let denied = gate(builder(&single).build().unwrap(), 10).check(&call()).await;
        let Decision::Deny(denial) = denied else { panic!("a replica decides") };
        let cause = std::error::Error::source(denial.store_error().unwrap()).unwrap().to_string();
        assert!(cause.contains("use `redis+cluster://`"), "{cause}");
    });
}

/// Creates a user with the documented rights, and returns the start of its URL.
fn user(nodes: &[&Node], more: &[&str]) -> &'static str {
    let rights = documented_rights(COUNTERS, "server user for the store needs");
    for node in nodes {
        let rights = rights.iter().map(|right| &**right).chain(more.iter().copied()).collect::<Vec<_>>();
        set_user(&node.server, &rights);
    }
    "gate:secret@127.0.0.1"
}

#[test]
fn the_documented_rights_are_enough_in_a_cluster() {
    let Some(cluster) = Cluster::start(2, false, &[]) else { return };
    run(async {
        let login = user(&cluster.nodes.iter().collect::<Vec<_>>(), &["+cluster|slots", "+asking"]);
        let gates = [0, 1].map(|node| {
            let url = cluster.url(node).replace("127.0.0.1", login);
            gate(store(url).build().unwrap(), 100)
        });
        let (slot, master) = aside(|| cluster.slot("toolgate")).await;
        for gate in &gates {
            assert_eq!(code(gate).await, "allow");
        }
        let load = Load::start(&gates);
        aside(|| cluster.reshard(slot, master, 1 - master)).await;
        load.more(20).await;
        let (allowed, denied) = load.stop().await;
        let allowed = 2 + allowed + drain(&gates[0]).await;
        assert!(allowed <= 100 && allowed + denied >= 100, "{allowed} allowed, {denied} denied");
    });
}

#[test]
fn a_cluster_is_exact_through_failover_and_resharding() {
    const MAX: usize = 3_000;
    let Some(mut cluster) = Cluster::start(3, true, &[]) else { return };
    run(async {
        let gates: Vec<_> = (0..6).map(|node| gate(store(&*cluster.url(node)).build().unwrap(), MAX as u64)).collect();
        let load = Load::start(&gates);
        load.more(100).await;
        // The slot of the prefix moves to another master.
        let (slot, master) = aside(|| cluster.slot("toolgate")).await;
        let other = (master + 1) % 3;
        let moved = aside(|| cluster.reshard(slot, master, other)).await;
        let resharded = load.more(100).await;
        // Its replica takes over in order: nothing is lost.
        cluster.nodes[3 + other].ask::<()>("CLUSTER FAILOVER");
        let turned = aside(|| {
            let began = Instant::now();
            wait_until("no failover", || cluster.slot("toolgate").1 == 3 + other);
            began.elapsed()
        })
        .await;
        let failed_over = load.more(100).await;
        // Its replica, which was the master, takes over from one that is killed. Redis replicates
        // late, so nothing is charged meanwhile.
        let (mut allowed, mut denied) = load.stop().await;
        cluster.nodes[3 + other].ask::<i64>("WAIT 1 5000");
        cluster.nodes[3 + other].server.kill();
        let load = Load::start(&gates);
        let killed = load.more(50).await;
        let counts = load.stop().await;
        (allowed, denied) = (allowed + counts.0, denied + counts.1);
        allowed += drain(&gates[0]).await;
        println!(
            "moved {moved} keys, on after {resharded:?}; turned in {turned:?}, on after {failed_over:?}; killed, on \
             after {killed:?}; allowed {allowed}, denied {denied}"
        );
        // A denied call whose answer was lost may have been charged.
        assert!(allowed <= MAX && allowed + denied >= MAX, "{allowed} allowed, {denied} denied");
        for gate in &gates {
            resumes_refusing(gate).await;
        }
    });
}

/// Waits until a gate answers that the limit is reached: its store follows the cluster.
async fn resumes_refusing(gate: &AsyncGate<RedisStore>) {
    assert_eq!(drain(gate).await, 0);
}

#[test]
fn approvals_in_a_cluster_survive_a_failover() {
    let Some(cluster) = Cluster::start(1, true, &[]) else { return };
    run(async {
        let approvals = RedisApprovals::builder(cluster.url(1)).build().unwrap();
        let report = approvals.check().await;
        assert!(report.is_ready(), "{report}");
        let builder = Gate::builder().policy(super::approvals::policy()).store_async(InProcess(MemoryStore::new()));
        let gate = builder.approvals(approvals).build();
        let arguments = json!({});
        let call = super::approvals::call(&arguments);
        let request = asked(&gate, &call).await;
        cluster.nodes[1].ask::<()>("CLUSTER FAILOVER");
        aside(|| wait_until("no failover", || cluster.slot("toolgate").1 == 1)).await;
        gate.approve(request.id(), "ann").await.unwrap();
        allowed(&gate, &call).await.end().await.unwrap();
    });
}

#[test]
fn sentinels_lead_to_the_new_master() {
    let Some(mut watched) = Watched::start(&[]) else { return };
    run(async {
        let gate = gate(store(&*watched.url()).build().unwrap(), 300);
        assert_eq!(code(&gate).await, "allow");
        let login = user(&[&watched.master], &["+role"]);
        let limited = watched.url().replacen("127.0.0.1", login, 1);
        assert_eq!(code(&super::gate(store(limited).prefix("toolgate").build().unwrap(), 300)).await, "allow");
        let report = store(&*watched.url()).build().unwrap().check().await;
        assert!(report.is_ready() && report.role() == Some("master"), "{report}");
        assert!(report.to_string().contains("min-replicas-to-write"), "{report}");
        watched.master.ask::<i64>("WAIT 1 5000");
        watched.master.server.kill();
        let began = Instant::now();
        let load = Load::start(std::slice::from_ref(&gate));
        load.more(1).await;
        println!("a killed master is replaced in {:?}", began.elapsed());
        let (allowed, _) = load.stop().await;
        assert_eq!(2 + allowed + drain(&gate).await, 300);
        // A name that the sentinels do not know, and a sentinel in place of a server.
        let other = watched.url().replace("/gate", "/other");
        let report = store(&*other).build().unwrap().check().await;
        assert!(report.to_string().contains("sentinel monitor"), "{report}");
        let sentinel = format!("redis://127.0.0.1:{}", watched.sentinels[0].port);
        let denied = super::gate(store(&*sentinel).build().unwrap(), 1).check(&call()).await;
        let Decision::Deny(denial) = denied else { panic!("a sentinel decides") };
        let cause = std::error::Error::source(denial.store_error().unwrap()).unwrap().to_string();
        assert!(cause.contains("may be a Sentinel"), "{cause}");
    });
}

/// Without `min-replicas-to-write`, the old master admits calls until it is demoted; and without
/// the pause, what it admits in the moment in which its replica leaves.
#[test]
fn sentinels_turn_exactly_if_the_master_needs_a_replica() {
    const MAX: usize = 1_500;
    let options = ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"];
    let Some(watched) = Watched::start(&options) else { return };
    run(async {
        let gates: Vec<_> = (0..4).map(|_| gate(store(&*watched.url()).build().unwrap(), MAX as u64)).collect();
        resumes(&gates[0]).await;
        let load = Load::start(&gates);
        load.more(100).await;
        watched.master.ask::<()>("CLIENT PAUSE 15000 WRITE");
        // The replica gets what was written before.
        tokio::time::sleep(Duration::from_millis(200)).await;
        watched.sentinels[0].ask::<()>("SENTINEL FAILOVER gate");
        aside(|| {
            let master = watched.replica.port.to_string();
            wait_until("no failover", || {
                watched.sentinels[1].ask::<Vec<String>>("SENTINEL GET-MASTER-ADDR-BY-NAME gate")[1] == master
            });
        })
        .await;
        let outage = load.more(100).await;
        let (allowed, denied) = load.stop().await;
        let allowed = 1 + allowed + drain(&gates[0]).await;
        println!("an orderly failover: on after {outage:?}; allowed {allowed}, denied {denied}");
        assert!(allowed <= MAX && allowed + denied >= MAX, "{allowed} allowed, {denied} denied");
    });
}

/// Limits by grant, and one that all grants share.
fn spread_policy(shared: u64) -> Policy {
    let limits = json!([
        { "counter": "day", "window": "day", "max": 5, "scope": "grant" },
        { "counter": "hour", "window": "hour", "max": 5, "scope": ["grant", "args.kind"], "algorithm": "sliding" },
    ]);
    let all = json!([{ "counter": "all", "window": "day", "max": shared, "scope": "global" }]);
    let both = [limits.as_array().unwrap().clone(), all.as_array().unwrap().clone()].concat();
    let tools = json!({ "own": { "limits": limits }, "both": { "limits": both } });
    json!({ "version": "1", "default": "deny", "tools": tools }).to_string().parse().unwrap()
}

fn spread(url: &str) -> RedisStoreBuilder {
    builder(url).partition_by(Identity::Grant)
}

#[test]
fn partitions_spread_one_policy_over_a_cluster() {
    let Some(cluster) = Cluster::start(3, false, &[]) else { return };
    let policy = spread_policy(1_000_000);
    assert_eq!(policy.counters_without(Identity::Grant).into_iter().collect::<Vec<_>>(), ["all"]);
    run(async {
        let store = spread(&cluster.url(0)).build().unwrap();
        let report = store.check().await;
        assert!(report.is_ready(), "{report}");
        let gate = Gate::builder().policy(policy).store_async(store).build();
        let arguments = json!({ "kind": "x" });
        for grant in 0..60 {
            let name = format!("g{grant}");
            let call = ToolCall::new("own", &arguments).grant(&name);
            for want in [true, true, true, true, true, false] {
                assert_eq!(gate.check(&call).await.is_allowed(), want, "{name}");
            }
            assert!(gate.reset_counter("day", &call, "ann").await.unwrap());
            assert!(gate.reset_counter("hour", &call, "ann").await.unwrap());
            assert!(gate.check(&call).await.is_allowed());
        }
    });
    let counters: Vec<_> = cluster.nodes.iter().map(|node| node.server.counters().len()).collect();
    assert_eq!(counters.iter().sum::<usize>(), 120);
    // Prefix and names are fixed, and so is the spread.
    assert!(counters.iter().all(|counters| *counters >= 14), "{counters:?}");
}

#[test]
fn calls_in_two_partitions_never_exceed_a_limit() {
    const SHARED: usize = 100;
    let Some(cluster) = Cluster::start(3, false, &[]) else { return };
    run(async {
        let policy = spread_policy(SHARED as u64);
        let gates: Vec<_> = (0..3)
            .map(|node| {
                let store = spread(&cluster.url(node)).build().unwrap();
                Gate::builder().policy(policy.clone()).store_async(store).build()
            })
            .collect();
        // 40 grants may make 5 calls each, and all together 100.
        let tasks = (0..24).map(|task| {
            let gate = gates[task % 3].clone();
            tokio::spawn(async move {
                let (arguments, mut allowed) = (json!({ "kind": 1 }), Vec::new());
                for turn in 0..40 {
                    let grant = (task * 7 + turn) % 40;
                    let name = format!("g{grant}");
                    match gate.check(&ToolCall::new("both", &arguments).grant(&name)).await {
                        Decision::Allow(permit) => allowed.push((grant, permit)),
                        Decision::RateLimit(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
                allowed
            })
        });
        let (mut by_grant, mut permits) = (vec![0; 40], Vec::new());
        for task in tasks.collect::<Vec<_>>() {
            for (grant, permit) in task.await.unwrap() {
                by_grant[grant] += 1;
                permits.push(permit);
            }
        }
        assert!(by_grant.iter().all(|calls| *calls <= 5), "{by_grant:?}");
        // A call that is being taken back can refuse another for a moment, but no later one.
        let arguments = json!({ "kind": 1 });
        for grant in (0..40).cycle().take(400) {
            let name = format!("g{grant}");
            if let Decision::Allow(permit) = gates[0].check(&ToolCall::new("both", &arguments).grant(&name)).await {
                by_grant[grant] += 1;
                permits.push(permit);
            }
        }
        assert_eq!(by_grant.iter().sum::<usize>(), SHARED);
        // Refused calls left nothing behind: what a grant has not used is free for its own tool.
        for (grant, calls) in by_grant.iter().enumerate() {
            let name = format!("g{grant}");
            let call = ToolCall::new("own", &arguments).grant(&name);
            for turn in *calls..6 {
                assert_eq!(gates[1].check(&call).await.is_allowed(), turn < 5, "{name} {turn}");
            }
        }
        // A release gives back in both partitions.
        permits.pop().unwrap().release().await.unwrap();
        let fresh = ToolCall::new("both", &arguments).grant("fresh");
        let codes = [gates[2].check(&fresh).await.is_allowed(), gates[2].check(&fresh).await.is_allowed()];
        assert_eq!(codes, [true, false]);
        // The refusal shows the counters without the refused call.
        let Decision::RateLimit(refused) = gates[2].check(&fresh).await else { panic!("there is room") };
        let used: Vec<_> = refused.limits().iter().map(|limit| limit.used().to_string()).collect();
        assert_eq!(used, ["1", "1", "100"]);
        // A strict store refuses such calls, and no others.
        let strict = spread(&cluster.url(0)).in_one_partition().build().unwrap();
        let strict = Gate::builder().policy(policy).store_async(strict).build();
        assert!(strict.check(&ToolCall::new("own", &arguments).grant("other")).await.is_allowed());
        assert_eq!(strict.check(&fresh).await.as_str(), "deny");
    });
    for node in &cluster.nodes {
        node.server.assert_every_key_expires();
    }
}

/// A reservation that was refused in one partition and taken back in another is not granted by its
/// record when it is sent again.
#[test]
fn a_reservation_that_was_taken_back_is_charged_again() {
    let Some(server) = super::server::Server::start(&[]) else { return };
    run(async {
        let store = spread(&server.url()).build().unwrap();
        let arguments = json!({ "kind": 1 });
        let call = ToolCall::new("both", &arguments).grant("g");
        let charges = crate::gate::recorded_charges::charges(spread_policy(1), &call);
        let (now, id) = (SystemClock.now(), ReservationId::new(7));
        let reserve = async |id| AsyncCounterStore::reserve(&store, &ReserveRequest::new(id, now, &charges)).await;
        let used = async || {
            let outcome = AsyncCounterStore::peek(&store, &ReserveRequest::new(id, now, &charges)).await.unwrap();
            outcome.tallies().iter().map(|tally| tally.used.micros() / 1_000_000).collect::<Vec<_>>()
        };
        // The partition of the grant refuses, after the common one has charged.
        let own = ToolCall::new("own", &arguments).grant("g");
        let mut own = crate::gate::recorded_charges::charges(spread_policy(1), &own);
        own.truncate(1);
        for number in 10..15 {
            let request = ReserveRequest::new(ReservationId::new(number), now, &own);
            assert!(matches!(AsyncCounterStore::reserve(&store, &request).await.unwrap(), Outcome::Granted(_)));
        }
        for _ in 0..3 {
            let Outcome::Refused(tallies) = reserve(id).await.unwrap() else { panic!("the grant has used all") };
            assert_eq!(tallies.iter().map(|tally| tally.used.micros() / 1_000_000).collect::<Vec<_>>(), [5, 0, 0]);
            assert_eq!(used().await, [5, 0, 0]);
        }
        AsyncCounterStore::reset(&store, own[0].counter, &own[0].subject).await.unwrap();
        assert!(matches!(reserve(id).await.unwrap(), Outcome::Granted(_)));
        assert_eq!(used().await, [1, 1, 1]);
        assert!(matches!(reserve(id).await.unwrap(), Outcome::Granted(_)), "sent again");
        assert_eq!(used().await, [1, 1, 1]);
        assert!(matches!(reserve(ReservationId::new(8)).await.unwrap(), Outcome::Refused(_)));
    });
    server.assert_every_key_expires();
}
