//! Files that are read again when they change: policies, and who may call.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use toolgate::PolicyError;

/// A file that was changed so shortly before it was read may have been changed again without another time.
const FRESH: Duration = Duration::from_secs(2);
/// Larger files are neither policies nor grants.
const MAX_BYTES: u64 = 8 << 20;
/// How many issues are printed: more help nobody.
const SHOWN: usize = 20;

/// What of a file changes with it, nearly always.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Stamp {
    inode: (u64, u64),
    modified: Option<SystemTime>,
    length: u64,
    /// Changed so lately that its content alone could tell.
    is_fresh: bool,
}

impl Stamp {
    /// None for a file that is not there.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }

    /// Whether the file was changed so lately before this was taken that its content has to be looked at once more.
    pub(crate) fn is_fresh(self) -> bool {
        self.is_fresh
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok();
        // A time that lies ahead counts too.
        let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        let is_fresh = age.is_none_or(|age| age < FRESH);
        Self { inode: (metadata.dev(), metadata.ino()), modified, length: metadata.len(), is_fresh }
    }
}

/// The whole file, which must be one, and not larger than a policy may be; and its stamp, taken before.
pub(crate) fn read(path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
    // A pipe would be waited for without end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let file = File::open(path)?;
    let stamp = Stamp::from(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("more than 8 MiB"));
    }
    Ok((bytes, stamp))
}

/// Every issue with its place and its mend, a line each.
pub(crate) fn complaint(path: &Path, error: &PolicyError) -> String {
    let path = path.display();
    let mut lines = Vec::new();
    for issue in error.issues().iter().take(SHOWN) {
        let place = |number: Option<usize>| number.map_or(String::new(), |number| format!(":{number}"));
        lines.push(format!("{path}{}{}: {issue}", place(issue.line()), place(issue.column())));
    }
    let more = error.issues().len().saturating_sub(SHOWN) + error.omitted();
    if more > 0 {
        lines.push(format!("{path}: and {more} more"));
    }
    lines.join("\n")
}
