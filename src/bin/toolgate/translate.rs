//! `toolgate translate`: translates policies of Intercept.

use std::path::PathBuf;

use toolgate::intercept;

use crate::output::Output;
use crate::{Failure, Verdict, input, yaml};

/// Translate a policy of Intercept 1.1.0 to this language
///
/// The policy allows and denies the same calls. Where Intercept ignores what it does not
/// understand, this command fails and names it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(crate) struct Options {
    /// The policy of Intercept, YAML or JSON
    policy: PathBuf,
}

const HELP: &str = "\
Exit codes:
  0  the translation was printed
  2  the file cannot be read, it is not valid, or it has parts that cannot be translated

Example:
  toolgate translate intercept.yaml > policy.json";

pub(crate) fn run(options: &Options, out: &mut Output) -> Result<Verdict, Failure> {
    let name = input::name(&options.policy);
    let document = yaml::read(&input::document(&options.policy)?)
        .map_err(|problem| Failure::Input(format!("{name}: {problem}")))?;
    let policy = intercept::translate(&document).map_err(|error| Failure::Input(format!("{name}: {error}")))?;
    out.json(&policy)?;
    Ok(Verdict::Fine)
}
