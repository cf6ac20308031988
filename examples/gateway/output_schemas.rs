//! Tools whose results follow a schema, and refusals that their clients can read.

use std::collections::HashSet;

use parking_lot::Mutex;
use serde_json::Value;
use toolgate::mcp::{Call, Form, Refusal};
use toolgate::{Decision, Leave};

/// How many tools are remembered. Past that, all of them count as having a schema.
const TOOLS: usize = 10_000;

/// The tools that a client was shown with an `outputSchema`.
///
/// The official TypeScript client holds the `structuredContent` even of an error against that schema, and throws what does not follow
/// it away: such a refusal must be a text alone, or the agent never learns why it was refused.
#[derive(Default)]
pub(crate) struct OutputSchemas(Mutex<HashSet<String>>);

impl OutputSchemas {
    /// Takes note of a `tools/list` result, as the client gets it.
    pub(crate) fn note(&self, result: &Value) {
        let tools = result.get("tools").and_then(Value::as_array);
        let with_schema = tools.into_iter().flatten().filter(|tool| tool.get("outputSchema").is_some());
        let mut known = self.0.lock();
        for name in with_schema.filter_map(|tool| tool.get("name")?.as_str()) {
            if known.len() < TOOLS && !known.contains(name) {
                known.insert(name.to_owned());
            }
        }
    }

    /// The refusal of a call as a text alone, if its tool has a schema.
    pub(crate) fn plain_answer<P: Leave>(&self, call: &Call, decision: &Decision<P>) -> Option<String> {
        let refusal = Refusal::of(decision)?;
        let known = self.0.lock();
        let has_schema = known.contains(call.tool()) || known.len() >= TOOLS;
        drop(known);
        if has_schema { call.answer(&refusal, Form::Text) } else { None }
    }
}
