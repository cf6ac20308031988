//! A gateway in front of MCP servers that enforces toolgate policies.

mod callers;
mod cli;
mod config;
mod files;
mod host;
mod http;
mod journal;
mod link;
mod metrics;
mod operator;
mod pins;
mod serve;
mod stdio;
mod who;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
