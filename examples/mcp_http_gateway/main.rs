//! A gateway in front of an MCP server that speaks streamable HTTP: one grant for each bearer token, one policy for each grant.
//!
//! ```text
//! cargo run --release --features redis --example mcp_http_gateway -- \
//!     --listen 127.0.0.1:8080 --upstream http://127.0.0.1:9000/mcp --grants examples/data/http-grants.json
//! ```
//!
//! `GRANTS.json` names the policies and the digests of the tokens; `mcp_http_gateway digest < TOKEN` prints a digest. Both it and the
//! policies' files are read again when they change; if anything in them is wrong, what was in force stays so.
//!
//! The gateway serves plain HTTP: put it behind a proxy with TLS where tokens leave the machine.

mod body;
mod conversations;
mod desk;
mod events;
mod exchange;
mod finish;
mod front;
mod headers;
mod holders;
mod options;
mod start;
mod stream;
mod ungated;
mod upstream;

/// What all gateways share.
#[path = "../gateway"]
mod gateway {
    pub(crate) mod admin;
    pub(crate) mod admin_client;
    pub(crate) mod audit;
    pub(crate) mod caller;
    pub(crate) mod file;
    pub(crate) mod log;
    pub(crate) mod text;
}

use std::io::Read;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    match words.first().and_then(|word| word.to_str()) {
        Some("digest") if words.len() == 1 => digest(),
        Some("--help") => {
            println!("{}", options::USAGE);
            ExitCode::SUCCESS
        }
        Some("admin") => {
            let words: Option<Vec<String>> =
                words.iter().skip(1).map(|word| word.to_str().map(str::to_owned)).collect();
            gateway::admin_client::run(&words.unwrap_or_default())
        }
        _ => match options::Options::read(words) {
            Ok(options) => start::run(options),
            Err(error) => {
                eprintln!("{error}\n{}", options::USAGE);
                ExitCode::from(2)
            }
        },
    }
}

/// Prints the digest of the token on standard input, without the line's end.
fn digest() -> ExitCode {
    let mut token = Vec::new();
    // No header is nearly as long.
    let read = std::io::stdin().take(1 << 16).read_to_end(&mut token);
    let token = token.strip_suffix(b"\n").unwrap_or(&token);
    let token = token.strip_suffix(b"\r").unwrap_or(token);
    let fits = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    if read.is_err() || !fits {
        eprintln!("a token is visible ASCII, on one line");
        return ExitCode::FAILURE;
    }
    println!("{}", holders::digest_of(token));
    ExitCode::SUCCESS
}
