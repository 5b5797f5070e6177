//! Running actions a second time, from scratch, to see whether they give the same bytes.
//!
//! Invariants: nothing that the second run makes is kept, and nothing of the first is changed; no checkpoint is read or
//! written. Measurements are not compared. What runs at the same time is what a build would let run at the same time. An
//! input file that was changed since the build read it is told as that, never as a difference.

use crate::action::{ActionId, Input};
use crate::artifact::{Tree, TreeEntry};
use crate::assess::{Assessor, Keyed};
use crate::cancel::Cancel;
use crate::error::EngineError;
use crate::event::RunEvent;
use crate::executor::Executor;
use crate::freshness::Reason;
use crate::graph::ActionGraph;
use crate::job::{Halt, Job, JobContext, catch_panic};
use crate::memory::too_large;
use crate::pools::Pools;
use crate::ready::{MemoryWaits, Ready};
use crate::report::BuildReport;
use crate::result::ActionResult;
use crate::scheduler::BuildOptions;
use crate::step::FailureClass;
use crate::store::{Store, StoreError, tree_of_folder};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, mpsc};
use std::thread::Scope;
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
    /// It failed this time, or could not be run: an input file is another, or it needs more memory than there is.
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
/// [`EngineError`] if the store cannot be read.
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
        recipe: &options.recipe,
        graph,
        store,
        executor,
        cancel,
        sink,
        checkpoint_every: None,
        verified: Mutex::new(HashSet::new()),
    };
    let mut check = Check {
        context: &context,
        describe,
        pools: Pools::new(options.slots, options.memory),
        ready: Ready::default(),
        memory_waits: MemoryWaits::default(),
        waiting: BTreeMap::new(),
        ended: BTreeMap::new(),
    };
    check.take_in(built, chosen, &options.recipe)?;
    std::thread::scope(|scope| check.run(scope));
    Ok(check.ended)
}

struct Check<'a> {
    context: &'a JobContext<'a>,
    describe: Describe<'a>,
    pools: Pools,
    /// The actions of `waiting`.
    ready: Ready,
    memory_waits: MemoryWaits,
    /// Those that have not started, with their first results.
    waiting: BTreeMap<ActionId, (Job, ActionResult)>,
    ended: BTreeMap<ActionId, Reproduction>,
}

impl<'a> Check<'a> {
    /// Takes in the `chosen` actions with their results. Those that cannot be run as they were end at once.
    fn take_in(&mut self, built: &BuildReport, chosen: &[ActionId], recipe: &str) -> Result<(), EngineError> {
        let context = self.context;
        let result_of = |id: &ActionId| built.actions[id].result.as_ref().expect("the build was successful");
        let mut assessor = Assessor::new(context.graph, context.store, recipe)?;
        let chosen: Vec<(ActionId, bool)> = chosen.iter().map(|id| (*id, true)).collect();
        for (id, assessment) in assessor.assess(&chosen, &|input| result_of(&input).tree) {
            let (action, first) = (context.graph.get(id), result_of(&id));
            let keyed = match assessment {
                Ok(assessment) => assessment.keyed,
                Err(error @ EngineError::InputFile { .. }) => {
                    let error = format!("{error}; the build could read it: build again");
                    self.refuse(id, error, FailureClass::Input);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if keyed.key != first.key {
                let error = changed_files(id, &keyed, first, context)?;
                self.refuse(id, error, FailureClass::Input);
            } else if let Some(there_is) = self.pools.exceeded_by(action) {
                let error = too_large(action.memory.unwrap_or(0), there_is);
                self.refuse(id, error, FailureClass::Environment);
            } else {
                let job = Job {
                    id,
                    keyed,
                    reason: Reason::Check,
                    needs_bytes: true,
                };
                self.ready.insert(id, action.demand);
                self.waiting.insert(id, (job, first.clone()));
            }
        }
        // None waits for another: the longest come first. A time that is too large or no number becomes the nearest
        // integer or 0.
        let micros = |first: &ActionResult| (first.seconds * 1e6) as u64;
        let urgencies = self.waiting.iter().map(|(id, (_, first))| (*id, micros(first)));
        self.ready.rank(urgencies.collect());
        Ok(())
    }

    fn refuse(&mut self, id: ActionId, error: String, class: FailureClass) {
        let reproduction = Reproduction::Failed { error, class };
        tell(id, &reproduction, 0.0, self.context);
        self.ended.insert(id, reproduction);
    }

    /// Starts what there is room for, and waits until all have ended.
    fn run<'scope>(&mut self, scope: &'scope Scope<'scope, 'a>) {
        let (sender, ends) = mpsc::channel();
        let context = self.context;
        let mut running = 0_usize;
        loop {
            while !context.cancel.is_stopped()
                && let Some(id) = self.ready.enter_first(context.graph, &mut self.pools)
            {
                self.ready.remove(id, context.graph.get(id).demand);
                let (job, first) = self.waiting.remove(&id).expect("what is ready waits");
                let (sender, describe) = (sender.clone(), self.describe);
                scope.spawn(move || {
                    let reproduction = run_again(&job, &first, context, describe);
                    sender.send((id, reproduction)).expect("the receiver outlives all jobs");
                });
                running += 1;
            }
            if running == 0 {
                break;
            }
            self.memory_waits
                .tell(&self.ready, &self.pools, context.graph, context.sink);
            let (id, reproduction) = ends.recv().expect("this function holds a sender");
            running -= 1;
            self.pools.leave(context.graph.get(id));
            self.ended.insert(id, reproduction);
        }
        let skipped = std::mem::take(&mut self.waiting).into_keys();
        self.ended.extend(skipped.map(|id| (id, Reproduction::Skipped)));
    }
}

/// Which input files of an action are others than those that its `first` result was made of.
fn changed_files(
    id: ActionId,
    keyed: &Keyed,
    first: &ActionResult,
    context: &JobContext<'_>,
) -> Result<String, StoreError> {
    let built = context.store.key_document(&first.key)?;
    let inputs = context.graph.get(id).inputs.iter().zip(&keyed.inputs.digests);
    let changed = inputs.filter_map(|((role, input), digest)| match input {
        Input::File(path) if built.as_ref().and_then(|built| built.inputs.get(role)) != Some(digest) => {
            Some(path.display().to_string())
        }
        Input::File(_) | Input::Action(_) => None,
    });
    Ok(format!(
        "changed since the build read it: {}; there is nothing to compare with: build again",
        changed.collect::<Vec<_>>().join(", ")
    ))
}

fn run_again(job: &Job, first: &ActionResult, context: &JobContext<'_>, describe: Describe<'_>) -> Reproduction {
    let action = context.graph.get(job.id);
    (context.sink)(RunEvent::ActionStarted {
        action: action.name.clone(),
        step: action.step.clone(),
        key: job.keyed.key,
        reason: job.reason.clone(),
    });
    let started = Instant::now();
    let reproduction = match catch_panic(|| difference(job, first, context, describe)) {
        Ok(None) => Reproduction::Same,
        Ok(Some(difference)) => Reproduction::Differs { difference },
        Err(Halt::Failed { error, class, .. }) => Reproduction::Failed { error, class },
        Err(Halt::BadInputs(bad)) => Reproduction::Failed {
            error: format!("{}: build again", bad[0].reason),
            class: FailureClass::Environment,
        },
        Err(Halt::Cancelled { .. }) => Reproduction::Skipped,
    };
    tell(job.id, &reproduction, started.elapsed().as_secs_f64(), context);
    reproduction
}

fn tell(id: ActionId, reproduction: &Reproduction, seconds: f64, context: &JobContext<'_>) {
    let (difference, error) = match reproduction {
        Reproduction::Same | Reproduction::Skipped => (None, None),
        Reproduction::Differs { difference } => (Some(difference.clone()), None),
        Reproduction::Failed { error, .. } => (None, Some(error.clone())),
    };
    let action = context.graph.get(id);
    (context.sink)(RunEvent::ActionChecked {
        action: action.name.clone(),
        step: action.step.clone(),
        same: *reproduction == Reproduction::Same,
        difference,
        error,
        seconds,
    });
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
    let executed = match job.execute(action, inputs, scratch.path(), None, context) {
        Ok(executed) => {
            job.check_files(&executed.log)?;
            executed
        }
        Err(Halt::Failed { error, class, log }) => {
            // The change of a file may be what it failed for.
            job.check_files(&log)?;
            return Err(Halt::Failed { error, class, log });
        }
        Err(halt) => return Err(halt),
    };
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
