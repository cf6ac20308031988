//! What people ask of the gateway over the admin socket.

use std::sync::Arc;

use tokio::runtime::Handle;
use toolgate::approval::{Approval, ApprovalId, Verdict};
use toolgate::{LimitState, Policy, ToolCall};

use crate::front::Gateway;
use crate::gateway::admin::Desk;
use crate::gateway::caller::Caller;
use crate::holders::GrantsFile;
use crate::start::put_in_force;

pub(crate) struct DeskOf {
    gateway: Arc<Gateway>,
    file: Arc<GrantsFile>,
    runtime: Handle,
}

impl DeskOf {
    /// For the gateway, from inside its runtime.
    pub(crate) fn new(gateway: Arc<Gateway>, file: Arc<GrantsFile>) -> Self {
        Self { gateway, file, runtime: Handle::current() }
    }
}

impl Desk for DeskOf {
    fn pending(&self) -> Result<Vec<Approval>, String> {
        self.runtime.block_on(self.gateway.gate.pending_async()).map_err(|error| error.to_string())
    }

    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str) -> Result<Approval, String> {
        let gate = &self.gateway.gate;
        let decided = match verdict {
            Verdict::Approve => self.runtime.block_on(gate.approve_async(id, by)),
            Verdict::Refuse => self.runtime.block_on(gate.refuse_async(id, by)),
        };
        decided.map_err(|error| error.to_string())
    }

    fn caller(&self) -> Caller {
        Caller { server: Some(self.gateway.options.server.clone()), ..Caller::default() }
    }

    fn usage(&self, caller: &Caller) -> Result<Vec<LimitState>, String> {
        let call = caller.names(ToolCall::new("", None::<&serde_json::Value>));
        let gate = self.gateway.grants.gate(&call).map_err(|denial| denial.message().to_owned())?;
        self.runtime.block_on(gate.usage_async(&call)).map_err(|error| error.to_string())
    }

    fn policies(&self) -> Vec<(String, Option<Policy>)> {
        let mut names = self.gateway.holders.load().policies();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|name| (name.clone(), self.gateway.grants.policy(&name))).collect()
    }

    fn reload(&self) -> Result<String, String> {
        let put = |read| put_in_force(&self.gateway, read);
        self.file.read(put).map_err(|complaint| format!("{complaint}\nthe former grants and policies stay in force"))
    }
}
