//! Writes the policy to start from, for the tools of a server.
//!
//! ```text
//! cargo run --example recommend -- TOOLS_LIST.json > policy.json
//! ```
//!
//! The file is an answer to `tools/list`, its `result`, or the array of tools alone. The policy goes to standard output. Which class
//! each tool has, and why, goes to standard error, and so does what is wrong with the list.

use std::error::Error;
use std::process::ExitCode;

use toolgate::recommend::{self, ToolClass};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [file] = files.as_slice() else {
        eprintln!("usage: recommend TOOLS_LIST.json");
        return Ok(ExitCode::from(2));
    };
    let list = std::fs::read_to_string(file)
        .map_err(Into::into)
        .and_then(|text| serde_json::from_str(&text).map_err(Box::<dyn Error>::from));
    let written = list.and_then(|list| {
        let recommendation = recommend::classify(&list)?;
        let policy = recommendation.write_policy()?;
        Ok((recommendation, policy))
    });
    let (recommendation, policy) = match written {
        Ok(written) => written,
        Err(error) => {
            eprintln!("{file}: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    for tool in recommendation.tools() {
        eprintln!("{}", line(tool));
    }
    for finding in recommendation.findings() {
        eprintln!("{file}: {finding}");
    }
    print!("{policy}");
    Ok(ExitCode::SUCCESS)
}

fn line(tool: &ToolClass) -> String {
    let why: Vec<_> = tool.evidence().iter().map(|piece| format!("{}: {}", piece.source(), piece.word())).collect();
    let (class, severity, confidence) = (tool.class(), tool.severity(), tool.confidence());
    format!("{class:<11}  {severity:<8}  {confidence:<6}  {:<30}  {}", tool.name().escape_debug(), why.join(", "))
}
