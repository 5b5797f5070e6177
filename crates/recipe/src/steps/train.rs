//! `kind = "train"`: a model is trained from a seed.

use super::training::{self, FROM_SCRATCH};
use crate::section::{Named, Section};
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::models::ModelSpec;
use orchestrate_ml::steps::TrainSettings;
use orchestrate_ml::training::Training;

/// A train step.
#[derive(Debug, Clone, PartialEq)]
pub struct Train {
    /// Name of the data set.
    pub data: String,
    /// Architecture and training.
    pub settings: TrainSettings,
}

/// What the section says.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub data: Named,
    pub model: Named,
    training: Training,
}

impl Draft {
    pub(super) fn read(mut section: Section, device: DeviceChoice) -> Option<Self> {
        section.turns_out_to_be("a train step");
        let data = section.needed_reference("data", "data set");
        let model = section.needed_reference("model", "model");
        let training = training::read(&mut section, FROM_SCRATCH, device);
        section.done(|| {
            Some(Self {
                data: data?,
                model: model?,
                training,
            })
        })
    }

    pub(super) fn finish(self, data: String, spec: impl Fn(&Named) -> ModelSpec) -> Train {
        Train {
            data,
            settings: TrainSettings {
                model: spec(&self.model),
                training: self.training,
            },
        }
    }
}
