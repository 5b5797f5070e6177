//! Running actions a second time, from scratch, to see whether they give the same bytes.
//!
//! Invariants: nothing that the second run makes is kept, and nothing of the first is changed; no checkpoint is read or
//! written. Measurements are not compared.

use crate::action::ActionId;
use crate::artifact::{Tree, TreeEntry};
use crate::assess::Assessor;
use crate::cancel::Cancel;
use crate::error::EngineError;
use crate::event::RunEvent;
use crate::executor::Executor;
use crate::freshness::Reason;
use crate::graph::ActionGraph;
use crate::job::{Halt, Job, JobContext};
use crate::report::BuildReport;
use crate::result::ActionResult;
use crate::scheduler::BuildOptions;
use crate::step::FailureClass;
use crate::store::{Store, tree_of_folder};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

/// What came of an action's second run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reproduction {
    /// The same files and metrics.
    Same,
    /// Others.
    Differs {
        /// What differs first, and how.
        difference: String,
    },
    /// It failed this time.
    Failed {
        /// What went wrong.
        error: String,
        /// Who must act.
        class: FailureClass,
    },
    /// It was not run a second time.
    Skipped,
}

/// Tells in words how a file differs from the one of the first run: its path in the artifact, and where both lie.
pub type Describe<'a> = &'a (dyn Fn(&str, &Path, &Path) -> String + Sync);

/// Runs those actions of `built`, a successful build of `graph`, that are `chosen`, again, and compares.
///
/// # Errors
/// [`EngineError`] if an input or the store cannot be read.
#[expect(
    clippy::too_many_arguments,
    reason = "those of a build, what it gave, and how to tell a difference"
)]
pub fn reproduce(
    graph: &ActionGraph,
    built: &BuildReport,
    chosen: &[ActionId],
    options: &BuildOptions,
    store: &Store,
    executor: &dyn Executor,
    cancel: &Cancel,
    sink: &(dyn Fn(RunEvent) + Sync),
    describe: Describe<'_>,
) -> Result<BTreeMap<ActionId, Reproduction>, EngineError> {
    let context = JobContext {
        graph,
        store,
        executor,
        cancel,
        sink,
        checkpoint_every: None,
        verified: Mutex::new(HashSet::new()),
    };
    let jobs = Mutex::new(jobs(&context, built, chosen, &options.recipe)?);
    let ended = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..options.slots.get() {
            scope.spawn(|| {
                let next = || jobs.lock().expect("no one panics with this lock").pop_front();
                while let Some((job, first)) = next() {
                    let reproduction = run_again(&job, &first, &context, describe);
                    let mut ended = ended.lock().expect("no one panics with this lock");
                    ended.insert(job.id, reproduction);
                }
            });
        }
    });
    Ok(ended.into_inner().expect("no one panics with this lock"))
}

/// The `chosen` actions with their results.
fn jobs(
    context: &JobContext<'_>,
    built: &BuildReport,
    chosen: &[ActionId],
    recipe: &str,
) -> Result<VecDeque<(Job, ActionResult)>, EngineError> {
    let result_of = |id: &ActionId| built.actions[id].result.as_ref().expect("the build was successful");
    let mut assessor = Assessor::new(context.graph, context.store, recipe)?;
    let chosen: Vec<(ActionId, bool)> = chosen.iter().map(|id| (*id, true)).collect();
    let assessed = assessor.assess(&chosen, &|input| result_of(&input).tree);
    let jobs = assessed.into_iter().map(|(id, assessment)| {
        let job = Job {
            id,
            keyed: assessment?.keyed,
            reason: Reason::Check,
            needs_bytes: true,
        };
        Ok((job, result_of(&id).clone()))
    });
    jobs.collect()
}

fn run_again(job: &Job, first: &ActionResult, context: &JobContext<'_>, describe: Describe<'_>) -> Reproduction {
    if context.cancel.is_stopped() {
        return Reproduction::Skipped;
    }
    let action = context.graph.get(job.id);
    (context.sink)(RunEvent::ActionStarted {
        action: action.name.clone(),
        step: action.step.clone(),
        key: job.keyed.key,
        reason: job.reason.clone(),
    });
    let started = Instant::now();
    let reproduction = match difference(job, first, context, describe) {
        Ok(None) => Reproduction::Same,
        Ok(Some(difference)) => Reproduction::Differs { difference },
        Err(Halt::Failed { error, class, .. }) => Reproduction::Failed { error, class },
        Err(Halt::BadInputs(bad)) => Reproduction::Failed {
            error: format!("{}: build again", bad[0].reason),
            class: FailureClass::Environment,
        },
        Err(Halt::Cancelled { .. }) => Reproduction::Skipped,
    };
    let (difference, error) = match &reproduction {
        Reproduction::Same | Reproduction::Skipped => (None, None),
        Reproduction::Differs { difference } => (Some(difference.clone()), None),
        Reproduction::Failed { error, .. } => (None, Some(error.clone())),
    };
    (context.sink)(RunEvent::ActionChecked {
        action: action.name.clone(),
        step: action.step.clone(),
        same: reproduction == Reproduction::Same,
        difference,
        error,
        seconds: started.elapsed().as_secs_f64(),
    });
    reproduction
}

/// What differs first between `first` and what `job` gives now.
fn difference(
    job: &Job,
    first: &ActionResult,
    context: &JobContext<'_>,
    describe: Describe<'_>,
) -> Result<Option<String>, Halt> {
    let action = context.graph.get(job.id);
    let inputs = job.inputs(action, context)?;
    let scratch = context.store.scratch()?;
    let executed = job.execute(action, inputs, scratch.path(), None, context)?;
    let found = tree_of_folder(scratch.path())?;
    if found.digest() != first.tree {
        let blobs = context.store.checkout(&first.tree, &action.name)?;
        let expected = context.store.tree(&first.tree)?.expect("it was just checked out");
        return Ok(Some(match first_difference(&expected, &found) {
            FirstDifference::Missing(path) => format!("{path} is missing this time"),
            FirstDifference::New(path) => format!("{path} is new this time"),
            FirstDifference::Content(path) => describe(path, &blobs[path], &scratch.path().join(path)),
        }));
    }
    let metrics = &executed.outcome.metrics;
    let names: Vec<&String> = first.metrics.keys().chain(metrics.keys()).collect();
    let told = |value: Option<&f64>| value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
    let differs = |name: &&String| first.metrics.get(*name) != metrics.get(*name);
    Ok(names.into_iter().find(differs).map(|name| {
        let (before, now) = (told(first.metrics.get(name)), told(metrics.get(name)));
        format!("the metric {name} was {before} and is {now}")
    }))
}

enum FirstDifference<'a> {
    Missing(&'a str),
    New(&'a str),
    Content(&'a str),
}

/// The first file in which two trees of other digests differ.
fn first_difference<'a>(expected: &'a Tree, found: &'a Tree) -> FirstDifference<'a> {
    let by_path = |tree: &'a Tree| -> BTreeMap<&'a str, &'a TreeEntry> {
        tree.entries()
            .iter()
            .map(|entry| (entry.path.as_str(), entry))
            .collect()
    };
    let (old, new) = (by_path(expected), by_path(found));
    let mut paths: Vec<&str> = old.keys().chain(new.keys()).copied().collect();
    paths.sort_unstable();
    let differing = paths.into_iter().find_map(|path| match (old.get(path), new.get(path)) {
        (Some(_), None) => Some(FirstDifference::Missing(path)),
        (None, _) => Some(FirstDifference::New(path)),
        (Some(old), Some(new)) => (old != new).then_some(FirstDifference::Content(path)),
    });
    differing.expect("trees of the same entries have the same digest")
}
