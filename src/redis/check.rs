//! The check of a server, for the start of a host and for its readiness probe.

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Cmd, ErrorKind, ServerErrorKind, Value};

use super::connection::{Connection, Retry, Script};
use super::failure::{RequestError, is_forbidden};

/// The lowest version of Redis, whose commands the scripts use.
const MIN_VERSION: u32 = 7;

/// The state of a Redis server, as far as a store depends on it.
///
/// ```no_run
/// # use toolgate::store::redis::RedisStore;
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::builder("redis://127.0.0.1:6379").build()?;
/// let report = store.check().await;
/// if !report.is_ready() {
///     return Err(format!("the counter store is not ready:\n{report}").into());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ServerReport {
    version: Option<String>,
    role: Option<String>,
    cluster: Option<bool>,
    eviction: Option<String>,
    skew_millis: Option<i64>,
    findings: Vec<ServerFinding>,
}

/// A point in which a server is not as a store needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFinding {
    is_error: bool,
    message: String,
    help: String,
}

impl ServerReport {
    /// Returns whether no finding is an [error](ServerFinding::is_error).
    pub fn is_ready(&self) -> bool {
        !self.findings.iter().any(ServerFinding::is_error)
    }

    /// Returns everything that is not as it should be.
    pub fn findings(&self) -> &[ServerFinding] {
        &self.findings
    }

    /// Returns the version of Redis, or the one that another server claims to be compatible with.
    /// As the following four, it is `None` if the server did not report it.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Returns the role of the server: `master` or `slave`.
    pub fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    /// Returns whether the server is a node of a cluster.
    pub fn is_cluster(&self) -> Option<bool> {
        self.cluster
    }

    /// Returns the `maxmemory-policy` of the server.
    pub fn eviction(&self) -> Option<&str> {
        self.eviction.as_deref()
    }

    /// Returns how far the system's clock is ahead of the server's, in milliseconds; negative if it
    /// is behind. It includes the time of a request.
    pub fn skew_millis(&self) -> Option<i64> {
        self.skew_millis
    }

    fn add(&mut self, is_error: bool, message: impl Into<String>, help: impl Into<String>) {
        let finding = ServerFinding { is_error, message: message.into(), help: help.into() };
        // The nodes of a cluster often have the same findings.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Adds an error, in its own words and those of its causes.
    pub(crate) fn add_error(&mut self, what: &str, error: &(dyn Error + 'static), help: &str) {
        let mut message = format!("{what}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        self.add(true, message, help);
    }
}

impl ServerFinding {
    /// Returns whether the store cannot decide, or not exactly, until this is fixed. Otherwise it
    /// is a warning.
    pub fn is_error(&self) -> bool {
        self.is_error
    }

    /// Returns the message: what is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the help text: what to do.
    pub fn help(&self) -> &str {
        &self.help
    }
}

impl fmt::Display for ServerFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.is_error { "error" } else { "warning" };
        write!(f, "{severity}: {}; {}", self.message, self.help)
    }
}

/// One line for each finding.
impl fmt::Display for ServerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            finding.fmt(f)?;
        }
        Ok(())
    }
}

/// The needs of a store.
pub(crate) struct Requirements<'s> {
    /// A key that the store does not use, under its prefix.
    pub(crate) key: Vec<u8>,
    /// Commands that change nothing when the key is missing. `{}` is the key.
    pub(crate) commands: &'static [&'static str],
    pub(crate) scripts: &'s [&'s Script],
    pub(crate) max_skew: Duration,
}

impl Connection {
    /// Compares the server with the needs of a store.
    pub(crate) async fn check(&self, needs: Requirements<'_>) -> ServerReport {
        let mut report = ServerReport::default();
        if !self.look_around(&mut report).await {
            return report;
        }
        self.compare_clocks(&mut report, needs.max_skew).await;
        for command in needs.commands {
            let mut cmd = Cmd::new();
            for part in command.split(' ') {
                match part {
                    "{}" => cmd.arg(&needs.key),
                    _ => cmd.arg(part),
                };
            }
            self.try_out(&mut report, &cmd, command.split(' ').next().unwrap_or_default()).await;
        }
        let mut call = Cmd::new();
        call.arg("EVALSHA").arg("0".repeat(40)).arg(1).arg(&needs.key);
        self.try_out(&mut report, &call, "EVALSHA").await;
        for script in needs.scripts {
            self.try_out(&mut report, &script.loading(), "SCRIPT|LOAD").await;
        }
        report
    }

    /// Reads what the server says about itself. Returns `false` if it cannot be reached.
    async fn look_around(&self, report: &mut ServerReport) -> bool {
        let mut info = Cmd::new();
        info.arg("INFO");
        let answer = match self.request(Retry::Idempotent, &info).await {
            Ok(answer) => answer,
            Err(error) if is_permission(&error) => {
                report.add(
                    false,
                    "the version, role, cluster mode and eviction of the server are unknown",
                    "grant `+info` to its user",
                );
                return true;
            }
            Err(error) => {
                report.add_error(
                    "the server cannot be reached",
                    &error,
                    "compare address, login, database and TLS of the store with the server",
                );
                return false;
            }
        };
        let mut nodes = Vec::new();
        // A client of a cluster asks all nodes. Its answer is a map from their addresses.
        let follows = !matches!(answer, Value::BulkString(_) | Value::VerbatimString { .. } | Value::SimpleString(_));
        texts(answer, &mut nodes);
        for node in nodes.iter().filter(|node| node.contains("redis_version:")) {
            report.read(node, follows);
        }
        true
    }

    async fn compare_clocks(&self, report: &mut ServerReport, max_skew: Duration) {
        let mut time = Cmd::new();
        time.arg("TIME");
        let Ok(Value::Array(parts)) = self.request(Retry::Idempotent, &time).await else { return };
        let [seconds, micros] = parts.as_slice() else { return };
        let (Some(seconds), Some(micros)) = (number(seconds), number(micros)) else { return };
        let host = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros());
        let host = i64::try_from(host).unwrap_or(i64::MAX);
        let server = seconds.saturating_mul(1_000_000).saturating_add(micros);
        let skew_millis = host.saturating_sub(server) / 1_000;
        report.skew_millis = Some(skew_millis);
        if u128::from(skew_millis.unsigned_abs()) > max_skew.as_millis() {
            report.add(
                true,
                format!("the clocks of host and server are {skew_millis} ms apart, more than `max_skew`"),
                "synchronise both clocks (NTP)",
            );
        }
    }

    /// Adds a finding if the server does not let its user send a command. Other errors are those of
    /// a key that is missing.
    async fn try_out(&self, report: &mut ServerReport, cmd: &Cmd, name: &str) {
        let Err(error) = self.request(Retry::Idempotent, cmd).await else { return };
        let rule = name.to_lowercase();
        if is_permission(&error) {
            let about_keys = error.of_client().is_some_and(|error| error.to_string().contains("keys"));
            let help = match about_keys {
                true => "grant the keys of its prefix to the user, such as `~{toolgate}:*`".to_owned(),
                false => format!("grant `+{rule}` to the user"),
            };
            report.add(true, format!("the server's user must not send {name} for the keys of the store"), help);
            return;
        }
        let kind = error.of_client().map(redis::RedisError::kind);
        if kind != Some(ErrorKind::Server(ServerErrorKind::NoScript)) {
            report.add_error(
                &format!("{name} fails"),
                &error,
                "the store needs this command; use Redis 7, Valkey or a server that is compatible with them",
            );
        }
    }
}

impl ServerReport {
    /// Reads the answer of one node to INFO.
    fn read(&mut self, info: &str, follows: bool) {
        let field = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|text| text.trim().to_owned())
        };
        let version = field("redis_version");
        let major = version.as_deref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        if major.is_some_and(|major| major < MIN_VERSION) {
            let version = version.as_deref().unwrap_or_default();
            self.add(true, format!("the server has version {version}"), "use Redis 7 or later, or Valkey");
        }
        let role = field("role");
        if role.as_deref() == Some("slave") && !follows {
            self.add(
                true,
                "the server is a replica, which takes no writes",
                "use the address of the master, `redis+sentinel://` or `redis+cluster://`",
            );
        }
        let cluster = field("cluster_enabled").map(|enabled| enabled == "1");
        if cluster == Some(true) && !follows {
            self.add(
                true,
                "the server is a node of a cluster, and the store follows no redirection",
                "use `redis+cluster://` with the address of any node (feature `redis-cluster`)",
            );
        }
        let eviction = field("maxmemory_policy");
        if let Some(policy) = eviction.as_deref().filter(|policy| *policy != "noeviction") {
            self.add(
                true,
                format!("a full server evicts keys, and budgets begin again: `maxmemory-policy` is `{policy}`"),
                "set `maxmemory-policy noeviction`",
            );
        }
        if field("aof_enabled").as_deref() == Some("0") {
            self.add(
                false,
                "the server keeps no log of its writes, and a restart loses what was counted since its last snapshot",
                "set `appendonly yes`, or accept it",
            );
        }
        let replicas = field("connected_slaves").and_then(|count| count.parse::<u32>().ok()).unwrap_or_default();
        if replicas > 0 && field("min_slaves_good_slaves").is_none() {
            self.add(
                false,
                "after a failover, what the old master admitted until its last client left can be admitted again",
                "set `min-replicas-to-write 1` and `min-replicas-max-lag`",
            );
        }
        self.version = version.or(self.version.take());
        self.role = if follows { None } else { role };
        self.cluster = cluster.or(self.cluster);
        self.eviction = eviction.or(self.eviction.take());
    }
}

fn is_permission(error: &RequestError) -> bool {
    error.of_client().is_some_and(is_forbidden)
}

/// Collects the texts of an answer, at most one level deep.
fn texts(answer: Value, found: &mut Vec<String>) {
    match answer {
        Value::BulkString(bytes) => found.push(String::from_utf8_lossy(&bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => found.push(text),
        Value::Map(pairs) => {
            for (_, value) in pairs.into_iter().filter(|(_, value)| !matches!(value, Value::Map(_))) {
                texts(value, found);
            }
        }
        _ => {}
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        Value::SimpleString(text) => text.parse().ok(),
        Value::Int(number) => Some(*number),
        _ => None,
    }
}
