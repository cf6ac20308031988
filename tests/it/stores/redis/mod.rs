//! Counters and approvals in a real server, and decisions when it fails. Every test starts its own
//! server.

mod approval_faults;
mod approvals;
mod connections;
mod deployments;
mod faults;
mod history;
mod processes;
pub(crate) mod server;
mod stored;
mod suite;

use std::time::Duration;

use serde_json::{Value, json};
use toolgate::charge::Charge;
use toolgate::store::ReservationId;
use toolgate::store::redis::{RedisStore, RedisStoreBuilder};
use toolgate::{AsyncGate, AsyncPermit, Decision, Gate, Policy, ToolCall};

/// A bound above the difference of any clock of these tests from that of the server.
const ANY_CLOCK: Duration = Duration::from_secs(3_000 * 86_400);

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

/// A store that tolerates a slow machine and soon stops asking a failing server.
fn builder(url: &str) -> RedisStoreBuilder {
    RedisStore::builder(url)
        .connect_timeout(Duration::from_secs(5))
        .response_timeout(Duration::from_secs(5))
        .deadline(Duration::from_secs(10))
        .circuit_breaker(3, Duration::from_millis(200))
}

/// A store with short timeouts.
fn impatient(url: &str) -> RedisStoreBuilder {
    builder(url)
        .connect_timeout(Duration::from_millis(400))
        .response_timeout(Duration::from_millis(400))
        .deadline(Duration::from_millis(1_000))
}

fn policy(max: u64) -> Policy {
    let limits = json!([
        { "counter": "day", "window": "day", "max": max, "scope": "grant" },
        { "counter": "all", "window": "day", "max": 9_000_000, "scope": "global", "algorithm": "sliding" },
    ]);
    json!({ "version": "1", "default": "deny", "tools": { "t": { "limits": limits } } }).to_string().parse().unwrap()
}

fn gate(store: RedisStore, max: u64) -> AsyncGate<RedisStore> {
    Gate::builder().policy(policy(max)).store_async(store).build()
}

fn call() -> ToolCall<'static> {
    ToolCall::new("t", None::<&Value>).grant("g")
}

async fn decide(gate: &AsyncGate<RedisStore>) -> Decision<AsyncPermit> {
    gate.check(&call()).await
}

/// Returns the code of a denial, or the name of another decision.
async fn code(gate: &AsyncGate<RedisStore>) -> String {
    match decide(gate).await {
        Decision::Deny(denial) => denial.code().to_string(),
        other => other.as_str().to_owned(),
    }
}

/// Makes calls until one is allowed: a store reconnects by itself.
async fn resumes(gate: &AsyncGate<RedisStore>) {
    for _ in 0..200 {
        if decide(gate).await.is_allowed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the store does not reconnect");
}

/// Returns charges of this number of counters, for a caller.
fn charges(counters: usize, grant: &str) -> Vec<Charge> {
    let limit = |index| json!({ "counter": format!("c{index}"), "window": "day", "max": 10, "scope": "grant" });
    let limits: Vec<_> = (0..counters).map(limit).collect();
    let document = json!({ "version": "1", "default": "deny", "tools": { "t": { "limits": limits } } });
    let policy: Policy = document.to_string().parse().unwrap();
    crate::gate::recorded_charges::charges(policy, &ToolCall::new("t", None::<&Value>).grant(grant))
}

/// Generates reservation ids.
#[derive(Default)]
struct Ids(u128);

impl Ids {
    fn next(&mut self) -> ReservationId {
        self.0 += 1;
        ReservationId::new(self.0)
    }
}
