//! Approvals: requests, stores of approvals, and approvals that are signed elsewhere.

pub(crate) mod cases;
mod signed;
