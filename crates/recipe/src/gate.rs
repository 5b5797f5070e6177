//! `[[gate]]`: conditions on the figures of steps.

use crate::diagnostic::{Problem, Problems};
use crate::flow::Parts;
use crate::graph::missing_step;
use crate::header::Header;
use crate::recipe::{Bounds, Gate};
use crate::section::{Named, Section};
use crate::shape::Interval;
use crate::source::{Place, Sources};
use crate::steps::Draft as StepDraft;
use crate::suggest::quoted;
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::steps::Precision;

/// The figures that a gate may ask for.
pub const METRICS: [&str; 11] = [
    "accuracy",
    "loss",
    "file_bytes",
    "parameters",
    "parameters_nonzero",
    "macs",
    "latency_ms_p50",
    "latency_ms_p90",
    "latency_ms_p99",
    "agreement",
    "predictions_changed",
];

/// A gate whose references have not been looked up.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub place: Place,
    pub step: Named,
    pub metric: &'static str,
    pub metric_place: Place,
    pub bounds: Bounds,
    pub baseline: Option<Named>,
}

impl Draft {
    /// Whether a figure of another step is needed.
    pub fn compares(&self) -> bool {
        self.bounds.max_drop.is_some() || self.bounds.max_ratio.is_some()
    }
}

/// Reads a gate.
pub(crate) fn read(mut section: Section) -> Option<Draft> {
    let step = section.needed_reference("step", "step");
    let metric = section.choice("metric", &METRICS.map(|metric| (metric, metric)));
    section.require("metric", "\"accuracy\"");
    let share = metric.is_some_and(|metric| matches!(metric, "accuracy" | "agreement"));
    let (wanted, within) = if share {
        ("a share from 0 to 1, such as 0.95", Interval::from(0.0).to(1.0))
    } else {
        ("a number", Interval::ALL)
    };
    let bounds = Bounds {
        min: section.real_called("min", within, wanted),
        max: section.real_called("max", within, wanted),
        max_drop: section.real_called("max_drop", within, wanted),
        max_ratio: section.real("max_ratio", Interval::above(0.0)),
    };
    let baseline = section.reference("baseline", "step");
    check_bounds(&mut section, &bounds);
    let (place, metric_place) = (section.place(), section.place_of("metric"));
    section.done(|| {
        Some(Draft {
            place,
            step: step?,
            metric: metric?,
            metric_place: metric_place?,
            bounds,
            baseline,
        })
    })
}

fn check_bounds(section: &mut Section, bounds: &Bounds) {
    let place = section.place();
    if !["min", "max", "max_drop", "max_ratio"]
        .iter()
        .any(|key| section.has(key))
        && !section.has_unknown()
    {
        section.fault(Problem::error(
            "a gate without a bound",
            place,
            "nothing to keep",
            "add `min`, `max`, `max_drop` (against the baseline) or `max_ratio` (of the baseline)",
        ));
    }
    if let (Some(min), Some(max)) = (bounds.min, bounds.max)
        && min > max
    {
        section.fault(Problem::error(
            format!("`min` = {min} is above `max` = {max}"),
            section.place_of("min").unwrap_or(place),
            "nothing can be both",
            "exchange them, or remove one",
        ));
    }
    if !section.has("max_drop") && !section.has("max_ratio") {
        section.refuse("baseline", "only `max_drop` and `max_ratio` compare with it");
    }
}

/// The gates with their references looked up; faulty ones are left out.
pub(crate) fn look_up(
    drafts: Vec<Draft>,
    parts: &Parts,
    header: Option<&Header>,
    sources: &Sources,
    problems: &mut Problems,
) -> Vec<Gate> {
    let mut gates = Vec::new();
    for draft in drafts {
        let known = |named: &&Named| parts.steps.iter().any(|step| step.name.name == named.name);
        let references = [Some(&draft.step), draft.baseline.as_ref()];
        let missing: Vec<&Named> = references.into_iter().flatten().filter(|named| !known(named)).collect();
        for named in &missing {
            problems.push(missing_step(named, parts));
        }
        check_measured(&draft, parts, header, problems);
        if !missing.is_empty() {
            continue;
        }
        let Ok(baseline) = baseline(&draft, parts, problems) else {
            continue;
        };
        if let Some(baseline) = &baseline {
            warn_of_two_devices(&draft, baseline, parts, header, problems);
        }
        gates.push(Gate {
            step: draft.step.name.clone(),
            metric: draft.metric.to_owned(),
            bounds: draft.bounds,
            baseline,
            line: sources.line(draft.place),
            written_at: sources.written_at(draft.place),
        });
    }
    gates
}

/// The figure is one that will be known.
fn check_measured(draft: &Draft, parts: &Parts, header: Option<&Header>, problems: &mut Problems) {
    if draft.metric.starts_with("latency") && header.is_some_and(|header| header.latency_seconds == 0.0) {
        problems.push(Problem::error(
            format!("`{}` is not measured: `latency_seconds` is 0", draft.metric),
            draft.metric_place,
            "never known",
            "set `latency_seconds` under `[recipe]` above 0, or remove the gate",
        ));
    }
    let step = parts.steps.iter().find(|step| step.name.name == draft.step.name);
    let Some(step) = step.and_then(|step| step.value.as_ref()) else {
        return;
    };
    let compares_itself = matches!(step, StepDraft::Export(export) if export.precision == Precision::Int8);
    if matches!(draft.metric, "agreement" | "predictions_changed") && !compares_itself {
        problems.push(Problem::error(
            format!("`{}` is known of exports in int8 only", draft.metric),
            draft.metric_place,
            "never known",
            "it compares an export with the simulation it was made from: gate an export step",
        ));
    }
}

/// Says so where a time on one device is compared with one on another: models in integers run on the processor always.
fn warn_of_two_devices(draft: &Draft, baseline: &str, parts: &Parts, header: Option<&Header>, problems: &mut Problems) {
    if !draft.metric.starts_with("latency") {
        return;
    }
    let device = header.map_or(DeviceChoice::Cpu, |header| header.device.resolve());
    if device == DeviceChoice::Cpu {
        return;
    }
    let own = is_in_integers(&draft.step.name, parts);
    if own != is_in_integers(baseline, parts) {
        let (integers, floats) = if own {
            (&*draft.step.name, baseline)
        } else {
            (baseline, &*draft.step.name)
        };
        problems.push(Problem::warning(
            format!(
                "{} is timed on the processor, {} on {}",
                quoted(integers),
                quoted(floats),
                device.name()
            ),
            draft.metric_place,
            "times on two devices",
            "for a comparison of models, choose `device = \"cpu\"`",
        ));
    }
}

/// As [`Recipe::is_in_integers`](crate::recipe::Recipe::is_in_integers), of what is not yet known to be a recipe.
fn is_in_integers(name: &str, parts: &Parts) -> bool {
    let mut name = name;
    // What is evaluated may be evaluated already, and references may turn in a circle.
    for _ in 0..parts.steps.len() {
        let step = parts.steps.iter().find(|step| step.name.name == name);
        match step.and_then(|step| step.value.as_ref()) {
            Some(StepDraft::Export(export)) => return export.precision == Precision::Int8,
            Some(StepDraft::Evaluate(evaluate)) => name = &evaluate.input.name,
            Some(StepDraft::Train(_) | StepDraft::Distill(_) | StepDraft::Prune(_) | StepDraft::Quantize(_)) | None => {
                return false;
            }
        }
    }
    false
}

/// A gate without a step to compare with: reported, or due to a step that is.
struct NoBaseline;

/// The step that the gate compares with, if it compares: the first train step unless it says another.
fn baseline(draft: &Draft, parts: &Parts, problems: &mut Problems) -> Result<Option<String>, NoBaseline> {
    if !draft.compares() {
        return Ok(None);
    }
    let is_train = |draft: &StepDraft| matches!(draft, StepDraft::Train(_));
    let first_train = parts
        .steps
        .iter()
        .find(|step| step.value.as_ref().is_some_and(is_train));
    let name = match (&draft.baseline, first_train) {
        (Some(named), _) => &named.name,
        (None, Some(step)) => &step.name.name,
        (None, None) => {
            if parts.steps.iter().all(|step| step.value.is_some()) {
                problems.push(Problem::error(
                    "a gate that compares, but no train step to compare with",
                    draft.place,
                    "with what?",
                    "name a step: `baseline = \"NAME\"`",
                ));
            }
            return Err(NoBaseline);
        }
    };
    if *name == draft.step.name {
        problems.push(Problem::error(
            format!("the gate compares {} with itself", quoted(name)),
            draft.baseline.as_ref().map_or(draft.step.place, |named| named.place),
            "always met",
            "gate another step, or name another one as `baseline`; without it, it is the first train step",
        ));
        return Err(NoBaseline);
    }
    Ok(Some(name.clone()))
}
