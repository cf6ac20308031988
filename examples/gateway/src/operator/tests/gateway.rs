//! A gateway with callers, and its operator's address on a free port.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use toolgate::mcp::{Integers, Message};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{Access, Gate, Grants};

use super::requests::{Answer, send};
use crate::host::Host;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::operator::{OperatorState, router};
use crate::who::Who;

pub(super) const TOKEN: &str = "correct-horse-battery-staple";

const POLICY: &str = r#"{
    "version": "1",
    "default": "deny",
    "all_tools": { "limits": [
        { "counter": "calls", "window": "hour", "max": 20, "scope": "grant" },
        { "counter": "daily spend", "window": "day", "max": 500, "scope": "user" }
    ] },
    "tools": {
        "get_*": {},
        "create_charge": {
            "deny_if": [{
                "conditions": [{ "path": "args.amount", "op": "gt", "value": 500 }],
                "on_deny": "A single charge is at most 500."
            }]
        },
        "send_*": {
            "action": "require_approval",
            "reason": "A person reads every message to a customer. Call again once it is confirmed."
        },
        "wire_*": {
            "action": "require_approval",
            "reason": "Two people confirm transfers.",
            "approval": { "ttl": "30m", "min_approvers": 2, "bind": ["args.to", "args.amount<="] }
        },
        "*<*": { "action": "require_approval", "reason": "Unusual tools need a person." }
    }
}"#;

pub(super) struct Gateway {
    pub(super) host: Arc<Host>,
    pub(super) address: String,
}

impl Gateway {
    pub(super) async fn start() -> Self {
        Self::start_with(Some(vec![Sha256::digest(TOKEN).into()])).await
    }

    /// Without tokens, as on a Unix socket to which a port is forwarded.
    pub(super) async fn start_with(tokens: Option<Vec<[u8; 32]>>) -> Self {
        let journal = Journal::open(&crate::config::Audit::default(), true).unwrap();
        let store = Arc::new(InProcess(MemoryStore::new())) as crate::host::Store;
        let gate = Gate::builder().store_async(store).audit(Arc::clone(&journal)).build();
        let grants = Grants::over(&gate);
        grants.put_policy("support", POLICY).unwrap();
        for grant in ["g-42", "g-43", "\u{202e}drow-ssap"] {
            grants.give(grant, Access::to("support").on_any_server(), "ops").unwrap();
        }
        let host = Host::new(gate, Some(grants), None, journal, Metrics::new());
        host.set_policy_names(vec!["support".to_owned()]);
        let host = Arc::new(host);
        let state = OperatorState::new(Arc::clone(&host), tokens, Vec::new(), || Ok("nothing to read".to_owned()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router(state)).await });
        Self { host, address }
    }

    /// The address that signs in.
    pub(super) fn page(&self) -> String {
        format!("http://{}/#token={TOKEN}", self.address)
    }

    /// Decides a call, as an agent's call does, and returns the decision's word.
    pub(super) async fn call(&self, who: &Who, tool: &str, arguments: &Value) -> &'static str {
        let params = json!({ "name": tool, "arguments": arguments });
        let text = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
        let read = Message::read_with(&text, Integers::Of64Bits);
        let Ok(Message::Call(call)) = read else { panic!("{read:?}") };
        let decision = self.host.decide(who, &call, &tracing::Span::none()).await;
        let word = decision.as_str();
        if let toolgate::Decision::Allow(permit) = decision {
            permit.end().await.unwrap();
        }
        word
    }

    /// Shows the gateway the tools of a server.
    pub(super) fn list(&self, tools: &Value) {
        self.host.filter_tools_list(&who("g-42"), &mut json!({ "tools": tools }));
    }

    pub(super) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        send(method, &format!("http://{}{path}", self.address), headers, body).await
    }

    /// A request with the token.
    pub(super) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.request(method, path, &[("authorization", &format!("Bearer {TOKEN}"))], body).await
    }

    pub(super) async fn pending(&self) -> usize {
        self.host.pending().await.unwrap().len()
    }
}

pub(super) fn who(grant: &str) -> Who {
    let name = |text: &str| Some(text.to_owned());
    Who { grant: name(grant), user: name("lena"), session: name("s-7"), server: name("crm"), ..Who::default() }
}
