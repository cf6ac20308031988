//! The parts that both transports share: the gate, the grants, and everything that watches them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use toolgate::approval::{Approval, ApprovalId, Verdict};
use toolgate::mcp::{self, Call, FinishedCall};
use toolgate::store::AsyncCounterStore;
use toolgate::{AsyncPermit, Decision, Denial, Gate, Grants, LimitState, Policy};

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
    pub gate: Gate<Store>,
    /// The policy of each grant. Without it, the policy of the gate decides all calls.
    pub grants: Option<Grants<Store>>,
    pub pins: Option<Pins>,
    pub journal: Arc<Journal>,
    pub metrics: Metrics,
    /// The tools that each server has listed last, unfiltered.
    tools: Mutex<BTreeMap<String, Vec<Value>>>,
    /// The names of the policies in force.
    names: Mutex<Vec<String>>,
}

impl Host {
    pub fn new(
        gate: Gate<Store>,
        grants: Option<Grants<Store>>,
        pins: Option<Pins>,
        journal: Arc<Journal>,
        metrics: Metrics,
    ) -> Self {
        Self { gate, grants, pins, journal, metrics, tools: Mutex::default(), names: Mutex::default() }
    }

    /// Decides a call of this caller.
    pub async fn decide(&self, who: &Who, call: &Call) -> Decision<AsyncPermit> {
        let call = who.names(call.tool_call());
        if let Some(denial) = self.pins.as_ref().and_then(|pins| pins.denial(&call)) {
            self.gate.record_denial(&call, &denial);
            return Decision::Deny(denial);
        }
        match &self.grants {
            None => self.gate.check_async(&call).await,
            Some(grants) => grants.check_async(&call).await,
        }
    }

    /// Records a message that was refused before it could be decided.
    pub fn record_denial(&self, who: &Who, denial: &Denial) {
        match &self.grants {
            None => self.gate.record_denial(&who.without_tool(), denial),
            Some(grants) => grants.record_denial(&who.without_tool(), denial),
        }
    }

    /// Releases or ends the permit of a call that has ended.
    pub async fn conclude(&self, ended: FinishedCall<AsyncPermit>) {
        if let Err(error) = ended.conclude().await {
            tracing::warn!("{error}: the call stays counted");
        }
    }

    /// Removes the tools from a list that the caller's policy does not list, and changed tools.
    pub fn filter_tools_list(&self, who: &Who, result: &mut Value) {
        let server = who.server.as_deref().unwrap_or_default();
        if let Some(Value::Array(tools)) = result.get("tools") {
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
        let policy = match &self.grants {
            None => self.gate.policy(),
            Some(grants) => grants.gate(&who.without_tool()).ok().and_then(|gate| gate.policy()),
        };
        match &self.pins {
            None => mcp::filter_tools_list(policy.as_ref(), result),
            Some(pins) => pins.filter_tools_list(server, policy.as_ref(), result),
        }
    }

    /// Sets the names of the policies in force, for [`Self::policies`].
    pub fn set_policy_names(&self, names: Vec<String>) {
        *self.names.lock() = names;
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

    /// Returns the pending approvals, the oldest first.
    pub async fn pending(&self) -> Result<Vec<Approval>, String> {
        self.gate.pending_async().await.map_err(|error| error.to_string())
    }

    /// Approves or refuses a pending call in the name of `by`.
    pub async fn answer(&self, id: &ApprovalId, verdict: Verdict, by: &str) -> Result<Approval, String> {
        let answered = match verdict {
            Verdict::Approve => self.gate.approve_async(id, by).await,
            Verdict::Refuse => self.gate.refuse_async(id, by).await,
        };
        answered.map_err(|error| error.to_string())
    }

    /// Returns the state of the limits of a caller.
    pub async fn usage(&self, who: &Who) -> Result<Vec<LimitState>, String> {
        let call = who.without_tool();
        let gate = match &self.grants {
            None => self.gate.clone(),
            Some(grants) => grants.gate(&call).map_err(|denial| denial.message().to_owned())?,
        };
        gate.usage_async(&call).await.map_err(|error| error.to_string())
    }
}
