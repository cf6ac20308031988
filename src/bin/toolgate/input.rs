//! Files, standard input, and the policies in them.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use toolgate::Policy;

use crate::Failure;
use crate::output::complain;
use crate::progress::Progress;

/// The most bytes of a policy that are read: one more than a policy may have, so that the reader of
/// policies reports its size.
const POLICY_BYTES: u64 = (8 << 20) + 1;
/// The size of a buffer for streams.
pub(crate) const BUFFER: usize = 1 << 18;
/// The most bytes of another document.
const DOCUMENT_BYTES: u64 = 64 << 20;

/// The name of a file in messages.
pub(crate) fn name(file: &Path) -> String {
    if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() }
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn unreadable(file: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Input(format!("{}: {error}", name(file)))
}

/// Opens a file, or standard input for `-`. The second value is the length of the file, if it has
/// one.
fn open(file: &Path) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    if is_stdin(file) {
        if IS_TAKEN.swap(true, Ordering::Relaxed) {
            return Err(Failure::Input("standard input: only one argument can be `-`".to_owned()));
        }
        let stdin = io::stdin().lock();
        if stdin.is_terminal() {
            complain("reading standard input: end it with Ctrl-D");
        }
        return Ok((Box::new(stdin), None));
    }
    let opened = File::open(file).map_err(|error| unreadable(file, error))?;
    let metadata = opened.metadata().map_err(|error| unreadable(file, error))?;
    if metadata.is_dir() {
        return Err(unreadable(file, "is a folder: name a file"));
    }
    Ok((Box::new(opened), metadata.is_file().then_some(metadata.len())))
}

/// Opens a file whose errors name it. The second value is its length, if it has one.
pub(crate) fn named(file: &Path) -> Result<(Named, Option<u64>), Failure> {
    let (reader, length) = open(file)?;
    Ok((Named { reader, name: name(file) }, length))
}

/// A stream of a file, whose errors name the file.
pub(crate) fn stream(file: &Path) -> Result<BufReader<Named>, Failure> {
    Ok(BufReader::with_capacity(BUFFER, named(file)?.0))
}

/// A stream with a progress bar if reading takes long, for commands that print at the end.
pub(crate) fn watched_stream(file: &Path) -> Result<BufReader<Progress<Named>>, Failure> {
    let (reader, length) = named(file)?;
    Ok(BufReader::with_capacity(BUFFER, Progress::new(reader, length)))
}

/// A reader whose errors name the file.
pub(crate) struct Named {
    reader: Box<dyn Read>,
    name: String,
}

impl Read for Named {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.name)))
    }
}

/// Makes a failure of an error of a [`stream`], which names the file.
pub(crate) fn failed(error: io::Error) -> Failure {
    Failure::Input(error.to_string())
}

/// Reads at most this many bytes.
fn bytes(file: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    open(file)?.0.take(most).read_to_end(&mut bytes).map_err(|error| unreadable(file, error))?;
    Ok(bytes)
}

/// Reads the bytes of a policy, which may be invalid.
pub(crate) fn policy_bytes(file: &Path) -> Result<Vec<u8>, Failure> {
    bytes(file, POLICY_BYTES)
}

pub(crate) fn policy(file: &Path) -> Result<Policy, Failure> {
    Policy::from_slice(&policy_bytes(file)?).map_err(|error| unreadable(file, error))
}

/// Reads the bytes of a document other than a policy.
pub(crate) fn document(file: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = bytes(file, DOCUMENT_BYTES + 1)?;
    if bytes.len() as u64 > DOCUMENT_BYTES {
        return Err(unreadable(file, "is longer than 64 MiB"));
    }
    Ok(bytes)
}

/// Reads a text other than a policy.
pub(crate) fn text(file: &Path) -> Result<String, Failure> {
    String::from_utf8(document(file)?)
        .map_err(|error| unreadable(file, format!("is not UTF-8 from byte {} on", error.utf8_error().valid_up_to())))
}

pub(crate) fn json(file: &Path) -> Result<Value, Failure> {
    serde_json::from_str(&text(file)?).map_err(|error| unreadable(file, format!("is not valid JSON: {error}")))
}

/// Reads the tools of a server, in one of the forms that are accepted everywhere.
pub(crate) fn tools(file: &Path) -> Result<Value, Failure> {
    let list = json(file)?;
    match toolgate::recommend::classify(&list) {
        Ok(_) => Ok(list),
        Err(error) => Err(unreadable(file, error)),
    }
}
