//! The gateway on standard input and output: one client, one server, a thread for each direction.

mod child;
mod desk;
mod lines;
mod outline;
mod relay;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use toolgate::Gate;

use crate::gateway::admin::Admin;
use crate::gateway::audit::audited;
use crate::gateway::log::say;
use crate::gateway::options::Options;
use crate::gateway::pins::Pins;
use crate::gateway::policy_file::PolicyFile;
use child::Server;
use desk::GateDesk;
use relay::Relay;

/// How long calls that are under way may take once the client has no more to say.
const LAST_CALLS: Duration = Duration::from_secs(10);
/// How long the server may take to end after that, and once it has been told to.
const GRACE: Duration = Duration::from_secs(2);
const LAST_GRACE: Duration = Duration::from_secs(1);
/// How often requests are looked at that wait for too long.
const TICK: Duration = Duration::from_millis(100);

/// Why it is over.
enum End {
    /// The client has closed its end, or reads no more.
    Client,
    /// The server has ended.
    Server,
    /// The server has closed its end.
    ServerClosed,
    Signal(i32),
}

/// Tells of the end when a direction has ended, in whichever way.
struct Told {
    ends: Sender<End>,
    end: fn() -> End,
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.ends.send((self.end)());
    }
}

/// Runs the gateway until either end has gone, or a signal comes.
pub(crate) fn run(mut options: Options, command: &[OsString]) -> Result<ExitCode, String> {
    let program = command.first().ok_or("no server: COMMAND ARGS... come after `--`")?;
    let caller = &mut options.caller;
    let name = Path::new(program).file_name().map_or("server".into(), |name| name.to_string_lossy().into_owned());
    let server_name = caller.server.get_or_insert(name).clone();
    // A connection is a session.
    caller.session.get_or_insert_with(session_name);

    let (policy, seen) = PolicyFile::read_first(&options.policy, &server_name)?;
    let mut admin = options.admin.as_deref().map(Admin::open).transpose()?;
    let pins = Pins::open(&options)?;
    let gate = audited(Gate::builder().policy(policy), options.audit.as_deref(), options.require_audit)?.build();
    let put_in_force = gate.clone();
    let file = PolicyFile::new(&options.policy, &server_name, seen, move |policy| {
        put_in_force.replace_policy(policy);
    });

    let (ends, end) = mpsc::channel();
    hear_signals(&ends)?;
    let (server, to_server, from_server) = Server::start(command)?;
    let relay = Arc::new(Relay::new(gate.clone(), pins, &options, to_server));
    let ended = ends.clone();
    server.when_ended(move || drop(ended.send(End::Server)));
    file.watch();
    if let Some(admin) = &mut admin {
        admin.serve(Arc::new(GateDesk { gate, caller: options.caller, file }));
    }
    let reader = read_server(&relay, from_server, &ends);
    read_client(&relay, &ends);
    watch_the_time(&relay);

    let (first, status) = stand_until_the_end(&relay, server, &end);
    // What the server has written before its end is still in the pipe.
    within(LAST_GRACE, || reader.is_finished());
    let why = match first {
        End::Signal(_) => "the gateway is ending",
        End::Client | End::Server | End::ServerClosed => "the server has ended",
    };
    // A client that does not read must not keep the gateway.
    let last = thread::spawn(move || relay.give_up_all(why));
    within(LAST_GRACE, || last.is_finished());
    Ok(match first {
        End::Client => ExitCode::SUCCESS,
        End::Signal(number) => ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX)),
        End::Server | End::ServerClosed => {
            match status {
                Ok(status) => say(format_args!("the server has ended: {status}")),
                Err(error) => say(format_args!("the server has ended: {error}")),
            }
            ExitCode::FAILURE
        }
    })
}

/// A name that no other connection has.
fn session_name() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("stdio-{}-{:x}", std::process::id(), now.as_nanos())
}

fn hear_signals(ends: &Sender<End>) -> Result<(), String> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| format!("signals: {error}"))?;
    let ends = ends.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            let _ = ends.send(End::Signal(signal));
        }
    });
    Ok(())
}

fn read_client(relay: &Arc<Relay>, ends: &Sender<End>) {
    let (relay, ends) = (Arc::clone(relay), ends.clone());
    let told = Told { ends, end: || End::Client };
    thread::spawn(move || {
        let _told = told;
        if let Err(error) = relay.read_client(io::stdin()) {
            say(format_args!("the client: {error}"));
        }
    });
}

fn read_server(relay: &Arc<Relay>, from: impl io::Read + Send + 'static, ends: &Sender<End>) -> JoinHandle<()> {
    let (relay, ends) = (Arc::clone(relay), ends.clone());
    let told = Told { ends: ends.clone(), end: || End::ServerClosed };
    thread::spawn(move || {
        let _told = told;
        if let Err(error) = relay.read_server(from, || drop(ends.send(End::Client))) {
            say(format_args!("the server: {error}"));
        }
    })
}

fn watch_the_time(relay: &Arc<Relay>) {
    let relay = Arc::clone(relay);
    thread::spawn(move || {
        loop {
            thread::sleep(TICK);
            relay.give_up(Instant::now());
        }
    });
}

/// Waits for the end, and ends the server: by closing its standard input if the client has gone, else by a signal.
fn stand_until_the_end(relay: &Arc<Relay>, server: Server, end: &Receiver<End>) -> (End, io::Result<ExitStatus>) {
    // All who could send have gone: not while the signals are heard.
    let first = end.recv().unwrap_or(End::ServerClosed);
    if let End::Client = first {
        let closing = Arc::clone(relay);
        // Whoever writes to a server that does not read has its lock.
        thread::spawn(move || closing.close_server());
        // What is under way is worth an answer, as long as there is somebody to read it.
        let (mut until, last) = (Instant::now() + GRACE, Instant::now() + LAST_CALLS);
        // A server may close its end, and still have work to finish.
        while let Ok(End::Client | End::ServerClosed) | Err(RecvTimeoutError::Timeout) = end.recv_timeout(TICK) {
            let now = Instant::now();
            if relay.is_at_work() && now < last && !child::has_no_reader(&io::stdout()) {
                until = now + GRACE;
            }
            if now >= until {
                break;
            }
        }
    }
    let status = server.end(LAST_GRACE);
    (first, status)
}

fn within(time: Duration, done: impl Fn() -> bool) {
    let until = Instant::now() + time;
    while !done() && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
}
