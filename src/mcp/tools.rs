//! The tools that a server has listed.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use serde_json::Value;

/// The number of tools that are remembered.
const MAX_TOOLS: usize = 10_000;
/// The maximum length in bytes of a tool's name to be remembered.
const MAX_NAME_BYTES: usize = 1_024;
/// The most headers that a tool can ask for, and the most steps of the path to an argument.
const MAX_HEADERS: usize = 64;
const MAX_STEPS: usize = 16;

/// The tools that a server has listed.
#[derive(Debug, Default)]
pub(super) struct Tools(HashMap<Box<str>, Tool, RandomState>);

/// A tool that a server has listed.
#[derive(Debug, Default)]
pub(super) struct Tool {
    has_output_schema: bool,
    /// The arguments that clients send as headers too.
    pub(super) headers: Vec<HeaderArgument>,
}

/// An argument that clients also send as a header `Mcp-Param-{name}`.
#[derive(Debug)]
pub(super) struct HeaderArgument {
    pub(super) name: Box<str>,
    pub(super) path: Vec<Box<str>>,
}

impl Tools {
    /// Notes the names of the tools of a list.
    pub(super) fn note_names(&mut self, tools: &[Value]) {
        for name in tools.iter().filter_map(name_of) {
            if self.has_room(name) && !self.0.contains_key(name) {
                self.0.insert(name.into(), Tool::default());
            }
        }
    }

    fn has_room(&self, name: &str) -> bool {
        name.len() <= MAX_NAME_BYTES && (self.0.len() < MAX_TOOLS || self.0.contains_key(name))
    }

    /// Notes the tools of a list that the client gets. Clients know nothing of the others.
    pub(super) fn note(&mut self, tools: &[Value]) {
        for tool in tools {
            let Some(name) = name_of(tool).filter(|name| self.has_room(name)) else { continue };
            let mut headers = Vec::new();
            if let Some(schema) = tool.get("inputSchema") {
                header_arguments(schema, &mut Vec::new(), &mut headers);
            }
            let has_output_schema = tool.get("outputSchema").is_some();
            self.0.insert(name.into(), Tool { has_output_schema, headers });
        }
    }

    pub(super) fn get(&self, tool: &str) -> Option<&Tool> {
        self.0.get(tool)
    }

    /// Returns `true` if the tool may have an `outputSchema`: it has one, or was not remembered.
    pub(super) fn may_have_output_schema(&self, tool: &str) -> bool {
        match self.0.get(tool) {
            Some(tool) => tool.has_output_schema,
            None => tool.len() > MAX_NAME_BYTES || self.0.len() >= MAX_TOOLS,
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }
}

fn name_of(tool: &Value) -> Option<&str> {
    tool.get("name").and_then(Value::as_str)
}

/// Collects the arguments with `x-mcp-header` that a chain of `properties` leads to.
fn header_arguments(schema: &Value, path: &mut Vec<Box<str>>, found: &mut Vec<HeaderArgument>) {
    let Some(Value::Object(properties)) = schema.get("properties") else { return };
    for (name, property) in properties {
        if path.len() >= MAX_STEPS || found.len() >= MAX_HEADERS {
            return;
        }
        path.push(name.as_str().into());
        match property.get("x-mcp-header").and_then(Value::as_str) {
            Some(header) if is_token(header) => {
                found.push(HeaderArgument { name: header.to_ascii_lowercase().into(), path: path.clone() });
            }
            _ => {}
        }
        header_arguments(property, path, found);
        path.pop();
    }
}

/// Returns `true` for a text that can be a part of the name of a header.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
