//! Verifying an audit log, beside reading the same file and hashing its bytes.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use toolgate::audit::{JsonLines, Records, verify};
use toolgate::{Gate, Policy, ToolCall};

/// A file that is removed with the value.
struct Log(PathBuf);

impl Log {
    /// Writes the records of this many calls: a decision and an end for each, with arguments.
    fn new(calls: usize) -> Self {
        let path = std::env::temp_dir().join(format!("toolgate-bench-{}.jsonl", std::process::id()));
        let policy: Policy = r#"{ "version": "1", "default": "deny", "tools": {
            "pay": { "limits": [{ "counter": "n", "max": 9000000, "window": "day", "scope": "grant" }] } } }"#
            .parse()
            .unwrap();
        let sink = JsonLines::append(&path).unwrap();
        let gate = Gate::builder().audit(sink).audit_arguments().policy(policy).build();
        for call in 0..calls {
            let arguments = json!({ "amount": call, "currency": "eur", "note": "a note of some length" });
            drop(gate.check(&ToolCall::new("pay", &arguments).grant("g-42").session("s-7").user("ann")));
        }
        Self(path)
    }

    fn read(&self) -> BufReader<File> {
        BufReader::with_capacity(1 << 18, File::open(&self.0).unwrap())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

pub(crate) fn verify_a_log(criterion: &mut Criterion) {
    let log = Log::new(crate::callers(50_000));
    let mut group = criterion.benchmark_group("audit log");
    group.sample_size(10).throughput(Throughput::Bytes(length(&log.0)));
    group.bench_function("read and hash", |bencher| {
        bencher.iter(|| {
            let (mut reader, mut hasher) = (log.read(), Sha256::new());
            loop {
                let bytes = reader.fill_buf().unwrap();
                if bytes.is_empty() {
                    break hasher.finalize();
                }
                hasher.update(bytes);
                let read = bytes.len();
                reader.consume(read);
            }
        });
    });
    group.bench_function("verify", |bencher| bencher.iter(|| verify(log.read()).unwrap()));
    group.bench_function("read the records", |bencher| bencher.iter(|| Records::new(log.read()).count()));
    group.finish();
}
