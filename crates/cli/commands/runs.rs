//! `orchestrate runs`: the recorded runs, the newest last, where a terminal shows it.

use super::cache::read_existing;
use crate::arguments::{Format, Runs};
use crate::exit::{ExitCode, Failure};
use crate::run_choice::runs_of;
use crate::{output, run_table};

/// Prints them.
pub fn run(arguments: &Runs) -> Result<ExitCode, Failure> {
    let mut runs = runs_of(arguments.recipe.as_deref(), read_existing(&arguments.cache)?.runs()?)?;
    if let Some(limit) = arguments.limit {
        runs.drain(..runs.len().saturating_sub(limit));
    }
    match arguments.format {
        Format::Human if runs.is_empty() => output::note("no run is recorded in this cache"),
        Format::Human => run_table::lines(&runs).iter().try_for_each(|line| output::line(line))?,
        Format::Json => runs
            .iter()
            .try_for_each(|run| output::line(&run_table::object(run).to_string()))?,
    }
    Ok(ExitCode::Done)
}
