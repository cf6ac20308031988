//! The instructions of a decision. `callgrind` counts them, so that they do not depend on other
//! load.
//!
//! The program runs itself with one contender alone, with two numbers of decisions. The difference
//! excludes loading.

use std::process::Command;

use crate::Options;
use crate::race::ContenderFactory;

/// The argument with which the program runs one contender alone.
pub(crate) const ALONE: &str = "--alone";
/// The decisions that are not counted, because they fill caches.
const WARM_UP: u64 = 64;

/// Returns `true` if instructions are requested and `valgrind` is installed. Prints a message if it
/// is not, and panics in CI.
pub(crate) fn can_count(options: &Options) -> bool {
    if !options.instructions || !options.pace.measures() {
        return false;
    }
    let found = Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "valgrind must be on the PATH");
        println!("\ninstructions: skipped, because valgrind is not on the PATH");
    }
    found
}

/// Counts the instructions of a decision that takes this many nanoseconds.
pub(crate) fn per_decision(title: &str, contender: &ContenderFactory, nanoseconds: f64) -> f64 {
    // About 20 ms of work, which take a second under valgrind.
    let units = ((20e6 / nanoseconds) as u64).clamp(16, 1_000_000);
    let [before, after] = [WARM_UP, WARM_UP + units].map(|units| count(title, &contender.name, units));
    (after - before) / units as f64
}

/// Counts the instructions of a process that runs one contender alone.
fn count(title: &str, name: &str, units: u64) -> f64 {
    let program = std::env::current_exe().unwrap();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([ALONE, title, name, &units.to_string()])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let (_, collected) = stderr.split_once("Collected : ").unwrap();
    collected.split_whitespace().next().unwrap().parse().unwrap()
}
