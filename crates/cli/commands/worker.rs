//! `orchestrate worker`: carries out one action for the engine that started it.

use orchestrate_engine::run_worker;
use orchestrate_recipe::{Kinds, on_pool};
use std::io;
use std::process::ExitCode;

/// Runs the order on standard input.
pub fn run() -> ExitCode {
    orchestrate_recipe::prepare_process();
    on_pool(|| run_worker(&Kinds, io::BufReader::new(io::stdin()), io::stdout()))
}
