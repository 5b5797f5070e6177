//! The build: brings the targets of a graph up to date.
//!
//! Invariants:
//! - An action is assessed as soon as the artifacts of its inputs are known, never before: an action that comes out as
//!   it was leaves its dependents fresh.
//! - Of what is ready and has room in its pool, that starts first which the longest path of further work waits for, as
//!   far as earlier runs tell. The results do not depend on the order.
//! - Nothing starts before every action that may have to run was found to fit into memory, or failed for it.
//! - A known result is not asked for its bytes unless an action that runs reads them, or it is a target. If they are
//!   gone or damaged, the action that made them runs again.
//! - After a failure or a cancellation nothing is started; what runs may end, and all that ended well is kept.

use crate::action::ActionId;
use crate::assess::{Assessment, Assessor};
use crate::cancel::Cancel;
use crate::error::EngineError;
use crate::event::RunEvent;
use crate::executor::Executor;
use crate::freshness::Freshness;
use crate::graph::ActionGraph;
use crate::job::{BadInput, Done, Halt, Job, JobContext, catch_panic};
use crate::memory::too_large;
use crate::pools::Pools;
use crate::ready::{MemoryWaits, urgencies};
use crate::record::{RunRecord, Variant};
use crate::report::{ActionOutcome, ActionReport, BuildReport};
use crate::result::ActionResult;
use crate::states::{ActionState, States};
use crate::step::FailureClass;
use crate::store::Store;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Mutex, mpsc};
use std::thread::Scope;
use std::time::{Duration, Instant};

/// How often one build makes an artifact anew whose bytes keep vanishing.
const MAX_REBUILDS: u32 = 2;

/// How to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOptions {
    /// Name of the recipe, under which run records are kept.
    pub recipe: String,
    /// Which variant of it, as run records tell it.
    pub variant: Option<Variant>,
    /// Depth of the main pool.
    pub slots: NonZeroUsize,
    /// Whether to go on with what does not depend on a failed action.
    pub keep_going: bool,
    /// Memory that all actions together may hold, in bytes, as far as they say what they need; no limit if not given.
    pub memory: Option<u64>,
    /// How often long steps keep what they need to go on after an interruption; never if not given.
    pub checkpoint_every: Option<Duration>,
}

/// Builds `targets` and all that they need, and tells `sink` what happens.
///
/// # Errors
/// [`EngineError`] if the store or the run record cannot be used; a failed action is told in the report.
pub fn build(
    graph: &ActionGraph,
    targets: &[ActionId],
    options: &BuildOptions,
    store: &Store,
    executor: &dyn Executor,
    cancel: &Cancel,
    sink: &(dyn Fn(RunEvent) + Sync),
) -> Result<BuildReport, EngineError> {
    let started = Instant::now();
    let _span = tracing::info_span!("run", recipe = %options.recipe).entered();
    let context = JobContext {
        recipe: &options.recipe,
        graph,
        store,
        executor,
        cancel,
        sink,
        checkpoint_every: options.checkpoint_every,
        verified: Mutex::new(HashSet::new()),
    };
    let mut assessor = Assessor::new(graph, store, &options.recipe)?;
    let record = RunRecord::start(store, &options.recipe, options.variant.as_ref())?;
    let states = States::new(graph, targets, sink, record);
    sink(RunEvent::RunStarted {
        recipe: options.recipe.clone(),
        actions: states.len(),
    });
    let mut build = Build {
        context: &context,
        keep_going: options.keep_going,
        states,
        pools: Pools::new(options.slots, options.memory),
        has_looked_at_memory: false,
        memory_waits: MemoryWaits::default(),
        first_failure: None,
        fatal: None,
    };
    std::thread::scope(|scope| build.run(&mut assessor, scope));
    build.states.flush_record();
    if let Some(error) = build.fatal.or(build.states.record_error.take().map(EngineError::from)) {
        return Err(error);
    }
    let (seconds, cancelled) = (started.elapsed().as_secs_f64(), cancel.is_stopped());
    let report = BuildReport::new(
        build.states.end(seconds, cancelled)?,
        build.first_failure,
        seconds,
        cancelled,
    );
    sink(RunEvent::from(&report));
    Ok(report)
}

struct Build<'a> {
    context: &'a JobContext<'a>,
    keep_going: bool,
    states: States<'a>,
    pools: Pools,
    /// Whether actions that need too much memory were looked for.
    has_looked_at_memory: bool,
    memory_waits: MemoryWaits,
    first_failure: Option<ActionId>,
    /// What makes it impossible to go on.
    fatal: Option<EngineError>,
}

impl<'a> Build<'a> {
    /// Assesses, starts and waits until all actions have ended.
    fn run<'scope>(&mut self, assessor: &mut Assessor<'a>, scope: &'scope Scope<'scope, 'a>) {
        let (sender, ended) = mpsc::channel::<(ActionId, Result<Done, Halt>)>();
        let mut running = 0_usize;
        loop {
            self.assess_all(assessor);
            self.refuse_what_is_too_large();
            if !self.is_stopping() {
                for job in self.take_startable(assessor) {
                    running += 1;
                    self.spawn(job, scope, sender.clone());
                }
            }
            if running == 0 {
                break;
            }
            self.states.flush_record();
            let (id, end) = ended.recv().expect("this function holds a sender");
            running -= 1;
            self.pools.leave(self.context.graph.get(id));
            self.conclude(id, end);
        }
        self.skip_the_rest();
    }

    fn is_stopping(&self) -> bool {
        let has_failed = self.first_failure.is_some() && !self.keep_going;
        let is_broken = self.fatal.is_some() || self.states.record_error.is_some();
        has_failed || is_broken || self.context.cancel.is_stopped()
    }

    /// Assesses what can be; what is fresh makes more assessable.
    fn assess_all(&mut self, assessor: &mut Assessor<'a>) {
        while !self.is_stopping() {
            let batch = self.states.take_assessable();
            if batch.is_empty() {
                break;
            }
            let states = &self.states;
            let tree_of = |input| {
                states
                    .get(input)
                    .result()
                    .expect("an assessable action's inputs are known")
                    .tree
            };
            let asked = assessor.ask(&batch, &tree_of);
            assessor.assess_each(asked, &mut |id, assessment| {
                if !self.is_stopping() {
                    self.take_in(id, assessment);
                }
            });
        }
    }

    fn take_in(&mut self, id: ActionId, assessment: Result<Assessment, EngineError>) {
        match assessment {
            Ok(assessment) => self.judge(id, assessment),
            Err(error @ EngineError::InputFile { .. }) => {
                let outcome = ActionOutcome::Failed {
                    error: error.to_string(),
                    class: FailureClass::Input,
                    log: String::new(),
                };
                self.end(id, outcome, None);
            }
            Err(error @ (EngineError::Store(_) | EngineError::Graph(_))) => self.fatal = Some(error),
        }
    }

    fn judge(&mut self, id: ActionId, assessment: Assessment) {
        let Assessment { keyed, freshness } = assessment;
        match freshness {
            Freshness::Fresh(result) => self.end(id, ActionOutcome::Cached, Some(result)),
            Freshness::Stale(reason) => {
                let forced = self.states.get(id).forced.clone();
                let reason = forced.unwrap_or(reason);
                self.states.set(id, ActionState::Ready(Box::new(keyed), reason));
            }
        }
    }

    /// Takes those ready actions that their pools have room for, the most urgent first.
    fn take_startable(&mut self, assessor: &mut Assessor<'a>) -> Vec<Job> {
        if self.states.ready.len() > 1 && !self.states.ready.is_ranked() {
            let ids = self.states.ids();
            // An estimate that cannot be read is none.
            let seconds_of = |id| assessor.seconds_of(id).unwrap_or_default();
            let urgencies = urgencies(self.context.graph, &ids, seconds_of);
            self.states.ready.rank(urgencies);
        }
        let mut jobs = Vec::new();
        while let Some(id) = self.states.ready.enter_first(self.context.graph, &mut self.pools) {
            jobs.push(self.start(id));
        }
        let ready = &self.states.ready;
        self.memory_waits
            .tell(ready, &self.pools, self.context.graph, self.context.sink);
        jobs
    }

    /// Before the first action starts: fails those that may have to run and are expected to need more memory than there is.
    fn refuse_what_is_too_large(&mut self) {
        if std::mem::replace(&mut self.has_looked_at_memory, true) || self.is_stopping() {
            return;
        }
        for id in self.states.idle() {
            let action = self.context.graph.get(id);
            let Some(there_is) = self.pools.exceeded_by(action) else {
                continue;
            };
            // A failure before may have ended it.
            if self.states.get(id).is_idle() {
                let outcome = ActionOutcome::Failed {
                    error: too_large(action.memory.unwrap_or(0), there_is),
                    class: FailureClass::Environment,
                    log: String::new(),
                };
                self.end(id, outcome, None);
            }
        }
    }

    fn start(&mut self, id: ActionId) -> Job {
        let node = self.states.get_mut(id);
        let needs_bytes = node.needs_bytes;
        let ActionState::Ready(keyed, reason) = std::mem::replace(&mut node.state, ActionState::Waiting) else {
            unreachable!("only ready actions are among the ready")
        };
        let since = Instant::now();
        self.states.set(
            id,
            ActionState::Running {
                key: keyed.key,
                reason: reason.clone(),
                since,
            },
        );
        Job {
            id,
            keyed: *keyed,
            reason,
            needs_bytes,
        }
    }

    fn spawn<'scope>(
        &self,
        job: Job,
        scope: &'scope Scope<'scope, 'a>,
        sender: mpsc::Sender<(ActionId, Result<Done, Halt>)>,
    ) {
        let (context, span) = (self.context, tracing::Span::current());
        scope.spawn(move || {
            let _entered = span.entered();
            let end = catch_panic(|| job.run(context));
            sender.send((job.id, end)).expect("the receiver outlives all jobs");
        });
    }

    fn conclude(&mut self, id: ActionId, end: Result<Done, Halt>) {
        match end {
            Ok(Done::Executed(result)) => self.end(id, ActionOutcome::Executed, Some(result)),
            Ok(Done::Found(result)) => self.end(id, ActionOutcome::Cached, Some(result)),
            Err(Halt::Failed { error, class, log }) => self.end(id, ActionOutcome::Failed { error, class, log }, None),
            Err(Halt::Cancelled { because }) => self.end(id, ActionOutcome::Skipped { because }, None),
            Err(Halt::BadInputs(bad)) => self.remake(id, bad),
        }
    }

    /// Sends the makers of `bad` back to be run again, and `id` to wait for them.
    fn remake(&mut self, id: ActionId, bad: Vec<BadInput>) {
        self.states.set(id, ActionState::Waiting);
        let graph = self.context.graph;
        for BadInput { producer, tree, reason } in bad {
            let node = self.states.get_mut(producer);
            if node.result().is_none_or(|result| result.tree != tree) {
                // It was sent back already, or has made another artifact since.
                continue;
            }
            if node.rebuilds >= MAX_REBUILDS {
                let name = &graph.get(producer).name;
                let error = format!("{reason}, though {name} was made anew {MAX_REBUILDS} times: is the disk sound?");
                let class = FailureClass::Environment;
                return self.end(
                    id,
                    ActionOutcome::Failed {
                        error,
                        class,
                        log: String::new(),
                    },
                    None,
                );
            }
            node.rebuilds += 1;
            node.needs_bytes = true;
            node.forced = Some(reason);
            self.states.set(producer, ActionState::Waiting);
        }
        if let Some(lost) = graph
            .dependencies(id)
            .into_iter()
            .find(|input| self.states.get(*input).is_lost())
        {
            let because = format!("{} failed", graph.get(lost).name);
            self.end(id, ActionOutcome::Skipped { because }, None);
        }
    }

    fn skip_the_rest(&mut self) {
        let because = match (self.first_failure, self.context.cancel.is_stopped()) {
            (_, true) => "cancelled".to_owned(),
            (Some(id), false) => format!("{} failed", self.context.graph.get(id).name),
            (None, false) => "the build could not go on".to_owned(),
        };
        for id in self.states.idle() {
            self.end(
                id,
                ActionOutcome::Skipped {
                    because: because.clone(),
                },
                None,
            );
        }
    }

    /// Ends an action; if it failed, those that need it cannot run.
    fn end(&mut self, id: ActionId, outcome: ActionOutcome, result: Option<ActionResult>) {
        let (key, reason, seconds) = match &self.states.get(id).state {
            ActionState::Running { key, reason, since } => {
                (Some(*key), Some(reason.clone()), since.elapsed().as_secs_f64())
            }
            ActionState::Ready(keyed, _) => (Some(keyed.key), None, 0.0),
            ActionState::Waiting | ActionState::Ended(_) => (result.as_ref().map(|result| result.key), None, 0.0),
        };
        let action = self.context.graph.get(id);
        let has_failed = matches!(outcome, ActionOutcome::Failed { .. });
        let (name, step) = (action.name.clone(), action.step.clone());
        let report = ActionReport {
            name,
            step,
            outcome,
            key,
            reason,
            result,
            seconds,
        };
        self.states.set(id, ActionState::Ended(Box::new(report)));
        if has_failed {
            self.first_failure.get_or_insert(id);
            self.skip_dependents(id);
        }
    }

    fn skip_dependents(&mut self, failed: ActionId) {
        let because = format!("{} failed", self.context.graph.get(failed).name);
        let mut open = vec![failed];
        while let Some(id) = open.pop() {
            for dependent in self.states.idle_dependents(id) {
                self.end(
                    dependent,
                    ActionOutcome::Skipped {
                        because: because.clone(),
                    },
                    None,
                );
                open.push(dependent);
            }
        }
    }
}
