//! The admin socket: people look at what a gateway does, and answer what it asks them.
//!
//! A line is a command; its answer is lines, of which the last is `ok`, or begins with `error: `. So `nc -U SOCKET` serves as well as
//! the client. Whoever may open the socket may approve in any name: its mode is 0600, and its folder is the administrator's to guard.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, flock};
use toolgate::approval::{Approval, ApprovalId, Verdict};
use toolgate::{Identity, LimitState, Policy};

use super::caller::Caller;
use super::text::{plain, plain_up_to};

/// The longest command.
const COMMAND: u64 = 4096;
/// How many clients are served at once, and how long one may be silent.
const CLIENTS: usize = 16;
const SILENCE: Duration = Duration::from_secs(60);

/// What the commands are about: a gateway, whether its gate is asked in the process or across a network. Errors are for people.
pub(crate) trait Desk: Send + Sync {
    /// What waits for a person, the oldest first.
    fn pending(&self) -> Result<Vec<Approval>, String>;
    /// Approves or refuses, in the name of `by`.
    fn decide(&self, id: &ApprovalId, verdict: Verdict, by: &str) -> Result<Approval, String>;
    /// Who calls, where a command does not say otherwise.
    fn caller(&self) -> Caller;
    /// How the counters of a caller stand.
    fn usage(&self, caller: &Caller) -> Result<Vec<LimitState>, String>;
    /// The policies in force, each with a name.
    fn policies(&self) -> Vec<(String, Option<Policy>)>;
    /// Reads the policies' files again.
    fn reload(&self) -> Result<String, String>;
}

/// The socket of a gateway that runs. No other gateway can have it meanwhile; dropping it takes it away.
pub(crate) struct Admin {
    listener: Option<UnixListener>,
    path: PathBuf,
    /// Locked as long as the gateway lives, whichever way it ends. The file stays: were it removed, two gateways could hold two
    /// locks of one name.
    _lock: File,
}

impl Admin {
    /// Makes the socket, in place of one that a gateway has left behind. Call it before there are threads: files that are made
    /// meanwhile get its mode.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let said = |error: &dyn std::fmt::Display| format!("admin socket {}: {error}", path.display());
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(&beside);
        let lock = lock.map_err(|error| said(&error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => said(&"another gateway has it"),
            error => said(&error),
        })?;
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                // A program of another kind, which does not know the lock, may be behind it.
                if UnixStream::connect(path).is_ok() {
                    return Err(said(&"another program has it"));
                }
                fs::remove_file(path).map_err(|error| said(&error))?;
            }
            Ok(_) => return Err(said(&"there is a file of that name that is not a socket")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(said(&error)),
        }
        let former = rustix::process::umask(Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path);
        rustix::process::umask(former);
        let listener = Some(listener.map_err(|error| said(&error))?);
        Ok(Self { listener, path: path.into(), _lock: lock })
    }

    /// Answers whoever comes, as long as the gateway runs.
    pub(crate) fn serve(&mut self, desk: Arc<dyn Desk>) {
        let Some(listener) = self.listener.take() else { return };
        let clients = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(mut client) = client else {
                    thread::sleep(Duration::from_millis(100));
                    continue;
                };
                if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS {
                    clients.fetch_sub(1, Ordering::Relaxed);
                    let _ = client.write_all(b"error: too many clients\n");
                    continue;
                }
                let (desk, clients) = (Arc::clone(&desk), Arc::clone(&clients));
                thread::spawn(move || {
                    // A client that has gone is no loss.
                    let _ = answer(&client, &*desk);
                    clients.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn answer(client: &UnixStream, desk: &dyn Desk) -> io::Result<()> {
    client.set_read_timeout(Some(SILENCE))?;
    client.set_write_timeout(Some(SILENCE))?;
    let mut commands = BufReader::new(client);
    let mut answers = client;
    loop {
        let mut command = Vec::new();
        let read = Read::by_ref(&mut commands).take(COMMAND).read_until(b'\n', &mut command)?;
        if read == 0 {
            return Ok(());
        }
        let is_long = !command.ends_with(b"\n") && command.len() as u64 >= COMMAND;
        if is_long {
            commands.skip_until(b'\n')?;
        }
        let answer = match std::str::from_utf8(&command) {
            _ if is_long => Err("the command is too long".into()),
            Err(_) => Err("the command is not UTF-8".into()),
            Ok(command) => obey(command.trim(), desk),
        };
        let answer = match answer {
            Ok(text) if text.is_empty() => "ok\n".to_owned(),
            Ok(text) => format!("{}\nok\n", text.trim_end_matches('\n')),
            Err(why) => match why.rsplit_once('\n') {
                None => format!("error: {why}\n"),
                Some((lines, last)) => format!("{lines}\nerror: {last}\n"),
            },
        };
        answers.write_all(answer.as_bytes())?;
    }
}

const COMMANDS: &str =
    "pending | approve ID --by NAME | refuse ID --by NAME | usage [--grant G --session S ...] | policy | reload";

fn obey(command: &str, desk: &dyn Desk) -> Result<String, String> {
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    let rest = rest.trim();
    match verb {
        "pending" if rest.is_empty() => pending(desk),
        "approve" => decide(desk, rest, Verdict::Approve),
        "refuse" => decide(desk, rest, Verdict::Refuse),
        "usage" => usage(desk, rest),
        "policy" if rest.is_empty() => Ok(policies(desk)),
        "reload" if rest.is_empty() => desk.reload(),
        _ => Err(format!("the commands are: {COMMANDS}")),
    }
}

fn pending(desk: &dyn Desk) -> Result<String, String> {
    let pending = desk.pending()?;
    let mut text = String::new();
    for approval in &pending {
        describe(&mut text, approval);
    }
    if pending.is_empty() {
        text.push_str("nothing waits");
    }
    Ok(text)
}

const IDENTITIES: [Identity; 5] =
    [Identity::Grant, Identity::Session, Identity::Agent, Identity::User, Identity::Server];

fn describe(text: &mut String, approval: &Approval) {
    let callers = IDENTITIES.into_iter().filter_map(|identity| {
        let name = approval.identity(identity)?;
        Some(format!("{} {}", identity.as_str(), plain(name)))
    });
    let callers: Vec<_> = callers.collect();
    // Whole: nobody should approve what is cut off.
    let with = match approval.details() {
        Some(details) => plain_up_to(usize::MAX, details),
        None => format!("arguments of {} bytes, which are not kept", approval.details_bytes()),
    };
    let lines = [
        ("tool", plain(approval.tool())),
        ("caller", callers.join(", ")),
        ("reason", plain(approval.reason())),
        ("with", with),
        ("since", approval.made_at().to_string()),
        ("expires", approval.expires_at().to_string()),
    ];
    // Writing to a string does not fail.
    let _ = writeln!(text, "{}", approval.id());
    for (name, value) in lines {
        let _ = writeln!(text, "  {name:<8} {value}");
    }
    if approval.min_approvers() > 1 {
        let by: Vec<_> = approval.approved_by().map(plain).collect();
        let _ = writeln!(text, "  {:<8} {} of {}: {}", "approved", by.len(), approval.min_approvers(), by.join(", "));
    }
}

/// `ID --by NAME`; the name is the rest of the line.
fn decide(desk: &dyn Desk, rest: &str, verdict: Verdict) -> Result<String, String> {
    let (id, by) = rest.split_once(" --by ").ok_or("ID --by NAME is what this needs")?;
    let (id, by) = (id.trim(), by.trim());
    let id: ApprovalId = id.parse().map_err(|error| format!("{}: {error}", plain(id)))?;
    let approval = desk.decide(&id, verdict, by)?;
    Ok(format!("{id} is {}", format!("{:?}", approval.state()).to_lowercase()))
}

fn usage(desk: &dyn Desk, rest: &str) -> Result<String, String> {
    let mut caller = desk.caller();
    let mut words = rest.split_whitespace();
    while let Some(option) = words.next() {
        let name = caller.by_option(option).ok_or_else(|| format!("no such option: {}", plain(option)))?;
        *name = Some(words.next().ok_or_else(|| format!("{option} needs a value"))?.to_owned());
    }
    let states = desk.usage(&caller)?;
    let mut text = String::new();
    for state in &states {
        let (counter, used, max, left) = (plain(state.counter()), state.used(), state.max(), state.remaining());
        let _ = writeln!(text, "{counter}: {used} of {max} used, {left} left, until {}", state.resets_at());
    }
    if states.is_empty() {
        text.push_str("nothing is counted for this caller");
    }
    Ok(text)
}

fn policies(desk: &dyn Desk) -> String {
    let mut text = String::new();
    for (name, policy) in desk.policies() {
        let name = plain(&name);
        let _ = match policy {
            None => writeln!(text, "{name}: none in force"),
            Some(policy) => {
                writeln!(text, "{name}: {} entries, digest {}\n{}", policy.entries(), policy.digest(), policy.to_json())
            }
        };
    }
    text
}
