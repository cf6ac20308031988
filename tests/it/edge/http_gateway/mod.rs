//! The HTTP gateway as a person runs it, in front of a server of the test's own: good clients and
//! bad ones, good servers and bad ones.

mod bad_clients;
mod bad_servers;
mod calls;
mod client;
mod files;
mod programs;
#[cfg(feature = "redis")]
mod shared;
mod streams;
