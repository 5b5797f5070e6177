//! `orchestrate evaluate DIR RECIPE`: a model from a folder, on the test rows of one of the recipe's data sets.

use crate::arguments::Evaluate;
use crate::exit::{ExitCode, Failure};
use crate::interrupt::cancel_on_signals;
use crate::output;
use crate::session::Session;
use orchestrate_engine::{ActionOutcome, BuildOptions, InProcessExecutor, RunEvent, Store, build};
use orchestrate_recipe::{Kinds, evaluate_folder};
use serde_json::{Value, json};
use std::num::NonZeroUsize;

/// Prints the figures as one JSON object.
pub fn run(arguments: &Evaluate) -> Result<ExitCode, Failure> {
    let session = Session::open(&arguments.recipe)?;
    let data = chosen_data(arguments, &session)?;
    let store = Store::open(&arguments.cache.cache)?;
    let graph = &session.lowered.graph;
    let prepare = graph
        .find(&format!("data.{data}"))
        .ok_or_else(|| Failure::Usage(format!("no step of the recipe uses the data set `{data}`")))?;
    let options = BuildOptions {
        recipe: session.recipe.name.clone(),
        slots: NonZeroUsize::MIN,
        keep_going: false,
    };
    let (executor, cancel) = (InProcessExecutor::new(&Kinds), cancel_on_signals());
    let silent = |_: RunEvent| {};
    let report = build(graph, &[prepare], &options, &store, &executor, &cancel, &silent)?;
    let action = &report.actions[&prepare];
    let Some(result) = &action.result else {
        if let ActionOutcome::Failed { error, .. } = &action.outcome {
            output::error(&format!("{} failed: {error}", action.name));
        }
        return Ok(ExitCode::StepFailed);
    };
    let files = store.checkout(&result.tree, "data")?;
    let figures = evaluate_folder(
        &arguments.model,
        &files,
        session.recipe.device,
        session.recipe.latency_seconds,
    )?;
    let figures = figures.metrics.iter().chain(&figures.measurements);
    let document: Value = figures.map(|(name, value)| (name.clone(), json!(value))).collect();
    output::line(&format!("{document:#}"))?;
    Ok(ExitCode::Done)
}

fn chosen_data(arguments: &Evaluate, session: &Session) -> Result<String, Failure> {
    let names: Vec<&String> = session.recipe.data.keys().collect();
    let listed = || names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    match (&arguments.data, names.as_slice()) {
        (Some(name), _) if session.recipe.data.contains_key(name) => Ok(name.clone()),
        (Some(name), _) => Err(Failure::Usage(format!(
            "there is no data set `{name}` in the recipe; it has {}",
            listed()
        ))),
        (None, [only]) => Ok((*only).clone()),
        (None, _) => Err(Failure::Usage(format!(
            "name the data set with --data; the recipe has {}",
            listed()
        ))),
    }
}
