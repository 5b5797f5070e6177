//! `orchestrate diff RUN RUN`: what differs between two recorded runs: what the recipe said, and step by step, down to
//! the parts of the keys and the artifacts.
//!
//! Metrics and measurements are those in the cache: of results that were removed since, none are told.

use super::cache::read_existing;
use crate::arguments::{Diff, Format};
use crate::clock::rfc3339;
use crate::exit::{ExitCode, Failure};
use crate::run_choice::runs_of;
use crate::run_table::{self, RunOutcome};
use crate::{output, table};
use orchestrate_engine::{
    ActionRecord, ActionResult, Change, Digest, KeyDifference, RecordedOutcome, RecordedRun, RunSummary, Store, Variant,
};
use orchestrate_recipe::report::number;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A figure in the old and in the new run.
type Figures = BTreeMap<String, [Option<f64>; 2]>;

/// A step in both runs, or in one.
struct StepDiff<'a> {
    name: &'a str,
    actions: Vec<ActionDiff<'a>>,
}

/// An action in both runs, or in one.
struct ActionDiff<'a> {
    name: &'a str,
    /// In the old and in the new run.
    records: [Option<&'a ActionRecord>; 2],
    /// How the keys differ, where both are known.
    key: Option<KeyDifference>,
    metrics: Figures,
    measurements: Figures,
}

/// Compares.
pub fn run(arguments: &Diff) -> Result<ExitCode, Failure> {
    let store = read_existing(&arguments.cache)?;
    let runs = runs_of(arguments.recipe.as_deref(), store.runs()?)?;
    let read = |run: &RunSummary| -> Result<RecordedRun, Failure> {
        let vanished = || Failure::Usage(format!("the record of run {} was just removed", run.id.short()));
        store.run(&run.id)?.ok_or_else(vanished)
    };
    let old = read(arguments.old.choose(&runs)?)?;
    let new = read(arguments.new.choose(&runs)?)?;
    let steps = steps(&store, &old, &new)?;
    match arguments.format {
        Format::Human => show(&old, &new, &steps)?,
        Format::Json => print(&old, &new, &steps)?,
    }
    let is_different = steps.iter().any(|step| !step.is_equal());
    Ok(if arguments.exit_code && is_different {
        ExitCode::StepFailed
    } else {
        ExitCode::Done
    })
}

/// The steps of both runs, in the order of the new one; those that only the old one has behind them.
fn steps<'a>(store: &Store, old: &'a RecordedRun, new: &'a RecordedRun) -> Result<Vec<StepDiff<'a>>, Failure> {
    let mut steps: Vec<StepDiff<'a>> = Vec::new();
    for record in new.actions.iter().chain(&old.actions) {
        let place = steps
            .iter()
            .position(|step| step.name == record.step)
            .unwrap_or(steps.len());
        if place == steps.len() {
            steps.push(StepDiff {
                name: &record.step,
                actions: Vec::new(),
            });
        }
        let actions = &mut steps[place].actions;
        if actions.iter().all(|action| action.name != record.action) {
            let records = [old.action(&record.action), new.action(&record.action)];
            actions.push(ActionDiff::of(store, &record.action, records)?);
        }
    }
    Ok(steps)
}

impl<'a> ActionDiff<'a> {
    fn of(store: &Store, name: &'a str, records: [Option<&'a ActionRecord>; 2]) -> Result<Self, Failure> {
        let [old, new] = records.map(|record| record.and_then(|record| record.key));
        let key = old
            .zip(new)
            .map(|(old, new)| store.difference(&old, &new))
            .transpose()?;
        let mut diff = Self {
            name,
            records,
            key,
            metrics: Figures::new(),
            measurements: Figures::new(),
        };
        for (place, record) in records.into_iter().enumerate() {
            let has_result = |record: &&ActionRecord| record.tree.is_some();
            let key = record.filter(has_result).and_then(|record| record.key);
            let result: Option<ActionResult> = match key {
                Some(key) => store.result(&key)?.found(),
                None => None,
            };
            if let Some(result) = result {
                put(&mut diff.metrics, place, result.metrics);
                put(&mut diff.measurements, place, result.measurements);
            }
        }
        Ok(diff)
    }

    /// The artifacts.
    fn trees(&self) -> [Option<Digest>; 2] {
        self.records.map(|record| record.and_then(|record| record.tree))
    }

    /// Whether the artifacts are equal. An action without one in either run made no difference.
    fn is_equal(&self) -> bool {
        let [old, new] = self.trees();
        old == new
    }

    /// How the keys differ, in words; nothing if they do not or cannot.
    fn key_in_words(&self) -> Option<String> {
        match self.key.as_ref()? {
            KeyDifference::None => None,
            KeyDifference::Untold => Some("another key; a key document is lost".to_owned()),
            KeyDifference::Changed(changes) => {
                Some(changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            }
        }
    }

    fn object(&self) -> Value {
        let of_each = |value: fn(&ActionRecord) -> Value| self.records.map(|record| record.map(value));
        let changes: Option<Vec<String>> = match &self.key {
            Some(KeyDifference::Changed(changes)) => Some(changes.iter().map(Change::to_string).collect()),
            Some(KeyDifference::None) => Some(Vec::new()),
            Some(KeyDifference::Untold) | None => None,
        };
        json!({
            "action": self.name,
            "outcome": of_each(|record| json!(record.outcome)),
            "key": of_each(|record| json!(record.key)),
            "changes": changes,
            "tree": of_each(|record| json!(record.tree)),
            "equal": self.is_equal(),
            "metrics": figures_object(&self.metrics),
            "measurements": figures_object(&self.measurements),
        })
    }
}

fn put(figures: &mut Figures, place: usize, values: BTreeMap<String, f64>) {
    for (name, value) in values {
        figures.entry(name).or_default()[place] = Some(value);
    }
}

fn figures_object(figures: &Figures) -> Map<String, Value> {
    figures
        .iter()
        .map(|(name, values)| (name.clone(), json!(values.map(|value| value.map(number)))))
        .collect()
}

impl StepDiff<'_> {
    fn is_equal(&self) -> bool {
        self.actions.iter().all(ActionDiff::is_equal)
    }

    /// What became of the step in one of the runs: the worst of its actions.
    fn outcome(&self, place: usize) -> &'static str {
        let outcomes: Vec<RecordedOutcome> = self
            .actions
            .iter()
            .filter_map(|action| action.records[place])
            .map(|record| record.outcome)
            .collect();
        let order = [
            (RecordedOutcome::Failed, "failed"),
            (RecordedOutcome::Skipped, "skipped"),
            (RecordedOutcome::Executed, "ran"),
            (RecordedOutcome::Cached, "cached"),
        ];
        let worst = order.iter().find(|(outcome, _)| outcomes.contains(outcome));
        worst.map_or("not there", |(_, word)| word)
    }

    fn show(&self) -> Result<(), Failure> {
        let artifacts = if self.is_equal() { "equal" } else { "differ" };
        output::line(&format!(
            "{}: {}, {}; artifacts {artifacts}",
            self.name,
            self.outcome(0),
            self.outcome(1)
        ))?;
        for action in &self.actions {
            if let Some(words) = action.key_in_words() {
                output::line(&format!("  {}: {words}", action.name))?;
            }
        }
        for action in self.actions.iter().filter(|action| !action.is_equal()) {
            let told = |tree: Option<Digest>| tree.map_or_else(|| "none".to_owned(), |tree| tree.short());
            let [old, new] = action.trees().map(told);
            output::line(&format!("  {}: artifact {old} → {new}", action.name))?;
        }
        for action in &self.actions {
            show_figures("", action.name, &action.metrics)?;
        }
        for action in &self.actions {
            show_figures("measured: ", action.name, &action.measurements)?;
        }
        Ok(())
    }
}

/// Shows those of `figures` that differ.
fn show_figures(what: &str, action: &str, figures: &Figures) -> Result<(), Failure> {
    let told = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), table::figure);
    let different: Vec<String> = figures
        .iter()
        .filter(|(_, [old, new])| old != new)
        .map(|(name, [old, new])| format!("{name} {} → {}", told(*old), told(*new)))
        .collect();
    if different.is_empty() {
        return Ok(());
    }
    output::line(&format!("  {what}{action}: {}", different.join(", ")))
}

/// In what the variants of the recipe differ that were built in the old and in the new run.
fn variant_lines(variants: [Option<&Variant>; 2]) -> Vec<String> {
    let [Some(old), Some(new)] = variants else {
        return vec!["recipe: not recorded by every run".to_owned()];
    };
    let mut lines = vec![if old.digest == new.digest {
        "recipe: says the same".to_owned()
    } else {
        format!(
            "recipe: says something else, {} → {}",
            old.digest.short(),
            new.digest.short()
        )
    }];
    let told = |words: Option<&str>| words.unwrap_or("none").to_owned();
    if old.profile != new.profile {
        let [old, new] = [old, new].map(|variant| told(variant.profile.as_deref()));
        lines.push(format!("profile: {old} → {new}"));
    }
    if old.overrides != new.overrides {
        let in_words = |variant: &Variant| {
            let all = variant.overrides.join(" ");
            told(Some(all.as_str()).filter(|all| !all.is_empty()))
        };
        lines.push(format!("overrides: {} → {}", in_words(old), in_words(new)));
    }
    lines
}

fn show(old: &RecordedRun, new: &RecordedRun, steps: &[StepDiff<'_>]) -> Result<(), Failure> {
    for (word, run) in [("old", &old.summary), ("new", &new.summary)] {
        output::line(&format!(
            "{word}: run {} of {}, {}, {}",
            run.id.short(),
            run.recipe,
            rfc3339(run.started_millis),
            RunOutcome::of(run).words()
        ))?;
    }
    variant_lines([&old.summary, &new.summary].map(|run| run.variant.as_ref()))
        .iter()
        .try_for_each(|line| output::line(line))?;
    output::line("")?;
    steps.iter().try_for_each(StepDiff::show)?;
    let different = steps.iter().filter(|step| !step.is_equal()).count();
    output::line(&format!("{different} of {} steps have other artifacts", steps.len()))
}

fn print(old: &RecordedRun, new: &RecordedRun, steps: &[StepDiff<'_>]) -> Result<(), Failure> {
    let runs =
        json!({ "diff": "runs", "old": run_table::object(&old.summary), "new": run_table::object(&new.summary) });
    output::line(&runs.to_string())?;
    for step in steps {
        let object = json!({
            "diff": "step",
            "step": step.name,
            "outcome": [step.outcome(0), step.outcome(1)],
            "equal": step.is_equal(),
            "actions": step.actions.iter().map(ActionDiff::object).collect::<Vec<_>>(),
        });
        output::line(&object.to_string())?;
    }
    Ok(())
}
