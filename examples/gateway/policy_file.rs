//! The file that the policy is in, read again whenever it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use toolgate::Policy;

use super::file::{Stamp, complaint, read};
use super::log::{say, say_plainly};

/// How often the file is looked at.
const EVERY: Duration = Duration::from_millis(200);
/// A policy's file, and who is to have what it says.
pub(crate) struct PolicyFile {
    path: PathBuf,
    /// The namespace of the policy's counters: they go on when the file changes.
    namespace: String,
    seen: Mutex<Seen>,
    put_in_force: Box<dyn Fn(Policy) + Send + Sync>,
}

/// What of the file was seen last.
#[derive(Default)]
pub(crate) struct Seen {
    stamp: Option<Stamp>,
    content: Option<[u8; 32]>,
}

/// What reading the file again has come to.
enum Reading {
    Same,
    New(Policy),
    Broken(String),
}

impl PolicyFile {
    /// Reads the policy for the first time: it, and what was seen of the file, for [`Self::new`].
    pub(crate) fn read_first(path: &Path, namespace: &str) -> Result<(Policy, Seen), String> {
        let (bytes, stamp) = read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let policy = Policy::from_slice(&bytes).map_err(|error| complaint(path, &error))?;
        let seen = Seen { stamp: Some(stamp), content: Some(Sha256::digest(&bytes).into()) };
        Ok((policy.with_namespace(namespace), seen))
    }

    /// The file, and who is to have what it says from now on.
    pub(crate) fn new(
        path: &Path,
        namespace: &str,
        seen: Seen,
        put_in_force: impl Fn(Policy) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let put_in_force = Box::new(put_in_force);
        Arc::new(Self { path: path.into(), namespace: namespace.into(), seen: Mutex::new(seen), put_in_force })
    }

    /// Looks at the file from time to time, and says on standard error what has come of a change.
    pub(crate) fn watch(self: &Arc<Self>) {
        let file = Arc::clone(self);
        thread::spawn(move || {
            loop {
                thread::sleep(EVERY);
                match file.look(false) {
                    Ok(None) => {}
                    Ok(Some(news)) => say(news),
                    Err(complaint) => {
                        say_plainly(format_args!("{complaint}\ntoolgate: the former policy stays in force"))
                    }
                }
            }
        });
    }

    /// Reads the file again, and puts it in force if it is a policy.
    pub(crate) fn reload(&self) -> Result<String, String> {
        match self.look(true) {
            Ok(news) => Ok(news.unwrap_or_else(|| "the policy has not changed".into())),
            Err(complaint) => Err(format!("{complaint}\nthe former policy stays in force")),
        }
    }

    fn look(&self, again: bool) -> Result<Option<String>, String> {
        let mut seen = self.seen.lock();
        match self.read_again(&mut seen, again) {
            Reading::Same => Ok(None),
            Reading::Broken(complaint) => Err(complaint),
            Reading::New(policy) => {
                let news = format!(
                    "{}: in force, {} entries, digest {}",
                    self.path.display(),
                    policy.entries(),
                    policy.digest()
                );
                (self.put_in_force)(policy);
                Ok(Some(news))
            }
        }
    }

    fn read_again(&self, seen: &mut Seen, again: bool) -> Reading {
        let stamp = Stamp::of(&self.path);
        if !again && stamp == seen.stamp && stamp.is_none_or(|stamp| !stamp.is_fresh()) && seen.content.is_some() {
            return Reading::Same;
        }
        let (bytes, stamp) = match read(&self.path) {
            Ok(read) => read,
            Err(error) => {
                // Said once, not five times a second.
                let complaint = error.to_string();
                let digest = Some(Sha256::digest(&complaint).into());
                let known = std::mem::replace(&mut seen.content, digest) == digest;
                seen.stamp = stamp;
                return match known && !again {
                    true => Reading::Same,
                    false => Reading::Broken(format!("{}: {complaint}", self.path.display())),
                };
            }
        };
        let content = Some(Sha256::digest(&bytes).into());
        seen.stamp = Some(stamp);
        if std::mem::replace(&mut seen.content, content) == content && !again {
            return Reading::Same;
        }
        match Policy::from_slice(&bytes) {
            Ok(policy) => Reading::New(policy.with_namespace(&self.namespace)),
            Err(error) => Reading::Broken(complaint(&self.path, &error)),
        }
    }
}
