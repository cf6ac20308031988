//! `toolgate diff`: compares two policies.

use std::path::PathBuf;

use serde_json::json;
use toolgate::analysis::diff::{self, Kind, Tightening};

use crate::output::{Format, Output};
use crate::progress::during;
use crate::{Failure, Verdict, input};

/// Show which calls a new policy decides differently
///
/// Prints what becomes wider and what becomes narrower, tool by tool, each with a call that both
/// policies were evaluated on. Where neither a difference nor its absence can be proved, the rules
/// are undecided.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(crate) struct Options {
    /// The old policy
    old: PathBuf,
    /// The new policy
    new: PathBuf,
    /// Count only changes that let more through
    #[arg(long)]
    only_tightens: bool,
    /// The format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const HELP: &str = "\
Exit codes:
  0  it is proved that no decision changes; with --only-tightens, that no call passes that was
     stopped before
  1  some decisions change, or rules are undecided; with --only-tightens, some calls pass that were
     stopped before, or it is undecided
  2  a file cannot be read, a policy is not valid, or an argument is not valid

Example:
  toolgate diff --only-tightens old.json new.json";

pub(crate) fn run(options: &Options, out: &mut Output) -> Result<Verdict, Failure> {
    let (old, new) = (input::policy(&options.old)?, input::policy(&options.new)?);
    let (found, tightens) = during("comparing", || (diff::compare(&old, &new), diff::only_tightens(&old, &new)));
    match options.format {
        Format::Json => out.json(&json!({ "comparison": found, "only_tightens": tightens }))?,
        Format::Text => {
            let count = |kind| found.changes().iter().filter(|change| change.kind() == kind).count();
            match found.is_equal() {
                true => out.line("no decision changes")?,
                false => out.line(format_args!(
                    "{} wider, {} narrower, {} undecided",
                    count(Kind::Wider),
                    count(Kind::Narrower),
                    found.undecided().len()
                ))?,
            }
            for change in found.changes() {
                let text = change.to_string();
                let kind = change.kind().as_str();
                out.line("")?;
                out.painted_line("", kind, text.strip_prefix(kind).unwrap_or(&text))?;
            }
            for undecided in found.undecided() {
                out.line(format_args!("\n{undecided}"))?;
            }
            let tightens = match &tightens {
                Tightening::Yes => "yes",
                Tightening::No(_) => "no",
                Tightening::CannotTell(_) => "cannot tell",
            };
            out.line(format_args!("\nonly tightens: {tightens}"))?;
        }
    }
    let is_fine = if options.only_tightens { tightens == Tightening::Yes } else { found.is_equal() };
    Ok(Verdict::found(!is_fine))
}
