//! What happens in a build, as it happens: the only way by which progress is told.
//!
//! As JSON an event is one object a line, tagged `event`. Events of one action come in order; those of different
//! actions interleave.

use crate::digest::Digest;
use crate::freshness::Reason;
use crate::key::ActionKey;
use crate::report::{ActionOutcome, ActionReport, BuildReport};
use crate::step::FailureClass;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// The build begins.
    RunStarted {
        /// Name of the recipe.
        recipe: String,
        /// How many actions the targets need.
        actions: usize,
    },
    /// An action is being carried out.
    ActionStarted {
        /// Its name.
        action: String,
        /// Its step.
        step: String,
        /// Its key.
        key: ActionKey,
        /// Why it runs.
        reason: Reason,
    },
    /// How far a running action is.
    ActionProgress {
        /// Its name.
        action: String,
        /// Units done.
        done: u64,
        /// Units in all; 0 where it is not known.
        total: u64,
        /// Values of the moment.
        values: BTreeMap<String, f64>,
    },
    /// An action that could start must wait.
    ActionWaiting {
        /// Its name.
        action: String,
        /// For what.
        reason: String,
    },
    /// A line that a running action logged.
    Log {
        /// Its name.
        action: String,
        /// The line.
        line: String,
    },
    /// An action need not run: its result is known.
    ActionCached {
        /// Its name.
        action: String,
        /// Its step.
        step: String,
        /// Its key.
        key: ActionKey,
        /// Its artifact.
        tree: Digest,
        /// Its metrics.
        metrics: BTreeMap<String, f64>,
        /// What was measured when it ran.
        measurements: BTreeMap<String, f64>,
    },
    /// An action ran and its artifact is in the store.
    ActionFinished {
        /// Its name.
        action: String,
        /// Its step.
        step: String,
        /// Its key.
        key: ActionKey,
        /// Its artifact.
        tree: Digest,
        /// How long it ran.
        seconds: f64,
        /// Its metrics.
        metrics: BTreeMap<String, f64>,
        /// What was measured.
        measurements: BTreeMap<String, f64>,
        /// Most memory that it held, where it is known.
        peak_memory_bytes: Option<u64>,
    },
    /// An action failed.
    ActionFailed {
        /// Its name.
        action: String,
        /// Its step.
        step: String,
        /// Its key; there is none if an input file could not be read.
        key: Option<ActionKey>,
        /// What went wrong.
        error: String,
        /// Who must act.
        class: FailureClass,
        /// The last lines that it logged.
        log: String,
    },
    /// An action will not run in this build.
    ActionSkipped {
        /// Its name.
        action: String,
        /// Its step.
        step: String,
        /// Why not.
        because: String,
    },
    /// An action ran a second time.
    ActionChecked {
        /// Its name.
        action: String,
        /// Its step.
        step: String,
        /// Whether it gave the same.
        same: bool,
        /// What differs first, if something does.
        difference: Option<String>,
        /// What went wrong, if it failed.
        error: Option<String>,
        /// How long it ran.
        seconds: f64,
    },
    /// The build is over.
    RunFinished {
        /// Actions that ran.
        executed: usize,
        /// Actions that need not run.
        cached: usize,
        /// Actions that failed.
        failed: usize,
        /// Actions that were not tried.
        skipped: usize,
        /// How long it all took.
        seconds: f64,
        /// Whether it was told to stop.
        cancelled: bool,
    },
}

impl From<&ActionReport> for RunEvent {
    /// The event that tells an action's end.
    fn from(report: &ActionReport) -> Self {
        let (action, step) = (report.name.clone(), report.step.clone());
        let result = || {
            let result = report.result.as_ref();
            result.expect("an action that was cached or executed has a result")
        };
        match &report.outcome {
            ActionOutcome::Cached => {
                let result = result();
                Self::ActionCached {
                    action,
                    step,
                    key: result.key,
                    tree: result.tree,
                    metrics: result.metrics.clone(),
                    measurements: result.measurements.clone(),
                }
            }
            ActionOutcome::Executed => {
                let result = result();
                Self::ActionFinished {
                    action,
                    step,
                    key: result.key,
                    tree: result.tree,
                    seconds: result.seconds,
                    metrics: result.metrics.clone(),
                    measurements: result.measurements.clone(),
                    peak_memory_bytes: result.peak_memory_bytes,
                }
            }
            ActionOutcome::Failed { error, class, log } => {
                let (error, log) = (error.clone(), log.clone());
                Self::ActionFailed {
                    action,
                    step,
                    key: report.key,
                    error,
                    class: *class,
                    log,
                }
            }
            ActionOutcome::Skipped { because } => Self::ActionSkipped {
                action,
                step,
                because: because.clone(),
            },
        }
    }
}

impl From<&BuildReport> for RunEvent {
    /// The event that tells the build's end.
    fn from(report: &BuildReport) -> Self {
        let BuildReport {
            executed,
            cached,
            failed,
            skipped,
            seconds,
            cancelled,
            ..
        } = *report;
        Self::RunFinished {
            executed,
            cached,
            failed,
            skipped,
            seconds,
            cancelled,
        }
    }
}
