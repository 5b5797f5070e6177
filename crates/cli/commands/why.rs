//! `orchestrate why STEP`: whether the step would run, and if so, the first causes among all that it depends on; or how
//! its key differs from the one that it had in a particular run.

use crate::arguments::Why;
use crate::exit::{ExitCode, Failure};
use crate::output;
use crate::run_choice::{RunChoice, runs_of};
use crate::session::{Session, open_store_to_ask};
use orchestrate_engine::{
    ActionGraph, Change, Decision, Input, KeyDifference, KeyDocument, PlannedAction, Reason, RecordedRun, Store, plan,
};
use orchestrate_recipe::continuation;
use std::collections::{BTreeMap, BTreeSet};

/// Prints the explanation.
pub fn run(arguments: &Why) -> Result<ExitCode, Failure> {
    let session = Session::open(&arguments.recipe)?;
    session.require_steps(std::slice::from_ref(&arguments.step))?;
    session.require_device()?;
    let store = open_store_to_ask(&arguments.cache)?;
    let targets = session.lowered.targets(std::slice::from_ref(&arguments.step));
    let plan = plan(&session.lowered.graph, &store, &targets, &session.recipe.name)?;
    let by_name: BTreeMap<&str, &PlannedAction> = plan.actions.iter().map(|a| (a.name.as_str(), a)).collect();
    let step = session.lowered.step(&arguments.step).expect("the name was checked");
    let of_step: Vec<&PlannedAction> = step
        .actions
        .iter()
        .filter_map(|id| by_name.get(session.lowered.graph.get(*id).name.as_str()).copied())
        .collect();
    match &arguments.against {
        None => {
            let mut told = BTreeSet::new();
            of_step
                .iter()
                .try_for_each(|action| explain(action, &session.lowered.graph, &by_name, 0, &mut told))?;
        }
        Some(choice) => {
            let run = run_of(&store, &session.recipe.name, choice)?;
            let mut against = Against {
                session: &session,
                store: &store,
                run,
                by_name,
                told: BTreeSet::new(),
            };
            of_step.iter().try_for_each(|action| against.explain(action, 0))?;
        }
    }
    Ok(ExitCode::Done)
}

fn run_of(store: &Store, recipe: &str, choice: &RunChoice) -> Result<RecordedRun, Failure> {
    let runs = runs_of(Some(recipe), store.runs()?)?;
    let chosen = choice.choose(&runs)?;
    let vanished = || Failure::Usage(format!("the record of run {} was just removed", chosen.id.short()));
    store.run(&chosen.id)?.ok_or_else(vanished)
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

/// A comparison with the keys of one run.
struct Against<'a> {
    session: &'a Session,
    store: &'a Store,
    run: RecordedRun,
    by_name: BTreeMap<&'a str, &'a PlannedAction>,
    told: BTreeSet<&'a str>,
}

impl<'a> Against<'a> {
    /// Tells how the key of `action` differs from that run's, down to the first causes.
    fn explain(&mut self, action: &'a PlannedAction, depth: usize) -> Result<(), Failure> {
        let indent = "  ".repeat(depth);
        let name = &action.name;
        if !self.told.insert(name) {
            return output::line(&format!("{indent}{name}: see above"));
        }
        let causes: Vec<&'a PlannedAction> = match &action.document {
            Some(document) => self.compare(action, document, &indent)?,
            None => {
                output::line(&format!(
                    "{indent}{name}: its key shows when what it depends on is made:"
                ))?;
                match &action.decision {
                    Decision::Maybe { depends_on } => depends_on
                        .iter()
                        .filter_map(|input| self.by_name.get(input.as_str()).copied())
                        .collect(),
                    Decision::Hit { .. } | Decision::Run { .. } => Vec::new(),
                }
            }
        };
        causes.into_iter().try_for_each(|input| self.explain(input, depth + 1))
    }

    /// Tells the difference, and returns the actions whose artifacts are part of it.
    fn compare(
        &self,
        action: &PlannedAction,
        document: &KeyDocument,
        indent: &str,
    ) -> Result<Vec<&'a PlannedAction>, Failure> {
        let (name, run) = (&action.name, self.run.summary.id.short());
        let Some(old) = self.run.action(name).and_then(|record| record.key) else {
            output::line(&format!("{indent}{name}: has no key in run {run}"))?;
            return Ok(Vec::new());
        };
        match self.store.difference_to(&old, document)? {
            KeyDifference::None => output::line(&format!("{indent}{name}: as in run {run}, key {}", old.short()))?,
            KeyDifference::Untold => output::line(&format!(
                "{indent}{name}: changed since run {run}, whose key document is lost"
            ))?,
            KeyDifference::Changed(changes) => {
                output::line(&format!("{indent}{name}: since run {run}"))?;
                changes
                    .iter()
                    .try_for_each(|change| output::line(&format!("{indent}  {change}")))?;
                return Ok(changes.iter().filter_map(|change| self.cause(action, change)).collect());
            }
        }
        Ok(Vec::new())
    }

    /// The action whose artifact changed.
    fn cause(&self, action: &PlannedAction, change: &Change) -> Option<&'a PlannedAction> {
        let Change::Input { role, new: Some(_), .. } = change else {
            return None;
        };
        let graph = &self.session.lowered.graph;
        match graph.get(action.id).inputs.get(role)? {
            Input::Action(input) => self.by_name.get(graph.get(*input).name.as_str()).copied(),
            Input::File(_) => None,
        }
    }
}
