//! The engine's benchmark: what it costs to build, plan and hash, beside ninja, snakemake, DVC and b3sum.
//!
//! `run` beside this file installs the peers and starts it. With the word `rows` the program measures everything and
//! compares it with its targets; the other words are the work of one measured process each, so that ours and a peer's
//! are both timed from their start to their exit. Steps are trivial: what is timed is the engine alone. It does not
//! measure machine learning.

mod graphs;
mod peers;
mod race;
mod rows;
mod work;

use std::error::Error;
use std::process::ExitCode;

/// What goes wrong here is told and ends the program.
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["worker"] => return work::worker(),
        ["build", store, count, executor] => work::build_all(store, count, executor).map(|()| true),
        ["plan", store, count, shape] => work::plan_all(store, count, shape).map(|()| true),
        ["input", store, file] => work::plan_input(store, file).map(|()| true),
        ["publish", store, folder] => work::publish(store, folder).map(|()| true),
        ["rows", folder, peers, ref wanted @ ..] => rows::all(folder.as_ref(), peers.as_ref(), wanted),
        _ => Err(
            "the words are: worker | build STORE COUNT EXECUTOR | plan STORE COUNT SHAPE | input STORE FILE | \
             publish STORE FOLDER | rows FOLDER PEERS [PART…]"
                .into(),
        ),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            race::say(&format!("error: {error}"));
            ExitCode::from(2)
        }
    }
}
