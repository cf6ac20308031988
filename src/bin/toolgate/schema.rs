//! `toolgate schema`: prints the JSON Schema of policies.

use toolgate::Policy;

use crate::output::Output;
use crate::{Failure, Verdict};

/// Print the JSON Schema of policies, for editors and validators
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(crate) struct Options {}

const HELP: &str = "\
Exit codes:
  0  the schema was printed
  2  an argument is not valid

Example:
  toolgate schema > policy.schema.json";

pub(crate) fn run(out: &mut Output) -> Result<Verdict, Failure> {
    out.json(&Policy::json_schema())?;
    Ok(Verdict::Fine)
}
