//! What the admin socket asks of a gate in the process.

use std::sync::Arc;

use toolgate::approval::{Approval, ApprovalId, Verdict};
use toolgate::{Gate, LimitState, Policy, ToolCall};

use crate::gateway::admin::Desk;
use crate::gateway::caller::Caller;
use crate::gateway::policy_file::PolicyFile;

/// One gate, one caller, one policy.
pub(crate) struct GateDesk {
    pub(crate) gate: Gate,
    pub(crate) caller: Caller,
    pub(crate) file: Arc<PolicyFile>,
}

impl Desk for GateDesk {
    fn pending(&self) -> Result<Vec<Approval>, String> {
        self.gate.pending().map_err(|error| error.to_string())
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str) -> Result<Approval, String> {
        let decided = match verdict {
            Verdict::Approve => self.gate.approve(id, by),
            Verdict::Refuse => self.gate.refuse(id, by),
        };
        decided.map_err(|error| error.to_string())
    }

    fn caller(&self) -> Caller {
        self.caller.clone()
    }

    fn usage(&self, caller: &Caller) -> Result<Vec<LimitState>, String> {
        self.gate.usage(&caller.names(ToolCall::new("", None::<&serde_json::Value>))).map_err(|error| error.to_string())
    }

    fn policies(&self) -> Vec<(String, Option<Policy>)> {
        vec![(self.caller.server.clone().unwrap_or_default(), self.gate.policy())]
    }

    fn reload(&self) -> Result<String, String> {
        self.file.reload()
    }
}
