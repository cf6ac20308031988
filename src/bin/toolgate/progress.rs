//! Progress on standard error, for work that takes more than two seconds on a terminal.

use std::io::{self, IsTerminal, Read};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The time after which progress is shown.
const PATIENCE: Duration = Duration::from_secs(2);

/// A reader that shows how much of a file has been read, and the time that is left.
pub(crate) struct Progress<R> {
    reader: R,
    bar: ProgressBar,
    begun: Instant,
}

impl<R> Progress<R> {
    pub(crate) fn new(reader: R, length: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
        let template = match length {
            Some(_) => "[{bar:40}] {percent:>3} %, {bytes} of {total_bytes}, {eta} left",
            None => "{bytes} read in {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { reader, bar, begun: Instant::now() }
    }

    pub(crate) fn reader(&self) -> &R {
        &self.reader
    }
}

impl<R: Read> Read for Progress<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.bar.inc(count as u64);
        if self.bar.is_hidden() && self.begun.elapsed() >= PATIENCE && io::stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        Ok(count)
    }
}

impl<R> Drop for Progress<R> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Does work of unknown length, and shows how long it has taken.
pub(crate) fn during<T: Send>(what: &'static str, work: impl FnOnce() -> T + Send) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    std::thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        scope.spawn(move || {
            if is_done.recv_timeout(PATIENCE) != Err(mpsc::RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::new_spinner().with_message(what);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}: {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            // It ends when the sender is dropped.
            let _ = is_done.recv();
            bar.finish_and_clear();
        });
        let result = work();
        drop(done);
        result
    })
}
