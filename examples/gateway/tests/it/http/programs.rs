//! The programs under test. They are stopped at the end of the test.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::client::Client;

/// A bound above the time of any step on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A temporary folder for one test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("toolgate-http-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn write(&self, name: &str, content: &Value) -> PathBuf {
        std::fs::write(self.file(name), content.to_string()).unwrap();
        self.file(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Returns the program of an example, which `cargo test` builds too.
pub(super) fn program(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is missing: run `cargo test`, or `cargo build --examples` first", program.display());
    Command::new(program)
}

/// A running server program.
pub(super) struct Running {
    child: Child,
    pub(super) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// Starts a program and waits until it logs its address.
    pub(super) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, written) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| written.lock().push(line)));
        let began = Instant::now();
        let address = loop {
            let found = log.lock().iter().find_map(|line| {
                let (_, url) = line.split_once("listening on http://")?;
                url.split('/').next()?.parse().ok()
            });
            if let Some(address) = found {
                break address;
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < TIMEOUT, "{ended:?} {:?}", log.lock());
            std::thread::sleep(Duration::from_millis(10));
        };
        Self { child, address, log }
    }

    /// Waits until the log contains a text.
    pub(super) fn wait_for_log(&self, text: &str) {
        eventually(
            || self.log.lock().iter().any(|line| line.contains(text)),
            || format!("{text}: {:?}", self.log.lock()),
        );
    }

    /// Returns the number of log lines that begin with a text.
    pub(super) fn count_log_lines(&self, start: &str) -> usize {
        self.log.lock().iter().filter(|line| line.starts_with(start)).count()
    }

    /// Stops the program and returns its exit code.
    pub(super) fn stop(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }

    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns the peak memory in bytes.
    pub(super) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn eventually(mut holds: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < TIMEOUT, "{}", otherwise());
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(super) fn upstream(options: &[&str]) -> Running {
    let mut command = program("mcp_http_upstream");
    command.args(["--listen", "127.0.0.1:0"]).args(options);
    Running::start(command)
}

/// Returns a grant whose token is its name.
pub(super) fn grant(name: &str) -> Value {
    json!({ "grant": name, "policy": "p", "token_sha256": [digest(name)], "user": "mary", "agent": "ann" })
}

/// Returns the digest of a token, by the command of the gateway.
pub(super) fn digest(token: &str) -> String {
    let mut command = program("mcp_http_gateway");
    let mut child = command.arg("digest").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{token}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A gateway in front of a server, with a policy `p` and grants.
pub(super) struct TestGateway {
    pub(super) folder: Folder,
    pub(super) server: Running,
    pub(super) gateway: Running,
}

pub(super) fn grants(of: &[Value]) -> Value {
    json!({ "version": "1", "policies": { "p": "policy.json" }, "grants": of })
}

impl TestGateway {
    /// Starts a gateway with one grant, `g`.
    pub(super) fn new(policy: &Value, options: &[&str]) -> Self {
        Self::with(policy, &[grant("g")], &["--json"], options)
    }

    pub(super) fn with(policy: &Value, of: &[Value], server: &[&str], options: &[&str]) -> Self {
        let (folder, server) = (Folder::new(), upstream(server));
        folder.write("policy.json", policy);
        folder.write("grants.json", &grants(of));
        let gateway = Running::start(Self::command(&folder, server.address, options));
        Self { folder, server, gateway }
    }

    /// Returns the command of a gateway with the files of this folder.
    pub(super) fn command(folder: &Folder, server: SocketAddr, options: &[&str]) -> Command {
        let mut command = program("mcp_http_gateway");
        command.args(["--listen", "127.0.0.1:0", "--upstream", &format!("http://{server}/mcp"), "--grants"]);
        command.arg(folder.file("grants.json")).arg("--admin").arg(folder.file("admin")).args(options);
        command
    }

    /// Returns a client of a grant, without a session.
    pub(super) fn client(&self, grant: &str) -> Client {
        Client::new(self.gateway.address, grant)
    }

    /// Returns a client of grant `g`, in a session.
    pub(super) fn session_client(&self) -> Client {
        self.client("g").begin()
    }

    pub(super) fn admin(&self, words: &[&str]) -> Output {
        program("mcp_http_gateway").arg("admin").arg(self.folder.file("admin")).args(words).output().unwrap()
    }

    /// Returns the output of an admin command.
    pub(super) fn admin_output(&self, words: &[&str]) -> String {
        let output = self.admin(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the usage of a counter of grant `g`, as the command `usage` prints it.
    pub(super) fn used(&self, counter: &str) -> String {
        let usage = self.admin_output(&["usage", "--grant", "g"]);
        let line = usage.lines().find_map(|line| line.strip_prefix(&format!("{counter}: "))).map(str::to_owned);
        let line = line.unwrap_or_else(|| panic!("{usage}"));
        line.split(',').next().unwrap().to_owned()
    }

    /// Waits until a counter has this usage.
    pub(super) fn wait_for_usage(&self, counter: &str, usage: &str) {
        eventually(|| self.used(counter) == usage, || format!("{counter} is {}, not {usage}", self.used(counter)));
    }
}

#[test]
fn gateways_list_their_options() {
    for name in ["mcp_stdio_gateway", "mcp_http_gateway"] {
        let ran = program(name).arg("--help").output().unwrap();
        let message = String::from_utf8(ran.stdout).unwrap();
        assert!(ran.status.success() && message.starts_with(&format!("usage: {name} ")), "{message}");
    }
}
