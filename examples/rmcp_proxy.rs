//! A proxy in front of an MCP server, built with `rmcp`. It lists only the tools that the policy
//! lets an agent see, and forwards only the calls that the policy allows.
//!
//! ```text
//! cargo run --example rmcp_proxy -- POLICY.json COMMAND [ARGUMENT...]
//! ```
//!
//! It starts the server as a child process, and speaks MCP on its own standard input and output, so
//! an agent starts it in place of the server. It forwards tools; prompts, resources and progress
//! are left out.

use std::error::Error;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig,
};
use rmcp::service::{Peer, RequestContext, RoleClient, RoleServer, ServiceError};
use rmcp::transport::{TokioChildProcess, stdio};
use rmcp::{ErrorData, ServerHandler, ServiceExt};
use toolgate::mcp::{CallOutcome, Refusal, RefusalFormat};
use toolgate::{Caller, Gate};

/// The longest that a call may take.
const LONGEST_CALL: Duration = Duration::from_secs(120);

pub(crate) struct Proxy {
    pub(crate) gate: Gate,
    /// The host says who is calling; nothing of this comes from the client.
    pub(crate) caller: Caller,
    pub(crate) server: Peer<RoleClient>,
}

impl ServerHandler for Proxy {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        page: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut list = self.server.list_tools(page).await.map_err(to_client)?;
        let policy = self.gate.policy();
        list.tools.retain(|tool| policy.as_ref().is_some_and(|policy| policy.lists(&tool.name)));
        Ok(list)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let call = self.caller.call(&request.name, request.arguments.as_ref());
        let permit = match self.gate.check(&call).into_result() {
            Ok(permit) => permit,
            Err(refused) => return refusal(&Refusal::from(&refused)).map(Into::into),
        };
        // The name and the arguments are what was judged. Nothing else is forwarded.
        let mut judged = CallToolRequestParams::new(request.name);
        judged.arguments = request.arguments;
        let answer = tokio::select! {
            answer = self.server.call_tool(judged) => answer,
            // Here the request is dropped, which cancels it at the server.
            () = context.ct.cancelled() => Err(ServiceError::Cancelled { reason: None }),
            () = tokio::time::sleep(LONGEST_CALL) => Err(ServiceError::Timeout { timeout: LONGEST_CALL }),
        };
        let outcome = match &answer {
            Ok(result) => CallOutcome::of_result(result.is_error),
            Err(ServiceError::McpError(error)) => CallOutcome::of_error_code(error.code.0.into()),
            Err(_) => CallOutcome::Unclear(None),
        };
        // Releases the permit if the call certainly did not run, else ends it.
        permit.conclude(outcome).unwrap_or_else(|error| eprintln!("rmcp_proxy: a call is not released: {error}"));
        answer.map(Into::into).map_err(to_client)
    }
}

/// As text alone: a client may validate structured content against the tool's `outputSchema`.
fn refusal(refusal: &Refusal) -> Result<CallToolResult, ErrorData> {
    serde_json::from_value(refusal.to_result(RefusalFormat::Text))
        .map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

fn to_client(error: ServiceError) -> ErrorData {
    match error {
        ServiceError::McpError(error) => error,
        other => ErrorData::internal_error(format!("the server has not answered: {other}"), None),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(policy), Some(program)) = (arguments.next(), arguments.next()) else {
        return Err("usage: rmcp_proxy POLICY.json COMMAND [ARGUMENT...]".into());
    };
    let text = std::fs::read_to_string(&policy).map_err(|error| format!("{}: {error}", policy.display()))?;
    let gate = Gate::new(text.parse()?);
    let mut command = tokio::process::Command::new(program);
    command.args(arguments);
    let server = ().serve(TokioChildProcess::new(command)?).await?;

    // One client for one process, so the process is the session.
    let session = std::process::id().to_string();
    let caller = gate.caller(Caller::new().grant("local").session(&session));
    let proxy = Proxy { gate, caller, server: server.peer().clone() };
    proxy.serve(stdio()).await?.waiting().await?;
    server.cancel().await?;
    Ok(())
}
