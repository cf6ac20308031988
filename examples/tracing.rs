//! Decisions as events of `tracing`, in the log of the host: who called which tool, and which rule
//! decided. Arguments appear as a digest only.
//!
//! ```text
//! cargo run --features tracing --example tracing
//! ```

use serde_json::json;
use toolgate::{Gate, Policy, ToolCall};
use tracing::{Level, info_span};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Refusals are events at `INFO`, allowed calls and their ends at `DEBUG`, failures at `WARN`.
    tracing_subscriber::fmt().with_max_level(Level::DEBUG).with_writer(std::io::stderr).init();

    let policy: Policy = r#"{
        "version": "1",
        "default": "deny",
        "tools": {
            "search": { "limits": [{ "counter": "searches", "window": "hour", "max": 1, "scope": "grant" }] }
        }
    }"#
    .parse()?;
    let gate = Gate::new(policy);
    let arguments = json!({ "query": "kept out of the log" });
    for (request, tool) in ["search", "search", "delete"].into_iter().enumerate() {
        // Events carry the spans of the host.
        let _request = info_span!("request", id = request).entered();
        if let Ok(permit) = gate.check(&ToolCall::new(tool, &arguments).grant("g-42")).into_result() {
            // Make the call here.
            permit.end();
        }
    }
    Ok(())
}
