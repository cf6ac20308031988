//! The tools for people who write policies.

mod diff;
mod explain;
mod intercept;
mod lint;
mod recommend;
mod replay;
mod sample_traces;
mod shadow;
mod testing;
