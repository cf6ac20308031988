//! Redis servers for one test, each on a socket in its own folder: one, a cluster, or a master with
//! a replica and sentinels.

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

/// Returns a port of this machine that is free now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until something holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server with a port.
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) port: u16,
    bus: u16,
}

impl Node {
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        let (port, bus) = (free_port(), free_port());
        let (port_text, bus_text) = (port.to_string(), bus.to_string());
        let own = ["--port", &port_text, "--cluster-port", &bus_text, "--bind", "127.0.0.1"];
        Some(Self { server: Server::start(&[&own, options].concat())?, port, bus })
    }

    /// Sends a command of words.
    pub(crate) fn ask<T: ::redis::FromRedisValue>(&self, command: &str) -> T {
        self.server.command(&command.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    /// Returns a field of INFO or of CLUSTER INFO.
    fn says(&self, command: &str, field: &str) -> bool {
        self.ask::<String>(command).contains(field)
    }
}

/// A cluster of as many masters as asked for, each with a replica. Node `i` is a master, node
/// `masters + i` its replica.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    pub(crate) fn start(masters: usize, replicas: bool, options: &[&str]) -> Option<Self> {
        let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--repl-diskless-sync-delay", "0"];
        let options = [&own, options].concat();
        let count = if replicas { 2 * masters } else { masters };
        let nodes = (0..count).map(|_| Node::start(&options)).collect::<Option<Vec<_>>>()?;
        for (index, node) in nodes.iter().enumerate() {
            node.ask::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1));
            if index < masters {
                let (first, end) = (16_384 * index / masters, 16_384 * (index + 1) / masters);
                node.ask::<()>(&format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1));
            }
            let Node { port, bus, .. } = &nodes[0];
            node.ask::<()>(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"));
        }
        let known = format!("cluster_known_nodes:{count}\r");
        let all = |field: &str| nodes.iter().all(|node| node.says("CLUSTER INFO", field));
        wait_until("the nodes do not meet", || all(&known));
        for (index, node) in nodes.iter().enumerate().skip(masters) {
            let master: String = nodes[index - masters].ask("CLUSTER MYID");
            // The node may know the other by its address only.
            wait_until("no replica", || {
                let mut connection = ::redis::Client::open(node.server.url()).unwrap().get_connection().unwrap();
                ::redis::cmd("CLUSTER").arg("REPLICATE").arg(&master).exec(&mut connection).is_ok()
            });
        }
        wait_until("the cluster does not start", || all("cluster_state:ok"));
        let replicas = &nodes[masters..];
        wait_until("no replica is ready", || {
            replicas.iter().all(|node| node.says("INFO replication", "master_link_status:up"))
        });
        // Every node knows every replica, which a client learns from any of them.
        wait_until("the nodes do not agree", || {
            let slaves = |node: &Node| node.ask::<String>("CLUSTER NODES").matches("slave").count();
            nodes.iter().all(|node| slaves(node) == replicas.len())
        });
        Some(Self { nodes })
    }

    /// Returns the URL of one node.
    pub(crate) fn url(&self, node: usize) -> String {
        format!("redis+cluster://127.0.0.1:{}", self.nodes[node].port)
    }

    /// Returns the slot of a prefix, and the master that has it.
    pub(crate) fn slot(&self, prefix: &str) -> (u16, usize) {
        let slot: u16 = self.nodes[0].ask(&format!("CLUSTER KEYSLOT {{{prefix}}}"));
        let holds = |node: &Node| {
            let mut connection = ::redis::Client::open(node.server.url()).unwrap().get_connection().unwrap();
            let key = format!("{{{prefix}}}:test");
            ::redis::cmd("SET").arg(key).arg("").arg("XX").exec(&mut connection).is_ok()
        };
        (slot, self.nodes.iter().position(holds).unwrap())
    }

    /// Moves a slot with its keys from one master to another.
    pub(crate) fn reshard(&self, slot: u16, from: usize, to: usize) -> usize {
        let id = |node: usize| self.nodes[node].ask::<String>("CLUSTER MYID");
        let port = self.nodes[to].port;
        self.nodes[to].ask::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(from)));
        self.nodes[from].ask::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(to)));
        let mut moved = 0;
        loop {
            let keys: Vec<Vec<u8>> = self.nodes[from].ask(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
            if keys.is_empty() {
                break;
            }
            moved += keys.len();
            let port = port.to_string();
            let mut command: Vec<&[u8]> = vec![b"MIGRATE", b"127.0.0.1", port.as_bytes(), b"", b"0", b"5000", b"KEYS"];
            command.extend(keys.iter().map(|key| &**key));
            self.nodes[from].server.command::<::redis::Value>(&command);
        }
        for node in [to, from] {
            self.nodes[node].ask::<()>(&format!("CLUSTER SETSLOT {slot} NODE {}", id(to)));
        }
        moved
    }
}

/// A master, a replica and three sentinels that watch them by the name `gate`.
pub(crate) struct Watched {
    pub(crate) master: Node,
    pub(crate) replica: Node,
    pub(crate) sentinels: Vec<Sentinel>,
}

/// A sentinel process.
pub(crate) struct Sentinel {
    pub(crate) port: u16,
    folder: PathBuf,
    child: Child,
}

impl Watched {
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        let options = [&["--repl-diskless-sync-delay", "0"], options].concat();
        let master = Node::start(&options)?;
        let replica = Node::start(&options)?;
        replica.ask::<()>(&format!("REPLICAOF 127.0.0.1 {}", master.port));
        wait_until("the replica is not ready", || replica.says("INFO replication", "master_link_status:up"));
        let sentinels = (0..3).map(|_| Sentinel::start(master.port)).collect();
        let watched = Self { master, replica, sentinels };
        wait_until("the sentinels do not meet", || {
            watched.sentinels.iter().all(|sentinel| sentinel.master().contains("num-other-sentinels 2 num-slaves 1"))
        });
        Some(watched)
    }

    /// Returns the URL of the master that the sentinels name.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        format!("redis+sentinel://{}/gate", hosts.join(","))
    }
}

impl Sentinel {
    fn start(master: u16) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("toolgate-sentinel-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("sentinel.conf");
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor gate 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds gate 1500\nsentinel failover-timeout gate 4000\n",
            folder.display()
        );
        std::fs::write(&file, settings).unwrap();
        let child = Command::new("redis-server").arg(file).arg("--sentinel").stdout(Stdio::null()).spawn().unwrap();
        let sentinel = Self { port, folder, child };
        wait_until("a sentinel does not start", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        sentinel
    }

    /// Sends a command of words.
    pub(crate) fn ask<T: ::redis::FromRedisValue>(&self, command: &str) -> T {
        let mut connection =
            ::redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap().get_connection().unwrap();
        let mut cmd = ::redis::Cmd::new();
        cmd.arg(command.split(' ').collect::<Vec<_>>());
        cmd.query(&mut connection).unwrap()
    }

    /// Returns some of what the sentinel knows about its master.
    fn master(&self) -> String {
        let fields: Vec<String> = self.ask("SENTINEL MASTER gate");
        let field = |name: &str| fields.chunks(2).find(|pair| pair[0] == name).map_or("", |pair| &*pair[1]);
        format!("num-other-sentinels {} num-slaves {}", field("num-other-sentinels"), field("num-slaves"))
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
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
