//! `kind = "distill"`: a student is trained towards a teacher (Hinton et al. 2015).

use super::training::{self, Beginning};
use crate::model::Model;
use crate::section::{Named, Section};
use crate::source::Place;
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::distillation::Distillation;
use orchestrate_ml::steps::{DistillSettings, Initialization};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A distill step.
#[derive(Debug, Clone, PartialEq)]
pub struct Distill {
    /// Name of the data set.
    pub data: String,
    /// The step that makes the teacher.
    pub teacher: String,
    /// The student, how it starts, listens and is trained.
    pub settings: DistillSettings,
    /// The files of the student's pretrained weights by role; none if it does not start from such.
    pub files: BTreeMap<String, PathBuf>,
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
    training: Beginning,
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
        let training = Beginning::read(&mut section, 1, device);
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

    pub(super) fn finish(self, data: String, model: impl Fn(&Named) -> Model) -> Distill {
        let (spec, start) = model(&self.model).into_parts();
        let training = self.training.of_model(start.is_some());
        let (pretrained, files) = start.map(|start| (start.settings, start.files)).unzip();
        Distill {
            data,
            settings: DistillSettings {
                model: spec,
                pretrained,
                initialize: self.initialize,
                distillation: self.distillation,
                training,
            },
            files: files.unwrap_or_default(),
            teacher: self.teacher.name,
        }
    }
}
