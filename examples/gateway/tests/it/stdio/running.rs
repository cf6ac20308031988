//! A gateway in front of the example server, and its client.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::operator;

/// A bound above the time of any step.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The gateway.
pub(crate) const GATEWAY: &str = env!("CARGO_BIN_EXE_toolgate-gateway");

/// Returns the path of an example program, which `cargo test` builds too.
pub(crate) fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is missing: run `cargo test`, or `cargo build --examples` first", program.display());
    program
}

/// A temporary folder for one test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("toolgate-gateway-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that speaks MCP on standard input and output: a gateway or a server.
pub(super) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    messages: Receiver<Value>,
    /// Messages that have arrived and were not asked for yet.
    unread: Vec<Value>,
    errors: Arc<Mutex<String>>,
    next_id: u64,
}

impl Running {
    pub(super) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        let (stderr, noted) = (child.stderr.take().unwrap(), Arc::clone(&errors));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                noted.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let messages = read(child.stdout.take().unwrap());
        let stdin = child.stdin.take();
        Self { child, stdin, messages, unread: Vec::new(), errors, next_id: 1 }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub(super) fn send(&mut self, message: &Value) {
        self.send_bytes(format!("{message}\n").as_bytes());
    }

    pub(super) fn notify(&mut self, method: &str, params: &Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// Sends a request and returns its id.
    pub(super) fn ask(&mut self, method: &str, params: &Value) -> Value {
        let id = json!(self.next_id);
        self.next_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        id
    }

    pub(super) fn ask_call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.ask("tools/call", &json!({ "name": tool, "arguments": arguments }))
    }

    /// Returns the next message for which `wanted` is true.
    pub(super) fn expect(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.within(TIMEOUT, wanted).unwrap_or_else(|| panic!("no message came; errors: {}", self.errors()))
    }

    pub(super) fn within(&mut self, time: Duration, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let until = Instant::now() + time;
        loop {
            if let Some(at) = self.unread.iter().position(&wanted) {
                return Some(self.unread.remove(at));
            }
            let left = until.saturating_duration_since(Instant::now());
            self.unread.push(self.messages.recv_timeout(left).ok()?);
        }
    }

    /// Waits for the answer to a request.
    pub(super) fn answer(&mut self, id: &Value) -> Value {
        self.expect(|message| message.get("method").is_none() && message["id"] == *id)
    }

    pub(super) fn request(&mut self, method: &str, params: &Value) -> Value {
        let id = self.ask(method, params);
        self.answer(&id)
    }

    /// Calls a tool and returns the [`outcome`].
    pub(super) fn call(&mut self, tool: &str, arguments: &Value) -> String {
        let id = self.ask_call(tool, arguments);
        outcome(&self.answer(&id))
    }

    pub(super) fn initialize(&mut self) -> Value {
        let params = json!({
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
        });
        let answer = self.request("initialize", &params);
        self.notify("notifications/initialized", &json!({}));
        answer
    }

    pub(super) fn tools(&mut self) -> Vec<String> {
        let list = self.request("tools/list", &json!({}));
        let tools = list["result"]["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    pub(super) fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Waits until standard error contains a text.
    pub(super) fn wait_for_error_text(&self, text: &str) {
        let until = Instant::now() + TIMEOUT;
        while !self.errors().contains(text) {
            assert!(Instant::now() < until, "`{text}` was not written: {}", self.errors());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Closes standard input.
    pub(super) fn close(&mut self) {
        self.stdin = None;
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Waits for the end of the program.
    pub(super) fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the program does not end: {}", self.errors());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the peak memory in bytes.
    pub(super) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Returns the child processes.
    pub(super) fn children(&self) -> Vec<u32> {
        children_of(self.pid())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(from: ChildStdout) -> Receiver<Value> {
    let (sender, messages) = mpsc::channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let message = serde_json::from_slice(&line).unwrap_or_else(|_| json!({ "unreadable": line.len() }));
            if sender.send(message).is_err() {
                // The program must not block when nobody reads its output.
                let _ = from.read_to_end(&mut Vec::new());
            }
            line.clear();
        }
    });
    messages
}

/// Returns the child processes of a process.
pub(super) fn children_of(parent_pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent(*pid) == Some(parent_pid)).collect()
}

/// Waits until a condition holds.
pub(super) fn eventually(holds: impl Fn() -> bool) {
    let until = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < until, "the condition does not become true");
        thread::sleep(Duration::from_millis(10));
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, can contain any character.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Returns whether a process exists, alive or as a zombie.
pub(super) fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Returns the outcome of a call: `ok: TEXT`, `failed: TEXT`, `CODE: TEXT` for a refusal, or `error
/// CODE`.
pub(super) fn outcome(answer: &Value) -> String {
    if let Some(error) = answer.get("error") {
        return format!("error {}", error["code"]);
    }
    let result = &answer["result"];
    let text = result["content"][0]["text"].as_str().unwrap();
    match (result["isError"].as_bool(), result["structuredContent"]["code"].as_str()) {
        (Some(true), Some(code)) => format!("{code}: {text}"),
        (Some(true), None) => format!("failed: {text}"),
        _ => format!("ok: {text}"),
    }
}

/// A gateway in front of the example server, with its own files.
pub(super) struct Gateway {
    pub(super) client: Running,
    pub(super) folder: Folder,
}

impl Gateway {
    pub(super) fn start(policy: &str) -> Self {
        Self::with(policy, &[], &[])
    }

    /// Starts a gateway with these options, and the server with its own.
    pub(super) fn with(policy: &str, options: &[&str], server: &[&str]) -> Self {
        let folder = Folder::new();
        fs::write(folder.join("policy.json"), policy).unwrap();
        Self { client: Running::start(&mut command(&folder, options, server)), folder }
    }

    pub(super) fn put_policy(&self, policy: &str) {
        fs::write(self.folder.join("policy.json"), policy).unwrap();
    }

    /// Returns the path of the operator's socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("operator.sock")
    }

    /// Returns the pending approvals.
    pub(super) fn pending(&self) -> Vec<Value> {
        operator::get(&self.socket(), "/api/approvals").unwrap().as_array().unwrap().clone()
    }

    /// Reads the policy again.
    pub(super) fn reload(&self) -> Result<String, String> {
        let reloaded = operator::post(&self.socket(), "/api/reload", &json!({}))?;
        Ok(reloaded["message"].as_str().unwrap().to_owned())
    }

    /// Returns the calls that have reached the server.
    pub(super) fn reached(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

/// Returns the command `toolgate-gateway stdio`.
pub(super) fn gateway() -> Command {
    let mut command = Command::new(GATEWAY);
    command.arg("stdio");
    command
}

/// Returns the command of a gateway with the files of this folder.
pub(super) fn command(folder: &Folder, options: &[&str], server: &[&str]) -> Command {
    let mut command = gateway();
    let socket = format!("unix:{}", folder.path("operator.sock"));
    command.args(["--policy", &folder.path("policy.json"), "--operator", &socket]);
    command.args(["--server", "files", "--grant", "g-42", "--user", "ann"]).args(options).arg("--");
    command.arg(program("mcp_server")).args(["--calls", &folder.path("calls")]).args(server);
    command
}
