//! Listening: TCP with or without TLS, and Unix sockets.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::fs::{FlockOperation, Mode, flock};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::callers::parse_digest;
use crate::config::{Operator, Tls};
use crate::files::{Reader, Watched};
use crate::host::Host;
use crate::operator::{self, OperatorState};

/// The number of connections that are served at once; others wait to be accepted.
const CONNECTIONS: usize = 4096;
/// How long a client may take for the head of a request or for a TLS handshake.
const HEAD: Duration = Duration::from_secs(10);
/// The longest head of a request.
const HEAD_BYTES: usize = 64 << 10;
/// The number of connections to the operator's address from one client.
const OPERATORS: u16 = 256;

/// The TLS in force. It can be replaced while connections are made.
pub(crate) type TlsInForce = Arc<ArcSwapOption<rustls::ServerConfig>>;

/// Reads a certificate chain and its key.
pub(crate) fn tls_config(tls: &Tls, reader: &mut Reader) -> Result<Arc<rustls::ServerConfig>, String> {
    let said = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain = reader.read(&tls.certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| said(&tls.certificate, &error))?;
    let key = PrivateKeyDer::from_pem_slice(&reader.read(&tls.key)?).map_err(|error| said(&tls.key, &error))?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|error| said(&tls.certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The address of a client, as far as connections are counted by it.
pub(crate) trait Peer {
    /// Returns the network whose connections are counted; `None` if they are not.
    fn network(&self) -> Option<IpAddr>;
}

impl Peer for SocketAddr {
    fn network(&self) -> Option<IpAddr> {
        Some(match self.ip().to_canonical() {
            // Whoever has one address of IPv6 has a whole network of them.
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
            ip => ip,
        })
    }
}

impl Peer for tokio::net::unix::SocketAddr {
    fn network(&self) -> Option<IpAddr> {
        None
    }
}

/// Serves until `stop`, at most `per_peer` connections of one client. What it returns waits for the
/// requests under way.
pub(crate) async fn serve<L: Listener<Addr: Peer>>(
    mut listener: L,
    per_peer: u16,
    tls: TlsInForce,
    app: Router,
    stop: impl Future<Output = ()>,
) -> GracefulShutdown {
    let (places, graceful) = (Arc::new(Semaphore::new(CONNECTIONS)), GracefulShutdown::new());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    // Each open connection holds the value of its peer.
    let mut peers: HashMap<IpAddr, Arc<()>> = HashMap::new();
    let accepting = async {
        // Never closed.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let (client, address) = listener.accept().await;
            if peers.len() > CONNECTIONS {
                peers.retain(|_, open| Arc::strong_count(open) > 1);
            }
            let peer = address.network().map(|network| Arc::clone(peers.entry(network).or_default()));
            if peer.as_ref().is_some_and(|peer| Arc::strong_count(peer) > usize::from(per_peer) + 1) {
                continue;
            }
            let (http, service, watcher) = (http.clone(), TowerToHyperService::new(app.clone()), graceful.watcher());
            let tls = tls.load_full();
            tokio::spawn(async move {
                let _held = (place, peer);
                // A client that breaks off is its own affair.
                match tls {
                    None => drop(watcher.watch(http.serve_connection(TokioIo::new(client), service)).await),
                    Some(tls) => {
                        if let Ok(Ok(client)) = timeout(HEAD, TlsAcceptor::from(tls).accept(client)).await {
                            drop(watcher.watch(http.serve_connection(TokioIo::new(client), service)).await);
                        }
                    }
                }
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop => {}
    }
    graceful
}

/// The operator's address.
pub(crate) enum Address {
    Tcp(std::net::TcpListener),
    Unix(Socket),
}

/// A Unix socket that nobody else can have meanwhile. Dropping it removes it.
pub(crate) struct Socket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
    /// Locked as long as the gateway lives, whichever way it ends. The file stays: if it were
    /// removed, two gateways could hold two locks of one name.
    _lock: File,
}

impl Address {
    /// Opens `ADDRESS:PORT`, or `unix:PATH` with mode 0600, in place of a socket that a gateway has
    /// left behind. Call it before there are other threads: files made meanwhile get its mode.
    pub(crate) fn open(text: &str) -> Result<Self, String> {
        let said = |error: &dyn std::fmt::Display| format!("operator {text}: {error}");
        let Some(path) = text.strip_prefix("unix:") else {
            let address: SocketAddr =
                text.parse().map_err(|_| said(&"neither an address such as 127.0.0.1:9901 nor unix:PATH"))?;
            let listener = std::net::TcpListener::bind(address).map_err(|error| said(&error))?;
            listener.set_nonblocking(true).map_err(|error| said(&error))?;
            return Ok(Self::Tcp(listener));
        };
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(format!("{path}.lock"));
        let lock = lock.map_err(|error| said(&error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => said(&"another gateway has it"),
            error => said(&error),
        })?;
        match fs::symlink_metadata(path) {
            // A program of another kind, which does not know the lock, may be behind it.
            Ok(found) if found.file_type().is_socket() && UnixStream::connect(path).is_ok() => {
                return Err(said(&"another program has it"));
            }
            Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(|error| said(&error))?,
            Ok(_) => return Err(said(&"there is a file of that name that is not a socket")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(said(&error)),
        }
        let former = rustix::process::umask(Mode::from_raw_mode(0o177));
        let listener = std::os::unix::net::UnixListener::bind(path);
        rustix::process::umask(former);
        let listener = listener.map_err(|error| said(&error))?;
        listener.set_nonblocking(true).map_err(|error| said(&error))?;
        Ok(Self::Unix(Socket { listener, path: path.into(), _lock: lock }))
    }

    /// Returns the digests of the tokens that may use the address: `None` for a socket, which its
    /// mode guards. A TCP address without tokens gets a new one, which is logged.
    fn tokens(&self, digests: &[String]) -> Result<Option<Vec<[u8; 32]>>, String> {
        let Self::Tcp(listener) = self else { return Ok(None) };
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let digest = |text: &String| parse_digest(text).ok_or("operator: a digest has 64 hexadecimal digits");
        let mut digests = digests.iter().map(digest).collect::<Result<Vec<_>, _>>()?;
        let mut token = String::new();
        if digests.is_empty() {
            let mut bytes = [0; 24];
            let random = rustls::crypto::ring::default_provider().secure_random;
            random.fill(&mut bytes).map_err(|_| "the system has no random numbers")?;
            token = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            digests.push(Sha256::digest(&token).into());
            token.insert_str(0, "#token=");
        }
        tracing::info!("operator page on http://{address}/{token}");
        Ok(Some(digests))
    }

    /// Serves the operator's routes in a task of its own, until `stop`.
    pub(crate) fn operate(
        self,
        host: &Arc<Host>,
        config: &Operator,
        files: Arc<Watched>,
        stop: CancellationToken,
    ) -> Result<JoinHandle<io::Result<()>>, String> {
        let (tokens, hosts) = (self.tokens(&config.token_sha256)?, config.allow_hosts.clone());
        let state = OperatorState::new(Arc::clone(host), tokens, hosts, move || files.reload());
        let app = operator::router(state);
        Ok(tokio::spawn(async move { self.serve(app, stop.cancelled_owned()).await }))
    }

    async fn serve(self, app: Router, stop: impl Future<Output = ()>) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => {
                serve(TcpListener::from_std(listener)?, OPERATORS, TlsInForce::default(), app, stop).await;
            }
            Self::Unix(socket) => {
                let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
                serve(listener, OPERATORS, TlsInForce::default(), app, stop).await;
            }
        }
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
