//! What came of a build.

use crate::action::ActionId;
use crate::freshness::Reason;
use crate::key::ActionKey;
use crate::record::{ActionRecord, RecordedOutcome};
use crate::result::ActionResult;
use crate::step::FailureClass;
use std::collections::BTreeMap;

/// What came of one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionOutcome {
    /// Its result was known.
    Cached,
    /// It ran.
    Executed,
    /// It failed.
    Failed {
        /// What went wrong.
        error: String,
        /// Who must act.
        class: FailureClass,
        /// The last lines that it logged.
        log: String,
    },
    /// It was not tried, or was cancelled.
    Skipped {
        /// Why.
        because: String,
    },
}

impl ActionOutcome {
    /// As the run record has it.
    pub(crate) fn recorded(&self) -> RecordedOutcome {
        match self {
            Self::Cached => RecordedOutcome::Cached,
            Self::Executed => RecordedOutcome::Executed,
            Self::Failed { .. } => RecordedOutcome::Failed,
            Self::Skipped { .. } => RecordedOutcome::Skipped,
        }
    }
}

/// One action's part of the report.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionReport {
    /// Its name.
    pub name: String,
    /// Its step.
    pub step: String,
    /// What came of it.
    pub outcome: ActionOutcome,
    /// Its key, if it came to be known.
    pub key: Option<ActionKey>,
    /// Why it was to run, if it was.
    pub reason: Option<Reason>,
    /// Its result, if it has one.
    pub result: Option<ActionResult>,
    /// How long this build spent on carrying it out.
    pub seconds: f64,
}

impl From<&ActionReport> for ActionRecord {
    fn from(report: &ActionReport) -> Self {
        let (problem, log) = match &report.outcome {
            ActionOutcome::Cached | ActionOutcome::Executed => (None, None),
            ActionOutcome::Failed { error, log, .. } => (Some(error), Some(log)),
            ActionOutcome::Skipped { because } => (Some(because), None),
        };
        Self {
            action: report.name.clone(),
            step: report.step.clone(),
            key: report.key,
            tree: report.result.as_ref().map(|result| result.tree),
            outcome: report.outcome.recorded(),
            is_target: None,
            reason: report.reason.clone(),
            seconds: report.seconds,
            ended_millis: None,
            problem: problem.cloned(),
            log: log.cloned(),
        }
    }
}

/// What came of a build.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildReport {
    /// Every action that the targets need.
    pub actions: BTreeMap<ActionId, ActionReport>,
    /// The action that failed first.
    pub first_failure: Option<ActionId>,
    /// How many ran.
    pub executed: usize,
    /// How many had a result.
    pub cached: usize,
    /// How many failed.
    pub failed: usize,
    /// How many were not tried.
    pub skipped: usize,
    /// How long it all took.
    pub seconds: f64,
    /// Whether it was told to stop.
    pub cancelled: bool,
}

impl BuildReport {
    /// The report over `actions`.
    pub(crate) fn new(
        actions: BTreeMap<ActionId, ActionReport>,
        first_failure: Option<ActionId>,
        seconds: f64,
        cancelled: bool,
    ) -> Self {
        let mut report = Self {
            actions,
            first_failure,
            executed: 0,
            cached: 0,
            failed: 0,
            skipped: 0,
            seconds,
            cancelled,
        };
        for action in report.actions.values() {
            match action.outcome {
                ActionOutcome::Cached => report.cached += 1,
                ActionOutcome::Executed => report.executed += 1,
                ActionOutcome::Failed { .. } => report.failed += 1,
                ActionOutcome::Skipped { .. } => report.skipped += 1,
            }
        }
        report
    }

    /// Whether every action has its result.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.failed == 0 && self.skipped == 0
    }
}
