//! The suite that every store must pass, over all stores; and what the counters promise, held against a judge.
