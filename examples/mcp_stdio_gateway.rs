//! Stands in front of an MCP server on standard input and output, and lets through what a policy allows.
//!
//! ```text
//! cargo run --release --example mcp_stdio_gateway -- --policy POLICY.json [OPTIONS] -- COMMAND ARGS...
//! cargo run --release --example mcp_stdio_gateway -- admin SOCKET pending|approve ID --by NAME|refuse ID --by NAME|usage|policy|reload
//! ```
//!
//! | option | |
//! |---|---|
//! | `--policy POLICY.json` | the policy; when the file changes it is read again, and the counters go on |
//! | `--server NAME` | what the server is called; the command's name else |
//! | `--grant G` `--agent A` `--user U` `--session S` | who calls; a session of its own else, and nobody |
//! | `--admin SOCKET` | a Unix socket on which people approve calls, and look |
//! | `--audit LOG.jsonl` | record every decision, what becomes of it, and what people answer |
//! | `--require-audit` | deny what cannot be recorded |
//! | `--pins FILE` | keep the definitions of tools over a restart, and deny tools that have changed |
//! | `--on-changed-tool deny`, `report` | deny tools whose definition has changed since it was first seen, or only say so |
//! | `--timeout SECONDS` | how long a request may be under way, 300 else; 0 is without end |
//! | `--max-message BYTES` | how long a message may be, 16 MiB else |
//! | `--errors` | refusals are errors of JSON-RPC, not results with `isError` |
//!
//! The client speaks to this program as it would to the server. Whatever is said to people goes to standard error. When the client
//! closes its end the server's is closed too; it has ten seconds for the calls that are under way, if anybody still reads their
//! answers, and two to end, before it is made to. When the server ends, requests under way are answered with an error and the gateway
//! ends. It exits with 0 after its client, with 1 after its server, with 128 and the
//! signal's number after a signal, and with 2 if it could not begin.

#[cfg(unix)]
mod gateway;
#[cfg(unix)]
mod stdio_gateway;

#[cfg(unix)]
const USAGE: &str = "\
usage: mcp_stdio_gateway --policy POLICY.json [--server NAME] [--grant G] [--agent A] [--user U] [--session S]
           [--admin SOCKET] [--audit LOG.jsonl] [--require-audit] [--pins FILE] [--on-changed-tool deny|report]
           [--timeout SECONDS] [--max-message BYTES] [--errors] -- COMMAND ARGS...
       mcp_stdio_gateway admin SOCKET pending|approve ID --by NAME|refuse ID --by NAME|usage|policy|reload";

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    use gateway::{admin_client, log, options::Options};
    use std::process::ExitCode;

    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == "admin") {
        let words: Vec<_> = words.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        return admin_client::run(&words);
    }
    if words.iter().take_while(|word| *word != "--").any(|word| word == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let ran =
        Options::read(words, |_, _| Ok(false)).and_then(|(options, command)| stdio_gateway::run(options, &command));
    let code = ran.unwrap_or_else(|error| {
        log::say_plainly(error);
        ExitCode::from(2)
    });
    log::flush();
    code
}

#[cfg(not(unix))]
fn main() {
    eprintln!("this example needs Unix sockets and signals");
}
