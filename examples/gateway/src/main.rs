//! A gateway in front of MCP servers that enforces toolgate policies.

mod cli;
mod config;
mod host;
mod journal;
mod metrics;
mod operator;
mod pins;
mod who;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
