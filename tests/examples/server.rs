//! A server of `rmcp` behind the examples.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler};
use tokio::sync::Notify;

/// Each tool may be called once, and `secret` never.
pub(crate) const POLICY: &str = r#"{
    "version": "1",
    "default": "deny",
    "tools": {
        "echo": { "limits": [{ "counter": "echo", "window": "day", "max": 1, "scope": "grant" }] },
        "missing": { "limits": [{ "counter": "missing", "window": "day", "max": 1, "scope": "grant" }] },
        "broken": { "limits": [{ "counter": "broken", "window": "day", "max": 1, "scope": "grant" }] },
        "slow": { "limits": [{ "counter": "slow", "window": "in_flight", "max": 1, "scope": "grant" }] }
    }
}"#;

/// A server that counts the calls that reach it.
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Seen>);

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) calls: AtomicUsize,
    /// The tool `slow` has been called.
    pub(crate) started: Notify,
    /// The tool `slow` shall answer.
    pub(crate) go_on: Notify,
    /// The client has cancelled a call of `slow`.
    pub(crate) cancelled: Notify,
}

impl Server {
    pub(crate) fn seen(&self) -> &Seen {
        &self.0
    }

    pub(crate) fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// The server over HTTP, without sessions, with answers in JSON.
    pub(crate) fn over_http(&self) -> StreamableHttpService<Self, LocalSessionManager> {
        let server = self.clone();
        let config = StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
        StreamableHttpService::new(move || Ok(server.clone()), Arc::default(), config)
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tool = |name| Tool::new(name, "", Arc::new(serde_json::Map::new()));
        Ok(ListToolsResult::with_all_items(["echo", "slow", "secret"].map(tool).into()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        match &*request.name {
            "missing" => return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "not a tool", None)),
            "broken" => return Err(ErrorData::internal_error("broken", None)),
            "slow" => {
                self.0.started.notify_one();
                tokio::select! {
                    () = self.0.go_on.notified() => {}
                    () = context.ct.cancelled() => self.0.cancelled.notify_one(),
                }
            }
            _ => {}
        }
        let arguments = serde_json::to_string(&request.arguments).unwrap();
        Ok(CallToolResult::success(vec![ContentBlock::text(arguments)]).into())
    }
}
