//! The edge of a gateway: messages, sessions, and attacks.

mod attacks;
mod mcp;
mod rounds;
mod session;
mod tasks;
