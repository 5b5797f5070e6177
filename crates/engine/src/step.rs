//! What carries out an action: a [`Step`] turns inputs and parameters into the files of one folder.
//!
//! Invariants: a step sees only what is in the action's key (and where its files lie); it writes only below its output
//! folder; its metrics follow from its key alone, while what depends on the machine's mood is a measurement.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything that a step is given.
pub struct Work<'a> {
    /// Name of the action's kind.
    pub kind: &'a str,
    /// Its resolved parameters.
    pub parameters: &'a serde_json::Value,
    /// Seed of all randomness.
    pub seed: u64,
    /// Numerics class.
    pub numerics: &'a str,
    /// Role to verified files.
    pub inputs: BTreeMap<String, InputFiles>,
    /// An empty folder; what lies in it afterwards is the artifact.
    pub output: &'a Path,
    /// Where it may keep what it needs to go on after an interruption.
    pub checkpoints: Option<&'a CheckpointPlace>,
    /// Whether it was asked to stop: a step that keeps checkpoints then writes one and fails as
    /// [`FailureClass::Interrupted`]; others go on.
    pub is_stopped: &'a dyn Fn() -> bool,
    /// Tells how far the work is; may be called as often as one likes.
    pub progress: &'a dyn Fn(Progress),
}

/// The files of one input. They are read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputFiles {
    /// An artifact: path within it to where the bytes lie.
    Artifact(BTreeMap<String, PathBuf>),
    /// An external file.
    File(PathBuf),
}

/// Where a step keeps what it needs to go on after an interruption.
///
/// The step's result must be the same whether it went on from there or not. What lies there may be of another action of
/// the same trajectory, may be damaged, and may be gone at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointPlace {
    /// The folder of the trajectory.
    pub folder: PathBuf,
    /// An empty folder on the same file system: files are written there, synced, and renamed into the other.
    pub scratch: PathBuf,
    /// How the names of those files begin that are of no use once this action has its result.
    pub owner: String,
    /// How often to write.
    pub every: Duration,
}

/// How far an action is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all; 0 where it is not known.
    pub total: u64,
    /// Values of the moment, such as the loss.
    #[serde(default)]
    pub values: BTreeMap<String, f64>,
}

impl Progress {
    /// Without the values that are not finite: JSON has no word for them, and one loss that overflows is no reason to
    /// break off here.
    pub(crate) fn finite(mut self) -> Self {
        self.values.retain(|_, value| value.is_finite());
        self
    }
}

/// What a step tells besides its files.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Results that follow from the key: accuracy, size, sparsity.
    pub metrics: BTreeMap<String, f64>,
    /// What may differ from run to run: times, latency, memory. Never in a key or digest.
    pub measurements: BTreeMap<String, f64>,
}

/// Who must act on a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The step itself failed.
    Step,
    /// An input is not what it should be.
    Input,
    /// The machine: disk, memory, device.
    Environment,
    /// Nobody: it stopped because it was asked to, and can go on.
    Interrupted,
}

/// A step's failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct StepError {
    /// What went wrong, where, and what to do.
    pub message: String,
    /// Who must act on it.
    pub class: FailureClass,
}

impl StepError {
    /// A failure of `class`.
    #[must_use]
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            class,
        }
    }
}

/// The implementation of one kind.
pub trait Step: Send + Sync {
    /// Does the work.
    ///
    /// # Errors
    /// [`StepError`]; what lies in the output folder is then thrown away.
    fn run(&self, work: &Work<'_>) -> Result<Outcome, StepError>;
}

/// The kinds that are known.
pub trait Steps: Send + Sync {
    /// The implementation of `kind`.
    fn get(&self, kind: &str) -> Option<&dyn Step>;
}

/// Runs the step of `work`'s kind. A panic is a failure like another, and so is a number that is not finite: JSON, in
/// which results are kept, has no word for it.
pub(crate) fn run_step(steps: &dyn Steps, work: &Work<'_>) -> Result<Outcome, StepError> {
    let Some(step) = steps.get(work.kind) else {
        return Err(StepError::new(
            FailureClass::Step,
            format!("there is no step of kind `{}`", work.kind),
        ));
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| step.run(work))).unwrap_or_else(|panic| {
        Err(StepError::new(
            FailureClass::Step,
            format!("the step panicked: {}", panic_message(panic.as_ref())),
        ))
    })?;
    for (name, value) in outcome.metrics.iter().chain(&outcome.measurements) {
        if !value.is_finite() {
            return Err(StepError::new(
                FailureClass::Step,
                format!("the step reported `{name}` as {value}"),
            ));
        }
    }
    Ok(outcome)
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
