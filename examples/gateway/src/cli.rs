//! The command line.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::config::{Config, OnChangedTool, Operator};
use crate::{http, stdio};

/// A gateway in front of MCP servers that enforces toolgate policies.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES, args_override_self = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Writes log lines as JSON. RUST_LOG chooses them: `RUST_LOG=info,mcp=info` adds a span for
    /// each request, with the names of OpenTelemetry
    #[arg(long, global = true)]
    log_json: bool,
}

const EXIT_CODES: &str = "\
Exit codes: 0 after the client of `stdio`, or a signal to `http`; 1 after the server of `stdio`;
128 and the number of the signal to `stdio`; 2 if the gateway cannot start.

Example: toolgate-gateway stdio --policy policy.json -- npx -y @modelcontextprotocol/server-everything";

#[derive(Subcommand)]
enum Command {
    /// Runs in front of one server that speaks MCP on standard input and output
    Stdio(Box<StdioOptions>),
    /// Runs in front of servers that speak streamable HTTP
    Http {
        /// The configuration, a TOML file; `toolgate-gateway schema` prints its schema
        #[arg(long)]
        config: PathBuf,
        /// The address for people who approve calls and look, in place of the configuration's
        #[arg(long, value_name = "ADDRESS")]
        operator: Option<String>,
        /// Judges nothing, to measure the cost of the gate
        #[arg(long, hide = true)]
        ungated: bool,
    },
    /// Prints the JSON Schema of the configuration
    Schema,
    /// Prints the digest of the token on standard input, for the configuration
    Digest,
}

/// The options of `stdio`.
#[derive(clap::Args)]
pub(crate) struct StdioOptions {
    /// The policy; it is read again when the file changes, and the counters continue
    #[arg(long)]
    pub(crate) policy: PathBuf,
    /// The name of the server for policies; by default, the name of the command
    #[arg(long)]
    pub(crate) server: Option<String>,
    /// The credential of the caller
    #[arg(long)]
    pub(crate) grant: Option<String>,
    /// The agent that calls
    #[arg(long)]
    pub(crate) agent: Option<String>,
    /// The person that the agent acts for
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// The session; by default, one of its own
    #[arg(long)]
    pub(crate) session: Option<String>,
    /// A value that policies can ask for with `context.NAME`: text, or JSON
    #[arg(long, value_name = "NAME=VALUE", value_parser = context)]
    pub(crate) context: Vec<(String, serde_json::Value)>,
    /// The address for people who approve calls and look: 127.0.0.1:PORT, or unix:PATH
    #[arg(long, value_name = "ADDRESS")]
    operator: Option<String>,
    /// The digest of a token that may use a TCP address; without it, a token is made and logged
    #[arg(long, value_name = "DIGEST")]
    operator_token_sha256: Vec<String>,
    /// A host name at which a proxy in front serves the page
    #[arg(long, value_name = "NAME")]
    operator_host: Vec<String>,
    /// A page on which a person decides a request, with `{id}` in its address
    #[arg(long, value_name = "URL", value_parser = page)]
    pub(crate) approval_page: Option<String>,
    /// Lets people approve requests that are too long to be shown whole
    #[arg(long)]
    pub(crate) approve_unseen: bool,
    /// The log of all decisions and of what people answer, in JSON Lines
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,
    /// Denies what cannot be recorded
    #[arg(long, requires = "audit")]
    pub(crate) require_audit: bool,
    /// The file that keeps the definitions of tools over a restart. Tools that change are denied
    #[arg(long, value_name = "FILE")]
    pub(crate) pins: Option<PathBuf>,
    /// The effect on a tool whose definition has changed
    #[arg(long)]
    pub(crate) on_changed_tool: Option<OnChangedTool>,
    /// How long a request may take; 0 is without end
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) timeout: u32,
    /// How long a request may take as long as it reports progress; 0 takes no account of progress
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) longest_timeout: u32,
    /// How long the client may keep a list of tools, if the server allows it
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) list_ttl: u32,
    /// Lets integers of 64 bits pass, for a server that reads them exactly
    #[arg(long)]
    pub(crate) integers_of_64_bits: bool,
    /// The most bytes that a message may have
    #[arg(long, value_name = "BYTES", default_value = "16777216")]
    pub(crate) max_message: std::num::NonZeroU32,
    /// Writes refusals as JSON-RPC errors and not as results with `isError`
    #[arg(long)]
    pub(crate) errors: bool,
    /// The command of the server
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

impl StdioOptions {
    /// Returns the settings of the operator's address.
    pub(crate) fn operator(&self) -> Option<Operator> {
        let (token_sha256, allow_hosts) = (self.operator_token_sha256.clone(), self.operator_host.clone());
        self.operator.clone().map(|listen| Operator { listen, token_sha256, allow_hosts })
    }
}

/// Reads the address of a page.
fn page(text: &str) -> Result<String, &'static str> {
    crate::link::check_page(text).map(|()| text.to_owned())
}

/// Reads `NAME=VALUE`.
fn context(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("not NAME=VALUE")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

pub(crate) fn run(cli: Cli) -> ExitCode {
    let _flushed_at_the_end = log(cli.log_json);
    let done = match cli.command {
        Command::Stdio(options) => in_runtime(stdio::run(*options)),
        Command::Http { config, operator, ungated } => in_runtime(http::run(&config, operator, ungated)),
        Command::Digest => digest(),
        Command::Schema => {
            println!("{:#}", schemars::schema_for!(Config).as_value());
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        error.lines().for_each(|line| tracing::error!("{line}"));
        ExitCode::from(2)
    })
}

fn in_runtime(work: impl Future<Output = Result<ExitCode, String>>) -> Result<ExitCode, String> {
    let runtime = Runtime::new().map_err(|error| error.to_string())?;
    let done = runtime.block_on(work);
    // A read of standard input cannot be stopped, and what else still runs has had its time.
    runtime.shutdown_background();
    done
}

/// Writes the log to standard error, by a thread of its own: neither a reader that has gone nor one
/// that does not read stops the gateway.
fn log(json: bool) -> tracing_appender::non_blocking::WorkerGuard {
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::fmt::format::FmtSpan;
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,mcp=off"));
    let log = tracing_subscriber::fmt().with_writer(writer).with_env_filter(filter).with_span_events(FmtSpan::CLOSE);
    let log = log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).with_target(false);
    if json {
        log.json().init()
    } else {
        log.init()
    }
    guard
}

fn digest() -> Result<ExitCode, String> {
    let mut token = Vec::new();
    // No header is nearly as long.
    std::io::stdin().take(1 << 16).read_to_end(&mut token).map_err(|error| error.to_string())?;
    let token = token.trim_ascii_end();
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err("a token is visible ASCII, on one line".into());
    }
    println!("{:x}", Sha256::digest(token));
    Ok(ExitCode::SUCCESS)
}
