//! The configuration of the HTTP gateway.
