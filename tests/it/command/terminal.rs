//! The command on a terminal: tables, colours, and progress.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Folder, POLICY, TRACE, command};

/// Runs the command on a terminal of this width and returns what it shows.
fn on_terminal(arguments: &[&str], columns: u16, settings: &[(&str, &str)], stdin: Stdio) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = File::options().read(true).write(true).open(Path::new(name.to_str().unwrap())).unwrap();
    tcsetwinsize(&master, Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let mut command = command();
    command.args(arguments).envs(settings.iter().copied()).env("TERM", "xterm").stdin(stdin);
    let (out, err): (OwnedFd, OwnedFd) = (terminal.try_clone().unwrap().into(), terminal.into());
    let mut child = command.stdout(out).stderr(err).spawn().unwrap();
    // The command itself has copies of the terminal.
    drop(command);
    let mut shown = Vec::new();
    // The end of a terminal is an error.
    let _ = File::from(master).read_to_end(&mut shown);
    child.wait().unwrap();
    String::from_utf8(shown).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_terminal_has_a_table_with_colours() {
    let shown = on_terminal(&["decide", POLICY, TRACE], 100, &[], Stdio::null());
    assert!(shown.starts_with(" decision            step "), "{shown}");
    assert!(shown.contains(" \u{1b}[31mdeny\u{1b}[0m "), "{shown}");
    assert!(shown.lines().all(|line| console::measure_text_width(line) <= 100), "{shown}");
    let narrow = on_terminal(&["decide", POLICY, TRACE], 60, &[], Stdio::null());
    let table = narrow.split_once("\n\n").unwrap().0;
    assert!(table.lines().all(|line| console::measure_text_width(line) <= 60), "{narrow}");
    let check = on_terminal(&["check", "examples/data/payments.json"], 100, &[], Stdio::null());
    assert!(
        check.contains(":113:13: \u{1b}[33mwarning\u{1b}[0m[denial_left_out]: ") && check.contains("\n  help: "),
        "{check}"
    );
}

#[test]
fn colours_can_be_removed_and_forced() {
    let plain = on_terminal(&["decide", POLICY, TRACE], 100, &[("NO_COLOR", "1")], Stdio::null());
    assert!(plain.starts_with(" decision ") && !plain.contains('\u{1b}'), "{plain}");
    let piped = command().args(["decide", POLICY, TRACE]).output().unwrap().stdout;
    assert!(!piped.contains(&0x1b));
    let forced = command().args(["decide", POLICY, TRACE]).env("CLICOLOR_FORCE", "1").output().unwrap().stdout;
    assert!(forced.starts_with(b"\x1b[32mallow\x1b[0m\t"));
}

/// A log that arrives for longer than two seconds.
#[test]
fn progress_is_shown_after_two_seconds() {
    let folder = Folder::new();
    let log = std::fs::read(super::audit::log(&folder, 2000)).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let slow = std::thread::spawn(move || {
        let half = log.len() / 2;
        std::io::Write::write_all(&mut writer, &log[..half]).unwrap();
        std::thread::sleep(Duration::from_millis(2500));
        std::io::Write::write_all(&mut writer, &log[half..]).unwrap();
    });
    let shown = on_terminal(&["audit", "verify", "-"], 100, &[], Stdio::from(OwnedFd::from(reader)));
    slow.join().unwrap();
    assert!(shown.contains(" read in ") && shown.contains("3001 records"), "{shown:?}");
    let quick = on_terminal(&["audit", "verify", &super::audit::log(&folder, 1)], 100, &[], Stdio::null());
    assert!(!quick.contains(" read in ") && !quick.contains(" left"), "{quick:?}");
}
