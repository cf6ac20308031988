//! Files of audit logs: rotated, cut, deleted, and opened by a second writer.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::{Value, json};
use toolgate::audit::{
    AuditError, AuditRecord, AuditSink, ChainHead, Fault, JsonLines, LogError, Records, RotatingLog, verify,
    verify_after,
};
use toolgate::{Code, Gate, Policy, ToolCall};

/// A folder that is removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("toolgate-files-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }

    /// The files in the order of their names, without the lock.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
        files.sort();
        files
    }

    fn names(&self) -> Vec<String> {
        self.files().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    fn joined(&self) -> Vec<u8> {
        self.files().iter().flat_map(|path| fs::read(path).unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn record_at(time: &str, tool: &str) -> AuditRecord {
    let text = json!({ "time": time, "event": "decision", "decision": "deny", "tool": tool });
    serde_json::from_value(text).unwrap()
}

fn record(tool: &str) -> AuditRecord {
    record_at("2026-01-15T10:30:00.000001Z", tool)
}

fn tools(log: &[u8]) -> Vec<String> {
    Records::new(log).map(|record| record.unwrap().tool().unwrap().to_owned()).collect()
}

fn push(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_second_writer_of_a_file_is_refused() {
    let folder = Folder::new();
    let log = JsonLines::append(folder.log()).unwrap();
    log.record(&record("a")).unwrap();
    assert!(matches!(JsonLines::append(folder.log()), Err(AuditError::InUse)));
    let after = JsonLines::append_after(folder.log(), ChainHead::EMPTY);
    assert!(matches!(after, Err(AuditError::InUse)));
    verify(&fs::read(folder.log()).unwrap()[..]).unwrap();
    drop(log);
    JsonLines::append(folder.log()).unwrap().record(&record("b")).unwrap();
    assert_eq!(tools(&folder.joined()), ["a", "b"]);
    // A device has no end that two writers could both continue.
    #[cfg(target_os = "linux")]
    let _both = [JsonLines::append("/dev/null").unwrap(), JsonLines::append("/dev/null").unwrap()];
}

#[test]
fn a_second_writer_of_a_rotating_log_is_refused() {
    let folder = Folder::new();
    let log = RotatingLog::open(folder.log()).unwrap().max_bytes(1);
    for tool in ["a", "b", "c"] {
        assert!(matches!(RotatingLog::open(folder.log()), Err(AuditError::InUse)));
        log.record(&record(tool)).unwrap();
    }
    drop(log);
    RotatingLog::open(folder.log()).unwrap();
}

/// The lock of a process that is killed is gone.
#[cfg(target_os = "linux")]
#[test]
fn a_lock_goes_with_its_process() {
    let folder = Folder::new();
    File::create(folder.log()).unwrap();
    let Ok(mut other) = Command::new("flock")
        .args(["--exclusive", "--no-fork"])
        .arg(folder.log())
        .args(["sh", "-c", "echo locked; exec sleep 600"])
        .stdout(Stdio::piped())
        .spawn()
    else {
        eprintln!("not checked: this system has no `flock`");
        return;
    };
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(other.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "locked\n");
    assert!(matches!(JsonLines::append(folder.log()), Err(AuditError::InUse)));
    other.kill().unwrap();
    other.wait().unwrap();
    JsonLines::append(folder.log()).unwrap().record(&record("a")).unwrap();
}

/// As `copytruncate` of logrotate does.
#[test]
fn a_file_that_is_cut_is_reported_and_continued() {
    let folder = Folder::new();
    let refused = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&refused);
    let policy: Policy = r#"{ "version": "1", "default": "allow" }"#.parse().unwrap();
    let gate = Gate::builder()
        .audit(JsonLines::append(folder.log()).unwrap())
        .require_audit()
        .on_audit_error(move |_, error| seen.lock().unwrap().push(error.to_string()))
        .policy(policy)
        .build();
    let check = || gate.check(&ToolCall::new("t", None::<&Value>)).code();
    assert_eq!(check(), None);
    let copy = fs::read(folder.log()).unwrap();
    let head = verify(&copy[..]).unwrap().head();
    OpenOptions::new().write(true).open(folder.log()).unwrap().set_len(0).unwrap();
    assert_eq!([check(), check()], [Some(Code::AuditUnavailable), None], "one record is refused");
    assert_eq!(refused.lock().unwrap().len(), 1);
    assert!(refused.lock().unwrap()[0].contains("0 bytes in place of"), "{refused:?}");
    let rest = fs::read(folder.log()).unwrap();
    let LogError::Broken { line: 1, fault: fault @ Fault::Continues { after: 3 } } = verify(&rest[..]).unwrap_err()
    else {
        panic!()
    };
    assert!(fault.to_string().contains("continues after record 3"), "{fault}");
    verify_after(&rest[..], &head).unwrap();
    assert_eq!(verify(&[copy, rest].concat()[..]).unwrap().head().records(), 5);
}

#[test]
fn bytes_of_another_program_are_reported_and_found() {
    let folder = Folder::new();
    let log = JsonLines::append(folder.log()).unwrap();
    log.record(&record("a")).unwrap();
    let length = fs::metadata(folder.log()).unwrap().len();
    push(&folder.log(), b"some text\n");
    let refused = log.record(&record("b"));
    let Err(AuditError::FileChanged { expected, found }) = refused else { panic!("{refused:?}") };
    assert_eq!((expected, found), (length, length + 10));
    log.record(&record("c")).unwrap();
    assert!(verify(&folder.joined()[..]).is_err());
}

#[cfg(unix)]
#[test]
fn a_renamed_file_is_continued_and_a_deleted_one_refused() {
    let folder = Folder::new();
    let log = JsonLines::append(folder.log()).unwrap();
    log.record(&record("a")).unwrap();
    fs::rename(folder.log(), folder.0.join("audit.1.jsonl")).unwrap();
    log.record(&record("b")).unwrap();
    assert_eq!((tools(&folder.joined()), folder.names()), (vec!["a".into(), "b".into()], vec!["audit.1.jsonl".into()]));
    fs::remove_file(folder.0.join("audit.1.jsonl")).unwrap();
    for _ in 0..2 {
        assert!(matches!(log.record(&record("c")), Err(AuditError::FileDeleted)));
    }
}

#[test]
fn a_log_rotates_by_size_and_by_day() {
    let folder = Folder::new();
    let log = RotatingLog::open(folder.log()).unwrap().max_bytes(600).sync_data();
    (0..7).for_each(|index| log.record(&record(&format!("t{index}"))).unwrap());
    let names = ["audit-000000000001.jsonl", "audit-000000000004.jsonl", "audit-000000000007.jsonl"];
    assert_eq!(folder.names(), names);
    let head = log.head();
    drop(log);
    assert_eq!(verify(&folder.joined()[..]).unwrap().head(), head);

    let log = RotatingLog::open(folder.log()).unwrap().daily();
    for (time, tool) in [
        ("2026-01-15T23:59:59.999999Z", "same day"),
        ("2026-01-16T00:00:00Z", "next day"),
        ("2026-01-15T23:59:59.999999Z", "late"),
        ("2026-01-16T23:00:00Z", "next day"),
        ("2026-03-01T00:00:00Z", "much later"),
    ] {
        log.record(&record_at(time, tool)).unwrap();
    }
    assert_eq!(folder.names()[2..], [names[2], "audit-000000000009.jsonl", "audit-000000000012.jsonl"]);
    drop(log);
    // The day of the last file is known after a restart.
    let log = RotatingLog::open(folder.log()).unwrap().daily();
    log.record(&record_at("2026-03-01T23:00:00Z", "same day")).unwrap();
    log.record(&record_at("2026-03-02T00:00:00Z", "next day")).unwrap();
    assert_eq!(folder.names().last().unwrap(), "audit-000000000014.jsonl");
    assert_eq!(verify(&folder.joined()[..]).unwrap().head(), log.head());
}

#[test]
fn a_crash_between_two_files_loses_nothing() {
    let folder = Folder::new();
    let log = RotatingLog::open(folder.log()).unwrap();
    ["a", "b"].iter().for_each(|tool| log.record(&record(tool)).unwrap());
    let head = log.head();
    drop(log);
    let next = folder.0.join("audit-000000000003.jsonl");
    // The next file was made and has nothing, or the beginning of its first record.
    for begin in [&b""[..], b"{\"seq\":3,\"prev"] {
        fs::write(&next, begin).unwrap();
        let log = RotatingLog::open(folder.log()).unwrap();
        assert_eq!(log.head(), head);
        log.record(&record("c")).unwrap();
        assert_eq!(tools(&folder.joined()), ["a", "b", "c"]);
        verify_after(&fs::read(&next).unwrap()[..], &head).unwrap();
    }
    // Without the first file, only a log whose last file has a record can continue.
    fs::remove_file(&folder.files()[0]).unwrap();
    assert_eq!(RotatingLog::open(folder.log()).unwrap().head().records(), 3);
    fs::write(&next, b"").unwrap();
    let refused = RotatingLog::open(folder.log());
    assert!(matches!(refused, Err(AuditError::NoHead { first: 3 })), "{refused:?}");
}

#[test]
fn a_rotating_log_continues_a_file_and_overwrites_none() {
    let folder = Folder::new();
    JsonLines::append(folder.log()).unwrap().record(&record("a")).unwrap();
    for other in ["audit-1.jsonl", "audit-0000000000009.jsonl", "audit-x.jsonl", "audit-000000000009.json"] {
        fs::write(folder.0.join(other), "another's").unwrap();
    }
    let log = RotatingLog::open(folder.log()).unwrap();
    log.record(&record("b")).unwrap();
    assert_eq!(tools(&fs::read(folder.log()).unwrap()), ["a", "b"]);
    drop(log);
    let log = RotatingLog::open(folder.log()).unwrap().max_bytes(1);
    let next = folder.0.join("audit-000000000003.jsonl");
    fs::write(&next, "some text\n").unwrap();
    assert!(matches!(log.record(&record("c")), Err(AuditError::NotALog)));
    assert_eq!(fs::read(&next).unwrap(), b"some text\n");
    fs::remove_file(&next).unwrap();
    log.record(&record("c")).unwrap();
    let all = [fs::read(folder.log()).unwrap(), fs::read(&next).unwrap()].concat();
    assert_eq!((tools(&all), verify(&all[..]).unwrap().head()), (vec!["a".into(), "b".into(), "c".into()], log.head()));
}

proptest! {
    /// Whenever a process ends, also within a write, every record that was kept is in the log.
    #[test]
    fn a_rotating_log_survives_any_crash(
        steps in proptest::collection::vec((0usize..6, 0u64..400), 1..40),
        max in 1u64..2000,
    ) {
        let folder = Folder::new();
        let mut log = Some(RotatingLog::open(folder.log()).unwrap().max_bytes(max).daily());
        let mut kept = Vec::new();
        for (index, (kind, by)) in steps.into_iter().enumerate() {
            let open = || RotatingLog::open(folder.log()).unwrap().max_bytes(max).daily();
            match kind {
                0 => {
                    drop(log.take());
                    log = Some(open());
                }
                // The beginning of a record, in the last file or in the next.
                1 | 2 => {
                    let head = log.take().unwrap().head();
                    let whole = JsonLines::after(Vec::new(), head);
                    whole.record(&record("lost")).unwrap();
                    let begin = &whole.into_inner()[..usize::try_from(by % 120).unwrap()];
                    let next = folder.0.join(format!("audit-{:012}.jsonl", head.records() + 1));
                    let joined = folder.joined();
                    let ends = joined.last().is_none_or(|byte| *byte == b'\n');
                    // A file that ends with remains gets the next record.
                    let last = folder.files().pop().filter(|_| kind == 1 || !ends || verify(&joined[..]).is_err());
                    let line_end = if ends { &b""[..] } else { b"\n" };
                    push(&last.unwrap_or(next), &[line_end, begin].concat());
                    log = Some(open());
                }
                _ => {
                    let tool = format!("t{index}");
                    let day = 10 + by / 100;
                    log.as_ref().unwrap().record(&record_at(&format!("2026-01-{day}T00:00:00Z"), &tool)).unwrap();
                    kept.push(tool);
                }
            }
        }
        let head = log.as_ref().unwrap().head();
        prop_assert_eq!(head.records(), kept.len() as u64);
        log.unwrap().record(&record("last")).unwrap();
        kept.push("last".into());
        prop_assert_eq!(tools(&folder.joined()), kept);
    }
}
