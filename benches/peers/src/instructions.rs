//! Instructions for each decision, as `callgrind` counts them: the same on a busy machine as on an idle one.
//!
//! The program runs itself with one contender alone, twice, and takes the difference, so that loading falls out.

use std::process::Command;

use crate::Asked;
use crate::race::Entrant;

/// The word with which the program is asked for one contender alone.
pub(crate) const ALONE: &str = "--alone";
/// What is done before anything counts: caches that fill as they are used.
const WARM: u64 = 64;

/// Whether they can be counted here. Says so if not; where CI expects them, that is a failure.
pub(crate) fn countable(asked: &Asked) -> bool {
    if !asked.instructions || !asked.pace.measures() {
        return false;
    }
    let found = Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "valgrind must be on the PATH");
        println!("\ninstructions: left out, there is no valgrind on the PATH");
    }
    found
}

/// How many one decision takes, of an entrant that takes so many nanoseconds.
pub(crate) fn of(title: &str, entrant: &Entrant, nanoseconds: f64) -> f64 {
    // Some 20 ms of work, of which valgrind makes a second.
    let units = ((20e6 / nanoseconds) as u64).clamp(16, 1_000_000);
    let [before, after] = [WARM, WARM + units].map(|units| alone(title, &entrant.name, units));
    (after - before) / units as f64
}

fn alone(title: &str, name: &str, units: u64) -> f64 {
    let program = std::env::current_exe().unwrap();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([ALONE, title, name, &units.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let (_, counted) = said.split_once("Collected : ").unwrap();
    counted.split_whitespace().next().unwrap().parse().unwrap()
}
