//! The edge of a gateway: messages, sessions, and attacks.

mod attacks;
mod mcp;
mod rounds;
mod session;
mod tasks;

use toolgate::mcp::ServerState;
use toolgate::{Caller, Gate, ManualClock, Policy, Timestamp};

/// A gate under this policy, the state of the sessions with one server, the clock of both, and a
/// caller.
fn parts(policy: &str) -> (Gate, ServerState, ManualClock, Caller) {
    let clock = ManualClock::new(Timestamp::from_unix_seconds(1_800_000_000));
    let gate = Gate::builder().policy(policy.parse::<Policy>().unwrap()).clock(clock.clone()).build();
    (gate, ServerState::with_clock(clock.clone()), clock, Caller::new().grant("g"))
}
