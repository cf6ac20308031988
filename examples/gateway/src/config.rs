//! The configuration of the HTTP gateway: one TOML file.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use toolgate::{Policy, Timestamp};

use crate::callers::{Callers, Holder, Issuer, parse_digest};
use crate::files::Reader;
use crate::who::Who;

/// The configuration of `toolgate-gateway http`.
///
/// Paths are relative to the folder of the file. The file is read again when it or a file that it
/// names changes; if anything in them is not valid, everything stays as it was. `tls`,
/// `allow_origins`, `policies`, `grants` and `issuers` take effect at once, the rest at the next
/// start.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The address for clients, such as `127.0.0.1:8080`.
    pub(crate) listen: SocketAddr,
    /// The certificate and the key for TLS. Without it, tokens travel in plain text.
    pub(crate) tls: Option<Tls>,
    /// The origins of web pages that may ask, besides those of this machine.
    #[serde(default)]
    allow_origins: Vec<String>,
    /// Writes refusals as JSON-RPC errors and not as results with `isError`.
    #[serde(default)]
    pub(crate) refusals_as_errors: bool,
    /// The MCP servers behind the gateway, by the name that policies and grants use.
    pub(crate) servers: BTreeMap<String, Server>,
    /// The files of the policies, by name. The name is also the namespace of the policy's counters.
    policies: BTreeMap<String, PathBuf>,
    /// The grants, by name. A grant is what a caller has proved to have.
    #[serde(default)]
    grants: BTreeMap<String, Grant>,
    /// The issuers of JSON Web Tokens that are accepted.
    #[serde(default)]
    issuers: Vec<IssuerConfig>,
    #[serde(default)]
    pub(crate) store: Store,
    #[serde(default)]
    pub(crate) audit: Audit,
    #[serde(default)]
    pub(crate) pins: Pins,
    #[serde(default)]
    pub(crate) approvals: Approvals,
    pub(crate) operator: Option<Operator>,
    #[serde(default)]
    pub(crate) limits: Limits,
}

/// A certificate chain and its key, in PEM files. Renewed files are used for new connections.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// An MCP server that speaks streamable HTTP.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    /// The URL of the server, such as `http://127.0.0.1:9000/mcp`.
    pub(crate) url: String,
    /// The path at which clients reach it. By default, the path of the URL.
    pub(crate) path: Option<String>,
    /// A file with the bearer token that the gateway presents to the server.
    pub(crate) token_file: Option<PathBuf>,
    /// The names of headers of clients that the server gets, besides `Accept`, `Last-Event-ID`,
    /// `MCP-Protocol-Version`, `User-Agent` and the trace context.
    #[serde(default)]
    pub(crate) forward_headers: Vec<String>,
    /// Set if the server reads 64-bit integers exactly. Otherwise those beyond ±(2^53 - 1), which
    /// servers with doubles round, are refused.
    #[serde(default)]
    pub(crate) integers_of_64_bits: bool,
}

/// The right to call tools.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Grant {
    /// The policy that decides its calls on every server that `servers` does not name.
    policy: Option<String>,
    /// The policy on each server.
    #[serde(default)]
    servers: BTreeMap<String, String>,
    /// The SHA-256 digests of its tokens, in hexadecimal; `toolgate-gateway digest` prints one.
    #[serde(default)]
    token_sha256: Vec<String>,
    /// The person that the agent acts for.
    user: Option<String>,
    /// The agent that calls.
    agent: Option<String>,
    /// The values that policies can use with `context.`.
    #[serde(default)]
    context: Map<String, Value>,
    /// The time at which it ends, such as `2026-12-31T00:00:00Z`.
    expires_at: Option<String>,
    /// Set if it has been revoked.
    #[serde(default)]
    revoked: bool,
}

/// An issuer of JSON Web Tokens.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct IssuerConfig {
    /// The value of the claim `iss`.
    issuer: String,
    /// The accepted values of the claim `aud`.
    audience: Vec<String>,
    /// A file with the public keys of the issuer, a JSON Web Key Set.
    keys: PathBuf,
    /// The claim that names the grant.
    grant_claim: Option<String>,
    /// The grant of all tokens without such a claim.
    grant: Option<String>,
    /// The claim that names the person: `sub` by default.
    #[serde(default = "sub")]
    user_claim: String,
    /// The claim that names the agent.
    agent_claim: Option<String>,
    /// The claims that policies can ask for: the name under `context.`, and the claim.
    #[serde(default)]
    context: BTreeMap<String, String>,
}

fn sub() -> String {
    "sub".into()
}

/// The counters and approvals: in memory, or shared by gateways in Redis or Valkey.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    /// The URL of the Redis server, such as `redis://127.0.0.1:6379` or `rediss://…`.
    pub(crate) redis: Option<String>,
    /// The file that contains the URL, if it has a password.
    pub(crate) redis_url_file: Option<PathBuf>,
}

/// The audit log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Audit {
    /// The log of all decisions and of what people answer, in JSON Lines.
    pub(crate) file: Option<PathBuf>,
    /// Begins a new file each day of UTC. Files then have numbers: `audit-000000000001.jsonl` for
    /// `audit.jsonl`.
    pub(crate) daily: bool,
    /// Begins a new file once one has this length. Files then have numbers.
    pub(crate) max_bytes: Option<u64>,
    /// Denies what cannot be recorded.
    pub(crate) required: bool,
}

/// The definitions of tools, to notice those that change.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Pins {
    /// The effect on a tool whose definition has changed.
    pub(crate) on_changed_tool: Option<OnChangedTool>,
    /// The file that keeps the definitions over a restart.
    pub(crate) file: Option<PathBuf>,
}

/// The requests that people decide.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Approvals {
    /// The address of a page on which a person decides a request, with `{id}` in it, such as
    /// `https://gate.example.com/#{id}`. Clients that can open pages send their user there.
    pub(crate) page: Option<String>,
    /// Lets people approve requests that are too long to be shown whole.
    pub(crate) unseen: bool,
}

/// The effect on a tool whose definition has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnChangedTool {
    /// Its calls are denied, and it is removed from lists.
    Deny,
    /// It is logged.
    Report,
}

/// The address for the people who run the gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Operator {
    /// An address such as `127.0.0.1:9901`, or `unix:PATH` for a socket.
    pub(crate) listen: String,
    /// The SHA-256 digests of the tokens that may use it. A socket needs none. Without one, a token
    /// is made at the start and logged.
    #[serde(default)]
    pub(crate) token_sha256: Vec<String>,
    /// The host names at which a proxy in front serves the page, such as `gate.example.com`.
    #[serde(default)]
    pub(crate) allow_hosts: Vec<String>,
}

/// Bounds.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// How long a request may take; 0 is without end.
    pub(crate) timeout_seconds: u32,
    /// How long a request may take as long as it reports progress, which begins its time again. 0
    /// takes no account of progress.
    pub(crate) longest_timeout_seconds: u32,
    /// How long clients may keep a list of tools, if the server allows it: a change of the policy
    /// may not reach them in that time.
    pub(crate) list_ttl_seconds: u32,
    /// The most bytes that a message may have, in both directions.
    pub(crate) max_message_bytes: std::num::NonZeroU32,
    /// How long an unused session is kept.
    pub(crate) session_idle_seconds: u32,
    /// The number of sessions that one grant may have. The one that is idle for longest makes room
    /// for a new one.
    pub(crate) sessions_per_grant: std::num::NonZeroU32,
    /// The number of sessions that one grant may begin in a minute.
    pub(crate) new_sessions_per_minute: std::num::NonZeroU32,
    /// The number of requests that one grant may have under way: a flood takes no room from others.
    pub(crate) requests_per_grant: std::num::NonZeroU16,
    /// The number of connections that one address may have open, with a token or without: an IPv4
    /// address, or a /64 network of IPv6. Raise it if a proxy in front makes all connections.
    pub(crate) connections_per_peer: std::num::NonZeroU16,
}

impl Default for Limits {
    fn default() -> Self {
        let at_most = |number: u32| std::num::NonZeroU32::MIN.saturating_add(number - 1);
        let at_once = |number: u16| std::num::NonZeroU16::MIN.saturating_add(number - 1);
        Self {
            timeout_seconds: 300,
            longest_timeout_seconds: 0,
            list_ttl_seconds: 0,
            max_message_bytes: at_most(16 << 20),
            session_idle_seconds: 1800,
            sessions_per_grant: at_most(1000),
            new_sessions_per_minute: at_most(600),
            requests_per_grant: at_once(256),
            connections_per_peer: at_once(1024),
        }
    }
}

impl Limits {
    /// How long a request may take; `None` is without end.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        (self.timeout_seconds > 0).then(|| Duration::from_secs(self.timeout_seconds.into()))
    }

    /// How long a request may take if it reports progress.
    pub(crate) fn longest_timeout(&self) -> Duration {
        Duration::from_secs(self.longest_timeout_seconds.into())
    }
}

/// Everything that the configuration and its files say, valid as a whole.
pub(crate) struct Reading {
    pub(crate) config: Config,
    pub(crate) policies: Vec<(String, Policy)>,
    pub(crate) callers: Callers,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
}

impl Reading {
    /// Reads the file, and every file that it names and that can change while the gateway runs.
    pub(crate) fn read(path: &Path, reader: &mut Reader) -> Result<Self, String> {
        let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut config: Config = toml::from_str(&reader.read_text(path)?).map_err(|error| said(&error))?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        if config.audit.required && config.audit.file.is_none() {
            return Err(said(&"audit.required needs audit.file"));
        }
        if let Some(page) = &config.approvals.page {
            crate::link::check_page(page).map_err(|why| said(&format_args!("approvals.page: {why}")))?;
        }
        let mut policies = Vec::new();
        for (name, file) in &config.policies {
            policies.push((name.clone(), reader.read_policy(file)?));
        }
        let mut callers = Callers { allow_origins: config.allow_origins.clone(), ..Callers::default() };
        for (name, grant) in &config.grants {
            let of = |error: &dyn std::fmt::Display| said(&format_args!("grants.{name}: {error}"));
            let holder = Arc::new(config.holder(name, grant).map_err(|error| of(&error))?);
            for digest in &grant.token_sha256 {
                let digest =
                    parse_digest(digest).ok_or_else(|| of(&"`token_sha256` has 64 hexadecimal digits each"))?;
                if callers.by_token.insert(digest, Arc::clone(&holder)).is_some() {
                    return Err(of(&"one of its tokens is there twice: each grant has tokens of its own"));
                }
            }
            callers.by_grant.insert(name.clone(), holder);
        }
        for (index, issuer) in config.issuers.iter().enumerate() {
            let of = |error: &dyn std::fmt::Display| said(&format_args!("issuers[{index}]: {error}"));
            if let Some(unknown) = issuer.grant.as_ref().filter(|grant| !config.grants.contains_key(*grant)) {
                return Err(of(&format_args!("there is no grant `{unknown}`")));
            }
            if issuer.grant.is_none() && issuer.grant_claim.is_none() {
                return Err(of(&"`grant_claim` or `grant` must say which grant a token has"));
            }
            let keys = reader.read(&issuer.keys)?;
            callers.issuers.push(issuer.read(&keys).map_err(|error| of(&error))?);
        }
        let tls = config.tls.as_ref().map(|tls| crate::serve::tls_config(tls, reader)).transpose()?;
        Ok(Self { config, policies, callers, tls })
    }
}

impl Config {
    /// Makes paths relative to the folder of the file.
    fn resolve(&mut self, folder: &Path) {
        let tls = self.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]);
        let rest = [&mut self.audit.file, &mut self.pins.file, &mut self.store.redis_url_file];
        let paths = tls
            .chain(self.policies.values_mut())
            .chain(self.issuers.iter_mut().map(|issuer| &mut issuer.keys))
            .chain(self.servers.values_mut().filter_map(|server| server.token_file.as_mut()))
            .chain(rest.into_iter().flatten());
        for path in paths {
            *path = folder.join(&*path);
        }
    }

    /// Returns the sections that differ from those that the gateway has started with and that take
    /// effect at the next start.
    pub(crate) fn needs_restart(&self, started_with: &Self) -> Option<String> {
        let changed = [
            ("`listen`", self.listen != started_with.listen),
            ("`refusals_as_errors`", self.refusals_as_errors != started_with.refusals_as_errors),
            ("`servers`", self.servers != started_with.servers),
            ("`store`", self.store != started_with.store),
            ("`audit`", self.audit != started_with.audit),
            ("`pins`", self.pins != started_with.pins),
            ("`approvals`", self.approvals != started_with.approvals),
            ("`operator`", self.operator != started_with.operator),
            ("`limits`", self.limits != started_with.limits),
        ];
        let changed: Vec<_> = changed.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
        (!changed.is_empty()).then(|| changed.join(", "))
    }

    fn holder(&self, name: &str, grant: &Grant) -> Result<Holder, String> {
        let mut policies: HashMap<Option<String>, String> =
            grant.servers.iter().map(|(server, policy)| (Some(server.clone()), policy.clone())).collect();
        policies.extend(grant.policy.clone().map(|policy| (None, policy)));
        if name.is_empty() || policies.is_empty() {
            return Err("a grant has a name, and a `policy` or `servers`".into());
        }
        for (server, policy) in &policies {
            if !self.policies.contains_key(policy) {
                return Err(format!("there is no policy `{policy}`: `policies` has its file"));
            }
            if let Some(server) = server.as_ref().filter(|server| !self.servers.contains_key(*server)) {
                return Err(format!("there is no server `{server}`"));
            }
        }
        if grant.context.values().any(|value| value.to_string().contains("$__toml_private")) {
            return Err("`context` has a date: put it in quotes".into());
        }
        let expires_at = grant.expires_at.as_deref().map(str::parse::<Timestamp>).transpose();
        Ok(Holder {
            who: Who {
                grant: Some(name.to_owned()),
                user: grant.user.clone(),
                agent: grant.agent.clone(),
                context: (!grant.context.is_empty()).then(|| grant.context.clone()),
                ..Who::default()
            },
            policies,
            revoked: grant.revoked,
            expires_at: expires_at.map_err(|error| format!("expires_at: {error}"))?,
            slots: Arc::new(Semaphore::new(self.limits.requests_per_grant.get().into())),
            turns: Arc::new(Semaphore::new(1)),
        })
    }
}

impl IssuerConfig {
    fn read(&self, keys: &[u8]) -> Result<Issuer, String> {
        let of_keys = |error: &dyn std::fmt::Display| format!("{}: {error}", self.keys.display());
        let keys = serde_json::from_slice(keys).map_err(|error| of_keys(&error))?;
        let issuer = Issuer {
            keys: Issuer::keys(&keys, &self.issuer, &self.audience).map_err(|error| of_keys(&error))?,
            grant_claim: self.grant_claim.clone(),
            grant: self.grant.clone(),
            user_claim: self.user_claim.clone(),
            agent_claim: self.agent_claim.clone(),
            context: self.context.clone(),
        };
        Ok(issuer)
    }
}
