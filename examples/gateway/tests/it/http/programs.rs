//! The programs under test. They are stopped at the end of the test.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::client::Client;
use crate::operator;
use crate::stdio::running::{GATEWAY, program};

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

    /// Writes the configuration, with the path of the folder for `$FOLDER`.
    pub(super) fn configure(&self, config: &str) {
        let config = config.replace("$FOLDER", self.0.to_str().unwrap());
        std::fs::write(self.file("gateway.toml"), config).unwrap();
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
                let (_, url) = line.split_once("listening on http")?;
                url.trim_start_matches(['s', ':', '/']).split(['/', '"']).next()?.parse().ok()
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

    /// Returns the rest of the line that contains a text, once it is there.
    pub(super) fn find_in_log(&self, text: &str) -> String {
        self.wait_for_log(text);
        let log = self.log.lock();
        let line = log.iter().find_map(|line| line.split_once(text)).unwrap().1;
        line.split_whitespace().next().unwrap().to_owned()
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
    let mut command = Command::new(program("mcp_http_upstream"));
    command.args(["--listen", "127.0.0.1:0"]).args(options);
    Running::start(command)
}

/// Returns the digest of a token, by the command of the gateway.
pub(super) fn digest(token: &str) -> String {
    let mut command = Command::new(GATEWAY);
    let mut child = command.arg("digest").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{token}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Returns a grant with policy `p` whose token is its name, and more keys.
pub(super) fn grant_with(name: &str, more: &str) -> String {
    let digest = digest(name);
    format!(
        "[grants.{name}]\npolicy = \"p\"\ntoken_sha256 = [\"{digest}\"]\nuser = \"mary\"\nagent = \"ann\"\n{more}\n"
    )
}

pub(super) fn grant(name: &str) -> String {
    grant_with(name, "")
}

/// Returns a configuration with these settings, in front of this server.
pub(super) fn config(server: SocketAddr, settings: &str, grants: &[String]) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\npolicies = {{ p = \"policy.json\" }}\noperator.listen = \"unix:$FOLDER/operator\"\n\
         servers.upstream = {{ url = \"http://{server}/mcp\" }}\n{settings}\n{}",
        grants.concat()
    )
}

/// A gateway in front of a server, with a policy `p` and grants.
pub(super) struct TestGateway {
    pub(super) folder: Folder,
    pub(super) server: Running,
    pub(super) gateway: Running,
    pub(super) settings: String,
}

impl TestGateway {
    /// Starts a gateway with one grant, `g`.
    pub(super) fn new(policy: &Value, settings: &str) -> Self {
        Self::with(policy, &[grant("g")], &["--json"], settings)
    }

    pub(super) fn with(policy: &Value, grants: &[String], server: &[&str], settings: &str) -> Self {
        let (folder, server) = (Folder::new(), upstream(server));
        folder.write("policy.json", policy);
        folder.configure(&config(server.address, settings, grants));
        let gateway = Running::start(Self::command(&folder));
        Self { folder, server, gateway, settings: settings.to_owned() }
    }

    /// Returns the command of a gateway with the files of this folder.
    pub(super) fn command(folder: &Folder) -> Command {
        let mut command = Command::new(GATEWAY);
        command.arg("http").arg("--config").arg(folder.file("gateway.toml"));
        command
    }

    /// Writes the configuration with other grants.
    pub(super) fn put_grants(&self, grants: &[String]) {
        self.folder.configure(&config(self.server.address, &self.settings, grants));
    }

    /// Returns a client of a grant, without a session.
    pub(super) fn client(&self, grant: &str) -> Client {
        Client::new(self.gateway.address, grant)
    }

    /// Returns a client of grant `g`, in a session.
    pub(super) fn session_client(&self) -> Client {
        self.client("g").begin()
    }

    /// Returns the path of the operator's socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.file("operator")
    }

    /// Reads the configuration again.
    pub(super) fn reload(&self) -> Result<String, String> {
        let reloaded = operator::post(&self.socket(), "/api/reload", &json!({}))?;
        Ok(reloaded["message"].as_str().unwrap().to_owned())
    }

    /// Returns the pending approvals.
    pub(super) fn pending(&self) -> Vec<Value> {
        operator::get(&self.socket(), "/api/approvals").unwrap().as_array().unwrap().clone()
    }

    /// Returns the usage of a counter of grant `g`.
    pub(super) fn used(&self, counter: &str) -> String {
        let usage = operator::usage(&self.socket(), "?server=upstream&grant=g");
        let found = usage.iter().find(|(name, _)| name == counter).unwrap_or_else(|| panic!("{usage:?}"));
        found.1.clone()
    }

    /// Waits until a counter has this usage.
    pub(super) fn wait_for_usage(&self, counter: &str, usage: &str) {
        eventually(|| self.used(counter) == usage, || format!("{counter} is {}, not {usage}", self.used(counter)));
    }
}

#[test]
fn the_gateway_lists_its_options() {
    for (command, option) in [("stdio", "--policy <POLICY>"), ("http", "--config <CONFIG>"), ("schema", "--log-json")] {
        let ran = Command::new(GATEWAY).args([command, "--help"]).output().unwrap();
        let message = String::from_utf8(ran.stdout).unwrap();
        assert!(ran.status.success() && message.contains(option), "{message}");
    }
}
