//! `orchestrate plan`: what a build would do and the memory that it is expected to need, one line an action.

use crate::arguments::{Format, Plan};
use crate::exit::{ExitCode, Failure};
use crate::output;
use crate::session::{Session, open_store_to_ask};
use orchestrate_engine::{Decision, PlannedAction, memory_in_words, plan};
use serde_json::json;

/// Prints the plan.
pub fn run(arguments: &Plan) -> Result<ExitCode, Failure> {
    let session = Session::open(&arguments.recipe)?;
    session.require_steps(&arguments.steps)?;
    session.require_device()?;
    let store = open_store_to_ask(&arguments.cache)?;
    let targets = session.lowered.targets(&arguments.steps);
    let plan = plan(&session.lowered.graph, &store, &targets, &session.recipe.name)?;
    let width = plan.actions.iter().map(|action| action.name.len()).max().unwrap_or(0);
    let memory = |action: &PlannedAction| session.lowered.graph.get(action.id).memory;
    for action in &plan.actions {
        match arguments.format {
            Format::Human => output::line(&human(action, memory(action), width))?,
            Format::Json => output::line(&json_line(action, memory(action)))?,
        }
    }
    if arguments.format == Format::Human {
        let count = |is: fn(&Decision) -> bool| plan.actions.iter().filter(|a| is(&a.decision)).count();
        let hits = count(|d| matches!(d, Decision::Hit { .. }));
        let runs = count(|d| matches!(d, Decision::Run { .. }));
        let maybes = count(|d| matches!(d, Decision::Maybe { .. }));
        output::line(&format!("{runs} to run, {maybes} perhaps, {hits} cached"))?;
    }
    Ok(ExitCode::Done)
}

fn human(action: &PlannedAction, memory: Option<u64>, width: usize) -> String {
    let name = &action.name;
    let memory = memory.map_or_else(|| "?".to_owned(), memory_in_words);
    match &action.decision {
        Decision::Hit { .. } => format!("cached  {name}"),
        Decision::Run { reason, .. } => format!("run     {name:width$}  {memory:>8}  {reason}"),
        Decision::Maybe { depends_on } => {
            format!(
                "maybe   {name:width$}  {memory:>8}  depends on {}",
                depends_on.join(", ")
            )
        }
    }
}

fn json_line(action: &PlannedAction, memory: Option<u64>) -> String {
    let mut line = json!({ "action": action.name, "step": action.step, "memory_bytes": memory });
    match &action.decision {
        Decision::Hit { key, tree } => {
            line["decision"] = json!("cached");
            line["key"] = json!(key);
            line["tree"] = json!(tree);
        }
        Decision::Run { key, reason } => {
            line["decision"] = json!("run");
            line["key"] = json!(key);
            line["reason"] = json!(reason.to_string());
        }
        Decision::Maybe { depends_on } => {
            line["decision"] = json!("maybe");
            line["depends_on"] = json!(depends_on);
        }
    }
    line.to_string()
}
