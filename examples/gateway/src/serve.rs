//! Listening: TCP with or without TLS, and Unix sockets.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::serve::Listener;
use futures_util::stream::{Stream, StreamExt, pending, select_all};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::fs::{FlockOperation, flock};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, UnixListener, UnixSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::SignalStream;
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
/// The number of connections to the operator's address from one client, and the number that wait.
const OPERATORS: u16 = 256;
const BACKLOG: u32 = 128;

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
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket that nobody else can have meanwhile. Dropping it removes it.
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Locked as long as the gateway lives, whichever way it ends. The file stays: if it were
    /// removed, two gateways could hold two locks of one name.
    _lock: File,
}

impl Address {
    /// Opens `ADDRESS:PORT`, or `unix:PATH` with mode 0600, in place of a socket that a gateway has
    /// left behind.
    pub(crate) async fn open(text: &str) -> Result<Self, String> {
        let said = |error: &dyn std::fmt::Display| format!("operator {text}: {error}");
        let Some(path) = text.strip_prefix("unix:") else {
            let address: SocketAddr =
                text.parse().map_err(|_| said(&"neither an address such as 127.0.0.1:9901 nor unix:PATH"))?;
            return TcpListener::bind(address).await.map(Self::Tcp).map_err(|error| said(&error));
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
        let listen = || {
            let socket = UnixSocket::new_stream()?;
            socket.bind(path)?;
            // Nobody can connect before it listens.
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
            socket.listen(BACKLOG)
        };
        let listener = listen().map_err(|error| said(&error))?;
        Ok(Self::Unix(listener, SocketFile { path: path.into(), _lock: lock }))
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
            token = hex::encode(bytes);
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
    ) -> Result<JoinHandle<()>, String> {
        let (tokens, hosts) = (self.tokens(&config.token_sha256)?, config.allow_hosts.clone());
        let state = OperatorState::new(Arc::clone(host), tokens, hosts, move || files.reload());
        let (app, tls, stop) = (operator::router(state), TlsInForce::default(), stop.cancelled_owned());
        Ok(tokio::spawn(async move {
            match self {
                Self::Tcp(listener) => drop(serve(listener, OPERATORS, tls, app, stop).await),
                Self::Unix(listener, _file) => drop(serve(listener, OPERATORS, tls, app, stop).await),
            }
        }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the signals that end the gateway, by number.
pub(crate) fn signals() -> impl Stream<Item = u8> + Unpin {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let numbers = kinds.into_iter().filter_map(|kind| {
        let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
        Some(SignalStream::new(signal(kind).ok()?).map(move |()| number))
    });
    select_all(numbers).chain(pending())
}
