//! The server: a child process, in a process group of its own, so that what it starts ends with it.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::gateway::log::say;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// A server that runs.
pub(crate) struct Server {
    child: Child,
    group: Pid,
}

impl Server {
    /// Starts it, with its standard input and output in our hands, and its standard error where ours goes.
    pub(crate) fn start(command: &[OsString]) -> Result<(Self, ChildStdin, ChildStdout), String> {
        let (program, arguments) = command.split_first().ok_or("no server: COMMAND ARGS... come after `--`")?;
        let said = |error: &dyn std::fmt::Display| format!("cannot start {}: {error}", program.display());
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| said(&error))?;
        match (Pid::from_raw(child.id().cast_signed()), child.stdin.take(), child.stdout.take()) {
            (Some(group), Some(stdin), Some(stdout)) => Ok((Self { child, group }, stdin, stdout)),
            _ => Err(said(&"it has no pipes")),
        }
    }

    /// Says when it has ended, without taking note of it: until [`Self::end`] nobody else has its number.
    pub(crate) fn when_ended(&self, then: impl FnOnce() + Send + 'static) {
        let pid = self.group;
        thread::spawn(move || {
            while let Err(rustix::io::Errno::INTR) =
                waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            {}
            then();
        });
    }

    /// Whether it has ended, or does within this time.
    pub(crate) fn ends_within(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        loop {
            match waitid(WaitId::Pid(self.group), options) {
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Ok(Some(_)) | Err(_) => return true,
            }
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end, and makes it end if it does not within `grace`. Whatever it has started and left behind ends too.
    pub(crate) fn end(mut self, grace: Duration) -> io::Result<ExitStatus> {
        // What is left of the group may be nothing.
        let _ = kill_process_group(self.group, Signal::TERM);
        if !self.ends_within(grace) {
            say("the server does not end: it is killed");
        }
        let _ = kill_process_group(self.group, Signal::KILL);
        self.child.wait()
    }
}

/// Whether the reader of a pipe has gone.
pub(crate) fn has_no_reader(pipe: &impl AsFd) -> bool {
    let mut pipes = [PollFd::new(pipe, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // What is asked for is nothing: errors are told all the same.
    let told = poll(&mut pipes, Some(&at_once));
    told.is_ok() && pipes.iter().any(|pipe| pipe.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

/// Whether so few bytes can be written to a pipe without waiting: one that takes anything at once takes a page.
pub(crate) fn takes_a_little(pipe: &impl AsFd, bytes: usize) -> bool {
    const PAGE: usize = 4096;
    let mut pipes = [PollFd::new(pipe, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let told = poll(&mut pipes, Some(&at_once));
    bytes <= PAGE && told.is_ok() && pipes.iter().any(|pipe| pipe.revents() == PollFlags::OUT)
}
