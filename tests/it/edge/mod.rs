//! The edge of a gateway: messages, sessions, the example gateways, and attacks.

mod attacks;
#[cfg(unix)]
mod http_gateway;
mod mcp;
mod session;
#[cfg(target_os = "linux")]
mod stdio_gateway;
