//! `orchestrate log RECIPE STEP`: what a step's actions printed when they ran, also if they are cached now.
//!
//! What is known of an action comes from run records and results alone, so that a step that the recipe no longer has can
//! be asked for too.

use super::cache::read_existing;
use crate::arguments::{Format, Log};
use crate::clock::rfc3339;
use crate::exit::{ExitCode, Failure};
use crate::output;
use crate::run_choice::runs_of;
use crate::table::{bytes, duration};
use orchestrate_engine::{
    ActionKey, ActionRecord, ActionResult, RecordedOutcome, RecordedRun, RunId, RunSummary, Store,
};
use serde_json::json;
use std::collections::HashMap;

/// One action of the step in that run.
struct Logged<'a> {
    record: &'a ActionRecord,
    /// Its result, if it has one that is still in the cache.
    result: Option<ActionResult>,
    /// The run that it ran in, and when it began in milliseconds since 1970, if that is recorded.
    ran: Option<Ran>,
}

#[derive(Clone, Copy)]
struct Ran {
    run: RunId,
    started_millis: Option<u64>,
}

/// Prints it.
pub fn run(arguments: &Log) -> Result<ExitCode, Failure> {
    let store = read_existing(&arguments.cache)?;
    let all = store.runs()?;
    let runs = runs_of(Some(&arguments.recipe), all.clone())?;
    let chosen = match &arguments.run {
        Some(choice) => store.run(&choice.choose(&runs)?.id)?,
        None => last_with(&store, &runs, &arguments.step)?,
    };
    let Some(chosen) = chosen.filter(|run| has_step(run, &arguments.step)) else {
        return Err(unknown_step(&store, &runs, arguments)?);
    };
    let of_step: Vec<&ActionRecord> = chosen.actions.iter().filter(|a| a.step == arguments.step).collect();
    let makers = makers(&store, &all, &of_step)?;
    for record in of_step {
        let known = |key: ActionKey| -> Result<Option<ActionResult>, Failure> { Ok(store.result(&key)?.found()) };
        let has_result = matches!(record.outcome, RecordedOutcome::Cached | RecordedOutcome::Executed);
        let result = record.key.filter(|_| has_result).map(known).transpose()?.flatten();
        let ran = match record.outcome {
            RecordedOutcome::Cached => record.key.and_then(|key| makers.get(&key).copied()),
            RecordedOutcome::Executed | RecordedOutcome::Failed => Some(ran(chosen.summary.id, record)),
            RecordedOutcome::Skipped => None,
        };
        let logged = Logged { record, result, ran };
        match arguments.format {
            Format::Human => logged.show()?,
            Format::Json => output::line(&logged.object(&chosen.summary))?,
        }
    }
    Ok(ExitCode::Done)
}

fn has_step(run: &RecordedRun, step: &str) -> bool {
    run.actions.iter().any(|action| action.step == step)
}

/// The newest of `runs` in which the step was not merely skipped.
fn last_with(store: &Store, runs: &[RunSummary], step: &str) -> Result<Option<RecordedRun>, Failure> {
    let is_told = |action: &ActionRecord| action.step == step && action.outcome != RecordedOutcome::Skipped;
    for run in runs.iter().rev() {
        if let Some(run) = store.run(&run.id)?
            && run.actions.iter().any(is_told)
        {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

fn unknown_step(store: &Store, runs: &[RunSummary], arguments: &Log) -> Result<Failure, Failure> {
    let mut steps: Vec<String> = Vec::new();
    for run in runs.iter().rev().take(20) {
        for action in store.run(&run.id)?.into_iter().flat_map(|run| run.actions) {
            if !steps.contains(&action.step) {
                steps.push(action.step);
            }
        }
    }
    let which = arguments.run.as_ref().map_or("any recorded run", |_| "that run");
    Ok(Failure::Usage(format!(
        "step `{}` has no part in {which} of the recipe; steps of its runs: {}",
        arguments.step,
        steps.join(", ")
    )))
}

fn ran(run: RunId, record: &ActionRecord) -> Ran {
    let took = (1000.0 * record.seconds) as u64;
    Ran {
        run,
        started_millis: record.ended_millis.map(|ended| ended.saturating_sub(took)),
    }
}

/// In which runs the cached ones of `records` last ran, of whatever recipe, as far back as it takes.
fn makers(store: &Store, runs: &[RunSummary], records: &[&ActionRecord]) -> Result<HashMap<ActionKey, Ran>, Failure> {
    let mut wanted: Vec<ActionKey> = records
        .iter()
        .filter(|record| record.outcome == RecordedOutcome::Cached)
        .filter_map(|record| record.key)
        .collect();
    let mut found = HashMap::new();
    for run in runs.iter().rev() {
        if wanted.is_empty() {
            break;
        }
        for record in store.run(&run.id)?.into_iter().flat_map(|run| run.actions) {
            if let Some(key) = record.key.filter(|key| wanted.contains(key))
                && record.outcome == RecordedOutcome::Executed
            {
                wanted.retain(|other| *other != key);
                found.insert(key, ran(run.id, &record));
            }
        }
    }
    Ok(found)
}

impl Logged<'_> {
    /// The lines that it logged; nothing if they are no longer known.
    fn log(&self) -> Option<&str> {
        let of_result = self.result.as_ref().map(|result| result.log.as_str());
        self.record.log.as_deref().or(of_result)
    }

    fn seconds(&self) -> Option<f64> {
        match self.record.outcome {
            RecordedOutcome::Executed | RecordedOutcome::Failed => Some(self.record.seconds),
            RecordedOutcome::Cached => self.result.as_ref().map(|result| result.seconds),
            RecordedOutcome::Skipped => None,
        }
    }

    fn peak_memory(&self) -> Option<u64> {
        self.result.as_ref().and_then(|result| result.peak_memory_bytes)
    }

    fn show(&self) -> Result<(), Failure> {
        let name = &self.record.action;
        let mut facts = Vec::new();
        let problem = self.record.problem.as_deref().unwrap_or("no reason is recorded");
        match self.record.outcome {
            RecordedOutcome::Skipped => return output::line(&format!("{name}: skipped: {problem}")),
            RecordedOutcome::Failed => facts.push("failed".to_owned()),
            RecordedOutcome::Executed => facts.push("ran".to_owned()),
            RecordedOutcome::Cached if self.ran.is_some() => facts.push("cached; ran".to_owned()),
            RecordedOutcome::Cached => facts.push("cached; ran before the recorded runs".to_owned()),
        }
        if let Some(Ran { run, started_millis }) = self.ran {
            facts.push(format!("in run {}", run.short()));
            facts.extend(started_millis.map(|millis| format!("from {}", rfc3339(millis))));
        }
        facts.extend(self.seconds().map(|seconds| format!("for {}", duration(seconds))));
        let memory = self.peak_memory();
        let more = [
            memory.map(|memory| format!("peak memory {}", bytes(memory as f64))),
            self.record.key.map(|key| format!("key {}", key.short())),
        ];
        let more: String = more.into_iter().flatten().map(|fact| format!(", {fact}")).collect();
        output::line(&format!("{name}: {}{more}", facts.join(" ")))?;
        if self.record.outcome == RecordedOutcome::Failed {
            output::line(&format!("  error: {problem}"))?;
        }
        match self.log() {
            None => output::line("  what it logged is no longer in the cache"),
            Some("") => output::line("  it logged nothing"),
            Some(log) => log.lines().try_for_each(|line| output::line(&format!("  {line}"))),
        }
    }

    fn object(&self, run: &RunSummary) -> String {
        json!({
            "run": run.id.short(),
            "action": self.record.action,
            "step": self.record.step,
            "key": self.record.key,
            "outcome": self.record.outcome,
            "ran_in": self.ran.map(|ran| ran.run.short()),
            "started": self.ran.and_then(|ran| ran.started_millis).map(rfc3339),
            "seconds": self.seconds(),
            "peak_memory_bytes": self.peak_memory(),
            "problem": self.record.problem,
            "log": self.log(),
        })
        .to_string()
    }
}
