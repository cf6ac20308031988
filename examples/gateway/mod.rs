//! What a gateway needs besides its transport: options, the policy's file, the admin socket.
//!
//! Nothing here decides anything, and nothing here moves a message: the rules are the library's, the bytes the transport's.

pub(crate) mod admin;
pub(crate) mod admin_client;
pub(crate) mod audit;
pub(crate) mod caller;
pub(crate) mod file;
pub(crate) mod log;
pub(crate) mod options;
pub(crate) mod pins;
pub(crate) mod policy_file;
pub(crate) mod text;
