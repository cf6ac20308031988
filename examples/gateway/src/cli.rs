//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

/// A gateway in front of MCP servers that enforces toolgate policies.
#[derive(clap::Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Runs in front of clients and servers that speak streamable HTTP
    Http {
        /// The configuration, a TOML file; `toolgate-gateway schema` prints its schema
        #[arg(long)]
        config: PathBuf,
    },
    /// Prints the JSON Schema of the configuration
    Schema,
}

pub(crate) fn run(_cli: Cli) -> ExitCode {
    ExitCode::SUCCESS
}
