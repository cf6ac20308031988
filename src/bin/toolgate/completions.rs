//! `toolgate completions`: prints a script with which a shell completes the command.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::output::Output;
use crate::{Cli, Failure, Verdict};

/// Print the completion script of a shell
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = HELP)]
pub(crate) struct Options {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

const HELP: &str = "\
Exit codes:
  0  the script was printed
  2  an argument is not valid

Example:
  toolgate completions bash > ~/.local/share/bash-completion/completions/toolgate";

pub(crate) fn run(options: &Options, out: &mut Output) -> Result<Verdict, Failure> {
    // The generator stops the program if it cannot write, so it writes into memory.
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "toolgate", &mut script);
    out.write_all(&script)?;
    Ok(Verdict::Fine)
}
