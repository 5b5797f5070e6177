//! What the actions of a recipe take of the machine while they run.
//!
//! Invariant: what works on a GPU asks for it alone, since two trainings on one GPU may not both fit into its memory.
//! Models in integers run on the processor whatever the recipe's device is, and so does what neither trains nor runs a
//! model.

use crate::recipe::Recipe;
use orchestrate_engine::Demand;
use orchestrate_ml::device::DeviceChoice;

/// The demands of a recipe's actions.
pub(crate) struct Demands<'a> {
    recipe: &'a Recipe,
    is_on_gpu: bool,
}

impl<'a> Demands<'a> {
    /// Looks up the device of `recipe`.
    pub fn new(recipe: &'a Recipe) -> Self {
        let is_on_gpu = match recipe.device.resolve() {
            DeviceChoice::Cuda | DeviceChoice::Metal => true,
            DeviceChoice::Cpu | DeviceChoice::Auto => false,
        };
        Self { recipe, is_on_gpu }
    }

    /// Training a model in floats, or running it.
    pub fn of_floats(&self) -> Demand {
        if self.is_on_gpu { Demand::Device } else { Demand::Slot }
    }

    /// Evaluating the model of `step`. What is timed has the whole machine, so that nothing disturbs it.
    pub fn of_evaluation(&self, step: &str) -> Demand {
        if self.recipe.latency_seconds > 0.0 {
            Demand::Whole
        } else if self.is_on_gpu && !self.recipe.is_in_integers(step) {
            Demand::Device
        } else {
            Demand::Slot
        }
    }
}
