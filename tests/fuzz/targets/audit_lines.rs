//! Lines of audit logs: no bytes stop the reader, every change of a log is found, and a record
//! reads back as it was written.
#![no_main]

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use toolgate::audit::{self, AuditSink, ChainHead, JsonLines, Records};
use toolgate::replay::Replay;
use toolgate::{Amount, Decision, Gate, ManualClock, Policy, Timestamp, ToolCall};
use toolgate_fuzz::canonical::hex;
use toolgate_fuzz::tape::Tape;

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let limits =
        json!([{ "counter": "spend", "window": "day", "max": 10, "scope": "grant", "amount_from": "args.amount" }]);
    let tools = json!({
        "pay": { "limits": limits },
        "sign": { "action": "require_approval", "reason": "Ask." },
        "no": { "action": "deny" },
    });
    Policy::try_from(&json!({ "version": "1", "default": "deny", "tools": tools })).expect("a policy")
});

/// Logs and their heads: one in which every write succeeded, and one in which two were cut short.
static LOGS: LazyLock<[(Vec<u8>, ChainHead); 2]> = LazyLock::new(|| [written(&[]), written(&[3, 5])]);

fuzz_target!(|bytes: &[u8]| {
    let mut tape = Tape(bytes);
    match tape.below(3) {
        0 => is_found(&mut tape),
        1 => record(tape.0),
        _ => {
            reads(tape.0);
            replays(tape.0);
        }
    }
});

/// A writer that takes only a part of some texts, and then fails.
#[derive(Clone)]
struct Disk {
    held: Arc<Mutex<Vec<u8>>>,
    texts: usize,
    torn: &'static [usize],
    is_full: bool,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.is_full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.texts += 1;
        self.is_full = self.torn.contains(&self.texts);
        let taken = if self.is_full { bytes.len() / 3 } else { bytes.len() };
        self.held.lock().expect("no panic").extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of a few calls, in which some texts are torn.
fn written(torn: &'static [usize]) -> (Vec<u8>, ChainHead) {
    let held = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::new(JsonLines::new(Disk { held: Arc::clone(&held), texts: 0, torn, is_full: false }));
    let clock = ManualClock::new(Timestamp::from_unix_seconds(1_768_473_000));
    let builder = Gate::builder().policy(POLICY.clone()).clock(clock).audit(Arc::clone(&log)).audit_arguments();
    let gate = builder.build();
    for (tool, amount) in [("pay", 3), ("no", 1), ("sign", 1), ("pay", 9)] {
        let arguments = json!({ "amount": amount, "to": "x" });
        if let Decision::Allow(mut permit) = gate.check(&ToolCall::new(tool, &arguments).grant("g")) {
            permit.settle(Amount::ONE).expect("a store in memory");
        }
    }
    let held = held.lock().expect("no panic").clone();
    let head = log.head();
    assert_eq!(audit::verify_up_to(&held[..], &head).expect("a log").head(), head);
    assert_eq!(audit::verify(&held[..]).expect("a log").torn() > 0, !torn.is_empty());
    (held, head)
}

/// Every change of a log is found, except one of the end of its last line.
fn is_found(tape: &mut Tape<'_>) {
    let (log, head) = &LOGS[tape.below(2)];
    let mut changed = log.clone();
    // A log of one line doubles each time that line is inserted again.
    while !tape.is_over() && changed.len() < 1 << 16 {
        change(&mut changed, tape);
    }
    let found = audit::verify_up_to(&changed[..], head);
    if changed == *log || changed == log[..log.len() - 1] {
        assert_eq!(found.expect("the log itself").head(), *head);
        return;
    }
    assert!(found.is_err(), "not found: {}", String::from_utf8_lossy(&changed));
    // Without a head, only missing records at the end are not found.
    let is_cut = log.starts_with(&changed);
    assert!(is_cut || audit::verify(&changed[..]).is_err(), "not found: {}", String::from_utf8_lossy(&changed));
    replays(&changed);
}

fn change(log: &mut Vec<u8>, tape: &mut Tape<'_>) {
    let lines: Vec<Vec<u8>> = log.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let kind = tape.below(8);
    let (at, line) = (tape.word() as usize % (log.len() + 1), tape.below(lines.len().max(1)));
    let put = |lines: Vec<Vec<u8>>| lines.concat();
    match kind {
        0 if at < log.len() => log[at] = tape.byte(),
        1 => log.insert(at, tape.byte()),
        2 if at < log.len() => {
            log.remove(at);
        }
        3 => log.truncate(at),
        4 if !lines.is_empty() => {
            let mut lines = lines;
            lines.remove(line);
            *log = put(lines);
        }
        5 if !lines.is_empty() => {
            let mut lines = lines;
            lines.insert(line, lines[tape.below(lines.len())].clone());
            *log = put(lines);
        }
        6 if !lines.is_empty() => {
            let mut lines = lines;
            let other = tape.below(lines.len());
            lines.swap(line, other);
            *log = put(lines);
        }
        // A text from the fuzzer.
        _ => {
            let text = tape.line();
            log.splice(at..at, text.bytes());
        }
    }
}

/// Reads a text as a record, in lines with the right hashes: a record that can be read is written
/// as it was read.
fn record(text: &[u8]) {
    let mut lines = Vec::new();
    let mut before = "0".repeat(64);
    for (at, text) in text.split(|byte| *byte == b'\n').take(4).enumerate() {
        let mut line = format!("{{\"seq\":{},\"prev\":\"{before}\",\"record\":", at + 1).into_bytes();
        line.extend(text);
        before = hex(&Sha256::digest(&line));
        line.extend(format!(",\"hash\":\"{before}\"}}\n").bytes());
        lines.extend(line);
    }
    replays(&lines);
    let records: Vec<_> = Records::new(&lines[..]).map_while(Result::ok).collect();
    let again = JsonLines::new(Vec::new());
    records.iter().for_each(|record| again.record(record).expect("memory"));
    let (head, again) = (again.head(), again.into_inner());
    assert_eq!(audit::verify_up_to(&again[..], &head).expect("a log").head(), head);
    let read: Vec<_> = Records::new(&again[..]).map(|record| record.expect("a log")).collect();
    assert_eq!(read, records);
    for record in &records {
        let _ = record.call().map(|call| POLICY.evaluate(&call, record.time()).is_allowed());
    }
}

/// Reads any bytes as a log. A log is whole also if a record in it says nothing that can be read.
fn reads(bytes: &[u8]) {
    let verified = audit::verify(bytes);
    let records = Records::new(bytes).map_while(Result::ok).count() as u64;
    if let Ok(verified) = verified {
        assert!(verified.head().records() >= records);
        assert!(audit::verify_after(bytes, &verified.head()).is_err() == (records > 0));
        assert!(audit::verify_up_to(bytes, &verified.head()).is_ok());
    }
}

/// Reads any bytes as a history, and decides it again.
fn replays(bytes: &[u8]) {
    let report = Replay::new(POLICY.clone()).run(bytes, |_| ControlFlow::Continue(()));
    assert!(report.is_ok(), "memory can be read");
}
