//! What a build gave, step by step: figures, comparison with the baseline, gates, and the files that an export lands with.
//!
//! Nothing here is shown or written: the command line does that.

use crate::lowered::{Lowered, LoweredStep};
use crate::recipe::{Gate, Recipe, StepKind};
use orchestrate_engine::{ActionOutcome, ActionReport, ActionResult, BuildReport};
use orchestrate_ml::device::DeviceChoice;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// At least one of its actions ran.
    Ran,
    /// None had to.
    Cached,
    /// One failed.
    Failed,
    /// One was not tried.
    Skipped,
}

impl StepState {
    /// One word for a table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ran => "ran",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One step's result.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// Its kind, as the recipe writes it.
    pub kind: &'static str,
    /// What became of it.
    pub state: StepState,
    /// What the evaluation of its files gave: accuracy, bytes, latency and so on; empty if it did not come to that.
    pub figures: BTreeMap<String, f64>,
    /// How long its actions took when they last ran, in seconds.
    pub seconds: f64,
    /// Where its model was run and timed: `cpu`, `cuda` or `metal`.
    pub device: &'static str,
}

/// The reports of the steps that `build` was about, in the recipe's order.
pub fn step_reports(lowered: &Lowered, build: &BuildReport) -> Vec<StepReport> {
    let part_of_build = |step: &&LoweredStep| build.actions.contains_key(&step.evaluation);
    lowered
        .steps
        .iter()
        .filter(part_of_build)
        .map(|step| step_report(step, lowered, build))
        .collect()
}

fn step_report(step: &LoweredStep, lowered: &Lowered, build: &BuildReport) -> StepReport {
    let actions = || step.actions.iter().filter_map(|id| build.actions.get(id));
    let seconds = actions()
        .filter_map(|action| action.result.as_ref())
        .map(|result| result.seconds)
        .sum();
    let evaluation = build.actions[&step.evaluation].result.as_ref();
    StepReport {
        name: step.name.clone(),
        kind: step.kind,
        state: state_of(actions()),
        figures: evaluation.map(figures_of).unwrap_or_default(),
        seconds,
        device: DeviceChoice::of_numerics(&lowered.graph.get(step.evaluation).numerics).name(),
    }
}

fn state_of<'a>(actions: impl Iterator<Item = &'a ActionReport>) -> StepState {
    let mut state = StepState::Cached;
    for action in actions {
        match action.outcome {
            ActionOutcome::Failed { .. } => return StepState::Failed,
            ActionOutcome::Skipped { .. } => state = StepState::Skipped,
            ActionOutcome::Executed if state == StepState::Cached => state = StepState::Ran,
            ActionOutcome::Executed | ActionOutcome::Cached => {}
        }
    }
    state
}

fn figures_of(result: &ActionResult) -> BTreeMap<String, f64> {
    result
        .metrics
        .iter()
        .chain(&result.measurements)
        .map(|(name, value)| (name.clone(), *value))
        .collect()
}

/// The step that others are compared with: the recipe's first trained model.
pub fn baseline_step(recipe: &Recipe) -> Option<&str> {
    let trained = recipe.steps.iter().find(|step| matches!(step.kind, StepKind::Train(_)));
    trained.map(|step| step.name.as_str())
}

/// Whether a gate is met.
#[derive(Debug, Clone, PartialEq)]
pub struct GateReport {
    /// Whose figure.
    pub step: String,
    /// Which figure.
    pub metric: String,
    /// Which bound: `min`, `max`, `max_drop` or `max_ratio`.
    pub bound: &'static str,
    /// What the bound asks for.
    pub limit: f64,
    /// What is held against the limit: the figure, the drop or the ratio.
    pub value: Option<f64>,
    /// What it asks, as one reads it: `export accuracy ≥ 0.95`.
    pub condition: String,
    /// What was found: `0.962`, or why nothing was.
    pub found: String,
    /// Whether it is met.
    pub met: bool,
    /// Where it is written: file and line.
    pub written_at: String,
}

/// Holds each of the recipe's gates, whose steps were built, against the figures; one report a bound.
pub fn gate_reports(recipe: &Recipe, steps: &[StepReport]) -> Vec<GateReport> {
    let built = |name: &str| steps.iter().any(|step| step.name == name);
    recipe
        .gates
        .iter()
        .filter(|gate| built(&gate.step))
        .flat_map(|gate| reports_of(gate, steps))
        .collect()
}

fn reports_of(gate: &Gate, steps: &[StepReport]) -> Vec<GateReport> {
    let figure = |name: &str| {
        steps
            .iter()
            .find(|s| s.name == name)?
            .figures
            .get(&gate.metric)
            .copied()
    };
    let baseline = gate.baseline.as_deref().unwrap_or_default();
    let (own, other) = (figure(&gate.step), figure(baseline));
    let subject = format!("{} {}", gate.step, gate.metric);
    let report = |bound: &'static str, limit: f64, condition: String, value: Option<f64>, is_met: bool| GateReport {
        step: gate.step.clone(),
        metric: gate.metric.clone(),
        bound,
        limit,
        value,
        condition,
        found: value.map_or_else(|| "no such figure was measured".to_owned(), readable),
        met: is_met,
        written_at: gate.written_at.clone(),
    };
    let drop = own.zip(other).map(|(own, other)| other - own);
    let ratio = own.zip(other).map(|(own, other)| own / other);
    let bounds = gate.bounds;
    let at_least = bounds.min.map(|min| {
        let condition = format!("{subject} ≥ {}", readable(min));
        report("min", min, condition, own, own.is_some_and(|v| v >= min))
    });
    let at_most = bounds.max.map(|max| {
        let condition = format!("{subject} ≤ {}", readable(max));
        report("max", max, condition, own, own.is_some_and(|v| v <= max))
    });
    let drop = bounds.max_drop.map(|most| {
        let condition = format!("{subject} at most {} below {baseline}", readable(most));
        report(
            "max_drop",
            most,
            condition,
            drop,
            drop.is_some_and(|v| v <= most + ROUNDING),
        )
    });
    let ratio = bounds.max_ratio.map(|most| {
        let condition = format!("{subject} at most {} × {baseline}", readable(most));
        report("max_ratio", most, condition, ratio, ratio.is_some_and(|v| v <= most))
    });
    [at_least, at_most, drop, ratio].into_iter().flatten().collect()
}

/// What the difference of two shares of rows may be off by.
const ROUNDING: f64 = 1e-12;

/// A number with four significant digits or as many as a whole one has.
fn readable(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let digits = (3 - value.abs().log10().floor() as i64).clamp(0, 9) as usize;
    format!("{value:.digits$}")
}

/// `metrics.json` of an exported step: its figures, and the same of the baseline under `baseline`.
pub fn metrics_json(step: &StepReport, baseline: Option<&StepReport>) -> Value {
    let mut document = figures_json(step);
    if let Some(baseline) = baseline {
        let mut figures = figures_json(baseline);
        figures.insert("step".into(), json!(baseline.name));
        document.insert("baseline".into(), Value::Object(figures));
    }
    Value::Object(document)
}

fn figures_json(step: &StepReport) -> Map<String, Value> {
    step.figures
        .iter()
        .map(|(name, value)| (name.clone(), number(*value)))
        .collect()
}

/// A figure in JSON: counts as whole numbers, all else as it is.
pub fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        json!(value as i64)
    } else {
        json!(value)
    }
}

/// Where an exported model came from.
#[derive(Debug)]
pub struct Origin<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Its profile, if one was chosen.
    pub profile: Option<&'a str>,
    /// What `--set` changed.
    pub set: &'a [String],
}

/// `provenance.json` of the exported step `name`: the recipe, and the key and digest of every action behind the files.
pub fn provenance_json(origin: &Origin, lowered: &Lowered, build: &BuildReport, step: &LoweredStep) -> Value {
    let actions = lowered
        .graph
        .ancestors_of(&[step.model, step.evaluation])
        .into_iter()
        .filter_map(|id| {
            let report = build.actions.get(&id)?;
            let action = lowered.graph.get(id);
            let mut entry = json!({
                "action": action.name,
                "kind": action.kind.to_string(),
                "seed": action.seed,
                "numerics": action.numerics,
            });
            if let Some(result) = &report.result {
                entry["key"] = json!(result.key);
                entry["tree"] = json!(result.tree);
            }
            Some(entry)
        });
    json!({
        "tool": format!("orchestrate {}", env!("CARGO_PKG_VERSION")),
        "recipe": origin.recipe.name,
        "profile": origin.profile,
        "set": origin.set,
        "step": step.name,
        "actions": actions.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Bounds;

    fn step(name: &str, accuracy: f64, bytes: f64) -> StepReport {
        StepReport {
            name: name.into(),
            kind: "train",
            state: StepState::Ran,
            figures: BTreeMap::from([("accuracy".into(), accuracy), ("file_bytes".into(), bytes)]),
            seconds: 1.0,
            device: "cpu",
        }
    }

    fn gate(metric: &str, bounds: Bounds) -> Gate {
        Gate {
            step: "export".into(),
            metric: metric.into(),
            bounds,
            baseline: Some("teacher".into()),
            line: 3,
            written_at: "r.toml:3".into(),
        }
    }

    #[test]
    fn each_bound_is_held_against_its_figure() {
        let steps = [step("teacher", 0.97, 800.0), step("export", 0.95, 100.0)];
        let met = |metric, bounds| {
            let reports = reports_of(&gate(metric, bounds), &steps);
            reports.iter().map(|r| r.met).collect::<Vec<_>>()
        };
        let none = Bounds::default();
        assert_eq!(
            met(
                "accuracy",
                Bounds {
                    min: Some(0.95),
                    max: Some(0.94),
                    ..none
                }
            ),
            [true, false]
        );
        assert_eq!(
            met(
                "accuracy",
                Bounds {
                    max_drop: Some(0.02),
                    ..none
                }
            ),
            [true]
        );
        assert_eq!(
            met(
                "accuracy",
                Bounds {
                    max_drop: Some(0.019),
                    ..none
                }
            ),
            [false]
        );
        assert_eq!(
            met(
                "file_bytes",
                Bounds {
                    max_ratio: Some(0.125),
                    ..none
                }
            ),
            [true]
        );
        assert_eq!(
            met(
                "file_bytes",
                Bounds {
                    max_ratio: Some(0.1),
                    ..none
                }
            ),
            [false]
        );
        assert_eq!(
            met("latency_ms_p50", Bounds { max: Some(1.0), ..none }),
            [false],
            "what was not measured is not met"
        );
    }

    #[test]
    fn metrics_hold_the_baseline_and_whole_counts() {
        let json = metrics_json(&step("export", 0.95, 100.0), Some(&step("teacher", 0.97, 800.0)));
        let expected = json!({
            "accuracy": 0.95, "file_bytes": 100,
            "baseline": { "step": "teacher", "accuracy": 0.97, "file_bytes": 800 },
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            ["0.95", "0.02000", "1234568", "0.9873"]
                .map(|s| readable(s.parse().unwrap()))
                .join(" "),
            "0.9500 0.02000 1234568 0.9873"
        );
    }
}
