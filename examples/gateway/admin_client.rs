//! The other end of the admin socket: one command, its answer, and an exit code.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

/// How long a gateway may think.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends `SOCKET COMMAND...` and prints what comes back. Exits with 0 if it was done, with 1 if it was not, with 2 if nothing could be
/// asked.
pub(crate) fn run(words: &[String]) -> ExitCode {
    let (socket, command) = match words {
        [socket, command @ ..] if !command.is_empty() => (socket, command.join(" ")),
        _ => {
            eprintln!("usage: admin SOCKET pending|approve ID --by NAME|refuse ID --by NAME|usage|policy|reload");
            return ExitCode::from(2);
        }
    };
    match ask(socket, &command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{socket}: {error}");
            ExitCode::from(2)
        }
    }
}

fn ask(socket: &str, command: &str) -> io::Result<bool> {
    if command.contains(['\n', '\r']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a command is one line"));
    }
    let mut gateway = UnixStream::connect(socket)?;
    gateway.set_read_timeout(Some(PATIENCE))?;
    gateway.write_all(format!("{command}\n").as_bytes())?;
    gateway.shutdown(Shutdown::Write)?;
    // The last line says how it went.
    let mut last = None;
    for line in BufReader::new(gateway).lines() {
        if let Some(line) = last.replace(line?) {
            // Whoever read the answer may have seen enough.
            let _ = writeln!(io::stdout(), "{line}");
        }
    }
    match last {
        Some(line) if line == "ok" => Ok(true),
        Some(line) => {
            eprintln!("{line}");
            Ok(false)
        }
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gateway has gone")),
    }
}
