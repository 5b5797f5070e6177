//! `kind = "distill"`: a student is trained towards a teacher (Hinton et al. 2015).

use super::training::{self, FROM_SCRATCH};
use crate::section::{Named, Section};
use crate::source::Place;
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::distillation::Distillation;
use orchestrate_ml::models::ModelSpec;
use orchestrate_ml::steps::{DistillSettings, Initialization};
use orchestrate_ml::training::Training;

/// A distill step.
#[derive(Debug, Clone, PartialEq)]
pub struct Distill {
    /// Name of the data set.
    pub data: String,
    /// The step that makes the teacher.
    pub teacher: String,
    /// The student, how it starts, listens and is trained.
    pub settings: DistillSettings,
}

/// What the section says.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub teacher: Named,
    pub model: Named,
    pub data: Option<Named>,
    pub initialize: Initialization,
    /// Of `initialize`, if it is set.
    pub initialize_place: Option<Place>,
    distillation: Distillation,
    training: Training,
}

impl Draft {
    pub(super) fn read(mut section: Section, device: DeviceChoice) -> Option<Self> {
        section.turns_out_to_be("a distill step");
        let teacher = section.needed_reference("teacher", "step");
        let model = section.needed_reference("model", "model");
        let data = section.reference("data", "data set");
        let initialize = section.choice(
            "initialize",
            &[("random", Initialization::Random), ("teacher", Initialization::Teacher)],
        );
        let initialize_place = section.place_of("initialize");
        let distillation = training::read_distillation(&mut section);
        let training = training::read(&mut section, FROM_SCRATCH, device);
        section.done(|| {
            Some(Self {
                teacher: teacher?,
                model: model?,
                data,
                initialize: initialize.unwrap_or(Initialization::Random),
                initialize_place,
                distillation,
                training,
            })
        })
    }

    pub(super) fn finish(self, data: String, spec: impl Fn(&Named) -> ModelSpec) -> Distill {
        Distill {
            data,
            settings: DistillSettings {
                model: spec(&self.model),
                initialize: self.initialize,
                distillation: self.distillation,
                training: self.training,
            },
            teacher: self.teacher.name,
        }
    }
}
