//! Real clusters and sentinels, under load: exact through a failover and a resharding.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use toolgate::approval::redis::RedisApprovals;
use toolgate::store::redis::{RedisStore, RedisStoreBuilder, Server};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{AsyncGate, Decision, Gate};

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
        let load = Load::start(&[gate.clone()]);
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

/// Without `min-replicas-to-write`, the old master admits calls until it is demoted.
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
