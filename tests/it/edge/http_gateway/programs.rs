//! The programs under test, which end with the test.

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

/// Longer than anything takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of the test's own.
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

/// An example's program, which `cargo test` builds beside the tests.
pub(super) fn program(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is missing: run `cargo test`, or `cargo build --examples` first", program.display());
    Command::new(program)
}

/// A program that serves.
pub(super) struct Running {
    child: Child,
    pub(super) address: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// Starts it, and waits until it says where it listens.
    pub(super) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, heard) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&said));
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| heard.lock().push(line)));
        let began = Instant::now();
        let address = loop {
            let found = said.lock().iter().find_map(|line| {
                let (_, url) = line.split_once("listening on http://")?;
                url.split('/').next()?.parse().ok()
            });
            if let Some(address) = found {
                break address;
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "{ended:?} {:?}", said.lock());
            std::thread::sleep(Duration::from_millis(10));
        };
        Self { child, address, said }
    }

    /// Waits until it has said something.
    pub(super) fn says(&self, text: &str) {
        eventually(
            || self.said.lock().iter().any(|line| line.contains(text)),
            || format!("{text}: {:?}", self.said.lock()),
        );
    }

    /// How many lines it has said that begin so.
    pub(super) fn heard(&self, start: &str) -> usize {
        self.said.lock().iter().filter(|line| line.starts_with(start)).count()
    }

    /// Tells it to stop, and gives back its exit code.
    pub(super) fn stop(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }

    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The most memory that it has had, in bytes.
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
        assert!(began.elapsed() < PATIENCE, "{}", otherwise());
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(super) fn upstream(options: &[&str]) -> Running {
    let mut command = program("mcp_http_upstream");
    command.args(["--listen", "127.0.0.1:0"]).args(options);
    Running::start(command)
}

/// A grant whose token is its own name.
pub(super) fn grant(name: &str) -> Value {
    json!({ "grant": name, "policy": "p", "token_sha256": [digest(name)], "user": "mary", "agent": "ann" })
}

/// The digest of a token, by the program's own command.
pub(super) fn digest(token: &str) -> String {
    let mut command = program("mcp_http_gateway");
    let mut child = command.arg("digest").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{token}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A gateway in front of a server, with a policy `p` and some grants.
pub(super) struct House {
    pub(super) folder: Folder,
    pub(super) server: Running,
    pub(super) gateway: Running,
}

pub(super) fn grants(of: &[Value]) -> Value {
    json!({ "version": "1", "policies": { "p": "policy.json" }, "grants": of })
}

impl House {
    /// One grant, `g`.
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

    /// What starts a gateway with the folder's files.
    pub(super) fn command(folder: &Folder, server: SocketAddr, options: &[&str]) -> Command {
        let mut command = program("mcp_http_gateway");
        command.args(["--listen", "127.0.0.1:0", "--upstream", &format!("http://{server}/mcp"), "--grants"]);
        command.arg(folder.file("grants.json")).arg("--admin").arg(folder.file("admin")).args(options);
        command
    }

    /// A client of a grant, without a session yet.
    pub(super) fn client(&self, grant: &str) -> Client {
        Client::new(self.gateway.address, grant)
    }

    /// A client of grant `g`, in a session.
    pub(super) fn begun(&self) -> Client {
        self.client("g").begin()
    }

    pub(super) fn admin(&self, words: &[&str]) -> Output {
        program("mcp_http_gateway").arg("admin").arg(self.folder.file("admin")).args(words).output().unwrap()
    }

    /// What an admin's command prints.
    pub(super) fn asked(&self, words: &[&str]) -> String {
        let output = self.admin(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// How a counter of grant `g` stands: its line in what `usage` prints.
    pub(super) fn used(&self, counter: &str) -> String {
        let usage = self.asked(&["usage", "--grant", "g"]);
        let line = usage.lines().find_map(|line| line.strip_prefix(&format!("{counter}: "))).map(str::to_owned);
        let line = line.unwrap_or_else(|| panic!("{usage}"));
        line.split(',').next().unwrap().to_owned()
    }

    /// Waits until a counter stands so.
    pub(super) fn comes_to(&self, counter: &str, stands: &str) {
        eventually(|| self.used(counter) == stands, || format!("{counter} is {}, not {stands}", self.used(counter)));
    }
}
