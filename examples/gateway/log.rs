//! What people are told, on standard error: neither a reader that has gone nor one that does not read stops the gateway.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

/// How many lines wait for a reader. Those past that are lost.
const WAITING: usize = 1000;
/// How long the last lines may take.
const LAST: Duration = Duration::from_millis(500);

enum Entry {
    Line(String),
    /// All before this has been written.
    Flush(SyncSender<()>),
}

/// Says a line, as the gateway.
pub(crate) fn say(line: impl Display) {
    say_plainly(format!("toolgate: {line}"));
}

/// Says lines as they are.
pub(crate) fn say_plainly(lines: impl Display) {
    let _ = writer().try_send(Entry::Line(lines.to_string()));
}

/// Waits until all has been written, but not for a reader that does not read.
pub(crate) fn flush() {
    let (done, all) = mpsc::sync_channel(1);
    if writer().try_send(Entry::Flush(done)).is_ok() {
        let _ = all.recv_timeout(LAST);
    }
}

fn writer() -> &'static SyncSender<Entry> {
    static WRITER: OnceLock<SyncSender<Entry>> = OnceLock::new();
    WRITER.get_or_init(|| {
        let (sender, entries) = mpsc::sync_channel(WAITING);
        thread::spawn(move || {
            for entry in entries {
                match entry {
                    Entry::Line(line) => drop(io::stderr().write_all(format!("{line}\n").as_bytes())),
                    Entry::Flush(done) => drop(done.send(())),
                }
            }
        });
        sender
    })
}
