//! What becomes of a training that is made longer or shorter: said where a rerun is explained.
//!
//! It is a forecast from the parameters alone: whether there is a checkpoint, only the training itself finds out.

use orchestrate_engine::{Action, Change};
use orchestrate_ml::schedule::{Rates, Schedule};
use orchestrate_ml::training::Training;
use serde::Deserialize;

/// How the rerun of `action` makes use of its last run, if only the length of its training changed.
pub fn continuation(action: &Action, changes: &[Change]) -> Option<String> {
    let is_of_length = |change: &Change| match change {
        Change::Parameter { path, .. } => path.ends_with("training.epochs") || path.ends_with("training.max_steps"),
        Change::Schema { .. }
        | Change::Kind { .. }
        | Change::KindVersion { .. }
        | Change::Seed { .. }
        | Change::Numerics { .. }
        | Change::Input { .. } => false,
    };
    if changes.is_empty() || !changes.iter().all(is_of_length) {
        return None;
    }
    let parameters = &action.parameters;
    let training = parameters
        .get("training")
        .or_else(|| parameters.pointer("/finetune/training"))?;
    let training = Training::deserialize(training).ok()?;
    // Any length does: whether steps are shared does not depend on it.
    let goes_on = Rates::new(&training, 1000, 100).shared() > 0;
    Some(match (goes_on, training.schedule) {
        (true, _) => "it goes on where the other one's course was the same".to_owned(),
        (false, Schedule::Constant) => {
            "it starts anew, since the warm-up is a fraction of all steps: with `warmup = 0` a longer one would go on"
                .to_owned()
        }
        (false, Schedule::Linear | Schedule::Cosine | Schedule::WarmupStableDecay) => {
            "it starts anew, since the rate of every step depends on how many there are: with `lr_schedule = \
             \"warmup_stable_decay\"` a longer one would go on"
                .to_owned()
        }
    })
}
