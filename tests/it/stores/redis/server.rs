//! A Redis server for one test, on a socket in its own folder.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) struct Server {
    folder: PathBuf,
    options: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server that keeps nothing on disk. Returns `None` if no server is installed, which
    /// fails in CI.
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("toolgate-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut server =
            Self { folder, options: options.iter().map(|option| (*option).to_owned()).collect(), child: None };
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "redis-server must be on the PATH");
            eprintln!("skipped: redis-server is not on the PATH");
            return None;
        }
        server.revive();
        Some(server)
    }

    /// Starts the server, or starts it again, empty.
    pub(crate) fn revive(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(&self.folder)
            .args(&self.options)
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
        let began = Instant::now();
        while ::redis::Client::open(self.url()).unwrap().get_connection().is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "redis-server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Sends a command on a new connection.
    pub(crate) fn command<T: ::redis::FromRedisValue>(&self, command: &[&[u8]]) -> T {
        let mut connection = ::redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        let mut cmd = ::redis::Cmd::new();
        for part in command {
            cmd.arg(*part);
        }
        cmd.query(&mut connection).unwrap()
    }

    /// Returns the keys of all counters.
    pub(crate) fn counters(&self) -> Vec<Vec<u8>> {
        self.command(&[b"KEYS", b"{*}:c:*"])
    }

    /// Asserts that every key expires.
    pub(crate) fn assert_every_key_expires(&self) {
        let keys: Vec<Vec<u8>> = self.command(&[b"KEYS", b"*"]);
        for key in keys {
            let left: i64 = self.command(&[b"PTTL", &key]);
            assert!(left > 0 || left == -2, "{} expires in {left}", key.escape_ascii());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
