//! The kinds of action, with the version of what each computes, and how each is carried out.
//!
//! A version is part of every key of its kind. It rises by one, with a line in the log below, when the same parameters and
//! inputs give other bytes; a test over golden digests notices when that was forgotten.
//!
//! - 1 of every kind: first.
//! - 2 of those that run a model: 3×3 and 5×5 convolutions are chains of fused multiply-adds.
//! - 3 of the same: tanh and cosine no longer are the C library's.
//! - 4 of the same: the last layer of a BERT computes its first position alone.

use orchestrate_engine::{
    CheckpointPlace, FailureClass, InputFiles, Kind, Outcome, Progress, Step, StepError, Steps, Work,
};
use orchestrate_ml::artifact::Files;
use orchestrate_ml::checkpoint::{Checkpoints, Interruption};
use orchestrate_ml::data::DataSpec;
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::progress;
use orchestrate_ml::prune::PruneRound;
use orchestrate_ml::steps::{self, Context, Figures, Start};
use orchestrate_ml::{Error, Result as MlResult};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Role of the model whose tokenizer or normalization a data set is prepared with.
pub(crate) const LIKE: &str = "like";

/// A kind of action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// Makes or reads a data set.
    Data,
    /// What training reads of a data set.
    TrainingRows,
    /// Trains a model from a seed or from pretrained weights.
    Train,
    /// Runs a teacher over the training rows.
    Logits,
    /// Trains a student towards a teacher.
    Distill,
    /// Removes units or weights.
    Prune,
    /// Trains a model further.
    Finetune,
    /// Calibrates a model and trains it quantization-aware.
    Quantize,
    /// Writes a model as it is deployed.
    Export,
    /// Runs a model on the test rows and times it.
    Evaluate,
}

impl ActionKind {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::Data,
        Self::TrainingRows,
        Self::Train,
        Self::Logits,
        Self::Distill,
        Self::Prune,
        Self::Finetune,
        Self::Quantize,
        Self::Export,
        Self::Evaluate,
    ];

    const fn name_and_version(self) -> (&'static str, u32) {
        match self {
            Self::Data => ("data", 1),
            Self::TrainingRows => ("training-rows", 1),
            Self::Train => ("train", 4),
            Self::Logits => ("logits", 4),
            Self::Distill => ("distill", 4),
            Self::Prune => ("prune", 1),
            Self::Finetune => ("finetune", 4),
            Self::Quantize => ("quantize", 4),
            Self::Export => ("export", 1),
            Self::Evaluate => ("evaluate", 4),
        }
    }

    /// The kind as keys have it.
    pub fn versioned(self) -> Kind {
        let (name, version) = self.name_and_version();
        Kind {
            name: name.to_owned(),
            version,
        }
    }

    /// Whether it gives the same bytes on every device and processor.
    pub fn is_exact(self) -> bool {
        match self {
            Self::Data | Self::TrainingRows | Self::Prune | Self::Export => true,
            Self::Train | Self::Logits | Self::Distill | Self::Finetune | Self::Quantize | Self::Evaluate => false,
        }
    }
}

/// All kinds, for the engine's worker.
#[derive(Debug, Clone, Copy)]
pub struct Kinds;

impl Steps for Kinds {
    fn get(&self, kind: &str) -> Option<&dyn Step> {
        let found = ActionKind::ALL.iter().find(|k| k.name_and_version().0 == kind);
        found.map(|kind| kind as &dyn Step)
    }
}

/// Parameters of [`ActionKind::Data`]; the generator's version is there for the key alone.
#[derive(Deserialize)]
struct DataParameters {
    spec: DataSpec,
}

impl Step for ActionKind {
    fn run(&self, work: &Work<'_>) -> Result<Outcome, StepError> {
        let device = DeviceChoice::of_numerics(work.numerics).open().map_err(failure)?;
        let watch = |moment: &progress::Progress| (work.progress)(told(moment));
        let context = Context {
            device: &device,
            seed: work.seed,
            watch: &watch,
            interruption: Interruption {
                checkpoints: work.checkpoints.map(checkpoints),
                is_stopped: work.is_stopped,
            },
        };
        let figures = match self {
            Self::Data => {
                let DataParameters { spec } = parameters(work)?;
                steps::prepare_data(&spec, &external(work), optional_artifact(work, LIKE)?, work.output)
            }
            Self::TrainingRows => steps::training_rows(artifact(work, "data")?, work.output),
            Self::Train => {
                let pretrained = external(work);
                let data = artifact(work, "data")?;
                steps::train(data, &pretrained, &parameters(work)?, &context, work.output)
            }
            Self::Logits => steps::teacher_logits(
                artifact(work, "teacher")?,
                artifact(work, "data")?,
                parameters(work)?,
                &context,
                work.output,
            ),
            Self::Distill => {
                let (data, logits) = (artifact(work, "data")?, artifact(work, "logits")?);
                let start = Start {
                    teacher: optional_artifact(work, "teacher")?,
                    pretrained: &external(work),
                };
                steps::distill(data, logits, start, &parameters(work)?, &context, work.output)
            }
            Self::Prune => {
                let round: PruneRound = parameters(work)?;
                steps::prune(artifact(work, "model")?, &round, work.seed, work.output)
            }
            Self::Finetune => {
                let (model, data) = (artifact(work, "model")?, artifact(work, "data")?);
                let logits = optional_artifact(work, "logits")?;
                steps::finetune(model, data, logits, &parameters(work)?, &context, work.output)
            }
            Self::Quantize => {
                let (model, data) = (artifact(work, "model")?, artifact(work, "data")?);
                let logits = optional_artifact(work, "logits")?;
                steps::quantize(model, data, logits, &parameters(work)?, &context, work.output)
            }
            Self::Export => steps::export(artifact(work, "model")?, parameters(work)?, work.output),
            Self::Evaluate => {
                let (model, data) = (artifact(work, "model")?, artifact(work, "data")?);
                let reference = optional_artifact(work, "reference")?;
                steps::evaluate(model, data, reference, parameters(work)?, &context, work.output)
            }
        };
        outcome(figures)
    }
}

fn checkpoints(place: &CheckpointPlace) -> Checkpoints<'_> {
    let CheckpointPlace {
        folder,
        scratch,
        owner,
        every,
    } = place;
    Checkpoints {
        folder,
        scratch,
        owner,
        every: *every,
    }
}

fn outcome(figures: MlResult<Figures>) -> Result<Outcome, StepError> {
    let Figures { metrics, measurements } = figures.map_err(failure)?;
    Ok(Outcome { metrics, measurements })
}

fn failure(error: Error) -> StepError {
    let class = match &error {
        Error::Io { .. } | Error::Device { .. } => FailureClass::Environment,
        Error::Stopped { .. } => FailureClass::Interrupted,
        Error::Data(_) | Error::MissingFile { .. } | Error::Corrupt { .. } => FailureClass::Input,
        Error::Tensor(_)
        | Error::MissingTensor { .. }
        | Error::WrongTensor { .. }
        | Error::UnusedTensors(_)
        | Error::Unsuited(_)
        | Error::NotFinite { .. }
        | Error::NoGradient(_)
        | Error::MaskLost { .. } => FailureClass::Step,
    };
    StepError::new(class, error.to_string())
}

fn told(moment: &progress::Progress) -> Progress {
    let values = [
        ("loss", moment.loss),
        ("accuracy", moment.accuracy),
        ("rows_per_second", moment.rows_per_second),
    ];
    Progress {
        done: moment.done as u64,
        total: moment.total as u64,
        values: values
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect(),
    }
}

/// An order that this binary did not write, or wrote in another version.
fn misfit(work: &Work<'_>, what: impl std::fmt::Display) -> StepError {
    StepError::new(
        FailureClass::Environment,
        format!("the order of a {} action does not fit: {what}", work.kind),
    )
}

fn parameters<P: DeserializeOwned>(work: &Work<'_>) -> Result<P, StepError> {
    serde_json::from_value(work.parameters.clone()).map_err(|error| misfit(work, error))
}

fn optional_artifact<'a>(work: &'a Work<'_>, role: &str) -> Result<Option<&'a Files>, StepError> {
    match work.inputs.get(role) {
        None => Ok(None),
        Some(InputFiles::Artifact(files)) => Ok(Some(files)),
        Some(InputFiles::File(_)) => Err(misfit(work, format!("input {role} is no artifact"))),
    }
}

fn artifact<'a>(work: &'a Work<'_>, role: &str) -> Result<&'a Files, StepError> {
    optional_artifact(work, role)?.ok_or_else(|| misfit(work, format!("there is no input {role}")))
}

/// The files that the build does not make, by role.
fn external(work: &Work<'_>) -> Files {
    let files = work.inputs.iter().filter_map(|(role, input)| match input {
        InputFiles::File(path) => Some((role.clone(), path.clone())),
        InputFiles::Artifact(_) => None,
    });
    files.collect()
}
