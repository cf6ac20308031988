//! The tools for people who write policies, and the examples that run them.

mod decide;
mod diff;
mod explain;
mod intercept;
mod lint;
mod recommend;
mod replay;
mod sample_traces;
mod shadow;
mod testing;
