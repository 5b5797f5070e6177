//! `orchestrate status`: what runs on this cache at this moment, and the last run of each recipe.

use super::cache::read_existing;
use crate::arguments::{Format, Status};
use crate::clock::{rfc3339, seconds_since};
use crate::exit::{ExitCode, Failure};
use crate::table::duration;
use crate::{output, run_table};
use orchestrate_engine::{HeldLease, RecordedRun, RunState, RunSummary, StartedAction, Store};
use serde_json::json;
use std::collections::BTreeMap;

/// What goes on.
struct Now {
    running: Vec<RecordedRun>,
    leases: Vec<HeldLease>,
    /// The last run of each recipe, oldest first.
    last: Vec<RunSummary>,
}

/// An action that a run has begun.
enum Doing {
    /// It has the lease.
    Running { since_millis: u64 },
    /// Another process makes the same, or it is between waiting and making.
    Waiting { holder: Option<u32> },
}

/// Prints it.
pub fn run(arguments: &Status) -> Result<ExitCode, Failure> {
    let store = read_existing(&arguments.cache)?;
    let now = Now::look(&store)?;
    match arguments.format {
        Format::Human => now.show()?,
        Format::Json => now.print()?,
    }
    Ok(ExitCode::Done)
}

impl Now {
    fn look(store: &Store) -> Result<Self, Failure> {
        let runs = store.runs()?;
        let mut running = Vec::new();
        for run in runs.iter().filter(|run| run.state == RunState::Running) {
            running.extend(store.run(&run.id)?.filter(|run| run.summary.state == RunState::Running));
        }
        let leases = store.held_leases()?;
        let by_recipe: BTreeMap<String, RunSummary> = runs.into_iter().map(|run| (run.recipe.clone(), run)).collect();
        let mut last: Vec<RunSummary> = by_recipe.into_values().collect();
        last.sort_by_key(|run| run.started_millis);
        Ok(Self { running, leases, last })
    }

    fn doing(&self, run: &RunSummary, action: &StartedAction) -> Doing {
        let lease = self.leases.iter().find(|lease| lease.key == action.key);
        match lease.and_then(|lease| lease.holder.as_ref()) {
            Some(holder) if holder.process == run.process => Doing::Running {
                since_millis: holder.since_millis,
            },
            Some(holder) => Doing::Waiting {
                holder: Some(holder.process),
            },
            None => Doing::Waiting { holder: None },
        }
    }

    /// Leases of which no running run says that it has begun the action.
    fn others(&self) -> impl Iterator<Item = &HeldLease> {
        let begun = |lease: &HeldLease| {
            let mut actions = self.running.iter().flat_map(|run| &run.unfinished);
            actions.any(|action| action.key == lease.key)
        };
        self.leases.iter().filter(move |lease| !begun(lease))
    }

    fn show(&self) -> Result<(), Failure> {
        if self.running.is_empty() {
            output::line("nothing is running")?;
        }
        for RecordedRun {
            summary, unfinished, ..
        } in &self.running
        {
            output::line(&format!(
                "running: {}, run {}, process {}, since {} ({})",
                summary.recipe,
                summary.id.short(),
                summary.process,
                rfc3339(summary.started_millis),
                duration(seconds_since(summary.started_millis)),
            ))?;
            for action in unfinished {
                let doing = match self.doing(summary, action) {
                    Doing::Running { since_millis } => format!(
                        "since {} ({})",
                        rfc3339(since_millis),
                        duration(seconds_since(since_millis))
                    ),
                    Doing::Waiting { holder: Some(process) } => format!("waits for process {process}, which makes it"),
                    Doing::Waiting { holder: None } => "about to begin".to_owned(),
                };
                output::line(&format!("  {}: {doing}, key {}", action.action, action.key.short()))?;
            }
        }
        for lease in self.others() {
            let holder = lease.holder.as_ref().map(|holder| format!(" by {holder}"));
            let key = lease.key.short();
            output::line(&format!(
                "an action of key {key} is being made{}",
                holder.unwrap_or_default()
            ))?;
        }
        if !self.last.is_empty() {
            output::line("\nthe last run of each recipe:")?;
            for line in run_table::lines(&self.last) {
                output::line(&line)?;
            }
        }
        Ok(())
    }

    fn print(&self) -> Result<(), Failure> {
        for RecordedRun {
            summary, unfinished, ..
        } in &self.running
        {
            for action in unfinished {
                let (state, since, holder) = match self.doing(summary, action) {
                    Doing::Running { since_millis } => ("running", Some(since_millis), Some(summary.process)),
                    Doing::Waiting { holder } => ("waiting", None, holder),
                };
                let object = json!({
                    "status": "action",
                    "run": summary.id.short(),
                    "action": action.action,
                    "step": action.step,
                    "key": action.key,
                    "state": state,
                    "since": since.map(rfc3339),
                    "process": holder,
                });
                output::line(&object.to_string())?;
            }
        }
        for lease in self.others() {
            let process = lease.holder.as_ref().map(|holder| holder.process);
            output::line(&json!({ "status": "lease", "key": lease.key, "process": process }).to_string())?;
        }
        let of_others = |run: &&RecordedRun| self.last.iter().all(|last| last.id != run.summary.id);
        let earlier = self.running.iter().filter(of_others).map(|run| &run.summary);
        for run in earlier.chain(&self.last) {
            let mut object = run_table::object(run);
            object["status"] = json!("run");
            output::line(&object.to_string())?;
        }
        Ok(())
    }
}
