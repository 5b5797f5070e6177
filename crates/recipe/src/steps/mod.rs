//! The step kinds, one a file: what each is, and how it is read from its section.
//!
//! A step is read into a draft, whose references are names with places; once they have been looked up, the draft
//! becomes the step.

pub(crate) mod distill;
mod evaluate;
pub(crate) mod export;
pub(crate) mod prune;
pub(crate) mod quantize;
pub(crate) mod train;
pub(crate) mod training;

pub use distill::Distill;
pub use evaluate::Evaluate;
pub use export::Export;
pub use prune::Prune;
pub use quantize::Quantize;
pub use train::Train;

use crate::model::Model;
use crate::recipe::StepKind;
use crate::section::{Named, Section};
use orchestrate_ml::device::DeviceChoice;
use std::collections::BTreeMap;

/// A step whose references have not been looked up.
#[derive(Debug, Clone)]
pub(crate) enum Draft {
    Train(train::Draft),
    Distill(distill::Draft),
    Prune(prune::Draft),
    Quantize(quantize::Draft),
    Export(export::Draft),
    Evaluate(evaluate::Draft),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Train,
    Distill,
    Prune,
    Quantize,
    Export,
    Evaluate,
}

impl Draft {
    /// Reads a step of any kind, to run on `device`, which is known.
    pub fn read(mut section: Section, device: DeviceChoice) -> Option<Self> {
        let kind = section.choice(
            "kind",
            &[
                ("train", Kind::Train),
                ("distill", Kind::Distill),
                ("prune", Kind::Prune),
                ("quantize", Kind::Quantize),
                ("export", Kind::Export),
                ("evaluate", Kind::Evaluate),
            ],
        );
        section.require("kind", "\"train\"");
        match kind {
            None => section.given_up(),
            Some(Kind::Train) => train::Draft::read(section, device).map(Self::Train),
            Some(Kind::Distill) => distill::Draft::read(section, device).map(Self::Distill),
            Some(Kind::Prune) => prune::Draft::read(section, device).map(Self::Prune),
            Some(Kind::Quantize) => quantize::Draft::read(section, device).map(Self::Quantize),
            Some(Kind::Export) => export::Draft::read(section).map(Self::Export),
            Some(Kind::Evaluate) => evaluate::Draft::read(section).map(Self::Evaluate),
        }
    }

    /// The step whose model is worked on, if there is one.
    pub fn input(&self) -> Option<&Named> {
        match self {
            Self::Train(_) | Self::Distill(_) => None,
            Self::Prune(draft) => Some(&draft.input),
            Self::Quantize(draft) => Some(&draft.input),
            Self::Export(draft) => Some(&draft.input),
            Self::Evaluate(draft) => Some(&draft.input),
        }
    }

    /// The step whose model is listened to, if there is one.
    pub fn teacher(&self) -> Option<&Named> {
        match self {
            Self::Train(_) | Self::Export(_) | Self::Evaluate(_) => None,
            Self::Distill(draft) => Some(&draft.teacher),
            Self::Prune(draft) => draft.teacher.as_ref(),
            Self::Quantize(draft) => draft.teacher.as_ref(),
        }
    }

    /// The steps that this one needs.
    pub fn links(&self) -> Vec<&Named> {
        self.input().into_iter().chain(self.teacher()).collect()
    }

    /// The data set that the step names itself.
    pub fn data(&self) -> Option<&Named> {
        match self {
            Self::Train(draft) => Some(&draft.data),
            Self::Distill(draft) => draft.data.as_ref(),
            Self::Prune(draft) => draft.data.as_ref(),
            Self::Quantize(draft) => draft.data.as_ref(),
            Self::Export(_) => None,
            Self::Evaluate(draft) => draft.data.as_ref(),
        }
    }

    /// The model that the step starts anew.
    pub fn model(&self) -> Option<&Named> {
        match self {
            Self::Train(draft) => Some(&draft.model),
            Self::Distill(draft) => Some(&draft.model),
            Self::Prune(_) | Self::Quantize(_) | Self::Export(_) | Self::Evaluate(_) => None,
        }
    }

    /// The step, on the data set `data`. `models` has the model that the draft names.
    pub fn finish(self, data: String, models: &BTreeMap<String, Model>) -> StepKind {
        let model = |named: &Named| {
            models
                .get(&named.name)
                .cloned()
                .expect("a step is finished only if its model was read")
        };
        match self {
            Self::Train(draft) => StepKind::Train(draft.finish(data, model)),
            Self::Distill(draft) => StepKind::Distill(draft.finish(data, model)),
            Self::Prune(draft) => StepKind::Prune(draft.finish(data)),
            Self::Quantize(draft) => StepKind::Quantize(draft.finish(data)),
            Self::Export(draft) => StepKind::Export(draft.finish(data)),
            Self::Evaluate(draft) => StepKind::Evaluate(draft.finish(data)),
        }
    }
}
