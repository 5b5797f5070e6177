//! A recipe as the rest of the program sees it: complete, defaulted and checked.
//!
//! Invariants: every name that is referred to exists and is of the right sort; steps come after the steps they refer
//! to; every setting is in its range; files exist. Comments, the order of keys and spelled-out defaults leave no trace.

use crate::steps::{Distill, Evaluate, Export, Prune, Quantize, Train};
use orchestrate_ml::data::DataSpec;
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::pretrained::PretrainedSettings;
use orchestrate_ml::steps::Precision;
use orchestrate_ml::training::{ProductPrecision, Training};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a recipe says.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Of letters, digits, `_` and `-`.
    pub name: String,
    /// Of every random stream.
    pub seed: u64,
    /// Where steps run; `Auto` is not looked up yet.
    pub device: DeviceChoice,
    /// How long each evaluation measures latency, in seconds; 0 for not at all.
    pub latency_seconds: f64,
    /// Data sets by name.
    pub data: BTreeMap<String, Data>,
    /// Each behind the steps it refers to, otherwise as in the file.
    pub steps: Vec<Step>,
    /// As in the file.
    pub gates: Vec<Gate>,
}

/// A data set: `[data.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Data {
    /// Source and settings.
    pub spec: DataSpec,
    /// Files by role, as `orchestrate_ml` names the roles: absolute, or relative to the current folder.
    pub files: BTreeMap<String, PathBuf>,
}

/// The weights that a model starts from instead of the seed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Start {
    /// How it starts from them.
    pub settings: PretrainedSettings,
    /// Files by role, which are their names: absolute, or relative to the current folder.
    pub files: BTreeMap<String, PathBuf>,
}

/// A step: `[step.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Of letters, digits, `_` and `-`.
    pub name: String,
    /// What it does.
    pub kind: StepKind,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum StepKind {
    /// Trains a model from a seed or from pretrained weights, or takes these as they are.
    Train(Train),
    /// Trains a student towards a teacher.
    Distill(Distill),
    /// Removes what is least important, in rounds.
    Prune(Prune),
    /// Prepares for 8-bit integers.
    Quantize(Quantize),
    /// Writes a model as it is deployed.
    Export(Export),
    /// Measures a model.
    Evaluate(Evaluate),
}

impl StepKind {
    /// The value of `kind` in the recipe.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Train(_) => "train",
            Self::Distill(_) => "distill",
            Self::Prune(_) => "prune",
            Self::Quantize(_) => "quantize",
            Self::Export(_) => "export",
            Self::Evaluate(_) => "evaluate",
        }
    }

    /// The last training that the step gives its model.
    fn training(&self) -> Option<&Training> {
        let training = match self {
            Self::Train(train) => &train.settings.training,
            Self::Distill(distill) => &distill.settings.training,
            Self::Prune(prune) => &prune.finetune.training,
            Self::Quantize(quantize) => &quantize.settings.finetune.training,
            Self::Export(_) | Self::Evaluate(_) => return None,
        };
        (training.epochs > 0).then_some(training)
    }

    /// What the step teaches its model in; f32 if it does not.
    pub(crate) fn precision(&self) -> ProductPrecision {
        self.training()
            .map_or(ProductPrecision::F32, |training| training.precision)
    }
}

impl Recipe {
    /// Where the model of the step `name` runs: one in integers on the processor, whatever the recipe's device is.
    pub(crate) fn device_of(&self, name: &str) -> DeviceChoice {
        if self.is_in_integers(name) {
            DeviceChoice::Cpu
        } else {
            self.device
        }
    }

    /// Whether the model of the step `name` computes in integers.
    pub(crate) fn is_in_integers(&self, name: &str) -> bool {
        let step = self.steps.iter().find(|step| step.name == name);
        match &step.expect("a checked recipe has the steps that it refers to").kind {
            StepKind::Export(export) => export.settings.precision == Precision::Int8,
            StepKind::Evaluate(evaluate) => self.is_in_integers(&evaluate.input),
            StepKind::Train(_) | StepKind::Distill(_) | StepKind::Prune(_) | StepKind::Quantize(_) => false,
        }
    }
}

/// A condition on a figure of a step: `[[gate]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// Whose figure.
    pub step: String,
    /// Which figure: one of [`METRICS`](crate::gate::METRICS).
    pub metric: String,
    /// What it must keep; at least one is given.
    pub bounds: Bounds,
    /// The step to compare with: present if and only if `max_drop` or `max_ratio` is.
    pub baseline: Option<String>,
    /// Line of the gate in the text that has it, from 1.
    pub line: usize,
    /// Where that is, to show: `recipes/bert-small.toml:42`.
    pub written_at: String,
}

/// The limits of a gate, each inclusive.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bounds {
    /// figure ≥ min.
    pub min: Option<f64>,
    /// figure ≤ max.
    pub max: Option<f64>,
    /// baseline − figure ≤ max_drop.
    pub max_drop: Option<f64>,
    /// figure / baseline ≤ max_ratio.
    pub max_ratio: Option<f64>,
}
