//! `toolgate recommend`: writes a first policy for the tools of a server.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use toolgate::recommend::{self, Finding, ToolClass};

use crate::output::{Format, Output, complain, printable, style};
use crate::{Failure, Verdict, input};

/// Write a first policy for the tools of a server
///
/// Classifies each tool by its name, description, arguments and annotations, and writes a policy to
/// standard output. The class of each tool, with its evidence, goes to standard error. The policy
/// is a draft: read it before you use it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(crate) struct Options {
    /// The tools: an answer to `tools/list`, its result, or the list alone
    tools: PathBuf,
    /// The format
    ///
    /// Text is the policy alone. JSON has the policy, the classes and the problems of the list.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const HELP: &str = "\
Exit codes:
  0  the policy was written
  1  the policy was written, but the list has problems: such tools stay denied or are classed as
     stricter
  2  the file cannot be read or has no list of tools, or an argument is not valid

Example:
  toolgate recommend tools.json > policy.json";

pub(crate) fn run(options: &Options, out: &mut Output) -> Result<Verdict, Failure> {
    let list = input::json(&options.tools)?;
    let file = input::name(&options.tools);
    let written = recommend::classify(&list).and_then(|found| Ok((found.write_policy()?, found)));
    let (policy, found) = written.map_err(|error| Failure::Input(format!("{file}: {error}")))?;
    match options.format {
        Format::Text => {
            for tool in found.tools() {
                report(tool);
            }
            for finding in found.findings() {
                complain(&format!("{file}: {finding}"));
            }
            out.write_all(toolgate::visible_json(&policy).as_bytes())?;
        }
        Format::Json => {
            // As it is written: the order of its entries is part of it.
            let policy = RawValue::from_string(policy).map_err(io::Error::from)?;
            let finding = |finding: &Finding| {
                let (kind, message) = (finding.kind().as_str(), finding.to_string());
                json!({ "kind": kind, "tool": finding.index(), "message": message })
            };
            let findings: Vec<_> = found.findings().iter().map(finding).collect();
            let tools: Vec<_> = found.tools().iter().map(as_json).collect();
            out.json(&Recommended { tools, findings, policy })?;
        }
    }
    Ok(Verdict::found(!found.findings().is_empty()))
}

#[derive(Serialize)]
struct Recommended {
    tools: Vec<Value>,
    findings: Vec<Value>,
    policy: Box<RawValue>,
}

/// Writes the class of a tool to standard error.
fn report(tool: &ToolClass) {
    let evidence: Vec<_> =
        tool.evidence().iter().map(|piece| format!("{}: {}", piece.source(), piece.word())).collect();
    let class = format!("{:<11}", tool.class());
    let rest =
        format!("  {:<8}  {:<6}  {:<30}  {}", tool.severity(), tool.confidence(), tool.name(), evidence.join(", "));
    let painted = style(class.trim_end()).for_stderr().apply_to(class);
    let _ = writeln!(std::io::stderr(), "{painted}{}", printable(&rest).replace('\n', " "));
}

fn as_json(tool: &ToolClass) -> Value {
    let evidence =
        tool.evidence().iter().map(|piece| json!({ "source": piece.source().as_str(), "word": piece.word() }));
    json!({
        "name": tool.name(),
        "class": tool.class().as_str(),
        "severity": tool.severity().as_str(),
        "confidence": tool.confidence().as_str(),
        "evidence": evidence.collect::<Vec<_>>(),
    })
}
