//! The gateway as a program, in front of test servers, with well-behaved and faulty clients.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests stop where something is wrong"
)]

mod http;
mod operator;
mod stdio;
