//! Audit logs in JSON Lines: written by threads, interrupted, and tampered with.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use toolgate::audit::{
    self, AuditError, AuditRecord, AuditSink, ChainHead, Event, Fault, JsonLines, LogError, Records, verify,
    verify_after, verify_between, verify_up_to,
};
use toolgate::{Access, Code, Gate, Grants, Policy, ToolCall};

/// The path of a file that is removed with the value.
struct LogFile(PathBuf);

impl LogFile {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("toolgate-audit-{}-{number}.jsonl", std::process::id())))
    }

    fn read(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap()
    }

    fn push(&self, bytes: &[u8]) {
        OpenOptions::new().append(true).create(true).open(&self.0).unwrap().write_all(bytes).unwrap();
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn record(tool: &str) -> AuditRecord {
    let text = json!({ "time": "2026-01-15T10:30:00.000001Z", "event": "decision", "decision": "deny", "tool": tool });
    serde_json::from_value(text).unwrap()
}

/// Returns a log with this number of records.
fn log(records: usize) -> Vec<u8> {
    let log = JsonLines::new(Vec::new());
    (0..records).for_each(|index| log.record(&record(&format!("t{index}"))).unwrap());
    log.into_inner()
}

fn lines(log: &[u8]) -> Vec<Vec<u8>> {
    log.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn fault(outcome: Result<audit::Verified, LogError>) -> Option<(u64, Fault)> {
    match outcome {
        Ok(_) => None,
        Err(LogError::Broken { line, fault }) => Some((line, fault)),
        Err(other) => panic!("{other:?}"),
    }
}

fn policy() -> Policy {
    r#"{ "version": "1", "default": "deny", "tools": { "t": {} } }"#.parse().unwrap()
}

#[test]
fn a_log_is_written_continued_and_verified() {
    let file = LogFile::new();
    for records in [3, 6, 9] {
        let log = JsonLines::append(&file.0).unwrap().sync_data();
        let gate = Gate::builder().audit(log).policy(policy()).build();
        drop(gate.check(&ToolCall::new("t", None::<&Value>).user("ann")));
        let verified = verify(&file.read()[..]).unwrap();
        assert_eq!((verified.head().records(), verified.torn()), (records, 0));
    }
    let bytes = file.read();
    let events: Vec<_> = Records::new(&bytes[..]).map(|record| record.unwrap().event()).collect();
    assert_eq!(events, [Event::Policy, Event::Decision, Event::End].repeat(3));
    // Each line is one object with its number.
    for (index, line) in lines(&bytes).iter().enumerate() {
        let line: Value = serde_json::from_slice(line).unwrap();
        assert_eq!(line["seq"], index + 1);
    }
}

#[test]
fn a_log_continues_in_another_file() {
    let (one, two) = (JsonLines::new(Vec::new()), LogFile::new());
    (0..3).for_each(|_| one.record(&record("a")).unwrap());
    let head = one.head();
    for _ in 0..2 {
        JsonLines::append_after(&two.0, head).unwrap().record(&record("b")).unwrap();
    }
    let bytes = two.read();
    let mut records = Records::after(&bytes[..], head);
    assert_eq!(records.by_ref().map(|record| record.unwrap().tool() == Some("b")).collect::<Vec<_>>(), [true, true]);
    assert_eq!(records.head().records(), 5);
    assert_eq!(fault(verify(&bytes[..])), Some((1, Fault::Continues { after: 3 })));
    assert_eq!(verify_after(&bytes[..], &head).unwrap().head(), records.head());
    let joined = [one.into_inner(), bytes.clone()].concat();
    assert_eq!(verify_between(&joined[..], &ChainHead::EMPTY, &records.head()).unwrap().head(), records.head());
    let between = |after: &ChainHead, up_to: &ChainHead| fault(verify_between(&bytes[..], after, up_to));
    assert_eq!(between(&head, &records.head()), None);
    assert_eq!(between(&records.head(), &head), Some((0, Fault::OtherHead)), "a head before the log");
    assert_eq!(between(&ChainHead::EMPTY, &head), Some((1, Fault::Continues { after: 3 })));
    let other: ChainHead = format!("3-{}", "ab".repeat(32)).parse().unwrap();
    assert_eq!(between(&other, &other), Some((1, Fault::Chain)));
    let later: ChainHead = format!("4-{}", "ab".repeat(32)).parse().unwrap();
    assert_eq!(between(&later, &later), Some((1, Fault::Sequence { expected: 5, found: 4 })));
    // A log that is in the file already is continued there.
    assert_eq!(JsonLines::append(&two.0).unwrap().head(), records.head());
}

#[test]
fn removed_moved_inserted_and_duplicated_lines_are_found() {
    let log = log(6);
    assert_eq!(fault(verify(&log[..])), None);
    let broken = |change: fn(&mut Vec<Vec<u8>>)| {
        let mut lines = lines(&log);
        change(&mut lines);
        fault(verify(&lines.concat()[..]))
    };
    let sequence = |line, expected, found| Some((line, Fault::Sequence { expected, found }));
    assert_eq!(broken(|lines| drop(lines.remove(2))), sequence(3, 3, 4));
    assert_eq!(broken(|lines| drop(lines.remove(0))), Some((1, Fault::Continues { after: 1 })));
    assert_eq!(broken(|lines| lines.swap(2, 3)), sequence(3, 3, 4));
    assert_eq!(broken(|lines| lines.insert(3, lines[2].clone())), sequence(4, 4, 3));
    assert_eq!(broken(|lines| lines.push(lines[5].clone())), sequence(7, 7, 6));
    assert_eq!(broken(|lines| lines.insert(1, b"{}\n".to_vec())), Some((2, Fault::Unreadable)));
    assert_eq!(broken(|lines| lines.insert(1, b"\n".to_vec())), Some((2, Fault::Unreadable)));
    assert_eq!(broken(|lines| lines.push(b"\n".to_vec())), Some((7, Fault::Unreadable)));
    assert_eq!(broken(|lines| lines[5].truncate(40)), Some((6, Fault::Unfinished)));
    let changed = |lines: &mut Vec<Vec<u8>>| {
        let text = String::from_utf8(lines[3].clone()).unwrap();
        lines[3] = text.replace("\"t3\"", "\"t9\"").into_bytes();
    };
    assert_eq!(broken(changed), Some((4, Fault::Changed)));
}

#[test]
fn a_rewritten_record_breaks_the_chain() {
    let (log, other) = (log(3), JsonLines::new(Vec::new()));
    ["t0", "other", "t2"].iter().for_each(|tool| other.record(&record(tool)).unwrap());
    let (log, other) = (lines(&log), lines(&other.into_inner()));
    let mixed = [log[0].clone(), other[1].clone(), log[2].clone()].concat();
    assert_eq!(fault(verify(&mixed[..])), Some((3, Fault::Chain)));
}

#[test]
fn a_known_head_reveals_a_cut_or_rewritten_log() {
    let log = log(5);
    let head = verify(&log[..]).unwrap().head();
    assert_eq!(verify_up_to(&log[..], &head).unwrap().head(), head);
    let cut = lines(&log)[..3].concat();
    assert_eq!(verify(&cut[..]).unwrap().head().records(), 3);
    assert_eq!(fault(verify_up_to(&cut[..], &head)), Some((4, Fault::Cut { expected: 5, found: 3 })));
    let earlier = verify(&cut[..]).unwrap().head();
    assert_eq!(verify_up_to(&log[..], &earlier).unwrap().head(), head, "the log has continued");
    let rewritten = JsonLines::new(Vec::new());
    (0..5).for_each(|_| rewritten.record(&record("x")).unwrap());
    assert_eq!(fault(verify_up_to(&rewritten.into_inner()[..], &earlier)), Some((3, Fault::OtherHead)));
    assert_eq!(head.to_string().parse::<ChainHead>(), Ok(head));
    assert_eq!(verify(&b""[..]).unwrap().head(), ChainHead::EMPTY);
}

proptest! {
    #[test]
    fn any_changed_byte_is_found(records in 1usize..5, at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut log = log(records);
        let at = at.index(log.len());
        prop_assume!(log[at] != to);
        log[at] = to;
        // This includes the end of the last line.
        prop_assert!(verify(&log[..]).is_err());
    }

    #[test]
    fn a_cut_line_is_found_and_the_log_continued(records in 1usize..5, at in any::<prop::sample::Index>()) {
        let whole = log(records);
        let cut = &whole[..at.index(whole.len())];
        let complete = Records::new(cut).take_while(Result::is_ok).count() as u64;
        let file = LogFile::new();
        file.push(cut);
        let log = JsonLines::append(&file.0).unwrap();
        prop_assert_eq!(log.head().records(), complete);
        (0..2).for_each(|_| log.record(&record("later")).unwrap());
        let verified = verify(&file.read()[..]).unwrap();
        prop_assert_eq!(verified.head(), log.head());
        prop_assert_eq!(verified.head().records(), complete + 2);
        prop_assert!(file.read().starts_with(cut), "a log is only appended to");
        // The torn rest is part of the chain too.
        let rest = cut.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if verified.torn() == 1 {
            let mut bytes = file.read();
            bytes[rest] ^= 1;
            prop_assert!(verify(&bytes[..]).is_err());
        }
    }

    /// Whatever a file holds, it is refused, or continued so that a verified log stays verifiable.
    #[test]
    fn any_file_is_refused_or_continued(
        pieces in proptest::collection::vec((0usize..7, any::<prop::sample::Index>(), any::<prop::sample::Index>()),
            0..8),
    ) {
        let whole = log(4);
        let mut bytes = Vec::new();
        for (kind, one, two) in pieces {
            let (one, two) = (one.index(whole.len() + 1), two.index(whole.len() + 1));
            match kind {
                0 => bytes.extend(&whole[one.min(two)..one.max(two)]),
                1 => bytes.push(b'\n'),
                2 => bytes.extend([0, 0, 255]),
                _ => bytes.extend(lines(&whole)[(one + kind) % 4].iter()),
            }
        }
        let before = verify(&bytes[..]).map(|verified| verified.head());
        let file = LogFile::new();
        file.push(&bytes);
        match JsonLines::append(&file.0) {
            Ok(log) => {
                log.record(&record("later")).unwrap();
                prop_assert!(file.read().starts_with(&bytes));
                let after = verify(&file.read()[..]).map(|verified| verified.head());
                if let Ok(before) = before {
                    prop_assert_eq!(after.unwrap(), log.head());
                    prop_assert_eq!(log.head().records(), before.records() + 1);
                }
            }
            Err(error) => prop_assert!(matches!(error, AuditError::NotALog) && before.is_err(), "{error:?} {before:?}"),
        }
    }

    /// A writer accepts some bytes and then fails, again and again. The accepted bytes stay.
    #[test]
    fn a_write_that_fails_midway_loses_no_other_record(
        budgets in proptest::collection::vec(0usize..700, 1..12),
        restart in any::<bool>(),
    ) {
        let (file, mut kept) = (LogFile::new(), Vec::new());
        let full = || Full { file: OpenOptions::new().append(true).create(true).open(&file.0).unwrap(),
            budget: Arc::default() };
        let mut writer = full();
        let mut budget = Arc::clone(&writer.budget);
        let mut log = JsonLines::new(writer);
        for (index, bytes) in budgets.iter().enumerate() {
            if restart && index == budgets.len() / 2 {
                let before = verify_prefix(&file);
                drop(log);
                let head = JsonLines::append(&file.0).unwrap().head();
                prop_assert_eq!(head, before);
                // Another process continues the log.
                JsonLines::append(&file.0).unwrap().record(&record("restarted")).unwrap();
                kept.push("restarted".to_owned());
                let head = JsonLines::append(&file.0).unwrap().head();
                writer = full();
                budget = Arc::clone(&writer.budget);
                log = JsonLines::after(writer, head);
            }
            *budget.lock().unwrap() = *bytes;
            let tool = format!("t{index}");
            let before = log.head();
            let outcome = log.record(&record(&tool));
            if log.head() != before {
                kept.push(tool);
            } else {
                prop_assert!(outcome.is_err());
            }
        }
        *budget.lock().unwrap() = usize::MAX;
        log.record(&record("last")).unwrap();
        kept.push("last".into());
        let bytes = file.read();
        let tools: Vec<_> = Records::new(&bytes[..]).map(|record| record.unwrap().tool().unwrap().to_owned()).collect();
        prop_assert_eq!(tools, kept);
    }
}

/// Returns the head of the readable part of a log, up to its torn end.
fn verify_prefix(file: &LogFile) -> ChainHead {
    let bytes = file.read();
    let mut records = Records::new(&bytes[..]);
    while let Some(Ok(_)) = records.next() {}
    records.head()
}

/// A writer that accepts `budget` bytes and then fails as a full disk does.
struct Full {
    file: File,
    budget: Arc<Mutex<usize>>,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut budget = self.budget.lock().unwrap();
        let taken = bytes.len().min(*budget);
        if taken == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        *budget -= taken;
        self.file.write(&bytes[..taken])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
#[test]
fn a_log_is_readable_by_its_owner_only() {
    let file = LogFile::new();
    JsonLines::append(&file.0).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file.0).unwrap().permissions());
    assert_eq!(mode & 0o077, 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_denies_where_audit_is_required() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let errors = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&errors);
    let gate = Gate::builder()
        .audit(JsonLines::new(full))
        .require_audit()
        .on_audit_error(move |_, error| {
            assert!(matches!(error, AuditError::Io(error) if error.kind() == io::ErrorKind::StorageFull), "{error:?}");
            count.fetch_add(1, Ordering::Relaxed);
        })
        .policy(policy())
        .build();
    for _ in 0..3 {
        let decision = gate.check(&ToolCall::new("t", None::<&Value>));
        assert_eq!(decision.code(), Some(Code::AuditUnavailable));
    }
    assert_eq!(errors.load(Ordering::Relaxed), 4, "the policy, and three decisions");
}

/// A file that is not a log is not continued, nor a log whose last record was changed.
#[test]
fn only_an_intact_log_is_continued() {
    let log = log(2);
    let changed = String::from_utf8(log.clone()).unwrap().replace("\"t1\"", "\"t9\"").into_bytes();
    let mut foreign = log.clone();
    foreign.extend(b"some other text");
    for bytes in [b"some text\n".to_vec(), changed, foreign, b"\n\n".to_vec(), vec![b'x'; 100_000]] {
        let file = LogFile::new();
        file.push(&bytes);
        assert!(matches!(JsonLines::append(&file.0), Err(AuditError::NotALog)));
        assert_eq!(file.read(), bytes, "the file is unchanged");
    }
    // A machine that stopped can leave zeros at the end.
    let file = LogFile::new();
    file.push(&[&log[..], &[0; 5000]].concat());
    let log = JsonLines::append(&file.0).unwrap();
    log.record(&record("later")).unwrap();
    let verified = verify(&file.read()[..]).unwrap();
    assert_eq!((verified.head().records(), verified.torn()), (3, 1));
}

#[test]
fn a_long_log_is_continued_from_its_end() {
    let file = LogFile::new();
    let log = JsonLines::append(&file.0).unwrap();
    (0..2000).for_each(|index| log.record(&record(&"long ".repeat(index % 200))).unwrap());
    let head = log.head();
    drop(log);
    assert!(file.read().len() > 1 << 20);
    assert_eq!(JsonLines::append(&file.0).unwrap().head(), head);
    assert_eq!(verify(&file.read()[..]).unwrap().head(), head);
}

#[test]
fn an_endless_line_is_refused() {
    let endless = io::Read::chain(&b"{\"seq\":1"[..], io::repeat(b' '));
    assert_eq!(fault(verify(io::BufReader::new(endless))), Some((1, Fault::TooLong)));
}

#[test]
fn racing_threads_write_one_log_without_gaps() {
    const THREADS: usize = 8;
    const CALLS: usize = 100;
    let file = LogFile::new();
    let log = Arc::new(JsonLines::append(&file.0).unwrap());
    let grants = Grants::over(&Gate::builder().audit(Arc::clone(&log)).build());
    for name in ["one", "two"] {
        grants.replace_policy(name, policy());
        grants.give(name, Access::to(name).on_any_server(), "ops").unwrap();
    }
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let grants = grants.clone();
            scope.spawn(move || {
                let grant = if thread % 2 == 0 { "one" } else { "two" };
                for call in 0..CALLS {
                    let tool = if call % 3 == 0 { "t" } else { "x" };
                    let session = format!("{thread}-{call}");
                    drop(grants.check(&ToolCall::new(tool, None::<&Value>).grant(grant).session(&*session)));
                }
            });
        }
    });
    let bytes = file.read();
    assert_eq!(verify(&bytes[..]).unwrap().head(), log.head());
    let records: Vec<_> = Records::new(&bytes[..]).map(Result::unwrap).collect();
    // Two policies, two grants, all decisions, and an end for every third call.
    assert_eq!(records.len(), 4 + THREADS * CALLS + THREADS * CALLS.div_ceil(3));
    for (index, record) in records.iter().enumerate().filter(|(_, record)| record.event() == Event::End) {
        let decided = records[..index].iter().any(|before| before.id() == record.id());
        assert!(decided, "an end comes after its decision");
    }
}

#[test]
fn a_log_has_no_character_that_nobody_sees() {
    let unseen =
        "t\u{85}\u{9b}\u{ad}\u{61c}\u{200b}\u{2028}\u{2029}\u{202e}\u{2066}\u{e0041}\u{7f}\u{a0}\u{e000}\u{378}";
    let log = JsonLines::new(Vec::new());
    let kept = record(unseen);
    log.record(&kept).unwrap();
    let text = String::from_utf8(log.into_inner()).unwrap();
    assert!(text.trim_end_matches('\n').chars().all(|c| (' '..='~').contains(&c)), "{text:?}");
    assert_eq!(fault(verify(text.as_bytes())), None);
    let read: Vec<_> = Records::new(text.as_bytes()).map(|read| read.unwrap()).collect();
    assert_eq!(read, [kept]);
    // A log of an earlier version has them as they are, and is whole too.
    let record = serde_json::to_string(&record(unseen)).unwrap();
    assert!(record.contains('\u{202e}'));
    let begin = format!("{{\"seq\":1,\"prev\":\"{}\",\"record\":{record}", "0".repeat(64));
    let hash: String = Sha256::digest(&begin).iter().map(|byte| format!("{byte:02x}")).collect();
    let former = format!("{begin},\"hash\":\"{hash}\"}}\n");
    assert_eq!(fault(verify(former.as_bytes())), None, "{former}");
}
