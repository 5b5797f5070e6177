//! `orchestrate why STEP`: whether the step would run, and if so, the first causes among all that it depends on.

use crate::arguments::Why;
use crate::exit::{ExitCode, Failure};
use crate::output;
use crate::session::{Session, open_store};
use orchestrate_engine::{ActionGraph, Decision, PlannedAction, Reason, plan};
use orchestrate_recipe::continuation;
use std::collections::{BTreeMap, BTreeSet};

/// Prints the explanation.
pub fn run(arguments: &Why) -> Result<ExitCode, Failure> {
    let session = Session::open(&arguments.recipe)?;
    session.require_steps(std::slice::from_ref(&arguments.step))?;
    session.require_device()?;
    let store = open_store(&arguments.cache)?;
    let targets = session.lowered.targets(std::slice::from_ref(&arguments.step));
    let plan = plan(&session.lowered.graph, &store, &targets, &session.recipe.name)?;
    let by_name: BTreeMap<&str, &PlannedAction> = plan.actions.iter().map(|a| (a.name.as_str(), a)).collect();
    let step = session.lowered.step(&arguments.step).expect("the name was checked");
    let mut told = BTreeSet::new();
    for id in &step.actions {
        let name = session.lowered.graph.get(*id).name.as_str();
        if let Some(action) = by_name.get(name) {
            explain(action, &session.lowered.graph, &by_name, 0, &mut told)?;
        }
    }
    Ok(ExitCode::Done)
}

fn explain<'a>(
    action: &'a PlannedAction,
    graph: &ActionGraph,
    by_name: &BTreeMap<&str, &'a PlannedAction>,
    depth: usize,
    told: &mut BTreeSet<&'a str>,
) -> Result<(), Failure> {
    let indent = "  ".repeat(depth);
    let name = &action.name;
    if !told.insert(name) {
        return match action.decision {
            Decision::Hit { .. } => Ok(()),
            Decision::Run { .. } | Decision::Maybe { .. } => output::line(&format!("{indent}{name}: see above")),
        };
    }
    match &action.decision {
        Decision::Hit { key, .. } => output::line(&format!("{indent}{name}: cached, key {}", key.short())),
        Decision::Run {
            reason: Reason::Changed(changes),
            ..
        } => {
            output::line(&format!("{indent}{name}: runs, because since it last ran"))?;
            changes
                .iter()
                .try_for_each(|change| output::line(&format!("{indent}  {change}")))?;
            let continuation = graph.find(name).and_then(|id| continuation(graph.get(id), changes));
            continuation.map_or(Ok(()), |told| output::line(&format!("{indent}  {told}")))
        }
        Decision::Run { reason, .. } => output::line(&format!("{indent}{name}: runs: {reason}")),
        Decision::Maybe { depends_on } => {
            output::line(&format!(
                "{indent}{name}: runs unless what it depends on comes out as before:"
            ))?;
            let inputs = depends_on.iter().filter_map(|input| by_name.get(input.as_str()));
            inputs
                .copied()
                .try_for_each(|input| explain(input, graph, by_name, depth + 1, told))
        }
    }
}
