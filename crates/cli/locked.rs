//! A build and the lock file beside its recipe: whether it is held to it, and what differs.

use crate::arguments::Build;
use crate::exit::Failure;
use crate::output;
use crate::session::Session;
use orchestrate_engine::{ActionId, BuildReport, Store, documents};
use orchestrate_recipe::lock::{Lock, LockDifference, LockError};
use std::path::{Path, PathBuf};

/// The lock that a build is held to.
pub struct Locked {
    path: PathBuf,
    lock: Option<Lock>,
}

impl Locked {
    /// Reads the lock. With `--locked`, a recipe that differs from it is refused, and the cache keeps
    /// what is locked from then on; without, a lock that is not up to date
    /// is worth a note.
    ///
    /// # Errors
    /// Only with `--locked`: [`Failure::Lock`] if there is no lock or it cannot be read, [`Failure::LockDiffers`], and the
    /// store's own.
    pub fn read(arguments: &Build, session: &Session, store: &Store) -> Result<Self, Failure> {
        let path = Lock::path(&arguments.recipe.recipe, arguments.recipe.profile.as_deref());
        let lock = match Lock::read(&path) {
            Ok(lock) => lock,
            Err(error) if arguments.locked => return Err(error.into()),
            Err(LockError::Absent { .. }) => return Ok(Self { path, lock: None }),
            Err(error) => {
                output::note(&error.to_string());
                return Ok(Self { path, lock: None });
            }
        };
        let differences = differences(&lock, &arguments.recipe.recipe, session, store, &arguments.steps)?;
        if differences.is_empty() {
            if !arguments.locked {
                return Ok(Self { path, lock: None });
            }
            // Before anything runs, so that nothing of what is locked is collected meanwhile.
            store.register_roots(&path)?;
            let lock = Some(lock);
            return Ok(Self { path, lock });
        }
        if arguments.locked {
            return Err(Failure::LockDiffers {
                path,
                differences,
                advice: "nothing was run. If this is as it should be, build without `--locked`, then run `orchestrate lock` \
                         and commit the lock file",
            });
        }
        output::note(&format!(
            "{} is not up to date: {} differences; `orchestrate lock` renews it",
            path.display(),
            differences.len()
        ));
        Ok(Self { path, lock: None })
    }

    /// Whether what was made is what is locked.
    ///
    /// # Errors
    /// [`Failure::LockDiffers`].
    pub fn compare(&self, report: &BuildReport) -> Result<(), Failure> {
        let Some(lock) = &self.lock else { return Ok(()) };
        let made = report.actions.values();
        let made = made.filter_map(|action| Some((action.name.as_str(), action.result.as_ref()?.tree)));
        let differences = lock.other_artifacts(made);
        if differences.is_empty() {
            return Ok(());
        }
        Err(Failure::LockDiffers {
            path: self.path.clone(),
            differences,
            advice: "`orchestrate build --check` tells which tensor differs from one run to the next",
        })
    }
}

/// In what the present recipe, whose file is `recipe`, and its files differ from `lock`.
///
/// # Errors
/// If an input file cannot be read.
pub fn differences(
    lock: &Lock,
    recipe: &Path,
    session: &Session,
    store: &Store,
    steps: &[String],
) -> Result<Vec<LockDifference>, Failure> {
    let graph = &session.lowered.graph;
    let artifact = |id: ActionId| lock.artifact(&graph.get(id).name);
    let documents = documents(graph, store, &session.lowered.targets(steps), &artifact)?;
    Ok(lock.differences(graph, &documents, folder_of(recipe), steps.is_empty()))
}

/// The folder of `recipe`, as its files' paths begin.
pub fn folder_of(recipe: &Path) -> &Path {
    recipe.parent().unwrap_or(Path::new(""))
}
