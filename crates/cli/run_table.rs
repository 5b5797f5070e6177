//! Recorded runs as rows and as JSON: what `runs` and `status` share.

use crate::clock::rfc3339;
use crate::columns::{Align, columns};
use crate::table::duration;
use orchestrate_engine::{RunState, RunSummary};
use serde_json::{Value, json};

/// How a run ended, if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOutcome {
    Done,
    Failed,
    Interrupted,
    Running,
    Lost,
}

impl RunOutcome {
    pub fn of(run: &RunSummary) -> Self {
        match run.state {
            RunState::Running => Self::Running,
            RunState::Lost => Self::Lost,
            RunState::Ended { cancelled: true, .. } => Self::Interrupted,
            RunState::Ended { cancelled: false, .. } if run.counts.failed + run.counts.skipped > 0 => Self::Failed,
            RunState::Ended { cancelled: false, .. } => Self::Done,
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Running => "running",
            Self::Lost => "ended without a word",
        }
    }

    /// In JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Running => "running",
            Self::Lost => "lost",
        }
    }
}

/// How long a run took, in seconds, if that is known.
fn seconds(run: &RunSummary) -> Option<f64> {
    match run.state {
        RunState::Ended { seconds, .. } => Some(seconds),
        RunState::Running | RunState::Lost => None,
    }
}

/// The lines of `runs`, header first.
pub fn lines(runs: &[RunSummary]) -> Vec<String> {
    let header = [
        "run", "recipe", "started", "took", "executed", "cached", "failed", "skipped", "outcome",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(runs.iter().map(|run| {
        [
            run.id.short(),
            run.recipe.clone(),
            rfc3339(run.started_millis),
            seconds(run).map_or_else(|| "-".to_owned(), duration),
            run.counts.executed.to_string(),
            run.counts.cached.to_string(),
            run.counts.failed.to_string(),
            run.counts.skipped.to_string(),
            RunOutcome::of(run).words().to_owned(),
        ]
    }));
    use Align::{Left, Right};
    columns([Left, Left, Left, Right, Right, Right, Right, Right, Left], &rows)
}

/// A run in JSON.
pub fn object(run: &RunSummary) -> Value {
    let variant = run.variant.as_ref();
    json!({
        "run": run.id.short(),
        "recipe": run.recipe,
        "recipe_digest": variant.map(|variant| variant.digest),
        "profile": variant.and_then(|variant| variant.profile.as_deref()),
        "overrides": variant.map(|variant| &variant.overrides),
        "started": rfc3339(run.started_millis),
        "seconds": seconds(run),
        "process": run.process,
        "executed": run.counts.executed,
        "cached": run.counts.cached,
        "failed": run.counts.failed,
        "skipped": run.counts.skipped,
        "outcome": RunOutcome::of(run).name(),
    })
}
