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

/// Each request makes about a hundred small values, on threads that take turns with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
