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
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use toolgate::mcp::{RefusalFormat, ServerState};

use self::lines::Lines;
use self::relay::{Limits, Relay};
use crate::cli::StdioOptions;
use crate::config::{Approvals, Audit, Pins, Store};
use crate::files::{Reader, Watched};
use crate::host::Host;
use crate::link::{Link, Speech};
use crate::serve::{self, Address};
use crate::who::Who;

/// How long calls under way may take once the client has closed its end.
const LAST_CALLS: Duration = Duration::from_secs(10);
/// How long the server may take to end after that, and after it has been asked to.
const GRACE: Duration = Duration::from_secs(2);
const LAST_GRACE: Duration = Duration::from_secs(1);
/// How often it is checked whether the last calls have ended.
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
pub(crate) async fn run(settings: StdioOptions) -> Result<ExitCode, String> {
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
    let operator = settings.operator();
    let page = match &operator {
        Some(operator) => Some(Address::open(&operator.listen).await?),
        None => None,
    };
    let audit = Audit { file: settings.audit, required: settings.require_audit, ..Audit::default() };
    let pins = Pins { on_changed_tool: settings.on_changed_tool, file: settings.pins };
    let approvals = Approvals { page: settings.approval_page, unseen: settings.approve_unseen };
    let host = Host::build(false, &Store::default(), &audit, &pins, &approvals, operator.is_some())?;
    host.set_policy_names(vec![server.clone()]);
    let (in_force, path) = (Arc::clone(&host), settings.policy);
    let files = Watched::new("the former policy stays in force", move |reader| {
        let policy = reader.read_policy(&path)?.with_namespace(&server);
        let (host, path) = (Arc::clone(&in_force), path.clone());
        Ok(Box::new(move || {
            let news =
                format!("{}: in force, {} entries, digest {}", path.display(), policy.entries(), policy.digest());
            host.gate.replace_policy(policy);
            host.changed.send_replace(());
            news
        }))
    });
    files.start()?;
    let child = Server::start(&settings.command)?;
    files.watch()?;
    let stop = CancellationToken::new();
    let operating = page.zip(operator.as_ref());
    let operating = operating.map(|(page, config)| page.operate(&host, config, files, stop.clone()));
    let operating = operating.transpose()?;
    let speech = Speech {
        format: settings.errors.then_some(RefusalFormat::Error),
        page: approvals.page,
        list_ttl: Duration::from_secs(settings.list_ttl.into()),
    };
    let session = speech.session(&ServerState::new(), &who, settings.integers_of_64_bits);
    let limits = Limits {
        timeout: (settings.timeout > 0).then(|| Duration::from_secs(settings.timeout.into())),
        longest_timeout: Duration::from_secs(settings.longest_timeout.into()),
        max_message: usize::try_from(settings.max_message.get()).unwrap_or(usize::MAX),
    };
    let link = Link::new(host, who, session, Arc::new(Semaphore::new(1)));
    let (end, status) = relay(child, link, limits).await;
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

/// Returns a name that no other connection has.
fn session_name() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("stdio-{}-{:x}", std::process::id(), now.as_nanos())
}

/// Passes messages on until the end, and ends the server.
async fn relay(
    (mut server, stdin, stdout): (Server, ChildStdin, ChildStdout),
    link: Link,
    limits: Limits,
) -> (End, io::Result<std::process::ExitStatus>) {
    // Few: each message may be as long as the bound.
    let ((to_client, for_client), (to_server, for_server)) = (mpsc::channel(4), mpsc::channel(4));
    let max_message = limits.max_message;
    let relay = Relay::new(link, limits, to_client, to_server.downgrade());
    let of_server = FramedRead::new(stdout, Lines::new(max_message));
    let of_client = FramedRead::new(tokio::io::stdin(), Lines::new(max_message));
    let mut writing = tokio::spawn(write_client(for_client));
    let mut served = spawn(Arc::clone(&relay).pass_from_server(of_server));
    let mut client = spawn(Arc::clone(&relay).pass_from_client(of_client, to_server));
    let others = [
        spawn(Arc::clone(&relay).write_server(stdin, for_server)),
        spawn(Arc::clone(&relay).give_up_late()),
        spawn(Arc::clone(&relay).report_changes()),
    ];
    let mut signals = serve::signals();
    let (mut end, mut server_speaks) = (None, true);
    let (mut until, mut last) = (Instant::now(), Instant::now());
    loop {
        tokio::select! {
            _ = &mut client, if end.is_none() => end = Some(End::Client),
            _ = &mut writing, if end.is_none() => end = Some(End::Client),
            _ = &mut served, if server_speaks => {
                server_speaks = false;
                // After the client, a server may close its end and still have work to do.
                if end.is_some() {
                    continue;
                }
                end = Some(End::Server);
                break;
            }
            _ = &mut server.ended => {
                end.get_or_insert(End::Server);
                break;
            }
            Some(signal) = signals.next() => {
                end.get_or_insert(End::Signal(signal));
                break;
            }
            () = sleep(TICK), if end.is_some() => {
                let now = Instant::now();
                // Calls under way are worth waiting for, as long as somebody reads their answers.
                if now < last && relay.link.is_at_work().await && !has_no_reader(&io::stdout()) {
                    until = now + GRACE;
                }
                if now >= until {
                    break;
                }
                continue;
            }
        }
        // The server's standard input closes when everything has been written.
        client.abort();
        (until, last) = (Instant::now() + GRACE, Instant::now() + LAST_CALLS);
    }
    let end = end.unwrap_or(End::Server);
    let status = server.end(LAST_GRACE).await;
    // What the server has written before its end is still in the pipe. A client that does not read
    // must not keep the gateway.
    if server_speaks {
        let _ = timeout(LAST_GRACE, served).await;
    }
    let why = if let End::Signal(_) = end { "the gateway is ending" } else { "the server has ended" };
    let _ = timeout(LAST_GRACE, relay.give_up_all(why)).await;
    drop((client, others, relay));
    if !writing.is_finished() {
        let _ = timeout(LAST_GRACE, writing).await;
    }
    (end, status)
}

/// Runs a task that ends with its handle.
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(task))
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

/// The server: a child process in a process group of its own, so that what it starts ends with it.
struct Server {
    child: Child,
    group: Pid,
    /// The process has ended. Until [`Server::end`] has taken note of it, no other has its number.
    ended: oneshot::Receiver<()>,
}

impl Server {
    /// Starts it, with our standard error. Returns the pipes to it and from it too.
    fn start(command: &[OsString]) -> Result<(Self, ChildStdin, ChildStdout), String> {
        let (program, arguments) = command.split_first().ok_or("no server: COMMAND ARGS... come after `--`")?;
        let said = |error: &dyn std::fmt::Display| format!("cannot start {}: {error}", program.display());
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|error| said(&error))?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = pipes else { return Err(said(&"it has no pipes")) };
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or_else(|| said(&"it has ended"))?;
        let (sender, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(group), options) {}
            sender.send(())
        });
        Ok((Self { child, group, ended }, stdin, stdout))
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
