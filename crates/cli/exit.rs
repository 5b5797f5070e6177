//! Exit codes, and the errors that end a command.

use crate::hub::HubError;
use orchestrate_engine::{EngineError, StoreError};
use orchestrate_recipe::lock::{LockDifference, LockError};
use orchestrate_recipe::{ModelError, RecipeErrors};
use std::io;
use std::path::{Path, PathBuf};

/// How the program ends. The numbers are public: scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// All was done.
    Done = 0,
    /// A step failed; of `diff --exit-code`, that artifacts differ.
    StepFailed = 1,
    /// The recipe or the command line is wrong.
    Usage = 2,
    /// The store or a model is damaged and could not be repaired.
    Corrupt = 3,
    /// An action gave other bytes when it ran a second time.
    NotReproducible = 4,
    /// The recipe, its files or what came out differ from the lock.
    LockDiffers = 5,
    /// The disk, the device or the memory did not do.
    Environment = 6,
    /// A gate is not met.
    GateNotMet = 7,
    /// Ctrl-C, or the request to end.
    Interrupted = 130,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeErrors),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The command line asks for what there is not.
    #[error("{0}")]
    Usage(String),
    /// A model could not be opened or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file of the user's could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A hub did not give what was asked for.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// An export could not be put in place.
    #[error("the export of step `{step}` cannot be put into {}: {problem}", folder.display())]
    Export {
        /// The step.
        step: String,
        /// Where it was to go.
        folder: PathBuf,
        /// What stood in the way, and what to do.
        problem: String,
        /// The code to end with.
        code: ExitCode,
    },
    /// The lock file is of no use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The recipe, its files or what came out differ from the lock.
    #[error("{}\n{}{advice}", differs_from(path), listed(differences))]
    LockDiffers {
        /// The lock file.
        path: PathBuf,
        /// In what.
        differences: Vec<LockDifference>,
        /// What to do.
        advice: &'static str,
    },
    /// Nobody reads what is printed any more: no error.
    #[error("the output was closed")]
    OutputClosed,
}

fn differs_from(lock: &Path) -> String {
    format!("this differs from {}:", lock.display())
}

fn listed(differences: &[LockDifference]) -> String {
    differences
        .iter()
        .map(|difference| format!("  {difference}\n"))
        .collect()
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

impl Failure {
    /// For `map_err` on file operations.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// The code to end with.
    pub fn code(&self) -> ExitCode {
        match self {
            Self::Recipe(_) | Self::Usage(_) => ExitCode::Usage,
            Self::Engine(EngineError::Graph(_) | EngineError::InputFile { .. }) => ExitCode::Usage,
            Self::Engine(EngineError::Store(StoreError::NotWhole { .. })) => ExitCode::Corrupt,
            Self::Engine(EngineError::Store(_)) | Self::File { .. } => ExitCode::Environment,
            Self::Model(error) => match error {
                ModelError::Io { .. } | ModelError::Device { .. } => ExitCode::Environment,
                ModelError::Corrupt { .. }
                | ModelError::MissingFile { .. }
                | ModelError::MissingTensor { .. }
                | ModelError::WrongTensor { .. }
                | ModelError::UnusedTensors(_) => ExitCode::Corrupt,
                ModelError::Unsuited(_) | ModelError::Data(_) => ExitCode::Usage,
                ModelError::Tensor(_)
                | ModelError::NotFinite { .. }
                | ModelError::NoGradient(_)
                | ModelError::MaskLost { .. } => ExitCode::StepFailed,
                ModelError::Stopped { .. } => ExitCode::Interrupted,
            },
            Self::Hub(error) => match error {
                HubError::Refused { .. } | HubError::Absent { .. } | HubError::Address(_) => ExitCode::Usage,
                HubError::Connection { .. } | HubError::Broken { .. } | HubError::Status { .. } | HubError::Disk(_) => {
                    ExitCode::Environment
                }
                HubError::Damaged { .. } => ExitCode::Corrupt,
            },
            Self::Export { code, .. } => *code,
            Self::Lock(LockError::Io { .. }) => ExitCode::Environment,
            Self::Lock(LockError::Absent { .. } | LockError::Damaged { .. }) => ExitCode::Usage,
            Self::LockDiffers { .. } => ExitCode::LockDiffers,
            Self::OutputClosed => ExitCode::Done,
        }
    }

    /// Shows it on standard error.
    pub fn show(&self) {
        match self {
            Self::Recipe(errors) => crate::output::show_diagnostic(errors),
            other => crate::output::error(&other.to_string()),
        }
    }
}
