//! What a thread of the scheduler does with one stale action: lease, verified inputs, execution, publication.
//!
//! Invariants: nothing is started whose result another build has just made; a step gets only bytes that were hashed in
//! this build; nothing is published if an external input was changed since it was hashed into the key, also if
//! it was restored before the step ended: the step may have read what it held in between.

use crate::action::{Action, ActionId, Input};
use crate::artifact::Tree;
use crate::assess::{Keyed, find_result, reason_of};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::event::RunEvent;
use crate::executor::{Executed, ExecutionError, Executor, Notice};
use crate::freshness::Reason;
use crate::graph::ActionGraph;
use crate::input_file::InputFile;
use crate::key::InputDigest;
use crate::result::ActionResult;
use crate::step::{CheckpointPlace, FailureClass, InputFiles, StepError, panic_message};
use crate::store::{Integrity, Lease, LeasePurpose, Store, StoreError};
use crate::worker::WorkOrder;
use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often another build's lease is tried.
const LEASE_POLL: Duration = Duration::from_millis(20);
/// How often the lease is looked at that does not say who holds it, before it is told without that.
const HOLDER_LOOKS: u32 = 50;

/// What all jobs of a build share.
pub(crate) struct JobContext<'a> {
    /// Name of the recipe that is built.
    pub(crate) recipe: &'a str,
    pub(crate) graph: &'a ActionGraph,
    pub(crate) store: &'a Store,
    pub(crate) executor: &'a dyn Executor,
    pub(crate) cancel: &'a Cancel,
    pub(crate) sink: &'a (dyn Fn(RunEvent) + Sync),
    /// How often checkpoints are written, if they are.
    pub(crate) checkpoint_every: Option<Duration>,
    /// Artifacts whose bytes were hashed in this build.
    pub(crate) verified: Mutex<HashSet<Digest>>,
}

/// One stale action that is to be run.
pub(crate) struct Job {
    pub(crate) id: ActionId,
    pub(crate) keyed: Keyed,
    pub(crate) reason: Reason,
    /// Whether a result without bytes is of no use.
    pub(crate) needs_bytes: bool,
}

/// An input whose bytes are not as they should be.
#[derive(Debug)]
pub(crate) struct BadInput {
    pub(crate) producer: ActionId,
    pub(crate) tree: Digest,
    pub(crate) reason: Reason,
}

/// A job that has its result.
pub(crate) enum Done {
    /// It ran.
    Executed(ActionResult),
    /// The result was made elsewhere meanwhile.
    Found(ActionResult),
}

/// A job that has none.
pub(crate) enum Halt {
    /// It failed.
    Failed {
        error: String,
        class: FailureClass,
        log: String,
    },
    /// It cannot run before these are made anew.
    BadInputs(Vec<BadInput>),
    /// The build was told to stop.
    Cancelled {
        /// How far the action came.
        because: String,
    },
}

impl Halt {
    fn cancelled() -> Self {
        let because = "cancelled".to_owned();
        Self::Cancelled { because }
    }
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        let class = match &error {
            StoreError::BadOutput { .. } | StoreError::Tree(_) => FailureClass::Step,
            StoreError::Io { .. }
            | StoreError::NotWritable { .. }
            | StoreError::NotAStore { .. }
            | StoreError::NewerFormat { .. }
            | StoreError::BadFormat { .. }
            | StoreError::NotWhole { .. }
            | StoreError::InUse { .. }
            | StoreError::InTheWay { .. } => FailureClass::Environment,
        };
        Self::Failed {
            error: error.to_string(),
            class,
            log: String::new(),
        }
    }
}

impl Job {
    /// Does the job.
    pub(crate) fn run(&self, context: &JobContext<'_>) -> Result<Done, Halt> {
        let action = context.graph.get(self.id);
        let key = &self.keyed.key;
        let _span = tracing::info_span!("step", id = %action.name, key = %key.short()).entered();
        let _lease = self.lease(action, context)?;
        if let Ok(result) = find_result(context.store, key, self.needs_bytes)? {
            return Ok(Done::Found(result));
        }
        let inputs = self.inputs(action, context)?;
        (context.sink)(RunEvent::ActionStarted {
            action: action.name.clone(),
            step: action.step.clone(),
            key: *key,
            reason: self.reason.clone(),
        });
        let (scratch, aside) = (context.store.scratch()?, context.store.scratch()?);
        let checkpoints = self.checkpoints(action, aside.path(), context)?;
        let started = Instant::now();
        let executed = self.execute(action, inputs, scratch.path(), checkpoints.as_ref(), context)?;
        let seconds = started.elapsed().as_secs_f64();
        self.check_files(&executed.log)?;
        let tree = context.store.publish(scratch.path())?;
        let result = self.keep(action, executed, &tree, seconds, context)?;
        if let Some(CheckpointPlace { folder, owner, .. }) = &checkpoints
            && let Err(error) = context.store.drop_checkpoints(folder, owner)
        {
            tracing::warn!(%error, "checkpoints that are of no more use could not be removed");
        }
        Ok(Done::Executed(result))
    }

    /// Where the action's step may keep checkpoints, if it does and is to.
    fn checkpoints(
        &self,
        action: &Action,
        scratch: &Path,
        context: &JobContext<'_>,
    ) -> Result<Option<CheckpointPlace>, StoreError> {
        let Some(every) = context.checkpoint_every else {
            return Ok(None);
        };
        // What a checkpoint came from cannot be told once a file has changed and been put back.
        if action.inputs.values().any(|input| matches!(input, Input::File(_))) {
            return Ok(None);
        }
        let Some(trajectory) = self.keyed.document(action).of_trajectory(action) else {
            return Ok(None);
        };
        Ok(Some(CheckpointPlace {
            folder: context.store.checkpoint_folder(&trajectory.key())?,
            scratch: scratch.to_owned(),
            owner: format!("{}.", self.keyed.key),
            every,
        }))
    }

    /// Takes the action's lease; waits while another action or build has it, and tells which.
    fn lease(&self, action: &Action, context: &JobContext<'_>) -> Result<Lease, Halt> {
        let (key, purpose) = (
            &self.keyed.key,
            LeasePurpose {
                recipe: context.recipe.to_owned(),
                action: action.name.clone(),
            },
        );
        let (mut is_told, mut looks) = (false, 0);
        loop {
            if let Some(lease) = context.store.try_lease(key, &purpose)? {
                return Ok(lease);
            }
            if context.cancel.is_stopped() {
                return Err(Halt::cancelled());
            }
            if !is_told {
                let holder = context.store.lease_holder(key);
                looks += 1;
                // A lease says who holds it a moment after it was taken.
                if holder.is_some() || looks == HOLDER_LOOKS {
                    let holder = holder.map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
                    (context.sink)(RunEvent::ActionWaiting {
                        action: action.name.clone(),
                        reason: format!("the same is being made by {holder}"),
                    });
                    is_told = true;
                }
            }
            std::thread::sleep(LEASE_POLL);
        }
    }

    /// The files of all inputs, verified.
    pub(crate) fn inputs(
        &self,
        action: &Action,
        context: &JobContext<'_>,
    ) -> Result<BTreeMap<String, InputFiles>, Halt> {
        let mut files = BTreeMap::new();
        let mut bad = Vec::new();
        for ((role, input), digest) in action.inputs.iter().zip(&self.keyed.inputs.digests) {
            match (input, digest) {
                (Input::Action(producer), InputDigest::Artifact(tree)) => match verify(tree, context)? {
                    Integrity::Whole => {
                        files.insert(role.clone(), InputFiles::Artifact(context.store.paths(tree, role)?));
                    }
                    found => bad.extend(reason_of(found).map(|reason| BadInput {
                        producer: *producer,
                        tree: *tree,
                        reason,
                    })),
                },
                (Input::File(path), _) => {
                    files.insert(role.clone(), InputFiles::File(path.clone()));
                }
                (Input::Action(_), InputDigest::File { .. }) => unreachable!("an action's input is an artifact"),
            }
        }
        if bad.is_empty() {
            Ok(files)
        } else {
            Err(Halt::BadInputs(bad))
        }
    }

    /// Hands the work to the executor; what it makes is in `output`.
    pub(crate) fn execute(
        &self,
        action: &Action,
        inputs: BTreeMap<String, InputFiles>,
        output: &Path,
        checkpoints: Option<&CheckpointPlace>,
        context: &JobContext<'_>,
    ) -> Result<Executed, Halt> {
        let order = WorkOrder {
            action: action.name.clone(),
            kind: action.kind.name.clone(),
            parameters: action.parameters.clone(),
            seed: action.seed,
            numerics: action.numerics.clone(),
            inputs,
            output: output.to_owned(),
            checkpoints: checkpoints.cloned(),
        };
        let mut on = |notice| {
            let action = action.name.clone();
            (context.sink)(match notice {
                Notice::Progress(p) => RunEvent::ActionProgress {
                    action,
                    done: p.done,
                    total: p.total,
                    values: p.values,
                },
                Notice::Log(line) => RunEvent::Log { action, line },
            });
        };
        context
            .executor
            .execute(&order, context.cancel, &mut on)
            .map_err(|error| {
                let message = error.to_string();
                match error {
                    ExecutionError::Cancelled => Halt::cancelled(),
                    ExecutionError::Step {
                        error:
                            StepError {
                                class: FailureClass::Interrupted,
                                ..
                            },
                        ..
                    } => Halt::Cancelled { because: message },
                    ExecutionError::Step {
                        error: StepError { class, .. },
                        log,
                    }
                    | ExecutionError::Crashed { class, log, .. } => Halt::Failed {
                        error: message,
                        class,
                        log,
                    },
                    ExecutionError::Spawn { .. } => Halt::Failed {
                        error: message,
                        class: FailureClass::Environment,
                        log: String::new(),
                    },
                }
            })
    }

    /// Fails if an external input was changed since the key was made; `log` is what the step logged.
    pub(crate) fn check_files(&self, log: &str) -> Result<(), Halt> {
        let problem = self.keyed.inputs.files.iter().find_map(problem_of);
        match problem {
            None => Ok(()),
            Some(error) => Err(Halt::Failed {
                error,
                class: FailureClass::Input,
                log: log.to_owned(),
            }),
        }
    }

    fn keep(
        &self,
        action: &Action,
        executed: Executed,
        tree: &Tree,
        seconds: f64,
        context: &JobContext<'_>,
    ) -> Result<ActionResult, Halt> {
        let result = ActionResult {
            key: self.keyed.key,
            kind: action.kind.clone(),
            tree: tree.digest(),
            metrics: executed.outcome.metrics,
            measurements: executed.outcome.measurements,
            seconds,
            peak_memory_bytes: executed.peak_memory_bytes,
            log: executed.log,
        };
        context.store.put_result(&self.keyed.document(action), &result, tree)?;
        remember_verified(result.tree, context);
        Ok(result)
    }
}

/// Does `work`. A panic is a failure like another, so that whoever waits for the end of a job hears of it.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> Result<T, Halt>) -> Result<T, Halt> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(Halt::Failed {
            error: format!("the engine panicked: {}", panic_message(panic.as_ref())),
            class: FailureClass::Environment,
            log: String::new(),
        })
    })
}

fn problem_of(file: &InputFile) -> Option<String> {
    let what = match file.change() {
        Ok(None) => return None,
        Ok(Some(how)) => format!("changed since this build read it, before the step had ended ({how})"),
        Err(error) => format!("can no longer be read: {error}"),
    };
    Some(format!(
        "input file {} {what}; nothing was kept: build again",
        file.path.display()
    ))
}

/// Hashes an artifact's bytes, once a build; after that a look at their sizes is enough.
fn verify(tree: &Digest, context: &JobContext<'_>) -> Result<Integrity, StoreError> {
    let is_verified = context
        .verified
        .lock()
        .expect("no one panics with this lock")
        .contains(tree);
    if is_verified {
        return context.store.has_bytes(tree);
    }
    let integrity = context.store.verify(tree)?;
    if integrity == Integrity::Whole {
        remember_verified(*tree, context);
    }
    Ok(integrity)
}

fn remember_verified(tree: Digest, context: &JobContext<'_>) {
    context
        .verified
        .lock()
        .expect("no one panics with this lock")
        .insert(tree);
}
