//! The binary as a user runs it, in folders of its own.
#![expect(clippy::unwrap_used, reason = "a test panics where something is not as it should be")]

mod cache;
mod ci;
mod commands;
mod dependencies;
mod determinism;
mod errors;
mod fetch;
mod inspection;
mod kill;
mod lock;
mod manual;
mod memory;
mod outputs;
mod pretrained;
mod real_data;
mod recipes;
mod reruns;
mod resume;
mod workspace;
