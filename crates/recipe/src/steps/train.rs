//! `kind = "train"`: a model is trained from a seed or from pretrained weights, or these are taken as they are.

use super::training::Beginning;
use crate::model::Model;
use crate::section::{Named, Section};
use crate::source::Place;
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::steps::TrainSettings;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A train step.
#[derive(Debug, Clone, PartialEq)]
pub struct Train {
    /// Name of the data set.
    pub data: String,
    /// Architecture, start and training.
    pub settings: TrainSettings,
    /// The files of pretrained weights by role; none if it starts from the seed.
    pub files: BTreeMap<String, PathBuf>,
}

/// What the section says.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub data: Named,
    pub model: Named,
    /// Of `epochs`, if they are 0.
    pub no_epochs: Option<Place>,
    training: Beginning,
}

impl Draft {
    pub(super) fn read(mut section: Section, device: DeviceChoice) -> Option<Self> {
        section.turns_out_to_be("a train step");
        let data = section.needed_reference("data", "data set");
        let model = section.needed_reference("model", "model");
        let training = Beginning::read(&mut section, 0, device);
        let epochs_place = section.place_of("epochs");
        section.done(|| {
            Some(Self {
                data: data?,
                model: model?,
                no_epochs: epochs_place.filter(|_| training.epochs() == 0),
                training,
            })
        })
    }

    pub(super) fn finish(self, data: String, model: impl Fn(&Named) -> Model) -> Train {
        let (spec, start) = model(&self.model).into_parts();
        let training = self.training.of_model(start.is_some());
        let (pretrained, files) = start.map(|start| (start.settings, start.files)).unzip();
        Train {
            data,
            settings: TrainSettings {
                model: spec,
                pretrained,
                training,
            },
            files: files.unwrap_or_default(),
        }
    }
}
