//! Files that are read again when they change: all together or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use notify::{Event, EventKind, RecursiveMode, Watcher, event::AccessKind, event::AccessMode};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use toolgate::Policy;

/// A larger file is neither a policy nor a configuration.
const MAX_BYTES: u64 = 8 << 20;
/// The number of issues of a policy that are printed.
const SHOWN: usize = 20;
/// The wait after a sign of a change, so that several writes are read as one.
const SETTLE: Duration = Duration::from_millis(100);
/// How often files are read without a sign of a change: not every file system gives one.
const ANYWAY: Duration = Duration::from_secs(10);

/// Reads files, and remembers which, and what was in them.
#[derive(Default)]
pub(crate) struct Reader {
    paths: BTreeSet<PathBuf>,
    content: Sha256,
}

impl Reader {
    pub(crate) fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        self.paths.insert(path.to_owned());
        // A pipe would be waited for without end.
        if !fs::metadata(path).map_err(|error| said(&error))?.is_file() {
            return Err(said(&"not a file"));
        }
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|error| said(&error))?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| said(&error))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(said(&"more than 8 MiB"));
        }
        self.content.update(Sha256::digest(&bytes));
        Ok(bytes)
    }

    pub(crate) fn read_text(&mut self, path: &Path) -> Result<String, String> {
        String::from_utf8(self.read(path)?).map_err(|_| format!("{}: not UTF-8", path.display()))
    }

    /// Reads a policy. The error has every issue with its place and a hint, a line each.
    pub(crate) fn read_policy(&mut self, path: &Path) -> Result<Policy, String> {
        Policy::from_slice(&self.read(path)?).map_err(|error| {
            let path = path.display();
            let place = |number: Option<usize>| number.map_or(String::new(), |number| format!(":{number}"));
            let issues = error.issues().iter().take(SHOWN);
            let mut lines: Vec<_> = issues
                .map(|issue| format!("{path}{}{}: {issue}", place(issue.line()), place(issue.column())))
                .collect();
            let more = error.issues().len().saturating_sub(SHOWN) + error.omitted();
            lines.extend((more > 0).then(|| format!("{path}: and {more} more")));
            lines.join("\n")
        })
    }
}

/// Puts what was read in force, and returns a line about it.
pub(crate) type Put = Box<dyn FnOnce() -> String>;
type Load = dyn Fn(&mut Reader) -> Result<Put, String> + Send + Sync;

/// Files that are read together, and the way to put them in force.
pub(crate) struct Watched {
    /// The message that the former state stays in force.
    former: &'static str,
    load: Box<Load>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    folders: BTreeSet<PathBuf>,
    content: Option<[u8; 32]>,
    /// The issues of the last reading.
    complaint: Option<String>,
}

impl Watched {
    pub(crate) fn new(
        former: &'static str,
        load: impl Fn(&mut Reader) -> Result<Put, String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { former, load: Box::new(load), seen: Mutex::default() })
    }

    /// Reads the files for the first time.
    pub(crate) fn start(&self) -> Result<(), String> {
        self.read(&mut self.seen.lock()).map(|put| drop(put()))
    }

    /// Reads the files, whether they have changed or not. No other reading comes between.
    pub(crate) fn reload(&self) -> Result<String, String> {
        let mut seen = self.seen.lock();
        let read = self.read(&mut seen);
        seen.complaint = read.as_ref().err().cloned();
        match read {
            Ok(put) => Ok(put()),
            Err(complaint) => Err(format!("{complaint}\n{}", self.former)),
        }
    }

    /// Does the same if anything has changed. A complaint is made once.
    fn look(&self) -> Option<Result<String, String>> {
        let mut seen = self.seen.lock();
        let before = seen.content.take();
        let read = self.read(&mut seen);
        let complaint = read.as_ref().err().cloned();
        let is_news = complaint != seen.complaint || (complaint.is_none() && before != seen.content);
        seen.complaint = complaint;
        is_news.then(|| read.map(|put| put()).map_err(|complaint| format!("{complaint}\n{}", self.former)))
    }

    fn read(&self, seen: &mut Seen) -> Result<Put, String> {
        let mut reader = Reader::default();
        let read = (self.load)(&mut reader);
        let folder =
            |path: &PathBuf| path.parent().filter(|path| path != &Path::new("")).unwrap_or(Path::new(".")).into();
        seen.folders = reader.paths.iter().map(folder).collect();
        seen.content = read.is_ok().then(|| reader.content.finalize().into());
        read
    }

    /// Reads the files again whenever they change, and logs the result. The folders are watched,
    /// not the files: most programs put a new file in the place of the old one.
    pub(crate) fn watch(self: &Arc<Self>) -> Result<(), String> {
        let said = |error: notify::Error| format!("files cannot be watched: {error}");
        let (changed, changes) = mpsc::channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let is_read =
                |kind| matches!(kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
            if !event.is_ok_and(|event| is_read(event.kind)) {
                let _ = changed.send(());
            }
        })
        .map_err(said)?;
        let watched = Arc::clone(self);
        thread::spawn(move || {
            let mut folders = BTreeSet::new();
            loop {
                let wanted = watched.seen.lock().folders.clone();
                for folder in wanted.difference(&folders) {
                    // If it is gone, the files in it are too, which is said when they are read.
                    let _ = watcher.watch(folder, RecursiveMode::NonRecursive);
                }
                for folder in folders.difference(&wanted) {
                    let _ = watcher.unwatch(folder);
                }
                folders = wanted;
                match changes.recv_timeout(ANYWAY) {
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) => {
                        thread::sleep(SETTLE);
                        while changes.try_recv().is_ok() {}
                    }
                }
                match watched.look() {
                    None => {}
                    Some(Ok(news)) => tracing::info!("{news}"),
                    Some(Err(complaint)) => complaint.lines().for_each(|line| tracing::error!("{line}")),
                }
            }
        });
        Ok(())
    }
}
