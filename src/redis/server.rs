//! The ways to reach a Redis server: a URL, a client, a connection, or a function that makes one.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisFuture, Value,
};

use super::failure::Cause;

/// A Redis server, and how a store connects to it: a URL, a client of the crate `redis`, a
/// connection, or a function that makes one.
///
/// | server | URL |
/// |---|---|
/// | one server | `redis://user:password@host:6379/0` |
/// | one server over TLS (feature `redis-tls`) | `rediss://user:password@host:6379` |
/// | a socket of the same machine | `redis+unix:///run/redis.sock?user=…&pass=…` |
/// | a cluster (feature `redis-cluster`) | `redis+cluster://user:password@node,node:7000` |
/// | the master that sentinels name (feature `redis-sentinel`) | `redis+sentinel://user:password@host,host:26379/master-name/0` |
///
/// `rediss+cluster` and `rediss+sentinel` use TLS. The user and the password are those of the
/// servers, not of the sentinels.
///
/// Everything else is a client or a connection of the host's own, made with the crate `redis`,
/// which is [`client`](crate::store::redis::client) here. A store asks for a new connection if the
/// one in use is lost, does not answer, or reports that it is the wrong one: `READONLY`, `MOVED`,
/// or a login that is no longer valid. So it continues by itself after a failover, or with a new
/// password.
///
/// ```
/// use toolgate::store::redis::{RedisStore, Server};
///
/// # async fn read_secret() -> std::io::Result<String> { Ok("secret".into()) }
/// // The password changes. The function runs for each new connection.
/// let server = Server::url_with(|| async {
///     let password = read_secret().await?;
///     Ok::<_, std::io::Error>(format!("redis://gateway:{password}@cache.internal:6379"))
/// });
/// let store = RedisStore::builder(server).build()?;
/// # Ok::<(), toolgate::store::redis::BuildError>(())
/// ```
///
/// The function must finish within the deadline of the store, so cache what takes longer. It runs
/// once at a time, and not at all while the circuit breaker is open.
///
/// # TLS
/// `rediss://` trusts the certificates of the system. A private authority or a client certificate
/// needs a client: `redis::Client::build_with_tls`, or `certs` of `ClusterClientBuilder`. In a
/// process without a default provider of cryptography for `rustls`, a URL or a `Client` with TLS
/// installs `ring`; install one before you make another client.
#[derive(Clone)]
pub struct Server(Kind);

#[derive(Clone)]
enum Kind {
    Url(String),
    Client(Box<Client>),
    Made(Connector),
}

/// A store cannot be built with these settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The URL is not valid. The message does not show it, as it may hold a password.
    #[error(
        "the URL of the store is not valid; write `redis://user:password@host:6379/0`, \
         `rediss://host:6379` for TLS, `redis+unix:///run/redis.sock`, `redis+cluster://node,node:7000`, or \
         `redis+sentinel://host,host:26379/master-name`"
    )]
    #[non_exhaustive]
    Url {
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The URL asks for TLS, and the feature `redis-tls` is not enabled.
    #[error("the URL of the store asks for TLS; enable the feature `redis-tls` of toolgate, or use `redis://`")]
    NoTls,
    /// The URL ends with `#insecure`, which would accept any certificate.
    #[error(
        "the URL of the store must not end with `#insecure`; for a private authority, give the builder a client \
         with its certificate"
    )]
    Insecure,
    /// The URL begins with `redis+cluster://`, and the feature `redis-cluster` is not enabled.
    #[error("the URL of the store is that of a cluster; enable the feature `redis-cluster` of toolgate")]
    NoCluster,
    /// The URL begins with `redis+sentinel://`, and the feature `redis-sentinel` is not enabled.
    #[error("the URL of the store is that of sentinels; enable the feature `redis-sentinel` of toolgate")]
    NoSentinel,
    /// The prefix is empty, too long, or has other characters.
    #[error("the prefix must be 1 to 64 visible ASCII characters without braces, such as `toolgate`")]
    Prefix,
    /// A time limit is zero or more than an hour.
    #[error("`{0}` must be more than zero and at most an hour")]
    Timeout(&'static str),
    /// The skew is more than 3000 days.
    #[error("`max_skew` must be at most 3000 days")]
    Skew,
    /// The time is too short, so that a retry could arrive after its first request was forgotten,
    /// or longer than a day.
    #[error("`remember` must be at least twice the deadline, and at most a day")]
    Remember,
}

impl BuildError {
    fn url(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Url { source: source.into() }
    }
}

/// The time limits of requests, and the settings of the circuit breaker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) response: Duration,
    pub(crate) deadline: Duration,
    /// After this many failures in a row, no request is sent for `cool_down`.
    pub(crate) failures: u32,
    pub(crate) cool_down: Duration,
}

/// Makes connections to a server.
#[derive(Clone)]
pub(crate) struct Connector {
    connect: Arc<dyn Fn(Timeouts) -> Connecting + Send + Sync>,
    /// A connection follows the changes of its cluster, so that an old one may work when no
    /// new one can be made.
    pub(crate) is_cluster: bool,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Box<dyn SharedConnection>, Cause>> + Send>>;

/// A connection that tasks share by cloning it.
pub(crate) trait SharedConnection: Send + Sync {
    fn duplicate(&self) -> Box<dyn SharedConnection>;
    fn request<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value>;
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> SharedConnection for C {
    fn duplicate(&self) -> Box<dyn SharedConnection> {
        Box::new(self.clone())
    }

    fn request<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        self.req_packed_command(cmd)
    }
}

impl Server {
    /// A connection that the host made. The store clones it for each request, and cannot replace
    /// it: use one that reconnects by itself, such as `redis::aio::ConnectionManager`, or
    /// [`connect_with`](Self::connect_with).
    pub fn over<C>(connection: C) -> Self
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        Self::made(false, move |_| {
            let connection = connection.clone();
            async move { Ok(connection) }
        })
    }

    /// A function that makes connections. It sets their time limits itself; the deadline of the
    /// store holds for the function and the request together.
    pub fn connect_with<F, Fut, C, E>(connect: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C, E>> + Send + 'static,
        C: ConnectionLike + Clone + Send + Sync + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self::made(false, move |_| {
            let connecting = connect();
            async move { connecting.await.map_err(Into::into) }
        })
    }

    /// A function that returns the URL for each new connection, for passwords and addresses that
    /// change.
    pub fn url_with<F, Fut, E>(url: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let connect = move |timeouts| -> Connecting {
            let url = url();
            Box::pin(async move {
                let url = url.await.map_err(Into::into)?;
                Self::from(url).connector()?.connect(timeouts).await
            })
        };
        Self(Kind::Made(Connector { connect: Arc::new(connect), is_cluster: false }))
    }

    fn made<C, Fut>(is_cluster: bool, connect: impl Fn(Timeouts) -> Fut + Send + Sync + 'static) -> Self
    where
        C: SharedConnection + 'static,
        Fut: Future<Output = Result<C, Cause>> + Send + 'static,
    {
        let connect = move |timeouts| -> Connecting {
            let connecting = connect(timeouts);
            Box::pin(async move { Ok(Box::new(connecting.await?) as Box<dyn SharedConnection>) })
        };
        Self(Kind::Made(Connector { connect: Arc::new(connect), is_cluster }))
    }

    /// Reads the URL, and fails if it is not valid.
    pub(crate) fn connector(&self) -> Result<Connector, BuildError> {
        match &self.0 {
            Kind::Made(connector) => Ok(connector.clone()),
            Kind::Client(client) => {
                prepare_tls(client.get_connection_info().addr());
                let client = client.clone();
                Self::made(false, move |timeouts| {
                    let client = client.clone();
                    async move {
                        let config = timeouts.of_connection();
                        Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
                    }
                })
                .connector()
            }
            Kind::Url(url) => {
                let url = url.trim();
                match url.split_once("://") {
                    Some((scheme @ ("redis+cluster" | "rediss+cluster"), rest)) => cluster(tls(scheme), rest)?,
                    Some((scheme @ ("redis+sentinel" | "rediss+sentinel"), rest)) => sentinel(tls(scheme), rest)?,
                    _ => Client::open(info(url)?).map_err(BuildError::url)?.into(),
                }
                .connector()
            }
        }
    }
}

impl Connector {
    pub(crate) fn connect(&self, timeouts: Timeouts) -> Connecting {
        (self.connect)(timeouts)
    }
}

impl Timeouts {
    fn of_connection(self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect))
            .set_response_timeout(Some(self.response))
    }
}

/// Returns the scheme of one server of the group.
fn tls(scheme: &str) -> &'static str {
    if scheme.starts_with("rediss") { "rediss" } else { "redis" }
}

/// Reads the URL of one server.
fn info(url: &str) -> Result<ConnectionInfo, BuildError> {
    if cfg!(not(feature = "redis-tls")) && (url.starts_with("rediss:") || url.starts_with("valkeys:")) {
        return Err(BuildError::NoTls);
    }
    let info = url.into_connection_info().map_err(BuildError::url)?;
    if let ConnectionAddr::TcpTls { insecure: true, .. } = info.addr() {
        return Err(BuildError::Insecure);
    }
    prepare_tls(info.addr());
    Ok(info.set_tcp_settings(tcp()))
}

/// A request is one small packet: waiting for more to send only costs time.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// Splits `user:password@host,host:port/path` into the URLs of its hosts, without the path, and the
/// path.
#[cfg(any(feature = "redis-cluster", feature = "redis-sentinel"))]
fn hosts<'u>(scheme: &'static str, rest: &'u str, port: u16) -> Result<(Vec<ConnectionInfo>, &'u str), BuildError> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').map_or(("", authority), |(login, hosts)| (login, hosts));
    let at = if login.is_empty() { "" } else { "@" };
    let hosts = hosts.split(',').map(|host| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        info(&match has_port {
            true => format!("{scheme}://{login}{at}{host}"),
            false => format!("{scheme}://{login}{at}{host}:{port}"),
        })
    });
    Ok((hosts.collect::<Result<_, _>>()?, path))
}

#[cfg(feature = "redis-cluster")]
fn cluster(scheme: &'static str, rest: &str) -> Result<Server, BuildError> {
    let (nodes, path) = hosts(scheme, rest, 6379)?;
    if !matches!(path, "" | "0") {
        return Err(BuildError::url("a cluster has no database except 0"));
    }
    // The client would wait for 1.28 s at least between two tries, which is most of a deadline.
    let client =
        redis::cluster::ClusterClientBuilder::new(nodes).min_retry_wait(5).max_retry_wait(100).tcp_settings(tcp());
    Ok(client.build().map_err(BuildError::url)?.into())
}

#[cfg(not(feature = "redis-cluster"))]
fn cluster(_: &'static str, _: &str) -> Result<Server, BuildError> {
    Err(BuildError::NoCluster)
}

#[cfg(feature = "redis-sentinel")]
fn sentinel(scheme: &'static str, rest: &str) -> Result<Server, BuildError> {
    use redis::TlsMode;
    use redis::sentinel::{SentinelClientBuilder, SentinelServerType};

    let (sentinels, path) = hosts(scheme, rest, 26379)?;
    let (name, db) = path.split_once('/').unwrap_or((path, "0"));
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) {
        return Err(BuildError::url("the name of the master is missing: `redis+sentinel://host:26379/master-name`"));
    }
    let db = db.parse().map_err(|_| BuildError::url("the database after the name of the master is not a number"))?;
    let login = sentinels.first().map(|info| info.redis_settings().clone()).unwrap_or_default();
    let addresses = sentinels.iter().map(|info| info.addr().clone());
    let mut client = SentinelClientBuilder::new(addresses, name, SentinelServerType::Master)
        .map_err(BuildError::url)?
        .set_client_to_redis_db(db)
        .set_client_to_redis_tcp_settings(tcp())
        .set_client_to_sentinel_tcp_settings(tcp());
    if scheme == "rediss" {
        client = client.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(name) = login.username() {
        client = client.set_client_to_redis_username(name);
    }
    if let Some(password) = login.password() {
        client = client.set_client_to_redis_password(password);
    }
    Ok(client.build().map_err(BuildError::url)?.into())
}

#[cfg(not(feature = "redis-sentinel"))]
fn sentinel(_: &'static str, _: &str) -> Result<Server, BuildError> {
    Err(BuildError::NoSentinel)
}

/// Installs a provider of cryptography for the process if there is none and this address needs one:
/// the client uses the default provider, and panics without one. A host that has chosen one keeps
/// it.
fn prepare_tls(address: &ConnectionAddr) {
    #[cfg(feature = "redis-tls")]
    if matches!(address, ConnectionAddr::TcpTls { .. }) && rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails if another thread has installed one meanwhile, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let _ = address;
}

impl From<String> for Server {
    fn from(url: String) -> Self {
        Self(Kind::Url(url))
    }
}

impl From<&str> for Server {
    fn from(url: &str) -> Self {
        url.to_owned().into()
    }
}

impl From<&String> for Server {
    fn from(url: &String) -> Self {
        url.clone().into()
    }
}

/// A client for one server, such as one with certificates. The time limits are the store's.
impl From<Client> for Server {
    fn from(client: Client) -> Self {
        Self(Kind::Client(Box::new(client)))
    }
}

/// A client for a cluster. The time limits are the store's; the waits between the client's own
/// retries are not, so shorten them: `min_retry_wait(5)` and `max_retry_wait(100)`.
#[cfg(feature = "redis-cluster")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis-cluster")))]
impl From<redis::cluster::ClusterClient> for Server {
    fn from(client: redis::cluster::ClusterClient) -> Self {
        let client = Arc::new(client);
        Self::made(true, move |timeouts| {
            let client = Arc::clone(&client);
            async move {
                let config = redis::cluster::ClusterConfig::new()
                    .set_connection_timeout(timeouts.connect)
                    .set_response_timeout(timeouts.response);
                Ok(client.get_async_connection_with_config(config).await?)
            }
        })
    }
}

/// A client that asks sentinels for the master. The time limits of requests are the store's.
#[cfg(feature = "redis-sentinel")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis-sentinel")))]
impl From<redis::sentinel::SentinelClient> for Server {
    fn from(client: redis::sentinel::SentinelClient) -> Self {
        let client = Arc::new(tokio::sync::Mutex::new(client));
        Self::made(false, move |timeouts| {
            let client = Arc::clone(&client);
            async move {
                let master = client.lock().await.async_get_client().await?;
                Ok(master.get_multiplexed_async_connection_with_config(&timeouts.of_connection()).await?)
            }
        })
    }
}

/// Leaves out the URL, which may hold a password.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}
