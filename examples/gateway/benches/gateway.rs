//! The cost of the gate in the gateway: with and without a gate, over HTTP, in front of a server
//! that answers at once.
//!
//! ```sh
//! cargo bench
//! ```
//!
//! The same call is repeated over persistent connections. The gateways take turns in short rounds,
//! so that other load on the machine affects all of them equally. A ratio is the median of the
//! ratios of the rounds, and one above the target is printed as MISSED. `-- --test` runs two rounds
//! and checks no target; a number sets the number of rounds.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot start should stop"
)]

#[expect(dead_code, reason = "other benchmarks use the rest")]
#[path = "../../../benches/workload.rs"]
mod workload;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const TARGET: f64 = 1.10;
const ROUNDS: usize = 200;
/// The number of calls in a round, over all connections.
const CALLS_PER_ROUND: usize = 400;
const TOKEN: &str = "token-of-the-bench";

/// A child process, killed on drop.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Returns the processor time that the process has used, in seconds, if the system reports it.
    /// On a busy machine it is more reliable than latencies.
    fn cpu(&self) -> Option<f64> {
        const TICKS: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The name of the program is the second field, and may contain blanks.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(ticks / TICKS)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let measures =
        arguments.iter().all(|argument| argument != "--test") && arguments.iter().any(|argument| argument == "--bench");
    let requested = arguments.iter().find_map(|argument| argument.parse().ok());
    let rounds = requested.unwrap_or(if measures { ROUNDS } else { 2 });
    let folder = std::env::temp_dir().join(format!("toolgate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    write_files(&folder);
    let programs = build();
    let mut missed = 0;
    for (mode, options) in [("JSON", &["--json"][..]), ("stream", &[])] {
        let server = start(
            Command::new(programs.join("examples/mcp_http_upstream")).args(["--listen", "127.0.0.1:0"]).args(options),
        );
        let gateway = |settings: &str, more: &[&str]| {
            let config = folder.join("gateway.toml");
            std::fs::write(&config, configuration(server.address, settings)).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_toolgate-gateway"));
            start(command.args(["http", "--config"]).arg(config).args(more))
        };
        let gateways = [
            ("without a gate", gateway("", &["--ungated"])),
            ("gated", gateway("", &[])),
            ("gated, audit on", gateway(&format!("audit.file = \"{mode}.jsonl\""), &[])),
        ];
        for connections in arguments
            .iter()
            .find_map(|argument| argument.strip_prefix("--connections=")?.parse().ok())
            .map_or(vec![1, 8], |one| vec![one])
        {
            println!("\n{mode}, {connections} connections, {rounds} rounds of {CALLS_PER_ROUND} calls each, in turn");
            missed += compare(&gateways, connections, rounds, measures);
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
    if missed > 0 {
        println!("\n{missed} ratios are above {TARGET}");
    }
}

/// Writes the policy: W1 and the called tool, whose limit is never reached.
fn write_files(folder: &Path) {
    let mut policy: Value = serde_json::from_str(&workload::w1(workload::ENTRIES)).unwrap();
    let limit = json!({ "counter": "calls", "window": "minute", "max": 1_000_000_000, "scope": "grant" });
    policy["tools"]["echo"] = json!({ "limits": [limit] });
    std::fs::write(folder.join("policy.json"), policy.to_string()).unwrap();
}

fn configuration(server: SocketAddr, settings: &str) -> String {
    let digest: String = Sha256::digest(TOKEN).iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "listen = \"127.0.0.1:0\"\n{settings}\nservers.upstream.url = \"http://{server}/mcp\"\n\
         policies.w1 = \"policy.json\"\n[grants.g-42]\npolicy = \"w1\"\ntoken_sha256 = [\"{digest}\"]\n"
    )
}

/// Builds the server, optimised if the benchmark is, and returns the directory of the profile.
fn build() -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    // The benchmark is in `deps`, in the directory of its profile. The examples are beside `deps`.
    let own = std::env::current_exe().unwrap();
    let folder = own.ancestors().nth(2).unwrap();
    let profile = if folder.ends_with("debug") { "dev" } else { "release" };
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked", "--profile", profile, "--manifest-path"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    command.args(["--example", "mcp_http_upstream"]);
    assert!(command.status().unwrap().success(), "the server cannot be built");
    folder.to_owned()
}

/// Starts a program, and waits until it reports its address.
fn start(command: &mut Command) -> Process {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "a program exited before it listened");
        if let Some((_, url)) = line.split_once("listening on http://") {
            break url.split('/').next().unwrap().parse().unwrap();
        }
    };
    // Drain the pipe, so that the program never blocks on it.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    Process { child, address }
}

/// A connection with a session, and the call that it repeats.
struct Caller {
    connection: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Caller {
    fn new(address: SocketAddr, number: usize) -> Self {
        let connection = TcpStream::connect(address).unwrap();
        connection.set_nodelay(true).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let client = json!({ "name": "b", "version": "1" });
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
        let mut caller = Self { connection, request: request("", 0, "initialize", &params), answer: Vec::new() };
        caller.call();
        let head = String::from_utf8(caller.answer.clone()).unwrap().to_lowercase();
        let session = head.lines().find_map(|line| line.strip_prefix("mcp-session-id: ")).unwrap().to_owned();
        let text = "A sentence about as long as what agents usually look for in a search of their own.";
        let params = json!({ "name": "echo", "arguments": { "text": text, "limit": 20, "tags": ["a", "b"] } });
        caller.request = request(&format!("Mcp-Session-Id: {session}\r\n"), number + 1, "tools/call", &params);
        caller.call();
        assert!(String::from_utf8_lossy(&caller.answer).contains("A sentence"), "the call passes");
        caller
    }

    /// Makes the call, and returns how long it took.
    fn call(&mut self) -> Duration {
        let began = Instant::now();
        self.connection.write_all(&self.request).unwrap();
        self.answer.clear();
        let mut part = [0; 4096];
        while !is_complete(&self.answer) {
            let read = self.connection.read(&mut part).unwrap();
            assert!(read > 0, "the gateway closed the connection");
            self.answer.extend_from_slice(&part[..read]);
        }
        began.elapsed()
    }
}

fn request(more: &str, id: usize, method: &str, params: &Value) -> Vec<u8> {
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-06-18\r\n";
    let length = body.len();
    format!("{head}Authorization: Bearer {TOKEN}\r\n{more}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// Returns `true` if an answer is complete, by its length or by its last chunk.
fn is_complete(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    match head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        Some(length) => answer.len() >= end + 4 + length.parse::<usize>().unwrap(),
        None => answer.ends_with(b"\r\n0\r\n\r\n"),
    }
}

/// Runs one round, and returns its latencies, sorted.
fn round(callers: &mut [Caller]) -> Vec<Duration> {
    let calls = CALLS_PER_ROUND / callers.len();
    let mut all: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = callers
            .iter_mut()
            .map(|caller| scope.spawn(move || (0..calls).map(|_| caller.call()).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort_unstable();
    all
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1e6
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints p50 and p99 of each gateway in microseconds, and the ratios to the first. Returns the
/// number of ratios above the target.
fn compare(gateways: &[(&str, Process)], connections: usize, rounds: usize, checks_target: bool) -> usize {
    let mut callers: Vec<Vec<Caller>> = gateways
        .iter()
        .map(|(_, gateway)| (0..connections).map(|number| Caller::new(gateway.address, number)).collect())
        .collect();
    callers.iter_mut().for_each(|callers| drop(round(callers)));
    let mut percentiles: Vec<Vec<[f64; 2]>> = vec![Vec::new(); gateways.len()];
    let before: Vec<_> = gateways.iter().map(|(_, gateway)| gateway.cpu()).collect();
    for turn in 0..rounds {
        // Each round begins with another gateway.
        for index in (0..gateways.len()).map(|index| (index + turn) % gateways.len()) {
            let sorted = round(&mut callers[index]);
            percentiles[index].push([percentile(&sorted, 50), percentile(&sorted, 99)]);
        }
    }
    let mut missed = 0;
    for (index, (name, _)) in gateways.iter().enumerate() {
        let own = |which: usize| median(percentiles[index].iter().map(|round| round[which]).collect());
        let ratio = |which: usize| {
            median(percentiles[index].iter().zip(&percentiles[0]).map(|(own, base)| own[which] / base[which]).collect())
        };
        print!("  {name:<16} p50 {:>7.1} us   p99 {:>7.1} us", own(0), own(1));
        if let (Some(before), Some(after)) = (before[index], gateways[index].1.cpu()) {
            print!("   CPU {:>5.1} us per call", (after - before) / (rounds * CALLS_PER_ROUND) as f64 * 1e6);
        }
        if index > 0 {
            let ratios = [ratio(0), ratio(1)];
            let above = ratios.iter().filter(|ratio| **ratio > TARGET).count();
            // The target is for the gate without audit.
            let is_missed = checks_target && index == 1 && above > 0;
            missed += if is_missed { above } else { 0 };
            print!("   ratios {:.3} and {:.3}{}", ratios[0], ratios[1], if is_missed { "   MISSED" } else { "" });
        }
        println!();
    }
    missed
}
