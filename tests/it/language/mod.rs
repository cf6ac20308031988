//! The policy language: documents, issues, the JSON Schema, and decisions by cases in files.

mod common_mistakes;
mod issues;
mod schema;
pub(crate) mod vectors;
