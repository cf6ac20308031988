//! Decides a recorded history again: by the same policy, bit for bit; by another, what would have changed.
//!
//! ```text
//! cargo run --release --example replay -- HISTORY.jsonl POLICY.json [OPTIONS]
//!
//!   --answers FILE           compares a trace with the answers that `decide` wrote for it
//!   --against POLICY.json    compares a trace with what another policy decides
//!   --only POLICY.json       of a log, decides only what this policy has decided
//!   --pass-uncounted NAME    the gate lets calls pass uncounted by this counter
//!   --stop                   stops at the first finding
//!   --same                   exits with 3 if anything has changed, or cannot be told
//!   --each                   writes each change and finding as a line of JSON, and the report on standard error
//!   --json                   writes the report as JSON
//! ```
//!
//! The history is an audit log, the bare records of one, or a trace. Exits with 2 if the history or a policy cannot be read, with 1 if
//! something is wrong with the history (the report has the lines), else with 0.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use toolgate::Policy;
use toolgate::replay::Replay;

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Vec<String>) -> Result<ExitCode, Box<dyn Error>> {
    let usage = "usage: replay HISTORY.jsonl POLICY.json [--answers FILE | --against POLICY.json] [--only POLICY.json] \
                 [--pass-uncounted NAME] [--stop] [--same] [--each] [--json]";
    let mut arguments = arguments.into_iter();
    let (Some(history), Some(policy)) = (arguments.next(), arguments.next()) else { return Err(usage.into()) };
    let mut replay = Replay::new(read_policy(&policy)?);
    let (mut wants_same, mut shows_each, mut as_json) = (false, false, false);
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or(usage);
        match &*option {
            "--answers" => {
                let file = value()?;
                replay = replay.answers(BufReader::new(File::open(&file).map_err(|error| format!("{file}: {error}"))?));
            }
            "--against" => replay = replay.against(read_policy(&value()?)?),
            "--only" => replay = replay.only(&read_policy(&value()?)?),
            "--pass-uncounted" => replay = replay.pass_uncounted(&value()?),
            "--stop" => replay = replay.stop_at_finding(),
            "--same" => wants_same = true,
            "--each" => shows_each = true,
            "--json" => as_json = true,
            _ => return Err(usage.into()),
        }
    }
    let file = File::open(&history).map_err(|error| format!("{history}: {error}"))?;
    let reader = BufReader::with_capacity(1 << 18, Progress::new(file)?);
    let mut lines = BufWriter::new(io::stdout().lock());
    let mut failed = None;
    let report = replay.run(reader, |told| {
        if shows_each {
            let written = serde_json::to_writer(&mut lines, told).map_err(io::Error::from);
            failed = written.and_then(|()| lines.write_all(b"\n")).err();
        }
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let shown = if as_json { serde_json::to_string_pretty(&report)? + "\n" } else { report.to_string() };
    let written = match (failed, shows_each) {
        (Some(error), _) => Err(error),
        (None, true) => io::stderr().write_all(shown.as_bytes()).and_then(|()| lines.flush()),
        (None, false) => lines.write_all(shown.as_bytes()).and_then(|()| lines.flush()),
    };
    match written {
        // Whoever read the lines has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    Ok(match (report.found() > 0, wants_same && !report.is_same()) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(3),
        (false, false) => ExitCode::SUCCESS,
    })
}

fn read_policy(file: &str) -> Result<Policy, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    Policy::from_slice(&bytes).map_err(|error| format!("{file}: {error}"))
}

/// A file that shows on a terminal how much of it has been read, where that takes longer than a moment.
struct Progress {
    file: File,
    length: u64,
    read: u64,
    begun: Instant,
    shown: Option<Instant>,
}

impl Progress {
    fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length, read: 0, begun: Instant::now(), shown: None })
    }

    fn show(&mut self) {
        let now = Instant::now();
        let is_due = now.duration_since(self.shown.unwrap_or(self.begun)) >= Duration::from_millis(200);
        if self.length == 0 || !is_due || !io::stderr().is_terminal() {
            return;
        }
        self.shown = Some(now);
        let share = (self.read as f64 / self.length as f64).min(1.0);
        let left = now.duration_since(self.begun).as_secs_f64() * (1.0 - share) / share.max(0.001);
        let bar = "#".repeat((share * 40.0) as usize);
        eprint!("\r[{bar:<40}] {:>3.0} %, {left:.0} s left ", share * 100.0);
    }
}

impl Read for Progress {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        self.show();
        Ok(count)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            eprint!("\r{:60}\r", "");
        }
    }
}
