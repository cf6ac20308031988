//! The parts that both transports share: the gate, the grants, and everything that watches them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use toolgate::approval::redis::RedisApprovals;
use toolgate::approval::{Approval, ApprovalId, Verdict};
use toolgate::mcp::{self, Call, CallOutcome, FinishedCall, OnChange, RequestId};
use toolgate::store::redis::RedisStore;
use toolgate::store::{AsyncCounterStore, InProcess, MemoryStore};
use toolgate::{AsyncGate, AsyncGrants, AsyncPermit, Decision, Denial, Gate, Grants, LimitState, Policy};
use tracing::Span;

use crate::config::{self, OnChangedTool};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::pins::Pins;
use crate::who::Who;

/// The counters: in memory or in Redis.
pub type Store = Arc<dyn AsyncCounterStore>;

/// The number of tools that are remembered from the lists of one server.
const MAX_TOOLS: usize = 10_000;

/// A gate with what surrounds it.
pub struct Host {
    pub gate: AsyncGate<Store>,
    /// The policy of each grant. Without it, the policy of the gate decides all calls.
    pub grants: Option<AsyncGrants<Store>>,
    pub pins: Option<Pins>,
    pub journal: Arc<Journal>,
    pub metrics: Metrics,
    /// The tools that each server has listed last, unfiltered.
    tools: Mutex<BTreeMap<String, Vec<Value>>>,
    /// The names of the policies in force.
    names: Mutex<Vec<String>>,
    /// Changes when a policy is put in force or a grant gets another one.
    pub(crate) changed: watch::Sender<()>,
}

impl Host {
    /// Makes a host without policies, with grants or for one caller. Call it in a runtime.
    pub(crate) fn build(
        with_grants: bool,
        store: &config::Store,
        audit: &config::Audit,
        pins: &config::Pins,
        approvals: &config::Approvals,
        has_operator: bool,
    ) -> Result<Arc<Self>, String> {
        let metrics = Metrics::new();
        let url = match &store.redis_url_file {
            None => store.redis.clone(),
            Some(file) => Some(fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?),
        };
        let mut builder = Gate::builder().store_async(match &url {
            None => metrics.timed(InProcess(MemoryStore::new())),
            Some(url) => metrics.timed(RedisStore::builder(url.trim()).build().map_err(|error| error.to_string())?),
        });
        if let Some(url) = &url {
            let approvals = RedisApprovals::builder(url.trim()).build().map_err(|error| error.to_string())?;
            builder = builder.approvals(approvals);
        }
        let journal = Journal::open(audit, has_operator)?;
        if journal.is_needed() {
            let failures = metrics.audit_failures.clone();
            builder = builder.audit(Arc::clone(&journal)).on_audit_error(move |record, error| {
                failures.inc();
                let tool = record.tool().map_or(String::new(), |tool| format!(" of `{}`", tool.escape_debug()));
                let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
                tracing::error!("{error}{cause}: the {}{tool} is not in it", record.event().as_str());
            });
        }
        let builder = if approvals.unseen { builder.approve_unseen() } else { builder };
        let gate = if audit.required { builder.require_audit() } else { builder }.build();
        let on_change = pins.on_changed_tool.or(pins.file.is_some().then_some(OnChangedTool::Deny));
        let pins = on_change.map(|on_change| {
            let on_change = if on_change == OnChangedTool::Deny { OnChange::Drop } else { OnChange::Keep };
            Pins::open(on_change, pins.file.clone())
        });
        let grants = with_grants.then(|| Grants::over(&gate));
        Ok(Arc::new(Self::new(gate, grants, pins.transpose()?, journal, metrics)))
    }

    pub(crate) fn new(
        gate: AsyncGate<Store>,
        grants: Option<AsyncGrants<Store>>,
        pins: Option<Pins>,
        journal: Arc<Journal>,
        metrics: Metrics,
    ) -> Self {
        let changed = watch::Sender::new(());
        Self { gate, grants, pins, journal, metrics, tools: Mutex::default(), names: Mutex::default(), changed }
    }

    /// Returns a span for a request, with the names of OpenTelemetry's conventions for MCP. It ends
    /// with the request.
    pub(crate) fn span(&self, method: &str, tool: Option<&str>, who: &Who, id: Option<&RequestId>) -> Span {
        tracing::info_span!(
            target: "mcp",
            "mcp",
            otel.name = tool.map_or_else(|| method.to_owned(), |tool| format!("{method} {tool}")),
            otel.kind = "server",
            mcp.method.name = method,
            gen_ai.tool.name = tool,
            gen_ai.operation.name = tool.map(|_| "execute_tool"),
            jsonrpc.request.id = id.map(tracing::field::display),
            mcp.session.id = who.session,
            server.address = who.server,
            network.transport = if self.grants.is_some() { "tcp" } else { "pipe" },
            toolgate.decision = tracing::field::Empty,
            error.type = tracing::field::Empty,
        )
    }

    /// Decides a call of this caller.
    pub async fn decide(&self, who: &Who, call: &Call, span: &Span) -> Decision<AsyncPermit> {
        let call = who.names(call.tool_call());
        let decision = match (self.pins.as_ref().and_then(|pins| pins.denial(&call)), &self.grants) {
            (Some(denial), _) => {
                self.gate.record_denial(call, &denial);
                Decision::Deny(denial)
            }
            (None, None) => self.gate.check(&call).await,
            (None, Some(grants)) => grants.check(&call).await,
        };
        self.metrics.count(&decision, call.tool());
        span.record("toolgate.decision", decision.as_str());
        decision.code().map(|code| span.record("error.type", code.as_str()));
        decision
    }

    /// Records a message that was refused before it could be decided.
    pub fn record_denial(&self, who: &Who, denial: &Denial) {
        match &self.grants {
            None => self.gate.record_denial(who.without_tool(), denial),
            Some(grants) => grants.record_denial(who.without_tool(), denial),
        }
    }

    /// Releases or ends the permit of a call that has ended.
    pub async fn conclude(&self, ended: FinishedCall<AsyncPermit>, span: &Span) {
        if ended.ending == CallOutcome::ToolFailed {
            span.record("error.type", "tool_error");
        }
        if let Err(error) = ended.conclude().await {
            tracing::warn!("{error}: the call stays counted");
        }
    }

    /// Removes the tools from a list that the caller's policy does not list, and changed tools.
    pub fn filter_tools_list(&self, who: &Who, result: &mut Value) {
        let server = who.server.as_deref().unwrap_or_default();
        if let Some(Value::Array(tools)) = result.get("tools") {
            tools.iter().filter_map(|tool| tool.get("name")?.as_str()).for_each(|tool| self.metrics.know(tool));
            let mut seen = self.tools.lock();
            let seen = seen.entry(server.to_owned()).or_default();
            for tool in tools {
                match seen.iter().position(|seen| seen.get("name") == tool.get("name")) {
                    Some(at) => drop(seen.get_mut(at).map(|seen| seen.clone_from(tool))),
                    None if seen.len() < MAX_TOOLS => seen.push(tool.clone()),
                    None => {}
                }
            }
        }
        let policy = self.policy_of(who);
        match &self.pins {
            None => mcp::filter_tools_list(policy.as_ref(), result),
            Some(pins) => pins.filter_tools_list(server, policy.as_ref(), result),
        }
    }

    /// Returns the policy of a caller.
    pub fn policy_of(&self, who: &Who) -> Option<Policy> {
        match &self.grants {
            None => self.gate.policy(),
            Some(grants) => grants.gate(who.without_tool()).ok().and_then(|gate| gate.policy()),
        }
    }

    /// Notes that policies were put in force, with their names for [`Self::policies`].
    pub fn set_policy_names(&self, names: Vec<String>) {
        *self.names.lock() = names;
        self.changed.send_replace(());
    }

    /// Returns the policies in force with their names.
    pub fn policies(&self) -> Vec<(String, Policy)> {
        let names = self.names.lock().clone();
        let policy = |name: &str| match &self.grants {
            None => self.gate.policy(),
            Some(grants) => grants.policy(name),
        };
        names.into_iter().filter_map(|name| policy(&name).map(|policy| (name, policy))).collect()
    }

    /// Returns the tools that the servers have listed, by the name of the server.
    pub fn tools(&self) -> BTreeMap<String, Vec<Value>> {
        self.tools.lock().clone()
    }

    /// Returns the metrics in the text format of OpenMetrics, which Prometheus reads.
    pub async fn metrics(&self) -> String {
        let pending = self.pending().await.map_or(0, |pending| pending.len());
        self.metrics.to_text(pending)
    }

    /// Returns the pending approvals, the oldest first.
    pub async fn pending(&self) -> Result<Vec<Approval>, String> {
        self.gate.pending().await.map_err(|error| error.to_string())
    }

    /// Approves or refuses a pending call, or lifts a refusal, in the name of `by`.
    pub async fn answer(&self, id: &ApprovalId, verdict: Verdict, by: &str) -> Result<Approval, String> {
        let answered = match verdict {
            Verdict::Approve => self.gate.approve(id, by).await,
            Verdict::Refuse => self.gate.refuse(id, by).await,
            Verdict::Lift => self.gate.lift_refusal(id, by).await,
        };
        answered.map_err(|error| error.to_string())
    }

    /// Returns the state of the limits of a caller.
    pub async fn usage(&self, who: &Who) -> Result<Vec<LimitState>, String> {
        let call = who.without_tool();
        let gate = match &self.grants {
            None => self.gate.clone(),
            Some(grants) => grants.gate(call).map_err(|denial| denial.message().to_owned())?,
        };
        gate.usage(call).await.map_err(|error| error.to_string())
    }
}
