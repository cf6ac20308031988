//! Starting and stopping.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use toolgate::store::{InProcess, MemoryStore};
use toolgate::{Gate, GateBuilder, Grants};

use crate::conversations::{Conversation, Conversations};
use crate::desk::DeskOf;
use crate::front::{Gateway, Store};
use crate::gateway::admin::Admin;
use crate::gateway::audit::audited;
use crate::gateway::log::{flush, say, say_plainly};
use crate::holders::{GrantsFile, Holders, Reading};
use crate::options::Options;
use crate::upstream::Upstream;

/// How many connections are served at once; others wait to be accepted.
const CONNECTIONS: usize = 4096;
/// How long a client may take for the head of a request, or stay connected without making one.
const HEAD: Duration = Duration::from_secs(60);
/// The longest head of a request.
const HEAD_BYTES: usize = 64 << 10;
/// How often files and sessions are looked at.
const EVERY: Duration = Duration::from_millis(500);
/// How long requests under way may take once the gateway is to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the gateway until it is told to stop.
pub(crate) fn run(options: Options) -> ExitCode {
    let started = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string());
    let done = started.and_then(|runtime| {
        // Before there are other threads at work: the socket's mode is the process's for a moment.
        let admin = options.admin.as_deref().map(Admin::open).transpose()?;
        let done = runtime.block_on(serve(options, admin));
        // Whatever still runs has had its time.
        runtime.shutdown_background();
        done
    });
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(error);
            ExitCode::FAILURE
        }
    };
    flush();
    code
}

async fn serve(options: Options, admin: Option<Admin>) -> Result<(), String> {
    let file = Arc::new(GrantsFile::new(options.grants.clone()));
    let gate = shared(Gate::builder().store(store(&options)?), &options)?;
    let gate = audited(gate, options.audit.as_deref(), options.require_audit)?.build();
    let grants = Grants::over(&gate);
    let authorization = options.upstream_token.as_deref().map(crate::upstream::authorization).transpose()?;
    let gateway = Arc::new(Gateway {
        upstream: Upstream::new(options.upstream.clone(), authorization),
        conversations: Conversations::new(options.sessions_per_grant, options.session_idle),
        holders: ArcSwap::from_pointee(Holders::default()),
        gate,
        grants,
        options,
    });
    file.read(|read| put_in_force(&gateway, read))?;
    let listener = TcpListener::bind(gateway.options.listen).await;
    let listener = listener.map_err(|error| format!("{}: {error}", gateway.options.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let _admin = admin.map(|mut admin| {
        admin.serve(Arc::new(DeskOf::new(Arc::clone(&gateway), Arc::clone(&file))));
        admin
    });
    if gateway.options.ungated {
        say("WARNING: --ungated: NOTHING IS JUDGED. Every call of every client passes. For measuring alone.");
    }
    if !address.ip().is_loopback() {
        say("tokens travel in plain text here: put a proxy with TLS in front");
    }
    say(format_args!("listening on http://{address}{}", gateway.options.path()));
    tokio::spawn(look_after(Arc::clone(&gateway), file));
    let (stop, stopping) = watch::channel(false);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::select! {
        () = accept(&listener, &gateway, &connections, &stopping) => {}
        told = told_to_stop() => told?,
    }
    drop(listener);
    stop.send_replace(true);
    // What only listens would go on for ever.
    gateway.conversations.for_each(Conversation::end_listeners);
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    if tokio::time::timeout(GRACE, connections.acquire_many(all)).await.is_err() {
        gateway.conversations.for_each(Conversation::close);
        let _ = tokio::time::timeout(GRACE / 4, connections.acquire_many(all)).await;
    }
    say("stopped");
    Ok(())
}

/// The counters: in Redis, shared with other gateways, or in memory. All else is one.
fn store(options: &Options) -> Result<Store, String> {
    match &options.redis {
        None => Ok(Box::new(InProcess(MemoryStore::new()))),
        #[cfg(feature = "redis")]
        Some(url) => {
            let store = toolgate::store::redis::RedisStore::builder(url).build().map_err(|error| error.to_string())?;
            Ok(Box::new(store))
        }
        #[cfg(not(feature = "redis"))]
        Some(_) => Err("--redis needs the feature `redis`".into()),
    }
}

/// The gate with its approvals where its counters are: what is asked for at one gateway may be approved at another.
fn shared(gate: GateBuilder<Store>, options: &Options) -> Result<GateBuilder<Store>, String> {
    match &options.redis {
        #[cfg(feature = "redis")]
        Some(url) => {
            let approvals = toolgate::approval::redis::RedisApprovals::builder(url).build();
            Ok(gate.approvals_async(approvals.map_err(|error| error.to_string())?))
        }
        _ => Ok(gate),
    }
}

/// Puts what was read in force, in place of what was.
pub(crate) fn put_in_force(gateway: &Gateway, read: Reading) {
    let former = gateway.holders.load_full();
    let Reading { mut holders, policies } = read;
    holders.put_in_force(policies, &former, &gateway.grants);
    gateway.holders.store(Arc::new(holders));
    // Whoever has no grant any more has no session either.
    let holders = gateway.holders.load();
    gateway.conversations.sweep(|conversation| holders.of_grant(&conversation.grant).is_none());
}

/// Reads files again when they change, and ends what has had its time.
async fn look_after(gateway: Arc<Gateway>, file: Arc<GrantsFile>) {
    let mut every = tokio::time::interval(EVERY);
    loop {
        every.tick().await;
        let file = Arc::clone(&file);
        let of_file = Arc::clone(&gateway);
        let news = tokio::task::spawn_blocking(move || file.look(|read| put_in_force(&of_file, read))).await;
        match news.ok().flatten() {
            None => {}
            Some(Ok(news)) => say(news),
            Some(Err(complaint)) => {
                say_plainly(complaint);
                say("the former grants and policies stay in force");
            }
        }
        gateway.conversations.sweep(|_| false);
        let holders = gateway.holders.load();
        gateway.conversations.for_each(|conversation| {
            if !holders.of_grant(&conversation.grant).is_some_and(|holder| holder.is_good()) {
                conversation.end_listeners();
            }
        });
    }
}

async fn accept(
    listener: &TcpListener,
    gateway: &Arc<Gateway>,
    connections: &Arc<Semaphore>,
    stopping: &watch::Receiver<bool>,
) {
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let serving = connection(client, Arc::clone(gateway), stopping.clone());
                tokio::spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            // Out of files, most likely: others will be closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(client: TcpStream, gateway: Arc<Gateway>, mut stopping: watch::Receiver<bool>) {
    // Answers are small, and waiting for more to send would only cost time.
    let _ = client.set_nodelay(true);
    let service = service_fn(move |request| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, std::convert::Infallible>(gateway.serve(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(client), service);
    tokio::pin!(connection);
    let stopped = async { stopping.wait_for(|stopping| *stopping).await.is_ok() };
    // A client that breaks off is its own affair.
    let _ = tokio::select! {
        done = connection.as_mut() => done,
        _ = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

async fn told_to_stop() -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    let mut terminate = signal(SignalKind::terminate()).map_err(said)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(said)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
