//! `orchestrate cache rm RECIPE STEP…`: forgets results of steps, so that the next build runs them again.
//!
//! Of a step, what goes are the results that a build would now find; where that cannot be told before its inputs are
//! made, the last recorded one. Nothing else goes: what steps behind it made stays, and is found again if the step comes
//! out as before. A result that another recipe shares is gone for that one too.

use super::cache::open_existing;
use crate::arguments::CacheRm;
use crate::exit::{ExitCode, Failure};
use crate::output;
use crate::session::Session;
use orchestrate_engine::{ActionId, ActionKey, Decision, plan};

/// Removes them.
pub fn run(arguments: &CacheRm) -> Result<ExitCode, Failure> {
    let session = Session::open(&arguments.recipe)?;
    let wanted = actions_of(&session, &arguments.steps)?;
    session.require_device()?;
    let store = open_existing(&arguments.cache)?;
    let (graph, recipe) = (&session.lowered.graph, &session.recipe.name);
    let plan = plan(graph, &store, &wanted, recipe)?;
    let mut found: Vec<(&str, ActionKey)> = Vec::new();
    for action in plan.actions.iter().filter(|action| wanted.contains(&action.id)) {
        let key = match &action.decision {
            Decision::Hit { key, .. } | Decision::Run { key, .. } => Some(*key),
            Decision::Maybe { .. } => store
                .last_record_of(recipe, &action.name)?
                .and_then(|record| record.key),
        };
        found.extend(key.map(|key| (action.name.as_str(), key)));
    }
    let mut removed = 0;
    for (name, key) in found {
        let (word, is_there) = if arguments.dry_run {
            ("would remove", store.result(&key)?.found().is_some())
        } else {
            ("removed", store.remove_result(&key)?)
        };
        if is_there {
            removed += 1;
            output::line(&format!("{word} the result of {name}, key {}", key.short()))?;
        }
    }
    match (removed, arguments.dry_run) {
        (0, _) => output::note("nothing to remove: these steps have no results in this cache"),
        (_, true) => output::note(&format!("{removed} results; nothing was removed")),
        (_, false) => output::note(&format!(
            "{removed} results; the next build runs these steps again, and `orchestrate cache gc` frees what nothing needs"
        )),
    }
    Ok(ExitCode::Done)
}

/// The own actions of the steps and data sets of those names.
fn actions_of(session: &Session, names: &[String]) -> Result<Vec<ActionId>, Failure> {
    let graph = &session.lowered.graph;
    let known: Vec<&str> = graph.iter().map(|(_, action)| action.step.as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let mut listed = known;
        listed.dedup();
        let listed: Vec<&str> = listed
            .iter()
            .enumerate()
            .filter(|(place, name)| !listed[..*place].contains(name))
            .map(|(_, name)| *name)
            .collect();
        return Err(Failure::Usage(format!(
            "there is no step `{unknown}` in the recipe; its steps and data sets are {}",
            listed.join(", ")
        )));
    }
    let of_names = graph.iter().filter(|(_, action)| names.contains(&action.step));
    Ok(of_names.map(|(id, _)| id).collect())
}
