//! What most commands start with: the recipe, its actions, and the store.

use crate::arguments::{CacheArguments, RecipeArguments};
use crate::exit::Failure;
use crate::output;
use orchestrate_engine::{EngineError, Store, StoreError, Variant};
use orchestrate_recipe::{Finding, Loaded, Lowered, Overrides, Recipe, open_device};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A recipe that was read, checked and lowered.
pub struct Session {
    pub recipe: Recipe,
    pub text: String,
    /// Which variant of the recipe it is.
    pub variant: Variant,
    pub lowered: Lowered,
    /// What looks like an oversight in the recipe; it was shown.
    pub warnings: Vec<Finding>,
    /// Where each step is written, to show.
    pub step_places: BTreeMap<String, String>,
}

impl Session {
    /// Reads the recipe that the command line names, and shows its warnings.
    ///
    /// # Errors
    /// Everything that is wrong with the recipe; [`Failure::Usage`] if its path is not UTF-8.
    pub fn open(arguments: &RecipeArguments) -> Result<Self, Failure> {
        require_utf8("the recipe", &arguments.recipe)?;
        let overrides = Overrides {
            profile: arguments.profile.clone(),
            set: arguments.set.clone(),
            device: arguments.device.clone(),
            current_folder: PathBuf::new(),
        };
        let Loaded {
            recipe,
            warnings,
            text,
            variant,
            step_places,
        } = Recipe::load(&arguments.recipe, &overrides)?;
        for warning in &warnings {
            output::show_diagnostic(warning);
        }
        let lowered = Lowered::new(&recipe).map_err(EngineError::from)?;
        Ok(Self {
            recipe,
            text,
            variant,
            lowered,
            warnings,
            step_places,
        })
    }

    /// Refuses a device that is not there before anything runs.
    ///
    /// # Errors
    /// [`Failure::Model`], with what to do.
    pub fn require_device(&self) -> Result<(), Failure> {
        open_device(self.recipe.device.name())?;
        Ok(())
    }

    /// Refuses names that are no steps of the recipe.
    ///
    /// # Errors
    /// [`Failure::Usage`], with the names there are.
    pub fn require_steps(&self, names: &[String]) -> Result<(), Failure> {
        match names.iter().find(|name| self.lowered.step(name).is_none()) {
            None => Ok(()),
            Some(unknown) => {
                let known: Vec<&str> = self.lowered.steps.iter().map(|step| step.name.as_str()).collect();
                let known = known.join(", ");
                Err(Failure::Usage(format!(
                    "there is no step `{unknown}` in the recipe; its steps are {known}"
                )))
            }
        }
    }
}

/// Opens the store that the command line names.
///
/// # Errors
/// [`Failure::Usage`] if its path is not UTF-8, and the store's own.
pub fn open_store(arguments: &CacheArguments) -> Result<Store, Failure> {
    require_utf8("--cache", &arguments.cache)?;
    Ok(Store::open(&arguments.cache)?)
}

/// Opens the store that the command line names for a command that only asks, which does with one that cannot be written.
/// Where it can be, the digests of large inputs are remembered.
///
/// # Errors
/// As [`open_store`].
pub fn open_store_to_ask(arguments: &CacheArguments) -> Result<Store, Failure> {
    match open_store(arguments) {
        Err(Failure::Engine(EngineError::Store(StoreError::NotWritable { .. }))) => {
            Ok(Store::open_to_read(&arguments.cache)?)
        }
        opened => opened,
    }
}

/// Refuses a path that orders to workers and JSON cannot hold; `option` is how the command line calls it.
///
/// # Errors
/// [`Failure::Usage`].
pub fn require_utf8(option: &str, path: &Path) -> Result<(), Failure> {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match whole.to_str() {
        Some(_) => Ok(()),
        None => Err(Failure::Usage(format!(
            "{option}: the path {} is not UTF-8; use a folder whose whole path is",
            whole.display()
        ))),
    }
}
