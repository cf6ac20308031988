//! `path_within` against a path that is walked component by component, and against the path of a
//! server that decodes it first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use toolgate_fuzz::tape::Tape;
use toolgate_fuzz::{policy_of, truth};

/// Parts of paths, so that they meet the directories.
const PARTS: [&str; 28] = [
    "/", "/", "/", "..", "/..", "/../", ".", "w", "a", "/w", "/w/a", "b", "%", "%2", "%2e", "%2E", "%2f", "%5C", "%00",
    "%25", "2e", "\\", "\0", "é", " ", "~", "//", "...",
];

fuzz_target!(|bytes: &[u8]| {
    let mut tape = Tape(bytes);
    let directories: Vec<String> = (0..=tape.below(3)).map(|_| format!("/{}", tape.text(6, &PARTS))).collect();
    let is_written_out = tape.below(2) == 1;
    let path = if is_written_out { tape.line() } else { tape.text(24, &PARTS) };
    let policy = policy_of(&json!({ "path": "args.x", "op": "path_within", "value": directories }));
    let base = |directory: &String| resolved(directory).filter(|_| !directory.starts_with("//"));
    let bases: Option<Vec<_>> = directories.iter().map(base).collect();
    assert_eq!(policy.is_some(), bases.is_some(), "{directories:?}");
    let (Some(policy), Some(bases)) = (policy, bases) else { return };
    let inside = |path: &[String], bases: &[Vec<String>]| bases.iter().any(|base| path.starts_with(base));
    let want = resolved(&path).map(|path| inside(&path, &bases));
    let found = truth(&policy, &path);
    assert_eq!(found, want, "{path:?} within {directories:?}");
    if found == Some(true) {
        let bases: Vec<_> = directories.iter().map(|directory| walked(&decoded(directory))).collect();
        assert!(inside(&walked(&decoded(&path)), &bases), "decoded, {path:?} leaves {directories:?}");
    }
});

/// Returns the components of the resolved path, or `None` for a path that another reader may
/// understand in another way.
fn resolved(path: &str) -> Option<Vec<String>> {
    let lower = path.to_ascii_lowercase();
    let odd = ["\0", "\\", "%2e", "%2f", "%5c", "%00"].iter().any(|odd| lower.contains(odd));
    // Two slashes name another machine on some systems, and some trim dots and blanks.
    let machine = path.starts_with("//") && !path.starts_with("///");
    let trimmed =
        path.split('/').any(|part| !["", ".", ".."].contains(&part) && part.chars().all(|c| c == '.' || c == ' '));
    (path.starts_with('/') && !odd && !machine && !trimmed).then(|| walked(path))
}

fn walked(path: &str) -> Vec<String> {
    let mut at = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                at.pop();
            }
            name => at.push(name.to_owned()),
        }
    }
    at
}

/// Decodes the path once, as a server does.
fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escape = digits.filter(|digits| bytes[at] == b'%' && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
