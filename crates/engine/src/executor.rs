//! Where actions are carried out. An executor knows nothing of keys or of the store: it gets an order and an empty
//! folder.

use crate::cancel::Cancel;
use crate::step::{FailureClass, Outcome, Progress, StepError, Steps, run_step};
use crate::worker::WorkOrder;
use std::cell::RefCell;
use std::path::PathBuf;

/// What a running action tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// How far it is.
    Progress(Progress),
    /// A line that it logged.
    Log(String),
}

/// An order that was carried out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Executed {
    /// What the step told.
    pub outcome: Outcome,
    /// Most memory that the worker held, where it is known.
    pub peak_memory_bytes: Option<u64>,
    /// The last lines that it logged.
    pub log: String,
}

/// An order that was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionError {
    /// The step failed.
    #[error("{error}")]
    Step {
        /// Its error.
        error: StepError,
        /// The last lines that it logged.
        log: String,
    },
    /// The worker ended without a word.
    #[error("{how}")]
    Crashed {
        /// How it ended, and what that may mean.
        how: String,
        /// Who must act.
        class: FailureClass,
        /// The last lines that it logged.
        log: String,
    },
    /// The worker could not be started.
    #[error("cannot start the worker {program}: {source}", program = program.display())]
    Spawn {
        /// Its program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The build was told to end now.
    #[error("cancelled")]
    Cancelled,
}

/// Carries out orders, several at a time.
pub trait Executor: Sync {
    /// Carries out `order` and tells `on` what happens meanwhile.
    ///
    /// # Errors
    /// [`ExecutionError`]; what lies in the output folder is then of no use.
    fn execute(
        &self,
        order: &WorkOrder,
        cancel: &Cancel,
        on: &mut dyn FnMut(Notice),
    ) -> Result<Executed, ExecutionError>;
}

/// Runs steps in this process, on the caller's thread: for tests and for trivial kinds. A step that runs cannot be
/// cancelled.
pub struct InProcessExecutor<'a> {
    steps: &'a dyn Steps,
}

impl<'a> InProcessExecutor<'a> {
    /// An executor of `steps`.
    #[must_use]
    pub fn new(steps: &'a dyn Steps) -> Self {
        Self { steps }
    }
}

impl Executor for InProcessExecutor<'_> {
    fn execute(
        &self,
        order: &WorkOrder,
        cancel: &Cancel,
        on: &mut dyn FnMut(Notice),
    ) -> Result<Executed, ExecutionError> {
        if cancel.is_now() {
            return Err(ExecutionError::Cancelled);
        }
        let on = RefCell::new(on);
        let progress = |progress: Progress| (on.borrow_mut())(Notice::Progress(progress.finite()));
        let is_stopped = || cancel.is_stopped();
        let outcome =
            run_step(self.steps, &order.work(&progress, &is_stopped)).map_err(|error| ExecutionError::Step {
                error,
                log: String::new(),
            })?;
        Ok(Executed {
            outcome,
            ..Executed::default()
        })
    }
}
