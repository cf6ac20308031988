//! The gateway on standard input and output: one client and one server.

mod lines;
mod outline;
mod relay;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;
use toolgate::mcp::{CallOutcome, RefusalFormat, RequestId, Session};

use self::lines::Lines;
use self::relay::{Outbox, Relay, ToServer};
use crate::cli::StdioOptions;
use crate::config::{Audit, Pins, Store};
use crate::files::{Reader, Watched};
use crate::host::{Host, Parts};
use crate::serve::Address;
use crate::who::Who;

/// How long calls under way may take once the client has closed its end.
const LAST_CALLS: Duration = Duration::from_secs(10);
/// How long the server may take to end after that, and after it has been asked to.
const GRACE: Duration = Duration::from_secs(2);
const LAST_GRACE: Duration = Duration::from_secs(1);
/// How often late requests are looked for.
const TICK: Duration = Duration::from_millis(100);

/// Why the gateway ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client has closed its end, or does not read any more.
    Client,
    /// The server has ended, or closed its end.
    Server,
    Signal(u8),
}

/// Runs the gateway until either end has gone, or a signal comes.
pub(crate) fn run(settings: StdioOptions) -> Result<ExitCode, String> {
    let program = settings.command.first().ok_or("no server: COMMAND ARGS... come after `--`")?;
    let file_name = Path::new(program).file_name().map(|name| name.to_string_lossy().into_owned());
    let server = settings.server.clone().or(file_name).unwrap_or("server".into());
    let who = Who {
        server: Some(server.clone()),
        grant: settings.grant.clone(),
        // A connection is a session.
        session: settings.session.clone().or_else(|| Some(session_name())),
        agent: settings.agent.clone(),
        user: settings.user.clone(),
        context: (!settings.context.is_empty()).then(|| settings.context.iter().cloned().collect()),
    };
    Reader::default().read_policy(&settings.policy)?;
    // Before there are other threads: the mode of a socket is that of the process for a moment.
    let address = settings.operator.as_deref().map(Address::open).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let code = runtime.block_on(async {
        let parts = Parts {
            with_grants: false,
            store: &Store::default(),
            audit: &Audit { file: settings.audit.clone(), required: settings.require_audit },
            pins: &Pins { on_changed_tool: settings.on_changed_tool, file: settings.pins.clone() },
            has_operator: address.is_some(),
        };
        let host = Arc::new(Host::build(parts)?);
        host.set_policy_names(vec![server.clone()]);
        serve(settings, who, server, host, address).await
    });
    // A read of standard input cannot be stopped.
    runtime.shutdown_background();
    code
}

/// Returns a name that no other connection has.
fn session_name() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("stdio-{}-{:x}", std::process::id(), now.as_nanos())
}

async fn serve(
    settings: StdioOptions,
    who: Who,
    server: String,
    host: Arc<Host>,
    operator: Option<Address>,
) -> Result<ExitCode, String> {
    let (in_force, path) = (Arc::clone(&host), settings.policy);
    let files = Watched::new("the former policy stays in force", move |reader| {
        let policy = reader.read_policy(&path)?.with_namespace(&server);
        let (host, path) = (Arc::clone(&in_force), path.clone());
        Ok(Box::new(move || {
            let news =
                format!("{}: in force, {} entries, digest {}", path.display(), policy.entries(), policy.digest());
            host.gate.replace_policy(policy);
            news
        }))
    });
    files.start()?;
    let child = Server::start(&settings.command)?;
    files.watch()?;
    let stop = CancellationToken::new();
    let tokens = &settings.operator_token_sha256;
    let operating = operator.map(|address| address.operate(&host, tokens, files, stop.clone())).transpose()?;
    let session = if settings.errors { Session::new().with_form(RefusalFormat::Error) } else { Session::new() };
    let timeout_seconds = (settings.timeout > 0).then(|| Duration::from_secs(settings.timeout.into()));
    let limits = (timeout_seconds, usize::try_from(settings.max_message.get()).unwrap_or(usize::MAX));
    let (end, status) = relay(child, |outboxes| Relay::new(host, who, session, limits, outboxes), limits.1).await;
    stop.cancel();
    if let Some(operating) = operating {
        let _ = timeout(LAST_GRACE, operating).await;
    }
    Ok(match end {
        End::Client => ExitCode::SUCCESS,
        End::Signal(number) => ExitCode::from(128 + number),
        End::Server => {
            match status {
                Ok(status) => tracing::error!("the server has ended: {status}"),
                Err(error) => tracing::error!("the server has ended: {error}"),
            }
            ExitCode::FAILURE
        }
    })
}

/// Passes messages on until the end, and ends the server.
async fn relay(
    mut server: Server,
    relay: impl FnOnce((Outbox<String>, Outbox<ToServer>)) -> Relay,
    bound: usize,
) -> (End, io::Result<std::process::ExitStatus>) {
    let ((to_client, for_client), (to_server, for_server)) = (Outbox::new(), Outbox::new());
    let mut relay = relay((to_client, to_server));
    let (lost, mut failures) = mpsc::unbounded_channel();
    let mut from_client = FramedRead::new(tokio::io::stdin(), Lines::new(bound));
    let mut from_server = server.child.stdout.take().map(|stdout| FramedRead::new(stdout, Lines::new(bound)));
    let mut client = tokio::spawn(write_client(for_client));
    tokio::spawn(write_server(server.child.stdin.take(), for_server, lost));
    let mut signals = Signals::new();
    let mut tick = tokio::time::interval(TICK);
    let mut end = None;
    let (mut until, mut last) = (Instant::now(), Instant::now());
    loop {
        let has_room = !relay.to_client.is_full();
        let server_has_room = relay.to_server.as_ref().is_some_and(|server| !server.is_full());
        tokio::select! {
            line = from_client.next(), if end.is_none() && has_room && server_has_room => match line {
                Some(Ok(line)) => relay.take_from_client(line).await,
                Some(Err(_)) | None => end = Some(End::Client),
            },
            line = next(&mut from_server), if has_room && from_server.is_some() => match line {
                Some(Ok(line)) => relay.take_from_server(line).await,
                Some(Err(_)) | None => {
                    from_server = None;
                    // After the client, a server may close its end and still have work to do.
                    if end.is_none() {
                        end = Some(End::Server);
                        break;
                    }
                }
            },
            () = relay.to_client.make_room(), if !has_room => {}
            () = make_room(&mut relay.to_server), if !server_has_room && relay.to_server.is_some() => {}
            _ = &mut client, if end.is_none() => end = Some(End::Client),
            Some((id, outcome)) = failures.recv() => relay.fail(&id, outcome).await,
            _ = &mut server.ended => {
                end.get_or_insert(End::Server);
                break;
            }
            signal = signals.next() => {
                end.get_or_insert(End::Signal(signal));
                break;
            }
            now = tick.tick() => {
                relay.give_up_late().await;
                // Calls under way are worth waiting for, as long as somebody reads their answers.
                if end.is_some() && relay.is_at_work() && now < last && !has_no_reader(&io::stdout()) {
                    until = now + GRACE;
                }
                if end.is_some() && now >= until {
                    break;
                }
            }
        }
        if end.is_some() && relay.to_server.take().is_some() {
            // The server's standard input closes when everything has been written.
            (until, last) = (Instant::now() + GRACE, Instant::now() + LAST_CALLS);
        }
    }
    let end = end.unwrap_or(End::Server);
    let status = server.end(LAST_GRACE).await;
    // What the server has written before its end is still in the pipe. A client that does not read
    // must not keep the gateway.
    let deadline = Instant::now() + LAST_GRACE;
    while let Ok(Some(Ok(line))) = timeout_at(deadline, next(&mut from_server)).await {
        relay.take_from_server(line).await;
        if timeout_at(deadline, relay.to_client.make_room()).await.is_err() {
            break;
        }
    }
    relay.give_up_all(if let End::Signal(_) = end { "the gateway is ending" } else { "the server has ended" }).await;
    let _ = timeout(LAST_GRACE, relay.to_client.make_room()).await;
    drop(relay);
    if !client.is_finished() {
        let _ = timeout(LAST_GRACE, client).await;
    }
    (end, status)
}

async fn next<S: StreamExt + Unpin>(stream: &mut Option<S>) -> Option<S::Item> {
    stream.as_mut()?.next().await
}

async fn make_room<T>(outbox: &mut Option<Outbox<T>>) {
    if let Some(outbox) = outbox {
        outbox.make_room().await;
    }
}

/// Writes messages until there are no more, or nobody reads them.
async fn write_client(mut messages: mpsc::Receiver<String>) -> io::Result<()> {
    let mut client = tokio::io::stdout();
    while let Some(mut message) = messages.recv().await {
        message.push('\n');
        client.write_all(message.as_bytes()).await?;
        if messages.is_empty() {
            client.flush().await?;
        }
    }
    Ok(())
}

/// Writes messages until there are no more. Reports each request that could not be sent.
async fn write_server(
    mut server: Option<impl AsyncWrite + Unpin>,
    mut messages: mpsc::Receiver<ToServer>,
    lost: mpsc::UnboundedSender<(RequestId, CallOutcome)>,
) {
    while let Some((mut message, id)) = messages.recv().await {
        message.push('\n');
        let sent = match &mut server {
            Some(server) => send(server, message.as_bytes()).await,
            None => Err(CallOutcome::NotRun),
        };
        if let Err(outcome) = sent {
            server = None;
            id.map(|id| lost.send((id, outcome)));
        }
    }
}

/// Writes the whole message. A server that has read nothing of it has done nothing; if it has read
/// a part, nobody knows.
async fn send(server: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> Result<(), CallOutcome> {
    let (mut outcome, mut rest) = (CallOutcome::NotRun, message);
    while !rest.is_empty() {
        match server.write(rest).await {
            Ok(0) | Err(_) => return Err(outcome),
            Ok(written) => {
                rest = rest.get(written..).unwrap_or_default();
                outcome = CallOutcome::Unclear(None);
            }
        }
    }
    server.flush().await.map_err(|_| outcome)
}

/// The signals that end the gateway.
struct Signals(Vec<(u8, tokio::signal::unix::Signal)>);

impl Signals {
    fn new() -> Self {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let number = |kind: SignalKind| u8::try_from(kind.as_raw_value()).unwrap_or_default();
        Self(kinds.into_iter().filter_map(|kind| Some((number(kind), signal(kind).ok()?))).collect())
    }

    async fn next(&mut self) -> u8 {
        let waiting =
            self.0.iter_mut().map(|(number, signal)| Box::pin(async { signal.recv().await.map(|()| *number) }));
        futures_util::future::select_all(waiting).await.0.unwrap_or_default()
    }
}

/// The server: a child process in a process group of its own, so that what it starts ends with it.
struct Server {
    child: Child,
    group: Pid,
    /// The process has ended. Until [`Server::end`] has taken note of it, no other has its number.
    ended: oneshot::Receiver<()>,
}

impl Server {
    /// Starts it, with our standard error.
    fn start(command: &[OsString]) -> Result<Self, String> {
        let (program, arguments) = command.split_first().ok_or("no server: COMMAND ARGS... come after `--`")?;
        let said = |error: &dyn std::fmt::Display| format!("cannot start {}: {error}", program.display());
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(|error| said(&error))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or_else(|| said(&"it has ended"))?;
        let (sender, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(group), options) {}
            sender.send(())
        });
        Ok(Self { child, group, ended })
    }

    /// Asks it to end, and ends it if it does not within `grace`. What it has started and left
    /// behind ends too.
    async fn end(mut self, grace: Duration) -> io::Result<std::process::ExitStatus> {
        // Nothing may be left of the group.
        let _ = kill_process_group(self.group, Signal::TERM);
        if !self.ended.is_terminated() && timeout(grace, &mut self.ended).await.is_err() {
            tracing::warn!("the server does not end: it is killed");
        }
        let _ = kill_process_group(self.group, Signal::KILL);
        self.child.wait().await
    }
}

/// Returns whether the reader of a pipe has gone.
fn has_no_reader(pipe: &io::Stdout) -> bool {
    let mut pipes = [PollFd::new(pipe, PollFlags::empty())];
    let reported = poll(&mut pipes, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    reported.is_ok() && pipes.iter().any(|pipe| pipe.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}
