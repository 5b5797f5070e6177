//! The binary as a user runs it, in folders of its own.

mod commands;
mod dependencies;
mod determinism;
mod errors;
mod kill;
mod real_data;
mod recipes;
mod reruns;
mod workspace;
