//! Counters and times for Prometheus.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use toolgate::Decision;
use toolgate::charge::{CounterId, Subject};
use toolgate::store::{AsyncCounterStore, Outcome, ReserveRequest, SettleRequest, StoreFuture};

use crate::host::Store;

/// The number of tools with a label of their own. Others are counted as `(other)`: a caller can
/// invent names.
const TOOLS: usize = 500;

/// All metrics of the gateway.
pub struct Metrics {
    registry: Registry,
    decisions: Family<OfDecision, Counter>,
    waits: Histogram,
    store: Family<OfStore, Histogram, fn() -> Histogram>,
    pending: Gauge,
    pub(crate) audit_failures: Counter,
    /// The tools that servers have listed.
    known: RwLock<HashSet<String>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfDecision {
    decision: &'static str,
    code: &'static str,
    tool: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfStore {
    operation: &'static str,
}

/// From 16 µs, which is slow for memory, to a second.
fn of_store() -> Histogram {
    Histogram::new([0.000_016, 0.000_064, 0.000_25, 0.001, 0.004, 0.016, 0.064, 0.25, 1.0])
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let waits = Histogram::new([1.0, 10.0, 60.0, 600.0, 3_600.0, 86_400.0]);
        let store = Family::new_with_constructor(of_store as fn() -> Histogram);
        let (decisions, pending, audit_failures) = (Family::default(), Gauge::default(), Counter::default());
        let mut registry = Registry::with_prefix("toolgate");
        registry.register("decisions", "Decisions on calls, by code and tool", decisions.clone());
        registry.register_with_unit("retry_after", "How long limited callers wait", Unit::Seconds, waits.clone());
        registry.register_with_unit("store", "The time of the store's operations", Unit::Seconds, store.clone());
        registry.register("pending_approvals", "Calls that wait for a person", pending.clone());
        registry.register("audit_failures", "Records that could not be written", audit_failures.clone());
        Self { registry, decisions, waits, store, pending, audit_failures, known: RwLock::default() }
    }

    /// Counts a decision.
    pub(crate) fn count<P>(&self, decision: &Decision<P>, tool: &str) {
        let tool = if self.known.read().contains(tool) { tool } else { "(other)" }.to_owned();
        let code = decision.code().map_or("", |code| code.as_str());
        self.decisions.get_or_create(&OfDecision { decision: decision.as_str(), code, tool }).inc();
        if let Some(wait) = decision.retry_after() {
            self.waits.observe(wait.as_secs_f64());
        }
    }

    /// Gives a tool a label of its own.
    pub(crate) fn know(&self, tool: &str) {
        if !self.known.read().contains(tool) && self.known.read().len() < TOOLS {
            self.known.write().insert(tool.to_owned());
        }
    }

    /// Returns a store whose operations are timed.
    pub(crate) fn timed(&self, store: impl AsyncCounterStore + 'static) -> Store {
        let time = |operation| self.store.get_or_create(&OfStore { operation }).clone();
        Arc::new(Timed { reserve: time("reserve"), peek: time("peek"), settle: time("settle"), store })
    }

    /// Returns the metrics in the text format of OpenMetrics, which Prometheus reads.
    pub(crate) fn to_text(&self, pending: usize) -> String {
        self.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

struct Timed<S> {
    store: S,
    reserve: Histogram,
    peek: Histogram,
    settle: Histogram,
}

fn timed<'a, T: Send + 'a>(work: StoreFuture<'a, T>, histogram: &'a Histogram) -> StoreFuture<'a, T> {
    let began = Instant::now();
    Box::pin(async move {
        let done = work.await;
        histogram.observe(began.elapsed().as_secs_f64());
        done
    })
}

impl<S: AsyncCounterStore> AsyncCounterStore for Timed<S> {
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        timed(self.store.reserve(request), &self.reserve)
    }

    fn peek<'a>(&'a self, request: &'a ReserveRequest<'a>) -> StoreFuture<'a, Outcome> {
        timed(self.store.peek(request), &self.peek)
    }

    fn settle<'a>(&'a self, request: &'a SettleRequest<'a>) -> StoreFuture<'a, ()> {
        timed(self.store.settle(request), &self.settle)
    }

    fn reset<'a>(&'a self, counter: CounterId, subject: &'a Subject) -> StoreFuture<'a, ()> {
        self.store.reset(counter, subject)
    }

    fn abandon(&self, request: &SettleRequest<'_>) {
        self.store.abandon(request);
    }
}
