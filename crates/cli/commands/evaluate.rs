//! `orchestrate evaluate DIR RECIPE`: a model from a folder, on the test rows of one of the recipe's data sets.

use crate::arguments::Evaluate;
use crate::exit::{ExitCode, Failure};
use crate::output;
use crate::session::Session;
use orchestrate_recipe::report::number;
use orchestrate_recipe::{Data, evaluate_folder, on_pool, prepare_process};
use serde_json::Value;

/// Prints the figures as one JSON object.
pub fn run(arguments: &Evaluate) -> Result<ExitCode, Failure> {
    prepare_process();
    let session = Session::open(&arguments.recipe)?;
    let data = chosen_data(arguments, &session)?;
    let recipe = &session.recipe;
    let figures = on_pool(|| evaluate_folder(&arguments.model, data, recipe.device, recipe.latency_seconds))?;
    let figures = figures.metrics.iter().chain(&figures.measurements);
    let document: Value = figures.map(|(name, value)| (name.clone(), number(*value))).collect();
    output::line(&format!("{document:#}"))?;
    Ok(ExitCode::Done)
}

fn chosen_data<'a>(arguments: &Evaluate, session: &'a Session) -> Result<&'a Data, Failure> {
    let data = &session.recipe.data;
    let listed = || data.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    match &arguments.data {
        Some(name) => data.get(name).ok_or_else(|| {
            Failure::Usage(format!(
                "there is no data set `{name}` in the recipe; it has {}",
                listed()
            ))
        }),
        None if data.len() == 1 => Ok(data.values().next().expect("there is one")),
        None => Err(Failure::Usage(format!(
            "name the data set with --data; the recipe has {}",
            listed()
        ))),
    }
}
