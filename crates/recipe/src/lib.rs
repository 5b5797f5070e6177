//! The recipe language: from TOML text to a checked [`Recipe`], and from there to the engine's actions.
//!
//! The first half knows the language alone: [`Recipe::load`] is its door, and everything wrong with a recipe comes out
//! of it at once as [`RecipeErrors`]. Nothing here trains or runs anything.

mod check;
mod continuation;
mod data;
mod demand;
mod deployed;
mod diagnostic;
mod estimate;
mod fit;
mod flow;
pub mod gate;
mod graph;
mod header;
mod kinds;
mod load;
pub mod lock;
mod lower;
mod lowered;
mod model;
mod named;
mod node;
mod overlay;
mod parse;
mod path;
mod recipe;
mod references;
pub mod report;
pub mod schema;
mod section;
mod shape;
mod source;
mod steps;
mod suggest;
mod variables;

pub use continuation::continuation;
pub use deployed::{
    Device, Latency, ModelError, Prediction, Predictor, check_config, check_folder, describe_difference,
    evaluate_folder, on_pool, open_device, prepare_process,
};
pub use diagnostic::{Finding, RecipeErrors};
pub use kinds::{ActionKind, Kinds};
pub use load::{Loaded, Overrides};
pub use lowered::{Lowered, LoweredStep};
pub use recipe::{Bounds, Data, Gate, Recipe, Step, StepKind};
pub use steps::{Distill, Evaluate, Export, Prune, Quantize, Train};
