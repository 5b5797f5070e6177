//! The `orchestrate` command: it reads arguments, hands work to the recipe and engine crates, and shows what they tell.
//!
//! Data goes to standard output, everything else to standard error. The exit code is one of [`exit::ExitCode`].

mod arguments;
mod built;
mod check;
mod ci;
mod clock;
mod columns;
mod commands;
#[cfg(test)]
mod documentation;
mod exit;
mod exports;
mod hub;
mod interrupt;
mod locked;
mod logging;
mod machine;
mod output;
mod quantity;
mod reporter;
mod run_choice;
mod run_table;
mod session;
mod table;

use arguments::{Arguments, Command};
use clap::Parser;
use exit::Failure;
use orchestrate_recipe::on_pool;

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    logging::start(arguments.verbose);
    let result = match arguments.command {
        Command::Build(build) => commands::build::run(&build),
        Command::Plan(plan) => commands::plan::run(&plan),
        Command::Lock(lock) => commands::lock::run(&lock),
        Command::Why(why) => commands::why::run(&why),
        Command::Runs(runs) => commands::runs::run(&runs),
        Command::Log(log) => commands::log::run(&log),
        Command::Diff(diff) => commands::diff::run(&diff),
        Command::Status(status) => commands::status::run(&status),
        Command::Graph(graph) => commands::graph::run(&graph),
        Command::Predict(predict) => on_pool(|| commands::predict::run(&predict)),
        Command::Bench(bench) => on_pool(|| commands::bench::run(&bench)),
        Command::Evaluate(evaluate) => commands::evaluate::run(&evaluate),
        Command::Cache(cache) => commands::cache::run(&cache),
        Command::Init(init) => commands::init::run(&init),
        Command::Fetch(fetch) => commands::fetch::run(&fetch),
        Command::Schema => commands::schema::run(),
        Command::Completions(completions) => commands::completions::run(&completions),
        Command::Man(man) => commands::man::run(&man),
        Command::Worker => return commands::worker::run(),
    };
    match result {
        Ok(code) => code.into(),
        Err(Failure::OutputClosed) => exit::ExitCode::Done.into(),
        Err(failure) => {
            failure.show();
            failure.code().into()
        }
    }
}
